//! Which queue a group of clients consumes that shares what a pattern matches. Pure: the configuration, who asks and for what,
//! and a queue with its bindings, or a verdict in words.
//!
//! The queue lies at the broker and is the same for all nodes, so each message goes to one member wherever that is connected.
//! It is bound to every exchange that a source reads whose topics are routing keys, for a pattern means topics; what no
//! binding key can say is refused.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::auth::Identity;
use crate::config::{Bindings, ExchangeKind, Settings};
use crate::model::delivery::{QueueBinding, QueueDeclaration, Share};
use crate::model::queue;
use crate::model::topic::{Pattern, Topic};

/// How long a member may hold one message: less than the 30 minutes after which RabbitMQ takes back all that a channel holds.
const HOLD_MAX: Duration = Duration::from_secs(25 * 60);

/// The exchanges that may be shared, and how queues are called and kept.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    queue_prefix: String,
    expiry: Duration,
    exchanges: Vec<Exchange>,
}

/// An exchange that a source reads.
#[derive(Debug, Clone)]
struct Exchange {
    name: String,
    section: Arc<str>,
    topic_of_empty_key: Topic,
    kind: ExchangeKind,
    /// What of it the source reads.
    reads: Vec<Pattern>,
}

/// The queue of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedQueue {
    /// Its name at the broker.
    pub queue: Topic,
    /// What it is bound to.
    pub bindings: Vec<QueueBinding>,
    /// How it is declared.
    pub declaration: QueueDeclaration,
    /// How long one delivery may be held.
    pub hold_max: Duration,
}

/// Why somebody cannot be a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoShare {
    /// They may not subscribe at all.
    #[error("you may not subscribe here")]
    Forbidden,
    /// No exchange can be bound so.
    #[error(
        "no source of this server can share this filter: one is needed that reads a topic exchange, all of what the filter \
         names and with routing keys as topics"
    )]
    Unbound,
    /// The queue would have too long a name.
    #[error("group and filter are too long together for the name of a queue, which may have 255 bytes")]
    TooLong,
}

impl Shares {
    /// Those of a configuration.
    pub fn new(settings: &Settings) -> Self {
        let exchange = |source: &crate::config::Source| {
            // A topic that is not the routing key no binding can ask for.
            if source.topic.is_some() {
                return None;
            }
            let (name, kind, bindings) = source.input.exchange()?;
            let topic_of_empty_key = Topic::parse(&source.name).ok()?;
            let reads = match bindings {
                Bindings::OnDemand | Bindings::All => vec![Pattern::all()],
                Bindings::List(patterns) => patterns.clone(),
            };
            let section = format!("source.{}", source.name).into();
            Some(Exchange { name: name.to_owned(), section, topic_of_empty_key, kind, reads })
        };
        Self {
            queue_prefix: settings.amqp.queue_prefix.clone(),
            expiry: settings.mqtt.share_expiry,
            exchanges: settings.sources.iter().filter_map(exchange).collect(),
        }
    }

    /// Opens the queue of a group to one more member.
    ///
    /// # Errors
    /// Why not, in a sentence that says what to change.
    pub fn open(&self, identity: &Identity, share: &Share) -> Result<SharedQueue, NoShare> {
        if !identity.grants.subscribe {
            return Err(NoShare::Forbidden);
        }
        let mut bindings: Vec<QueueBinding> = Vec::new();
        for exchange in &self.exchanges {
            if !bindings.iter().any(|known| known.exchange == exchange.name) {
                bindings.extend(exchange.bindings(&share.pattern));
            }
        }
        if bindings.is_empty() {
            return Err(NoShare::Unbound);
        }
        let name = format!("{}share.{}.{}", self.queue_prefix, queue::escaped(&share.group), share.pattern.as_str());
        let queue = Topic::parse(&name).map_err(|_| NoShare::TooLong)?;
        let declaration = QueueDeclaration { expires: Some(self.expiry) };
        Ok(SharedQueue { queue, bindings, declaration, hold_max: HOLD_MAX })
    }
}

impl Exchange {
    /// What brings all that the pattern matches of what the source reads.
    fn bindings(&self, pattern: &Pattern) -> Vec<QueueBinding> {
        let is_key = match self.kind {
            ExchangeKind::Topic => true,
            ExchangeKind::Direct => pattern.is_literal(),
            // There is no key, but whoever is bound gets everything.
            ExchangeKind::Fanout | ExchangeKind::Headers => *pattern == Pattern::all(),
        };
        let is_read = self.reads.iter().any(|read| read.includes(pattern));
        if !(is_key && is_read) {
            return Vec::new();
        }
        [pattern.as_str()].into_iter().chain(self.empty_key(pattern)).map(|key| self.binding(key)).collect()
    }

    /// The empty key, where the source reads it and it is to be bound beside the pattern.
    fn empty_key(&self, pattern: &Pattern) -> Option<&'static str> {
        let is_read = self.reads.iter().any(|read| read.matches(&Topic::empty()));
        (is_read && pattern.needs_empty_key(&self.topic_of_empty_key)).then_some("")
    }

    fn binding(&self, key: &str) -> QueueBinding {
        let Self { name, section, topic_of_empty_key, .. } = self;
        let (exchange, key, section) = (name.clone(), key.to_owned(), section.clone());
        QueueBinding { exchange, key, section, topic_of_empty_key: topic_of_empty_key.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Grants;
    use crate::config::{ExchangeInput, Input, Source, TemplatePart, TopicTemplate};

    const READER: Grants = Grants { subscribe: true, publish: false, consume: false };

    fn source(name: &str, exchange: &str, kind: ExchangeKind) -> Source {
        let input = Input::Exchange(ExchangeInput { kind, ..ExchangeInput::new(exchange) });
        Source { name: name.into(), input, ..Source::events() }
    }

    fn listed(mut source: Source, patterns: &[&str]) -> Source {
        if let Input::Exchange(input) = &mut source.input {
            input.bindings = Bindings::List(patterns.iter().map(|pattern| Pattern::parse(pattern).unwrap()).collect());
        }
        source
    }

    fn open(sources: Vec<Source>, group: &str, pattern: &str) -> Result<SharedQueue, NoShare> {
        let shares = Shares::new(&Settings { sources, ..Settings::default() });
        let share = Share { name: "x".into(), group: group.into(), pattern: Pattern::parse(pattern).unwrap() };
        shares.open(&Identity { user: None, expires_at: None, grants: READER }, &share)
    }

    fn bound(sources: Vec<Source>, pattern: &str) -> Vec<(String, String)> {
        let bindings = open(sources, "g", pattern).map(|queue| queue.bindings).unwrap_or_default();
        bindings.into_iter().map(|binding| (binding.exchange, binding.key)).collect()
    }

    #[test]
    fn a_group_has_one_queue_for_each_filter_on_all_nodes() {
        let name = |group, pattern| open(vec![Source::events()], group, pattern).unwrap().queue.as_str().to_owned();
        assert_eq!(name("g", "a.*.#"), "passerelle.share.g.a.*.#");
        assert_eq!(name("a.b", "c"), "passerelle.share.a%2Eb.c");
        assert_ne!(name("a.b", "c"), name("a", "b.c"));
    }

    #[test]
    fn it_is_bound_where_the_filter_is_a_binding_key() {
        let all = || {
            vec![
                source("topics", "amq.topic", ExchangeKind::Topic),
                source("again", "amq.topic", ExchangeKind::Topic),
                source("direct", "amq.direct", ExchangeKind::Direct),
                source("fanout", "amq.fanout", ExchangeKind::Fanout),
                listed(source("part", "part", ExchangeKind::Topic), &["a.#"]),
                Source {
                    topic: Some(TopicTemplate(vec![TemplatePart::Source])),
                    ..source("t", "t", ExchangeKind::Topic)
                },
            ]
        };
        let at = |exchange: &str, key: &str| (exchange.to_owned(), key.to_owned());
        assert_eq!(bound(all(), "a.b"), [at("amq.topic", "a.b"), at("amq.direct", "a.b"), at("part", "a.b")]);
        assert_eq!(bound(all(), "a.*"), [at("amq.topic", "a.*"), at("part", "a.*")]);
        assert_eq!(bound(all(), "*.b"), [at("amq.topic", "*.b")]);
        assert_eq!(bound(all(), "#"), [at("amq.topic", "#"), at("amq.fanout", "#")]);
    }

    #[test]
    fn what_has_no_key_comes_where_the_filter_means_its_source() {
        let all = || vec![source("one", "amq.topic", ExchangeKind::Topic), source("two", "d", ExchangeKind::Direct)];
        let at = |exchange: &str, key: &str| (exchange.to_owned(), key.to_owned());
        assert_eq!(bound(all(), "one"), [at("amq.topic", "one"), at("amq.topic", ""), at("d", "one")]);
        assert_eq!(bound(all(), "two"), [at("amq.topic", "two"), at("d", "two"), at("d", "")]);
        assert_eq!(bound(all(), "*"), [at("amq.topic", "*"), at("amq.topic", "")]);
        assert_eq!(bound(all(), "#")[0], at("amq.topic", "#"), "which brings it");
        let part = vec![listed(source("part", "part", ExchangeKind::Topic), &["part.#"])];
        assert_eq!(bound(part, "part"), [at("part", "part")], "the source does not read it");
    }

    #[test]
    fn what_cannot_be_shared_is_refused_in_words() {
        let direct = || vec![source("direct", "amq.direct", ExchangeKind::Direct)];
        assert_eq!(open(direct(), "g", "a.*"), Err(NoShare::Unbound));
        assert!(open(direct(), "g", "a.b").is_ok());
        let long = "x".repeat(250);
        assert_eq!(open(vec![Source::events()], "group", &long), Err(NoShare::TooLong));
        let shares = Shares::new(&Settings { sources: vec![Source::events()], ..Settings::default() });
        let share = Share { name: "x".into(), group: "g".into(), pattern: Pattern::all() };
        let nobody = Identity { user: None, expires_at: None, grants: Grants { subscribe: false, ..READER } };
        assert_eq!(shares.open(&nobody, &share), Err(NoShare::Forbidden));
    }
}
