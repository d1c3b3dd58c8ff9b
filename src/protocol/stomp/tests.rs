//! What no conversation shows well: heart-beats in time, frames in pieces, and what a session may leave open. Conversations are
//! transcripts.

use std::time::{Duration, Instant};

use super::codec::Stomp;
use crate::model::close::CloseReason;
use crate::model::delivery::{Delivery, DeliveryTag, Settlement};
use crate::model::publication::{Attributes, Draft};
use crate::model::topic::Topic;
use crate::protocol::{Codec, Command, Event, Fault, Incoming, Opening, Outbound, Said};

fn stomp() -> Stomp {
    Stomp::new(&Opening::default())
}

fn said(codec: &mut Stomp, text: &str) -> Vec<Said> {
    let mut all = Vec::new();
    let mut next = codec.decode(Incoming::Text(text)).unwrap();
    while !matches!(next, Said::Nothing) {
        all.push(next);
        next = codec.more().unwrap();
    }
    all
}

fn connected(heart_beat: &str) -> Stomp {
    let mut codec = stomp();
    let frame = format!("CONNECT\naccept-version:1.2\nheart-beat:{heart_beat}\n\n\0");
    assert!(matches!(said(&mut codec, &frame)[..], [Said::Command(Command::Connect { token: None, .. })]));
    codec
}

fn topics(all: &[Said]) -> Vec<String> {
    let topic = |said: &Said| match said {
        Said::Command(Command::Publish { message, .. }) => Some(message.topic.as_str().to_owned()),
        _ => None,
    };
    all.iter().filter_map(topic).collect()
}

#[test]
fn several_frames_in_one_message_and_one_in_several_say_the_same() {
    let frames =
        "SEND\ndestination:/topic/a\n\nx\0\n\nSEND\ndestination:/topic/b\n\ny\0SEND\ndestination:/topic/c\n\n\0";
    assert_eq!(topics(&said(&mut connected("0,0"), frames)), ["a", "b", "c"]);
    let mut codec = connected("0,0");
    let pieces: Vec<Said> = frames.chars().flat_map(|one| said(&mut codec, &one.to_string())).collect();
    assert_eq!(topics(&pieces), ["a", "b", "c"]);
}

/// However many frames a message holds, what is left of it is not copied for each.
#[test]
fn a_flood_of_frames_in_one_message_is_read_in_one_pass() {
    let frame = "SEND\ndestination:/topic/a\n\n\0";
    let mut codec = connected("0,0");
    assert_eq!(topics(&said(&mut codec, &frame.repeat(30_000))).len(), 30_000);
    assert!(codec.holds_nothing());
}

#[test]
fn what_is_held_of_a_queue_goes_back_when_it_is_given_up() {
    let mut codec = connected("0,0");
    said(&mut codec, "SUBSCRIBE\nid:q\ndestination:/queue/jobs\nack:client\n\n\0");
    let tag = DeliveryTag { link: 1, number: 1 };
    let (topic, payload) = (Topic::parse("t").unwrap(), bytes::Bytes::new());
    let draft = Draft { topic, payload, attributes: Attributes::default(), received_at: 0 };
    let delivered = Event::Delivered(Box::new(Delivery { tag, queue: "jobs".into(), draft }));
    assert!(codec.encode(&delivered).is_some());
    let [Said::Command(Command::Cancel { .. }), Said::Command(back)] = &said(&mut codec, "UNSUBSCRIBE\nid:q\n\n\0")[..]
    else {
        panic!("it is not given up");
    };
    assert!(matches!(back, Command::Settle { settlement: Settlement::Requeue, tag: Some(held), .. } if *held == tag));
    assert!(codec.encode(&delivered).is_none(), "there is no place for it any more");
}

#[test]
fn the_server_beats_as_often_as_the_client_wants() {
    let mut codec = connected("0,5000");
    let start = Instant::now();
    let tick = codec.tick(start);
    assert!(tick.send.is_none() && tick.end.is_none());
    assert_eq!(tick.next, Some(start + Duration::from_secs(5)));
    let tick = codec.tick(start + Duration::from_secs(5));
    assert!(matches!(tick.send, Some(Outbound::Text(beat)) if &*beat == b"\n"));
    assert_eq!(tick.next, Some(start + Duration::from_secs(10)));
    assert_eq!(connected("0,0").tick(start).next, None);
}

#[test]
fn a_client_that_promised_to_beat_and_does_not_is_gone() {
    let start = Instant::now();
    let mut codec = connected("1000,0");
    // A page in the background beats once a minute.
    let patience = Duration::from_secs(120);
    assert_eq!(codec.tick(start).next, Some(start + patience));
    assert!(said(&mut codec, "\n").is_empty());
    assert!(codec.tick(start + patience).end.is_none());
    let end = codec.tick(start + 2 * patience).end;
    assert!(matches!(end, Some((CloseReason::Timeout, _))));
}

#[test]
fn mistakes_are_told_in_words_that_help() {
    let connect = "CONNECT\naccept-version:1.2\n\n\0";
    for (frames, expected) in [
        ("SEND\ndestination:/topic/a\n\n\0", "the first frame is CONNECT or STOMP"),
        ("CONNECT\naccept-version:2.0\n\n\0", "name one of them in accept-version"),
        ("CONNECT\naccept-version:1.2\nheart-beat:-1,2\n\n\0", "heart-beat takes two whole numbers"),
        (&format!("{connect}{connect}"), "connected already"),
        (&format!("{connect}SUBSCRIBE\ndestination:/topic/a\n\n\0"), "SUBSCRIBE needs an id"),
        (&format!("{connect}SUBSCRIBE\nid:1\n\n\0"), "SUBSCRIBE needs the header destination"),
        (&format!("{connect}SUBSCRIBE\nid:1\ndestination:/nowhere/a\n\n\0"), "must begin with /topic/"),
        (&format!("{connect}SUBSCRIBE\nid:1\ndestination:/topic/a\nack:maybe\n\n\0"), "ack is auto, client or"),
        (&format!("{connect}SUBSCRIBE\nid:1\ndestination:/topic/a\nselector:x = 1\n\n\0"), "write a filter"),
        (&format!("{connect}SUBSCRIBE\nid:1\ndestination:/temp-queue/a\n\n\0"), "replies come by themselves"),
        (&format!("{connect}UNSUBSCRIBE\nid:1\n\n\0"), "there is no subscription \"1\""),
        (&format!("{connect}SEND\n\n\0"), "SEND needs the header destination"),
        (&format!("{connect}SEND\ndestination:/temp-queue/x\n\n\0"), "good in reply-to only"),
        (&format!("{connect}ACK\nmessage-id:1\n\n\0"), "ACK needs the header id"),
        (&format!("{connect}ACK\nid:1\n\n\0"), "holds no such message"),
        (&format!("{connect}MESSAGE\n\n\0"), "a frame of the server's"),
        (&format!("{connect}HELLO\n\n\0"), "a frame begins with"),
        (
            &format!("{connect}SEND\ndestination:/topic/a\ncontent-length:99999999\n\n"),
            "may have at most 1048576 bytes",
        ),
        (&format!("{connect}SEND\ndestination:/topic/a\ntransaction:t\n\n\0"), "BEGIN it first"),
    ] {
        let mut codec = stomp();
        let mut outcome = codec.decode(Incoming::Text(frames));
        while matches!(outcome, Ok(Said::Command(_) | Said::Answered(_))) {
            outcome = codec.more();
        }
        let Err(Fault::Reply { message, .. }) = outcome else { panic!("{frames:?} is {outcome:?}") };
        assert!(message.contains(expected), "{frames:?}: {message}");
    }
}

#[test]
fn one_id_stands_for_one_subscription_at_a_time() {
    let mut codec = connected("0,0");
    let subscribe = "SUBSCRIBE\nid:1\ndestination:/topic/a\n\n\0";
    assert_eq!(said(&mut codec, subscribe).len(), 1);
    assert!(codec.decode(Incoming::Text(subscribe)).is_err());
    let mut codec = connected("0,0");
    said(&mut codec, subscribe);
    said(&mut codec, "UNSUBSCRIBE\nid:1\n\n\0");
    assert_eq!(said(&mut codec, subscribe).len(), 1);
}

#[test]
fn the_last_word_is_an_error_unless_the_client_has_had_one_or_goes_itself() {
    let mut codec = connected("0,0");
    let Some(Outbound::Text(farewell)) = codec.farewell(CloseReason::GoingAway, "the server is stopping") else {
        panic!()
    };
    assert!(farewell.starts_with(b"ERROR\nmessage:going_away\n"), "{farewell:?}");
    assert_eq!(codec.farewell(CloseReason::GoingAway, ""), None);
    let mut codec = connected("0,0");
    let error = Event::Error { id: None, code: crate::protocol::ErrorCode::Limit, message: "too many".into() };
    assert!(codec.encode(&error).is_some());
    assert_eq!(codec.farewell(CloseReason::Policy, "too many"), None);
    let mut codec = connected("0,0");
    said(&mut codec, "DISCONNECT\n\n\0");
    assert_eq!(codec.farewell(CloseReason::Normal, ""), None);
    assert!(said(&mut codec, "SEND\ndestination:/topic/a\n\n\0").is_empty(), "nothing is read any more");
}
