//! Heartbeats of who reads nothing for a while.

use super::*;

/// More than a client with small buffers takes, and less than the kernel keeps for it.
const KEPT_BYTES: usize = 100 << 10;

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
