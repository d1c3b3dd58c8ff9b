//! The gate: who a request comes from and whether it is let in, before anything is opened for it. Forwarded addresses are
//! believed from configured proxies only. It decides nothing about what a session may do later.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, FORWARDED, HOST, ORIGIN};
use http::{HeaderMap, Request, StatusCode};
use percent_encoding::percent_decode_str;

use crate::auth::Identity;
use crate::auth::origin::{AnonymousRule, Origins, Scheme, Visit, tells_of_a_proxy};
use crate::config::Settings;
use crate::transport::http::{Answer, refuse};

/// What somebody with a token is told while there is no way to check one.
pub(crate) const NO_TOKENS: &str = "this server checks no tokens yet: connect without one";

/// The rules of a configuration, made once.
#[derive(Debug)]
pub(crate) struct Gate {
    origins: Origins,
    anonymous: AnonymousRule,
}

/// What a request says about its sender.
#[derive(Debug)]
pub(crate) struct Visitor {
    /// The client's address, a trusted proxy's word included; none on a Unix socket without a proxy's word.
    pub(crate) address: Option<IpAddr>,
    /// The header `Origin`, for the answer's `Access-Control-Allow-Origin`.
    pub(crate) origin: Option<String>,
    host: Option<String>,
    scheme: Scheme,
    proxied: bool,
    /// Whether the request brought a token, wherever it had put it.
    has_token: bool,
}

impl Gate {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { origins: Origins::new(settings), anonymous: AnonymousRule::new(settings) }
    }

    /// Whether pages of this origin may come here at all.
    ///
    /// # Errors
    /// The answer: 403, with a line in the log that names the key to change.
    pub(crate) fn admit_origin(&self, visitor: &Visitor) -> Result<(), Box<Answer>> {
        self.origins.admit(visitor.visit()).map_err(|line| {
            tracing::warn!(address = visitor.address.map(tracing::field::display), "{line}");
            Box::new(refuse(
                StatusCode::FORBIDDEN,
                "pages of this origin may not connect: the server's log says what to change",
            ))
        })
    }

    /// Likewise, without a word.
    pub(crate) fn admits_origin(&self, visitor: &Visitor) -> bool {
        self.origins.admit(visitor.visit()).is_ok()
    }

    /// Who it is, as far as the request tells.
    ///
    /// # Errors
    /// A sentence of at most 123 bytes for whoever has to say who they are first.
    pub(crate) fn identify(&self, visitor: &Visitor) -> Result<Arc<Identity>, &'static str> {
        if visitor.has_token {
            return Err(NO_TOKENS);
        }
        self.anonymous.admit(visitor.visit())
    }
}

impl Visitor {
    /// Reads a request's head.
    pub(crate) fn of<B>(request: &Request<B>, peer: Option<IpAddr>, settings: &Settings) -> Self {
        let headers = request.headers();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let trusted =
            |address: IpAddr| settings.server.trusted_proxies.iter().any(|net| net.contains(&address.to_canonical()));
        let by_proxy = peer.is_none_or(trusted);
        let forwarded = if by_proxy { Forwarded::of(headers) } else { Forwarded::default() };
        let address = forwarded.addresses.iter().rev().copied().find(|address| !trusted(*address)).or(peer);
        Self {
            address,
            origin: text(ORIGIN),
            host: forwarded.host.or_else(|| text(HOST)).or_else(|| request.uri().authority().map(ToString::to_string)),
            scheme: forwarded.scheme.unwrap_or(Scheme::Http),
            proxied: headers.keys().any(|name| tells_of_a_proxy(name.as_str())),
            has_token: has_token(request),
        }
    }

    fn visit(&self) -> Visit<'_> {
        Visit { origin: self.origin.as_deref(), host: self.host.as_deref(), scheme: self.scheme, proxied: self.proxied }
    }
}

fn has_token<B>(request: &Request<B>) -> bool {
    let bearer = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    bearer.is_some_and(|value| value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer ")))
        || query(request.uri().query()).any(|(name, _)| name == "token")
}

/// What proxies say about a request: `Forwarded` (RFC 7239), or `X-Forwarded-*` where that is absent.
#[derive(Debug, Default)]
struct Forwarded {
    /// From the client to the last proxy.
    addresses: Vec<IpAddr>,
    host: Option<String>,
    scheme: Option<Scheme>,
}

impl Forwarded {
    fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(FORWARDED) { Self::standard(headers) } else { Self::customary(headers) }
    }

    fn standard(headers: &HeaderMap) -> Self {
        let mut forwarded = Self::default();
        for element in elements(headers, FORWARDED.as_str()) {
            for (name, value) in unquoted(&element, ';').filter_map(|pair| pair.split_once('=')) {
                let value = value.trim().trim_matches('"');
                match name.trim().to_ascii_lowercase().as_str() {
                    "for" => forwarded.addresses.extend(node_address(value)),
                    // As the client asked the first proxy, not as one proxy asked the next.
                    "host" => drop(forwarded.host.get_or_insert_with(|| value.to_owned())),
                    "proto" => forwarded.scheme = forwarded.scheme.or_else(|| scheme(value)),
                    _ => {}
                }
            }
        }
        forwarded
    }

    fn customary(headers: &HeaderMap) -> Self {
        Self {
            addresses: elements(headers, "x-forwarded-for").filter_map(|value| node_address(&value)).collect(),
            host: elements(headers, "x-forwarded-host").next(),
            scheme: elements(headers, "x-forwarded-proto").next().and_then(|value| scheme(&value)),
        }
    }
}

/// The parts of a text between separators that stand in no quoted string (RFC 9110, section 5.6.4).
fn unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |character| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match character {
            '"' if !was_escaped => is_quoted = !is_quoted,
            '\\' if is_quoted && !was_escaped => is_escaped = true,
            _ => {}
        }
        character == separator && !is_quoted
    })
}

/// The comma-separated elements of a field, over all its lines.
fn elements(headers: &HeaderMap, name: &str) -> impl Iterator<Item = String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let elements: Vec<String> =
        values.flat_map(|value| unquoted(value, ',')).map(|element| element.trim().to_owned()).collect();
    elements.into_iter()
}

/// An address with or without a port and brackets.
fn node_address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    text.parse().ok().or_else(|| {
        let host = match text.strip_prefix('[') {
            Some(rest) => rest.split(']').next()?,
            None => text.rsplit_once(':')?.0,
        };
        host.parse().ok()
    })
}

fn scheme(text: &str) -> Option<Scheme> {
    match text.to_ascii_lowercase().as_str() {
        "https" | "wss" => Some(Scheme::Https),
        "http" | "ws" => Some(Scheme::Http),
        _ => None,
    }
}

/// The pairs of a query, decoded; what is not UTF-8 is left out.
pub(crate) fn query(query: Option<&str>) -> impl Iterator<Item = (String, String)> + '_ {
    query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(name)?, decode(value)?))
    })
}

/// Whether every pair of a query is UTF-8, so that none is left out.
pub(crate) fn is_readable(text: Option<&str>) -> bool {
    text.unwrap_or_default().split(['&', '=']).all(|part| decode(part).is_some())
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri("/ws");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn visitor(settings: &Settings, peer: &str, headers: &[(&str, &str)]) -> Visitor {
        Visitor::of(&request(headers), Some(peer.parse().unwrap()), settings)
    }

    fn behind_proxy() -> Settings {
        let mut settings = Settings::default();
        settings.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        settings
    }

    #[test]
    fn forwarded_addresses_are_believed_from_configured_proxies_only() {
        let headers = [("x-forwarded-for", "203.0.113.9, 10.0.0.7"), ("x-forwarded-proto", "https")];
        let believed = visitor(&behind_proxy(), "10.0.0.1", &headers);
        assert_eq!(believed.address, Some("203.0.113.9".parse().unwrap()));
        assert_eq!(believed.scheme, Scheme::Https);
        let stranger = visitor(&behind_proxy(), "198.51.100.1", &headers);
        assert_eq!(stranger.address, Some("198.51.100.1".parse().unwrap()));
        assert_eq!(stranger.scheme, Scheme::Http);
        assert!(stranger.proxied);
    }

    #[test]
    fn an_address_before_the_first_proxy_of_ours_is_a_claim() {
        let headers = [("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.7")];
        assert_eq!(visitor(&behind_proxy(), "10.0.0.1", &headers).address, Some("203.0.113.9".parse().unwrap()));
    }

    #[test]
    fn the_standard_field_is_read_with_ports_and_brackets() {
        let headers = [("forwarded", "for=\"[2001:db8::1]:4711\";proto=https;host=example.org, for=10.0.0.3:80")];
        let visitor = visitor(&behind_proxy(), "10.0.0.1", &headers);
        assert_eq!(visitor.address, Some("2001:db8::1".parse().unwrap()));
        assert_eq!(visitor.host.as_deref(), Some("example.org"));
    }

    #[test]
    fn of_several_proxies_the_first_says_what_the_client_asked_for() {
        let chain = "for=203.0.113.5;host=public.example;proto=https, for=10.0.0.3;host=internal;proto=http";
        let visitor = visitor(&behind_proxy(), "10.0.0.1", &[("forwarded", chain)]);
        assert_eq!((visitor.host.as_deref(), visitor.scheme), (Some("public.example"), Scheme::Https));
        assert_eq!(visitor.address, Some("203.0.113.5".parse().unwrap()));
    }

    #[test]
    fn what_is_quoted_is_no_element_of_its_own() {
        let quoted = r#"for="_hidden, for=6.6.6.6";host="a\";for=7.7.7.7", for=203.0.113.5"#;
        let visitor = visitor(&behind_proxy(), "10.0.0.1", &[("forwarded", quoted)]);
        assert_eq!(visitor.address, Some("203.0.113.5".parse().unwrap()));
        let only = [("forwarded", r#"for="_hidden, for=6.6.6.6""#)];
        assert_eq!(
            super::Visitor::of(&request(&only), Some([10, 0, 0, 1].into()), &behind_proxy()).address,
            Some([10, 0, 0, 1].into())
        );
    }

    #[test]
    fn queries_are_decoded_pair_by_pair() {
        let pairs: Vec<_> = query(Some("pattern=a.%23&pattern=b+c&x&&y=%ff")).collect();
        let expected = [("pattern", "a.#"), ("pattern", "b c"), ("x", "")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(is_readable(Some("pattern=%c3%a9&x")) && is_readable(None));
        assert!(!is_readable(Some("pattern=a&y=%ff")) && !is_readable(Some("%ff=a")));
    }
}
