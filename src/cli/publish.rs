//! `passerelle pub`: publishes and waits for the broker's confirm, one message at a time.
//!
//! What was confirmed is published, what was refused is not; if the line is lost between the two, that is said, because a
//! second attempt could publish it twice.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::client::{Ended, Frame, Socket, Target, lost};
use super::{Failure, block_on};
use crate::model::topic::Topic;

/// Publish a message and wait until the broker has it
#[derive(Debug, Args)]
#[group(skip)]
#[command(after_help = "\
Prints nothing but errors; exits 0 once everything was confirmed.

Examples:
  passerelle pub orders.eu.created '{\"id\": 1}' --json
  tail -f app.log | passerelle pub logs.app -          each line a message
  passerelle pub jobs.resize photo.jpg --mandatory     fail if no queue takes it")]
pub(super) struct Arguments {
    /// The topic, which is the routing key
    topic: String,
    /// The payload, as it stands; - reads standard input, a message a line
    #[arg(allow_hyphen_values = true)]
    payload: String,
    #[command(flatten)]
    target: Target,
    /// What the payload is
    #[arg(long, value_name = "TYPE", default_value = "text/plain", conflicts_with = "json")]
    content_type: String,
    /// The payload is JSON: short for --content-type application/json
    #[arg(long)]
    json: bool,
    /// Fail when no queue gets the message
    #[arg(long)]
    mandatory: bool,
    /// How long each message may take, in seconds, reconnecting included
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

/// Bytes of one line of standard input at most.
const LINE_BYTES_MAX: usize = 64 << 20;

/// How long the line may be quiet while nothing is under way.
const IDLE: Duration = Duration::from_secs(75);

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    Topic::parse(&arguments.topic).map_err(|error| Failure::Usage(format!("the topic {error}")))?;
    let from_input = arguments.payload == "-";
    let mut publisher = Publisher::new(arguments);
    block_on(async move {
        if from_input {
            publisher.lines(BufReader::new(tokio::io::stdin())).await?;
        } else {
            let payload = publisher.arguments.payload.clone();
            publisher.publish(payload.as_bytes()).await?;
        }
        publisher.close().await;
        Ok(())
    })
}

/// Publishes messages one after the other, over as many connections as it takes.
struct Publisher {
    arguments: Arguments,
    socket: Option<Socket>,
    /// Publishes that were sent; the last one's id.
    sent: u64,
}

impl Publisher {
    fn new(arguments: Arguments) -> Self {
        Self { arguments, socket: None, sent: 0 }
    }

    /// Publishes each line, and keeps the connection alive while none comes.
    async fn lines(&mut self, mut input: impl AsyncBufRead + Unpin) -> Result<(), Failure> {
        let mut line = Vec::new();
        loop {
            let read = tokio::select! {
                // Cancelling this loses nothing: what was read stays in `line`.
                read = input.read_until(b'\n', &mut line) => Some(read?),
                () = quiet(&mut self.socket) => None,
            };
            if line.len() > LINE_BYTES_MAX {
                return Err(Failure::Failed(format!("a line is longer than {LINE_BYTES_MAX} bytes")));
            }
            let Some(read) = read else { continue };
            if line.last() == Some(&b'\n') {
                line.pop();
            } else if read == 0 && line.is_empty() {
                return Ok(());
            }
            self.publish(&line).await?;
            line.clear();
        }
    }

    /// Publishes one message and waits for its confirm.
    async fn publish(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let deadline = Instant::now() + Duration::from_secs(self.arguments.timeout);
        let mut backoff = Backoff::new();
        loop {
            let (why, asked) = match self.attempt(payload, deadline).await {
                Ok(()) => return Ok(()),
                Err(Ended::Output(error)) => return Err(error.into()),
                Err(Ended::Refused(why)) => return Err(Failure::Failed(why)),
                Err(Ended::Lost(why, asked)) => (why, asked),
            };
            let again = Instant::now() + backoff.pause(asked);
            if again >= deadline {
                return Err(Failure::Failed(format!("not published within {} s: {why}", self.arguments.timeout)));
            }
            tokio::time::sleep_until(again).await;
        }
    }

    /// One attempt. It is lost only if the message was certainly not published.
    async fn attempt(&mut self, payload: &[u8], deadline: Instant) -> Result<(), Ended> {
        let mut socket = match self.socket.take().map(|mut socket| (socket.is_open(), socket)) {
            Some((true, socket)) => socket,
            _ => Socket::connect(&self.arguments.target).await?,
        };
        self.sent += 1;
        let outcome = self.exchange(&mut socket, payload, deadline).await;
        // An answer leaves the connection as good as it was.
        if !matches!(outcome, Err(Ended::Refused(_))) {
            self.socket = Some(socket);
        }
        outcome
    }

    async fn exchange(&self, socket: &mut Socket, payload: &[u8], deadline: Instant) -> Result<(), Ended> {
        let in_flight = |ended| match ended {
            Ended::Lost(why, _) => {
                Ended::Refused(format!("{why}, before the confirm came: the message may be published or not"))
            }
            ended => ended,
        };
        socket.send(&self.object(payload)).await.map_err(in_flight)?;
        loop {
            let answer = tokio::time::timeout_at(deadline, socket.next(IDLE)).await;
            let text = answer.unwrap_or_else(|_| Err(lost("no answer came in time"))).map_err(in_flight)?;
            let frame = Frame::parse(&text)?;
            match (frame.op.as_str(), frame.number()) {
                ("ok", Some(id)) if id == self.sent => return Ok(()),
                // An error without our number is about the session, which then has refused us.
                ("error", id) if id.is_none_or(|id| id == self.sent || id == 0) => return Err(frame.error()),
                _ => {}
            }
        }
    }

    fn object(&self, payload: &[u8]) -> serde_json::Value {
        let content_type = if self.arguments.json { "application/json" } else { &self.arguments.content_type };
        let mut object = serde_json::json!({
            "op": "publish",
            "id": self.sent,
            "topic": self.arguments.topic,
            "data_base64": STANDARD.encode(payload),
            "content_type": content_type,
        });
        if self.arguments.mandatory {
            object["mandatory"] = true.into();
        }
        object
    }

    async fn close(&mut self) {
        if let Some(socket) = self.socket.take() {
            socket.close().await;
        }
    }
}

/// Reads what comes while nothing is under way, so that pings are answered; returns once the connection is gone, which
/// the next publish makes again.
async fn quiet(socket: &mut Option<Socket>) {
    let Some(open) = socket else { return std::future::pending().await };
    while open.next(IDLE).await.is_ok() {}
    *socket = None;
}

#[cfg(test)]
mod tests;
