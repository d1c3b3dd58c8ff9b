//! Which subprotocol a handshake gets (RFC 6455, sections 1.9 and 4.2.2): the first that the client offers and this server
//! speaks. Pure: header values in, a verdict out.

use std::collections::BTreeMap;

use crate::protocol::{ProtocolId, REGISTRY, Subprotocol, raw};

/// Before a token that a browser smuggles in as a subprotocol, because it can set no other header.
pub const TOKEN_PREFIX: &str = "passerelle.token.";

/// How many offered names are looked at.
pub const OFFERS_MAX: usize = 64;

/// What a handshake asked for and gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated<'a> {
    /// The subprotocol.
    pub verdict: Verdict<'a>,
    /// The token among the offered names, if there was one. It is never echoed.
    pub token: Option<&'a str>,
}

/// The subprotocol of a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// An offered one.
    Chosen {
        /// Which.
        protocol: ProtocolId,
        /// What the answer's `Sec-WebSocket-Protocol` says: the name as the client offered it, an alias perhaps.
        echo: &'a str,
    },
    /// None was offered: raw, and an answer without the header.
    NoneOffered,
    /// None that this server speaks.
    Unsupported(Unsupported<'a>),
}

/// An offer of names that this server does not speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported<'a> {
    /// What was offered, in the client's order.
    pub offered: Vec<&'a str>,
    /// The name here that is most like one of them.
    pub nearest: Option<&'static str>,
    /// Whether the handshake is to be refused with 400; else it gets raw, and an answer without the header.
    pub refused: bool,
}

/// Whether a handshake that offers only unknown names is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// It gets raw.
    Lenient,
    /// It gets 400.
    Strict,
}

impl Verdict<'_> {
    /// The subprotocol that the session speaks; none when the handshake is refused.
    pub fn protocol(&self) -> Option<ProtocolId> {
        match self {
            Self::Chosen { protocol, .. } => Some(*protocol),
            Self::Unsupported(Unsupported { refused: true, .. }) => None,
            Self::NoneOffered | Self::Unsupported(_) => Some(raw::SUBPROTOCOL.index),
        }
    }

    /// The value of the answer's `Sec-WebSocket-Protocol`; none when it has to be left out.
    pub fn echo(&self) -> Option<&str> {
        match self {
            Self::Chosen { echo, .. } => Some(echo),
            Self::NoneOffered | Self::Unsupported(_) => None,
        }
    }
}

impl Unsupported<'_> {
    /// The line for the log.
    pub fn log_line(&self) -> String {
        let offered = self.offered.join(", ");
        match self.nearest {
            Some(nearest) => format!("no subprotocol of {offered:?} is spoken here: the nearest is {nearest}"),
            None => format!("no subprotocol of {offered:?} is spoken here: there is {}", spoken_here().join(", ")),
        }
    }

    /// The JSON body of the refusal.
    pub fn body(&self) -> String {
        serde_json::json!({
            "error": "unsupported_subprotocol",
            "message": "offer one of the supported subprotocols in Sec-WebSocket-Protocol",
            "offered": self.offered,
            "supported": spoken_here(),
        })
        .to_string()
    }
}

/// The names that can be asked for.
pub fn spoken_here() -> Vec<&'static str> {
    REGISTRY.iter().filter(|row| row.negotiable).map(|row| row.name).collect()
}

/// The names in the values of `Sec-WebSocket-Protocol`, which may come as several lines or as one list.
pub fn offers<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let names = values.into_iter().flat_map(|value| value.split(',')).map(str::trim);
    names.filter(|name| !name.is_empty()).take(OFFERS_MAX).collect()
}

/// Takes the first offered name that is a registered one or an alias of one.
pub fn negotiate<'a>(offers: &[&'a str], aliases: &BTreeMap<String, String>, strictness: Strictness) -> Negotiated<'a> {
    let token = offers.iter().find_map(|name| name.strip_prefix(TOKEN_PREFIX)).filter(|token| !token.is_empty());
    let names: Vec<&str> = offers.iter().copied().filter(|name| !name.starts_with(TOKEN_PREFIX)).collect();
    let chosen = names.iter().find_map(|name| row(name, aliases).map(|row| (*name, row)));
    let verdict = match chosen {
        Some((echo, row)) => Verdict::Chosen { protocol: row.index, echo },
        None if names.is_empty() => Verdict::NoneOffered,
        None => {
            let nearest = nearest(&names);
            Verdict::Unsupported(Unsupported { offered: names, nearest, refused: strictness == Strictness::Strict })
        }
    };
    Negotiated { verdict, token }
}

fn row(name: &str, aliases: &BTreeMap<String, String>) -> Option<&'static Subprotocol> {
    let registered = aliases.get(name).map_or(name, String::as_str);
    REGISTRY.iter().find(|row| row.negotiable && row.name == registered)
}

/// How like two names must be, from 0 to 1, for one to be suggested for the other.
const LIKENESS_MIN: f64 = 0.8;

fn nearest(offered: &[&str]) -> Option<&'static str> {
    let likeness = |row: &str| {
        let values = offered.iter().map(|name| strsim::jaro_winkler(&name.to_lowercase(), row));
        values.fold(0.0, f64::max)
    };
    let likely = spoken_here().into_iter().map(|name| (likeness(name), name));
    likely
        .filter(|(value, _)| *value >= LIKENESS_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    fn lenient<'a>(offers: &[&'a str]) -> Negotiated<'a> {
        let aliases = BTreeMap::from([("events.example.org".to_owned(), "passerelle.v1.json".to_owned())]);
        negotiate(offers, &aliases, Strictness::Lenient)
    }

    #[test]
    fn the_clients_order_decides() {
        let raw_first = lenient(&["x", "passerelle.v1.raw", "passerelle.v1.json"]);
        assert_eq!(raw_first.verdict.protocol(), Some(raw::SUBPROTOCOL.index));
        assert_eq!(raw_first.verdict.echo(), Some("passerelle.v1.raw"));
        let json_first = lenient(&["passerelle.v1.json", "passerelle.v1.raw"]);
        assert_eq!(json_first.verdict.protocol(), Some(json::SUBPROTOCOL.index));
    }

    #[test]
    fn an_alias_is_echoed_as_it_was_offered() {
        let negotiated = lenient(&["events.example.org"]);
        assert_eq!(negotiated.verdict.echo(), Some("events.example.org"));
        assert_eq!(negotiated.verdict.protocol(), Some(json::SUBPROTOCOL.index));
    }

    #[test]
    fn a_token_is_taken_out_and_never_echoed() {
        let negotiated = lenient(&["passerelle.token.abc.def.ghi", "passerelle.v1.json"]);
        assert_eq!(negotiated.token, Some("abc.def.ghi"));
        assert_eq!(negotiated.verdict.echo(), Some("passerelle.v1.json"));
        let alone = lenient(&["passerelle.token.abc"]);
        assert_eq!((alone.token, alone.verdict), (Some("abc"), Verdict::NoneOffered));
        let unsupported = negotiate(&["passerelle.token.abc", "soap"], &BTreeMap::new(), Strictness::Strict).verdict;
        assert!(!format!("{unsupported:?}").contains("abc"));
    }

    #[test]
    fn what_nobody_speaks_gets_raw_or_is_refused() {
        let Verdict::Unsupported(unsupported) = lenient(&["Passerelle.V1.Jason"]).verdict else { panic!() };
        assert_eq!(unsupported.nearest, Some("passerelle.v1.json"));
        assert!(unsupported.log_line().contains("the nearest is passerelle.v1.json"));
        let strict = negotiate(&["soap", "sse"], &BTreeMap::new(), Strictness::Strict).verdict;
        assert_eq!((strict.protocol(), strict.echo()), (None, None));
        let Verdict::Unsupported(refused) = strict else { panic!() };
        let body: serde_json::Value = serde_json::from_str(&refused.body()).unwrap();
        assert_eq!(body["supported"], serde_json::json!(spoken_here()));
        assert_eq!(body["offered"], serde_json::json!(["soap", "sse"]));
    }

    #[test]
    fn lines_and_lists_are_the_same() {
        assert_eq!(offers(["soap, wamp", "", " ,xmpp ,"]), ["soap", "wamp", "xmpp"]);
        assert_eq!(offers([",".repeat(5000).as_str()]), Vec::<&str>::new());
        assert_eq!(offers(["a,".repeat(5000).as_str()]).len(), OFFERS_MAX);
    }

    /// A header's values in one direction of a recorded handshake.
    fn values<'a>(transcript: &'a str, direction: &str, header: &str) -> Vec<&'a str> {
        let lines = transcript.lines().filter_map(|line| line.strip_prefix(direction)?.split_once(": "));
        lines.filter(|(name, _)| name.eq_ignore_ascii_case(header)).map(|(_, value)| value).collect()
    }

    #[test]
    fn recorded_handshakes_get_the_recorded_answer() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/handshakes");
        let mut upgraded = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let transcript = std::fs::read_to_string(&path).unwrap();
            if !transcript.contains("\n< HTTP/1.1 101 ") {
                continue;
            }
            upgraded += 1;
            let offered = offers(values(&transcript, "> ", "Sec-WebSocket-Protocol"));
            let negotiated = negotiate(&offered, &BTreeMap::new(), Strictness::Lenient);
            let answered = values(&transcript, "< ", "Sec-WebSocket-Protocol");
            assert_eq!(negotiated.verdict.echo(), answered.first().copied(), "{}", path.display());
            assert_eq!(values(&transcript, "< ", "Sec-WebSocket-Extensions"), Vec::<&str>::new());
        }
        assert!(upgraded >= 7, "the handshakes are not all there");
    }
}
