//! Heart-beats: the header in which both sides say what they can do, and what follows from it.
//!
//! It knows no clock: whoever holds one asks how often to send and how long to wait.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// No heart-beats come more often, whatever a client asks for: each costs a write, and a million a second would be a flood.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// None that are sent come more rarely; and who beats more rarely is not waited for.
pub const INTERVAL_MAX: Duration = Duration::from_hours(1);

/// How rarely a browser lets a page in the background beat, whatever the page has promised.
const BACKGROUND_INTERVAL: Duration = Duration::from_mins(1);

/// How many intervals may pass without a sign of life.
const INTERVALS_MISSED_MAX: u32 = 2;

/// What one side says of itself, or, of the server and once agreed on, what it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeartBeat {
    /// At least how often it sends something; `None` when it promises nothing.
    pub sends: Option<Duration>,
    /// How often it wants something from the other side; `None` when it does not mind.
    pub wants: Option<Duration>,
}

/// Not a `heart-beat` header: the rest of a sentence that begins with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("takes two whole numbers of milliseconds, such as 10000,10000, where 0 is never")]
pub struct HeartBeatError;

impl HeartBeat {
    /// Neither side has to send anything: what a missing header means.
    pub const NONE: Self = Self { sends: None, wants: None };

    /// Reads a header's value.
    ///
    /// # Errors
    /// When it is not two whole numbers.
    pub fn parse(value: &str) -> Result<Self, HeartBeatError> {
        let (sends, wants) = value.split_once(',').ok_or(HeartBeatError)?;
        Ok(Self { sends: interval(sends)?, wants: interval(wants)? })
    }

    /// What this side, the server, does together with a client that says this of itself. The answer to the client
    /// is that, too: from it, and from what it has sent, it finds the same numbers.
    pub fn agree(self, client: Self) -> Self {
        let slower = |one: Option<Duration>, other: Option<Duration>| Some(one?.max(other?).max(INTERVAL_MIN));
        Self {
            sends: slower(self.sends, client.wants).map(|interval| interval.min(INTERVAL_MAX)),
            wants: slower(self.wants, client.sends).filter(|interval| *interval <= INTERVAL_MAX),
        }
    }

    /// How long to wait for a sign of life before the other side counts as gone; `None` is for ever.
    ///
    /// Two intervals, and those of a page in the background at the least: a tab that is out of sight is no dead client.
    pub fn patience(self) -> Option<Duration> {
        self.wants.map(|interval| interval.max(BACKGROUND_INTERVAL) * INTERVALS_MISSED_MAX)
    }
}

/// One of the two numbers. More digits than fit are more than can be waited for.
fn interval(number: &str) -> Result<Option<Duration>, HeartBeatError> {
    let number = number.trim();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HeartBeatError);
    }
    let millis = number.parse().unwrap_or(u64::MAX);
    Ok((millis > 0).then_some(Duration::from_millis(millis)))
}

/// As it stands in the header.
impl fmt::Display for HeartBeat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |interval: Option<Duration>| interval.map_or(0, |interval| interval.as_millis());
        write!(formatter, "{},{}", millis(self.sends), millis(self.wants))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heart_beat(value: &str) -> HeartBeat {
        HeartBeat::parse(value).unwrap()
    }

    #[test]
    fn a_header_is_two_whole_numbers() {
        assert_eq!(heart_beat("0,0"), HeartBeat::NONE);
        let expected = HeartBeat { sends: Some(Duration::from_secs(10)), wants: None };
        assert_eq!(heart_beat("10000,0"), expected);
        assert_eq!(heart_beat(" 10000 , 00"), expected);
        for value in ["", ",", "1", "1,", ",1", "-1,0", "+1,0", "1,2,3", "1.5,0", "a,b", "1;2"] {
            assert_eq!(HeartBeat::parse(value), Err(HeartBeatError), "{value:?}");
        }
        assert_eq!(
            HeartBeatError.to_string(),
            "takes two whole numbers of milliseconds, such as 10000,10000, where 0 is never"
        );
    }

    #[test]
    fn what_is_agreed_on_suits_both_and_is_bounded() {
        for (server, client, agreed) in [
            ("10000,10000", "0,0", "0,0"),
            ("0,0", "10000,10000", "0,0"),
            ("10000,10000", "4000,20000", "20000,10000"),
            ("10000,20000", "20000,4000", "10000,20000"),
            ("10000,0", "5000,5000", "10000,0"),
            // Too often, too rarely, and never to come: who sends once in a century is not waited for.
            ("1,1", "1,1", "1000,1000"),
            ("1000,1000", "99999999999999999999999,99999999999999999999999", "3600000,0"),
            ("1000,1000", "3600000,3600000", "3600000,3600000"),
            ("1000,1000", "3600001,3600001", "3600000,0"),
        ] {
            assert_eq!(heart_beat(server).agree(heart_beat(client)).to_string(), agreed, "{server} {client}");
        }
    }

    #[test]
    fn a_page_in_the_background_is_waited_for() {
        assert_eq!(heart_beat("0,0").patience(), None);
        assert_eq!(heart_beat("0,10000").patience(), Some(Duration::from_secs(120)));
        assert_eq!(heart_beat("0,90000").patience(), Some(Duration::from_secs(180)));
    }

    proptest! {
        /// A client takes the greater of its own number and the answer's: it must not come out at less than the server
        /// expects of it, nor may the server send more rarely than the client then expects.
        #[test]
        fn both_sides_find_the_same_numbers(server in "[0-9]{1,8},[0-9]{1,8}", client in "[0-9]{1,21},[0-9]{1,21}") {
            let (server, client) = (heart_beat(&server), heart_beat(&client));
            let agreed = server.agree(client);
            let answer = heart_beat(&agreed.to_string());
            prop_assert_eq!(answer, agreed);
            let greater = |one: Option<Duration>, other: Option<Duration>| Some(one?.max(other?));
            if let Some(wants) = agreed.wants {
                prop_assert_eq!(greater(client.sends, answer.wants), Some(wants));
            }
            if let Some(expected) = greater(client.wants, answer.sends) {
                prop_assert!(agreed.sends.is_some_and(|interval| interval <= expected));
            }
            for interval in [agreed.sends, agreed.wants].into_iter().flatten() {
                prop_assert!((INTERVAL_MIN..=INTERVAL_MAX).contains(&interval));
            }
        }

        #[test]
        fn no_text_does_harm(value in "\\PC{0,40}") {
            let _ = HeartBeat::parse(&value).map(|client| client.agree(client).patience());
        }
    }
}
