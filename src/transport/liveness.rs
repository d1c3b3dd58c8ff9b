//! Asks the kernel how it stands with a peer that takes nothing: whether it is there and does not read, or is silent.
//!
//! A connection whose data waits looks the same from above in both cases, and both outlast two heartbeats: the one is to
//! be kept, for it may read on, the other is to be freed. The kernel knows: it either probes a closed window or sends
//! again what was never acknowledged. It is asked over a netlink socket (sock_diag(7)), which needs no privilege.

use std::net::SocketAddr;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;

#[cfg(target_os = "linux")]
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

/// Probes of a closed window in a row that nobody answered, after which the peer counts as silent.
const UNANSWERED_MAX: u8 = 3;

/// How it stands with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// It has acknowledged everything that was sent and takes no more: its reader is slow.
    Full,
    /// It does not answer, or takes what is sent; then the kernel's own timers see to it.
    Other,
}

/// The way to ask, where there is one.
#[derive(Debug)]
pub(crate) struct Liveness {
    #[cfg(target_os = "linux")]
    kernel: Option<OwnedFd>,
}

impl Liveness {
    /// Opens the way.
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            kernel: socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                Some(netlink::SOCK_DIAG),
            )
            .ok(),
        }
    }

    /// How it stands with the peer of a TCP connection. Where the system cannot be asked: [`Peer::Other`].
    #[cfg(target_os = "linux")]
    pub(crate) fn of(&self, local: SocketAddr, remote: SocketAddr) -> Peer {
        self.ask(local, remote).unwrap_or(Peer::Other)
    }

    /// How it stands with the peer of a TCP connection: nobody can be asked here.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of(&self, _: SocketAddr, _: SocketAddr) -> Peer {
        Peer::Other
    }

    #[cfg(target_os = "linux")]
    fn ask(&self, local: SocketAddr, remote: SocketAddr) -> Option<Peer> {
        let kernel = self.kernel.as_ref()?;
        send(kernel, &question(local, remote), SendFlags::empty()).ok()?;
        // The kernel answers within the call that asks.
        let mut buffer = [0; 1024];
        let (_, length) = recv(kernel, &mut buffer[..], RecvFlags::empty()).ok()?;
        answer(buffer.get(..length)?)
    }
}

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// Bytes of `struct nlmsghdr`.
const HEAD_BYTES: usize = 16;
/// Bytes of the head and `struct inet_diag_req_v2` of `linux/inet_diag.h`.
const QUESTION_BYTES: usize = HEAD_BYTES + 56;
/// `idiag_timer` while a closed window is probed.
const TIMER_PROBES: u8 = 4;

/// A request for one socket, by its addresses.
fn question(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(QUESTION_BYTES);
    bytes.extend((QUESTION_BYTES as u32).to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(1u16.to_ne_bytes()); // NLM_F_REQUEST
    bytes.extend([0; 8]); // sequence and port: one question at a time
    bytes.extend([if local.is_ipv4() { 2 } else { 10 }, TCP, 0, 0]); // AF_INET or AF_INET6, no extensions
    bytes.extend(u32::MAX.to_ne_bytes()); // in any state
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    for address in [local, remote] {
        match address {
            SocketAddr::V4(address) => bytes.extend([&address.ip().octets()[..], &[0; 12]].concat()),
            SocketAddr::V6(address) => bytes.extend(address.ip().octets()),
        }
    }
    bytes.extend(0u32.to_ne_bytes()); // any interface
    bytes.extend([0xff; 8]); // no cookie
    bytes
}

/// What `struct inet_diag_msg` says; nothing when it is an error.
fn answer(bytes: &[u8]) -> Option<Peer> {
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let (timer, unanswered) = (bytes.get(HEAD_BYTES + 2)?, bytes.get(HEAD_BYTES + 3)?);
    let full = kind == BY_FAMILY && *timer == TIMER_PROBES && *unanswered <= UNANSWERED_MAX;
    Some(if full { Peer::Full } else { Peer::Other })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    fn pair(host: std::net::IpAddr) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    fn state(liveness: &Liveness, server: &TcpStream) -> Peer {
        liveness.of(server.local_addr().unwrap(), server.peer_addr().unwrap())
    }

    #[test]
    fn a_peer_that_does_not_read_is_full_until_it_reads() {
        for host in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            let (mut server, mut client) = pair(host);
            let liveness = Liveness::new();
            assert_eq!(state(&liveness, &server), Peer::Other);
            server.set_nonblocking(true).unwrap();
            while server.write(&[0; 65_536]).is_ok() {}
            let end = Instant::now() + Duration::from_secs(20);
            while state(&liveness, &server) != Peer::Full {
                assert!(Instant::now() < end, "the window does not close");
                std::thread::yield_now();
            }
            client.set_nonblocking(true).unwrap();
            let mut buffer = vec![0; 1 << 20];
            while state(&liveness, &server) != Peer::Other {
                assert!(Instant::now() < end, "the window does not open");
                while client.read(&mut buffer).is_ok_and(|count| count > 0) {}
            }
        }
    }

    #[test]
    fn what_is_no_connection_is_not_full() {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        assert_eq!(Liveness::new().of(nowhere, nowhere), Peer::Other);
    }
}
