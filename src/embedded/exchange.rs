//! An exchange: its type, its bindings and which of them a message takes. Knows destinations, not what they hold.

use std::collections::{HashMap, HashSet};

use amq_protocol::types::{AMQPValue, FieldTable};

use super::fault::Fault;
use super::message::Name;
use super::queue::QueueId;
use super::table::{field, same, utf8};
use super::trie::Trie;
use crate::model::topic::Pattern;

/// What an exchange decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The whole key.
    Direct,
    /// Patterns of the key's words.
    Topic,
    /// Nothing: all get it.
    Fanout,
    /// Header fields.
    Headers,
}

/// Where a binding leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Destination {
    /// To a queue.
    Queue(QueueId),
    /// To another exchange.
    Exchange(Name),
}

/// One binding; two are the same when all of this is the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Binding {
    pub(crate) destination: Destination,
    pub(crate) key: Name,
    /// The arguments as text, because tables cannot be hashed.
    arguments: String,
}

/// How it was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declaration {
    pub(crate) kind: Kind,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    /// Where messages go that match no binding.
    pub(crate) alternate: Option<Name>,
}

/// An exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) declaration: Declaration,
    bindings: HashSet<Binding>,
    index: Index,
}

#[derive(Debug)]
enum Index {
    Direct(HashMap<Name, Vec<Destination>>),
    Topic(Trie<Destination>),
    Fanout(Vec<Destination>),
    Headers(Vec<(Binding, Condition)>),
}

/// What a binding of a headers exchange asks for.
#[derive(Debug)]
struct Condition {
    all: bool,
    fields: Vec<(String, AMQPValue)>,
}

impl Kind {
    /// The type by its name in `exchange.declare`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "direct" => Self::Direct,
            "topic" => Self::Topic,
            "fanout" => Self::Fanout,
            "headers" => Self::Headers,
            _ => return None,
        })
    }

    /// That name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Topic => "topic",
            Self::Fanout => "fanout",
            Self::Headers => "headers",
        }
    }
}

impl Binding {
    /// A binding with its arguments.
    pub(crate) fn new(destination: Destination, key: Name, arguments: &FieldTable) -> Self {
        Self { destination, key, arguments: format!("{arguments:?}") }
    }
}

impl Condition {
    fn parse(arguments: &FieldTable) -> Result<Self, Fault> {
        let mode = field(arguments, "x-match").map_or(Some("all"), utf8);
        let (all, with_x) = match mode {
            Some("all") => (true, false),
            Some("any") => (false, false),
            Some("all-with-x") => (true, true),
            Some("any-with-x") => (false, true),
            _ => return Err(Fault::precondition("x-match must be all, any, all-with-x or any-with-x")),
        };
        let counts = |name: &str| name != "x-match" && (with_x || !name.starts_with("x-"));
        let fields = arguments.into_iter().filter(|(name, _)| counts(name.as_str()));
        Ok(Self { all, fields: fields.map(|(name, value)| (name.to_string(), value.clone())).collect() })
    }

    fn holds(&self, headers: Option<&FieldTable>) -> bool {
        let matches = |(name, wanted): &(String, AMQPValue)| {
            headers
                .and_then(|headers| field(headers, name))
                .is_some_and(|sent| *wanted == AMQPValue::Void || same(wanted, sent))
        };
        if self.all { self.fields.iter().all(matches) } else { self.fields.iter().any(matches) }
    }
}

impl Exchange {
    /// An exchange without bindings.
    pub(crate) fn new(declaration: Declaration) -> Self {
        let index = match declaration.kind {
            Kind::Direct => Index::Direct(HashMap::new()),
            Kind::Topic => Index::Topic(Trie::default()),
            Kind::Fanout => Index::Fanout(Vec::new()),
            Kind::Headers => Index::Headers(Vec::new()),
        };
        Self { declaration, bindings: HashSet::new(), index }
    }

    /// How many bindings it has.
    pub(crate) fn bindings(&self) -> usize {
        self.bindings.len()
    }

    /// Adds a binding. Whether it is a new one.
    ///
    /// # Errors
    /// 406 when the key is no pattern or the arguments no condition, where they have to be.
    pub(crate) fn bind(&mut self, binding: Binding, arguments: &FieldTable) -> Result<bool, Fault> {
        if self.bindings.contains(&binding) {
            return Ok(false);
        }
        let destination = binding.destination.clone();
        match &mut self.index {
            Index::Direct(keys) => keys.entry(binding.key.clone()).or_default().push(destination),
            Index::Topic(trie) => trie.insert(&pattern(&binding.key)?, destination),
            Index::Fanout(all) => all.push(destination),
            Index::Headers(conditions) => conditions.push((binding.clone(), Condition::parse(arguments)?)),
        }
        self.bindings.insert(binding);
        Ok(true)
    }

    /// Takes a binding away. Whether it was there.
    pub(crate) fn unbind(&mut self, binding: &Binding) -> bool {
        if !self.bindings.remove(binding) {
            return false;
        }
        match &mut self.index {
            Index::Direct(keys) => {
                if let Some(bound) = keys.get_mut(&binding.key) {
                    remove_one(bound, &binding.destination);
                    if bound.is_empty() {
                        keys.remove(&binding.key);
                    }
                }
            }
            Index::Topic(trie) => {
                if let Ok(pattern) = pattern(&binding.key) {
                    trie.remove(&pattern, &binding.destination);
                }
            }
            Index::Fanout(all) => remove_one(all, &binding.destination),
            Index::Headers(conditions) => conditions.retain(|(bound, _)| bound != binding),
        }
        true
    }

    /// Takes every binding to a destination away; how many.
    pub(crate) fn unbind_all(&mut self, destination: &Destination) -> usize {
        let gone: Vec<Binding> =
            self.bindings.iter().filter(|binding| binding.destination == *destination).cloned().collect();
        gone.iter().filter(|binding| self.unbind(binding)).count()
    }

    /// Calls `found` with where a message goes; a destination may come more than once.
    pub(crate) fn route<'a>(
        &'a self,
        keys: &[Name],
        headers: Option<&FieldTable>,
        mut found: impl FnMut(&'a Destination),
    ) {
        match &self.index {
            Index::Direct(bound) => keys.iter().filter_map(|key| bound.get(key)).flatten().for_each(found),
            Index::Topic(trie) => keys.iter().for_each(|key| trie.matches(key, &mut found)),
            Index::Fanout(all) => all.iter().for_each(found),
            Index::Headers(conditions) => conditions
                .iter()
                .filter(|(_, condition)| condition.holds(headers))
                .for_each(|(binding, _)| found(&binding.destination)),
        }
    }
}

fn pattern(key: &str) -> Result<Pattern, Fault> {
    Pattern::parse(key).map_err(|error| Fault::precondition(format!("binding key '{}' {error}", key.escape_default())))
}

fn remove_one(bound: &mut Vec<Destination>, destination: &Destination) {
    if let Some(at) = bound.iter().position(|each| each == destination) {
        bound.swap_remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::short;
    use super::*;

    fn exchange(kind: Kind) -> Exchange {
        Exchange::new(Declaration { kind, durable: false, auto_delete: false, internal: false, alternate: None })
    }

    fn table(fields: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in fields {
            table.insert(short(name), value.clone());
        }
        table
    }

    fn bind(exchange: &mut Exchange, queue: u64, key: &str, arguments: &FieldTable) -> Result<bool, Fault> {
        exchange.bind(Binding::new(Destination::Queue(QueueId(queue)), key.into(), arguments), arguments)
    }

    fn routed(exchange: &Exchange, key: &str, headers: Option<&FieldTable>) -> Vec<u64> {
        let mut all = Vec::new();
        exchange.route(&[key.into()], headers, |destination| match destination {
            Destination::Queue(id) => all.push(id.0),
            Destination::Exchange(_) => {}
        });
        all.sort_unstable();
        all
    }

    #[test]
    fn each_type_decides_by_its_own() {
        let none = FieldTable::default();
        let mut direct = exchange(Kind::Direct);
        let mut fanout = exchange(Kind::Fanout);
        let mut topic = exchange(Kind::Topic);
        for each in [&mut direct, &mut fanout, &mut topic] {
            bind(each, 1, "a.b", &none).unwrap();
            bind(each, 2, "a.*", &none).unwrap();
        }
        assert_eq!(routed(&direct, "a.b", None), [1]);
        assert_eq!(routed(&fanout, "", None), [1, 2]);
        assert_eq!(routed(&topic, "a.b", None), [1, 2]);
        assert_eq!(routed(&topic, "a.c", None), [2]);
    }

    #[test]
    fn headers_match_all_or_any() {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let mut headers = exchange(Kind::Headers);
        let any = table(&[("x-match", text("any")), ("a", AMQPValue::LongInt(1)), ("b", text("x"))]);
        let all = table(&[("a", AMQPValue::LongInt(1)), ("b", AMQPValue::Void), ("x-other", text("not counted"))]);
        bind(&mut headers, 1, "", &any).unwrap();
        bind(&mut headers, 2, "", &all).unwrap();
        bind(&mut headers, 3, "", &FieldTable::default()).unwrap();
        assert_eq!(routed(&headers, "", Some(&table(&[("a", AMQPValue::LongLongInt(1))]))), [1, 3]);
        assert_eq!(routed(&headers, "", Some(&table(&[("a", AMQPValue::LongInt(1)), ("b", text("y"))]))), [1, 2, 3]);
        assert_eq!(routed(&headers, "", None), [3]);
        assert!(bind(&mut headers, 4, "", &table(&[("x-match", text("some"))])).is_err());
    }

    #[test]
    fn the_same_binding_is_there_once_and_another_stays() {
        let none = FieldTable::default();
        let with = table(&[("n", AMQPValue::LongInt(1))]);
        for kind in [Kind::Direct, Kind::Topic, Kind::Fanout, Kind::Headers] {
            let mut exchange = exchange(kind);
            assert!(bind(&mut exchange, 1, "k", &none).unwrap());
            assert!(!bind(&mut exchange, 1, "k", &none).unwrap());
            assert!(bind(&mut exchange, 1, "k", &with).unwrap());
            let binding = Binding::new(Destination::Queue(QueueId(1)), "k".into(), &none);
            assert!(exchange.unbind(&binding) && !exchange.unbind(&binding));
            assert_eq!(exchange.bindings(), 1);
            assert_eq!(routed(&exchange, "k", Some(&with)), [1]);
            assert_eq!(exchange.unbind_all(&Destination::Queue(QueueId(1))), 1);
            assert!(routed(&exchange, "k", Some(&with)).is_empty());
        }
    }
}
