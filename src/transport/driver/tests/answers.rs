//! Answers and messages wait for the same socket, but only answers make a client too slow.

use super::*;

/// Much more than answers may have.
const LARGE_BYTES: usize = 8 << 20;

/// A client that reads as it comes.
pub(super) struct Reader {
    pub(super) stream: TcpStream,
    read: Vec<u8>,
}

impl Reader {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Reads what has come, and has the driver send more.
    fn read_on(&mut self, bench: &mut Bench) {
        let mut chunk = [0; 64 << 10];
        while let Ok(count) = self.stream.read(&mut chunk) {
            assert!(count > 0, "the server hung up");
            self.read.extend_from_slice(&chunk[..count]);
        }
        bench.serve();
    }

    /// Reads on until the last that came is this.
    fn read_until(&mut self, bench: &mut Bench, last: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.read.ends_with(last.as_bytes()) {
            assert!(Instant::now() < deadline, "it does not come");
            self.read_on(bench);
        }
    }
}

/// A client with a large message on its way to it, which waits.
pub(super) fn loading() -> (Bench, Reader) {
    let mut bench = Bench::new();
    let client = bench.join(Some(STALLED_BUFFER_BYTES));
    bench.feed.append(vec![draft("large", LARGE_BYTES)], 0);
    bench.serve();
    let answers_max = bench.driver.outbox_bounds.bytes_max;
    assert!(bench.connection().outbox.bytes() > answers_max);
    (bench, Reader::new(client))
}

#[test]
fn who_loads_a_large_message_is_answered_meanwhile() {
    let (mut bench, mut client) = loading();
    for _ in 0..9 {
        say(&mut client.stream, 1, br#"{"op":"ping"}"#);
    }
    say(&mut client.stream, 1, br#"{"op":"ping","id":10}"#);
    client.read_until(&mut bench, r#"{"op":"pong","id":10}"#);
    assert!(bench.connection().is_open() && client.read.len() > LARGE_BYTES);
}

/// It comes to our pings only after the message: what the socket takes is the sign of its life.
#[test]
fn who_loads_for_longer_than_two_heartbeats_is_there() {
    let (mut bench, mut client) = loading();
    let mut now = Instant::now();
    for _ in 0..5 {
        let before = bench.connection().outbox.bytes();
        let deadline = Instant::now() + PATIENCE;
        while bench.connection().outbox.bytes() > before - (256 << 10) {
            assert!(Instant::now() < deadline, "it takes nothing");
            client.read_on(&mut bench);
        }
        now += HEARTBEAT;
        bench.driver.rounds(now);
        assert!(bench.connection().is_open() && bench.connection().silent == 0);
    }
    say(&mut client.stream, 1, br#"{"op":"ping","id":1}"#);
    client.read_until(&mut bench, r#"{"op":"pong","id":1}"#);
}
