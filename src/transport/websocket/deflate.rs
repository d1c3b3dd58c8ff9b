//! permessage-deflate (RFC 7692) without context takeover: what is compressed once fits every peer that negotiated it,
//! and no connection holds any state for it.
//!
//! It knows no frame and no connection; inflater and deflater belong to whoever owns many connections.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Fault;

/// The window that our deflater uses, in bits: the largest there is. A peer that demands less cannot share our frames.
const WINDOW_BITS: u8 = 15;

/// Output buffers above this many bytes are given back before the next message.
const BUFFER_BYTES_KEPT: usize = 64 * 1024;

/// What every sender takes off the end of a compressed message (RFC 7692, section 7.2.1): an empty stored block.
const STRIPPED: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// The stripped bytes and one more empty block, the last of its stream: only a message that was complete ends with it.
const ENDING: [u8; 9] = [0, 0, 0xFF, 0xFF, 1, 0, 0, 0xFF, 0xFF];

/// That a connection uses permessage-deflate, and in which words that is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    names_server_window: bool,
}

impl Negotiated {
    /// The element of `Sec-WebSocket-Extensions` that accepts the offer. Both sides go without context takeover; a
    /// hint of the client about its own window needs no answer (RFC 7692, section 7.1.2.2), since we inflate any.
    pub const fn answer(self) -> &'static str {
        if self.names_server_window {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15"
        } else {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        }
    }

    /// Takes the first acceptable offer of the lines of `Sec-WebSocket-Extensions`. Other extensions, malformed offers
    /// and those with unknown parameters are passed over (RFC 7692, section 5.1), as is a server window below 15 bits.
    pub fn from_offers<'a>(mut lines: impl Iterator<Item = &'a str>) -> Option<Self> {
        lines.find_map(|line| split_unquoted(line, ',').find_map(accept))
    }
}

/// Judges one offer.
fn accept(offer: &str) -> Option<Negotiated> {
    let mut parts = split_unquoted(offer, ';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let mut seen: [bool; 4] = [false; 4];
    let mut names_server_window = false;
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquote(value.trim_start())?)),
            None => (part, None),
        };
        let place = match (name, value) {
            ("server_no_context_takeover", None) => 0,
            ("client_no_context_takeover", None) => 1,
            ("client_max_window_bits", None) => 2,
            ("client_max_window_bits", Some(bits)) if window_bits(bits).is_some() => 2,
            ("server_max_window_bits", Some(bits)) if window_bits(bits) == Some(WINDOW_BITS) => {
                names_server_window = true;
                3
            }
            _ => return None,
        };
        let seen = seen.get_mut(place)?;
        if std::mem::replace(seen, true) {
            return None;
        }
    }
    Some(Negotiated { names_server_window })
}

/// A window of 8 to 15 bits, written without leading zeros.
fn window_bits(text: &str) -> Option<u8> {
    (8..=WINDOW_BITS).find(|bits| bits.to_string() == text)
}

/// The value of a parameter, which may stand in quotes; `None` when they do not close. What RFC 7692 knows as a value
/// needs no escapes, so a value with one is left as it is and fits nothing.
fn unquote(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(open) => open.strip_suffix('"'),
        None => Some(value),
    }
}

/// Splits at a separator that does not stand inside a quoted string (RFC 9110, section 5.6.4).
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |letter| {
        let literal = std::mem::take(&mut escaped);
        match letter {
            '\\' if quoted && !literal => escaped = true,
            '"' if !literal => quoted = !quoted,
            _ => {}
        }
        letter == separator && !quoted
    })
}

/// Inflates whole messages, each from fresh state. About 50 KiB; one serves any number of connections.
#[derive(Debug)]
pub struct Inflater {
    stream: Decompress,
    output: Vec<u8>,
}

impl Default for Inflater {
    fn default() -> Self {
        Inflater { stream: Decompress::new(false), output: Vec::new() }
    }
}

/// Where a piece of input left the stream.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// A last block ended exactly with the input.
    Ended,
    /// More could follow.
    Open,
}

impl Inflater {
    /// Inflates one message of at most `bytes_max` bytes.
    ///
    /// # Errors
    ///
    /// 1007 when it is not a complete deflate stream, 1009 when it inflates to more than `bytes_max`; by then no more
    /// than `bytes_max` and a few bytes have been reserved.
    pub fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<&[u8], Fault> {
        self.stream.reset(false);
        self.output.clear();
        self.output.shrink_to(BUFFER_BYTES_KEPT);
        // A sender that had nothing to flush may have stripped all that there was.
        if !payload.is_empty()
            && self.run(payload, bytes_max)? == Progress::Open
            && self.run(&ENDING, bytes_max)? == Progress::Open
        {
            return Err(Fault::data("a compressed message ended too early"));
        }
        Ok(&self.output)
    }

    /// Feeds `input` whole. A last block (RFC 7692, section 7.2.3.4) may be followed by others.
    fn run(&mut self, mut input: &[u8], bytes_max: usize) -> Result<Progress, Fault> {
        loop {
            self.make_room(input.len(), bytes_max);
            let (consumed_before, produced_before) = (self.stream.total_in(), self.output.len());
            let status = self
                .stream
                .decompress_vec(input, &mut self.output, FlushDecompress::None)
                .map_err(|_| Fault::data("a compressed message could not be inflated"))?;
            let consumed = (self.stream.total_in() - consumed_before) as usize;
            input = input.get(consumed..).unwrap_or_default();
            if self.output.len() > bytes_max {
                return Err(Fault::size("a message inflates to more than the limit"));
            }
            if status == Status::StreamEnd {
                if input.is_empty() {
                    return Ok(Progress::Ended);
                }
                self.stream.reset(false);
            } else if input.is_empty() && self.output.len() < self.output.capacity() {
                return Ok(Progress::Open);
            } else if consumed == 0 && self.output.len() == produced_before {
                return Err(Fault::data("a compressed message could not be inflated"));
            }
        }
    }

    /// Sees to it that some output fits: doubling, but never beyond one byte more than the limit.
    fn make_room(&mut self, input_bytes: usize, bytes_max: usize) {
        let length = self.output.len();
        if length == self.output.capacity() {
            let wanted = (2 * length).max(4 * input_bytes).max(256).min(bytes_max.saturating_add(1));
            self.output.reserve_exact(wanted.saturating_sub(length));
        }
    }
}

/// Compresses whole messages, each from fresh state. About 300 KiB; one serves any number of connections.
#[derive(Debug)]
pub struct Deflater {
    stream: Compress,
    level: u32,
    output: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Self {
        let level = Compression::fast();
        Deflater { stream: Compress::new(level, false), level: level.level(), output: Vec::new() }
    }
}

impl Deflater {
    /// The message compressed at a level of 1 (fast) to 9 (small), for a frame that is
    /// [`Deflated`](super::writer::Packing::Deflated); `None` when it would not get smaller.
    pub fn compress(&mut self, payload: &[u8], level: u32) -> Option<&[u8]> {
        let level = level.clamp(1, 9);
        self.stream.reset();
        if level != self.level {
            self.stream.set_level(Compression::new(level)).ok()?;
            self.level = level;
        }
        self.output.clear();
        self.output.shrink_to(BUFFER_BYTES_KEPT);
        // Output that fills all of this is no smaller than the payload, once its end is stripped.
        let bytes_max = payload.len() + STRIPPED.len();
        self.output.reserve_exact(bytes_max);
        self.stream.compress_vec(payload, &mut self.output, FlushCompress::Sync).ok()?;
        let complete = self.stream.total_in() == payload.len() as u64 && self.output.len() < bytes_max;
        self.output.strip_suffix(&STRIPPED).filter(|_| complete)
    }
}
