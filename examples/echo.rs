//! A WebSocket echo on passerelle's own frame code, for conformance suites: `PORT=9001 cargo run --example echo`.
//!
//! hyper answers the handshake; from then on every byte goes through the reader, the writer and the compression that the
//! server uses. Whatever comes is sent back as it came, compressed where that was negotiated.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use passerelle::transport::websocket::deflate::{Deflater, Negotiated};
use passerelle::transport::websocket::reader::{Limits, Reader, Received, Scratch};
use passerelle::transport::websocket::writer::{self, Packing};
use passerelle::transport::websocket::{Opcode, handshake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// The suites send messages of 16 MiB in fragments of 64 bytes.
const LIMITS: Limits = Limits { message_bytes_max: 64 << 20, fragments_max: 1 << 20 };

/// The level at which messages are compressed.
const LEVEL: u32 = 3;

/// How long a peer may take to close after our closing frame.
const FAREWELL: Duration = Duration::from_secs(1);

/// What all connections share, as those of a shard do.
#[derive(Default)]
struct Shared {
    scratch: Scratch,
    deflater: Deflater,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::var("PORT").unwrap_or_else(|_| "9001".to_owned()).parse()?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let shared = Rc::new(RefCell::new(Shared::default()));
    tokio::task::LocalSet::new().run_until(accept(listener, shared)).await
}

async fn accept(listener: TcpListener, shared: Rc<RefCell<Shared>>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let shared = shared.clone();
        tokio::task::spawn_local(async move {
            let service = hyper::service::service_fn(|request| answer(request, shared.clone()));
            let server = hyper::server::conn::http1::Builder::new();
            // A peer that breaks off its handshake is no concern of an echo.
            let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

/// Answers a handshake, or says why not.
async fn answer(request: Request<Incoming>, shared: Rc<RefCell<Shared>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let upgrading = request.extensions().get::<OnUpgrade>().cloned();
    let (parts, _) = request.into_parts();
    let mut response = Response::new(Full::default());
    match (handshake::examine(&parts), upgrading) {
        (Ok(upgrade), Some(upgrading)) => {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert("connection", http::HeaderValue::from_static("Upgrade"));
            headers.insert("upgrade", http::HeaderValue::from_static("websocket"));
            if let Ok(key) = upgrade.accept_key.parse() {
                headers.insert("sec-websocket-accept", key);
            }
            if let Some(deflate) = upgrade.deflate {
                headers.insert("sec-websocket-extensions", http::HeaderValue::from_static(deflate.answer()));
            }
            tokio::task::spawn_local(async move {
                if let Ok(upgraded) = upgrading.await {
                    // How it ended is the suite's to judge.
                    let _ = echo(TokioIo::new(upgraded), upgrade.deflate, shared).await;
                }
            });
        }
        (Err(refusal), _) => {
            *response.status_mut() = refusal.status;
            *response.body_mut() = Full::from(refusal.message);
        }
        (Ok(_), None) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

/// Sends everything back until one side closes.
async fn echo(
    mut stream: TokioIo<Upgraded>,
    deflate: Option<Negotiated>,
    shared: Rc<RefCell<Shared>>,
) -> io::Result<()> {
    let mut reader = Reader::new(LIMITS, deflate);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let input = buffer.get_mut(..count).unwrap_or_default();
        let (frames, over) = answers(&mut reader, input, deflate, &mut shared.borrow_mut());
        for frame in frames {
            stream.write_all(&frame).await?;
        }
        stream.flush().await?;
        if over {
            stream.shutdown().await?;
            // Read to its end, so that a reset does not overtake the closing frame.
            let rest = async { while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {} };
            return tokio::time::timeout(FAREWELL, rest).await.or(Ok(()));
        }
    }
}

/// What is sent for what came, and whether that was the end.
fn answers(
    reader: &mut Reader,
    mut input: &mut [u8],
    deflate: Option<Negotiated>,
    shared: &mut Shared,
) -> (Vec<Bytes>, bool) {
    let Shared { scratch, deflater } = shared;
    let mut frames = Vec::new();
    let mut back = |opcode, payload: &[u8]| match deflate.and_then(|_| deflater.compress(payload, LEVEL)) {
        Some(smaller) => writer::frame(opcode, Packing::Deflated, smaller),
        None => writer::frame(opcode, Packing::Plain, payload),
    };
    loop {
        let frame = match reader.next(&mut input, scratch) {
            Ok(None) => return (frames, false),
            Ok(Some(Received::Pong(_))) => continue,
            Ok(Some(Received::Text(text))) => back(Opcode::Text, text.as_bytes()),
            Ok(Some(Received::Binary(bytes))) => back(Opcode::Binary, bytes),
            Ok(Some(Received::Ping(payload))) => writer::pong(payload),
            Ok(Some(Received::Close { code, .. })) => {
                frames.push(code.map_or_else(writer::close_without_code, |code| writer::close(code, "")));
                return (frames, true);
            }
            Err(fault) => {
                frames.push(writer::close(fault.reason.code(), fault.detail));
                return (frames, true);
            }
        };
        frames.push(frame);
    }
}
