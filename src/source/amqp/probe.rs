//! Questions to the broker that it can only refuse, for `check --connect`: the way in which it does tells whether something
//! may be done, and nothing is done. It asks for rights first, and only then for what is missing or wrong here.

use lapin::Channel;
use lapin::options::QueueBindOptions;
use lapin::types::FieldTable;

use crate::source::Trouble;

use super::connection::Live;
use super::exchange::short;
use super::words::{self, Refusal};

/// Whether queues may be bound to an exchange with this key, which has to be there: asks for a queue that is not. What is bound
/// for a moment only would take an exchange along that goes with its last binding.
pub(super) async fn bind(live: &Live, (exchange, key): (&str, &str), missing: &str) -> lapin::Result<()> {
    let channel = channel(live).await?;
    let [queue, exchange, key] = [short(missing), short(exchange), short(key)];
    let (queue, exchange, key) = (queue.map_err(other)?, exchange.map_err(other)?, key.map_err(other)?);
    match channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default()).await {
        Err(error) if is_not_found(&error) && words::quoted(&error).contains(missing) => Ok(()),
        asked => asked,
    }
}

fn is_not_found(error: &lapin::Error) -> bool {
    words::refusal(error) == Some(Refusal::NotFound)
}

async fn channel(live: &Live) -> lapin::Result<Channel> {
    live.channel().await.map_err(other)
}

fn other(trouble: Trouble) -> lapin::Error {
    std::io::Error::other(trouble.0).into()
}
