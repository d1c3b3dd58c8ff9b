//! Frames between bytes and values (AMQP 0-9-1, section 4.2). Knows no channel's state and does no I/O.

use std::sync::Arc;

use amq_protocol::frame::parsing::parse_content_header;
use amq_protocol::frame::{AMQPFrame, gen_frame};
use amq_protocol::protocol::{AMQPClass, BasicProperties, parse_class};
use bytes::{Buf, Bytes, BytesMut};

use super::fault::{Code, Fault};
use super::limits::{CONTENT_HEAD_BYTES, FRAME_OVERHEAD};
use super::message::Message;
use super::table;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
const FRAME_END: u8 = 0xCE;
const HEAD_BYTES: usize = 7;

/// What the listener speaks; sent as the answer to any other opening (section 4.2.2).
pub(crate) const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\0\0\x09\x01";

/// One frame, understood.
#[derive(Debug)]
pub(crate) enum Frame {
    /// A method and its arguments.
    Method(Box<AMQPClass>),
    /// The head of a content.
    Header(Box<ContentHeader>),
    /// A piece of a content.
    Body(Bytes),
    /// A sign of life.
    Heartbeat,
}

/// The head of a content (section 4.2.6.1).
#[derive(Debug)]
pub(crate) struct ContentHeader {
    pub(crate) class: u16,
    pub(crate) body_bytes: u64,
    pub(crate) properties: BasicProperties,
    /// The properties as they came.
    pub(crate) properties_raw: Bytes,
}

/// One frame's bytes, cut out of the stream.
#[derive(Debug)]
pub(crate) struct RawFrame {
    kind: u8,
    pub(crate) channel: u16,
    pub(crate) payload: Bytes,
}

/// Cuts the next whole frame off the input; `None` until it is there. Nothing is reserved for what a head only announces.
///
/// # Errors
/// 501 when the bytes are no frame, or one larger than was agreed.
pub(crate) fn take_frame(input: &mut BytesMut, frame_bytes_max: usize) -> Result<Option<RawFrame>, Fault> {
    let &[kind, c1, c0, s3, s2, s1, s0, ..] = &input[..] else { return Ok(None) };
    let size = u32::from_be_bytes([s3, s2, s1, s0]) as usize;
    if !matches!(kind, METHOD | HEADER | BODY | HEARTBEAT) {
        return Err(Fault::new(Code::FrameError, format!("there is no frame type {kind}")));
    }
    if size > frame_bytes_max.saturating_sub(FRAME_OVERHEAD) {
        let text = format!("a frame with {size} bytes of payload is larger than the agreed {frame_bytes_max}");
        return Err(Fault::new(Code::FrameError, text));
    }
    let Some(end) = input.get(HEAD_BYTES + size).copied() else { return Ok(None) };
    if end != FRAME_END {
        return Err(Fault::new(Code::FrameError, format!("a frame ends with {end:#04x} instead of 0xCE")));
    }
    input.advance(HEAD_BYTES);
    let payload = input.split_to(size).freeze();
    input.advance(1);
    Ok(Some(RawFrame { kind, channel: u16::from_be_bytes([c1, c0]), payload }))
}

/// The class and method number of a method frame, for error replies.
pub(crate) fn method_number(frame: &RawFrame) -> (u16, u16) {
    match (frame.kind, &frame.payload[..]) {
        (METHOD, &[c1, c0, m1, m0, ..]) => (u16::from_be_bytes([c1, c0]), u16::from_be_bytes([m1, m0])),
        _ => (0, 0),
    }
}

/// Makes sure that `basic.qos` limits no bytes: the library's parser passes over that field.
fn check_prefetch(payload: &[u8]) -> Result<(), Fault> {
    match payload {
        [0, 60, 0, 10, size @ ..] if !size.starts_with(&[0; 4]) => Err(Fault::unsupported("prefetch_size but 0")),
        _ => Ok(()),
    }
}

/// Understands a frame.
///
/// # Errors
/// 502 for arguments that cannot be read, 503 for methods that a client never sends, 540 for a prefetch in bytes.
pub(crate) fn parse(frame: &RawFrame) -> Result<Frame, Fault> {
    let (class, method) = method_number(frame);
    match frame.kind {
        METHOD => {
            table::check_method(&frame.payload)?;
            match parse_class(&frame.payload[..]) {
                Ok(([], parsed)) => check_prefetch(&frame.payload).map(|()| Frame::Method(Box::new(parsed))),
                _ => Err(Fault::new(Code::SyntaxError, format!("method {class}.{method} cannot be read"))),
            }
        }
        HEADER => parse_header(&frame.payload),
        BODY => Ok(Frame::Body(frame.payload.clone())),
        _ => Ok(Frame::Heartbeat),
    }
}

fn parse_header(payload: &Bytes) -> Result<Frame, Fault> {
    table::check_content_header(payload)?;
    match parse_content_header(&payload[..]) {
        Ok(([], header)) => Ok(Frame::Header(Box::new(ContentHeader {
            class: header.class_id,
            body_bytes: header.body_size,
            properties: header.properties,
            // A copy: a slice would keep everything alive that was read along with it.
            properties_raw: Bytes::copy_from_slice(payload.get(CONTENT_HEAD_BYTES..).unwrap_or_default()),
        }))),
        _ => Err(Fault::new(Code::SyntaxError, "a content header cannot be read")),
    }
}

/// Appends a method frame.
pub(crate) fn put_method(out: &mut Vec<u8>, channel: u16, method: AMQPClass) {
    put(out, &AMQPFrame::Method(channel, method));
}

/// Appends a heartbeat.
pub(crate) fn put_heartbeat(out: &mut Vec<u8>) {
    put(out, &AMQPFrame::Heartbeat);
}

fn put(out: &mut Vec<u8>, frame: &AMQPFrame) {
    // Writing to memory cannot fail; were it to, the peer would miss a frame and the connection end.
    if let Ok(context) = gen_frame(frame)(std::mem::take(out).into()) {
        *out = context.into_inner().0;
    }
}

/// What `basic.deliver` says about a message.
#[derive(Debug)]
pub(crate) struct DeliveryHead<'a> {
    pub(crate) consumer_tag: &'a str,
    pub(crate) delivery_tag: u64,
    pub(crate) redelivered: bool,
}

/// Appends `basic.deliver`. Written out by hand, because it is the one method sent for every message.
pub(crate) fn put_deliver(out: &mut Vec<u8>, channel: u16, head: &DeliveryHead<'_>, message: &Message) {
    put_frame(out, METHOD, channel, |out| {
        out.extend([0, 60, 0, 60]);
        put_short_string(out, head.consumer_tag);
        out.extend(head.delivery_tag.to_be_bytes());
        out.push(u8::from(head.redelivered));
        put_short_string(out, &message.exchange);
        put_short_string(out, &message.routing_key);
    });
}

/// Appends the header and body frames of a message, none larger than was agreed.
pub(crate) fn put_content(out: &mut Vec<u8>, channel: u16, message: &Arc<Message>, frame_bytes_max: usize) {
    put_frame(out, HEADER, channel, |out| {
        out.extend([0, 60, 0, 0]);
        out.extend((message.body.len() as u64).to_be_bytes());
        out.extend_from_slice(&message.properties);
    });
    for piece in message.body.chunks(frame_bytes_max.saturating_sub(FRAME_OVERHEAD).max(1)) {
        put_frame(out, BODY, channel, |out| out.extend_from_slice(piece));
    }
}

fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    out.extend(channel.to_be_bytes());
    let at = out.len();
    out.extend([0; 4]);
    payload(out);
    let size = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&size.to_be_bytes());
    }
    out.push(FRAME_END);
}

fn put_short_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes().get(..255).unwrap_or(text.as_bytes());
    out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::super::message::{Account, Publish, encode_properties};
    use super::*;
    use amq_protocol::protocol::basic;
    use proptest::prelude::*;

    fn frames(mut bytes: &[u8], frame_bytes_max: usize) -> Vec<RawFrame> {
        let mut input = BytesMut::new();
        let mut all = Vec::new();
        while let Some((first, rest)) = bytes.split_first() {
            input.extend([*first]);
            bytes = rest;
            all.extend(take_frame(&mut input, frame_bytes_max).unwrap());
        }
        assert!(input.is_empty());
        all
    }

    #[test]
    fn a_delivery_reads_back_as_it_was_written_in_frames_of_the_agreed_size() {
        let properties = BasicProperties::default().with_content_type("text/plain".into());
        let publish = Publish {
            exchange: "amq.topic".into(),
            routing_key: "a.b".into(),
            properties_raw: encode_properties(&properties),
            properties: properties.clone(),
            body: Bytes::from(vec![7; 10_000]),
        };
        let message = Arc::new(Message::new(publish, &Account::default()));
        let mut out = Vec::new();
        put_deliver(&mut out, 3, &DeliveryHead { consumer_tag: "c", delivery_tag: 9, redelivered: true }, &message);
        put_content(&mut out, 3, &message, 4_096);
        let frames = frames(&out, 4_096);
        assert!(frames.iter().all(|frame| frame.channel == 3));
        let [head, header, bodies @ ..] = &frames[..] else { panic!("{frames:?}") };
        let expected = AMQPClass::Basic(basic::AMQPMethod::Deliver(basic::Deliver {
            consumer_tag: "c".into(),
            delivery_tag: 9,
            redelivered: true,
            exchange: "amq.topic".into(),
            routing_key: "a.b".into(),
        }));
        assert!(matches!(parse(head).unwrap(), Frame::Method(method) if *method == expected));
        assert!(matches!(parse(header).unwrap(), Frame::Header(header)
            if header.body_bytes == 10_000 && header.properties == properties));
        assert_eq!(bodies.len(), 3);
        assert_eq!(bodies.iter().map(|frame| frame.payload.len()).sum::<usize>(), 10_000);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let refused = |bytes: &[u8]| take_frame(&mut BytesMut::from(bytes), 4_096).unwrap_err().code;
        assert_eq!(refused(&[9, 0, 0, 0, 0, 0, 0]), Code::FrameError);
        assert_eq!(refused(&[3, 0, 0, 0, 0, 16, 0]), Code::FrameError, "too large is known from the head");
        assert_eq!(refused(&[8, 0, 0, 0, 0, 0, 0, 0]), Code::FrameError, "the end mark");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(kind in prop::sample::select(&[1_u8, 2, 3, 8][..]), payload: Vec<u8>, class in 0..100_u8, method in 0..130_u8) {
            let payload = [&[0, class, 0, method], &payload[..]].concat();
            let _ = parse(&RawFrame { kind, channel: 0, payload: Bytes::from(payload) });
        }
    }
}
