//! `POST /publish/{topic}`: publishing without a socket. Same rights and same answers as the `publish` of a session.

use std::rc::Rc;

use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use crate::metrics::PublishResult;
use crate::model::outgoing::{Outgoing, PublishOutcome};
use crate::model::topic::Topic;
use crate::transport::cross_origin;
use crate::transport::gate::Visitor;
use crate::transport::http::{Answer, json, not_allowed, refuse};
use crate::transport::shard::Site;

/// Publishes the body and answers with the broker's word.
pub(crate) async fn answer(request: Request<Incoming>, visitor: &Visitor, site: &Rc<Site>) -> Answer {
    match publish(request, visitor, site).await {
        Ok(answer) => answer,
        Err(refusal) => *refusal,
    }
}

async fn publish(request: Request<Incoming>, visitor: &Visitor, site: &Rc<Site>) -> Result<Answer, Box<Answer>> {
    if request.method() != Method::POST {
        return Err(Box::new(not_allowed(cross_origin::PUBLISHING, "publish with POST /publish/{topic}")));
    }
    site.gate.admit_origin(visitor)?;
    let identity = site.gate.identify(visitor).map_err(|sentence| refusal(StatusCode::UNAUTHORIZED, sentence))?;
    if !identity.grants.publish {
        site.shared.metrics.publish(PublishResult::Forbidden);
        return Err(refusal(
            StatusCode::FORBIDDEN,
            "publishing is not allowed: set auth.anonymous_publish = true or send a token",
        ));
    }
    let topic = topic(site.local_path(request.uri().path()))?;
    let (content_type, message_id) =
        (field(request.headers(), "content-type")?, field(request.headers(), "x-message-id")?);
    let payload = body(request.into_body(), site).await?;
    let user = identity.user.clone();
    let message = Outgoing { content_type, message_id, user, ..Outgoing::new(topic, payload) };
    let outcome = site.shared.upstream.publish(message).await;
    Ok(match outcome {
        PublishOutcome::Confirmed { routed } => json(StatusCode::OK, &serde_json::json!({ "routed": routed })),
        PublishOutcome::Refused(sentence) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &sentence),
        PublishOutcome::Unavailable(sentence) => refuse(StatusCode::SERVICE_UNAVAILABLE, &sentence),
    })
}

fn topic(path: &str) -> Result<Topic, Box<Answer>> {
    let encoded = path.strip_prefix("/publish/").unwrap_or_default();
    let bad = |sentence: String| refusal(StatusCode::BAD_REQUEST, &sentence);
    let text = percent_decode_str(encoded).decode_utf8().map_err(|_| bad("the topic is not UTF-8".to_owned()))?;
    Topic::parse(&text).map_err(|error| bad(format!("the topic {error}")))
}

/// A property from a header field; AMQP gives it at most 255 bytes.
fn field(headers: &HeaderMap, name: &str) -> Result<Option<String>, Box<Answer>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| text.len() <= 255);
    text.map(|text| Some(text.to_owned())).ok_or_else(|| {
        refusal(StatusCode::BAD_REQUEST, &format!("the header {name} must be at most 255 bytes of ASCII"))
    })
}

async fn body(body: Incoming, site: &Rc<Site>) -> Result<bytes::Bytes, Box<Answer>> {
    let settings = &site.shared.settings;
    let limited = Limited::new(body, settings.limits.message_bytes_max).collect();
    let collected = tokio::time::timeout(settings.server.handshake_timeout, limited).await;
    match collected.map_err(|_| refusal(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than limits.message_bytes_max"))
        }
        Err(_) => Err(refusal(StatusCode::BAD_REQUEST, "the body ended too early")),
    }
}

fn refusal(status: StatusCode, sentence: &str) -> Box<Answer> {
    Box::new(refuse(status, sentence))
}
