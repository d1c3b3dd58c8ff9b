//! Transactions: what a client wants done together waits here until it says so. Bounded, because it waits in memory.
//!
//! Together means at once and in order, and one receipt for all. The broker confirms each message by itself: if it refuses
//! one, the others are published all the same, and the client is told.

use std::collections::BTreeMap;

use super::frame::Frame;

/// Transactions that a session may have open.
pub(super) const TRANSACTIONS_MAX: usize = 16;

/// Frames in one of them.
pub(super) const FRAMES_MAX: usize = 1024;

/// Bytes of all frames in all of them, headers included.
pub(super) const BYTES_MAX: usize = 4 << 20;

/// The open ones.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: BTreeMap<String, Vec<Frame>>,
    bytes: usize,
}

/// Why a frame cannot be taken, in a sentence that says what to do.
pub(super) type Refused = String;

impl Transactions {
    /// Opens one.
    pub(super) fn begin(&mut self, name: &str) -> Result<(), Refused> {
        if self.open.contains_key(name) {
            return Err(format!(
                "transaction {name:?} is open already: choose another name, or COMMIT or ABORT it first"
            ));
        }
        if self.open.len() == TRANSACTIONS_MAX {
            return Err(format!("a session may have {TRANSACTIONS_MAX} transactions: COMMIT or ABORT one first"));
        }
        self.open.insert(name.to_owned(), Vec::new());
        Ok(())
    }

    /// Puts a frame aside.
    pub(super) fn add(&mut self, name: &str, frame: Frame) -> Result<(), Refused> {
        let bytes = weight(&frame);
        let Some(frames) = self.open.get_mut(name) else { return Err(unknown(name)) };
        if frames.len() == FRAMES_MAX {
            return Err(format!("a transaction may have {FRAMES_MAX} frames: COMMIT earlier"));
        }
        if self.bytes + bytes > BYTES_MAX {
            return Err(format!("a session's transactions may have {BYTES_MAX} bytes: COMMIT earlier"));
        }
        self.bytes += bytes;
        frames.push(frame);
        Ok(())
    }

    /// Ends one, and hands out what waited in it.
    pub(super) fn end(&mut self, name: &str) -> Result<Vec<Frame>, Refused> {
        let frames = self.open.remove(name).ok_or_else(|| unknown(name))?;
        self.bytes -= frames.iter().map(weight).sum::<usize>();
        Ok(frames)
    }
}

fn weight(frame: &Frame) -> usize {
    frame.body.len() + frame.headers.iter().map(|header| header.name.len() + header.value.len() + 2).sum::<usize>()
}

fn unknown(name: &str) -> Refused {
    format!("there is no transaction {name:?}: BEGIN it first")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::frame::Verb;
    use super::*;

    fn frame(body: usize) -> Frame {
        Frame { verb: Verb::Send, headers: Vec::new(), body: Bytes::from(vec![0; body]) }
    }

    #[test]
    fn frames_come_back_in_order_and_only_once() {
        let mut transactions = Transactions::default();
        transactions.begin("a").unwrap();
        transactions.begin("b").unwrap();
        assert!(transactions.begin("a").unwrap_err().contains("open already"));
        for size in [1, 2, 3] {
            transactions.add("a", frame(size)).unwrap();
        }
        let sizes: Vec<usize> = transactions.end("a").unwrap().iter().map(|frame| frame.body.len()).collect();
        assert_eq!(sizes, [1, 2, 3]);
        assert!(transactions.end("a").unwrap_err().contains("BEGIN it first"));
        assert!(transactions.add("a", frame(1)).is_err());
        assert_eq!(transactions.end("b").unwrap(), []);
        assert_eq!(transactions.bytes, 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut transactions = Transactions::default();
        for number in 0..TRANSACTIONS_MAX {
            transactions.begin(&number.to_string()).unwrap();
        }
        assert!(transactions.begin("more").unwrap_err().contains("COMMIT or ABORT"));
        for _ in 0..FRAMES_MAX {
            transactions.add("0", frame(0)).unwrap();
        }
        assert!(transactions.add("0", frame(0)).is_err());
        transactions.add("1", frame(BYTES_MAX - 1)).unwrap();
        assert!(transactions.add("2", frame(2)).unwrap_err().contains("COMMIT earlier"));
        transactions.end("1").unwrap();
        transactions.add("2", frame(2)).unwrap();
    }
}
