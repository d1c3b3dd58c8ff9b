//! Queues that clients may consume: no two sections open the same one, and who else takes its messages is said.

use std::time::Duration;

use super::Settler;
use crate::config::{Consume, Settings};
use crate::model::queue::QueueTemplate;

/// The longest time after which RabbitMQ deletes a queue: milliseconds in 32 bits, rounded down to whole days.
pub(super) const EXPIRES_MAX: Duration = Duration::from_secs(49 * 24 * 3600);

/// What RabbitMQ lets a consumer hold a message for, unless it is told otherwise.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(30 * 60);

impl Settler<'_> {
    /// Every such queue, in the order of their names.
    pub(super) fn consume(&mut self) -> Vec<Consume> {
        let mut all: Vec<Consume> = Vec::new();
        for name in self.names("consume") {
            let Some(one) = self.consume_one(&name) else { continue };
            if let Some(other) = all.iter().find(|other| other.queue.overlaps(&one.queue)) {
                let sentence = format!("could name the queue of consume.{} too: change one of them", other.name);
                self.mistake(&format!("consume.{name}.queue"), sentence);
            }
            all.push(one);
        }
        all
    }

    fn consume_one(&mut self, name: &str) -> Option<Consume> {
        let base = format!("consume.{name}");
        let path = format!("{base}.queue");
        if !self.raw.is_set(&path) {
            self.mistake(&base, format!("needs {path}: the queue that clients may consume"));
        }
        let text = self.entry(&path)?.value.text();
        let queue = QueueTemplate::parse(text).map_err(|error| self.mistake(&path, error.to_string())).ok()?;
        let declare = self.flag(&format!("{base}.declare"));
        let hold_max = self.time(&format!("{base}.hold_max"));
        if hold_max >= CONSUMER_TIMEOUT {
            self.warning(
                &format!("{base}.hold_max"),
                "is not below 30 minutes, after which RabbitMQ takes back all that a client holds, unless its \
                 consumer_timeout says otherwise",
            );
        }
        Some(Consume {
            name: name.to_owned(),
            queue,
            declare,
            expires: self.expires(&base, declare),
            prefetch_max: u16::try_from(self.number(&format!("{base}.prefetch_max"))).unwrap_or(u16::MAX),
            hold_max,
        })
    }

    fn expires(&mut self, base: &str, declare: bool) -> Option<Duration> {
        let path = format!("{base}.expires");
        let expires = self.entry(&path)?.value.time();
        if !declare {
            self.mistake(&path, format!("is for queues that passerelle declares: set {base}.declare = true too"));
        } else if expires > EXPIRES_MAX {
            self.mistake(&path, "is longer than the 49 days that RabbitMQ can count: lower it, or remove it");
        }
        Some(expires)
    }

    /// A source would take away what clients wait for.
    pub(super) fn consumed_apart(&mut self, settings: &Settings) {
        for source in &settings.sources {
            let Some(input) = source.input.queue() else { continue };
            let Ok(queue) = QueueTemplate::parse(&input.queue) else { continue };
            if let Some(consume) = settings.consume.iter().find(|consume| consume.queue.overlaps(&queue)) {
                let sentence = format!(
                    "is the queue of source.{} too, which takes part of its messages: give each a queue of its own",
                    source.name
                );
                self.warning(&format!("consume.{}.queue", consume.name), sentence);
            }
        }
    }
}
