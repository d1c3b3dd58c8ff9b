//! `passerelle check --connect`: what is missing or dangerous at the broker, without changing anything there beyond one
//! queue of our own that goes with the connection.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use crate::config::{self, Bindings, ExchangeInput, ExchangeKind, Input, QueueInput, Settings};
use crate::metrics::BrokerLink;
use crate::model::topic::{Pattern, words as pattern_words};
use crate::source::Trouble;

use super::connection::{self, Live};
use super::exchange::short;
use super::outbound;
use super::words;

/// How long the broker may take for any one question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Something that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The configuration's key or section that it is about.
    pub key: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Connects, and tells what would not work. Empty when everything would.
pub async fn check(settings: &Settings) -> Vec<Finding> {
    let live = match connection::connect(&settings.amqp, BrokerLink::Consume).await {
        Ok(live) => Arc::new(live),
        Err(trouble) => return vec![finding("amqp.url", trouble)],
    };
    let mut findings = same_messages(settings);
    for source in &settings.sources {
        let key = format!("source.{}", source.name);
        let looked = match &source.input {
            Input::Exchange(input) => exchange_source(&live, settings, input, &key).await,
            Input::Queue(input) => queue_source(&live, input, &key).await,
        };
        findings.extend(looked.err().map(|trouble| finding(&key, trouble)));
    }
    for (exchange, key) in outbound::exchanges(settings) {
        if let Err(error) = passive_exchange(&live, &exchange).await {
            let vhost = &live.peer.vhost;
            let message = match words::refusal(&error) {
                Some(words::Refusal::NotFound) => {
                    format!("exchange '{exchange}' does not exist on vhost '{vhost}': create it or correct {key}")
                }
                _ => format!("exchange '{exchange}' on vhost '{vhost}': {}", words::quoted(&error)),
            };
            findings.push(Finding { key, message });
        }
    }
    live.close().await;
    findings
}

fn finding(key: &str, trouble: Trouble) -> Finding {
    Finding { key: key.to_owned(), message: trouble.0 }
}

/// Asks for an exchange; the default one is always there.
async fn passive_exchange(live: &Live, exchange: &str) -> lapin::Result<()> {
    if exchange.is_empty() {
        return Ok(());
    }
    let answered = within(async {
        let channel = live.channel().await.map_err(other)?;
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let name = short(exchange).map_err(other)?;
        channel.exchange_declare(name, lapin::ExchangeKind::Topic, options, FieldTable::default()).await
    });
    answered.await
}

async fn within<T>(question: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    match tokio::time::timeout(QUESTION_TIMEOUT, question).await {
        Ok(answered) => answered,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

fn other(trouble: Trouble) -> lapin::Error {
    std::io::Error::other(trouble.0).into()
}

/// The exchange is there, and a queue of ours can be declared and bound to it.
async fn exchange_source(live: &Live, settings: &Settings, input: &ExchangeInput, key: &str) -> Result<(), Trouble> {
    let exchange = &input.exchange;
    let declares_it = match passive_exchange(live, exchange).await {
        Ok(()) => false,
        Err(error) if input.declare && words::refusal(&error) == Some(words::Refusal::NotFound) => true,
        Err(error) => return Err(words::of_exchange(&error, exchange, (&live.peer, key))),
    };
    let amqp = &settings.amqp;
    let queue = format!("{}{}.check.{:016x}", amqp.queue_prefix, amqp.node, fastrand::u64(..));
    let channel = live.channel().await?;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let declared = within(channel.queue_declare(short(&queue)?, options, FieldTable::default())).await;
    declared.map_err(|error| words::of_own_queue(&error, &queue, &live.peer))?;
    if declares_it {
        return Ok(());
    }
    let (name, options) = (short(exchange)?, QueueBindOptions::default());
    let bound = channel.queue_bind(short(&queue)?, name, short("passerelle.check")?, options, FieldTable::default());
    within(bound).await.map_err(|error| words::of_exchange(&error, exchange, (&live.peer, key)))
}

/// The queue is there, and nobody else consumes it.
async fn queue_source(live: &Live, input: &QueueInput, key: &str) -> Result<(), Trouble> {
    let channel = live.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match within(channel.queue_declare(short(&input.queue)?, options, FieldTable::default())).await {
        Ok(queue) if queue.consumer_count() > 0 && !input.shared => {
            Err(words::has_consumers(&input.queue, queue.consumer_count()))
        }
        Ok(_) => Ok(()),
        Err(error) if input.declare && words::refusal(&error) == Some(words::Refusal::NotFound) => Ok(()),
        Err(error) => Err(words::of_queue(&error, &input.queue, (&live.peer, key))),
    }
}

/// Names sources that would carry the same messages, so that whoever subscribes to both gets each twice. Needs no broker.
pub fn same_messages(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (place, second) in settings.sources.iter().enumerate() {
        for first in settings.sources.iter().take(place) {
            if let Some(what) = common(first, second) {
                findings.push(Finding {
                    key: format!("source.{}", second.name),
                    message: format!(
                        "source '{}' and source '{}' carry the same messages of {what}: whoever subscribes without \
                         naming a source gets them twice; narrow their bindings or remove one",
                        first.name, second.name
                    ),
                });
            }
        }
    }
    findings
}

/// What two sources both read, if anything.
fn common(first: &config::Source, second: &config::Source) -> Option<String> {
    match (&first.input, &second.input) {
        (Input::Exchange(a), Input::Exchange(b)) if a.exchange == b.exchange => {
            let everything = [Pattern::all()];
            let meets = |a: &[Pattern], b: &[Pattern]| a.iter().any(|one| b.iter().any(|other| overlap(one, other)));
            let same = meets(bound(a, &everything), bound(b, &everything));
            same.then(|| format!("exchange '{}'", a.exchange))
        }
        (Input::Queue(a), Input::Queue(b)) if a.queue == b.queue => Some(format!("queue '{}'", a.queue)),
        _ => None,
    }
}

fn bound<'a>(input: &'a ExchangeInput, everything: &'a [Pattern]) -> &'a [Pattern] {
    match (&input.bindings, input.kind) {
        (Bindings::List(patterns), ExchangeKind::Topic | ExchangeKind::Direct) => patterns,
        _ => everything,
    }
}

/// Whether some topic matches both patterns: decided word by word over both at once.
fn overlap(one: &Pattern, other: &Pattern) -> bool {
    let one: Vec<&str> = pattern_words(one.as_str()).collect();
    let other: Vec<&str> = pattern_words(other.as_str()).collect();
    let mut seen = std::collections::HashSet::new();
    let mut open = vec![(0, 0)];
    while let Some((a, b)) = open.pop() {
        if !seen.insert((a, b)) {
            continue;
        }
        match (one.get(a), other.get(b)) {
            (None, None) => return true,
            (Some(&"#"), next) => {
                open.push((a + 1, b));
                open.extend(next.map(|_| (a, b + 1)));
            }
            (next, Some(&"#")) => {
                open.push((a, b + 1));
                open.extend(next.map(|_| (a + 1, b)));
            }
            (Some(x), Some(y)) if *x == "*" || *y == "*" || x == y => open.push((a + 1, b + 1)),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn exchange(name: &str, exchange: &str, bindings: Bindings) -> Source {
        let input = ExchangeInput { bindings, ..ExchangeInput::new(exchange) };
        Source { name: name.into(), input: Input::Exchange(input), ..Source::events() }
    }

    fn list(patterns: &[&str]) -> Bindings {
        Bindings::List(patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect())
    }

    fn findings(sources: Vec<Source>) -> usize {
        same_messages(&Settings { sources, ..Settings::default() }).len()
    }

    #[test]
    fn overlap_agrees_with_enumeration() {
        let alphabet = ["a", "b", "*", "#"];
        let pairs = || alphabet.iter().flat_map(|x| alphabet.iter().map(move |y| format!("{x}.{y}")));
        let texts: Vec<String> =
            alphabet.iter().map(|x| (*x).to_owned()).chain(pairs()).chain([String::new()]).collect();
        let mut topics = vec![String::new()];
        for _ in 0..3 {
            let longer: Vec<String> = topics
                .iter()
                .flat_map(|topic| {
                    ["a", "b"].map(|word| if topic.is_empty() { word.into() } else { format!("{topic}.{word}") })
                })
                .collect();
            topics.extend(longer);
        }
        let topics: Vec<_> = topics.iter().map(|text| crate::model::topic::Topic::parse(text).unwrap()).collect();
        for one in texts.iter().map(|text| Pattern::parse(text).unwrap()) {
            for other in texts.iter().map(|text| Pattern::parse(text).unwrap()) {
                let expected = topics.iter().any(|topic| one.matches(topic) && other.matches(topic));
                assert_eq!(overlap(&one, &other), expected, "{one} and {other}");
            }
        }
    }

    #[test]
    fn sources_that_carry_the_same_are_named() {
        let demand = || Bindings::OnDemand;
        assert_eq!(findings(vec![exchange("a", "x", demand()), exchange("b", "x", demand())]), 1);
        assert_eq!(findings(vec![exchange("a", "x", demand()), exchange("b", "y", demand())]), 0);
        assert_eq!(findings(vec![exchange("a", "x", list(&["a.#"])), exchange("b", "x", list(&["b.#"]))]), 0);
        assert_eq!(findings(vec![exchange("a", "x", list(&["a.#"])), exchange("b", "x", list(&["*.b"]))]), 1);
        let queue = |name: &str| Source {
            name: name.into(),
            input: Input::Queue(QueueInput { queue: "q".into(), shared: true, declare: false }),
            ..Source::events()
        };
        assert_eq!(findings(vec![queue("a"), queue("b")]), 1);
    }
}
