//! A node of a run: the program, which is killed and started again, and its way to the broker.

use std::net::Ipv4Addr;
use std::sync::Mutex;

use tokio::sync::watch;

use crate::amqp::bridge::until_or;
use crate::history::real::account::Life;
use crate::history::real::proxy::Proxy;
use crate::history::real::publisher::exchange;
use crate::history::real::schedule::{Kind, Schedule, Source};
use crate::program::Program;

/// One node.
pub(crate) struct Node {
    pub(crate) proxy: Proxy,
    /// Counts how often its clients were cut off all at once.
    pub(crate) lines: watch::Sender<u64>,
    environment: Vec<(String, String)>,
    /// How many sources it reads.
    sources: usize,
    program: Mutex<Option<(Program, Life)>>,
    /// What its processes said, but for what is as it should be.
    warnings: Mutex<Vec<String>>,
}

impl Node {
    pub(crate) async fn new(place: usize, schedule: &Schedule, word: &str, broker: (Ipv4Addr, u16)) -> Self {
        let sources = schedule.sources.iter().filter(|source| source.kind != Kind::Queue || place == 0);
        let mut environment: Vec<(String, String)> =
            [("AMQP__BACKOFF_MAX", "400ms"), ("AMQP__QUEUE_PREFIX", word), ("SERVER__SHARDS", "2")]
                .map(|(key, value)| (format!("PASSERELLE_{key}"), value.to_owned()))
                .into();
        environment.extend(sources.clone().flat_map(|source| keys(source, word)));
        Self {
            proxy: Proxy::to(broker).await,
            lines: watch::Sender::new(0),
            environment,
            sources: sources.count(),
            program: Mutex::default(),
            warnings: Mutex::default(),
        }
    }

    /// Starts it, and waits until it is ready.
    pub(crate) async fn start(&self, life: Life) {
        let (url, environment) = (self.proxy.url(), self.environment.clone());
        let program = tokio::task::spawn_blocking(move || {
            let environment: Vec<(&str, &str)> = environment.iter().map(|(key, value)| (&**key, &**value)).collect();
            Program::start(Some(&url), &environment)
        });
        let program = program.await.expect("it starts");
        program.ready().await;
        *self.program.lock().expect("the lock") = Some((program, life));
    }

    /// Kills it, if it runs.
    pub(crate) async fn kill(&self) {
        let program = self.program.lock().expect("the lock").take();
        if let Some((program, life)) = &program {
            let warnings = program.lines().into_iter().filter(|line| !line.contains("\"INFO\""));
            self.warnings.lock().expect("the lock").extend(warnings.map(|line| format!("{life}: {line}")));
        }
        let killed =
            tokio::task::spawn_blocking(move || program.into_iter().for_each(|(mut program, _)| program.kill()));
        killed.await.expect("its end");
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().expect("the lock").clone()
    }

    /// Where it listens, and in which life.
    pub(crate) fn address(&self) -> Option<(String, Life)> {
        self.program.lock().expect("the lock").as_ref().map(|(program, life)| (program.public.clone(), *life))
    }

    /// How often its sources came to stand, all together.
    pub(crate) fn times_stood(&self) -> usize {
        let stands =
            |line: &&String| line.contains("source '") && (line.contains("' reads ") || line.contains("' consumes "));
        let program = self.program.lock().expect("the lock");
        program.as_ref().map_or(0, |(program, _)| program.lines().iter().filter(stands).count())
    }

    /// Waits until all its sources stand, which did so often before.
    pub(crate) async fn stands_again(&self, before: usize) {
        let said = || {
            let program = self.program.lock().expect("the lock");
            let lines = program.as_ref().map(|(program, _)| program.lines());
            format!("{} sources to stand again: {lines:#?}", self.sources)
        };
        until_or(|| self.times_stood() >= before + self.sources, said).await;
    }
}

/// The stream into which a queue is moved.
pub(crate) fn moved_into(queue: &str) -> String {
    format!("{queue}.stream")
}

/// How a source is configured.
fn keys(source: &Source, word: &str) -> Vec<(String, String)> {
    let name = source.kind.name();
    let exchange = exchange(word, name);
    let mut keys = match source.kind {
        Kind::OnDemand => vec![("EXCHANGE", exchange)],
        Kind::Fixed => vec![("EXCHANGE", exchange), ("BINDINGS", "all".to_owned())],
        Kind::Stream => vec![("STREAM", exchange.clone()), ("EXCHANGE", exchange), ("DECLARE", "true".to_owned())],
        Kind::Queue => vec![("QUEUE", exchange)],
        Kind::Moved => vec![("STREAM", moved_into(&exchange)), ("QUEUE", exchange)],
    };
    keys.extend(source.keeps_ms.map(|keeps_ms| ("LOG__AGE_MAX", format!("{keeps_ms}ms"))));
    let name = name.to_uppercase();
    keys.into_iter().map(|(key, value)| (format!("PASSERELLE_SOURCE__{name}__{key}"), value)).collect()
}
