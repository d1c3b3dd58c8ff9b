//! What `sub` and `pub` share: where to connect, the WebSocket to it, and the objects of `passerelle.v1.json`.
//!
//! A client of our own, written against the protocol and not against the server's code.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures_util::{FutureExt, SinkExt, StreamExt};
use http::header::{AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes, protocol::CloseFrame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::model::close::{CloseReason, Reconnect};

/// The subprotocol that we speak where nothing else is asked for.
const SUBPROTOCOL: &str = "passerelle.v1.json";

/// What we say that we are.
pub(super) const AGENT: &str = concat!("passerelle-cli/", env!("CARGO_PKG_VERSION"));

/// For connecting and the handshake.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to stay away when the server says "later".
const LATER: Duration = Duration::from_secs(5);

/// How often a server that has nothing to say is asked whether it is there, before it is given up.
const PINGS: u32 = 3;

const QUIET: &str = "the server has gone quiet";

/// Characters of a refusal's body that are shown.
const REFUSAL_CHARACTERS_MAX: usize = 300;

/// Where to connect and who we are.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(super) struct Target {
    /// Where passerelle listens
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080/ws")]
    pub(super) url: String,
    /// Token to show, where one is asked for
    #[arg(long, value_name = "TOKEN", env = "PASSERELLE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Target {
    /// The token to show, if there is one: an empty variable, as compose files make them, is as good as none.
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref().filter(|token| !token.is_empty())
    }
}

/// Why a conversation ended before its end.
#[derive(Debug)]
pub(super) enum Ended {
    /// What we print cannot be written.
    Output(std::io::Error),
    /// Another attempt would end the same way.
    Refused(String),
    /// Another attempt may go well, after this pause at least.
    Lost(String, Duration),
}

/// One object from the server; which fields are there depends on `op`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Frame<'a> {
    pub(super) op: String,
    pub(super) id: Option<serde_json::Value>,
    pub(super) pattern: Option<String>,
    pub(super) topic: Option<String>,
    pub(super) source: Option<String>,
    pub(super) cursor: Option<String>,
    pub(super) cursors: BTreeMap<String, String>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
    pub(super) data_base64: Option<String>,
    pub(super) replay: bool,
    pub(super) missed: Option<u64>,
    pub(super) reason: Option<String>,
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    pub(super) heartbeat_ms: Option<u64>,
    pub(super) reconnect_in_ms: Option<u64>,
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

impl<'a> Frame<'a> {
    /// Reads one object.
    pub(super) fn parse(text: &'a str) -> Result<Self, Ended> {
        serde_json::from_str(text)
            .map_err(|error| Ended::Refused(format!("the server sent what is no {SUBPROTOCOL}: {error}")))
    }

    /// The number that we gave the command which this answers.
    pub(super) fn number(&self) -> Option<u64> {
        self.id.as_ref().and_then(serde_json::Value::as_u64)
    }

    /// What an `error` means for us: only what the broker's absence causes may go well later.
    pub(super) fn error(&self) -> Ended {
        let message = self.message.as_deref().unwrap_or("the server gave no reason");
        let code = self.code.as_deref().unwrap_or("error");
        let sentence = format!("{message} ({code})");
        if code == "unavailable" { Ended::Lost(sentence, Duration::ZERO) } else { Ended::Refused(sentence) }
    }
}

/// A WebSocket that speaks `passerelle.v1.json`, unless it was opened for another.
pub(super) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// Connects and says who is there.
    pub(super) async fn connect(target: &Target) -> Result<Self, Ended> {
        let mut socket = Self::open(target, SUBPROTOCOL).await?;
        socket.send(&serde_json::json!({ "op": "connect", "id": 0, "client": AGENT })).await?;
        Ok(socket)
    }

    /// Connects, to speak a subprotocol.
    pub(super) async fn open(target: &Target, subprotocol: &'static str) -> Result<Self, Ended> {
        let wrong = |why: &str| {
            Ended::Refused(format!(
                "{:?} is no WebSocket address: {why}; write such as ws://127.0.0.1:8080/ws",
                target.url
            ))
        };
        if !target.url.starts_with("ws://") && !target.url.starts_with("wss://") {
            return Err(wrong("it does not begin with ws:// or wss://"));
        }
        let mut request = target.url.as_str().into_client_request().map_err(|error| wrong(&error.to_string()))?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        if let Some(token) = target.token() {
            request.headers_mut().insert(AUTHORIZATION, bearer(token)?);
        }
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect_async(request)).await;
        let connected = connected.map_err(|_| lost("no answer within 10 s"))?;
        connected.map(|(socket, _)| Self(socket)).map_err(|error| handshake_failure(error, subprotocol))
    }

    /// Sends one object.
    pub(super) async fn send(&mut self, object: &serde_json::Value) -> Result<(), Ended> {
        self.say(Message::text(object.to_string())).await
    }

    /// Sends one message.
    pub(super) async fn say(&mut self, message: Message) -> Result<(), Ended> {
        self.0.send(message).await.map_err(|error| lost(&error.to_string()))
    }

    /// The next object's text; an error when nothing at all came for `idle`, not even a ping.
    pub(super) async fn next(&mut self, idle: Duration) -> Result<Utf8Bytes, Ended> {
        loop {
            match self.frame(idle).await? {
                Some(Message::Text(text)) => return Ok(text),
                // Pings are answered below us, by the next read.
                Some(_) => {}
                None => return Err(lost(QUIET)),
            }
        }
    }

    /// The next message, text or binary, of a server that does not say how often it sends something: it is asked whether it is
    /// there.
    pub(super) async fn hear(&mut self, idle: Duration) -> Result<Message, Ended> {
        let mut silent = 0;
        loop {
            match self.frame(idle / PINGS).await? {
                Some(message @ (Message::Text(_) | Message::Binary(_))) => return Ok(message),
                Some(_) => silent = 0,
                None if silent == PINGS => return Err(lost(QUIET)),
                None => {
                    silent += 1;
                    self.say(Message::Ping(Bytes::new())).await?;
                }
            }
        }
    }

    /// Whatever comes next, but a closing frame; nothing where nothing comes for so long.
    async fn frame(&mut self, patience: Duration) -> Result<Option<Message>, Ended> {
        match tokio::time::timeout(patience, self.0.next()).await {
            Err(_) => Ok(None),
            Ok(Some(Ok(Message::Close(frame)))) => Err(closed(frame.as_ref())),
            Ok(Some(Ok(message))) => Ok(Some(message)),
            Ok(Some(Err(error))) => Err(lost(&error.to_string())),
            Ok(None) => Err(lost("the connection was closed")),
        }
    }

    /// Whether the connection is still good, as far as what has already arrived tells.
    pub(super) fn is_open(&mut self) -> bool {
        loop {
            match self.0.next().now_or_never() {
                None => return true,
                Some(Some(Ok(message))) if !message.is_close() => {}
                Some(_) => return false,
            }
        }
    }

    /// Says goodbye; whether the other side hears it does not matter any more.
    pub(super) async fn close(mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.0.close(None)).await;
    }
}

/// The header that shows a token.
pub(super) fn bearer(token: &str) -> Result<HeaderValue, Ended> {
    let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Ended::Refused("the token holds characters that no header can carry".into()))?;
    header.set_sensitive(true);
    Ok(header)
}

/// A loss after which one should stay away for a moment.
pub(super) fn later(why: String) -> Ended {
    Ended::Lost(why, LATER)
}

/// A loss after which one may try again at once.
pub(super) fn lost(why: &str) -> Ended {
    Ended::Lost(why.to_owned(), Duration::ZERO)
}

fn handshake_failure(error: Error, subprotocol: &str) -> Ended {
    match error {
        Error::Http(response) => {
            let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            refusal(response.status(), &body)
        }
        Error::Url(error) => Ended::Refused(error.to_string()),
        Error::Protocol(error) => {
            Ended::Refused(format!("the server does not speak {subprotocol} ({error}): is it passerelle?"))
        }
        error => lost(&error.to_string()),
    }
}

/// What an HTTP answer other than the hoped-for one means.
pub(super) fn refusal(status: http::StatusCode, body: &str) -> Ended {
    let body: String = body.trim().chars().take(REFUSAL_CHARACTERS_MAX).collect();
    let sentence = if body.is_empty() { status.to_string() } else { format!("{status}: {body}") };
    let later = matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error();
    if later { Ended::Lost(sentence, LATER) } else { Ended::Refused(sentence) }
}

/// What a closing frame means, by the table of endings.
fn closed(frame: Option<&CloseFrame>) -> Ended {
    let Some(frame) = frame else { return lost("the connection was closed") };
    let code = u16::from(frame.code);
    let known = CloseReason::ALL.iter().find(|reason| reason.code() == code);
    let detail = if frame.reason.is_empty() {
        known.map_or("no reason given", |reason| reason.name())
    } else {
        frame.reason.as_str()
    };
    let sentence = format!("closed by the server: {detail} ({code})");
    match known.map(|reason| reason.reconnect()) {
        Some(Reconnect::No | Reconnect::WithNewToken) => Ended::Refused(sentence),
        Some(Reconnect::Later) => Ended::Lost(sentence, LATER),
        Some(Reconnect::Yes) | None => Ended::Lost(sentence, Duration::ZERO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

    #[test]
    fn closing_codes_say_whether_to_come_back() {
        let ending = |code: u16, reason: &str| {
            closed(Some(&CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() }))
        };
        assert!(matches!(ending(1001, ""), Ended::Lost(why, _) if why == "closed by the server: going_away (1001)"));
        assert!(matches!(ending(1013, ""), Ended::Lost(_, pause) if pause == LATER));
        assert!(matches!(ending(4403, "no"), Ended::Refused(why) if why == "closed by the server: no (4403)"));
        assert!(matches!(ending(4401, ""), Ended::Refused(_)));
        assert!(matches!(ending(4999, ""), Ended::Lost(..)));
    }

    #[test]
    fn answers_that_stay_the_same_are_not_tried_again() {
        assert!(
            matches!(refusal(http::StatusCode::FORBIDDEN, " no "), Ended::Refused(why) if why == "403 Forbidden: no")
        );
        assert!(matches!(refusal(http::StatusCode::SERVICE_UNAVAILABLE, ""), Ended::Lost(..)));
        assert!(matches!(refusal(http::StatusCode::TOO_MANY_REQUESTS, ""), Ended::Lost(_, pause) if pause == LATER));
    }
}
