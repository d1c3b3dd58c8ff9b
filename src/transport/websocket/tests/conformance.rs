//! The rules of RFC 6455 and RFC 7692, case by case: what the families of the Autobahn suite look at, in our words.
//!
//! Each case runs three times: in one piece, frame by frame, and byte by byte.

use super::*;

/// Frames, and what is to be made of them.
struct Case {
    name: &'static str,
    frames: Vec<Vec<u8>>,
    messages: Vec<Got>,
    /// The code of the fault that comes after the messages, if one does.
    fault: Option<u16>,
}

fn case<const N: usize>(
    name: &'static str,
    frames: [Vec<u8>; N],
    messages: impl Into<Vec<Got>>,
    fault: Option<u16>,
) -> Case {
    Case { name, frames: frames.into(), messages: messages.into(), fault }
}

fn check(cases: Vec<Case>, limits: Limits, deflate: Option<Negotiated>) {
    for Case { name, frames, messages, fault } in cases {
        let wire = frames.concat();
        let ways: [(&str, Vec<&[u8]>); 3] = [
            ("in one piece", vec![&wire]),
            ("frame by frame", frames.iter().map(Vec::as_slice).collect()),
            ("byte by byte", wire.chunks(1).collect()),
        ];
        for (way, pieces) in ways {
            let (got, ended) = read(Reader::new(limits, deflate), pieces);
            assert_eq!(got, messages, "{name}, {way}");
            assert_eq!(ended.map(|fault| fault.reason.code()), fault, "{name}, {way}: {ended:?}");
        }
    }
}

fn text(text: &str) -> Got {
    Got::Text(text.to_owned())
}

fn binary(bytes: &[u8]) -> Got {
    Got::Binary(bytes.to_vec())
}

fn ping(payload: &[u8]) -> Got {
    Got::Ping(payload.to_vec())
}

#[test]
fn whole_messages_of_every_form_of_length() {
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537] {
        let letters = "*".repeat(length);
        let cases = vec![
            case("text", [frame(0x81, letters.as_bytes())], [text(&letters)], None),
            case("binary", [frame(0x82, letters.as_bytes())], [binary(letters.as_bytes())], None),
        ];
        check(cases, ROOMY, None);
    }
}

/// Fed byte by byte, each head comes without its payload, which then is whole in the next piece.
#[test]
fn messages_of_one_byte() {
    let frames = [frame(0x81, b"a"), frame(0x82, b"b"), frame(0x89, b"c"), frame(0x81, b"d")];
    let messages = [text("a"), binary(b"b"), ping(b"c"), text("d")];
    check(vec![case("one after the other", frames, messages, None)], ROOMY, None);
}

#[test]
fn control_frames() {
    let cases = vec![
        case("an empty ping", [frame(0x89, b"")], [ping(b"")], None),
        case("a ping with content of any kind", [frame(0x89, &[0, 0xFF, 0xFE])], [ping(&[0, 0xFF, 0xFE])], None),
        case("the largest ping", [frame(0x89, &[7; 125])], [ping(&[7; 125])], None),
        case("a ping that is too large", [frame(0x89, &[7; 126])], [], Some(1002)),
        case("a close that is too large", [frame(0x88, &[7; 126])], [], Some(1002)),
        case("a pong nobody asked for", [frame(0x8A, b"hm")], [Got::Pong(b"hm".to_vec())], None),
        case(
            "ten pings",
            std::array::from_fn::<_, 10, _>(|n| frame(0x89, &[n as u8])),
            (0..10).map(|n| ping(&[n])).collect::<Vec<_>>(),
            None,
        ),
        case("a ping in fragments", [frame(0x09, b"a"), frame(0x80, b"b")], [], Some(1002)),
        case("a pong in fragments", [frame(0x0A, b"a")], [], Some(1002)),
    ];
    check(cases, ROOMY, None);
}

#[test]
fn reserved_bits_and_opcodes() {
    for bits in [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
        let cases = vec![
            case("on a text", [frame(0x81 | bits, b"x")], [], Some(1002)),
            case("after a good message", [frame(0x81, b"ok"), frame(0x82 | bits, b"x")], [text("ok")], Some(1002)),
            case("on a ping", [frame(0x89 | bits, b"")], [], Some(1002)),
            case("on a close", [frame(0x88 | bits, b"")], [], Some(1002)),
            case("on a continuation", [frame(0x01, b"a"), frame(0x80 | bits, b"b")], [], Some(1002)),
        ];
        check(cases, ROOMY, None);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check(vec![case("a reserved opcode", [frame(0x80 | opcode, b"")], [], Some(1002))], ROOMY, None);
    }
}

#[test]
fn fragments() {
    let cases = vec![
        case("two", [frame(0x01, b"ab"), frame(0x80, b"cd")], [text("abcd")], None),
        case("empty ones", [frame(0x01, b""), frame(0x00, b""), frame(0x80, b"")], [text("")], None),
        case(
            "content in the middle one",
            [frame(0x02, b""), frame(0x00, b"x"), frame(0x80, b"")],
            [binary(b"x")],
            None,
        ),
        case(
            "pings in between overtake the message",
            [frame(0x01, b"a"), frame(0x89, b"1"), frame(0x00, b"b"), frame(0x89, b"2"), frame(0x80, b"c")],
            [ping(b"1"), ping(b"2"), text("abc")],
            None,
        ),
        case(
            "two messages",
            [frame(0x01, b"a"), frame(0x80, b"b"), frame(0x02, b"c"), frame(0x80, b"d")],
            [text("ab"), binary(b"cd")],
            None,
        ),
        case("a continuation of nothing", [frame(0x80, b"x")], [], Some(1002)),
        case("an unfinished continuation of nothing", [frame(0x00, b"x")], [], Some(1002)),
        case(
            "a continuation after the end",
            [frame(0x01, b"a"), frame(0x80, b"b"), frame(0x00, b"c")],
            [text("ab")],
            Some(1002),
        ),
        case("a text inside a text", [frame(0x01, b"a"), frame(0x81, b"b")], [], Some(1002)),
        case("a binary inside a text", [frame(0x01, b"a"), frame(0x02, b"b")], [], Some(1002)),
        case(
            "a close ends an unfinished message",
            [frame(0x01, b"a"), frame(0x88, b"")],
            [Got::Close(None, String::new())],
            None,
        ),
    ];
    check(cases, ROOMY, None);
}

#[test]
fn text_must_be_utf8() {
    let valid = [
        "κόσμε",
        "Hello-µ@ßöäüàá-UTF-8!!",
        "\u{0}\u{7F}\u{80}\u{7FF}\u{800}\u{FFFD}\u{FFFF}\u{10000}\u{10FFFF}",
        "\u{FDD0}\u{1FFFE}",
    ];
    for sample in valid {
        let (left, right) = sample.as_bytes().split_at(sample.len() / 2);
        let letters: Vec<Vec<u8>> = sample.bytes().map(|byte| frame(0x00, &[byte])).collect();
        let cases = vec![
            case("whole", [frame(0x81, sample.as_bytes())], [text(sample)], None),
            case("cut anywhere", [frame(0x01, left), frame(0x80, right)], [text(sample)], None),
            case("a byte a fragment", [frame(0x01, b""), letters.concat(), frame(0x80, b"")], [text(sample)], None),
        ];
        check(cases, ROOMY, None);
    }
    let invalid: [&[u8]; 14] = [
        b"\x80",
        b"\xBF",
        b"\xC0\xAF",
        b"\xC1\xBF",
        b"\xE0\x80\xAF",
        b"\xF0\x80\x80\xAF",
        b"\xFC\x80\x80\x80\x80\xAF",
        b"\xED\xA0\x80",
        b"\xED\xBF\xBF",
        b"\xED\xA0\x80\xED\xB0\x80",
        b"\xF4\x90\x80\x80",
        b"\xFE",
        b"\xFF",
        b"a\xC3",
    ];
    for bytes in invalid {
        let cases = vec![
            case("invalid in one frame", [frame(0x81, bytes)], [], Some(1007)),
            case("invalid in the second fragment", [frame(0x01, b"ok "), frame(0x80, bytes)], [], Some(1007)),
            case("anything goes in binary", [frame(0x82, bytes)], [binary(bytes)], None),
        ];
        check(cases, ROOMY, None);
    }
}

/// The fault must come with the byte that makes it certain, not with the end of the frame or message.
#[test]
fn invalid_text_fails_at_once() {
    let text = b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xF4\x90\x80\x80 and more that nobody needs to wait for";
    let certain = 12; // After F4 only 80 to 8F may come, so 90 settles it.
    let head_bytes = 6;
    let wire = frame(0x01, text);
    let pieces = |bytes: usize| wire.get(..bytes).unwrap().chunks(1);
    assert_eq!(read(Reader::new(ROOMY, None), pieces(head_bytes + certain)).1, None);
    let fault = read(Reader::new(ROOMY, None), pieces(head_bytes + certain + 1)).1.unwrap();
    assert_eq!(fault.reason.code(), 1007);
}

#[test]
fn the_end_of_a_connection() {
    let close = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes()[..], reason].concat());
    let closed = |code, reason: &str| Got::Close(code, reason.to_owned());
    let cases = vec![
        case("without a code", [frame(0x88, b"")], [closed(None, "")], None),
        case("half a code", [frame(0x88, &[3])], [], Some(1002)),
        case("with a reason", [close(1000, "fertig ✓".as_bytes())], [closed(Some(1000), "fertig ✓")], None),
        case("with the longest reason", [close(1000, &[b'*'; 123])], [closed(Some(1000), &"*".repeat(123))], None),
        case("with a reason that is no text", [close(1000, b"\xCE\xBA\xED\xA0\x80")], [], Some(1007)),
        case(
            "whatever comes afterwards does not count",
            [close(1000, b""), close(1001, b""), frame(0x81, b"x"), frame(0x89, b"x"), vec![0xFF; 9]],
            [closed(Some(1000), "")],
            None,
        ),
    ];
    check(cases, ROOMY, None);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        check(vec![case("a code to be sent", [close(code, b"")], [closed(Some(code), "")], None)], ROOMY, None);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        check(vec![case("a code not to be sent", [close(code, b"")], [], Some(1002))], ROOMY, None);
    }
}

#[test]
fn frames_must_be_masked() {
    let cases = vec![
        case("a text without a mask", [vec![0x81, 2, b'h', b'i']], [], Some(1002)),
        case("a ping without a mask", [vec![0x89, 0]], [], Some(1002)),
        case("an empty mask is one", [vec![0x81, 0x82, 0, 0, 0, 0, b'h', b'i']], [text("hi")], None),
    ];
    check(cases, ROOMY, None);
}

#[test]
fn sizes() {
    let limits = Limits { message_bytes_max: 100, fragments_max: 3 };
    let cases = vec![
        case("the largest message", [frame(0x82, &[1; 100])], [binary(&[1; 100])], None),
        case("one byte more", [frame(0x82, &[1; 101])], [], Some(1009)),
        case(
            "the largest message in fragments",
            [frame(0x02, &[1; 60]), frame(0x80, &[1; 40])],
            [binary(&[1; 100])],
            None,
        ),
        case("one byte more in fragments", [frame(0x02, &[1; 60]), frame(0x80, &[1; 41])], [], Some(1009)),
        case(
            "the head alone is enough",
            [vec![0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]],
            [],
            Some(1009),
        ),
        case(
            "no more bytes than 63 bits can count",
            [vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
            [],
            Some(1002),
        ),
        case("a length in too many bytes", [vec![0x82, 0xFE, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5]], [], Some(1002)),
        case(
            "as many fragments as allowed",
            [frame(0x02, b"a"), frame(0x00, b"b"), frame(0x80, b"c")],
            [binary(b"abc")],
            None,
        ),
        case(
            "one fragment more",
            [frame(0x02, b""), frame(0x00, b""), frame(0x00, b""), frame(0x80, b"")],
            [],
            Some(1009),
        ),
        case(
            "pings are no part of a message",
            [frame(0x02, &[1; 99]), frame(0x89, &[1; 125]), frame(0x80, b"x")],
            [ping(&[1; 125]), binary(&[&[1; 99][..], b"x"].concat())],
            None,
        ),
    ];
    check(cases, limits, None);
}

#[test]
fn compression() {
    // The examples of RFC 7692, section 7.2.3.
    let hello = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    let stored = [0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00];
    let last_block = [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00];
    let two_blocks = [0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00];
    let cases = vec![
        case("one block", [frame(0xC1, &hello)], [text("Hello")], None),
        case("a stored block", [frame(0xC1, &stored)], [text("Hello")], None),
        case("a last block", [frame(0xC1, &last_block)], [text("Hello")], None),
        case("two blocks", [frame(0xC2, &two_blocks)], [binary(b"Hello")], None),
        case("nothing", [frame(0xC1, &[0x00])], [text("")], None),
        case(
            "each message by itself",
            [frame(0xC1, &hello), frame(0xC1, &hello)],
            [text("Hello"), text("Hello")],
            None,
        ),
        case(
            "a context that was to be dropped",
            [frame(0xC1, &hello), frame(0xC1, &[0xF2, 0x00, 0x11, 0x00, 0x00])],
            [text("Hello")],
            Some(1007),
        ),
        case(
            "uncompressed ones beside",
            [frame(0x81, b"Hello"), frame(0xC1, &hello)],
            [text("Hello"), text("Hello")],
            None,
        ),
        case(
            "in fragments, with a ping",
            [frame(0x41, &hello[..3]), frame(0x89, b"?"), frame(0x00, b""), frame(0x80, &hello[3..])],
            [ping(b"?"), text("Hello")],
            None,
        ),
        case("RSV1 on a continuation", [frame(0x41, &hello[..3]), frame(0xC0, &hello[3..])], [], Some(1002)),
        case("RSV1 on a ping", [frame(0xC9, b"")], [], Some(1002)),
        case("RSV2", [frame(0xA1, b"")], [], Some(1002)),
        case("not deflate", [frame(0xC2, &[0xFF; 10])], [], Some(1007)),
        case("deflate that ends too early", [frame(0xC2, &hello[..4])], [], Some(1007)),
        case(
            "text that is none once it is inflated",
            [frame(0xC1, &[0x00, 0x01, 0x00, 0xFE, 0xFF, 0xFF, 0x00])],
            [],
            Some(1007),
        ),
    ];
    check(cases, ROOMY, negotiated());
}

#[test]
fn a_bomb_does_not_go_off() {
    let limits = Limits { message_bytes_max: 50_000, fragments_max: 10 };
    let mut deflater = Deflater::default();
    // A block for every 500 bytes: 1 % larger than its content.
    let block = [&[0, 0xF4, 0x01, 0x0B, 0xFE][..], &[7; 500]].concat();
    let stored = frame(0xC2, &[block.repeat(100), vec![0]].concat());
    let mut deflated = |length: usize| deflater.compress(&vec![b'0'; length], 9).unwrap().to_vec();
    let cases = vec![
        case("as large as allowed", [frame(0xC2, &deflated(50_000))], [binary(&vec![b'0'; 50_000])], None),
        case("one byte more", [frame(0xC2, &deflated(50_001))], [], Some(1009)),
        case("announced as larger than any way to write what is allowed", [frame(0xC2, &[0; 56_315])], [], Some(1009)),
        case("what does not compress", [stored], [binary(&[7; 50_000])], None),
        case("a twentyfold", [frame(0xC2, &deflated(1_000_000))], [], Some(1009)),
    ];
    check(cases, limits, negotiated());
}
