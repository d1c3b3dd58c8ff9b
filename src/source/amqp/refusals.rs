//! Refusals that are given once more without asking the broker. Each costs a channel of a connection on which others consume,
//! so a queue that was refused often lately is asked for again only after a while. Pure: time comes in as an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::delivery::{ConsumeRefusal, ConsumeRequest};
use crate::model::topic::Topic;

/// How often the broker may refuse one queue within [`WINDOW`].
const TIMES_MAX: u32 = 10;

/// How long refusals count, from the first of them.
const WINDOW: Duration = Duration::from_secs(10);

/// Queues that are remembered; with one more all are forgotten.
const QUEUES_MAX: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<Asked, Refused>);

/// What was asked for: a queue, and whether alone.
type Asked = (Topic, bool);

#[derive(Debug)]
struct Refused {
    since: Instant,
    times: u32,
    last: ConsumeRefusal,
}

impl Refusals {
    /// The broker has refused this.
    pub(super) fn note(&mut self, request: &ConsumeRequest, refusal: ConsumeRefusal, now: Instant) {
        if self.0.len() >= QUEUES_MAX {
            self.0.clear();
        }
        let new = Refused { since: now, times: 0, last: refusal.clone() };
        let refused = self.0.entry(asked(request)).or_insert(new);
        if refused.is_over(now) {
            (refused.since, refused.times) = (now, 0);
        }
        refused.times += 1;
        refused.last = refusal;
    }

    /// What it would say again, where that was often enough.
    pub(super) fn recall(&self, request: &ConsumeRequest, now: Instant) -> Option<ConsumeRefusal> {
        let refused = self.0.get(&asked(request))?;
        (refused.times >= TIMES_MAX && !refused.is_over(now)).then(|| refused.last.clone())
    }
}

impl Refused {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= WINDOW
    }
}

fn asked(request: &ConsumeRequest) -> Asked {
    (request.queue.clone(), request.exclusive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::delivery::QueueOrigin;

    fn request(queue: &str, exclusive: bool) -> ConsumeRequest {
        ConsumeRequest {
            queue: Topic::parse(queue).unwrap(),
            asked: queue.into(),
            prefetch: 1,
            exclusive,
            origin: QueueOrigin::Opened { section: "consume.test".into(), declaration: None },
            hold_max: Duration::from_secs(60),
        }
    }

    #[test]
    fn who_asks_without_end_is_refused_without_asking_the_broker_and_nobody_else_is() {
        let (mut refusals, begin, looped) = (Refusals::default(), Instant::now(), request("a", false));
        let mut asked = 0;
        for millis in 0..60_000 {
            let now = begin + Duration::from_millis(millis);
            if refusals.recall(&looped, now).is_none() {
                asked += 1;
                refusals.note(&looped, ConsumeRefusal::InUse(asked.to_string()), now);
            }
        }
        assert_eq!(asked, 60);
        let end = begin + Duration::from_millis(59_999);
        assert_eq!(refusals.recall(&looped, end), Some(ConsumeRefusal::InUse("60".into())));
        for other in [request("b", false), request("a", true)] {
            assert_eq!(refusals.recall(&other, end), None);
        }
        assert_eq!(refusals.recall(&looped, begin + WINDOW * 6), None);
    }
}
