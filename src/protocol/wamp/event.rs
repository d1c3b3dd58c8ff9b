//! `EVENT`: a message as those get it who subscribed to it, and what a subscription missed before it.
//!
//! Its details are `topic`, `timestamp`, `cursor`, `retained` where it comes because somebody asked for the past, and `gap`
//! where something before it was or may have been missed.

use crate::model::cursor::JointCursor;
use crate::model::publication::Publication;
use crate::protocol::missing::{Missed, Missing};
use crate::protocol::wamp::content;
use crate::protocol::wamp::id::Id;
use crate::protocol::wamp::label::Name;
use crate::protocol::wamp::router_message::Event;
use crate::protocol::wamp::serializer::Serializer;
use crate::protocol::wamp::time;
use crate::protocol::wamp::value::{Dict, Value};
use crate::protocol::{Message, Outbound, Stage, Unsent};

/// What a subscription missed, as the detail `gap`.
fn gaps(missing: &Missing) -> Value {
    let one = |missed: &Missed| {
        let count = missed.count.map_or(Value::Null, Value::from);
        let dict = Dict::default().with("source", Value::text(&*missed.source));
        Value::Dict(dict.with("reason", Value::text(missed.reason.name())).with("missed", count))
    };
    Value::List(missing.entries().map(one).collect())
}

/// A live message, or one of a replay, for whoever has the subscription.
pub(super) fn shared(serializer: Serializer, message: Message<'_>) -> Result<Outbound, Unsent> {
    let [label] = message.labels else { return Err(Unsent::Unwanted) };
    let name = Name::of(label).ok_or(Unsent::Unwanted)?;
    of_publication(serializer, &name, (message.publication, message.stage), None).ok_or(Unsent::Unwanted)
}

/// A message with what its subscription missed before it; nothing where the subscription does not want it.
pub(super) fn of_publication(
    serializer: Serializer,
    name: &Name<'_>,
    (publication, stage): (&Publication, Stage),
    missing: Option<&Missing>,
) -> Option<Outbound> {
    let draft = &publication.draft;
    let topic = draft.topic.as_str();
    if !name.admits(topic) {
        return None;
    }
    let attributes = &draft.attributes;
    let cursor = JointCursor(vec![publication.source.named_cursor(publication.offset)]).to_string();
    let mut details = Dict::default()
        .with("timestamp", Value::Text(time::format(draft.timestamp_ms())))
        .with("cursor", Value::Text(cursor));
    if stage == Stage::Replay {
        details = details.with("retained", Value::Bool(true));
    }
    if let Some(missing) = missing {
        details = details.with("gap", gaps(missing));
    }
    let id = content::named(&attributes.headers).unwrap_or_else(|| position(publication));
    let payload = content::payload(serializer, &draft.payload, attributes.content_type.as_deref(), &attributes.headers);
    Some(Event::new(serializer, id, topic, details, payload).of(name.subscription))
}

/// The id of a publication whose publisher was not told one: of its place in the log, so that it is the same for everybody
/// here.
fn position(publication: &Publication) -> Id {
    // Both steps lose nothing and scatter neighbours, whose places differ in few bits.
    let place = publication.source.epoch.0.wrapping_add(u64::from(publication.source.id.0)) ^ publication.offset;
    let scattered = (place ^ (place >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let scattered = (scattered ^ (scattered >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Id::drawn(scattered ^ (scattered >> 31))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::gap::GapReason;
    use crate::model::label::Label;
    use crate::model::publication::RawFrames;
    use crate::model::topic::Pattern;
    use crate::protocol::Gap;
    use crate::protocol::tests::publication_from;

    fn shown(outbound: Option<Outbound>) -> Option<String> {
        outbound.map(|outbound| match outbound {
            Outbound::Text(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Outbound::Binary(_) => panic!("JSON is text"),
        })
    }

    fn encoded(label: &Label) -> Option<String> {
        let publication = publication_from(RawFrames::Auto, Bytes::from_static(b"{\"price\": 1.50}"));
        let labels = std::slice::from_ref(label);
        let message = Message { publication: &publication, positions: &[], stage: Stage::Live, labels };
        shown(shared(Serializer::Json, message).ok())
    }

    #[test]
    fn an_event_says_when_and_where_it_was() {
        let subscription = Id::new(7).unwrap();
        let event = encoded(&Name { subscription, prefix: None }.label()).unwrap();
        let id = position(&publication_from(RawFrames::Auto, Bytes::new()));
        let details = r#"{"timestamp":"1970-01-01T00:00:01.000Z","cursor":"events~1.3","topic":"a.b"}"#;
        assert_eq!(event, format!(r#"[36,7,{id},{details},[{{"price": 1.50}}]]"#));
    }

    #[test]
    fn a_prefix_is_compared_letter_by_letter() {
        let subscription = Id::new(7).unwrap();
        for (prefix, wanted) in
            [("a", true), ("a.b", true), ("a.", true), ("a.c", false), ("b", false), ("a.bc", false)]
        {
            let label = Name { subscription, prefix: Some(prefix) }.label();
            assert_eq!(encoded(&label).is_some(), wanted, "{prefix}");
        }
        assert_eq!(encoded(&Label::new("foreign")), None);
    }

    #[test]
    fn gaps_of_one_source_and_reason_are_told_together() {
        let gap = |source: &str, reason, missed| Gap {
            pattern: Pattern::all(),
            label: None,
            source: source.into(),
            missed,
            reason,
        };
        let mut missing = Missing::default();
        for (source, reason, missed) in [
            ("events", GapReason::Slow, Some(2)),
            ("events", GapReason::Outage, None),
            ("events", GapReason::Slow, Some(3)),
            ("orders", GapReason::Slow, Some(1)),
            ("orders", GapReason::Slow, None),
        ] {
            missing.add(&gap(source, reason, missed));
        }
        let publication = publication_from(RawFrames::Auto, Bytes::new());
        let name = Name { subscription: Id::FIRST, prefix: None };
        let event = of_publication(Serializer::Json, &name, (&publication, Stage::Replay), Some(&missing));
        let gap = r#""gap":[{"source":"events","reason":"slow","missed":5},{"source":"events","reason":"outage","missed":null},{"source":"orders","reason":"slow","missed":null}]"#;
        assert!(shown(event).unwrap().contains(&format!(r#""retained":true,{gap}"#)));
    }

    #[test]
    fn neighbours_in_a_log_have_ids_far_apart() {
        let mut publication = publication_from(RawFrames::Auto, Bytes::new());
        let mut ids = std::collections::HashSet::new();
        for offset in 0..10_000 {
            publication.offset = offset;
            assert!(ids.insert(position(&publication)));
        }
    }
}
