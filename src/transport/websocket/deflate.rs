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
    /// 1007 when it is not a complete deflate stream, 1009 when it inflates to more than `bytes_max`: no room is ever
    /// made for more than that.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(lines: &[&str]) -> Option<&'static str> {
        Negotiated::from_offers(lines.iter().copied()).map(Negotiated::answer)
    }

    const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    const NAMED: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";

    #[test]
    fn offers_that_are_accepted() {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=8",
            "permessage-deflate; client_max_window_bits=\"10\"",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "x-webkit-deflate-frame, permessage-deflate",
            "unknown; text=\"a, permessage-deflate; b\\\"\", permessage-deflate",
        ] {
            assert_eq!(answer(&[offer]), Some(PLAIN), "{offer}");
        }
        assert_eq!(answer(&["permessage-deflate; server_max_window_bits=15"]), Some(NAMED));
    }

    #[test]
    fn offers_that_are_passed_over() {
        for offer in [
            "",
            "deflate-frame",
            "permessage-deflate;",
            "permessage-deflate; unknown",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=14",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=015",
            "permessage-deflate; server_max_window_bits=+15",
            "permessage-deflate; server_max_window_bits=\"15",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "unknown; text=\"a, permessage-deflate\"",
        ] {
            assert_eq!(answer(&[offer]), None, "{offer}");
        }
    }

    #[test]
    fn the_first_acceptable_offer_counts() {
        let small = "permessage-deflate; server_max_window_bits=9";
        let named = "permessage-deflate; server_max_window_bits=15";
        assert_eq!(answer(&[&format!("{small}, {named}, permessage-deflate")]), Some(NAMED));
        assert_eq!(answer(&[small, "permessage-deflate", named]), Some(PLAIN));
    }

    #[test]
    fn what_does_not_get_smaller_is_not_compressed() {
        let mut deflater = Deflater::default();
        assert_eq!(deflater.compress(b"", 6), None);
        assert_eq!(deflater.compress(b"short", 6), None);
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = (0..300_000).map(|_| random.u8(..)).collect();
        assert_eq!(deflater.compress(&noise, 9), None);
        assert!(deflater.compress(&[b'a'; 1000], 1).is_some_and(|compressed| compressed.len() < 20));
    }

    #[test]
    fn the_same_message_gives_the_same_bytes_whatever_came_before() {
        let mut deflater = Deflater::default();
        let text = "the quick brown fox jumps over the lazy dog, and again over the lazy dog".repeat(3);
        let first = deflater.compress(text.as_bytes(), 6).unwrap().to_vec();
        assert!(deflater.compress(&[7; 500], 1).is_some());
        assert_eq!(deflater.compress(text.as_bytes(), 6), Some(first.as_slice()));
        assert_eq!(Deflater::default().compress(text.as_bytes(), 6), Some(first.as_slice()));
    }

    #[test]
    fn every_cut_message_is_noticed_and_spoils_no_other() {
        let text: String = (0..200).map(|number| format!("{number} ")).collect();
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        let whole = deflater.compress(text.as_bytes(), 6).unwrap();
        for kept in 1..whole.len() {
            let cut = inflater.inflate(&whole[..kept], 10_000);
            assert_eq!(cut.map_err(|fault| fault.reason.code()), Err(1007), "{kept} bytes");
            assert_eq!(inflater.inflate(whole, 10_000), Ok(text.as_bytes()), "after {kept} bytes");
        }
        assert_eq!(inflater.inflate(&[], 10), Ok(&[][..]));
    }

    #[test]
    fn a_large_message_leaves_no_large_buffer() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        let large = vec![b'0'; 2_000_000];
        let compressed = deflater.compress(&large, 1).unwrap().to_vec();
        assert_eq!(inflater.inflate(&compressed, 2_000_000).map(<[u8]>::len), Ok(2_000_000));
        let small = deflater.compress(&[b'0'; 100], 1).unwrap();
        assert_eq!(inflater.inflate(small, 100).map(<[u8]>::len), Ok(100));
        assert!(inflater.output.capacity() <= BUFFER_BYTES_KEPT);
        assert!(deflater.output.capacity() <= BUFFER_BYTES_KEPT);
    }

    proptest! {
        #[test]
        fn what_was_compressed_inflates_to_itself(
            words in proptest::collection::vec("[a-e]{1,6}|.{0,9}", 0..60), level in 0_u32..12, room in 0_usize..3,
        ) {
            let text = words.concat();
            let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
            if let Some(compressed) = deflater.compress(text.as_bytes(), level) {
                prop_assert!(compressed.len() < text.len());
                prop_assert_eq!(inflater.inflate(compressed, text.len() + room), Ok(text.as_bytes()));
                let refused = inflater.inflate(compressed, text.len() - 1).map_err(|fault| fault.reason.code());
                prop_assert_eq!(refused, Err(1009));
            }
        }

        #[test]
        fn noise_inflates_to_something_bounded_or_to_a_fault(
            noise in proptest::collection::vec(any::<u8>(), 0..200), bytes_max in 0_usize..1000,
        ) {
            if let Ok(output) = Inflater::default().inflate(&noise, bytes_max) {
                prop_assert!(output.len() <= bytes_max);
            }
        }
    }
}
