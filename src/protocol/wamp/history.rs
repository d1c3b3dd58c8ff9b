//! What a client asks of the past: the arguments of the procedure by which WAMP hands out events again (section "Event
//! History").

use crate::model::publication::UnixMillis;
use crate::protocol::json::fields::shortened;
use crate::protocol::wamp::id::Id;
use crate::protocol::wamp::time;
use crate::protocol::wamp::value::{Dict, Payload, Value};

/// The procedure.
pub const PROCEDURE: &str = "wamp.subscription.get_events";

/// Which events of a subscription; all conditions hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// The subscription.
    pub subscription: Id,
    /// The order.
    pub order: Order,
    /// At most so many.
    pub limit: Option<u64>,
    /// Of this topic only.
    pub topic: Option<String>,
    /// From when on.
    pub first: Vec<Bound>,
    /// Until when.
    pub last: Vec<Bound>,
}

/// In which order events are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// The oldest first.
    Oldest,
    /// The newest first.
    Newest,
}

/// Where the events that are wanted begin or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The place.
    pub place: Place,
    /// Whether what lies there is wanted too.
    pub edge: Edge,
}

/// A place among the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// By time.
    Time(UnixMillis),
    /// Where this publication is.
    Publication(Id),
}

/// Whether a bound lies within what it bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Edge {
    /// It does.
    Included,
    /// It does not.
    Excluded,
}

impl HistoryQuery {
    /// Reads the arguments.
    ///
    /// # Errors
    /// A sentence that names the argument, for `wamp.error.invalid_argument`.
    pub fn read(payload: &Payload) -> Result<Self, String> {
        let subscription = payload.arguments.first().and_then(Value::as_integer).and_then(Id::new);
        let subscription = subscription.ok_or("the first argument must be the id of a subscription")?;
        let keywords = &payload.keywords;
        let order = match keywords.value("reverse") {
            None | Some(Value::Bool(false)) => Order::Oldest,
            Some(Value::Bool(true)) => Order::Newest,
            Some(other) => return Err(wrong("reverse", "true or false", other)),
        };
        let limit = match keywords.value("limit") {
            None => None,
            Some(value) => match value.as_integer() {
                Some(limit) if limit > 0 => Some(limit),
                _ => return Err(wrong("limit", "a positive integer", value)),
            },
        };
        let topic = match keywords.value("topic") {
            None => None,
            Some(Value::Text(topic)) => Some(topic.clone()),
            Some(other) => return Err(wrong("topic", "a URI", other)),
        };
        let first = bounds(keywords, [("from", Edge::Included), ("after", Edge::Excluded)])?;
        let last = bounds(keywords, [("until", Edge::Included), ("before", Edge::Excluded)])?;
        Ok(Self { subscription, order, limit, topic, first, last })
    }
}

/// The bounds on one side, by time and by publication.
fn bounds(keywords: &Dict, edges: [(&str, Edge); 2]) -> Result<Vec<Bound>, String> {
    let mut bounds = Vec::new();
    for (word, edge) in edges {
        let (time, publication) = (format!("{word}_time"), format!("{word}_publication"));
        if let Some(value) = keywords.value(&time) {
            let instant = value.as_text().and_then(time::parse);
            let instant = instant.ok_or_else(|| wrong(&time, "a time as in RFC 3339, since 1970", value))?;
            bounds.push(Bound { place: Place::Time(instant), edge });
        }
        if let Some(value) = keywords.value(&publication) {
            let id = value.as_integer().and_then(Id::new);
            let id = id.ok_or_else(|| wrong(&publication, "the id of a publication", value))?;
            bounds.push(Bound { place: Place::Publication(id), edge });
        }
    }
    Ok(bounds)
}

fn wrong(name: &str, expected: &str, value: &Value) -> String {
    let instead = match value {
        Value::Text(text) => format!("{:?}", shortened(text)),
        other => other.shown(),
    };
    format!("{name:?} must be {expected}, not {instead}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Incoming;
    use crate::protocol::wamp::serializer::Serializer;

    fn read(arguments: &str, keywords: &str) -> Result<HistoryQuery, String> {
        let decode = |text| Serializer::Json.decode(Incoming::Text(text)).unwrap();
        let (Value::List(arguments), Value::Dict(keywords)) = (decode(arguments), decode(keywords)) else {
            panic!("a list and a dict");
        };
        HistoryQuery::read(&Payload { arguments, keywords })
    }

    #[test]
    fn every_condition_is_read() {
        let query = read(
            "[7]",
            r#"{"reverse": true, "limit": 10, "topic": "a.b", "from_time": "1970-01-01T00:00:01Z",
                "after_publication": 5, "until_publication": 9, "before_time": "1970-01-01T00:00:02Z", "other": 1}"#,
        );
        let time = |millis, edge| Bound { place: Place::Time(millis), edge };
        let publication = |number, edge| Bound { place: Place::Publication(Id::new(number).unwrap()), edge };
        let expected = HistoryQuery {
            subscription: Id::new(7).unwrap(),
            order: Order::Newest,
            limit: Some(10),
            topic: Some("a.b".into()),
            first: vec![time(1000, Edge::Included), publication(5, Edge::Excluded)],
            last: vec![publication(9, Edge::Included), time(2000, Edge::Excluded)],
        };
        assert_eq!(query, Ok(expected));
        let all = read("[1]", "{}").unwrap();
        assert_eq!((all.order, all.limit, all.first.len(), all.last.len()), (Order::Oldest, None, 0, 0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (arguments, keywords, sentence) in [
            ("[]", "{}", "the first argument must be the id of a subscription"),
            ("[0]", "{}", "the first argument must be the id of a subscription"),
            ("[1]", r#"{"reverse":1}"#, "\"reverse\" must be true or false, not 1"),
            ("[1]", r#"{"limit":0}"#, "\"limit\" must be a positive integer, not 0"),
            ("[1]", r#"{"limit":"9"}"#, "\"limit\" must be a positive integer, not \"9\""),
            ("[1]", r#"{"topic":null}"#, "\"topic\" must be a URI, not null"),
            (
                "[1]",
                r#"{"from_time":"yesterday"}"#,
                "\"from_time\" must be a time as in RFC 3339, since 1970, not \"yesterday\"",
            ),
            ("[1]", r#"{"until_time":5}"#, "\"until_time\" must be a time as in RFC 3339, since 1970, not 5"),
            ("[1]", r#"{"after_publication":[]}"#, "\"after_publication\" must be the id of a publication, not a list"),
        ] {
            assert_eq!(read(arguments, keywords), Err(sentence.to_owned()), "{keywords}");
        }
    }
}
