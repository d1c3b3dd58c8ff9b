//! A server that plays a script: for tests of our clients. One list of steps a connection, in order.

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// One step of a conversation.
pub(super) enum Step {
    /// The client must send this object.
    Expect(Value),
    /// The client gets this text.
    Send(String),
    /// The connection is closed with this code.
    Close(u16),
    /// The connection is dropped without a word.
    Drop,
    /// The client leaves, and this is told then.
    Gone(oneshot::Sender<()>),
}

/// Expects an object.
pub(super) fn expect(object: &str) -> Step {
    Step::Expect(serde_json::from_str(object).unwrap())
}

/// Sends an object.
pub(super) fn send(object: &str) -> Step {
    Step::Send(object.to_owned())
}

/// What every client of ours says first.
pub(super) fn hello() -> Step {
    Step::Expect(serde_json::json!({
        "op": "connect", "id": 0, "client": super::client::AGENT,
    }))
}

/// Plays one script a connection over WebSocket, and fails if the client sends anything else.
pub(super) async fn websocket(scripts: Vec<Vec<Step>>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        for script in scripts {
            let (stream, _) = listener.accept().await.unwrap();
            play(stream, script).await;
        }
    });
    (address, server)
}

// The size of the error is tungstenite's to choose.
#[allow(clippy::result_large_err)]
fn choose(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get("sec-websocket-protocol").cloned().unwrap();
    response.headers_mut().insert("sec-websocket-protocol", offered);
    Ok(response)
}

async fn play(stream: TcpStream, script: Vec<Step>) {
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, choose).await.unwrap();
    let mut steps = VecDeque::from(script);
    while let Some(step) = steps.pop_front() {
        match step {
            Step::Expect(expected) => {
                let received = socket.next().await.unwrap().unwrap();
                let received: Value = serde_json::from_str(received.to_text().unwrap()).unwrap();
                assert_eq!(received, expected);
            }
            Step::Send(text) => socket.send(Message::text(text)).await.unwrap(),
            Step::Close(code) => {
                let frame = CloseFrame { code: code.into(), reason: "".into() };
                socket.close(Some(frame)).await.unwrap();
            }
            Step::Drop => return,
            Step::Gone(told) => {
                while let Some(Ok(_)) = socket.next().await {}
                told.send(()).unwrap();
            }
        }
    }
    // Whatever the client still says is its farewell.
    while let Some(Ok(_)) = socket.next().await {}
}

/// Answers each connection's request with the next text, and hands back the heads of the requests.
pub(super) async fn http(answers: Vec<String>) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let mut heads = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            heads.push(String::from_utf8(head).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        heads
    });
    (address, server)
}
