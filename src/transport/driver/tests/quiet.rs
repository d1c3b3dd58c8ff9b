//! Heartbeats of who was sent nothing for a while, and of who reads nothing for a while.

use std::io::ErrorKind;

use super::*;

/// More than a client with small buffers takes, and less than the kernel keeps for it.
const KEPT_BYTES: usize = 100 << 10;

/// At a moment at which it is alive it is told this, and nothing else: 1 is a position in a text, 9 a ping.
fn told(bench: &mut Bench, client: &mut TcpStream, at: Instant, opcodes: &[u8]) {
    bench.connection().heard = true;
    bench.driver.rounds(at);
    let frames: Vec<(u8, String)> = opcodes.iter().map(|_| frame(client)).collect();
    assert!(frames.iter().map(|(opcode, _)| opcode).eq(opcodes), "{frames:?}");
    assert!(frames.iter().all(|(opcode, text)| *opcode == 9 || text.contains("\"position\"")), "{frames:?}");
    client.set_nonblocking(true).unwrap();
    assert!(client.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "there is more");
    client.set_nonblocking(false).unwrap();
}

/// Has it be told something at a moment, as far as time is concerned.
fn tell(bench: &mut Bench, at: Instant) {
    let connection = bench.connection();
    (connection.sent, connection.sent_at) = (true, at);
}

#[test]
fn the_position_comes_a_heartbeat_after_the_last_message() {
    let mut bench = Bench::new();
    let mut client = bench.join(None);
    let first = bench.driver.heartbeats.next().unwrap();
    let at = |heartbeats: f64| first + HEARTBEAT.mul_f64(heartbeats);
    tell(&mut bench, first - HEARTBEAT.mul_f64(0.5));
    told(&mut bench, &mut client, at(0.0), &[9]);
    assert_eq!(bench.driver.ticks.next(), Some(at(0.5)));
    told(&mut bench, &mut client, at(0.4), &[]);
    told(&mut bench, &mut client, at(0.5), &[1]);
    // Nothing but a position was told: both come together.
    told(&mut bench, &mut client, at(1.0), &[1, 9]);
    assert_eq!(bench.driver.ticks.next(), None);
    told(&mut bench, &mut client, at(2.0), &[1, 9]);
    tell(&mut bench, at(2.5));
    told(&mut bench, &mut client, at(3.0), &[9]);
    tell(&mut bench, at(3.2));
    // There was something meanwhile.
    told(&mut bench, &mut client, at(3.5), &[]);
    told(&mut bench, &mut client, at(4.0), &[9]);
    told(&mut bench, &mut client, at(4.2), &[1]);
}

/// All that waits may be with the kernel, which gives a peer up that takes nothing for two heartbeats.
#[test]
#[cfg(target_os = "linux")]
fn who_answered_and_then_reads_nothing_is_only_slow() {
    let mut bench = Bench::new();
    let client = bench.join(Some(STALLED_BUFFER_BYTES));
    let Socket::Tcp(server) = &bench.connection().socket else { panic!("no TCP") };
    SockRef::from(server).set_send_buffer_size(2 * KEPT_BYTES).unwrap();
    bench.feed.append(vec![draft("news", KEPT_BYTES)], 0);
    bench.serve();
    bench.wait_until_full(&client);
    let stall_timeout = bench.driver.shared.settings.limits.stall_timeout;
    let connection = bench.connection();
    connection.heard = true;
    assert!(connection.outbox.is_empty());
    bench.driver.rounds(Instant::now() + HEARTBEAT);
    let Socket::Tcp(server) = &bench.connection().socket else { panic!("no TCP") };
    assert_eq!(SockRef::from(server).tcp_user_timeout().unwrap(), Some(stall_timeout));
}
