//! What no transcript shows well: packets in pieces, time, room, and what a client's limits do. Conversations are transcripts.

use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::known;
use crate::model::close::CloseReason;
use crate::model::cursor::JointCursor;
use crate::model::gap::GapReason;
use crate::model::label::Label;
use crate::model::topic::Pattern;
use crate::protocol::mqtt::codec::Mqtt;
use crate::protocol::mqtt::packet::*;
use crate::protocol::mqtt::properties::{ConnectProperties, ReasonProperties, SubscribeProperties};
use crate::protocol::mqtt::reason::ReasonCode;
use crate::protocol::mqtt::wire::Text;
use crate::protocol::mqtt::writer;
use crate::protocol::tests::publication_from;
use crate::protocol::{
    Codec, Command, Event, Fault, Gap, Incoming, Keep, Message, Opening, Outbound, Receiving, Said, Stage,
};

fn mqtt() -> Mqtt {
    Mqtt::new(&Opening::default())
}

fn said(codec: &mut Mqtt, bytes: &[u8]) -> Vec<Said> {
    let mut all = Vec::new();
    let mut next = codec.decode(Incoming::Binary(bytes)).unwrap();
    while !matches!(next, Said::Nothing) {
        all.push(next);
        next = codec.more().unwrap();
    }
    all
}

/// The CONNECT that all of these begin with, changed.
fn connect(version: Version, change: impl FnOnce(&mut Connect)) -> Vec<u8> {
    let mut connect = Connect {
        version,
        client_id: Text::new("anna").unwrap(),
        clean_start: true,
        keep_alive_seconds: 0,
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    };
    change(&mut connect);
    writer::encode(&Packet::Connect(Box::new(connect)), version).unwrap().to_vec()
}

fn welcome(codec: &mut Mqtt) {
    let event = Event::Welcome {
        id: None,
        connection: "5f2c".into(),
        server: "passerelle/0",
        heartbeat: Duration::from_secs(25),
        message_bytes_max: 1 << 20,
        user: None,
        expires_at: None,
    };
    assert!(codec.encode(&event).is_some());
}

fn connected(bytes: &[u8]) -> Mqtt {
    let mut codec = mqtt();
    assert!(matches!(said(&mut codec, bytes)[..], [Said::Command(Command::Connect { token: None, .. })]));
    welcome(&mut codec);
    codec
}

fn publish(topic: &str) -> Vec<u8> {
    let mut bytes = vec![0x30, (2 + topic.len()) as u8, 0, topic.len() as u8];
    bytes.extend_from_slice(topic.as_bytes());
    bytes
}

/// Subscribes to `a/b` and has it stand; what is written with its messages is returned.
fn subscribed(codec: &mut Mqtt, qos: Qos) -> Label {
    let subscription = Subscription {
        filter: Text::new("a/b").unwrap(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    let packet_id = PacketId(std::num::NonZeroU16::MIN);
    let properties = SubscribeProperties::default();
    let packet = Packet::Subscribe(Subscribe { packet_id, properties, subscriptions: vec![subscription] });
    let version = codec.client.version;
    let mut all = said(codec, &writer::encode(&packet, version).unwrap());
    let Some(Said::Command(Command::Subscribe(subscribe))) = all.pop() else { panic!("{all:?}") };
    let (id, pattern) = (subscribe.id, subscribe.pattern);
    assert!(codec.encode(&Event::Subscribed { id, pattern, cursors: Default::default(), resumed: false }).is_some());
    subscribe.label.unwrap()
}

fn message(codec: &mut Mqtt, label: &Label, payload: &'static [u8]) -> Option<Bytes> {
    let publication = publication_from(Default::default(), Bytes::from_static(payload));
    let labels = std::slice::from_ref(label);
    let message = Message { publication: &publication, positions: &[], stage: Stage::Live, labels };
    match codec.message(message)? {
        Outbound::Binary(bytes) | Outbound::Text(bytes) => Some(bytes),
    }
}

fn topics(all: &[Said]) -> Vec<String> {
    let topic = |said: &Said| match said {
        Said::Command(Command::Publish { message, .. }) => Some(message.topic.as_str().to_owned()),
        _ => None,
    };
    all.iter().filter_map(topic).collect()
}

proptest! {
    #[test]
    fn packets_in_pieces_say_the_same(places in prop::collection::vec(any::<usize>(), 0..6)) {
        let bytes = [publish("a"), publish("b/c"), vec![0xc0, 0], publish("d")].concat();
        let mut codec = connected(&connect(Version::V311, |_| ()));
        let mut all = Vec::new();
        for piece in super::cut(&bytes, &places) {
            all.extend(said(&mut codec, piece));
        }
        prop_assert_eq!(topics(&all), ["a", "b.c", "d"]);
        prop_assert!(matches!(all[2], Said::Answered(_)));
    }
}

#[test]
fn everything_may_come_in_one_message() {
    let bytes = [known::connect(Version::V311), publish("a"), vec![0xe0, 0], publish("after")].concat();
    let all = said(&mut mqtt(), &bytes);
    assert!(matches!(all[0], Said::Command(Command::Connect { .. })));
    assert_eq!(topics(&all), ["a"]);
    assert!(matches!(all.last(), Some(Said::Command(Command::Leave { .. }))), "nothing follows a DISCONNECT");
}

/// The pattern of the message comes last of very many: what it missed is told all the same.
#[test]
fn however_many_patterns_missed_something_each_is_told() {
    let mut codec = connected(&connect(Version::V5, |_| ()));
    let label = subscribed(&mut codec, Qos::AtMostOnce);
    let patterns = (0..999).map(|number| format!("other.{number}")).chain(["a.b".to_owned()]);
    for pattern in patterns {
        let pattern = Pattern::parse(&pattern).unwrap();
        let (source, missed, reason) = ("events".into(), Some(3), GapReason::Slow);
        assert!(codec.encode(&Event::Gap(Gap { pattern, label: None, source, missed, reason })).is_none());
    }
    let tells = |bytes: Option<Bytes>| bytes.unwrap().windows(10).any(|bytes| bytes == b"gap-missed");
    assert!(tells(message(&mut codec, &label, b"first")));
    assert!(!tells(message(&mut codec, &label, b"second")), "it is told once");
}

#[test]
fn who_is_silent_is_given_up() {
    let mut codec = connected(&connect(Version::V5, |connect| connect.keep_alive_seconds = 10));
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    // The CONNECT counts for the first look.
    assert_eq!(codec.tick(at(0)).next, Some(at(5)));
    let ended = (1..).map(|half| at(5 * half)).find_map(|now| codec.tick(now).end.map(|end| (now, end.0)));
    assert_eq!(ended, Some((at(15), CloseReason::Timeout)));
    let mut quiet = connected(&connect(Version::V5, |_| ()));
    assert_eq!(quiet.tick(at(0)).next, None, "no keep alive was promised");
}

#[test]
fn room_is_what_the_client_takes_and_has_not_acknowledged() {
    let mut codec = connected(&connect(Version::V5, |connect| {
        connect.properties.receive_maximum = std::num::NonZeroU16::new(2);
    }));
    assert_eq!(codec.receiving(), Receiving::Shared);
    let label = subscribed(&mut codec, Qos::AtLeastOnce);
    assert_eq!(codec.receiving(), Receiving::Own(2));
    assert!(message(&mut codec, &label, b"x").is_some());
    assert!(message(&mut codec, &label, b"y").is_some());
    assert_eq!(codec.receiving(), Receiving::Own(0));
    assert!(said(&mut codec, &[0x40, 2, 0, 1]).is_empty());
    assert_eq!(codec.receiving(), Receiving::Own(1));
}

#[test]
fn what_is_too_large_for_the_client_is_not_sent_and_takes_no_room() {
    let mut codec = connected(&connect(Version::V5, |connect| {
        connect.properties.packet_bytes_max = std::num::NonZeroU32::new(20);
    }));
    let label = subscribed(&mut codec, Qos::AtMostOnce);
    assert_eq!(codec.receiving(), Receiving::Own(usize::MAX));
    assert!(message(&mut codec, &label, b"small").is_some());
    assert_eq!(message(&mut codec, &label, b"this is more than twenty bytes"), None);
    let mut codec = connected(&connect(Version::V5, |connect| {
        connect.properties.packet_bytes_max = std::num::NonZeroU32::new(20);
    }));
    let label = subscribed(&mut codec, Qos::AtLeastOnce);
    let room = codec.receiving();
    assert_eq!(message(&mut codec, &label, b"this is more than twenty bytes"), None);
    assert_eq!(codec.receiving(), room);
}

#[test]
fn more_than_the_receive_maximum_ends_the_session() {
    let mut codec = connected(&connect(Version::V5, |_| ()));
    let at_qos_1 = |id: u16| [&[0x32, 6, 0, 1, b'a'][..], &id.to_be_bytes(), &[0]].concat();
    for id in 1..=1024 {
        assert_eq!(said(&mut codec, &at_qos_1(id)).len(), 1);
    }
    let Err(Fault::Close { reason: CloseReason::Policy, detail }) = codec.decode(Incoming::Binary(&at_qos_1(1025)))
    else {
        panic!("it was taken");
    };
    let Some(Outbound::Binary(last)) = codec.farewell(CloseReason::Policy, detail) else { panic!("no last word") };
    assert_eq!((last[0], last[2]), (0xe0, ReasonCode::ReceiveMaximumExceeded.number()));
    assert!(said(&mut codec, &publish("after")).is_empty());
    assert_eq!(codec.farewell(CloseReason::Policy, detail), None, "there is one last word");
}

#[test]
fn text_and_what_is_no_packet_are_the_end() {
    for (incoming, reason) in [
        (Incoming::Text("\u{c0}"), ReasonCode::MalformedPacket),
        (Incoming::Binary(&[0xc1, 0]), ReasonCode::MalformedPacket),
        (Incoming::Binary(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]), ReasonCode::MalformedPacket),
        (Incoming::Binary(&[0x30, 4, 0, 1, b'a', 2, 0, 0]), ReasonCode::MalformedPacket),
    ] {
        let mut codec = connected(&connect(Version::V5, |_| ()));
        let Err(Fault::Close { detail, .. }) = codec.decode(incoming) else { panic!("{incoming:?} was taken") };
        let Some(Outbound::Binary(last)) = codec.farewell(CloseReason::Policy, detail) else { panic!() };
        assert_eq!((last[0], last[2]), (0xe0, reason.number()), "{incoming:?}");
    }
    // Who never greeted is closed without a word.
    let mut codec = mqtt();
    let Err(Fault::Close { detail, .. }) = codec.decode(Incoming::Binary(&[0xc0, 0])) else { panic!() };
    assert_eq!(codec.farewell(CloseReason::Policy, detail), None);
}

#[test]
fn an_acknowledgement_says_in_words_what_the_client_can_take() {
    let codec = connected(&connect(Version::V5, |connect| {
        connect.properties.packet_bytes_max = std::num::NonZeroU32::new(300);
    }));
    assert_eq!(codec.words(&"x".repeat(100)), ReasonProperties::default());
    assert!(codec.words("short").reason_string.is_some());
}

/// Where a SUBSCRIBE to `a/b` would go on.
fn asks_after(codec: &mut Mqtt, packet_id: u8) -> JointCursor {
    match &said(codec, &[0x82, 9, 0, packet_id, 0, 0, 3, b'a', b'/', b'b', 1])[..] {
        [Said::Command(Command::Subscribe(subscribe))] => subscribe.after.clone(),
        other => panic!("{other:?}"),
    }
}

/// A client of a server that keeps sessions for a minute.
fn lasting(version: Version, asked: Option<u32>, clean_start: bool) -> Mqtt {
    let opening = Opening { session_expiry_max: Duration::from_secs(60), ..Opening::default() };
    let mut codec = Mqtt::new(&opening);
    let bytes = connect(version, |connect| {
        connect.clean_start = clean_start;
        connect.properties.session_expiry_seconds = asked;
    });
    said(&mut codec, &bytes);
    codec
}

#[test]
fn a_session_is_kept_for_as_long_as_its_client_wants_and_the_server_allows() {
    let cases = [
        (Version::V5, None, true, None),
        (Version::V5, Some(0), false, None),
        (Version::V5, Some(5), true, Some(5)),
        (Version::V5, Some(u32::MAX), false, Some(60)),
        (Version::V311, None, true, None),
        (Version::V311, None, false, Some(60)),
    ];
    for (version, asked, clean, kept) in cases {
        let mut codec = lasting(version, asked, clean);
        welcome(&mut codec);
        let lifetime = codec.keep().map(|keep| keep.lifetime.as_secs());
        assert_eq!(lifetime, kept, "{version:?}, {asked:?}, {clean}");
    }
    let mut codec = lasting(Version::V5, Some(5), true);
    welcome(&mut codec);
    // Ten seconds, said with the last word; and what had none may not be given any.
    said(&mut codec, &[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 10]);
    assert_eq!(codec.keep().map(|keep| keep.lifetime.as_secs()), Some(10));
    let mut codec = lasting(Version::V5, None, true);
    welcome(&mut codec);
    assert!(matches!(codec.decode(Incoming::Binary(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 10])), Err(Fault::Close { .. })));
}

#[test]
fn what_is_restored_comes_before_anything_else_and_goes_on_where_it_stood() {
    let mut first = lasting(Version::V5, Some(30), false);
    welcome(&mut first);
    let label = subscribed(&mut first, Qos::AtLeastOnce);
    let packets = [b"x", b"y"].map(|payload| message(&mut first, &label, payload).unwrap());
    assert!(said(&mut first, &[0x40, 2, 0, 1]).is_empty());
    let after: JointCursor = "events~1.7".parse().unwrap();
    let place = |pattern: &Pattern| {
        assert_eq!(pattern.as_str(), "a.b");
        after.clone()
    };
    let Some(Keep { memory, .. }) = first.keep() else { panic!("it is kept") };
    assert_eq!(["a.b", "b"].map(|text| memory.listens_to(&Pattern::parse(text).unwrap())), [true, false]);
    let mut second = lasting(Version::V5, Some(30), false);
    assert!(second.restore(memory, &place));
    assert_eq!(second.receiving(), Receiving::Own(0), "what was not acknowledged is not sent yet");
    welcome(&mut second);
    let all = said(&mut second, &[]);
    let [Said::Command(Command::Subscribe(subscribe)), Said::Delivered(Outbound::Binary(again))] = &all[..] else {
        panic!("{all:?}")
    };
    assert_eq!((subscribe.pattern.as_str(), &subscribe.after, &subscribe.label), ("a.b", &after, &Some(label)));
    assert_eq!((again[0], &again[1..]), (packets[1][0] | 8, &packets[1][1..]), "marked as one that may come twice");
    assert_eq!(second.receiving(), Receiving::Own(255));
    // A client that subscribes after each connect loses nothing by it.
    assert_eq!(asks_after(&mut second, 7), after);
    let restored = subscribe.id.clone();
    let pattern = subscribe.pattern.clone();
    second.encode(&Event::Subscribed { id: restored, pattern, cursors: Default::default(), resumed: true });
    assert_eq!(asks_after(&mut second, 8), JointCursor::default(), "that goes on by itself now");
    let Some(Keep { memory, .. }) = second.keep() else { panic!("it is kept") };
    assert!(!lasting(Version::V311, None, false).restore(memory, &place), "packets are of a version");
}
