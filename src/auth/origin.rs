//! Whom the public listener lets in before anybody has said who they are: which origins (contract, section 3) and who
//! without a token (section 2). Pure: configuration and header values in, verdicts out.

use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::{Grants, Identity};
use crate::config::Settings;

/// Said to who comes without a token where that is for this machine only.
pub const ANONYMOUS_IS_LOCAL: &str =
    "anonymous access is for this machine only: set auth.anonymous = true or send a token";

/// Said to who comes without a token where nobody may.
pub const ANONYMOUS_IS_OFF: &str = "anonymous access is off: send a token";

/// Bytes of an origin that are repeated in a log line.
const LOGGED_BYTES_MAX: usize = 200;

/// What a request says about where it comes from and where it believes to go.
///
/// Behind a trusted proxy `host` and `scheme` are what the proxy says that it was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// The header `Origin`; none when the client is no browser.
    pub origin: Option<&'a str>,
    /// The header `Host`, or what a trusted proxy forwarded in its place.
    pub host: Option<&'a str>,
    /// How the client reached this server, or the trusted proxy before it.
    pub scheme: Scheme,
    /// Whether any header says that somebody stands in between; see [`tells_of_a_proxy`].
    pub proxied: bool,
}

/// The scheme of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS.
    Https,
}

/// Whether a header of this name is written by proxies only.
pub fn tells_of_a_proxy(header: &str) -> bool {
    let name = header.to_ascii_lowercase();
    // X-Real-IP is not of the contract, but is how many an nginx is configured, and it means the same.
    matches!(name.as_str(), "forwarded" | "via" | "x-real-ip") || name.starts_with("x-forwarded-")
}

/// Whether nothing of this server can be reached from another machine.
pub fn everything_on_loopback(settings: &Settings) -> bool {
    settings.exposed().is_none()
}

/// Which origins are let in.
#[derive(Debug, Clone)]
pub struct Origins {
    allowed: Vec<Allowed>,
    /// Any origin of this machine is as good as the same one.
    loopback: bool,
}

/// One entry of `server.allowed_origins`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Allowed {
    /// The origin of sandboxed pages and files.
    Null,
    /// Scheme, host and port.
    Site(Site),
}

/// An origin (RFC 6454): scheme and host in lower case, the port told even when it is the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Site {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origins {
    /// The rule of a configuration. Entries that are no origins let nobody in; `check` names them.
    pub fn new(settings: &Settings) -> Self {
        let entries = settings.server.allowed_origins.iter();
        let allowed = entries.filter_map(|entry| match entry.as_str() {
            "null" => Some(Allowed::Null),
            site => Site::parse(site).map(Allowed::Site),
        });
        Self { allowed: allowed.collect(), loopback: everything_on_loopback(settings) }
    }

    /// Lets a request in, or says what to log beside its 403.
    ///
    /// # Errors
    /// The line for the log, which names the key to change.
    pub fn admit(&self, visit: Visit<'_>) -> Result<(), String> {
        let Some(origin) = visit.origin else { return Ok(()) };
        if self.allows(origin, visit) {
            return Ok(());
        }
        let shown = origin.get(..origin.floor_char_boundary(LOGGED_BYTES_MAX)).unwrap_or(origin);
        Err(format!("refused origin {}: add it to server.allowed_origins", shown.escape_debug()))
    }

    fn allows(&self, origin: &str, visit: Visit<'_>) -> bool {
        if origin == "null" {
            return self.allowed.contains(&Allowed::Null);
        }
        let Some(site) = Site::parse(origin) else { return false };
        let is_same = visit.host.and_then(|host| Site::addressed(visit.scheme, host)).is_some_and(|own| own == site);
        let is_local = self.loopback && site.is_web() && is_loopback_name(&site.host);
        is_same || is_local || self.allowed.contains(&Allowed::Site(site))
    }
}

impl Site {
    fn parse(origin: &str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
        let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if scheme.is_empty() || !is_scheme {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = host_and_port(authority)?;
        let port = port.or_else(|| default_port(&scheme));
        Some(Self { scheme, host, port })
    }

    /// The origin that a request was addressed to.
    fn addressed(scheme: Scheme, host: &str) -> Option<Self> {
        let scheme = match scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let (host, port) = host_and_port(host)?;
        Some(Self { scheme: scheme.into(), host, port: port.or_else(|| default_port(scheme)) })
    }

    fn is_web(&self) -> bool {
        self.scheme == "http" || self.scheme == "https"
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Splits `host[:port]`, brackets of an IPv6 address included in the host; nothing else may be in it.
fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let bracket = authority.find(']').map_or(0, |position| position + 1);
    let (host, port) = match authority.get(bracket..)?.find(':') {
        Some(colon) => {
            let digits = authority.get(bracket + colon + 1..)?;
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            (authority.get(..bracket + colon)?, Some(digits.parse().ok()?))
        }
        None => (authority, None),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%[]:".contains(&byte) || !byte.is_ascii();
    (!host.is_empty() && host.bytes().all(is_host)).then(|| (host.to_lowercase(), port))
}

fn is_loopback_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.ends_with(".localhost") || address.parse().is_ok_and(is_loopback)
}

/// Whether an address is this machine's own, an IPv4 address in IPv6 clothes included.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Who comes without a token: whether, and with which rights.
#[derive(Debug, Clone)]
pub struct AnonymousRule {
    /// As configured; not configured means this machine only.
    listen: Option<bool>,
    /// Nothing can be reached from elsewhere.
    loopback: bool,
    /// One for all of them.
    identity: Arc<Identity>,
}

impl AnonymousRule {
    /// The rule of a configuration.
    pub fn new(settings: &Settings) -> Self {
        let publish = settings.auth.anonymous_publish.unwrap_or(settings.embedded.is_some());
        let grants = Grants { subscribe: true, publish, consume: publish };
        let identity = Arc::new(Identity { user: None, expires_at: None, grants });
        Self { listen: settings.auth.anonymous, loopback: everything_on_loopback(settings), identity }
    }

    /// Lets somebody without a token in, or says why not.
    ///
    /// # Errors
    /// A sentence of at most 123 bytes, for the close frame with 4401.
    pub fn admit(&self, visit: Visit<'_>) -> Result<Arc<Identity>, &'static str> {
        match self.listen {
            Some(true) => Ok(self.identity.clone()),
            Some(false) => Err(ANONYMOUS_IS_OFF),
            None if self.loopback && !visit.proxied && is_addressed_here(visit.host) => Ok(self.identity.clone()),
            None => Err(ANONYMOUS_IS_LOCAL),
        }
    }
}

/// Whether `Host` names this machine; any other name may be one that somebody made point here (DNS rebinding).
fn is_addressed_here(host: Option<&str>) -> bool {
    host.and_then(host_and_port).is_some_and(|(host, _)| is_loopback_name(&host))
}

#[cfg(test)]
mod tests;
