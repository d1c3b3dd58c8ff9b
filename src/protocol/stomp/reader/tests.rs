//! The reader against frames of every form, against itself in pieces, and against noise.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { headers_max: 8, head_bytes_max: 200, body_bytes_max: 100 };

/// All that came, runs of heart-beats as one, and how it ended.
type Outcome = (Vec<Received>, Option<FrameError>);

/// Feeds pieces one after the other, and sees to it that nothing more is kept than the limits allow.
fn feed<'a>(reader: &mut Reader, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut all = Vec::new();
    let mut error = None;
    for mut input in pieces {
        loop {
            match reader.next(&mut input) {
                Ok(Some(Received::HeartBeat)) if all.last() == Some(&Received::HeartBeat) => {}
                Ok(Some(received)) => all.push(received),
                Ok(None) => break,
                Err(fault) => assert_eq!(error.replace(fault), None, "a second error"),
            }
        }
        assert!(input.is_empty(), "{} bytes were left over", input.len());
        assert_within(reader);
    }
    (all, error)
}

fn assert_within(reader: &Reader) {
    let Limits { headers_max, head_bytes_max, body_bytes_max } = reader.limits;
    assert!(reader.line.capacity() <= head_bytes_max);
    let Some(frame) = &reader.unfinished else { return };
    let texts: usize = frame.headers.iter().map(|header| header.name.capacity() + header.value.capacity()).sum();
    assert!(texts + reader.line.len() <= head_bytes_max && frame.headers.len() <= headers_max);
    assert!(frame.body.as_ref().is_none_or(|body| body.bytes.capacity() <= body_bytes_max));
}

fn reader(version: Version) -> Reader {
    let mut reader = Reader::new(LIMITS);
    reader.speak(version);
    reader
}

fn whole(version: Version, text: &str) -> Outcome {
    feed(&mut reader(version), [text.as_bytes()])
}

fn frame(verb: Verb, headers: &[(&str, &str)], body: &str) -> Received {
    let header = |(name, value): &(&str, &str)| Header { name: (*name).into(), value: (*value).into() };
    let body = Bytes::copy_from_slice(body.as_bytes());
    Received::Frame(Frame { verb, headers: headers.iter().map(header).collect(), body })
}

#[test]
fn frames_come_out_of_messages_of_any_form() {
    let send = frame(Verb::Send, &[("destination", "/topic/a")], "hello");
    for text in [
        "SEND\ndestination:/topic/a\n\nhello\0",
        "SEND\r\ndestination:/topic/a\r\n\r\nhello\0",
        "SEND\r\ndestination:/topic/a\n\r\nhello\0",
        "\0\0SEND\ndestination:/topic/a\n\nhello\0\0\0",
    ] {
        for version in Version::ALL {
            assert_eq!(whole(version, text), (vec![send.clone()], None), "{text:?}");
        }
    }
    let begin = frame(Verb::Begin, &[("transaction", "t")], "");
    let text = "\n\nSEND\ndestination:/topic/a\n\nhello\0\r\nBEGIN\ntransaction:t\n\n\0BEGIN\ntransaction:t\n\n\0\n";
    let beat = Received::HeartBeat;
    let expected = vec![beat.clone(), send, beat.clone(), begin.clone(), begin, beat];
    assert_eq!(whole(Version::V12, text), (expected, None));
}

#[test]
fn a_body_ends_where_its_length_or_else_a_nul_says() {
    let with = |length: &str, body: &str| (vec![frame(Verb::Send, &[("content-length", length)], body)], None);
    assert_eq!(whole(Version::V12, "SEND\ncontent-length:3\n\na\0b\0"), with("3", "a\0b"));
    assert_eq!(whole(Version::V12, "SEND\ncontent-length:0\n\n\0"), with("0", ""));
    assert_eq!(whole(Version::V12, "SEND\ncontent-length: 02 \n\nab\0"), with(" 02 ", "ab"));
    let longest = "x".repeat(100);
    assert_eq!(whole(Version::V12, &format!("SEND\ncontent-length:100\n\n{longest}\0")), with("100", &longest));
    assert_eq!(whole(Version::V12, &format!("SEND\n\n{longest}\0")), (vec![frame(Verb::Send, &[], &longest)], None));
    let twice = "SEND\ncontent-length:1\ncontent-length:1\n\na\0";
    assert_eq!(whole(Version::V12, twice).1, None);
}

#[test]
fn headers_are_unescaped_as_the_version_has_it() {
    for (version, value) in [(Version::V10, "a\\nb\\c\\\\"), (Version::V11, "a\nb:\\"), (Version::V12, "a\nb:\\")] {
        let expected = frame(Verb::Ack, &[("id", value), ("x", "a:b")], "");
        assert_eq!(whole(version, "ACK\nid:a\\nb\\c\\\\\nx:a:b\n\n\0"), (vec![expected], None), "{version}");
    }
    let expected = frame(Verb::Ack, &[("i:d", "\r")], "");
    assert_eq!(whole(Version::V12, "ACK\ni\\cd:\\r\n\n\0"), (vec![expected], None));
    assert_eq!(whole(Version::V11, "ACK\nid:\\r\n\n\0").1, Some(FrameError::Escape));
}

#[test]
fn the_first_frame_is_read_before_a_version_is_agreed_on() {
    let mut reader = Reader::new(LIMITS);
    let text = b"CONNECT\naccept-version:1.2\npasscode: a\\nb\n\n\0SEND\nx: a\\nb\n\n\0";
    let mut input = &text[..];
    let expected = frame(Verb::Connect, &[("accept-version", "1.2"), ("passcode", " a\\nb")], "");
    assert_eq!(reader.next(&mut input), Ok(Some(expected)));
    reader.speak(Version::V12);
    assert_eq!(reader.next(&mut input), Ok(Some(frame(Verb::Send, &[("x", " a\nb")], ""))));
    // Who names no version speaks 1.0, in which blanks may stand after the colon.
    let expected = frame(Verb::Connect, &[("login", "anna")], "");
    assert_eq!(whole(Version::V10, "CONNECT\nlogin: anna\n\n\0"), (vec![expected], None));
    let expected = frame(Verb::Stomp, &[("accept-version", "1.1"), ("login", " a:b")], "");
    assert_eq!(whole(Version::V10, "STOMP\naccept-version:1.1\nlogin: a\\cb\n\n\0"), (vec![expected], None));
    let expected = frame(Verb::Send, &[("destination", "/topic/a")], "");
    assert_eq!(whole(Version::V10, "SEND\ndestination: \t/topic/a\n\n\0"), (vec![expected], None));
}

#[test]
fn what_is_no_frame_is_an_error() {
    use FrameError::{Body, CarriageReturn, Colon, Escape, Head, Headers, Length, Lengths, Nul, Unended, Utf8, Verb};
    let long = "x".repeat(200);
    for (text, expected) in [
        ("{\"op\":\"ping\"}", Verb),
        ("send\n", Verb),
        ("SENDER\n", Verb),
        ("SEN\n", Verb),
        (" SEND\n", Verb),
        ("SEND \n", Verb),
        ("SEND\r\r\n", Verb),
        ("SEN\rD\n", Verb),
        ("\rSEND\n", Verb),
        ("SEND\0", Nul),
        ("SEND\na:b\0", Nul),
        ("SEND\na:b\n\r\0", Nul),
        ("SEND\na\rb:c\n", CarriageReturn),
        ("SEND\na:b\rc\n", CarriageReturn),
        ("SEND\na:b\r\r\n", CarriageReturn),
        ("SEND\na\n", Colon),
        ("SEND\n:b\n", Colon),
        ("SEND\na:\\t\n", Escape),
        ("SEND\na:\\\n", Escape),
        ("SEND\na\\:b\n", Escape),
        ("SEND\na:1\na:2\na:3\na:4\na:5\na:6\na:7\na:8\na:9\n", Headers { max: 8 }),
        (&format!("SEND\na:{long}"), Head { max: 200 }),
        (&format!("SEND\n{}", "a:123456789012345678901234567\n".repeat(7)), Head { max: 200 }),
        ("SEND\ncontent-length:101\n\n", Body { max: 100 }),
        ("SEND\ncontent-length:99999999999999999999999999\n\n", Body { max: 100 }),
        (&format!("SEND\n\n{long}"), Body { max: 100 }),
        ("SEND\ncontent-length:-1\n\n", Length),
        ("SEND\ncontent-length:+1\n\n", Length),
        ("SEND\ncontent-length:\n\n", Length),
        ("SEND\ncontent-length:1x\n\n", Length),
        ("SEND\ncontent-length:1\ncontent-length:2\n\n", Lengths),
        ("SEND\ncontent-length:1\n\nab\0", Unended),
        ("SEND\ncontent-length:0\n\na", Unended),
    ] {
        let (all, error) = whole(Version::V12, text);
        assert_eq!((all.len(), error), (0, Some(expected)), "{text:?}");
    }
    assert_eq!(feed(&mut reader(Version::V12), [&b"SEND\na:\xFF\n"[..]]).1, Some(Utf8));
}

#[test]
fn limits_hold_to_the_byte() {
    let head = |bytes: usize| format!("SEND\na:{}\n\n\0", "x".repeat(bytes - 9));
    assert_eq!(whole(Version::V12, &head(200)).1, None);
    assert_eq!(whole(Version::V12, &head(201)).1, Some(FrameError::Head { max: 200 }));
    let eight = "SEND\na:1\na:2\na:3\na:4\na:5\na:6\na:7\na:8\n\n\0";
    assert_eq!(whole(Version::V12, eight).1, None);
    let body = |bytes| format!("SEND\n\n{}\0", "x".repeat(bytes));
    assert_eq!(whole(Version::V12, &body(100)).1, None);
    assert_eq!(whole(Version::V12, &body(101)).1, Some(FrameError::Body { max: 100 }));
}

#[test]
fn after_an_error_everything_is_passed_over() {
    let mut reader = reader(Version::V12);
    assert_eq!(feed(&mut reader, [&b"SEND\nx\n"[..]]).1, Some(FrameError::Colon));
    assert_eq!(feed(&mut reader, [&b"SEND\n\n\0\n"[..]]), (vec![], None));
    assert!(reader.line.capacity() == 0 && reader.unfinished.is_none());
}

#[test]
fn an_idle_reader_holds_nothing() {
    let mut reader = reader(Version::V12);
    for pieces in [[&b"SEND\ncontent-"[..], b"length:3\n\na", b"bc\0"], [b"\n", b"\r", b"\n"]] {
        feed(&mut reader, pieces);
        assert!(reader.line.capacity() == 0 && reader.unfinished.is_none());
    }
}

#[test]
fn errors_show_as_early_as_they_can() {
    // A client that speaks another protocol, or forgets the empty line, would wait for an answer for ever.
    for (text, expected) in [("{", FrameError::Verb), ("SEND\ndestination:/topic/a\0", FrameError::Nul)] {
        assert_eq!(whole(Version::V12, text).1, Some(expected));
    }
}

/// Something between frames and noise: what a grammar's corners are made of.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let verb = prop::sample::select(&Verb::ALL[..]).prop_map(|verb| verb.name().as_bytes().to_vec());
    let token = prop_oneof![
        6 => verb,
        12 => prop::sample::select(vec![
            "\n", "\n\n", "\r\n", "\n\n\0", "\0", "\r", ":", "\\", "a:b\n", "\na:\\c\\n\n\n", "SEND\n\nbody\0",
            "SEND\ncontent-length:3\n\na\0b\0", "content-length:2\n", "\nx:\\r", "CONNECT\naccept-version:1.2\n\n\0",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
        1 => (0..220_usize).prop_map(|bytes| vec![b'x'; bytes]),
    ];
    prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

/// A frame that is well formed, with whatever ends its lines.
fn well_formed() -> impl Strategy<Value = Vec<u8>> {
    let line_end = prop::sample::select(vec!["\n", "\r\n"]);
    let headers = prop::collection::vec(("[a-z]{1,5}", "[a-z:é]{0,8}"), 0..5);
    (prop::sample::select(&Verb::ALL[..]), headers, prop::collection::vec(any::<u8>(), 0..90), line_end, "[\n]{0,3}")
        .prop_map(|(verb, headers, body, line_end, after)| {
            let mut bytes = format!("{}{line_end}", verb.name()).into_bytes();
            for (name, value) in headers {
                bytes.extend(format!("{name}:{value}{line_end}").bytes());
            }
            bytes.extend(format!("content-length:{}{line_end}{line_end}", body.len()).bytes());
            bytes.extend(body);
            bytes.push(0);
            bytes.extend(after.bytes());
            bytes
        })
}

/// Cuts bytes at random places.
fn pieces(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

proptest! {
    #[test]
    fn splits_change_nothing(
        bytes in prop_oneof![wire(), prop::collection::vec(well_formed(), 0..4).prop_map(|frames| frames.concat())],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        version in prop::sample::select(&Version::ALL[..]),
    ) {
        let whole = feed(&mut reader(version), [&*bytes]);
        let split = pieces(&bytes, &cuts);
        prop_assert_eq!(feed(&mut reader(version), split.iter().map(|piece| &**piece)), whole.clone());
        prop_assert_eq!(feed(&mut reader(version), bytes.chunks(1)), whole);
    }

    #[test]
    fn well_formed_frames_are_all_read(
        frames in prop::collection::vec(well_formed(), 0..4),
        version in prop::sample::select(&Version::ALL[..]),
    ) {
        let (all, error) = feed(&mut reader(version), frames.iter().map(|frame| &**frame));
        prop_assert_eq!(error, None);
        prop_assert_eq!(all.iter().filter(|received| **received != Received::HeartBeat).count(), frames.len());
    }

    #[test]
    fn noise_does_no_harm(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
        version in prop::sample::select(&Version::ALL[..]),
    ) {
        feed(&mut reader(version), pieces.iter().map(|piece| &**piece));
    }

    /// Limits hold whatever they are, none of them included.
    #[test]
    fn any_limits_hold(
        bytes in wire(),
        limits in (0..4_usize, 0..40_usize, 0..20_usize),
    ) {
        let (headers_max, head_bytes_max, body_bytes_max) = limits;
        let limits = Limits { headers_max, head_bytes_max, body_bytes_max };
        let whole = feed(&mut Reader::new(limits), [&*bytes]);
        prop_assert_eq!(feed(&mut Reader::new(limits), bytes.chunks(1)), whole);
    }
}
