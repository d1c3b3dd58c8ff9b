//! Thousands of clients at once, and what they cost the broker and the log: counted, never timed.

mod bindings;
mod restart;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::program::{PATIENCE, Program};

/// Handshakes under way at once: fewer than wait in a listener's queue.
const SHAKING_MAX: usize = 100;

/// What a client reads at once; there are many.
const READ_BYTES: usize = 2_048;

/// First bytes of the frames that are told apart: each is final.
const TEXT: u8 = 0x81;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// What a length of one byte says where two bytes of length follow, or eight.
const TWO_BYTES: u8 = 126;
const EIGHT_BYTES: u8 = 127;

/// A client of `passerelle.v1.json` that is light enough for ten thousand of them in one test.
struct Light {
    socket: BufReader<TcpStream>,
}

impl Light {
    async fn open(program: &Program) -> std::io::Result<Self> {
        let mut socket = BufReader::with_capacity(READ_BYTES, TcpStream::connect(&program.public).await?);
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: passerelle.v1.json\r\n\r\n",
            program.public
        );
        socket.write_all(request.as_bytes()).await?;
        let mut line = String::new();
        socket.read_line(&mut line).await?;
        assert!(line.starts_with("HTTP/1.1 101"), "{line}");
        while line != "\r\n" {
            line.clear();
            socket.read_line(&mut line).await?;
        }
        Ok(Self { socket })
    }

    /// Sends one frame. Its mask is all zeros, which changes nothing and is as good as any other.
    async fn send(&mut self, kind: u8, payload: &[u8]) -> std::io::Result<()> {
        let mut frame = vec![kind];
        match u8::try_from(payload.len()) {
            Ok(length) if length < TWO_BYTES => frame.push(0x80 | length),
            _ => {
                frame.push(0x80 | TWO_BYTES);
                frame.extend(u16::try_from(payload.len()).expect("a short command").to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.socket.write_all(&frame).await
    }

    /// Sends a command.
    async fn command(&mut self, command: &Value) {
        self.send(TEXT, command.to_string().as_bytes()).await.expect("a command is sent");
    }

    /// The next object's text, of those that are no `position`.
    async fn text(&mut self) -> String {
        let reading = async {
            loop {
                let text = self.read_text().await.expect("an open connection");
                if !text.starts_with("{\"op\":\"position\"") {
                    return text;
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("a text in time")
    }

    async fn read_text(&mut self) -> std::io::Result<String> {
        loop {
            let (kind, length) = (self.socket.read_u8().await?, self.socket.read_u8().await?);
            let length = match length {
                TWO_BYTES => u64::from(self.socket.read_u16().await?),
                EIGHT_BYTES => self.socket.read_u64().await?,
                short => u64::from(short),
            };
            let mut payload = vec![0; usize::try_from(length).expect("a length")];
            self.socket.read_exact(&mut payload).await?;
            match kind {
                TEXT => return Ok(String::from_utf8(payload).expect("a text")),
                PING => self.send(PONG, &payload).await?,
                other => panic!("neither a text nor a ping: {other:#x}, {payload:?}"),
            }
        }
    }

    /// The reply to a subscribe, which must stand.
    async fn subscribed(&mut self) {
        let text = self.text().await;
        assert!(text.contains("\"op\":\"subscribed\""), "{text}");
    }
}

/// So many clients more.
async fn join(crowd: &mut Vec<Light>, program: &Program, count: usize) {
    // As many files are open here as in the program.
    rlimit::increase_nofile_limit(u64::MAX).expect("a limit of open files");
    let opening = stream::iter(0..count).map(|_| Light::open(program)).buffer_unordered(SHAKING_MAX);
    crowd.extend(opening.try_collect::<Vec<_>>().await.expect("every client has its connection"));
}
