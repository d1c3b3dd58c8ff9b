//! A small client of Server-Sent Events: blocks from bytes, and the HTTP request that brings them.
//!
//! It reads what passerelle sends (HTML Living Standard, section 9.2, with lines that end in LF or CR LF).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::uri::Scheme;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::client::{CONNECT_TIMEOUT, Ended, Target, bearer, lost, refusal};

/// Bytes of one block at most.
const BLOCK_BYTES_MAX: usize = 64 << 20;

/// Bytes of a refusal's body that are read.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// The header in which a client says where it stopped.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Names and values.
type Query = [(&'static str, String)];

/// What may carry HTTP.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// Where the reader stands after it, if that changed.
    pub(super) id: Option<String>,
    /// The JSON object.
    pub(super) data: String,
}

/// An open stream of events.
pub(super) struct EventStream {
    body: Incoming,
    reader: BlockReader,
}

impl EventStream {
    /// Asks for what these fields of a query say, after `last_id` if there is one.
    pub(super) async fn connect(target: &Target, query: &Query, last_id: Option<&str>) -> Result<Self, Ended> {
        let uri = address(&target.url, query)?;
        let request = request(&uri, target.token(), last_id)?;
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, open(&uri, request)).await;
        let body = connected.map_err(|_| lost("no answer within 10 s"))??;
        Ok(Self { body, reader: BlockReader::default() })
    }

    /// The next event; an error when nothing at all came for `idle`, not even a comment.
    pub(super) async fn next(&mut self, idle: Duration) -> Result<Block, Ended> {
        loop {
            if let Some(block) = self.reader.next() {
                return Ok(block);
            }
            let received = tokio::time::timeout(idle, self.body.frame()).await;
            let frame = received.map_err(|_| lost("the server has gone quiet"))?;
            let frame = frame.ok_or_else(|| lost("the stream ended"))?.map_err(|error| lost(&error.to_string()))?;
            if let Some(bytes) = frame.data_ref() {
                self.reader.push(bytes)?;
            }
        }
    }
}

/// The address of the stream: that of the WebSocket, translated, or what was given.
fn address(url: &str, query: &Query) -> Result<Uri, Ended> {
    let wrong =
        |why: &str| Ended::Refused(format!("{url:?} is no address: {why}; write such as http://127.0.0.1:8080/sse"));
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
    let scheme = match uri.scheme_str() {
        Some("ws" | "http") => "http",
        Some("wss" | "https") => "https",
        _ => return Err(wrong("it has no scheme that can be used")),
    };
    let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?.as_str();
    let path = match uri.path() {
        "/" => "/sse".to_owned(),
        path => path.strip_suffix("/ws").map_or_else(|| path.to_owned(), |prefix| format!("{prefix}/sse")),
    };
    let encode = |(name, value): &(&str, String)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    let query = query.iter().map(encode).collect::<Vec<_>>().join("&");
    format!("{scheme}://{authority}{path}?{query}")
        .parse()
        .map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))
}

fn request(uri: &Uri, token: Option<&str>, last_id: Option<&str>) -> Result<Request<Empty<Bytes>>, Ended> {
    let target = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = target.parse().map_err(|_| Ended::Refused(format!("{target:?} cannot be asked for")))?;
    let headers = request.headers_mut();
    let host = uri.authority().map_or("", |authority| authority.as_str());
    headers.insert(HOST, HeaderValue::from_str(host).map_err(|_| Ended::Refused(format!("{host:?} is no host")))?);
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    if let Some(token) = token {
        headers.insert(AUTHORIZATION, bearer(token)?);
    }
    if let Some(id) = last_id {
        let id = HeaderValue::from_str(id).map_err(|_| Ended::Refused(format!("{id:?} is no cursor")))?;
        headers.insert(LAST_EVENT_ID, id);
    }
    Ok(request)
}

/// Sends the request, and returns the body that goes on for ever.
async fn open(uri: &Uri, request: Request<Empty<Bytes>>) -> Result<Incoming, Ended> {
    let stream = stream(uri).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error.to_string()))?;
    // It ends by itself once sender and body are dropped.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| lost(&error.to_string()))?;
    let (head, body) = response.into_parts();
    if head.status != http::StatusCode::OK {
        let body = http_body_util::Limited::new(body, REFUSAL_BYTES_MAX).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        return Err(refusal(head.status, &String::from_utf8_lossy(&body)));
    }
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("text/event-stream") {
        return Err(Ended::Refused(format!("{uri} answers with {kind:?} and no event stream: is it passerelle?")));
    }
    Ok(body)
}

async fn stream(uri: &Uri) -> Result<Box<dyn Stream>, Ended> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let tls = uri.scheme() == Some(&Scheme::HTTPS);
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let plain = TcpStream::connect((host, port)).await.map_err(|error| lost(&error.to_string()))?;
    if !tls {
        return Ok(Box::new(plain));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| Ended::Refused(format!("{host:?}: {error}")))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let encrypted = TlsConnector::from(Arc::new(config)).connect(name, plain).await;
    Ok(Box::new(encrypted.map_err(|error| lost(&error.to_string()))?))
}

/// Makes events of bytes, however these are split.
#[derive(Debug, Default)]
struct BlockReader {
    /// What came and holds no whole line yet, from `start` on.
    bytes: Vec<u8>,
    start: usize,
    id: Option<String>,
    data: Option<String>,
}

impl BlockReader {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.bytes.drain(..self.start);
        self.start = 0;
        let held = self.bytes.len() + self.data.as_ref().map_or(0, String::len);
        if held + bytes.len() > BLOCK_BYTES_MAX {
            return Err(Ended::Refused(format!("the server sent an event of more than {BLOCK_BYTES_MAX} bytes")));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole event, if it is there.
    fn next(&mut self) -> Option<Block> {
        loop {
            let rest = self.bytes.get(self.start..)?;
            let length = rest.iter().position(|byte| *byte == b'\n')?;
            let line = String::from_utf8_lossy(rest.get(..length)?).into_owned();
            self.start += length + 1;
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if line.is_empty() {
                let id = self.id.take();
                if let Some(data) = self.data.take() {
                    return Some(Block { id, data });
                }
                continue;
            }
            self.field(line);
        }
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (name, &mut self.data) {
            ("id", _) => self.id = Some(value.to_owned()),
            ("data", Some(data)) => {
                data.push('\n');
                data.push_str(value);
            }
            ("data", data) => *data = Some(value.to_owned()),
            // The object says itself what it is, and how long to wait before the next attempt is our own to decide.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(url: &str, patterns: &[&str]) -> String {
        let query: Vec<_> = patterns.iter().map(|pattern| ("pattern", (*pattern).to_owned())).collect();
        address(url, &query).unwrap().to_string()
    }

    #[test]
    fn the_address_follows_from_that_of_the_websocket() {
        assert_eq!(
            uri("ws://127.0.0.1:8080/ws", &["a.#", "b c"]),
            "http://127.0.0.1:8080/sse?pattern=a%2E%23&pattern=b%20c"
        );
        assert_eq!(uri("wss://host/live/ws", &["#"]), "https://host/live/sse?pattern=%23");
        assert_eq!(uri("http://host", &["#"]), "http://host/sse?pattern=%23");
        assert_eq!(uri("https://host/own", &["#"]), "https://host/own?pattern=%23");
        for url in ["127.0.0.1:8080", "ftp://host", "/sse"] {
            assert!(matches!(address(url, &[]), Err(Ended::Refused(_))), "{url}");
        }
    }

    #[test]
    fn blocks_are_read_however_they_are_split() {
        let text = ": hello\n\nretry: 500\n\nid: e~1.2\ndata: {\"a\":\ndata: 1}\n\nevent: gap\r\ndata:{}\r\n\r\nid: e~1.3\n\ndata: é\n\n";
        let expected = [
            Block { id: Some("e~1.2".into()), data: "{\"a\":\n1}".into() },
            Block { id: None, data: "{}".into() },
            Block { id: None, data: "é".into() },
        ];
        for size in 1..text.len() {
            let mut reader = BlockReader::default();
            let mut blocks = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                reader.push(piece).unwrap();
                blocks.extend(std::iter::from_fn(|| reader.next()));
            }
            assert_eq!(blocks, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn an_endless_block_is_refused() {
        let mut reader = BlockReader::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..100).any(|_| matches!(reader.push(&piece), Err(Ended::Refused(_))));
        assert!(refused && reader.bytes.len() <= BLOCK_BYTES_MAX);
    }
}
