//! A small HTTP client for `sub`: the address of each way to listen, the request, and a connection over TCP or TLS.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::uri::Scheme;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::client::{CONNECT_TIMEOUT, Ended, Target, bearer, lost, refusal};

/// Bytes of a refusal's body that are read.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// The header in which a client says where it stopped.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Names and values.
pub(super) type Query = [(&'static str, String)];

/// What may carry HTTP.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A way to listen by HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Server-Sent Events.
    EventStream,
    /// One JSON object a line.
    Lines,
    /// An answer at a time.
    Poll,
}

impl Way {
    fn path(self) -> &'static str {
        match self {
            Self::EventStream => "sse",
            Self::Lines => "stream",
            Self::Poll => "poll",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::EventStream => "text/event-stream",
            Self::Lines => "application/x-ndjson",
            Self::Poll => "application/json",
        }
    }

    /// The address for it: that of the WebSocket, translated, or what was given.
    pub(super) fn address(self, url: &str, query: &Query) -> Result<Uri, Ended> {
        let name = self.path();
        let wrong = |why: &str| {
            Ended::Refused(format!("{url:?} is no address: {why}; write such as http://127.0.0.1:8080/{name}"))
        };
        let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        let scheme = match uri.scheme_str() {
            Some("ws" | "http") => "http",
            Some("wss" | "https") => "https",
            _ => return Err(wrong("it has no scheme that can be used")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?.as_str();
        let path = match uri.path() {
            "/" => format!("/{name}"),
            path => path.strip_suffix("/ws").map_or_else(|| path.to_owned(), |prefix| format!("{prefix}/{name}")),
        };
        let encode =
            |(name, value): &(&str, String)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
        let query = query.iter().map(encode).collect::<Vec<_>>().join("&");
        format!("{scheme}://{authority}{path}?{query}")
            .parse()
            .map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))
    }
}

/// A connection on which one may be asked after the other.
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
}

impl Connection {
    /// Connects to where an address leads.
    pub(super) async fn open(uri: &Uri) -> Result<Self, Ended> {
        let handshake = async {
            let stream = TokioIo::new(stream(uri).await?);
            hyper::client::conn::http1::handshake(stream).await.map_err(|error| lost(&error.to_string()))
        };
        let (sender, connection) = tokio::time::timeout(CONNECT_TIMEOUT, handshake).await.map_err(|_| silent())??;
        // It ends by itself once sender and body are dropped.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Asks, and returns the body of an answer of the kind that the way has.
    pub(super) async fn ask(&mut self, way: Way, uri: &Uri, request: Request<Empty<Bytes>>) -> Result<Incoming, Ended> {
        let gone = |error: hyper::Error| lost(&error.to_string());
        self.sender.ready().await.map_err(gone)?;
        let response = self.sender.send_request(request).await.map_err(gone)?;
        let (head, body) = response.into_parts();
        if head.status != http::StatusCode::OK {
            let body = http_body_util::Limited::new(body, REFUSAL_BYTES_MAX).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            return Err(refusal(head.status, &String::from_utf8_lossy(&body)));
        }
        let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with(way.content_type()) {
            let wanted = way.content_type();
            return Err(Ended::Refused(format!("{uri} answers with {kind:?} and no {wanted}: is it passerelle?")));
        }
        Ok(body)
    }
}

/// What is said of a server that says nothing.
pub(super) fn silent() -> Ended {
    lost("no answer within 10 s")
}

/// The request; `last_id` is where its answer goes on.
pub(super) fn request(
    way: Way,
    uri: &Uri,
    target: &Target,
    last_id: Option<&str>,
) -> Result<Request<Empty<Bytes>>, Ended> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = path.parse().map_err(|_| Ended::Refused(format!("{path:?} cannot be asked for")))?;
    let headers = request.headers_mut();
    let host = uri.authority().map_or("", |authority| authority.as_str());
    headers.insert(HOST, HeaderValue::from_str(host).map_err(|_| Ended::Refused(format!("{host:?} is no host")))?);
    headers.insert(ACCEPT, HeaderValue::from_static(way.content_type()));
    if let Some(token) = target.token() {
        headers.insert(AUTHORIZATION, bearer(token)?);
    }
    if let Some(id) = last_id {
        let id = HeaderValue::from_str(id).map_err(|_| Ended::Refused(format!("{id:?} is no cursor")))?;
        headers.insert(LAST_EVENT_ID, id);
    }
    Ok(request)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(way: Way, url: &str, patterns: &[&str]) -> String {
        let query: Vec<_> = patterns.iter().map(|pattern| ("pattern", (*pattern).to_owned())).collect();
        way.address(url, &query).unwrap().to_string()
    }

    #[test]
    fn the_address_follows_from_that_of_the_websocket() {
        assert_eq!(
            uri(Way::EventStream, "ws://127.0.0.1:8080/ws", &["a.#", "b c"]),
            "http://127.0.0.1:8080/sse?pattern=a%2E%23&pattern=b%20c"
        );
        assert_eq!(uri(Way::Lines, "wss://host/live/ws", &["#"]), "https://host/live/stream?pattern=%23");
        assert_eq!(uri(Way::Poll, "http://host", &["#"]), "http://host/poll?pattern=%23");
        assert_eq!(uri(Way::EventStream, "https://host/own", &["#"]), "https://host/own?pattern=%23");
        for url in ["127.0.0.1:8080", "ftp://host", "/sse"] {
            assert!(matches!(Way::EventStream.address(url, &[]), Err(Ended::Refused(_))), "{url}");
        }
    }
}
