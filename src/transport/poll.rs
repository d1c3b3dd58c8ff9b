//! `GET /poll`: a session that is one HTTP answer. The driver runs it without a socket, so that the connection goes on with HTTP:
//! who polls again is not connected anew.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use tokio::sync::oneshot;

use crate::config;
use crate::metrics::Handshake;
use crate::model::close::CloseReason;
use crate::transport::driver::{Admission, Answered, PollRequest};
use crate::transport::gate::{Visitor, query};
use crate::transport::http::{Answer, Outcome, dressed, refuse};
use crate::transport::opening::{self, Opened};
use crate::transport::seats::Seat;
use crate::transport::shard::Site;
use crate::transport::socket::Socket;

/// What is said while the server stops.
const STOPPING: &str = "the server is stopping: poll again";

/// Answers with what there is, or comes within the time that the request names.
pub(crate) async fn answer<B>(request: &Request<B>, visitor: &Visitor, seat: Rc<Seat>, site: &Rc<Site>) -> Answer {
    let timeout = match timeout(request.uri().query(), &site.shared.settings.poll) {
        Ok(timeout) => timeout,
        Err(sentence) => {
            site.shared.metrics.handshake(Handshake::BadRequest);
            return refuse(StatusCode::BAD_REQUEST, sentence);
        }
    };
    match opening::listen(request, visitor, site, &opening::POLL) {
        Outcome::Answered(answer) => answer,
        Outcome::Opened(opened) => answer_of(run(*opened, timeout, seat, site).await),
    }
}

/// How many polls of a shard wait for their answers, or have them and have not handed them to hyper yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting(Rc<Cell<usize>>);

/// One of them.
struct Waiter(Waiting);

impl Waiting {
    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.0.get() > 0
    }

    fn enter(&self) -> Waiter {
        self.0.set(self.0.get() + 1);
        Waiter(self.clone())
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Waiting(count) = &self.0;
        count.set(count.get() - 1);
    }
}

/// Has the driver run a poll.
async fn run(opened: Opened, timeout: Duration, seat: Rc<Seat>, site: &Site) -> Answered {
    let _waiter = site.waiting.enter();
    let (answer, answered) = oneshot::channel();
    let poll = PollRequest { after: opened.after.clone(), timeout, answer };
    // The head is hyper's to write.
    let opened = Opened { head: Bytes::new(), ..opened };
    let admission = opened.into_admission(Socket::Absent, Vec::new(), seat);
    let stopping = || Answered::Later(Duration::ZERO);
    if site.admissions.send(Admission { poll: Some(poll), ..admission }).await.is_err() {
        return stopping();
    }
    answered.await.unwrap_or_else(|_| stopping())
}

fn answer_of(answered: Answered) -> Answer {
    match answered {
        Answered::Body(body) => dressed(StatusCode::OK, Full::from(body)),
        Answered::Refused(reason, sentence) => refuse(status_of(reason), &sentence),
        Answered::Later(pause) => {
            let mut answer = refuse(StatusCode::SERVICE_UNAVAILABLE, STOPPING);
            let seconds = HeaderValue::from(pause.as_secs() + 1);
            answer.headers_mut().insert(header::RETRY_AFTER, seconds);
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            answer
        }
    }
}

/// How HTTP says what would have closed a socket.
fn status_of(reason: CloseReason) -> StatusCode {
    match reason {
        CloseReason::Unauthenticated => StatusCode::UNAUTHORIZED,
        CloseReason::Forbidden => StatusCode::FORBIDDEN,
        CloseReason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        CloseReason::Policy => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// `timeout=`, in seconds; more than there may be is as much as there may be.
fn timeout(of_query: Option<&str>, settings: &config::Poll) -> Result<Duration, &'static str> {
    let Some((_, text)) = query(of_query).find(|(name, _)| name == "timeout") else { return Ok(settings.timeout) };
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds >= 0.0);
    let seconds = seconds.ok_or("timeout is a number of seconds, such as 25, or 0 to be answered at once")?;
    Ok(Duration::from_secs_f64(seconds.min(settings.timeout_max.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_in_seconds_and_bounded() {
        let settings = config::Poll { timeout_max: Duration::from_secs(60), ..config::Poll::default() };
        let of = |text: &str| timeout(Some(text), &settings);
        assert_eq!(timeout(None, &settings), Ok(settings.timeout));
        assert_eq!(of("pattern=a&timeout=0"), Ok(Duration::ZERO));
        assert_eq!(of("timeout=1.5"), Ok(Duration::from_millis(1500)));
        for text in ["timeout=61", "timeout=1e300", "timeout=inf"] {
            assert_eq!(of(text), Ok(Duration::from_secs(60)), "{text}");
        }
        for text in ["timeout=", "timeout=-1", "timeout=NaN", "timeout=soon"] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
