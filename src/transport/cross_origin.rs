//! Pages of other origins that may come here (the Fetch Standard's CORS protocol): they ask first whether they may, and
//! have to be allowed to read the answer, refusals included. Whether an origin may come is for the gate to say.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::transport::gate::Visitor;
use crate::transport::http::Answer;
use crate::transport::shard::Site;

/// How scripts of pages listen.
pub(crate) const LISTENING: &str = "GET, OPTIONS";

/// How scripts of pages publish.
pub(crate) const PUBLISHING: &str = "POST, OPTIONS";

/// What a page may send beside what every page may.
const HEADERS: &str = "authorization, content-type, last-event-id, x-message-id";

/// What a page may read beside what every page may.
const EXPOSED: &str = "retry-after";

/// For how many seconds a browser need not ask again.
const ASKED_AGAIN_AFTER: &str = "600";

/// The methods of a path that scripts of pages call, if it is one.
pub(crate) fn methods(path: &str) -> Option<&'static str> {
    match path {
        "/sse" | "/stream" | "/poll" => Some(LISTENING),
        _ if path.starts_with("/publish/") => Some(PUBLISHING),
        _ => None,
    }
}

/// The answer to the question that comes before what not every page may send.
pub(crate) fn preflight(methods: &'static str, visitor: &Visitor, site: &Site) -> Answer {
    if let Err(refusal) = site.gate.admit_origin(visitor) {
        return *refusal;
    }
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(ASKED_AGAIN_AFTER));
    readable(answer, visitor, site)
}

/// The answer as a page may read it, if it may come here at all.
pub(crate) fn readable(mut answer: Answer, visitor: &Visitor, site: &Site) -> Answer {
    let_read(answer.headers_mut(), visitor, site);
    answer
}

/// Adds to an answer's head by what a page may read it.
pub(crate) fn let_read(headers: &mut HeaderMap, visitor: &Visitor, site: &Site) {
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    let origin = visitor.origin.as_deref().filter(|_| site.gate.admits_origin(visitor));
    if let Some(origin) = origin.and_then(|origin| HeaderValue::from_str(origin).ok()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}
