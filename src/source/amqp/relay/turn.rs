//! Whose turn it is to move a queue: whoever has a certain exclusive queue, which the broker gives to one connection at a
//! time and takes back when that connection is gone. So nodes can tell each other from strangers who consume the queue.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{FieldTable, ShortString};

use crate::source::Trouble;
use crate::source::amqp::connection::Live;
use crate::source::amqp::exchange::short;
use crate::source::amqp::receive::{self, CANCEL_TIMEOUT};
use crate::source::amqp::words::{self, Refusal};

/// This connection has it.
pub(in crate::source::amqp) struct Turn(ShortString);

impl Turn {
    /// Takes it, unless somebody has it.
    ///
    /// # Errors
    /// When the broker does not let us, in words.
    pub(in crate::source::amqp) async fn take(live: &Live, prefix: &str, queue: &str) -> Result<Option<Self>, Trouble> {
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
    pub(in crate::source::amqp) async fn over(self, live: &Live) {
        let given_back = async {
            let channel = live.channel().await.ok()?;
            channel.queue_delete(self.0, QueueDeleteOptions::default()).await.ok()?;
            channel.close(200, "given back".into()).await.ok()
        };
        // It goes with the connection in any case.
        let _ = tokio::time::timeout(CANCEL_TIMEOUT, given_back).await;
    }
}
