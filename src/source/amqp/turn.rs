//! Whose turn it is to consume a queue: whoever has a certain exclusive queue, which the broker gives to one connection at a
//! time and takes back when that connection is gone. So nodes can tell each other from strangers who consume the queue.

use lapin::options::QueueDeclareOptions;
use lapin::types::{FieldTable, ShortString};

use crate::source::Trouble;

use super::connection::Live;
use super::exchange::{self, short};
use super::receive;
use super::words::{self, Refusal};

/// This connection has it.
pub(crate) struct Turn(ShortString);

impl Turn {
    /// Takes it, unless somebody has it.
    ///
    /// # Errors
    /// When the broker does not let us, in words.
    pub(crate) async fn take(live: &Live, prefix: &str, queue: &str) -> Result<Option<Self>, Trouble> {
        let name = format!("{prefix}turn.{queue}");
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let channel = live.channel().await?;
        match channel.queue_declare(short(&name)?, options, FieldTable::default()).await {
            Ok(_) => {
                // The queue lives as long as the connection.
                receive::close(&channel, "taken").await;
                Ok(Some(Self(short(&name)?)))
            }
            Err(error) if words::refusal(&error) == Some(Refusal::Locked) => Ok(None),
            Err(error) => Err(words::of_own_queue(&error, &name, &live.peer)),
        }
    }

    /// Gives it back.
    pub(crate) async fn over(self, live: &Live) {
        exchange::delete(live, &[&self.0]).await;
    }
}
