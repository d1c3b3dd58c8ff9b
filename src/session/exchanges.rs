//! The exchanges that clients may name instead of a source, where their protocol knows exchanges.

use crate::config::{ExchangeKind, Settings};
use crate::model::topic::Pattern;
use crate::protocol::Only;

/// Bytes of a name that a sentence repeats.
const QUOTED_BYTES_MAX: usize = 120;

/// Which source reads which exchange.
#[derive(Debug, Clone, Default)]
pub struct Exchanges(Vec<Entry>);

#[derive(Debug, Clone)]
struct Entry {
    exchange: String,
    source: String,
    /// Whether it looks at routing keys, so that a subscription without one wants only what has none.
    keyed: bool,
}

impl Exchanges {
    /// Those of a configuration.
    pub fn new(settings: &Settings) -> Self {
        let entry = |source: &crate::config::Source| {
            let (exchange, kind, _) = source.input.exchange()?;
            let keyed = matches!(kind, ExchangeKind::Topic | ExchangeKind::Direct);
            Some(Entry { exchange: exchange.to_owned(), source: source.name.clone(), keyed })
        };
        Self(settings.sources.iter().filter_map(entry).collect())
    }

    /// What a client wants, by the name of a source: of two that read one exchange the first.
    ///
    /// # Errors
    /// A sentence that says what to do, when no source reads the exchange.
    pub(super) fn resolve(&self, pattern: Pattern, only: Option<Only>) -> Result<(Pattern, Option<String>), String> {
        let name = match only {
            None => return Ok((pattern, None)),
            Some(Only::Source(name)) => return Ok((pattern, Some(name))),
            Some(Only::Exchange(name)) => name,
        };
        let Some(entry) = self.0.iter().find(|entry| entry.exchange == name) else {
            let shown = name.get(..name.floor_char_boundary(QUOTED_BYTES_MAX)).unwrap_or_default();
            return Err(format!("no source of this server reads exchange {shown:?}: set source.NAME.exchange"));
        };
        let unkeyed = !entry.keyed && pattern.as_str().is_empty();
        Ok((if unkeyed { Pattern::all() } else { pattern }, Some(entry.source.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ExchangeInput, Input, Source};

    fn exchanges() -> Exchanges {
        let source = |name: &str, exchange: &str, kind| {
            let input = Input::Exchange(ExchangeInput { kind, ..ExchangeInput::new(exchange) });
            Source { name: name.into(), input, ..Source::events() }
        };
        let sources = vec![
            source("events", "amq.topic", ExchangeKind::Topic),
            source("all", "amq.fanout", ExchangeKind::Fanout),
            source("again", "amq.topic", ExchangeKind::Topic),
        ];
        Exchanges::new(&Settings { sources, ..Settings::default() })
    }

    fn resolved(pattern: &str, exchange: &str) -> Result<(String, String), String> {
        let resolved = exchanges().resolve(Pattern::parse(pattern).unwrap(), Some(Only::Exchange(exchange.into())));
        resolved.map(|(pattern, source)| (pattern.to_string(), source.unwrap()))
    }

    #[test]
    fn an_exchange_stands_for_the_first_source_that_reads_it() {
        assert_eq!(resolved("a.#", "amq.topic"), Ok(("a.#".into(), "events".into())));
        assert!(resolved("a.#", "amq.direct").unwrap_err().contains("set source.NAME.exchange"));
    }

    #[test]
    fn without_a_key_an_exchange_that_looks_at_none_gives_everything() {
        assert_eq!(resolved("", "amq.fanout"), Ok(("#".into(), "all".into())));
        assert_eq!(resolved("", "amq.topic"), Ok((String::new(), "events".into())));
    }
}
