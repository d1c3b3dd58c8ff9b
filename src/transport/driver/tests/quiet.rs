//! Heartbeats of who was sent nothing for a while, and of who reads nothing for a while.

use super::*;

/// More than a client with small buffers takes, and less than the kernel keeps for it.
const KEPT_BYTES: usize = 100 << 10;

/// The frames that have come: their opcodes and what they say.
fn frames(client: &mut TcpStream) -> Vec<(u8, String)> {
    let mut bytes = vec![0; 4096];
    client.set_nonblocking(true).unwrap();
    let count = client.read(&mut bytes).unwrap_or(0);
    client.set_nonblocking(false).unwrap();
    let (mut rest, mut frames) = (&bytes[..count], Vec::new());
    while let [first, length, after @ ..] = rest {
        let (payload, others) = after.split_at(usize::from(*length));
        frames.push((first & 0x0f, String::from_utf8(payload.to_vec()).unwrap()));
        rest = others;
    }
    frames
}

/// Its opcodes at a moment, at which it is alive: 1 is a text, 9 a ping.
fn told(bench: &mut Bench, client: &mut TcpStream, at: Instant) -> Vec<u8> {
    bench.connection().heard = true;
    bench.driver.rounds(at);
    let frames = frames(client);
    assert!(frames.iter().all(|(opcode, text)| *opcode == 9 || text.contains("\"position\"")), "{frames:?}");
    frames.into_iter().map(|(opcode, _)| opcode).collect()
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
    assert_eq!(told(&mut bench, &mut client, at(0.0)), [9]);
    assert_eq!(bench.driver.ticks.next(), Some(at(0.5)));
    assert_eq!(told(&mut bench, &mut client, at(0.4)), [0; 0]);
    assert_eq!(told(&mut bench, &mut client, at(0.5)), [1]);
    assert_eq!(told(&mut bench, &mut client, at(1.0)), [1, 9], "nothing but a position was told: both come together");
    assert_eq!(bench.driver.ticks.next(), None);
    assert_eq!(told(&mut bench, &mut client, at(2.0)), [1, 9]);
    tell(&mut bench, at(2.5));
    assert_eq!(told(&mut bench, &mut client, at(3.0)), [9]);
    tell(&mut bench, at(3.2));
    assert_eq!(told(&mut bench, &mut client, at(3.5)), [0; 0], "there was something meanwhile");
    assert_eq!(told(&mut bench, &mut client, at(4.0)), [9]);
    assert_eq!(told(&mut bench, &mut client, at(4.2)), [1]);
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
