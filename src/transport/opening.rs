//! Opening: from a request to a session that is about to begin, on a WebSocket or an HTTP stream. One decision after the
//! other, each with its own refusal: path and upgrade, origin, room, subprotocol, identity, what the URL asks for.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};

use crate::auth::Identity;
use crate::hub::feed::SourceState;
use crate::hub::shard::CursorForm;
use crate::metrics::Handshake;
use crate::model::close::CloseReason;
use crate::model::cursor::{Cursor, JointCursor};
use crate::model::filter::Filter;
use crate::model::flow::Flow;
use crate::model::rate::{RATE_MAX, Rate};
use crate::model::topic::{Pattern, Topic};
use crate::protocol::json::filter;
use crate::protocol::negotiate::{self, Strictness, Verdict};
use crate::protocol::{
    Codec, Command, Fault, Labels, Only, Opening, ProtocolId, REGISTRY, Subprotocol, Subscribe, cloudevents,
    event_stream, lines, poll, raw,
};
use crate::session::Session;
use crate::transport::cross_origin;
use crate::transport::driver::{Admission, Shared};
use crate::transport::gate::{Visitor, is_readable, query};
use crate::transport::http::{Answer, Outcome, json, not_allowed, refuse};
use crate::transport::seats::Seat;
use crate::transport::shard::Site;
use crate::transport::socket::Socket;
use crate::transport::websocket::deflate::Negotiated;
use crate::transport::websocket::handshake;
use crate::transport::wire::Framing;

/// A session that is about to begin, and the answer that begins it.
pub(crate) struct Opened {
    pub(crate) head: Bytes,
    pub(crate) framing: Framing,
    pub(crate) deflate: Option<Negotiated>,
    pub(crate) protocol: ProtocolId,
    pub(crate) codec: Box<dyn Codec + Send>,
    pub(crate) session: Session,
    /// What is wrong with what the URL asks for, told after the upgrade, because a browser sees no HTTP answer.
    pub(crate) refusal: Option<(CloseReason, String)>,
    pub(crate) commands: Vec<Command>,
    pub(crate) form: CursorForm,
    /// Where it goes on.
    pub(crate) after: JointCursor,
    pub(crate) address: Option<std::net::IpAddr>,
}

impl Opened {
    /// As the driver takes it in.
    pub(crate) fn into_admission(self, socket: Socket, leftover: Vec<u8>, seat: Rc<Seat>) -> Admission {
        let Self { head, framing, deflate, protocol, codec, session, refusal, commands, form, after: _, address } =
            self;
        Admission {
            socket,
            leftover,
            head,
            framing,
            deflate,
            protocol,
            codec,
            session,
            refusal,
            commands,
            form,
            peer: address,
            poll: None,
            seat,
        }
    }
}

/// How long a browser waits before it opens an event stream again.
const RETRY: Duration = Duration::from_secs(2);

/// Opens a WebSocket.
pub(crate) fn websocket<B>(request: Request<B>, visitor: &Visitor, site: &Rc<Site>) -> Outcome {
    let (request, _) = request.into_parts();
    let outcome = upgrade(&request, visitor, site);
    finish(outcome, site)
}

/// A way to listen that is opened with a plain GET, and is an answer without an end.
pub(crate) struct Listening {
    row: &'static Subprotocol,
    framing: Framing,
    path: &'static str,
    content_type: &'static str,
    /// What comes before anything else.
    greeting: fn() -> Bytes,
}

/// Server-Sent Events.
pub(crate) const EVENT_STREAM: Listening = Listening {
    row: &event_stream::SUBPROTOCOL,
    framing: Framing::EventStream,
    path: "/sse",
    content_type: "text/event-stream",
    greeting: || event_stream::retry(RETRY),
};

/// One JSON object a line.
pub(crate) const LINES: Listening = Listening {
    row: &lines::SUBPROTOCOL,
    framing: Framing::Lines,
    path: "/stream",
    content_type: "application/x-ndjson",
    greeting: Bytes::new,
};

/// One answer.
pub(crate) const POLL: Listening = Listening {
    row: &poll::SUBPROTOCOL,
    framing: Framing::Collected,
    path: "/poll",
    content_type: "application/json",
    greeting: Bytes::new,
};

/// Opens an event stream, one of lines, or a poll, of which the head is not sent.
pub(crate) fn listen<B>(request: &Request<B>, visitor: &Visitor, site: &Rc<Site>, way: &Listening) -> Outcome {
    finish(stream(request, visitor, site, way), site)
}

/// Why nothing is opened, for the metric and for the client.
struct Refused(Handshake, Box<Answer>);

fn finish(outcome: Result<Opened, Refused>, site: &Site) -> Outcome {
    match outcome {
        Ok(opened) => {
            site.shared.metrics.handshake(Handshake::Accepted);
            Outcome::Opened(Box::new(opened))
        }
        Err(Refused(result, answer)) => {
            site.shared.metrics.handshake(result);
            Outcome::Answered(*answer)
        }
    }
}

fn upgrade(request: &http::request::Parts, visitor: &Visitor, site: &Rc<Site>) -> Result<Opened, Refused> {
    let upgrade = handshake::examine(request).map_err(|refusal| refused_handshake(&refusal))?;
    site.gate.admit_origin(visitor).map_err(|answer| Refused(Handshake::RefusedOrigin, answer))?;
    let offers: Vec<&str> = upgrade.protocols.iter().map(String::as_str).collect();
    let settings = &site.shared.settings;
    let strictness = if settings.server.strict { Strictness::Strict } else { Strictness::Lenient };
    let negotiated = negotiate::negotiate(&offers, &settings.aliases, strictness);
    let row = row_of(&negotiated.verdict)?;
    let asked = Asked::of(request.uri.query(), row);
    let deflate = upgrade.deflate.filter(|_| settings.compression.enabled);
    let identity =
        if negotiated.token.is_some() { Err(crate::transport::gate::NO_TOKENS) } else { site.gate.identify(visitor) };
    let session = site.session(identity, row);
    let resumes = row.index == cloudevents::SUBPROTOCOL.index;
    let after = if resumes { cursor_of(&request.headers, request.uri.query(), site) } else { JointCursor::default() };
    Ok(Opened {
        head: handshake::response(&upgrade.accept_key, negotiated.verdict.echo(), deflate),
        framing: if deflate.is_some() { Framing::Deflated } else { Framing::WebSocket },
        deflate,
        protocol: row.index,
        codec: (row.codec)(Opening {
            publish: asked.publish.clone(),
            connection: session.connection().clone(),
            message_bytes_max: settings.limits.message_bytes_max,
            session_expiry_max: settings.mqtt.lifetime_max(),
        }),
        session,
        refusal: asked.fault.clone().map(|sentence| (CloseReason::Policy, sentence)),
        // Where subscriptions have names a URL gives them none.
        commands: match row.labels {
            Labels::Absent => asked.into_commands(after.clone()),
            Labels::Each | Labels::Together => Vec::new(),
        },
        form: form_of(row),
        after,
        address: visitor.address,
    })
}

/// How a session of a WebSocket reads: where its URL says all that it listens to, as one sequence.
fn form_of(row: &Subprotocol) -> CursorForm {
    match row.labels {
        Labels::Each => CursorForm::Each,
        _ if [cloudevents::SUBPROTOCOL.index, raw::SUBPROTOCOL.index].contains(&row.index) => CursorForm::Joint,
        Labels::Absent | Labels::Together => CursorForm::Separate,
    }
}

fn refused_handshake(refusal: &handshake::Refusal) -> Refused {
    let result = match refusal.status {
        StatusCode::UPGRADE_REQUIRED
            if refusal.headers.iter().any(|(name, _)| *name == header::SEC_WEBSOCKET_VERSION) =>
        {
            Handshake::WrongVersion
        }
        _ => Handshake::BadRequest,
    };
    let mut answer = refuse(refusal.status, refusal.message);
    for (name, value) in refusal.headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Refused(result, Box::new(answer))
}

/// The subprotocol, with a line in the log where nothing that was offered is known.
fn row_of(verdict: &Verdict<'_>) -> Result<&'static Subprotocol, Refused> {
    if let Verdict::Unsupported(unsupported) = verdict {
        tracing::warn!("{}", unsupported.log_line());
    }
    let row = verdict.protocol().and_then(|id| REGISTRY.get(usize::from(id.0)));
    row.ok_or_else(|| {
        let body = match verdict {
            Verdict::Unsupported(unsupported) => serde_json::from_str(&unsupported.body()).unwrap_or_default(),
            _ => serde_json::Value::Null,
        };
        Refused(Handshake::UnsupportedProtocol, Box::new(json(StatusCode::BAD_REQUEST, &body)))
    })
}

fn stream<B>(request: &Request<B>, visitor: &Visitor, site: &Rc<Site>, way: &Listening) -> Result<Opened, Refused> {
    let bad = |status, sentence: &str| Refused(Handshake::BadRequest, Box::new(refuse(status, sentence)));
    let Listening { row, path, .. } = way;
    if request.method() != Method::GET {
        let answer = not_allowed(cross_origin::LISTENING, &format!("{path} is asked with GET"));
        return Err(Refused(Handshake::BadRequest, Box::new(answer)));
    }
    site.gate.admit_origin(visitor).map_err(|answer| Refused(Handshake::RefusedOrigin, answer))?;
    let asked = Asked::of(request.uri().query(), row);
    if let Some(sentence) = asked.fault.clone() {
        return Err(bad(StatusCode::BAD_REQUEST, &sentence));
    }
    if asked.max_rate.is_some() && *path == POLL.path {
        let sentence = "max_rate is for what stays open: a poll is as slow as its client asks";
        return Err(bad(StatusCode::BAD_REQUEST, sentence));
    }
    if asked.patterns.is_empty() {
        return Err(bad(StatusCode::BAD_REQUEST, &format!("say what to listen to: {path}?pattern=orders.%23")));
    }
    let identity = site.gate.identify(visitor).map_err(|sentence| bad(StatusCode::UNAUTHORIZED, sentence))?;
    if let Some(sentence) = asked.refusal(&site.shared) {
        return Err(bad(StatusCode::BAD_REQUEST, &sentence));
    }
    let after = cursor_of(request.headers(), request.uri().query(), site);
    Ok(Opened {
        head: stream_head(visitor, site, way),
        framing: way.framing,
        deflate: None,
        protocol: row.index,
        codec: (row.codec)(Opening::default()),
        session: site.session(Ok(identity), row),
        refusal: None,
        commands: asked.into_commands(after.clone()),
        form: CursorForm::Joint,
        after,
        address: visitor.address,
    })
}

/// Where a stream goes on: `Last-Event-ID`, which a browser sends when it comes back, before `after`.
/// What is no cursor of ours is one in no log, of every source: the client is told of a gap, where an error would end it.
fn cursor_of(headers: &HeaderMap, of_query: Option<&str>, site: &Rc<Site>) -> JointCursor {
    let of_header =
        headers.get("last-event-id").and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty());
    let of_query = query(of_query).find(|(name, value)| name == "after" && !value.is_empty()).map(|(_, value)| value);
    match of_header.map(str::to_owned).or(of_query) {
        Some(text) => text.parse().unwrap_or_else(|_| {
            let foreign = |source: &Arc<SourceState>| (source.info().name.to_string(), Cursor::FOREIGN);
            JointCursor(site.shared.hub.sources().iter().map(foreign).collect())
        }),
        None => JointCursor::default(),
    }
}

/// The head of the answer, without length or chunks: it ends when the connection does (RFC 9112, section 6.3).
fn stream_head(visitor: &Visitor, site: &Site, way: &Listening) -> Bytes {
    let content_type = way.content_type;
    let mut head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n"
    )
    .into_bytes();
    let mut fields = HeaderMap::new();
    cross_origin::let_read(&mut fields, visitor, site);
    for (name, value) in &fields {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    head.extend((way.greeting)());
    head.into()
}

/// What a URL asks for.
#[derive(Debug, Default)]
struct Asked {
    patterns: Vec<Pattern>,
    source: Option<String>,
    last: usize,
    flow: Option<Flow>,
    max_rate: Option<Rate>,
    filter: Option<Arc<Filter>>,
    publish: Option<Topic>,
    /// The first thing that is wrong with it.
    fault: Option<String>,
}

impl Asked {
    /// Why it can never be had here, which is said before an answer begins: a browser would come back again and again.
    fn refusal(&self, shared: &Shared) -> Option<String> {
        let max = shared.settings.limits.subscriptions_max;
        if self.patterns.len() > max {
            return Some(format!("a URL may have {max} patterns (limits.subscriptions_max): leave some out"));
        }
        let is_wanted =
            |source: &&Arc<SourceState>| self.source.as_ref().is_none_or(|name| *source.info().name == **name);
        let wanted: Vec<&Arc<SourceState>> = shared.hub.sources().iter().filter(is_wanted).collect();
        if let (Some(name), []) = (&self.source, &*wanted) {
            return Some(format!("there is no source {name:?}: leave \"source\" out to read all"));
        }
        let unbindable = |pattern| wanted.iter().find_map(|source| source.interest().unbindable(pattern));
        self.patterns.iter().find_map(unbindable)
    }

    fn of(of_query: Option<&str>, row: &Subprotocol) -> Self {
        let mut asked = Self::default();
        if !is_readable(of_query) {
            asked.fault =
                Some("the URL holds what is not UTF-8: encode texts as UTF-8 before they are written with %".into());
        }
        for (name, value) in query(of_query) {
            if let Err(sentence) = asked.take(&name, value) {
                asked.fault.get_or_insert(sentence);
            }
        }
        if row.index == raw::SUBPROTOCOL.index {
            let opening = Opening { publish: asked.publish.clone(), ..Opening::default() };
            if let Some(Fault::Close { detail, .. }) = raw::opening_fault(asked.patterns.len(), &opening) {
                asked.fault.get_or_insert(detail.to_owned());
            }
        }
        asked
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "pattern" => {
                let pattern = pattern(&value)?;
                // One subscription a pattern: the second would only take the first one's place.
                if !self.patterns.contains(&pattern) {
                    self.patterns.push(pattern);
                }
            }
            "source" => self.source = Some(value),
            "on_slow" => {
                let flow = Flow::named(&value).ok_or("on_slow is catch-up, latest or drop-oldest")?;
                self.flow = Some(flow);
            }
            "max_rate" => {
                let rate = value.parse().ok().and_then(Rate::new);
                self.max_rate = Some(rate.ok_or_else(|| format!("max_rate is a whole number from 1 to {RATE_MAX}"))?);
            }
            "filter" => {
                let filter = filter::read(&value).map_err(|error| format!("filter {error}"))?;
                self.filter = filter.map(Arc::new);
            }
            "last" => self.last = value.parse().map_err(|_| "last is a number of messages".to_owned())?,
            "publish" => {
                self.publish = Some(Topic::parse(&value).map_err(|error| format!("the topic to publish to {error}"))?)
            }
            _ => {}
        }
        Ok(())
    }

    fn into_commands(self, after: JointCursor) -> Vec<Command> {
        let Self { patterns, source, last, flow, max_rate, filter, .. } = self;
        let subscribe = |pattern| {
            let (after, source, filter) = (after.clone(), source.clone(), filter.clone());
            let only = source.map(Only::Source);
            Command::Subscribe(Subscribe { filter, after, last, only, flow, max_rate, ..Subscribe::to(pattern) })
        };
        patterns.into_iter().map(subscribe).collect()
    }
}

/// A pattern of a URL, where a bare `#` would have begun the fragment and been left out.
fn pattern(text: &str) -> Result<Pattern, String> {
    if text.ends_with('.') {
        return Err(format!("'#' must be written %23 in a URL: pattern={text}%23"));
    }
    Pattern::parse(text).map_err(|error| format!("the pattern {error}"))
}

/// Who a session begins as: somebody, or nobody with the sentence that says what to do about it.
pub(crate) type Known = Result<Arc<Identity>, &'static str>;
