//! What a run leaves behind for the checker: what truly happened to every message, and what every subscription was told.
//! Plain data; it knows neither the hub nor how the run was made, so that a simulation and a real broker fill in the same.

use std::fmt;

use passerelle::model::flow::Flow;
use passerelle::model::gap::GapReason;
use passerelle::model::selector::Selector;
use passerelle::model::topic::{Pattern, Topic};
use passerelle::model::value::Headers;

/// When something happened: places in the order of everything in a simulation, microseconds on one clock in a real run.
pub(crate) type Moment = u64;

/// Something happened at one of these moments. In a simulation, where everything is known, the two are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Moment,
    pub(crate) to: Moment,
}

impl Span {
    pub(crate) const fn at(moment: Moment) -> Self {
        Self { from: moment, to: moment }
    }

    /// A place that may be in one of several streams may by now be in one more.
    pub(crate) fn unsure_as(self, again: Option<Self>) -> Self {
        again.filter(|again| again.from == self.from && again.to > self.to).unwrap_or(self)
    }

    /// Certainly earlier.
    pub(crate) fn before(self, other: Self) -> bool {
        self.to < other.from
    }
}

/// Names a message of the run: its place in [`Truth::messages`].
pub(crate) type Number = usize;

/// What became of a message on its way to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The node had it.
    Logged,
    /// The broker dropped it and said so.
    Dropped,
    /// It never came: nothing was bound for it, or the link was away.
    Lost,
    /// Nobody knows.
    #[allow(dead_code, reason = "for runs against a real broker")]
    Unknown,
}

/// A message that was published.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    /// Its source's place in [`Truth::sources`].
    pub(crate) source: usize,
    pub(crate) topic: Topic,
    pub(crate) headers: Headers,
    /// When the node took it, or should have: for what an outage or the broker swallowed, when the node noted that. Of a
    /// stream: when the broker had it.
    pub(crate) at: Span,
    pub(crate) fate: Fate,
    /// When a queue brought it again.
    pub(crate) again: Vec<Moment>,
    /// When the first log let go of it, and when the last one did so far.
    pub(crate) evicted: Option<Span>,
    /// When its stream did, or was deleted with it.
    pub(crate) cut: Option<Moment>,
}

impl Published {
    /// What is certain of a message without headers.
    pub(crate) fn new(source: usize, topic: Topic, at: Span, fate: Fate) -> Self {
        let headers = Headers::default();
        Self { source, topic, headers, at, fate, again: Vec::new(), evicted: None, cut: None }
    }

    /// Whether somebody who wants this wants the message.
    pub(crate) fn is_wanted(&self, wanted: &Selector) -> bool {
        wanted.pattern.matches(&self.topic) && self.is_let_in(wanted)
    }

    /// Whether the filter lets it in, if there is one.
    pub(crate) fn is_let_in(&self, wanted: &Selector) -> bool {
        wanted.filter.as_ref().is_none_or(|filter| filter.matches(&self.headers))
    }
}

/// A binding that certainly stood from one moment on and before another.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    pub(crate) pattern: Pattern,
    pub(crate) from: Moment,
    /// Nothing while it stands.
    pub(crate) to: Option<Moment>,
}

/// What happened to one source.
#[derive(Debug, Clone, Default)]
pub(crate) struct SourceTruth {
    pub(crate) name: String,
    /// It keeps its messages while the node is away, and may bring some again.
    pub(crate) is_queue: bool,
    /// It keeps its messages whatever becomes of nodes and logs, until it cuts them off.
    pub(crate) is_stream: bool,
    pub(crate) bindings: Vec<Binding>,
    /// From when the link was lost until the source was read again.
    pub(crate) outages: Vec<(Moment, Moment)>,
    /// When the broker was known to have dropped something.
    pub(crate) drops: Vec<Moment>,
    /// What a stream keeps that no node can make a message of: when it came, and when it was cut off.
    pub(crate) blanks: Vec<(Moment, Option<Moment>)>,
    /// When a new log began, or of a stream another one by its name, and every older cursor became worthless.
    pub(crate) restarts: Vec<Moment>,
    /// Those at which a node stood at a place without a mark: it cannot tell that the stream is another one.
    pub(crate) unmarked: Vec<Moment>,
}

/// What truly happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truth {
    pub(crate) sources: Vec<SourceTruth>,
    pub(crate) messages: Vec<Published>,
    /// After so many messages a source's log may have forgotten how many it let go of.
    pub(crate) remembered: usize,
}

/// Where a cursor stands in each source, as moments: up to there everything is accounted for.
pub(crate) type Cursors = Vec<Option<Span>>;

/// Where a cursor stands that nobody gave: before everything.
pub(crate) const FORGED: Span = Span { from: 0, to: 0 };

/// What one subscription did and was told, in order.
#[derive(Debug, Clone)]
pub(crate) struct History {
    /// For the reader of a violation.
    pub(crate) name: String,
    pub(crate) wanted: Selector,
    /// Which sources it reads.
    pub(crate) sources: Vec<usize>,
    pub(crate) told: Vec<Told>,
}

/// One line of a history.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) at: Moment,
    pub(crate) what: What,
}

/// What a line of a history says.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// The client subscribed, or came back.
    Asked {
        after: Cursors,
        last: bool,
        flow: Flow,
    },
    Subscribed {
        cursors: Cursors,
        resumed: bool,
    },
    Message(Received),
    Gap {
        source: usize,
        reason: GapReason,
        missed: Option<u64>,
    },
    CaughtUp {
        cursors: Cursors,
    },
    /// The line was lost, or the subscription ended; what the client keeps.
    Ended {
        kept: Cursors,
    },
}

/// A message that a subscription got.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Received {
    pub(crate) number: Number,
    /// Whether it was marked as part of a replay.
    pub(crate) replay: bool,
    pub(crate) redelivered: bool,
    /// It came by the way of another subscription of the session, ahead of this one's own order.
    pub(crate) early: bool,
    /// No other subscription of the session can be the one for which it came.
    pub(crate) alone: bool,
}

/// What travelled on one connection, whichever subscription it was for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) asked: Vec<AskedFor>,
    pub(crate) messages: Vec<Received>,
}

/// Something that was asked for on a connection.
#[derive(Debug, Clone)]
pub(crate) struct AskedFor {
    pub(crate) wanted: Selector,
    /// The only source, if it is not all of them.
    pub(crate) source: Option<usize>,
    /// Whether it is to be sent something again.
    pub(crate) replays: bool,
}

/// Everything that the checker needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub(crate) truth: Truth,
    pub(crate) histories: Vec<History>,
    pub(crate) lines: Vec<Line>,
    /// Histories that still waited for something when there was nothing left to do.
    pub(crate) stuck: Vec<usize>,
    /// Whether a bug was planted.
    pub(crate) tampered: bool,
}

impl Truth {
    /// A history as a person reads it.
    pub(crate) fn readable(&self, history: &History) -> String {
        let lines = history.told.iter().map(|told| format!("{:>7}  {}\n", told.at, self.line(&told.what)));
        format!("{}\n{}", history.name, lines.collect::<String>())
    }

    fn line(&self, what: &What) -> String {
        match what {
            What::Asked { after, last, flow } => {
                let last = if *last { ", last" } else { "" };
                format!("asks for it after {}{last}, {}", Places(after), flow.name())
            }
            What::Subscribed { cursors, resumed } => {
                format!("subscribed at {}{}", Places(cursors), if *resumed { ", resumed" } else { "" })
            }
            What::Message(received) => self.message_line(received),
            What::Gap { source, reason, missed } => {
                let missed = missed.map_or("?".to_owned(), |missed| missed.to_string());
                format!("GAP of {}: {}, missed {missed}", self.sources[*source].name, reason.name())
            }
            What::CaughtUp { cursors } => format!("caught up at {}", Places(cursors)),
            What::Ended { kept } => format!("ended, keeps {}", Places(kept)),
        }
    }

    /// What a message is called where it is told of one.
    pub(crate) fn named(&self, number: Number) -> String {
        let Published { source, topic, at, .. } = &self.messages[number];
        format!("#{number} of {} at {} {topic}", self.sources[*source].name, at.from)
    }

    fn message_line(&self, received: &Received) -> String {
        let Received { number, replay, redelivered, early, .. } = *received;
        let flags = [(replay, " replay"), (redelivered, " redelivered"), (early, " early")];
        let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
        format!("  {}{flags}", self.named(number))
    }
}

struct Places<'a>(&'a Cursors);

impl fmt::Display for Places<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |cursor: &Option<Span>| cursor.map_or("-".to_owned(), |span| span.from.to_string());
        write!(formatter, "[{}]", self.0.iter().map(place).collect::<Vec<_>>().join(" "))
    }
}
