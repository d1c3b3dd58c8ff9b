//! The broker: its addresses, which hold passwords and are never printed as they are, and the embedded one in its place.

use amq_protocol::uri::AMQPUri;

use super::{Settler, listen};
use crate::config::key::nearest;
use crate::config::raw::{Mistake, Origin};
use crate::config::{Amqp, Embedded, Secret};

/// Said when there is neither a broker nor the wish for the embedded one.
const NO_BROKER: &str = "no RabbitMQ configured: set amqp.url, PASSERELLE_AMQP__URL or --amqp, or run with --embedded";

/// What a broker's address looks like.
const EXAMPLE: &str = "amqp://user:password@host:5672/%2f";

/// How characters are written that mean something in an address.
const ESCAPES: &str = "characters such as / @ : # in user, password or vhost are written %2F %40 %3A %23";

/// What may follow the question mark of an address.
const PARAMETERS: &[&str] = &["heartbeat", "connection_timeout", "channel_max", "frame_max", "auth_mechanism"];

/// Those of them that have no effect, because keys or limits of ours stand in their place.
const OWN_KEYS: &[&str] = &["heartbeat", "connection_timeout", "frame_max"];

/// Bytes of `amqp.queue_prefix` and `amqp.node`: with the source's name and our own parts they must fit an AMQP name.
const PART_BYTES_MAX: usize = 64;

impl Settler<'_> {
    /// The embedded broker, if it is to run: of `embedded.enabled` and `amqp.url`, what was set later counts.
    pub(super) fn embedded(&mut self) -> Option<Embedded> {
        let enabled = self.entry("embedded.enabled").filter(|entry| entry.value.flag())?;
        if let Some(url) = self.entry("amqp.url") {
            if url.origin.rank() > enabled.origin.rank() {
                return None;
            }
            if url.origin.rank() == enabled.origin.rank() {
                self.mistake("embedded.enabled", format!("excludes amqp.url, set by {}: keep one of them", url.origin));
            }
        }
        let address = listen::address(&self.text("embedded.listen")).unwrap_or_else(|sentence| {
            self.mistake("embedded.listen", sentence);
            Embedded::default().listen
        });
        if !address.ip().is_loopback() {
            self.warning(
                "embedded.listen",
                format!("{address} is not on loopback, and the embedded broker knows no passwords"),
            );
        }
        Some(Embedded {
            listen: address,
            memory_bytes_max: self.number("embedded.memory_bytes_max"),
            connections_max: self.number("embedded.connections_max"),
        })
    }

    /// The broker's settings; with the embedded one, its address.
    pub(super) fn amqp(&mut self, embedded: Option<&Embedded>) -> Amqp {
        let urls = match embedded {
            Some(embedded) => vec![Secret::new(embedded.url(embedded.listen.port()))],
            None => self.urls(),
        };
        let heartbeat = self.time("amqp.heartbeat");
        if heartbeat.subsec_nanos() > 0 || heartbeat.as_secs() > u64::from(u16::MAX) {
            self.mistake(
                "amqp.heartbeat",
                "is not a number of whole seconds up to 65535, which is all that AMQP can say",
            );
        }
        let (tls_certificate, tls_key) = (self.file("amqp.tls_certificate"), self.file("amqp.tls_key"));
        match (&tls_certificate, &tls_key) {
            (Some(_), None) => self.mistake("amqp.tls_certificate", "needs amqp.tls_key beside it"),
            (None, Some(_)) => self.mistake("amqp.tls_key", "needs amqp.tls_certificate beside it"),
            _ => {}
        }
        Amqp {
            urls,
            queue_prefix: self.queue_name_part("amqp.queue_prefix"),
            node: self.queue_name_part("amqp.node"),
            prefetch: u16::try_from(self.number("amqp.prefetch")).unwrap_or(u16::MAX),
            client_queues_max: self.number("amqp.client_queues_max"),
            presence_exchange: Some(self.text("amqp.presence_exchange"))
                .filter(|name| name != "off")
                .unwrap_or_default(),
            presence_heartbeat: self.time("amqp.presence_heartbeat"),
            heartbeat,
            connect_timeout: self.time("amqp.connect_timeout"),
            backoff_max: self.time("amqp.backoff_max"),
            tls_ca: self.file("amqp.tls_ca"),
            tls_certificate,
            tls_key,
            fail_fast: self.flag("amqp.fail_fast"),
        }
    }

    fn urls(&mut self) -> Vec<Secret> {
        if !self.raw.is_set("amqp.url") {
            if !self.raw.incomplete {
                self.mistakes.push(Mistake {
                    origin: Origin::Default,
                    path: String::new(),
                    sentence: NO_BROKER.into(),
                });
            }
            return Vec::new();
        }
        let urls = self.each("amqp.url", |text| check(text).map(|()| text.to_owned()));
        if self.entry("amqp.url").is_some_and(|entry| entry.value.texts().is_empty()) {
            self.mistake("amqp.url", format!("is empty: write such as \"{EXAMPLE}\""));
        }
        for url in &urls {
            for name in parameters(url).filter(|name| OWN_KEYS.contains(name)) {
                self.warning(
                    "amqp.url",
                    format!("{} sets {name}, which the keys of [amqp] decide here: leave it out", mask(url)),
                );
            }
            if after_authority(url).split('?').next() == Some("/") {
                self.warning(
                    "amqp.url",
                    format!("{} names the vhost with the empty name: the default vhost is /%2f", mask(url)),
                );
            }
        }
        urls.into_iter().map(Secret::new).collect()
    }

    fn file(&mut self, path: &str) -> Option<std::path::PathBuf> {
        self.path(path, |file| (!file.is_file()).then_some("is not a file"))
    }

    fn queue_name_part(&mut self, path: &str) -> String {
        let text = self.text(path);
        if text.len() > PART_BYTES_MAX {
            self.mistake(path, format!("is {} bytes long: the most is {PART_BYTES_MAX}", text.len()));
        } else if text.starts_with("amq.") {
            self.mistake(path, "begins with amq., which RabbitMQ keeps for itself");
        }
        text
    }
}

impl Embedded {
    /// The address at which clients on this machine reach it, once it listens on `port`.
    pub fn url(&self, port: u16) -> String {
        let ip = match self.listen.ip() {
            ip if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("amqp://guest:guest@{}/%2f", std::net::SocketAddr::from((ip, port)))
    }
}

/// An address with the password hidden, however broken the address is: what might be one is hidden too.
pub(in crate::config) fn mask(url: &str) -> String {
    let start = url.find("://").map_or(0, |position| position + 3);
    let (scheme, rest) = url.split_at(start);
    if let Some((user_info, rest)) = rest.rsplit_once('@') {
        return match user_info.split_once(':') {
            Some((user, _)) => format!("{scheme}{user}:***@{rest}"),
            None => url.to_owned(),
        };
    }
    // Without an @ the password may stand where a port would.
    match authority(url).split_once(':') {
        Some((host, port)) if !host.starts_with('[') && !port.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{scheme}{host}:***")
        }
        _ => url.to_owned(),
    }
}

/// User, host and port.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Path and query: from the slash on.
fn after_authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.get(authority(url).len()..).unwrap_or_default()
}

/// The names of what follows the question mark.
fn parameters(url: &str) -> impl Iterator<Item = &str> {
    let query = after_authority(url).split_once('?').map(|(_, query)| query.split('&'));
    query.into_iter().flatten().map(|pair| pair.split('=').next().unwrap_or_default())
}

/// Whether an address can be used, in words that never hold its password.
fn check(url: &str) -> Result<(), String> {
    let shown = mask(url);
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("amqp" | "amqps") => {}
        Some(scheme) => {
            return Err(format!("has {shown:?}: {scheme} is not amqp or amqps: write such as \"{EXAMPLE}\""));
        }
        None => return Err(format!("has {shown:?}, which is no AMQP address: write such as \"{EXAMPLE}\"")),
    }
    let host = authority(url).rsplit('@').next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') {
        return Err(format!("has {shown:?}, which names no host: write such as \"{EXAMPLE}\""));
    }
    for name in parameters(url) {
        parameter(name, &shown)?;
    }
    // Perhaps of a password with a slash in it, which would be taken for a host and a vhost.
    if after_authority(url).contains('@') {
        return Err(format!("has {shown:?}, with an @ behind the host: {ESCAPES}"));
    }
    url.parse::<AMQPUri>().map(drop).map_err(|error| format!("has {shown:?}: {error}; {ESCAPES}"))
}

fn parameter(name: &str, shown: &str) -> Result<(), String> {
    if PARAMETERS.contains(&name) {
        return Ok(());
    }
    let hint = nearest(name, PARAMETERS.iter().copied()).map(|known| format!(": did you mean {known}?"));
    Err(format!(
        "has {shown:?}: the parameter {name:?} is not known{}",
        hint.unwrap_or_else(|| format!("; known are {}", PARAMETERS.join(", ")))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_an_address_shows_its_password() {
        for (url, expected) in [
            ("amqp://guest:secret@host:5672/%2f", "amqp://guest:***@host:5672/%2f"),
            ("amqp://guest:se/c@r:et@host", "amqp://guest:***@host"),
            ("guest:secret@host", "guest:***@host"),
            ("amqp://guest:secret", "amqp://guest:***"),
            ("amqp://guest@host", "amqp://guest@host"),
            ("amqp://host:5672", "amqp://host:5672"),
            ("amqp://:secret@host", "amqp://:***@host"),
        ] {
            assert_eq!(mask(url), expected);
            let refusal = check(url).err().unwrap_or_default();
            assert!(!refusal.contains("secret"), "{refusal}");
        }
    }

    #[test]
    fn unusable_addresses_are_refused_in_words() {
        for (url, hint) in [
            ("http://host:15672", "http is not amqp or amqps"),
            ("host:5672", "no AMQP address"),
            ("amqp://", "names no host"),
            ("amqp://u:p@:5672", "names no host"),
            ("amqp://u:p@host:99999", "invalid port number"),
            ("amqp://u:secret/x@host", "%2F"),
            ("amqp://guest:2567/secret@host", "%2F"),
            ("amqp://u:p@host:5672/secret@host", "%40"),
            ("amqp://host?heartbeet=5", "did you mean heartbeat?"),
            ("amqp://host?password=secret", "known are heartbeat"),
            ("amqp://host?heartbeat=x", "invalid digit"),
        ] {
            let sentence = check(url).unwrap_err();
            assert!(sentence.contains(hint), "{url}: {sentence}");
        }
        for url in [
            "amqp://host",
            "amqps://u:p%2Fx@host:5671/vhost?heartbeat=5&frame_max=4096",
            "amqp://10.0.0.1",
            "amqp://[::1]:5672",
        ] {
            assert_eq!(check(url), Ok(()));
        }
    }
}
