//! The publisher: one thread, one channel, as fast as the slowest subscriber follows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Connection, ConnectionProperties};

use crate::{Options, Progress};

/// Starts it; it ends when `progress.over` is set.
pub(crate) fn start(options: &Options, progress: Arc<Progress>) -> JoinHandle<anyhow::Result<()>> {
    let (url, exchange, topic) = (options.amqp.clone(), options.exchange.clone(), options.topic.clone());
    let (size, in_flight) = (options.size, options.in_flight);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            let payload = vec![b'x'; size];
            let mut published = 0;
            while !progress.over.load(Ordering::Relaxed) {
                if published >= progress.slowest.load(Ordering::Relaxed) + in_flight {
                    progress.risen.notified().await;
                    continue;
                }
                let (exchange, key) = (exchange.as_str().into(), topic.as_str().into());
                let properties = BasicProperties::default();
                channel.basic_publish(exchange, key, BasicPublishOptions::default(), &payload, properties).await?;
                published += 1;
            }
            connection.close(200, "done".into()).await?;
            Ok(())
        })
    })
}
