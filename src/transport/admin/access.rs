//! Who may ask the admin listener for what: names that a page in this machine's browser could have made to point here
//! are refused, and what is not for everybody is shown to this machine only. Pure: it reads heads of requests.

use std::net::{IpAddr, SocketAddr};

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Version, header};

/// Header fields that a proxy adds; behind one, a peer on loopback says nothing about where the request comes from.
const PROXY_FIELDS: [&str; 5] = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

const API_ELSEWHERE: &str = "the API is open to this machine only, because it asks for no token: ask it there, \
    at a loopback address such as 127.0.0.1:8081, or come by a tunnel";
const API_BY_PROXY: &str = "the API is open to this machine only, and this request came through a proxy: \
    ask it directly at the admin listener";
const API_FROM_PAGE: &str = "this cannot be asked for by a page: use a command such as curl";
const HOST_MISSING: &str = "exactly one Host header field is needed";

/// A refusal: its status and a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

/// Whether the request may be answered at all. On a loopback listener its host must be this machine's: a page that
/// had its own name resolve to 127.0.0.1 (DNS rebinding) sends that name.
pub(super) fn check_host(parts: &Parts, listen: SocketAddr) -> Result<(), Refusal> {
    let host = host_of(parts)?;
    if !listen.ip().is_loopback() {
        return Ok(());
    }
    match host {
        Some(host) if !names_this_machine(&host, listen.ip()) => {
            let sentence = format!("the host '{host}' is not this machine's: ask for http://{listen}");
            Err(Refusal(StatusCode::FORBIDDEN, sentence))
        }
        _ => Ok(()),
    }
}

/// Whether the API may be shown: to who comes from this machine and calls it by a name of its own, wherever the listener
/// listens.
pub(super) fn check_api(parts: &Parts, peer: IpAddr) -> Result<(), Refusal> {
    let peer = peer.to_canonical();
    let is_called_here = host_of(parts)?.is_none_or(|host| names_this_machine(&host, peer));
    if !peer.is_loopback() || !is_called_here {
        return Err(Refusal(StatusCode::FORBIDDEN, API_ELSEWHERE.to_owned()));
    }
    let headers = &parts.headers;
    if PROXY_FIELDS.iter().any(|field| headers.contains_key(*field)) {
        return Err(Refusal(StatusCode::FORBIDDEN, API_BY_PROXY.to_owned()));
    }
    Ok(())
}

/// Whether something may be done, not only shown: a page of any origin can send a POST, and browsers say that it did.
pub(super) fn check_caller(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Err(Refusal(StatusCode::FORBIDDEN, API_FROM_PAGE.to_owned()));
    }
    Ok(())
}

/// The host that was asked for, without its port; none only in HTTP/1.0, which no browser speaks
/// (RFC 9112, section 3.2).
fn host_of(parts: &Parts) -> Result<Option<String>, Refusal> {
    let wrong = || Refusal(StatusCode::BAD_REQUEST, HOST_MISSING.to_owned());
    if let Some(authority) = parts.uri.authority() {
        return Ok(Some(authority.host().to_owned()));
    }
    let mut fields = parts.headers.get_all(header::HOST).iter();
    match (fields.next(), fields.next()) {
        (None, _) if parts.version == Version::HTTP_10 => Ok(None),
        (Some(only), None) => {
            let authority = Authority::try_from(only.as_bytes()).map_err(|_| wrong())?;
            Ok(Some(authority.host().to_owned()))
        }
        _ => Err(wrong()),
    }
}

fn names_this_machine(host: &str, listen: IpAddr) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address == listen,
        Err(_) => bare.eq_ignore_ascii_case("localhost") || bare.to_ascii_lowercase().ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    const LOOPBACK: &str = "127.0.0.1:8081";

    fn parts(host: &str) -> Parts {
        Request::get("/metrics").header("host", host).body(()).unwrap().into_parts().0
    }

    fn status_of(host: &str, listen: &str) -> Option<StatusCode> {
        check_host(&parts(host), listen.parse().unwrap()).err().map(|refusal| refusal.0)
    }

    #[test]
    fn names_of_this_machine_are_answered() {
        for host in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "127.9.9.9", "[::1]:8081", "node.localhost"] {
            assert_eq!(status_of(host, LOOPBACK), None, "{host}");
        }
    }

    #[test]
    fn a_rebound_name_is_refused_on_loopback_only() {
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[fe80::1]"] {
            assert_eq!(status_of(host, LOOPBACK), Some(StatusCode::FORBIDDEN), "{host}");
            assert_eq!(status_of(host, "0.0.0.0:8081"), None, "{host}");
        }
    }

    #[test]
    fn the_target_s_own_authority_rules() {
        let request = Request::get("http://evil.example/metrics").header("host", "localhost").body(()).unwrap();
        let refusal = check_host(&request.into_parts().0, LOOPBACK.parse().unwrap()).unwrap_err();
        assert_eq!(refusal.0, StatusCode::FORBIDDEN);
    }

    #[test]
    fn a_request_names_one_host() {
        for host in ["", "a b", "http://localhost"] {
            assert_eq!(status_of(host, LOOPBACK), Some(StatusCode::BAD_REQUEST), "{host:?}");
        }
        let none = Request::get("/").body(()).unwrap().into_parts().0;
        assert!(check_host(&none, LOOPBACK.parse().unwrap()).is_err());
        let old = Request::get("/").version(Version::HTTP_10).body(()).unwrap().into_parts().0;
        assert_eq!(check_host(&old, LOOPBACK.parse().unwrap()), Ok(()));
        let two = Request::get("/").header("host", "localhost").header("host", "localhost").body(()).unwrap();
        assert!(check_host(&two.into_parts().0, LOOPBACK.parse().unwrap()).is_err());
    }

    #[test]
    fn a_page_may_do_nothing() {
        assert_eq!(check_caller(&HeaderMap::new()), Ok(()));
        for field in ["origin", "sec-fetch-site"] {
            let mut headers = HeaderMap::new();
            headers.insert(field, "null".parse().unwrap());
            assert!(check_caller(&headers).is_err(), "{field}");
        }
    }

    #[test]
    fn the_api_is_for_this_machine() {
        let is_shown = |host: &str, peer: &str| check_api(&parts(host), peer.parse().unwrap()).is_ok();
        for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(is_shown("localhost:8081", peer) && is_shown("127.0.0.1", peer), "{peer}");
            assert!(!is_shown("evil.example", peer) && !is_shown("10.0.0.1:8081", peer), "{peer}");
        }
        for peer in ["10.0.0.1", "fe80::1", "203.0.113.7"] {
            assert!(!is_shown("localhost", peer) && !is_shown(peer, peer), "{peer}");
        }
        for field in PROXY_FIELDS {
            let mut parts = parts("localhost");
            parts.headers.insert(field, "x".parse().unwrap());
            assert!(check_api(&parts, [127, 0, 0, 1].into()).is_err(), "{field}");
        }
    }
}
