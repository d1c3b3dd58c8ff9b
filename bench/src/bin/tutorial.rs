//! A bridge as tutorials write it: lapin, tokio-tungstenite, and for each client a task and a channel. The
//! peer that passerelle has to beat first; no part of the product.
//!
//! `tutorial AMQP_URL LISTEN EXCHANGE KEY` sends each message of the exchange under KEY to everybody who connects.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// A channel for each client, by its address.
type Clients = Arc<Mutex<HashMap<SocketAddr, UnboundedSender<Message>>>>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, listen, exchange, key] = arguments.as_slice() else {
        anyhow::bail!("usage: tutorial AMQP_URL LISTEN EXCHANGE KEY");
    };
    let clients = Clients::default();
    let listener = TcpListener::bind(listen).await?;
    tokio::spawn(accept(listener, clients.clone()));
    consume(url, exchange, key, clients).await
}

async fn accept(listener: TcpListener, clients: Clients) {
    while let Ok((stream, address)) = listener.accept().await {
        let clients = clients.clone();
        tokio::spawn(async move {
            // Whatever it ended with, the client is gone.
            let _ = serve(stream, address, &clients).await;
            lock(&clients).remove(&address);
        });
    }
}

/// One client, until it goes.
#[expect(clippy::disallowed_methods, reason = "tutorials bound nothing; passerelle does")]
async fn serve(stream: TcpStream, address: SocketAddr, clients: &Clients) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let (mut sink, mut incoming) = tokio_tungstenite::accept_async(stream).await?.split();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    lock(clients).insert(address, sender);
    loop {
        tokio::select! {
            message = receiver.recv() => sink.send(message.context("no channel")?).await?,
            frame = incoming.next() => {
                frame.context("closed")??;
            }
        }
    }
}

fn lock(clients: &Clients) -> MutexGuard<'_, HashMap<SocketAddr, UnboundedSender<Message>>> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn consume(url: &str, exchange: &str, key: &str, clients: Clients) -> anyhow::Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(250, BasicQosOptions::default()).await?;
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = channel.queue_declare("".into(), exclusive, FieldTable::default()).await?;
    let name = queue.name().clone();
    let bind = QueueBindOptions::default();
    channel.queue_bind(name.clone(), exchange.into(), key.into(), bind, FieldTable::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(name, "".into(), options, FieldTable::default()).await?;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        delivery.acker.ack(BasicAckOptions::default()).await?;
        let message = Message::Text(Utf8Bytes::try_from(Bytes::from(delivery.data))?);
        for sender in lock(&clients).values() {
            // A client that has just gone will be taken out by its task.
            let _ = sender.send(message.clone());
        }
    }
    anyhow::bail!("RabbitMQ ended the consumer")
}
