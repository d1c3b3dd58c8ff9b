//! One request to the admin listener, one answer: the table of paths, and the forms of what they show.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

use super::Patience;
use super::access::{Refusal, check_api, check_caller, check_host};
use super::view::{AdminView, Listing};

/// Rows of a list unless `limit=` says otherwise.
pub(super) const ROWS_DEFAULT: usize = 100;

/// Rows of a list at most.
pub(super) const ROWS_MAX: usize = 10_000;

const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const JSON_TYPE: HeaderValue = HeaderValue::from_static("application/json");
const NOT_HERE: &str =
    "there is no such path: here are /metrics, /livez, /readyz, /api/v1/connections, /api/v1/topics and /api/v1/drain";
const READ_ONLY: &str = "this can only be read: use GET";
const DONE_ONLY: &str = "this does something: use POST";
const TOO_BUSY: &str = "the node is too busy to say: ask again";

pub(super) type Answer = Response<Full<Bytes>>;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Metrics,
    Live,
    Ready,
    Connections,
    Topics,
    Drain,
}

/// What went wrong: a short code for programs and a sentence for people.
#[derive(Serialize)]
struct Problem<'a> {
    error: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct Liveness {
    live: bool,
}

impl Resource {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/metrics" => Some(Self::Metrics),
            "/livez" => Some(Self::Live),
            "/readyz" => Some(Self::Ready),
            "/api/v1/connections" => Some(Self::Connections),
            "/api/v1/topics" => Some(Self::Topics),
            "/api/v1/drain" => Some(Self::Drain),
            _ => None,
        }
    }
}

/// What a connection's requests are answered from.
#[derive(Debug)]
pub(super) struct Desk<V> {
    /// Where the listener listens.
    pub(super) listen: SocketAddr,
    /// Who asks.
    pub(super) peer: IpAddr,
    /// Where answers come from.
    pub(super) view: Arc<V>,
    /// How long they may take.
    pub(super) patience: Patience,
}

impl<V: AdminView> Desk<V> {
    /// Answers one request; its body, if it has one, is not read.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Answer {
        let (parts, _) = request.into_parts();
        match self.admit(&parts) {
            Ok(resource) => self.show(resource, parts.uri.query().unwrap_or_default()).await,
            Err(refusal) => refused(&refusal),
        }
    }

    /// What the request asks for, if it may.
    fn admit(&self, parts: &Parts) -> Result<Resource, Refusal> {
        check_host(parts, self.listen)?;
        let path = parts.uri.path();
        // Anything below /api is refused alike, so that nothing tells what there is.
        if path.starts_with("/api/") {
            check_api(parts, self.peer)?;
        }
        let resource = Resource::at(path).ok_or_else(|| Refusal(StatusCode::NOT_FOUND, NOT_HERE.to_owned()))?;
        match (resource, &parts.method) {
            (Resource::Drain, &Method::POST) => check_caller(&parts.headers).map(|()| resource),
            (Resource::Drain, _) => Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, DONE_ONLY.to_owned())),
            (_, &Method::GET | &Method::HEAD) => Ok(resource),
            _ => Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, READ_ONLY.to_owned())),
        }
    }

    async fn show(&self, resource: Resource, query: &str) -> Answer {
        match resource {
            Resource::Metrics => with(StatusCode::OK, METRICS_TYPE, self.view.metrics()),
            Resource::Live => json(StatusCode::OK, &Liveness { live: true }),
            Resource::Ready => {
                let readiness = self.view.readiness();
                let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                json(status, &readiness)
            }
            Resource::Connections => match limit_of(query) {
                Ok(limit) => self.listing("connections", self.view.connections(limit)).await,
                Err(refusal) => refused(&refusal),
            },
            Resource::Topics => match limit_of(query) {
                Ok(limit) => self.listing("topics", self.view.topics(limit)).await,
                Err(refusal) => refused(&refusal),
            },
            Resource::Drain => {
                self.view.drain();
                json(StatusCode::ACCEPTED, &serde_json::json!({ "draining": true }))
            }
        }
    }

    /// `{"NAME": […], "total": N}`.
    async fn listing<Row: Serialize>(&self, name: &str, rows: impl Future<Output = Listing<Row>>) -> Answer {
        match tokio::time::timeout(self.patience.view, rows).await {
            Ok(Listing { rows, total }) => json(StatusCode::OK, &serde_json::json!({ name: rows, "total": total })),
            Err(_) => refused(&Refusal(StatusCode::SERVICE_UNAVAILABLE, TOO_BUSY.to_owned())),
        }
    }
}

/// `limit=N` of a query.
fn limit_of(query: &str) -> Result<usize, Refusal> {
    let wrong = |sentence: String| Refusal(StatusCode::BAD_REQUEST, sentence);
    let mut limit = ROWS_DEFAULT;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some(("limit", value)) = pair.split_once('=') else {
            return Err(wrong(format!("the query may hold limit= only, from 1 to {ROWS_MAX}")));
        };
        limit = value
            .parse()
            .ok()
            .filter(|limit| (1..=ROWS_MAX).contains(limit))
            .ok_or_else(|| wrong(format!("limit must be a number from 1 to {ROWS_MAX}")))?;
    }
    Ok(limit)
}

fn refused(Refusal(status, sentence): &Refusal) -> Answer {
    let error = match *status {
        StatusCode::BAD_REQUEST => "bad_request",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        _ => "unavailable",
    };
    let mut answer = json(*status, &Problem { error, message: sentence });
    if *status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = if sentence == DONE_ONLY { "POST" } else { "GET, HEAD" };
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    answer
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_string(value) {
        Ok(text) => with(status, JSON_TYPE, text + "\n"),
        Err(_) => with(StatusCode::INTERNAL_SERVER_ERROR, JSON_TYPE, String::from("{\"error\":\"internal\"}\n")),
    }
}

fn with(status: StatusCode, content_type: HeaderValue, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
