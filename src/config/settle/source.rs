//! Sources: each reads exactly one exchange, queue or stream, and no two the same messages without a word about it.

use super::route::overlap;
use super::{Settler, template};
use crate::config::value::Value;
use crate::config::{
    Bindings, ExchangeInput, ExchangeKind, Input, LastBounds, LogBounds, QueueInput, RawFrames, Rejected, Settings,
    Source, StreamInput, Supply, TemplatePart, TopicTemplate,
};
use crate::model::event_names::EventNames;
use crate::model::topic::Pattern;

use Reads::{Exchange, Queue, QueueThroughStream, Stream};

/// What a source reads, as far as that decides which keys it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Reads {
    Exchange,
    Queue,
    Stream,
    QueueThroughStream,
}

/// Keys that not every kind of source has, and which have them.
const OF_SOME: &[(&str, &[Reads])] = &[
    ("type", &[Exchange]),
    ("bindings", &[Exchange, Stream]),
    ("linger", &[Exchange]),
    ("bindings_max", &[Exchange]),
    ("queue_bytes_max", &[Exchange]),
    ("shared", &[Queue, QueueThroughStream]),
    ("rejected", &[Exchange, Queue, QueueThroughStream]),
    ("retention_age", &[Stream, QueueThroughStream]),
    ("retention_bytes", &[Stream, QueueThroughStream]),
    ("replays_max", &[Stream, QueueThroughStream]),
    ("last_rebuild", &[Stream, QueueThroughStream]),
];

impl Reads {
    /// Whether such a source has a key.
    pub(in crate::config) fn has(self, key: &str) -> bool {
        OF_SOME.iter().find(|(known, _)| *known == key).is_none_or(|(_, kinds)| kinds.contains(&self))
    }

    fn words(self) -> &'static str {
        match self {
            Exchange => "an exchange",
            Queue => "a queue",
            Stream => "a stream",
            QueueThroughStream => "a queue through a stream",
        }
    }
}

impl Settler<'_> {
    /// Every source, in the order of their names.
    pub(super) fn sources(&mut self) -> Vec<Source> {
        let mut sources = Vec::new();
        for name in self.names("source") {
            sources.extend(self.source(&name));
        }
        let events = self.event_names();
        sources.iter_mut().for_each(|source: &mut Source| source.events.clone_from(&events));
        for (position, first) in sources.iter().enumerate() {
            for second in sources.iter().skip(position + 1) {
                self.same_messages(first, second);
            }
        }
        sources
    }

    fn source(&mut self, name: &str) -> Option<Source> {
        let base = format!("source.{name}");
        let topic = self.topic(&base);
        let log = LogBounds {
            messages_max: self.number(&format!("{base}.log.messages_max")),
            bytes_max: self.number(&format!("{base}.log.bytes_max")),
            age_max: self.time(&format!("{base}.log.age_max")),
            last: LastBounds {
                each: self.number(&format!("{base}.log.last_each")),
                messages_max: self.number(&format!("{base}.log.last_messages_max")),
                bytes_max: self.number(&format!("{base}.log.last_bytes_max")),
            },
        };
        let frames = match self.text(&format!("{base}.frames")).as_str() {
            "text" => RawFrames::Text,
            "binary" => RawFrames::Binary,
            _ => RawFrames::Auto,
        };
        let rejected = match self.text(&format!("{base}.rejected")).as_str() {
            "dead-letter" => Rejected::DeadLetter,
            _ => Rejected::Acknowledge,
        };
        let input = self.input(&base, &log)?;
        if matches!(input, Input::Exchange(_))
            && topic.as_ref().is_some_and(|template| template.0.contains(&TemplatePart::Queue))
        {
            self.mistake(&format!("{base}.topic"), "has {queue}, and the source reads an exchange: use {exchange}");
        }
        let events = EventNames::default();
        Some(Source { name: name.to_owned(), input, topic, frames, events, rejected, log })
    }

    fn topic(&mut self, base: &str) -> Option<TopicTemplate> {
        let path = format!("{base}.topic");
        let text = self.entry(&path)?.value.text();
        template::read(text).map_err(|sentence| self.mistake(&path, sentence)).ok()
    }

    /// What a source reads: exactly one thing.
    fn input(&mut self, base: &str, log: &LogBounds) -> Option<Input> {
        let set = |key: &str| self.raw.is_set(&format!("{base}.{key}"));
        match (set("exchange"), set("queue"), set("stream")) {
            (true, true, _) => {
                let sentence = "stands beside exchange: a source reads one of them, so make two sources";
                self.mistake(&format!("{base}.queue"), sentence);
                None
            }
            (false, true, true) => {
                self.foreign_keys(base, QueueThroughStream);
                let supply = Supply::Queue(self.queue(base));
                // The stream is of no use but for this, so nobody else need declare it.
                Some(Input::Stream(StreamInput { declare: true, ..self.stream(base, supply) }))
            }
            (_, false, true) => {
                self.foreign_keys(base, Stream);
                let supply = self.supply(base);
                Some(Input::Stream(self.stream(base, supply)))
            }
            (false, false, false) => {
                self.mistake(base, "reads nothing: set exchange = \"…\", queue = \"…\" or stream = \"…\"");
                None
            }
            (true, false, false) => {
                self.foreign_keys(base, Exchange);
                Some(Input::Exchange(self.exchange(base, log)))
            }
            (false, true, false) => {
                self.foreign_keys(base, Queue);
                Some(Input::Queue(self.queue(base)))
            }
        }
    }

    /// Keys that are set and that this kind of source does not have.
    fn foreign_keys(&mut self, base: &str, reads: Reads) {
        for (key, _) in OF_SOME.iter().filter(|(key, _)| !reads.has(key)) {
            let path = format!("{base}.{key}");
            if self.raw.is_set(&path) {
                let sentence = format!("is no key of a source that reads {}: remove it", reads.words());
                self.mistake(&path, sentence);
            }
        }
    }

    fn exchange(&mut self, base: &str, log: &LogBounds) -> ExchangeInput {
        let exchange = self.text(&format!("{base}.exchange"));
        let declare = self.flag(&format!("{base}.declare"));
        if exchange.is_empty() && self.entry(&format!("{base}.exchange")).is_some() {
            let sentence = "is empty, which is the default exchange, and nothing can be bound to that: read a queue";
            self.mistake(&format!("{base}.exchange"), sentence);
        }
        if declare && exchange.starts_with("amq.") {
            let sentence = format!("cannot be done for {exchange}: RabbitMQ declares amq. exchanges itself");
            self.mistake(&format!("{base}.declare"), sentence);
        }
        let kind = match self.text(&format!("{base}.type")).as_str() {
            "direct" => ExchangeKind::Direct,
            "fanout" => ExchangeKind::Fanout,
            "headers" => ExchangeKind::Headers,
            _ => ExchangeKind::Topic,
        };
        let linger = self.entry(&format!("{base}.linger")).map_or(log.age_max, |entry| entry.value.time());
        ExchangeInput {
            exchange,
            kind,
            bindings: self.bindings(base, kind),
            declare,
            linger,
            bindings_max: self.number(&format!("{base}.bindings_max")),
            queue_bytes_max: self.number(&format!("{base}.queue_bytes_max")),
        }
    }

    fn bindings(&mut self, base: &str, kind: ExchangeKind) -> Bindings {
        let path = format!("{base}.bindings");
        let value = self.value(&path);
        let bindings = match &value {
            Value::Text(word) if word == "on-demand" => Bindings::OnDemand,
            Value::Text(word) if word == "all" => Bindings::All,
            // From the environment a list of one has no comma; a lone word is rather a keyword with a slip in it.
            Value::Text(word) if !word.contains(['.', '#', '*']) => {
                let sentence = format!("is {word:?}: write \"on-demand\", \"all\", or a list such as [\"orders.#\"]");
                self.mistake(&path, sentence);
                Bindings::OnDemand
            }
            _ => Bindings::List(
                self.each(&path, |text| Pattern::parse(text).map_err(|error| format!("has {text:?}, which {error}"))),
            ),
        };
        if let Some(sentence) = bindings_fault(&bindings, kind, self.entry(&path).is_some()) {
            self.mistake(&path, sentence);
        }
        if matches!(kind, ExchangeKind::Fanout | ExchangeKind::Headers) { Bindings::All } else { bindings }
    }

    fn queue(&mut self, base: &str) -> QueueInput {
        let queue = self.text(&format!("{base}.queue"));
        if queue.is_empty() && self.entry(&format!("{base}.queue")).is_some() {
            self.mistake(&format!("{base}.queue"), "is empty: name the queue");
        }
        QueueInput {
            queue,
            shared: self.flag(&format!("{base}.shared")),
            declare: self.flag(&format!("{base}.declare")),
        }
    }

    /// The exchange that fills a stream, if one does.
    fn supply(&mut self, base: &str) -> Supply {
        let path = |key: &str| format!("{base}.{key}");
        let bindings = match self.raw.is_set(&path("bindings")) {
            true => self.bindings(base, ExchangeKind::Topic),
            false => Bindings::All,
        };
        if bindings == Bindings::OnDemand {
            let sentence = "is \"on-demand\", and a stream keeps what comes whoever listens: write \"all\" or a list";
            self.mistake(&path("bindings"), sentence);
        }
        if self.entry(&path("exchange")).is_none() {
            if self.raw.is_set(&path("bindings")) {
                let sentence = "is set, and there is no exchange to bind the stream to: set exchange too";
                self.mistake(&path("bindings"), sentence);
            }
            return Supply::Others;
        }
        let exchange = self.text(&path("exchange"));
        if exchange.is_empty() {
            let sentence = "is empty, which is the default exchange, and nothing can be bound to that: remove it";
            self.mistake(&path("exchange"), sentence);
        }
        Supply::Exchange { exchange, bindings }
    }

    fn stream(&mut self, base: &str, supply: Supply) -> StreamInput {
        let path = |key: &str| format!("{base}.{key}");
        let stream = self.text(&path("stream"));
        if stream.is_empty() {
            self.mistake(&path("stream"), "is empty: name the stream");
        }
        if matches!(&supply, Supply::Queue(queue) if queue.queue == stream) {
            self.mistake(&path("stream"), "is the queue's name too: name the stream otherwise");
        }
        StreamInput {
            stream,
            supply,
            declare: self.flag(&path("declare")),
            retention_age: self.time(&path("retention_age")),
            retention_bytes: self.number(&path("retention_bytes")) as u64,
            replays_max: self.number(&path("replays_max")),
            last_rebuild: self.time(&path("last_rebuild")),
        }
    }

    /// The embedded broker has no streams.
    pub(super) fn streams_need_rabbitmq(&mut self, settings: &Settings) {
        let sources = settings.sources.iter().filter(|_| settings.embedded.is_some());
        for source in sources.filter(|source| matches!(source.input, Input::Stream(_))) {
            let sentence = "needs RabbitMQ, for the embedded broker has no streams: set amqp.url, or read an exchange or \
                            a queue";
            self.mistake(&format!("source.{}.stream", source.name), sentence);
        }
    }

    fn same_messages(&mut self, first: &Source, second: &Source) {
        if let (Some(one), Some(other)) = (first.input.queue(), second.input.queue())
            && one.queue == other.queue
        {
            let sentence =
                format!("{:?} is read by source.{} too: each message goes to one of the two", other.queue, first.name);
            self.warning(&format!("source.{}.queue", second.name), sentence);
        }
        match (&first.input, &second.input) {
            (Input::Stream(one), Input::Stream(other)) if one.stream == other.stream => {
                let path = format!("source.{}.stream", second.name);
                let sentence = format!(
                    "{:?} is read by source.{} too: subscribers get each of its messages twice",
                    other.stream, first.name
                );
                self.warning(&path, sentence);
            }
            (Input::Exchange(one), Input::Exchange(other)) if one.exchange == other.exchange => {
                if let Some(pattern) = shared_pattern(&one.bindings, &other.bindings) {
                    let path = format!("source.{}.exchange", second.name);
                    let sentence = format!(
                        "{:?} is read by source.{} too: subscribers get messages on {pattern} twice, once from each",
                        other.exchange, first.name
                    );
                    self.warning(&path, sentence);
                }
            }
            _ => {}
        }
    }
}

/// What is wrong with bindings on this kind of exchange, if anything.
fn bindings_fault(bindings: &Bindings, kind: ExchangeKind, is_set: bool) -> Option<String> {
    match (kind, bindings) {
        (_, Bindings::List(patterns)) if patterns.is_empty() => {
            Some("is empty: list at least one pattern, or write \"on-demand\" or \"all\"".into())
        }
        (ExchangeKind::Fanout | ExchangeKind::Headers, Bindings::OnDemand | Bindings::List(_)) if is_set => Some(
            "has no meaning here: fanout and headers exchanges are bound once and give everything; remove it".into(),
        ),
        (ExchangeKind::Direct, Bindings::All) => {
            Some("is \"all\", which a direct exchange does not know: list the routing keys".into())
        }
        (ExchangeKind::Direct, Bindings::List(patterns)) => {
            let wild = patterns.iter().find(|pattern| !pattern.is_literal())?;
            Some(format!("has \"{wild}\", and a direct exchange knows no wildcards: list the routing keys"))
        }
        _ => None,
    }
}

/// Topics that both of two bindings carry, described by a pattern.
fn shared_pattern(one: &Bindings, other: &Bindings) -> Option<String> {
    let patterns = |bindings: &Bindings| match bindings {
        Bindings::List(patterns) => patterns.clone(),
        Bindings::OnDemand | Bindings::All => Pattern::parse("#").into_iter().collect(),
    };
    let (one, other) = (patterns(one), patterns(other));
    let pairs = one.iter().flat_map(|left| other.iter().map(move |right| (left, right)));
    let (left, right) = pairs.into_iter().find(|(left, right)| overlap(left, right))?;
    Some(match (left.includes(right), right.includes(left)) {
        (true, _) => right.to_string(),
        (_, true) => left.to_string(),
        _ => format!("both {left} and {right}"),
    })
}
