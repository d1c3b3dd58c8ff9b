//! Frames out of WebSocket messages: several in one, one over several, and the heart-beats between them.
//!
//! A [`Reader`] keeps only what is incomplete, so that an idle one holds no heap. It copies a body once. It follows the
//! grammar of 1.2 with what RabbitMQ tolerates in every version: CR LF as the end of a line, colons in a value, and NULs
//! between frames. A content-length counts in every frame, as the specification has it; RabbitMQ heeds it in `SEND` only.
//! It knows no session: whether a frame makes sense is for others to say.

use std::mem::take;

use bytes::Bytes;
use thiserror::Error;

use super::escape::Escaping;
use super::frame::{Frame, Header, Verb, header};
use super::version::Version;

/// What one client may send in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Headers, repeated ones included.
    pub headers_max: usize,
    /// Bytes of everything before the body, line ends included.
    pub head_bytes_max: usize,
    /// Bytes of the body.
    pub body_bytes_max: usize,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A whole frame.
    Frame(Frame),
    /// The end of a line between frames. A run of them is told as one or as several.
    HeartBeat,
}

/// Why what comes is no frame; a sentence that says what to do. Nothing can be read after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The first line is no verb.
    #[error(
        "a frame begins with a line of its own that is one of CONNECT, STOMP, SEND, SUBSCRIBE, UNSUBSCRIBE, ACK, NACK, \
         BEGIN, COMMIT, ABORT and DISCONNECT, in capitals"
    )]
    Verb,
    /// A NUL before the body.
    #[error("a NUL must not stand among the headers: end them with an empty line, and put NUL after the body")]
    Nul,
    /// A carriage return that ends no line.
    #[error("a header must not hold a carriage return: leave it out, or write it as \\r in STOMP 1.2")]
    CarriageReturn,
    /// A line among the headers that is none.
    #[error("a header is a name, a colon and a value on one line: write it so, and end the headers with an empty line")]
    Colon,
    /// A backslash that escapes nothing.
    #[error(
        "a header has an escape that there is not: write \\\\ for a backslash, \\n, \\c for a colon, and \\r in 1.2 only"
    )]
    Escape,
    /// Other bytes than text.
    #[error("headers must be UTF-8: encode them so, and put what is no text into the body")]
    Utf8,
    /// More headers than allowed.
    #[error("a frame may have at most {max} headers: leave some out")]
    Headers {
        /// How many are allowed.
        max: usize,
    },
    /// A larger head than allowed.
    #[error("a frame's headers may have at most {max} bytes: shorten them, or put them into the body")]
    Head {
        /// How many bytes are allowed.
        max: usize,
    },
    /// A larger body than allowed.
    #[error("a frame's body may have at most {max} bytes: send less at a time")]
    Body {
        /// How many bytes are allowed.
        max: usize,
    },
    /// A length that is no number.
    #[error("content-length must be a whole number, the bytes of the body: correct it or leave it out")]
    Length,
    /// Two lengths.
    #[error("content-length must not be given twice with different numbers: give it once")]
    Lengths,
    /// The body goes on where it should end.
    #[error(
        "a NUL must follow the body: add it, and let content-length count the bytes, not the characters, before it"
    )]
    Unended,
}

/// What is read of one client.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    /// What is agreed on; 1.0 before anything is.
    version: Version,
    /// The front of a line of which the end is still to come.
    line: Vec<u8>,
    /// A frame whose verb is known.
    unfinished: Option<Box<Unfinished>>,
    /// Whether there was an error.
    ended: bool,
}

/// A frame of which some part is still to come.
#[derive(Debug)]
struct Unfinished {
    verb: Verb,
    headers: Vec<Header>,
    /// Bytes of the head so far, whole lines only.
    head_bytes: usize,
    /// Once the head is complete.
    body: Option<Body>,
}

/// A body of which some part is still to come.
#[derive(Debug)]
struct Body {
    /// As it was announced; without that it ends before the first NUL.
    length: Option<usize>,
    bytes: Vec<u8>,
}

/// How far a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// All of it is here.
    Complete,
    /// A NUL ends it, which must not be.
    Nul,
    /// It is longer than allowed.
    TooLong,
    /// There is more to come.
    Partial,
}

impl Reader {
    /// A reader at the start of a session, when no version is agreed on.
    pub fn new(limits: Limits) -> Self {
        Self { limits, version: Version::V10, line: Vec::new(), unfinished: None, ended: false }
    }

    /// Reads everything after the frame that was handed out last as this version has it.
    pub fn speak(&mut self, version: Version) {
        self.version = version;
    }

    /// Takes from the front of `input` what makes up the next frame or heart-beat; `None` once all of it is used up. Call
    /// it until then.
    ///
    /// # Errors
    /// What the client did wrong, as early as it shows. After that everything is passed over.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Received>, FrameError> {
        if self.ended {
            *input = &[];
            return Ok(None);
        }
        let outcome = self.advance(input);
        if outcome.is_err() {
            *self = Self { version: self.version, ended: true, ..Self::new(self.limits) };
        }
        outcome
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Received>, FrameError> {
        let mut frame = match self.unfinished.take() {
            Some(frame) => frame,
            None => match self.verb(input)? {
                None => return Ok(None),
                Some(Opening::HeartBeat) => return Ok(Some(Received::HeartBeat)),
                Some(Opening::Frame(frame)) => Box::new(frame),
            },
        };
        if frame.body.is_none() {
            frame.body = self.head(&mut frame, input)?;
        }
        let body = match &mut frame.body {
            Some(body) => body.fill(input, self.limits.body_bytes_max)?,
            None => None,
        };
        let Some(body) = body else {
            self.unfinished = Some(frame);
            return Ok(None);
        };
        Ok(Some(Received::Frame(Frame { verb: frame.verb, headers: frame.headers, body })))
    }

    /// The first line of the next frame, or an empty one before it.
    fn verb(&mut self, input: &mut &[u8]) -> Result<Option<Opening>, FrameError> {
        if self.line.is_empty() {
            pass_over(input, 0);
        }
        let max = self.limits.head_bytes_max;
        let progress = self.gather(input, max);
        if !may_open(&self.line) {
            return Err(FrameError::Verb);
        }
        match progress {
            Progress::Partial => return Ok(None),
            Progress::Nul => return Err(FrameError::Nul),
            Progress::TooLong => return Err(FrameError::Head { max }),
            Progress::Complete => {}
        }
        let line = take(&mut self.line);
        let name = without_carriage_return(&line);
        if name.is_empty() {
            pass_over(input, b'\n');
            return Ok(Some(Opening::HeartBeat));
        }
        let verb = Verb::named(name).ok_or(FrameError::Verb)?;
        Ok(Some(Opening::Frame(Unfinished { verb, headers: Vec::new(), head_bytes: line.len() + 1, body: None })))
    }

    /// Reads headers up to the empty line; the body then begins.
    fn head(&mut self, frame: &mut Unfinished, input: &mut &[u8]) -> Result<Option<Body>, FrameError> {
        let Limits { headers_max, head_bytes_max, body_bytes_max } = self.limits;
        let escaping = Escaping::of(frame.verb, self.version);
        loop {
            match self.gather(input, head_bytes_max.saturating_sub(frame.head_bytes)) {
                Progress::Partial => return Ok(None),
                Progress::Nul => return Err(FrameError::Nul),
                Progress::TooLong => return Err(FrameError::Head { max: head_bytes_max }),
                Progress::Complete => {}
            }
            frame.head_bytes += self.line.len() + 1;
            let line = without_carriage_return(&self.line);
            if line.is_empty() {
                self.line = Vec::new();
                frame.trim(self.version);
                return frame.body(body_bytes_max).map(Some);
            }
            if frame.headers.len() == headers_max {
                return Err(FrameError::Headers { max: headers_max });
            }
            frame.headers.push(read_header(line, escaping)?);
            self.line.clear();
        }
    }

    /// Moves what there is of a line from the front of `input`, and of its end what is its own. With the end it has at most
    /// `bytes_max` bytes.
    fn gather(&mut self, input: &mut &[u8], bytes_max: usize) -> Progress {
        let room = bytes_max.saturating_sub(self.line.len());
        let within = input.get(..room).unwrap_or(input);
        let Some(end) = within.iter().position(|byte| matches!(byte, b'\n' | 0)) else {
            append(&mut self.line, take_front(input, room), bytes_max);
            return if input.is_empty() { Progress::Partial } else { Progress::TooLong };
        };
        append(&mut self.line, take_front(input, end), bytes_max);
        if take_front(input, 1) == b"\n" { Progress::Complete } else { Progress::Nul }
    }
}

/// What a first line is.
#[derive(Debug)]
enum Opening {
    HeartBeat,
    Frame(Unfinished),
}

impl Unfinished {
    /// In 1.0 a blank may stand after the colon, as it does in that specification's own examples. The frame that begins a
    /// session says itself which version it is written in.
    fn trim(&mut self, agreed: Version) {
        let version = match self.verb {
            Verb::Connect | Verb::Stomp => Version::negotiate(header(&self.headers, "accept-version")),
            _ => Some(agreed),
        };
        if version == Some(Version::V10) {
            for header in &mut self.headers {
                header.value = header.value.trim_start_matches([' ', '\t']).to_owned();
            }
        }
    }

    /// The body that follows these headers, before its first byte.
    fn body(&self, bytes_max: usize) -> Result<Body, FrameError> {
        let mut length = None;
        for header in self.headers.iter().filter(|header| header.name == "content-length") {
            let bytes = content_length(&header.value, bytes_max)?;
            if length.is_some_and(|before| before != bytes) {
                return Err(FrameError::Lengths);
            }
            length = Some(bytes);
        }
        Ok(Body { length, bytes: Vec::new() })
    }
}

impl Body {
    /// Takes in a piece of `input`; the body and its NUL are used up once they are all there.
    fn fill(&mut self, input: &mut &[u8], bytes_max: usize) -> Result<Option<Bytes>, FrameError> {
        let room = self.length.unwrap_or(bytes_max).saturating_sub(self.bytes.len());
        let end = match self.length {
            Some(_) => (input.len() > room).then_some(room),
            // One byte more than there is room for: it may be the NUL.
            None => input.iter().take(room.saturating_add(1)).position(|byte| *byte == 0),
        };
        let piece = take_front(input, end.unwrap_or(room));
        if end.is_none() {
            append(&mut self.bytes, piece, self.length.unwrap_or(bytes_max));
            return if input.is_empty() { Ok(None) } else { Err(FrameError::Body { max: bytes_max }) };
        }
        if take_front(input, 1) != b"\0" {
            return Err(FrameError::Unended);
        }
        if self.bytes.is_empty() {
            return Ok(Some(Bytes::copy_from_slice(piece)));
        }
        append(&mut self.bytes, piece, self.length.unwrap_or(bytes_max));
        Ok(Some(take(&mut self.bytes).into()))
    }
}

/// Whether a first line could begin so.
fn may_open(line: &[u8]) -> bool {
    match line.strip_suffix(b"\r") {
        Some(name) => name.is_empty() || Verb::named(name).is_some(),
        None => Verb::ALL.into_iter().any(|verb| verb.name().as_bytes().starts_with(line)),
    }
}

fn without_carriage_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A header from its line. The value goes to the end of the line, further colons included.
fn read_header(line: &[u8], escaping: Escaping) -> Result<Header, FrameError> {
    if line.contains(&b'\r') {
        return Err(FrameError::CarriageReturn);
    }
    let line = str::from_utf8(line).map_err(|_| FrameError::Utf8)?;
    let (name, value) = line.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or(FrameError::Colon)?;
    let unescape = |text| escaping.unescape(text).ok_or(FrameError::Escape);
    Ok(Header { name: unescape(name)?, value: unescape(value)? })
}

/// The number of bytes that a header announces. More digits than fit are more bytes than are allowed.
fn content_length(value: &str, bytes_max: usize) -> Result<usize, FrameError> {
    let digits = value.trim();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FrameError::Length);
    }
    digits.parse().ok().filter(|bytes| *bytes <= bytes_max).ok_or(FrameError::Body { max: bytes_max })
}

/// Adds a piece to what came before, of which there will be at most `bytes_max` bytes; reserved is at most twice what is
/// there.
fn append(bytes: &mut Vec<u8>, piece: &[u8], bytes_max: usize) {
    let needed = bytes.len() + piece.len();
    if needed > bytes.capacity() {
        let generous = (2 * bytes.capacity()).min(bytes_max).max(needed);
        bytes.reserve_exact(generous - bytes.len());
    }
    bytes.extend_from_slice(piece);
}

/// Splits off up to `bytes` bytes.
fn take_front<'a>(input: &mut &'a [u8], bytes: usize) -> &'a [u8] {
    let (front, rest) = input.split_at(bytes.min(input.len()));
    *input = rest;
    front
}

/// Passes over a run of one byte.
fn pass_over(input: &mut &[u8], byte: u8) {
    while let Some(rest) = input.strip_prefix(&[byte]) {
        *input = rest;
    }
}

#[cfg(test)]
mod tests;
