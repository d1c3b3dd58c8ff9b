//! One connection to the broker: opening it, telling that it is gone, closing it. The library's automatic recovery stays
//! off: three ways in which it waits for ever were seen, so whatever fails here is dropped whole and opened anew.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::config::Amqp;
use crate::source::Trouble;

use super::inspect::Returned;
use super::wire::{FRAME_BYTES_MAX, Kit, Life, Socket, Wire};
use super::words::{self, Peer};

/// How long a proper goodbye may take. A blocked connection can never say one.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long any single question to the broker may take before the connection counts as dead.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// An open connection.
#[derive(Debug)]
pub(crate) struct Live {
    connection: Connection,
    /// Whom it leads to.
    pub(crate) peer: Peer,
    /// Ids of publishes that came back on it.
    pub(crate) returned: Returned,
    /// Ends it, and tells its end.
    pub(crate) life: Life,
    /// Why the broker takes nothing at present; kept by whoever keeps the link.
    pub(crate) blocked: watch::Sender<Option<String>>,
    /// The largest payload that the broker takes, as far as it has said.
    payload_bytes_max: AtomicUsize,
}

impl Live {
    /// Whether it stands, as far as is known.
    pub(crate) fn is_alive(&self) -> bool {
        self.connection.status().connected() && !self.life.gone.is_cancelled()
    }

    /// Whether the broker has refused anything on it.
    pub(crate) fn has_refused(&self) -> bool {
        self.life.closed.count() > 0
    }

    /// Whether it has lost half of the channels that it may have, so that another one should take its place.
    pub(crate) fn is_worn(&self) -> bool {
        self.life.closed.count() >= usize::from(self.connection.configuration().channel_max() / 2).max(1)
    }

    /// Bytes of a frame that both sides take, as they have agreed.
    pub(crate) fn frame_bytes_max(&self) -> usize {
        usize::try_from(self.connection.configuration().frame_max()).unwrap_or(usize::MAX)
    }

    /// Bytes of a payload that the broker takes: it cannot be asked, so all of them until it has refused a larger one.
    pub(crate) fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max.load(Ordering::Relaxed)
    }

    /// Learns from a refusal what the broker takes. Another broker of a cluster, behind another connection, may take more.
    pub(crate) fn note(&self, refusal: &lapin::Error) {
        let Some(bytes) = words::payload_bytes_max(refusal) else { return };
        if self.payload_bytes_max.swap(bytes, Ordering::Relaxed) != bytes {
            tracing::warn!(
                "RabbitMQ takes payloads of at most {bytes} bytes: lower limits.message_bytes_max, or raise its \
                 max_message_size"
            );
        }
    }

    /// Waits until the broker takes something, as far as is known.
    pub(crate) async fn unblocked(&self) {
        // The sender is ours.
        let _ = self.blocked.subscribe().wait_for(Option::is_none).await;
    }

    /// What happens to it.
    pub(crate) fn events(&self) -> impl futures_util::Stream<Item = lapin::Event> + Send + 'static {
        self.connection.events_listener()
    }

    /// A new channel.
    ///
    /// # Errors
    /// When the connection is gone, is blocked, or has as many as the broker allows.
    pub(crate) async fn channel(&self) -> Result<Channel, Trouble> {
        let opened = tokio::time::timeout(ANSWER_TIMEOUT, self.open_channel()).await;
        let failed =
            |why: &dyn std::fmt::Display| Trouble(format!("cannot open a channel at {}: {why}", self.peer.address));
        match opened {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(failed(&words::quoted(&error))),
            Err(_) if self.blocked.borrow().is_some() => Err(failed(&"the broker takes nothing now")),
            Err(_) => {
                // Nobody who is alive takes so long; whoever keeps the link opens a new one.
                self.life.kill.cancel();
                Err(failed(&"no answer"))
            }
        }
    }

    /// A number whose channel the broker has closed is spoilt for good in the library: who gets it again, when all have been
    /// used, is told why the broker closed that one. So the next is taken, and when all are spoilt a new connection.
    async fn open_channel(&self) -> lapin::Result<Channel> {
        loop {
            match self.connection.create_channel().await {
                Err(error) if words::refusal(&error).is_some() => {}
                Err(error) if self.has_refused() && is_limit(&error) => {
                    self.life.kill.cancel();
                    return Err(error);
                }
                opened => return opened,
            }
        }
    }

    /// Says goodbye if the broker listens, and ends it in any case.
    pub(crate) async fn close(&self) {
        // What fails here is ended by the switch below.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.connection.close(200, "OK".into())).await;
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.life.gone.cancelled()).await;
        self.life.kill.cancel();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // The library's thread must not outlive whoever uses it, whatever it waits for.
        self.life.kill.cancel();
    }
}

/// Whether all channels that there may be are there.
fn is_limit(error: &lapin::Error) -> bool {
    matches!(error.kind(), lapin::ErrorKind::ChannelsLimitReached)
}

/// Opens a connection to the first address that lets us in; the broker shows its purpose in its name.
///
/// # Errors
/// When none does: what each of them said.
pub(crate) async fn connect(settings: &Amqp, purpose: &str) -> Result<Live, Trouble> {
    let mut troubles = Vec::new();
    for url in &settings.urls {
        match connect_to(settings, url.reveal(), purpose).await {
            Ok(live) => return Ok(live),
            Err(trouble) => troubles.push(trouble.0),
        }
    }
    if troubles.is_empty() {
        troubles.push("no RabbitMQ configured: set amqp.url, PASSERELLE_AMQP__URL or --amqp".into());
    }
    Err(Trouble(troubles.join("; ")))
}

async fn connect_to(settings: &Amqp, url: &str, purpose: &str) -> Result<Live, Trouble> {
    let uri = parse(settings, url)?;
    let peer = Peer {
        address: format!("{}:{}", uri.authority.host, uri.authority.port),
        vhost: uri.vhost.clone(),
        user: uri.authority.userinfo.username.clone(),
    };
    let life = Life::default();
    let attempt = async {
        let socket = open_socket(settings, &uri, &peer).await?;
        handshake(socket, uri, Attempt { peer: &peer, life: &life, purpose, node: &settings.node }).await
    };
    match tokio::time::timeout(settings.connect_timeout, attempt).await {
        Ok(result) => result,
        Err(_) => {
            life.kill.cancel();
            Err(words::of_socket(&io::ErrorKind::TimedOut.into(), &peer))
        }
    }
}

fn parse(settings: &Amqp, url: &str) -> Result<AMQPUri, Trouble> {
    let mut uri: AMQPUri = url.parse().map_err(|error| Trouble(format!("amqp.url is no AMQP address: {error}")))?;
    if let Some(host) = ipv6_host(url) {
        uri.authority.host = host.to_owned();
    }
    uri.query.heartbeat = Some(u16::try_from(settings.heartbeat.as_secs()).unwrap_or(u16::MAX));
    uri.query.frame_max = Some(FRAME_BYTES_MAX);
    Ok(uri)
}

/// The address within the brackets, which the library's parser passes over.
fn ipv6_host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let host = authority.rsplit('@').next()?;
    host.strip_prefix('[')?.split_once(']').map(|(host, _)| host)
}

async fn open_socket(settings: &Amqp, uri: &AMQPUri, peer: &Peer) -> Result<Socket, Trouble> {
    let host = uri.authority.host.as_str();
    let connected = TcpStream::connect((host, uri.authority.port)).await;
    let stream = connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    let stream = stream.map_err(|error| words::of_socket(&error, peer))?;
    match uri.scheme {
        AMQPScheme::AMQP => Ok(Socket::Plain(stream)),
        AMQPScheme::AMQPS => Ok(Socket::Tls(Box::new(super::tls::handshake(settings, host, stream).await?))),
    }
}

/// What one attempt to connect is about.
struct Attempt<'a> {
    peer: &'a Peer,
    life: &'a Life,
    purpose: &'a str,
    node: &'a str,
}

async fn handshake(socket: Socket, uri: AMQPUri, attempt: Attempt<'_>) -> Result<Live, Trouble> {
    let returned = Returned::default();
    let wire = Wire::new(socket, returned.clone(), attempt.life.clone());
    // The library may ask twice; there is one socket, and an attempt is made anew from above.
    let wire = Mutex::new(Some(wire));
    let take = async move |_: AMQPUri, _: async_rs::Runtime<Kit>| {
        let taken = wire.lock().ok().and_then(|mut wire| wire.take());
        taken.map(AsyncTcpStream::Plain).ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted).into())
    };
    let name = format!("passerelle {} {}", attempt.node, attempt.purpose);
    let properties = ConnectionProperties::default()
        .with_client_property("product".into(), "passerelle".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into())
        .with_connection_name(name.into());
    let runtime = async_rs::Runtime::new(Kit::current());
    let connected = Connection::connector(uri, runtime, take, properties).await;
    let connection = connected.map_err(|error| words::of_connect(&error, attempt.peer))?;
    let (peer, life, blocked) = (attempt.peer.clone(), attempt.life.clone(), watch::Sender::new(None));
    Ok(Live { connection, peer, returned, life, blocked, payload_bytes_max: AtomicUsize::new(usize::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_brackets_are_taken_as_they_stand() {
        assert_eq!(ipv6_host("amqp://u:p%5B@[::1]:5672/%2f"), Some("::1"));
        assert_eq!(ipv6_host("amqp://[fe80::2]"), Some("fe80::2"));
        assert_eq!(ipv6_host("amqp://u:p@127.0.0.1:5672/[x]"), None);
        assert_eq!(ipv6_host("amqp://localhost"), None);
    }

    #[test]
    fn our_heartbeat_and_frame_size_are_asked_for() {
        let uri = parse(&Amqp::default(), "amqp://u:p@h:1/v?heartbeat=999").unwrap();
        assert_eq!((uri.query.heartbeat, uri.query.frame_max), (Some(20), Some(FRAME_BYTES_MAX)));
    }

    #[tokio::test]
    async fn without_any_address_the_key_is_named() {
        let trouble = connect(&Amqp::default(), "consume").await.err().unwrap();
        assert!(trouble.0.contains("amqp.url"), "{trouble}");
    }
}
