//! A small client of what never ends: Server-Sent Events, and lines of JSON. Events from bytes, however these are split.
//!
//! It reads what passerelle sends (of HTML Living Standard, section 9.2, with lines that end in LF or CR LF).

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;

use super::client::{CONNECT_TIMEOUT, Ended, Target, lost};
use super::http::{Connection, Query, Way, request, silent};

/// Bytes of one event at most.
const BLOCK_BYTES_MAX: usize = 64 << 20;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// Where the reader stands after it, if that changed.
    pub(super) id: Option<String>,
    /// The JSON object.
    pub(super) data: String,
}

/// An open stream of events.
pub(super) struct EventStream {
    body: Incoming,
    way: Way,
    reader: BlockReader,
    /// While it is open, so is the stream.
    _connection: Connection,
}

impl EventStream {
    /// Asks for what these fields of a query say, after `last_id` if there is one.
    pub(super) async fn connect(
        way: Way,
        target: &Target,
        query: &Query,
        last_id: Option<&str>,
    ) -> Result<Self, Ended> {
        let uri = way.address(&target.url, query)?;
        let request = request(way, &uri, target, last_id)?;
        let mut connection = Connection::open(&uri).await?;
        let answer = tokio::time::timeout(CONNECT_TIMEOUT, connection.ask(way, &uri, request)).await;
        let body = answer.map_err(|_| silent())??;
        Ok(Self { body, way, reader: BlockReader::default(), _connection: connection })
    }

    /// The next event; an error when nothing at all came for `idle`, not even a heartbeat.
    pub(super) async fn next(&mut self, idle: Duration) -> Result<Block, Ended> {
        loop {
            if let Some(block) = self.reader.next(self.way) {
                return Ok(block);
            }
            let received = tokio::time::timeout(idle, self.body.frame()).await;
            let frame = received.map_err(|_| lost("the server has gone quiet"))?;
            let frame = frame.ok_or_else(|| lost("the stream ended"))?.map_err(|error| lost(&error.to_string()))?;
            if let Some(bytes) = frame.data_ref() {
                self.reader.push(bytes)?;
            }
        }
    }
}

/// What a line says beside what it is.
#[derive(Debug, Deserialize)]
struct Position {
    after: Option<String>,
}

/// Makes events of bytes, however these are split.
#[derive(Debug, Default)]
struct BlockReader {
    /// What came and holds no whole line yet, from `start` on.
    bytes: Vec<u8>,
    start: usize,
    id: Option<String>,
    data: Option<String>,
}

impl BlockReader {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.bytes.drain(..self.start);
        self.start = 0;
        let held = self.bytes.len() + self.data.as_ref().map_or(0, String::len);
        if held + bytes.len() > BLOCK_BYTES_MAX {
            return Err(Ended::Refused(format!("the server sent an event of more than {BLOCK_BYTES_MAX} bytes")));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole event, if it is there.
    fn next(&mut self, way: Way) -> Option<Block> {
        loop {
            let rest = self.bytes.get(self.start..)?;
            let length = rest.iter().position(|byte| *byte == b'\n')?;
            let line = String::from_utf8_lossy(rest.get(..length)?).into_owned();
            self.start += length + 1;
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if way == Way::Lines && !line.is_empty() {
                let id = serde_json::from_str(line).ok().and_then(|Position { after }| after);
                return Some(Block { id, data: line.to_owned() });
            }
            if line.is_empty() {
                let id = self.id.take();
                if let Some(data) = self.data.take() {
                    return Some(Block { id, data });
                }
                continue;
            }
            self.field(line);
        }
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (name, &mut self.data) {
            ("id", _) => self.id = Some(value.to_owned()),
            ("data", Some(data)) => {
                data.push('\n');
                data.push_str(value);
            }
            ("data", data) => *data = Some(value.to_owned()),
            // The object says itself what it is, and how long to wait before the next attempt is our own to decide.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_however_they_are_split() {
        let text = ": hello\n\nretry: 500\n\nid: e~1.2\ndata: {\"a\":\ndata: 1}\n\nevent: gap\r\ndata:{}\r\n\r\nid: e~1.3\n\ndata: é\n\n";
        let expected = [
            Block { id: Some("e~1.2".into()), data: "{\"a\":\n1}".into() },
            Block { id: None, data: "{}".into() },
            Block { id: None, data: "é".into() },
        ];
        for size in 1..text.len() {
            let mut reader = BlockReader::default();
            let mut blocks = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                reader.push(piece).unwrap();
                blocks.extend(std::iter::from_fn(|| reader.next(Way::EventStream)));
            }
            assert_eq!(blocks, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn lines_are_read_past_heartbeats_and_say_where_they_are() {
        let text = "\n{\"op\":\"gap\"}\n\n\n{\"data\":\"é\",\"after\":\"e~1.2\"}\n";
        for size in 1..text.len() {
            let mut reader = BlockReader::default();
            let mut blocks = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                reader.push(piece).unwrap();
                blocks.extend(std::iter::from_fn(|| reader.next(Way::Lines)));
            }
            let found: Vec<_> = blocks.iter().map(|block| (block.id.as_deref(), block.data.as_str())).collect();
            let expected = [(None, "{\"op\":\"gap\"}"), (Some("e~1.2"), "{\"data\":\"é\",\"after\":\"e~1.2\"}")];
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn an_endless_block_is_refused() {
        let mut reader = BlockReader::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..100).any(|_| matches!(reader.push(&piece), Err(Ended::Refused(_))));
        assert!(refused && reader.bytes.len() <= BLOCK_BYTES_MAX);
    }
}
