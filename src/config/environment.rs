//! Reads `PASSERELLE_A__B` variables into values, and tells which names that begin so are not configuration.

use super::key::{self, Key};
use super::raw::{Entry, Mistake, Origin, Raw};
use super::value::Value;

/// What our variables begin with.
const PREFIX: &str = "PASSERELLE_";

/// Variables that commands read themselves: the file's name, and the token of `sub` and `pub`.
const OF_COMMANDS: &[&str] = &["PASSERELLE_CONFIG", "PASSERELLE_TOKEN"];

/// Reads one variable into `raw`. An empty one counts as not set.
pub(super) fn read(name: &str, text: &str, raw: &mut Raw, mistakes: &mut Vec<Mistake>) {
    let Some(rest) = name.strip_prefix(PREFIX) else { return };
    let origin = Origin::Environment(name.to_owned());
    let segments = segments(rest, raw);
    match key::find(&segments) {
        Some(_) if text.is_empty() => {}
        Some(key) => value(&segments, key, text, origin, (raw, mistakes)),
        None => {
            let sentence = match nearest(rest, &segments) {
                Some(known) => format!("is not known: did you mean {known}?"),
                None => "is not known: names are PASSERELLE_, the table, two underscores, the key".into(),
            };
            mistakes.push(Mistake { origin, path: String::new(), sentence });
        }
    }
}

/// Whether a variable of this name is meant as configuration, known or not.
pub(super) fn is_ours(name: &str, text: &str) -> bool {
    name.starts_with(PREFIX) && !OF_COMMANDS.contains(&name) && !is_service_link(name, text)
}

fn value(segments: &[String], key: &'static Key, text: &str, origin: Origin, out: (&mut Raw, &mut Vec<Mistake>)) {
    let (raw, mistakes) = out;
    match Value::parse(key.kind, text) {
        Ok(value) => raw.set(segments, Entry { key, value, origin }),
        Err(sentence) => {
            raw.set_unreadable(segments, &origin);
            mistakes.push(Mistake { origin, path: key::dotted(segments), sentence });
        }
    }
}

/// The path that a variable names. Names of the user's choosing are found again whatever their case in the file, and with
/// `_` for `-`, which no shell allows in a variable.
fn segments(rest: &str, raw: &Raw) -> Vec<String> {
    let mut segments: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
    if let [table, name, ..] = segments.as_mut_slice() {
        let spelled = |known: &String| known.to_lowercase().replace('-', "_") == *name;
        if let Some(known) = raw.names(table).into_iter().find(spelled) {
            *name = known;
        }
    }
    segments
}

fn nearest(rest: &str, segments: &[String]) -> Option<String> {
    let candidates: Vec<String> = key::keys().map(|key| key::variable(&key::named(key.path, segments))).collect();
    let given = format!("{PREFIX}{}", rest.to_uppercase());
    // A single underscore where two belong is the usual slip: compared without them, such a name is exact.
    let flat = |name: &str| name.replace('_', "");
    let exact = candidates.iter().find(|candidate| flat(candidate) == flat(&given));
    exact.map(String::as_str).or_else(|| key::nearest(&given, candidates.iter().map(String::as_str))).map(str::to_owned)
}

/// Kubernetes tells every pod about every service in variables: a service called `passerelle` makes
/// `PASSERELLE_SERVICE_HOST`, `PASSERELLE_PORT=tcp://…`, `PASSERELLE_PORT_8080_TCP_ADDR` and so on. Nobody typed those.
fn is_service_link(name: &str, text: &str) -> bool {
    if name.contains("__") {
        return false;
    }
    let parts: Vec<&str> = name.split('_').collect();
    match parts.as_slice() {
        [.., "SERVICE", "HOST" | "PORT"] => true,
        parts if parts.windows(2).any(|pair| pair == ["SERVICE", "PORT"] || is_numbered_port(pair)) => true,
        parts => parts.last() == Some(&"PORT") && text.contains("://"),
    }
}

fn is_numbered_port(pair: &[&str]) -> bool {
    matches!(pair, ["PORT", number] if number.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(name: &str, text: &str) -> (Raw, Vec<Mistake>) {
        let (mut raw, mut mistakes) = (Raw::default(), Vec::new());
        read(name, text, &mut raw, &mut mistakes);
        (raw, mistakes)
    }

    #[test]
    fn double_underscores_are_dots() {
        let (raw, mistakes) = read_one("PASSERELLE_SOURCE__EVENTS__LOG__AGE_MAX", "5m");
        assert!(mistakes.is_empty());
        assert_eq!(raw.entry("source.events.log.age_max").unwrap().value.to_toml(), "\"5m\"");
        assert_eq!(raw.names("source"), ["events"]);
    }

    #[test]
    fn names_of_the_file_are_found_whatever_their_case() {
        let (mut raw, mut mistakes) = (Raw::default(), Vec::new());
        raw.mention(&["source".into(), "Or-ders".into()], &Origin::Default);
        read("PASSERELLE_SOURCE__OR_DERS__QUEUE", "x", &mut raw, &mut mistakes);
        assert!(raw.entry("source.Or-ders.queue").is_some());
        assert_eq!(raw.names("source"), ["Or-ders"]);
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest() {
        let sentence = |name| read_one(name, "x").1.first().unwrap().to_string();
        assert_eq!(
            sentence("PASSERELLE_AMQP_URL"),
            "PASSERELLE_AMQP_URL is not known: did you mean PASSERELLE_AMQP__URL?"
        );
        assert_eq!(
            sentence("PASSERELLE_SERVER__LISTNE"),
            "PASSERELLE_SERVER__LISTNE is not known: did you mean PASSERELLE_SERVER__LISTEN?"
        );
        assert!(
            sentence("PASSERELLE_SOURCE__MINE__EXCHAGE").ends_with("did you mean PASSERELLE_SOURCE__MINE__EXCHANGE?")
        );
        assert!(sentence("PASSERELLE_FOO").ends_with("two underscores, the key"));
    }

    #[test]
    fn service_links_and_the_variables_of_commands_are_no_configuration() {
        for (name, text) in [
            ("PASSERELLE_SERVICE_HOST", "10.0.0.1"),
            ("PASSERELLE_SERVICE_PORT", "8080"),
            ("PASSERELLE_SERVICE_PORT_HTTP", "8080"),
            ("PASSERELLE_PORT", "tcp://10.0.0.1:8080"),
            ("PASSERELLE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("PASSERELLE_PORT_8080_TCP_PROTO", "tcp"),
            ("PASSERELLE_PORT_8080_TCP_PORT", "8080"),
            ("PASSERELLE_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("PASSERELLE_ADMIN_SERVICE_HOST", "10.0.0.1"),
            ("PASSERELLE_TOKEN", "secret"),
            ("PASSERELLE_CONFIG", "file"),
            ("HOME", "x"),
        ] {
            assert!(!is_ours(name, text), "{name}");
        }
        assert!(is_ours("PASSERELLE_PORT", "8080"));
        assert!(is_ours("PASSERELLE_AMQP__URL", "amqp://x"));
    }
}
