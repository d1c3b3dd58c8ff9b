//! HTTP on the public listener: hyper serves a socket until a request turns it into a session, which then takes the
//! socket over. hyper upgrades only on status 101, and an event stream's is 200; so the service never answers such a
//! request, leaves the session in a slot, and whoever polls hyper takes the socket back out of it. Both kinds of session
//! come about in this one way.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::metrics::Handshake;
use crate::transport::gate::Visitor;
use crate::transport::opening::{self, Opened};
use crate::transport::seats::Seat;
use crate::transport::shard::Site;
use crate::transport::{cross_origin, pages, poll, publish};

/// A whole answer.
pub(crate) type Answer = Response<Full<Bytes>>;

/// What a request comes to.
pub(crate) enum Outcome {
    /// It is answered, and the connection goes on with HTTP.
    Answered(Answer),
    /// It becomes a session.
    Opened(Box<Opened>),
}

/// Who is at the other end of a socket.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Its address; none on a Unix socket.
    pub(crate) peer: Option<IpAddr>,
    /// Its place among all connections.
    pub(crate) seat: Rc<Seat>,
}

/// A socket that became a session, with what the client sent after its request.
pub(crate) struct Taken<S> {
    pub(crate) stream: S,
    pub(crate) leftover: Vec<u8>,
    pub(crate) opened: Opened,
}

/// Serves HTTP on a socket until it closes or becomes a session.
pub(crate) async fn serve<S>(stream: S, caller: Caller, site: Rc<Site>) -> Option<Taken<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let slot: Rc<RefCell<Option<Opened>>> = Rc::default();
    let server = &site.shared.settings.server;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Who has asked and says nothing more is answered all the same.
        .half_close(true)
        .header_read_timeout(server.handshake_timeout)
        .max_buf_size(server.head_bytes_max)
        .max_headers(server.head_fields_max);
    let asked = Rc::new(Cell::new(false));
    let (into, asks) = (slot.clone(), asked.clone());
    let metrics = site.shared.metrics.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        asks.set(true);
        let (site, slot, caller) = (site.clone(), into.clone(), caller.clone());
        Box::pin(async move {
            match route(request, caller, &site).await {
                Outcome::Answered(answer) => Ok::<_, Infallible>(answer),
                Outcome::Opened(opened) => {
                    slot.replace(Some(*opened));
                    std::future::pending().await
                }
            }
        })
    });
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    // The slot is looked at after each poll, when hyper has flushed whatever answers came before.
    let opened = poll_fn(|context| {
        let polled = connection.poll_without_shutdown(context);
        match (slot.take(), polled) {
            (Some(opened), _) => Poll::Ready(Some(opened)),
            (None, Poll::Ready(ended)) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended in its request");
                    failed(&error, asked.get()).into_iter().for_each(|result| metrics.handshake(result));
                }
                Poll::Ready(None)
            }
            (None, Poll::Pending) => Poll::Pending,
        }
    })
    .await;
    let parts = connection.into_parts();
    match opened {
        Some(opened) => Some(Taken { stream: parts.io.into_inner(), leftover: parts.read_buf.to_vec(), opened }),
        None => {
            shut_down(parts.io).await;
            None
        }
    }
}

/// How an attempt ended that never came to a whole head. A connection that was kept after its first request may fall silent.
fn failed(error: &hyper::Error, asked: bool) -> Option<Handshake> {
    if error.is_parse_too_large() {
        Some(Handshake::HeadTooLarge)
    } else {
        (error.is_timeout() && !asked).then_some(Handshake::Timeout)
    }
}

/// Says to the peer that nothing more will come, which lets it read the last answer in peace.
async fn shut_down(mut io: impl Read + Write + Unpin) {
    // It may be gone already.
    let _ = poll_fn(|context| Pin::new(&mut io).poll_shutdown(context)).await;
}

/// Whether a request says as it must for which host it is (RFC 9112, section 3.2).
fn names_its_host<B>(request: &Request<B>) -> bool {
    match request.headers().get_all(header::HOST).iter().count() {
        0 => request.version() < Version::HTTP_11,
        hosts => hosts == 1,
    }
}

/// Answers a request, so that pages of other origins that may come here can read the answer.
async fn route(request: Request<Incoming>, caller: Caller, site: &Rc<Site>) -> Outcome {
    if !names_its_host(&request) {
        return Outcome::Answered(refuse(
            StatusCode::BAD_REQUEST,
            "say once for which host this is: Host: example.org",
        ));
    }
    let visitor = Visitor::of(&request, caller.peer, &site.shared.settings);
    let Some(methods) = cross_origin::methods(site.local_path(request.uri().path())) else {
        return dispatch(request, &visitor, caller, site).await;
    };
    if request.method() == Method::OPTIONS {
        return Outcome::Answered(cross_origin::preflight(methods, &visitor, site));
    }
    match dispatch(request, &visitor, caller, site).await {
        Outcome::Answered(answer) => Outcome::Answered(cross_origin::readable(answer, &visitor, site)),
        opened @ Outcome::Opened(_) => opened,
    }
}

/// Who answers a request: sessions, pages or nobody.
async fn dispatch(request: Request<Incoming>, visitor: &Visitor, caller: Caller, site: &Rc<Site>) -> Outcome {
    let path = site.local_path(request.uri().path()).to_owned();
    let upgrade = crate::transport::websocket::handshake::is_upgrade(request.headers());
    match path.as_str() {
        "/ws" => opening::websocket(request, visitor, site),
        "/" if upgrade => opening::websocket(request, visitor, site),
        "/sse" => opening::listen(&request, visitor, site, &opening::EVENT_STREAM),
        "/stream" => opening::listen(&request, visitor, site, &opening::LINES),
        "/poll" => Outcome::Answered(poll::answer(&request, visitor, caller.seat, site).await),
        _ if path.starts_with("/publish/") => Outcome::Answered(publish::answer(request, visitor, site).await),
        _ => Outcome::Answered(match *request.method() {
            Method::GET | Method::HEAD => pages::answer(&path, request.method(), site).await,
            _ => not_allowed("GET, HEAD", "there are only pages to GET here; publish with POST /publish/{topic}"),
        }),
    }
}

/// An answer with a JSON body that says what to do.
pub(crate) fn refuse(status: StatusCode, sentence: &str) -> Answer {
    json(status, &serde_json::json!({ "error": sentence }))
}

/// The answer to a method that a path does not have (RFC 9110, section 15.5.6).
pub(crate) fn not_allowed(methods: &'static str, sentence: &str) -> Answer {
    let mut answer = refuse(StatusCode::METHOD_NOT_ALLOWED, sentence);
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    answer
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, body: &serde_json::Value) -> Answer {
    dressed(status, Full::from(format!("{body}\n")))
}

/// Likewise, where the body is written already.
pub(crate) fn dressed(status: StatusCode, body: Full<Bytes>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_host_once() {
        let request = |version, hosts: &[&str]| {
            let request = Request::builder().version(version);
            hosts.iter().fold(request, |request, host| request.header(header::HOST, *host)).body(()).unwrap()
        };
        assert!(names_its_host(&request(Version::HTTP_11, &["a"])));
        assert!(names_its_host(&request(Version::HTTP_10, &[])));
        assert!(!names_its_host(&request(Version::HTTP_11, &[])));
        assert!(!names_its_host(&request(Version::HTTP_11, &["a", "b"])));
        assert!(!names_its_host(&request(Version::HTTP_10, &["a", "a"])));
    }
}
