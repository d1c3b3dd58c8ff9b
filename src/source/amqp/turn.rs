//! Whose turn it is to consume a queue: whoever has a certain exclusive queue, which the broker gives to one connection at a
//! time and takes back when that connection is gone. So nodes can tell each other from strangers who consume the queue.

use aws_lc_rs::digest::{SHA256, digest};
use lapin::options::QueueDeclareOptions;
use lapin::types::{FieldTable, ShortString};

use crate::source::Trouble;

use super::connection::Live;
use super::exchange::{self, short};
use super::receive::{self, CANCEL_TIMEOUT};
use super::words::{self, Refusal};

/// This connection has it.
pub(crate) struct Turn(ShortString);

impl Turn {
    /// Takes it, unless somebody has it.
    ///
    /// # Errors
    /// When the broker does not let us, in words.
    pub(crate) async fn take(live: &Live, prefix: &str, queue: &str) -> Result<Option<Self>, Trouble> {
        let name = short(&name(prefix, queue))?;
        Ok(hold(live, &name).await?.then_some(Self(name)))
    }

    /// Gives it back.
    pub(crate) async fn over(self, live: &Live) {
        exchange::delete(live, &[&self.0], CANCEL_TIMEOUT).await;
    }
}

/// Takes an exclusive queue, for as long as the connection lives; false where another connection has it.
///
/// # Errors
/// When the broker does not let us, in words.
pub(crate) async fn hold(live: &Live, name: &ShortString) -> Result<bool, Trouble> {
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let channel = live.channel().await?;
    match channel.queue_declare(name.clone(), options, FieldTable::default()).await {
        Ok(_) => {
            // The queue lives as long as the connection.
            receive::close(&channel, "taken").await;
            Ok(true)
        }
        Err(error) if words::refusal(&error) == Some(Refusal::Locked) => Ok(false),
        Err(error) => Err(words::of_own_queue(&error, name.as_str(), &live.peer)),
    }
}

/// The same on all nodes that have the same prefix. Of a queue whose own name leaves no room for more it is a hash.
fn name(prefix: &str, queue: &str) -> String {
    let name = format!("{prefix}turn.{queue}");
    if ShortString::try_new(name.as_str()).is_ok() {
        return name;
    }
    let hash = digest(&SHA256, queue.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{prefix}turn.{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_with_the_longest_name_has_a_turn_too() {
        assert_eq!(name("passerelle.", &"q".repeat(239)), format!("passerelle.turn.{}", "q".repeat(239)));
        let [one, other] = ["q".repeat(240), "q".repeat(255)].map(|queue| name("passerelle.", &queue));
        assert_eq!((one.len(), other.len()), (80, 80));
        assert_ne!(one, other);
        // What another version writes must be the same.
        assert_eq!(one, "passerelle.turn.c1da297fd74ce54714fbc2180afe4f670ca71d22beeb4b13770e050d63f3ff46");
    }
}
