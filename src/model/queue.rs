//! Names of queues that clients may consume: a fixed one, or a template that gives each person a queue of their own.
//!
//! A user's name comes from outside. It is escaped so that no two names give the same queue and none reaches beyond the
//! word where it stands; a template takes it as a whole word only, for the same reason.

use std::fmt;

use thiserror::Error;

use crate::model::topic::{TOPIC_BYTES_MAX, Topic, TopicError};

/// Bytes of a queue's name: an AMQP short string, as a topic is.
pub const QUEUE_BYTES_MAX: usize = TOPIC_BYTES_MAX;

/// What stands for the user's name.
const USER: &str = "{user}";

/// The name of a queue, in which `{user}` may stand for the person who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueTemplate(String);

/// Why a text is no template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum QueueTemplateError {
    /// There is nothing.
    #[error("is empty: name a queue, such as \"jobs\" or \"inbox.{{user}}\"")]
    Empty,
    /// A control character, which no queue of sense has.
    #[error("holds a control character: leave it out")]
    Control,
    /// Braces around something else, or not between dots.
    #[error("may hold braces only as {{user}}, a whole word between dots, as in \"inbox.{{user}}\"")]
    Braces,
    /// It could be no queue's name.
    #[error(transparent)]
    Name(#[from] TopicError),
}

/// Why somebody has no queue by a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoQueue {
    /// They have no name.
    Anonymous,
    /// Their name is too long.
    TooLong,
}

impl QueueTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// When it names no queue.
    pub fn parse(text: &str) -> Result<Self, QueueTemplateError> {
        let is_odd = |word: &str| word != USER && word.contains(['{', '}']);
        if text.is_empty() {
            Err(QueueTemplateError::Empty)
        } else if text.chars().any(char::is_control) {
            Err(QueueTemplateError::Control)
        } else if text.split('.').any(is_odd) {
            Err(QueueTemplateError::Braces)
        } else {
            Topic::parse(text)?;
            Ok(Self(text.to_owned()))
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The queue of this person, whose name a queue's and a topic's rules fit alike.
    ///
    /// # Errors
    /// When there is none.
    pub fn render(&self, user: Option<&str>) -> Result<Topic, NoQueue> {
        let user = user.filter(|user| !user.is_empty()).map(escaped);
        let word = |word| if word == USER { user.as_deref() } else { Some(word) };
        let words: Option<Vec<&str>> = self.0.split('.').map(word).collect();
        Topic::parse(&words.ok_or(NoQueue::Anonymous)?.join(".")).map_err(|_| NoQueue::TooLong)
    }

    /// Whether both could name the same queue, each for some person.
    pub fn overlaps(&self, other: &Self) -> bool {
        let alike = |(one, other): (&str, &str)| {
            one == other || (one == USER && may_be_user(other)) || (other == USER && may_be_user(one))
        };
        self.0.split('.').count() == other.0.split('.').count() && self.0.split('.').zip(other.0.split('.')).all(alike)
    }
}

impl fmt::Display for QueueTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether a byte of a user's name stands for itself.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Whether a word could be some user's name, escaped.
fn may_be_user(word: &str) -> bool {
    !word.is_empty() && (word == USER || word.bytes().all(|byte| is_plain(byte) || byte == b'%'))
}

/// A name from outside as one word of a queue's: every byte that is no letter, digit, `-` or `_` becomes `%` and two digits,
/// the per cent sign included, so that no two names become the same word.
pub fn escaped(name: &str) -> String {
    use fmt::Write;
    let mut word = String::with_capacity(name.len());
    for byte in name.bytes() {
        if is_plain(byte) {
            word.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(word, "%{byte:02X}");
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template(text: &str) -> QueueTemplate {
        QueueTemplate::parse(text).unwrap()
    }

    fn queue(text: &str, user: &str) -> String {
        template(text).render(Some(user)).unwrap().as_str().to_owned()
    }

    #[test]
    fn a_name_becomes_one_word_whatever_it_holds() {
        assert_eq!(queue("inbox.{user}", "anna"), "inbox.anna");
        assert_eq!(queue("inbox.{user}.new", "a.b*#/%\n\u{e9}"), "inbox.a%2Eb%2A%23%2F%25%0A%C3%A9.new");
        assert_eq!(queue("jobs", "anna"), "jobs");
    }

    #[test]
    fn who_has_no_name_has_no_queue_of_their_own() {
        assert_eq!(template("inbox.{user}").render(None), Err(NoQueue::Anonymous));
        assert_eq!(template("inbox.{user}").render(Some("")), Err(NoQueue::Anonymous));
        assert_eq!(template("inbox.{user}").render(Some(&"x".repeat(250))), Err(NoQueue::TooLong));
        assert!(template("jobs").render(None).is_ok());
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (text, error) in [
            ("", QueueTemplateError::Empty),
            ("a\n", QueueTemplateError::Control),
            ("inbox{user}", QueueTemplateError::Braces),
            ("inbox.{name}", QueueTemplateError::Braces),
            ("inbox.{user", QueueTemplateError::Braces),
            ("{user}{user}", QueueTemplateError::Braces),
        ] {
            assert_eq!(QueueTemplate::parse(text), Err(error), "{text:?}");
        }
        assert!(QueueTemplate::parse(&"x".repeat(256)).is_err());
    }

    #[test]
    fn templates_that_could_name_one_queue_overlap() {
        for (one, other, expected) in [
            ("jobs", "jobs", true),
            ("jobs", "job", false),
            ("inbox.{user}", "inbox.admin", true),
            ("inbox.{user}", "{user}.inbox", true),
            ("inbox.{user}", "inbox.{user}.new", false),
            ("inbox.{user}", "inbox.", false),
            ("inbox.{user}", "inbox.a b", false),
        ] {
            assert_eq!(template(one).overlaps(&template(other)), expected, "{one} {other}");
            assert_eq!(template(other).overlaps(&template(one)), expected, "{other} {one}");
        }
    }

    proptest! {
        /// No two people share a queue, and no name gets out of its word.
        #[test]
        fn every_name_has_a_queue_of_its_own(one in "\\PC{1,12}|[.%*#/a\\x00-\\x1f2E]{1,8}", other in "[.%*#/a\\x00-\\x1f2E]{1,8}") {
            let (first, second) = (queue("inbox.{user}", &one), queue("inbox.{user}", &other));
            prop_assert_eq!(one == other, first == second);
            prop_assert_eq!(first.split('.').count(), 2);
            prop_assert!(first.bytes().all(|byte| is_plain(byte) || byte == b'%' || byte == b'.'));
        }

        /// What two templates may both name, they are known to.
        #[test]
        fn overlaps_are_found(left in "(a|%2E|\\{user\\})(\\.(a|b|\\{user\\})){0,2}", right in "(a|%2E|\\{user\\})(\\.(a|b|\\{user\\})){0,2}", one in "[ab.]{1,2}", other in "[ab.]{1,2}") {
            let (left, right) = (template(&left), template(&right));
            if left.render(Some(&one)) == right.render(Some(&other)) {
                prop_assert!(left.overlaps(&right));
            }
        }
    }
}
