//! Which queues a client may consume. Pure: the configuration, who asks and for what, and a verdict in words.

use std::sync::Arc;

use crate::auth::Identity;
use crate::config::{Consume, Settings};
use crate::model::queue::{NoQueue, QueueTemplate};
use crate::model::topic::Topic;

/// Bytes of a queue's name that a sentence repeats.
const QUOTED_BYTES_MAX: usize = 120;

/// Every queue that is open to clients.
#[derive(Debug, Clone, Default)]
pub struct Queues(Vec<Entry>);

/// One section `[consume.NAME]`.
#[derive(Debug, Clone)]
struct Entry {
    section: Arc<str>,
    rules: Consume,
}

/// A queue that somebody may consume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open<'a> {
    /// Its name at the broker.
    pub queue: Topic,
    /// The section that opens it.
    pub section: Arc<str>,
    /// What that section says.
    pub rules: &'a Consume,
}

impl Queues {
    /// Those of a configuration.
    pub fn new(settings: &Settings) -> Self {
        let entry = |rules: &Consume| Entry { section: format!("consume.{}", rules.name).into(), rules: rules.clone() };
        Self(settings.consume.iter().map(entry).collect())
    }

    /// Opens a queue to somebody who calls it by its name, or by the template as it is configured.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub fn open(&self, identity: &Identity, asked: &str) -> Result<Open<'_>, String> {
        if !identity.grants.consume {
            return Err(may_not_consume(identity).into());
        }
        for Entry { section, rules } in &self.0 {
            match own(&rules.queue, identity.user.as_deref(), asked) {
                Some(Ok(queue)) => return Ok(Open { queue, section: section.clone(), rules }),
                Some(Err(sentence)) => return Err(sentence),
                None => {}
            }
        }
        let shown = asked.get(..asked.floor_char_boundary(QUOTED_BYTES_MAX)).unwrap_or_default();
        Err(format!("queue {shown:?} is not open to you: no consume.NAME.queue of this server names it"))
    }
}

/// The queue that a template gives somebody, if it is what they ask for.
fn own(template: &QueueTemplate, user: Option<&str>, asked: &str) -> Option<Result<Topic, String>> {
    match template.render(user) {
        Ok(queue) => (asked == queue.as_str() || asked == template.as_str()).then_some(Ok(queue)),
        Err(no_queue) => (asked == template.as_str()).then(|| Err(sentence(template, no_queue))),
    }
}

fn sentence(template: &QueueTemplate, no_queue: NoQueue) -> String {
    match no_queue {
        NoQueue::Anonymous => {
            format!("queue {:?} is one for each user, and you are anonymous: send a token", template.as_str())
        }
        NoQueue::TooLong => {
            format!("your user name is too long for queue {:?}: its name may have 255 bytes", template.as_str())
        }
    }
}

fn may_not_consume(identity: &Identity) -> &'static str {
    match identity.user {
        Some(_) => "your token does not allow consuming here",
        None => "you may not consume here: set auth.anonymous_publish = true or send a token",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::Grants;

    fn somebody(user: Option<&str>) -> Identity {
        let grants = Grants { subscribe: true, publish: true, consume: true };
        Identity { user: user.map(Arc::from), expires_at: None, grants }
    }

    fn queues() -> Queues {
        let consume = |(name, queue): (&str, &str)| Consume {
            name: name.into(),
            queue: QueueTemplate::parse(queue).unwrap(),
            declare: false,
            expires: None,
            prefetch_max: 100,
            hold_max: Duration::from_secs(60),
        };
        let consume = [("inbox", "inbox.{user}"), ("jobs", "jobs")].map(consume).into();
        Queues::new(&Settings { consume, ..Settings::default() })
    }

    fn opened(user: Option<&str>, asked: &str) -> Result<String, String> {
        let queues = queues();
        queues.open(&somebody(user), asked).map(|open| format!("{} by {}", open.queue.as_str(), open.section))
    }

    #[test]
    fn one_may_consume_what_is_open_and_of_inboxes_ones_own() {
        assert_eq!(opened(None, "jobs"), Ok("jobs by consume.jobs".into()));
        assert_eq!(opened(Some("anna"), "inbox.anna"), Ok("inbox.anna by consume.inbox".into()));
        assert_eq!(opened(Some("a.b"), "inbox.{user}"), Ok("inbox.a%2Eb by consume.inbox".into()));
    }

    #[test]
    fn all_else_is_refused_in_words() {
        for (user, asked, words) in [
            (Some("anna"), "inbox.bert", "no consume.NAME.queue of this server names it"),
            (Some("a.b"), "inbox.a.b", "is not open to you"),
            (None, "inbox.{user}", "you are anonymous: send a token"),
            (None, "inbox.anna", "is not open to you"),
            (Some(""), "inbox.{user}", "you are anonymous"),
            (Some("x".repeat(300).as_str()), "inbox.{user}", "too long"),
            (None, "", "is not open to you"),
            (None, "x".repeat(9_999).as_str(), "is not open to you"),
        ] {
            let sentence = opened(user, asked).unwrap_err();
            assert!(sentence.contains(words) && sentence.len() < 300, "{asked}: {sentence}");
        }
    }

    #[test]
    fn without_the_right_nothing_is_open() {
        let mut identity = somebody(None);
        identity.grants.consume = false;
        let sentence = queues().open(&identity, "jobs").unwrap_err();
        assert_eq!(sentence, "you may not consume here: set auth.anonymous_publish = true or send a token");
    }
}
