//! The same bytes to us and to tungstenite: the same messages, and the same verdict.
//!
//! Left out is where the two differ by design: tungstenite judges frames only once they are whole, takes lengths that
//! are not in their shortest form, refuses the close code 1014 (registered after the RFC), and knows neither
//! compression nor a limit of fragments.

use std::io::{Cursor, Read, Write};

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::{Got, Limits, Reader, frame, read};

/// Bytes of a message that both sides accept.
const MESSAGE_BYTES_MAX: usize = 300;

/// A socket that has all its bytes already and swallows what is written.
struct Recorded(Cursor<Vec<u8>>);

impl Read for Recorded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What tungstenite makes of a stream: messages, and the code that belongs to its complaint.
fn tungstenite(wire: &[u8]) -> (Vec<Got>, Option<u16>) {
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let socket = Recorded(Cursor::new(wire.to_vec()));
    let mut peer = WebSocket::from_raw_socket(socket, Role::Server, Some(config));
    let mut got = Vec::new();
    loop {
        got.push(match peer.read() {
            Ok(Message::Text(text)) => Got::Text(text.to_string()),
            Ok(Message::Binary(bytes)) => Got::Binary(bytes.to_vec()),
            Ok(Message::Ping(payload)) => Got::Ping(payload.to_vec()),
            Ok(Message::Pong(payload)) => Got::Pong(payload.to_vec()),
            // Its own words for a code that must not be sent.
            Ok(Message::Close(Some(close)))
                if close.code == CloseCode::Protocol && close.reason == "Protocol violation" =>
            {
                return (got, Some(1002));
            }
            Ok(Message::Close(close)) => {
                let (code, reason) =
                    close.map_or((None, String::new()), |close| (Some(close.code.into()), close.reason.to_string()));
                got.push(Got::Close(code, reason));
                return (got, None);
            }
            Ok(Message::Frame(_)) => unreachable!("reading gives no raw frames"),
            Err(Error::Utf8(_)) => return (got, Some(1007)),
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => return (got, Some(1009)),
            Err(Error::Protocol(fault)) if fault.to_string().contains("without closing handshake") => {
                return (got, None);
            }
            Err(Error::Protocol(_)) => return (got, Some(1002)),
            Err(other) => panic!("unforeseen: {other}"),
        });
    }
}

/// One frame with at most one thing wrong in its head, so that there is one verdict only.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        6 => "[a-zé€🦀]{0,40}".prop_map(String::into_bytes),
        2 => proptest::collection::vec(any::<u8>(), 0..12),
        1 => proptest::collection::vec(b'a'..=b'z', 100..200),
    ];
    let data = (prop_oneof![2 => Just(0x81_u8), 2 => Just(0x01), 2 => Just(0x82), 1 => Just(0x02), 3 => Just(0x00), 3 => Just(0x80)], text)
        .prop_map(|(first, payload)| frame(first, &payload));
    let control = (prop_oneof![Just(0x89_u8), Just(0x8A)], proptest::collection::vec(any::<u8>(), 0..=125))
        .prop_map(|(first, payload)| frame(first, &payload));
    let codes = prop_oneof![1000_u16..1017, 2998_u16..3002, 4998_u16..5002, any::<u16>()]
        .prop_filter("seen differently", |code| *code != 1014);
    let with_code = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes(), reason].concat());
    let close = prop_oneof![
        3 => (codes, "[a-zé€🦀]{0,30}").prop_map(move |(code, reason)| with_code(code, reason.as_bytes())),
        1 => proptest::collection::vec(any::<u8>(), 1..5).prop_map(move |reason| with_code(1000, &reason)),
        1 => proptest::collection::vec(any::<u8>(), 0..2).prop_map(|payload| frame(0x88, &payload)),
    ];
    let wrong_head = prop_oneof![
        (any::<u8>(), 0_usize..20).prop_map(|(first, length)| frame(first, &vec![b'x'; length])),
        (126_usize..200).prop_map(|length| frame(0x89, &vec![b'x'; length])),
        Just(vec![0x81, 2, b'h', b'i']),
    ];
    prop_oneof![12 => data, 4 => control, 1 => close, 1 => wrong_head]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn tungstenite_agrees(frames in proptest::collection::vec(any_frame(), 1..12)) {
        let wire = frames.concat();
        let limits = Limits { message_bytes_max: MESSAGE_BYTES_MAX, fragments_max: u32::MAX };
        let (got, fault) = read(Reader::new(limits, None), [wire.as_slice()]);
        let (expected, verdict) = tungstenite(&wire);
        prop_assert_eq!(got, expected);
        prop_assert_eq!(fault.map(|fault| fault.reason.code()), verdict);
    }
}
