//! Conversations with a server that is played by hand.

use bytes::Bytes;

use super::*;
use crate::protocol::mqtt::packet::{
    Connack, Delivery, PacketId, Publish, PublishTopic, SubscriptionAcknowledgement, Transmission,
};
use crate::protocol::mqtt::properties::{MessageProperties, UserProperties};
use crate::protocol::mqtt::{Packet, ReasonCode, Text, Version, writer};

fn terms(patterns: &[&str], after: &str) -> Terms {
    Terms {
        patterns: patterns.iter().map(|pattern| Pattern::parse(pattern).unwrap()).collect(),
        after: after.parse().unwrap_or_default(),
        ..Terms::default()
    }
}

/// What was heard, as a person reads it.
fn told(heard: Vec<Heard>) -> Vec<String> {
    let words = |heard: Heard| match heard {
        Heard::Say(message) => format!("> {}", String::from_utf8_lossy(&message.into_data())),
        Heard::Stands => "stands".to_owned(),
        Heard::Message(line) => line,
        Heard::Notice(frame) => {
            let field = |field: Option<String>| field.unwrap_or_default();
            format!("{} {} {} {:?}", frame.op, field(frame.source), field(frame.reason), frame.missed)
        }
    };
    heard.into_iter().map(words).collect()
}

fn hear(client: &mut dyn Client, text: &str) -> Vec<String> {
    told(client.hear(Message::text(text)).unwrap())
}

fn fails(client: &mut dyn Client, text: &str) -> String {
    match client.hear(Message::text(text)) {
        Err(Ended::Refused(why)) => why,
        Err(Ended::Lost(why, _)) => format!("for now: {why}"),
        other => panic!("{other:?}"),
    }
}

const STOMP_CONNECTED: &str = "CONNECTED\nversion:1.2\nserver:passerelle\n\n\0";

#[test]
fn stomp_goes_on_after_the_newest_cursor_of_each_subscription() {
    let mut client = Stomp::new(Terms { on_slow: Some("latest".into()), ..terms(&["a.#", "*.b"], "e~1.1") }).unwrap();
    let connect = "CONNECT\naccept-version:1.2\nhost:passerelle\nheart-beat:0,0\n\n\0";
    assert_eq!(client.open().unwrap().into_text().unwrap().as_str(), connect);
    let subscribe = |number: u8, pattern: &str, after: &str| {
        format!(
            "> SUBSCRIBE\nid:{number}\ndestination:/topic/{pattern}\nreceipt:{number}\nafter:{after}\non-slow:latest\n\n\0"
        )
    };
    assert_eq!(hear(&mut client, STOMP_CONNECTED), [subscribe(0, "a.#", "e~1.1"), subscribe(1, "*.b", "e~1.1")]);
    assert_eq!(hear(&mut client, "RECEIPT\nreceipt-id:0\n\n\0"), ["stands"]);
    let message = |subscription: u8| {
        format!(
            "MESSAGE\nsubscription:{subscription}\nmessage-id:e~1.5\ndestination:/topic/a.b\ncontent-type:text/plain\n\
             content-length:3\nsource:e\ncursor:e~1.5\nreplay:true\ngap:slow\ngap-source:e\ngap-missed:2\n\
             timestamp:7\nregion:e\\cu\n\na\0b\0\n"
        )
    };
    let line = r#"{"op":"message","source":"e","topic":"a.b","cursor":"1.5","data":"a\u0000b","content_type":"text/plain","timestamp_ms":7,"headers":{"region":"e:u"},"replay":true}"#;
    assert_eq!(hear(&mut client, &message(0)), ["gap e slow Some(2)", line]);
    assert_eq!(hear(&mut client, &message(1)), ["gap e slow Some(2)"], "the first has printed it");
    client.open().unwrap();
    assert_eq!(hear(&mut client, STOMP_CONNECTED)[1], subscribe(1, "*.b", "e~1.5"));
}

#[test]
fn stomp_reads_frames_in_any_pieces() {
    let text = "\n\r\nCONNECTED\r\nversion:1.2\r\n\r\n\0\nMESSAGE\nsubscription:0\ndestination:/topic/a\ncursor:e~1.2\n\n{\"x\":1}\0\n\
                MESSAGE\nsubscription:0\ndestination:/topic/a\ncontent-length:2\ncursor:e~1.3\n\n\0\0\0";
    for size in 1..text.len() {
        let mut client = Stomp::new(terms(&["a"], "")).unwrap();
        client.open().unwrap();
        let pieces = text.as_bytes().chunks(size).map(|piece| Message::binary(piece.to_vec()));
        let all: Vec<String> = pieces.flat_map(|piece| told(client.hear(piece).unwrap())).collect();
        assert_eq!(
            all[1..],
            [
                r#"{"op":"message","source":"e","topic":"a","cursor":"1.2","data":{"x":1}}"#,
                r#"{"op":"message","source":"e","topic":"a","cursor":"1.3","data":"\u0000\u0000"}"#
            ],
            "in pieces of {size}"
        );
    }
}

/// Why a session ends the closing frame says, so that a word before it ends nothing.
#[test]
fn what_a_server_refuses_is_said_and_tried_again_only_where_that_may_help() {
    let mut stomp = Stomp::new(terms(&["a"], "")).unwrap();
    assert_eq!(hear(&mut stomp, "ERROR\nmessage:going_away\n\nthe server is stopping\0"), [""; 0]);
    assert!(fails(&mut stomp, "MESSAGE\nnonsense\n\n\0").contains("no STOMP"));
    assert!(fails(&mut Stomp::new(terms(&["a"], "")).unwrap(), "MESSAGE\na:\\t\n\n\0").contains("no meaning"));
    let mut wamp = Wamp::new(terms(&["a"], "")).unwrap();
    assert_eq!(hear(&mut wamp, r#"[3,{"message":"too slow"},"wamp.close.killed"]"#), [""; 0]);
    let gone = r#"[8,32,1,{},"wamp.error.network_failure",["no broker"]]"#;
    assert_eq!(fails(&mut wamp, gone), "for now: no broker (wamp.error.network_failure)");
    let denied = r#"[8,32,1,{},"wamp.error.not_authorized",["not for you"]]"#;
    assert_eq!(fails(&mut wamp, denied), "not for you (wamp.error.not_authorized)");
    assert!(fails(&mut wamp, "{}").contains("no WAMP"));
    assert!(fails(&mut wamp, "[36,9,1,{}]").contains("no subscription of ours"));
}

/// A message is printed by the first subscription that is sent it, which need not be the first that matches.
#[test]
fn nothing_that_came_is_left_to_a_subscription_that_is_not_sent_it() {
    let mut client = Stomp::new(terms(&["a.#", "#"], "")).unwrap();
    let message = |subscription: u8, topic: &str, cursor: u8, replay: &str| {
        format!(
            "MESSAGE\nsubscription:{subscription}\ndestination:/topic/{topic}\ncursor:e~1.{cursor}\n{replay}\n{cursor}\0"
        )
    };
    let stands = |number: u8| format!("RECEIPT\nreceipt-id:{number}\n\n\0");
    client.open().unwrap();
    hear(&mut client, STOMP_CONNECTED);
    hear(&mut client, &stands(1));
    assert_eq!(hear(&mut client, &message(1, "a", 2, "")).len(), 1, "the other does not stand yet");
    hear(&mut client, &stands(0));
    assert_eq!(hear(&mut client, &message(1, "b", 3, "")).len(), 1);
    assert_eq!(hear(&mut client, &message(1, "a", 4, "")).len(), 0, "it stands, and prints it");
    client.open().unwrap();
    let again = hear(&mut client, STOMP_CONNECTED);
    assert!(
        again[0].contains("after:e~1.3") && again[1].contains("after:e~1.4"),
        "both know where to go on: {again:?}"
    );
    hear(&mut client, &(stands(0) + &stands(1)));
    assert_eq!(hear(&mut client, &message(1, "a", 5, "replay:true\n")).len(), 0, "the first goes on there too");
    // In a source of which it has no cursor nothing is replayed to it.
    let other = message(1, "a", 6, "replay:true\n").replace("e~", "f~");
    assert_eq!(hear(&mut client, &other).len(), 1);
}

#[test]
fn words_that_a_protocol_writes_otherwise_come_back_as_they_are() {
    let mut stomp = Stomp::new(terms(&["a/b.#"], "")).unwrap();
    stomp.open().unwrap();
    assert!(hear(&mut stomp, STOMP_CONNECTED)[0].contains("destination:/topic/a%2Fb.#\n"));
    let line = hear(&mut stomp, "MESSAGE\nsubscription:0\ndestination:/topic/a%2Fb\n\n1\0");
    assert_eq!(line, [r#"{"op":"message","topic":"a/b","data":1}"#]);
    let mut wamp = Wamp::new(terms(&["a", "a.#"], "")).unwrap();
    wamp.open().unwrap();
    assert_eq!(hear(&mut wamp, "[2,1,{}]").len(), 2, "of two that are equal there is one");
    hear(&mut wamp, "[33,1,71]");
    for text in [r#""\u0000hello""#, r#"{"x":1e999}"#, r#"{"b":1.50,"a":1,"b":2}"#, r#""\ud800""#] {
        let line = hear(&mut wamp, &format!("[36,71,1,{{}},[{text}]]")).remove(0);
        assert_eq!(line, format!(r#"{{"op":"message","topic":"a","data":{text}}}"#));
    }
}

#[test]
fn wamp_makes_of_events_what_was_published() {
    let filter = serde_json::from_str(r#"{"region":"eu"}"#).unwrap();
    let mut client = Wamp::new(Terms { filter: Some(filter), ..terms(&["a.#", "*.b"], "") }).unwrap();
    client.open().unwrap();
    assert_eq!(
        hear(&mut client, "[2,9129137332,{\"roles\":{}}]"),
        [
            r#"> [32,1,{"filter":{"region":"eu"},"match":"exact"},"a"]"#,
            r#"> [32,2,{"filter":{"region":"eu"},"match":"prefix"},"a."]"#,
            r#"> [32,3,{"filter":{"region":"eu"},"match":"wildcard"},".b"]"#
        ]
    );
    for (request, id) in [(1, 71), (2, 72), (3, 73)] {
        assert_eq!(hear(&mut client, &format!("[33,{request},{id}]")), ["stands"]);
    }
    let gap = r#"{"cursor":"e~1.5","topic":"a.b","gap":[{"source":"e","reason":"expired","missed":null}]}"#;
    let line = r#"{"op":"message","source":"e","topic":"a.b","cursor":"1.5","data":[1,2]}"#;
    assert_eq!(hear(&mut client, &format!("[36,72,1,{gap},[1,2]]")), ["gap e expired None", line]);
    assert_eq!(
        hear(&mut client, &format!("[36,73,1,{gap},[1,2]]")),
        ["gap e expired None"],
        "the second has printed it"
    );
    let data = |client: &mut Wamp, rest: &str| {
        let line = hear(client, &format!("[36,71,1,{{\"retained\":true}}{rest}]")).remove(0);
        let object: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&object["topic"], &object["replay"]), (&"a".into(), &true.into()));
        (object["data"].to_string(), object["data_base64"].to_string())
    };
    let null = || "null".to_owned();
    assert_eq!(data(&mut client, r#",["x"]"#), (r#""x""#.into(), null()));
    assert_eq!(data(&mut client, r#",[[1]]"#), ("[[1]]".into(), null()));
    assert_eq!(data(&mut client, r#",[],{"k":1}"#), (r#"{"k":1}"#.into(), null()));
    assert_eq!(data(&mut client, r#",[1],{"k":1}"#), (r#"{"args":[1],"kwargs":{"k":1}}"#.into(), null()));
    assert_eq!(data(&mut client, r#",["\u0000/w=="]"#), (null(), r#""/w==""#.into()));
    client.open().unwrap();
    let again = hear(&mut client, "[2,1,{}]");
    assert!(again.iter().all(|one| one.contains(r#""after":"e~1.5""#)), "{again:?}");
}

#[test]
fn mqtt_acknowledges_what_it_has_printed() {
    let mut client = Mqtt::new(&terms(&["a.*.#"], "")).unwrap();
    client.open().unwrap();
    let packet = |packet: Packet| Message::Binary(writer::encode(&packet, Version::V5).unwrap());
    let success = Connack { session_present: false, reason: ReasonCode::Success, properties: Default::default() };
    let subscribe = told(client.hear(packet(Packet::Connack(Box::new(success)))).unwrap());
    assert!(matches!(&subscribe[..], [one] if one.contains("a/+/#")), "{subscribe:?}");
    let packet_id = PacketId(std::num::NonZeroU16::new(0x4142).unwrap());
    let text = |text: &str| Text::new(text).unwrap();
    let user = [("gap", "slow,outage"), ("gap-source", "e,f"), ("gap-missed", "unknown"), ("region", "eu")];
    let user = UserProperties(user.map(|(name, value)| (text(name), text(value))).to_vec());
    let publish = Publish {
        delivery: Delivery::AtLeastOnce(Transmission { packet_id, duplicate: false }),
        retain: false,
        topic: PublishTopic::Named { name: text("a/b.c"), alias: None },
        subscription_ids: Vec::new(),
        properties: MessageProperties { user, ..MessageProperties::default() },
        payload: Bytes::from_static(b"\xff"),
    };
    let heard = told(client.hear(packet(Packet::Publish(Box::new(publish)))).unwrap());
    let line = r#"{"op":"message","topic":"a.b/c","data_base64":"/w==","headers":{"region":"eu"}}"#;
    assert_eq!(heard, ["gap e slow None", "gap f outage None", line, "> @\u{2}AB"]);
    let reasons = vec![ReasonCode::NotAuthorized];
    let refused = SubscriptionAcknowledgement { packet_id, reasons, properties: Default::default() };
    let refused = client.hear(packet(Packet::Suback(refused)));
    assert!(matches!(refused, Err(Ended::Refused(why)) if why == "the server gave no reason (0x87)"));
}

#[test]
fn what_a_protocol_has_no_word_for_is_refused() {
    let mqtt = |terms: Terms| Mqtt::new(&terms).map(|_| ()).unwrap_err();
    assert!(mqtt(terms(&["#.a"], "")).contains("\"#.a\""));
    assert!(mqtt(terms(&["a"], "e~1.1")).contains("--after"));
    assert!(mqtt(Terms { on_slow: Some("latest".into()), ..terms(&["a"], "") }).contains("--on-slow"));
    for pattern in ["#.a", "*.#", "a.*.#", "a..b", ""] {
        assert!(Wamp::new(terms(&[pattern], "")).is_err(), "{pattern}");
    }
    assert!(Wamp::new(terms(&["#", "a.#", "*", "a.*.b"], "")).is_ok());
}
