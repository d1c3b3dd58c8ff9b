//! A small client of `/poll`: one answer at a time, on a connection that is kept as long as it holds.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Uri;
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Ended, Target, lost};
use super::http::{Connection, Query, Way, request, silent};

/// How long the server is asked to wait, and how long it is waited for.
const TIMEOUT: Duration = Duration::from_secs(25);
const PATIENCE: Duration = Duration::from_secs(75);

/// Bytes of one answer at most.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// One answer.
#[derive(Debug, Deserialize)]
pub(super) struct Polled<'a> {
    #[serde(borrow)]
    pub(super) messages: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) gaps: Vec<&'a RawValue>,
    pub(super) cursor: Option<String>,
    /// Sources without their broker.
    #[serde(default)]
    pub(super) outage: BTreeSet<String>,
}

impl<'a> Polled<'a> {
    /// Reads an answer.
    pub(super) fn parse(text: &'a str) -> Result<Self, Ended> {
        serde_json::from_str(text)
            .map_err(|error| Ended::Refused(format!("the server sent what is no answer to a poll: {error}")))
    }
}

/// Somebody who polls.
pub(super) struct Poller<'a> {
    target: &'a Target,
    query: &'a Query,
    connection: Option<Connection>,
}

impl<'a> Poller<'a> {
    /// For what these fields of a query say.
    pub(super) fn new(target: &'a Target, query: &'a Query) -> Self {
        Self { target, query, connection: None }
    }

    /// What follows `after`, or where to begin without it.
    pub(super) async fn ask(&mut self, after: Option<&str>) -> Result<String, Ended> {
        let timeout = [("timeout", TIMEOUT.as_secs().to_string())];
        let after = after.map(|after| ("after", after.to_owned()));
        let query: Vec<_> = self.query.iter().cloned().chain(timeout).chain(after).collect();
        let uri = Way::Poll.address(&self.target.url, &query)?;
        if let Some(kept) = self.connection.take() {
            // A server closes what was idle for long, and that is no loss.
            match self.ask_over(kept, &uri).await {
                Err(Ended::Lost(..)) => {}
                answered => return answered,
            }
        }
        let connection = Connection::open(&uri).await?;
        self.ask_over(connection, &uri).await
    }

    async fn ask_over(&mut self, mut connection: Connection, uri: &Uri) -> Result<String, Ended> {
        let request = request(Way::Poll, uri, self.target, None)?;
        let answering = async {
            let body = connection.ask(Way::Poll, uri, request).await?;
            let body =
                Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| lost(&error.to_string()))?;
            Ok::<_, Ended>(String::from_utf8_lossy(&body.to_bytes()).into_owned())
        };
        let text = tokio::time::timeout(PATIENCE, answering).await.map_err(|_| silent())??;
        self.connection = Some(connection);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_whatever_it_has() {
        let answer = Polled::parse(r#"{"messages":[{"op":"message","data":1.50}],"cursor":"e~1.2"}"#).unwrap();
        assert_eq!(answer.messages[0].get(), r#"{"op":"message","data":1.50}"#);
        assert_eq!((answer.cursor.as_deref(), answer.gaps.len(), answer.outage.len()), (Some("e~1.2"), 0, 0));
        let answer = Polled::parse(r#"{"messages":[],"cursor":null,"gaps":[{"op":"gap"}],"outage":["e"]}"#).unwrap();
        assert_eq!((answer.cursor, answer.gaps.len(), answer.outage.len()), (None, 1, 1));
        assert!(matches!(Polled::parse("<html>"), Err(Ended::Refused(_))));
    }
}
