//! `passerelle sub`: prints messages as they come, and goes on where it stopped after every lost connection.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::backoff::Backoff;
use super::client::{Ended, Frame, Socket, Target};
use super::event_stream::EventStream;
use super::foreign::{Client, Heard, Mqtt, Stomp, Terms, Wamp};
use super::http::Way;
use super::output::{Form, Output};
use super::poll::{Polled, Poller};
use super::resume::{Cursors, Resume};
use super::{Failure, block_on};
use crate::model::cursor::JointCursor;
use crate::model::rate::RATE_MAX;
use crate::model::topic::Pattern;
use crate::protocol::json::filter;

/// Print messages as they arrive, one JSON line each
#[derive(Debug, Args)]
#[group(skip)]
#[command(after_help = "\
Quote patterns, because # begins a comment in shells. * is exactly one word, # is any number of words.
A lost connection is made again, and what came meanwhile is printed; what cannot be had any more is told on
standard error, as are outages.

Examples:
  passerelle sub '#'                              everything
  passerelle sub 'orders.*.created' 'alerts.#'    two patterns
  passerelle sub --filter region=eu 'orders.#'    messages with this header only
  passerelle sub --payload --count 1 'jobs.#'     wait for one message and print its payload
  passerelle sub --after 'events~5x.1a' '#'       from there on: source, tilde, cursor, as messages show them
  passerelle sub --protocol sse --url https://events.example.org/sse '#'
  passerelle sub --protocol poll '#'              where a network lets nothing pass that stays open
  passerelle sub --protocol mqtt 'orders.#'       as a client of MQTT sees it")]
pub(super) struct Arguments {
    /// Patterns of topics, quoted: 'orders.#'
    #[arg(value_name = "PATTERN")]
    patterns: Vec<String>,
    #[command(flatten)]
    target: Target,
    /// Only messages with this header, once for each: region=eu. A value is a string unless it is a number, true, false or
    /// null; x-match=any makes one of several enough
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// At most so many messages a second on each pattern; of those that come faster everything comes late, unless --on-slow
    /// says otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=u64::from(RATE_MAX)))]
    max_rate: Option<u64>,
    /// What becomes of messages that come faster than they are taken, or than --max-rate
    #[arg(long, value_name = "FLOW", value_parser = ["catch-up", "latest", "drop-oldest"])]
    on_slow: Option<String>,
    /// Start behind this position: SOURCE~CURSOR, several joined by ~
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// How to talk to the server
    #[arg(long, value_enum, default_value_t = Protocol::Json)]
    protocol: Protocol,
    /// Print the JSON over several lines
    #[arg(long, conflicts_with = "payload")]
    pretty: bool,
    /// Print the payload only
    #[arg(long)]
    payload: bool,
    /// Exit after this many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// Ways to talk to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// WebSocket with passerelle.v1.json
    Json,
    /// Server-Sent Events
    Sse,
    /// One JSON object a line, over plain HTTP
    Stream,
    /// Long-polling
    Poll,
    /// WebSocket with STOMP 1.2; goes on behind the newest message of each pattern
    Stomp,
    /// WebSocket with MQTT 5.0; what comes while the connection is lost is missed
    Mqtt,
    /// WebSocket with WAMP v2 in JSON; goes on behind the newest message of each pattern
    Wamp,
}

impl Protocol {
    /// Whether a URL says what is wanted.
    fn asks_in_url(self) -> bool {
        matches!(self, Self::Sse | Self::Stream | Self::Poll)
    }
}

/// How long the line may be quiet before the server has said how often it sends something.
const IDLE_FIRST: Duration = Duration::from_secs(75);

/// Heartbeats that may be missing.
const HEARTBEATS_MISSED_MAX: u32 = 3;

/// What is wanted, and how.
#[derive(Debug)]
struct Wish {
    target: Target,
    patterns: Vec<Pattern>,
    /// As the protocols take it.
    filter: Option<Map<String, Value>>,
    max_rate: Option<u64>,
    on_slow: Option<String>,
    after: Option<String>,
    protocol: Protocol,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let form = match (arguments.pretty, arguments.payload) {
        (true, _) => Form::Pretty,
        (_, true) => Form::Payload,
        _ => Form::Line,
    };
    let mut output = Output::new(form, arguments.count, io::stdout(), io::stderr());
    let wish = Wish::new(arguments)?;
    block_on(follow(&wish, &mut output))
}

impl Wish {
    fn new(arguments: Arguments) -> Result<Self, Failure> {
        let Arguments { patterns: given, target, filter, max_rate, on_slow, after, protocol, .. } = arguments;
        if given.is_empty() {
            return Err(Failure::Usage("quote it: passerelle sub '#'".into()));
        }
        let mut patterns: Vec<Pattern> = Vec::new();
        for text in given {
            let pattern =
                Pattern::parse(&text).map_err(|error| Failure::Usage(format!("the pattern {text:?} {error}")))?;
            if protocol.asks_in_url() && text.ends_with('.') {
                let sentence = format!(
                    "the pattern {text:?} ends in an empty word, for which no URL can ask: use --protocol json"
                );
                return Err(Failure::Usage(sentence));
            }
            // The server has one subscription a pattern.
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
        if let Some(after) = &after {
            JointCursor::from_str(after).map_err(|_| {
                Failure::Usage(format!(
                    "--after {after:?} is no position: write source, tilde, cursor, such as 'events~5x.1a'"
                ))
            })?;
        }
        Ok(Self { target, patterns, filter: filter_of(&filter)?, max_rate, on_slow, after, protocol })
    }

    /// What to ask an event stream for.
    fn query(&self) -> Vec<(&'static str, String)> {
        let patterns = self.patterns.iter().map(|pattern| ("pattern", pattern.as_str().to_owned()));
        let filter = self.filter.as_ref().map(|filter| ("filter", Value::Object(filter.clone()).to_string()));
        let max_rate = self.max_rate.map(|rate| ("max_rate", rate.to_string()));
        let on_slow = self.on_slow.as_ref().map(|flow| ("on_slow", flow.clone()));
        patterns.chain(filter).chain(max_rate).chain(on_slow).collect()
    }

    /// Where to start.
    fn joint_cursor(&self) -> JointCursor {
        self.after.as_deref().and_then(|after| JointCursor::from_str(after).ok()).unwrap_or_default()
    }

    /// A client of somebody else's protocol, if that is wanted.
    fn foreign_client(&self) -> Result<Option<Box<dyn Client>>, Failure> {
        let terms = Terms {
            patterns: self.patterns.clone(),
            after: self.joint_cursor(),
            filter: self.filter.clone(),
            on_slow: self.on_slow.clone(),
            max_rate: self.max_rate,
        };
        Ok(match self.protocol {
            Protocol::Stomp => Some(Box::new(Stomp::new(terms).map_err(Failure::Usage)?)),
            Protocol::Mqtt => Some(Box::new(Mqtt::new(&terms).map_err(Failure::Usage)?)),
            Protocol::Wamp => Some(Box::new(Wamp::new(terms).map_err(Failure::Usage)?)),
            Protocol::Json | Protocol::Sse | Protocol::Stream | Protocol::Poll => None,
        })
    }

    /// Where to start, one cursor a source.
    fn cursors(&self) -> Cursors {
        self.joint_cursor().0.into_iter().map(|(source, cursor)| (source, cursor.to_string())).collect()
    }
}

/// The filter that is typed as names and values.
fn filter_of(typed: &[String]) -> Result<Option<Map<String, Value>>, Failure> {
    let mut fields = Map::new();
    for field in typed {
        let wrong =
            || Failure::Usage(format!("--filter {field:?} has no value: write a header and its value: region=eu"));
        let (name, value) = field.split_once('=').ok_or_else(wrong)?;
        let scalar = serde_json::from_str(value).ok().filter(|value: &Value| !value.is_array() && !value.is_object());
        if fields.insert(name.to_owned(), scalar.unwrap_or_else(|| value.into())).is_some() {
            let sentence = format!("--filter names {name:?} twice: a filter has one value for each header");
            return Err(Failure::Usage(sentence));
        }
    }
    // What the server would refuse is refused before it is asked.
    filter::read(&Value::Object(fields.clone()).to_string())
        .map_err(|error| Failure::Usage(format!("the filter {error}")))?;
    Ok((!fields.is_empty()).then_some(fields))
}

/// Prints until it is enough, over as many connections as it takes.
async fn follow<M: Write, N: Write>(wish: &Wish, output: &mut Output<M, N>) -> Result<(), Failure> {
    let mut foreign = wish.foreign_client()?;
    let mut has_stood = false;
    let mut resume = Resume::new(&wish.patterns, &wish.cursors());
    if wish.max_rate.is_some() {
        resume = resume.paced();
    }
    let mut last_id = wish.after.clone();
    let mut backoff = Backoff::new();
    loop {
        let ended = match (&mut foreign, wish.protocol) {
            (Some(client), _) => over_foreign((&mut **client, &mut has_stood), wish, &mut backoff, output).await,
            (None, Protocol::Sse) => over_stream(Way::EventStream, wish, &mut last_id, &mut backoff, output).await,
            (None, Protocol::Stream) => over_stream(Way::Lines, wish, &mut last_id, &mut backoff, output).await,
            (None, Protocol::Poll) => over_polls(wish, &mut last_id, &mut backoff, output).await,
            (None, _) => over_websocket(wish, &mut resume, &mut backoff, output).await,
        };
        let (why, asked) = match ended {
            Ok(()) => return Ok(()),
            Err(Ended::Output(error)) => return Err(error.into()),
            Err(Ended::Refused(why)) => return Err(Failure::Failed(why)),
            Err(Ended::Lost(why, asked)) => (why, asked),
        };
        let pause = backoff.pause(asked);
        output.say(&format!("{}: {why}; trying again in {:.1} s", wish.target.url, pause.as_secs_f64()));
        tokio::time::sleep(pause).await;
    }
}

async fn over_websocket<M: Write, N: Write>(
    wish: &Wish,
    resume: &mut Resume,
    backoff: &mut Backoff,
    output: &mut Output<M, N>,
) -> Result<(), Ended> {
    let mut socket = Socket::connect(&wish.target).await?;
    resume.reconnect();
    subscribe(&mut socket, wish, resume).await?;
    let (mut idle, mut away) = (IDLE_FIRST, Duration::ZERO);
    loop {
        let text = socket.next(idle).await.map_err(|ended| stay_away(ended, away))?;
        let frame = Frame::parse(&text)?;
        match frame.op.as_str() {
            "message" => {
                let at = frame.source.as_deref().zip(frame.cursor.as_deref());
                if !at.is_some_and(|at| resume.has_printed(at)) && output.message(&text, &frame)? {
                    socket.close().await;
                    return Ok(());
                }
                if let Some(at) = at {
                    resume.message(frame.topic.as_deref().unwrap_or_default(), at, frame.replay);
                }
            }
            "subscribed" => {
                backoff.reset();
                let number = subscription(&frame);
                if resume.subscribed(number, frame.cursors) {
                    subscribe(&mut socket, wish, resume).await?;
                }
            }
            "caught_up" => {
                resume.caught_up(subscription(&frame), frame.cursors);
                subscribe(&mut socket, wish, resume).await?;
            }
            "position" => resume.position(frame.cursors),
            "welcome" => idle = quiet_at_most(&frame),
            "error" => return Err(frame.error()),
            _ => {
                away = away.max(Duration::from_millis(frame.reconnect_in_ms.unwrap_or(0)));
                output.notice(&frame);
            }
        }
    }
}

async fn over_foreign<M: Write, N: Write>(
    (client, has_stood): (&mut dyn Client, &mut bool),
    wish: &Wish,
    backoff: &mut Backoff,
    output: &mut Output<M, N>,
) -> Result<(), Ended> {
    let mut socket = Socket::open(&wish.target, client.subprotocol()).await?;
    if *has_stood && client.has_no_place() {
        output.say("what came while there was no connection may have been missed");
    }
    socket.say(client.open()?).await?;
    loop {
        for heard in client.hear(socket.hear(IDLE_FIRST).await?)? {
            match heard {
                Heard::Say(message) => socket.say(message).await?,
                Heard::Stands => {
                    *has_stood = true;
                    backoff.reset();
                }
                Heard::Notice(frame) => output.notice(&frame),
                Heard::Message(text) => {
                    if output.message(&text, &Frame::parse(&text)?)? {
                        socket.close().await;
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Subscribes the next pattern that has not caught up, if there is one. Its number goes as the id, counted from 1.
async fn subscribe(socket: &mut Socket, wish: &Wish, resume: &Resume) -> Result<(), Ended> {
    let Some((number, pattern, after)) = resume.next() else { return Ok(()) };
    let mut object = serde_json::json!({ "op": "subscribe", "id": number + 1, "pattern": pattern });
    if !after.is_empty() {
        object["after"] = serde_json::json!(after);
    }
    if let Some(filter) = &wish.filter {
        object["filter"] = Value::Object(filter.clone());
    }
    if let Some(max_rate) = wish.max_rate {
        object["max_rate"] = max_rate.into();
    }
    if let Some(flow) = &wish.on_slow {
        object["on_slow"] = flow.as_str().into();
    }
    socket.send(&object).await
}

/// The pattern that a reply is about.
fn subscription(frame: &Frame<'_>) -> usize {
    let id = frame.number().and_then(|id| usize::try_from(id).ok()).unwrap_or(0);
    id.wrapping_sub(1)
}

fn quiet_at_most(welcome: &Frame<'_>) -> Duration {
    welcome.heartbeat_ms.map_or(IDLE_FIRST, |heartbeat| Duration::from_millis(heartbeat) * HEARTBEATS_MISSED_MAX)
}

/// A loss after the server said how long to stay away.
fn stay_away(ended: Ended, away: Duration) -> Ended {
    match ended {
        Ended::Lost(why, asked) => Ended::Lost(why, asked.max(away)),
        ended => ended,
    }
}

async fn over_stream<M: Write, N: Write>(
    way: Way,
    wish: &Wish,
    last_id: &mut Option<String>,
    backoff: &mut Backoff,
    output: &mut Output<M, N>,
) -> Result<(), Ended> {
    let mut stream = EventStream::connect(way, &wish.target, &wish.query(), last_id.as_deref()).await?;
    let mut away = Duration::ZERO;
    loop {
        let block = stream.next(IDLE_FIRST).await.map_err(|ended| stay_away(ended, away))?;
        let frame = Frame::parse(&block.data)?;
        if frame.op == "error" {
            return Err(frame.error());
        }
        backoff.reset();
        if frame.op == "message" {
            if output.message(&block.data, &frame)? {
                return Ok(());
            }
        } else {
            away = away.max(Duration::from_millis(frame.reconnect_in_ms.unwrap_or(0)));
            output.notice(&frame);
        }
        if block.id.is_some() {
            *last_id = block.id;
        }
    }
}

async fn over_polls<M: Write, N: Write>(
    wish: &Wish,
    cursor: &mut Option<String>,
    backoff: &mut Backoff,
    output: &mut Output<M, N>,
) -> Result<(), Ended> {
    let query = wish.query();
    let mut poller = Poller::new(&wish.target, &query);
    let mut away = BTreeSet::new();
    loop {
        let text = poller.ask(cursor.as_deref()).await?;
        let Polled { messages, gaps, cursor: next, outage } = Polled::parse(&text)?;
        backoff.reset();
        let changes = [("outage", outage.difference(&away)), ("restored", away.difference(&outage))];
        for (op, source) in changes.into_iter().flat_map(|(op, sources)| sources.map(move |source| (op, source))) {
            output.notice(&Frame { op: op.into(), source: Some(source.clone()), ..Frame::default() });
        }
        for gap in gaps {
            output.notice(&Frame::parse(gap.get())?);
        }
        for message in messages {
            if output.message(message.get(), &Frame::parse(message.get())?)? {
                return Ok(());
            }
        }
        away = outage;
        if next.is_some() {
            *cursor = next;
        }
    }
}

#[cfg(test)]
mod tests;
