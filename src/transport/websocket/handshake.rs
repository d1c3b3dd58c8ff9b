//! The opening handshake (RFC 6455, section 4.2): what a request asks for, or why it cannot have it, and the exact bytes
//! of the answer.
//!
//! It knows no path, no origin, no token and no subprotocol of ours: it says what was offered, others choose.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, HOST, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::deflate::Negotiated;

/// Subprotocols that one handshake may offer.
pub const PROTOCOLS_MAX: usize = 32;

/// What a valid request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept_key: String,
    /// The offered subprotocols, in the client's order of preference; at most [`PROTOCOLS_MAX`].
    pub protocols: Vec<String>,
    /// permessage-deflate, if an offer of it is acceptable. Leave it out of answer and reader to decline it.
    pub deflate: Option<Negotiated>,
}

/// Why a request is not upgraded, as an HTTP answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    /// The header fields that belong to it.
    pub headers: &'static [(HeaderName, &'static str)],
    /// Its body: a sentence that says what to do.
    pub message: &'static str,
}

impl Refusal {
    const fn bad_request(message: &'static str) -> Self {
        Refusal { status: StatusCode::BAD_REQUEST, headers: &[], message }
    }
}

/// Whether a request asks for a WebSocket at all: the question that decides who answers it.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket")
}

/// Judges a request.
///
/// # Errors
///
/// 405 for any method but GET, 426 for a plain request and for a version other than 13, 400 for the rest; each with a
/// sentence for whoever wrote the client.
pub fn examine(request: &Parts) -> Result<Upgrade, Refusal> {
    let headers = &request.headers;
    if request.method != Method::GET {
        let headers = &[(ALLOW, "GET")];
        let message = "a WebSocket handshake is a GET request";
        return Err(Refusal { status: StatusCode::METHOD_NOT_ALLOWED, headers, message });
    }
    if !is_upgrade(headers) {
        let headers = &[(CONNECTION, "Upgrade"), (UPGRADE, "websocket")];
        let message = "this is a WebSocket: connect with new WebSocket(url) or any WebSocket client";
        return Err(Refusal { status: StatusCode::UPGRADE_REQUIRED, headers, message });
    }
    if request.version != Version::HTTP_11 {
        return Err(Refusal::bad_request("a WebSocket handshake needs HTTP/1.1"));
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(Refusal::bad_request(
            "the field Connection lacks the token Upgrade: a proxy may have removed it (nginx: proxy_set_header Connection \"upgrade\")",
        ));
    }
    if !headers.contains_key(HOST) {
        return Err(Refusal::bad_request("the field Host is missing"));
    }
    if only(headers, &SEC_WEBSOCKET_VERSION) != Some("13") {
        // A 426 must name what to upgrade to (RFC 9110, section 15.5.22), also to somebody who asked for just that.
        let headers = &[(SEC_WEBSOCKET_VERSION, "13"), (CONNECTION, "Upgrade"), (UPGRADE, "websocket")];
        let message = "only version 13 of the WebSocket protocol (RFC 6455) is spoken here";
        return Err(Refusal { status: StatusCode::UPGRADE_REQUIRED, headers, message });
    }
    Ok(Upgrade {
        accept_key: accept_key(headers)?,
        protocols: protocols(headers)?,
        deflate: Negotiated::from_offers(lines(headers, &SEC_WEBSOCKET_EXTENSIONS)),
    })
}

/// The answer that opens the connection. `protocol` is one of those offered, or `None` to choose none.
pub fn response(accept_key: &str, protocol: Option<&str>, deflate: Option<Negotiated>) -> Bytes {
    let mut head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept_key}\r\n"
    );
    let fields = [("Sec-WebSocket-Protocol", protocol), ("Sec-WebSocket-Extensions", deflate.map(Negotiated::answer))];
    for (name, value) in fields {
        if let Some(value) = value {
            head.extend([name, ": ", value, "\r\n"]);
        }
    }
    head.push_str("\r\n");
    Bytes::from(head)
}

/// The answer to the client's key, which must be 16 bytes in base64.
fn accept_key(headers: &HeaderMap) -> Result<String, Refusal> {
    let key = only(headers, &SEC_WEBSOCKET_KEY)
        .ok_or(Refusal::bad_request("the field Sec-WebSocket-Key is missing, or there is more than one"))?;
    match STANDARD.decode(key) {
        Ok(nonce) if nonce.len() == 16 => Ok(derive_accept_key(key.as_bytes())),
        _ => Err(Refusal::bad_request("the field Sec-WebSocket-Key must hold 16 bytes in base64")),
    }
}

/// The offered subprotocols.
fn protocols(headers: &HeaderMap) -> Result<Vec<String>, Refusal> {
    let mut protocols = Vec::new();
    for protocol in elements(headers, &SEC_WEBSOCKET_PROTOCOL) {
        if protocols.len() == PROTOCOLS_MAX {
            return Err(Refusal::bad_request("the field Sec-WebSocket-Protocol may offer at most 32 subprotocols"));
        }
        if !protocol.bytes().all(is_token_byte) {
            return Err(Refusal::bad_request(
                "each subprotocol in Sec-WebSocket-Protocol must be a token: no spaces, quotes or brackets",
            ));
        }
        protocols.push(protocol.to_owned());
    }
    Ok(protocols)
}

/// Whether a byte may stand in a token (RFC 9110, section 5.6.2).
const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// The lines of a header field that are visible ASCII.
fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok())
}

/// The elements of a comma-separated list that may be spread over several lines; empty ones do not count.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    lines(headers, name).flat_map(|line| line.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(token))
}

/// The value of a header field that stands there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next()?.to_str().ok()?.trim();
    if values.next().is_some() { None } else { Some(value) }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// The example of RFC 6455, section 1.2, with some fields replaced (an empty value leaves a field out) and others
    /// added.
    fn request(changes: &[(&str, &str)]) -> Parts {
        let usual = [
            ("host", "server.example.com"),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ];
        let kept = usual.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
        let changed = changes.iter().filter(|(_, value)| !value.is_empty());
        let builder =
            kept.chain(changed).fold(Request::get("/ws"), |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap().into_parts().0
    }

    fn refusal(changes: &[(&str, &str)]) -> Refusal {
        examine(&request(changes)).expect_err("should be refused")
    }

    #[test]
    fn the_example_of_the_specification() {
        let upgrade = examine(&request(&[("sec-websocket-protocol", "chat, superchat")])).unwrap();
        assert_eq!(upgrade.accept_key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(upgrade.protocols, ["chat", "superchat"]);
        assert_eq!(upgrade.deflate, None);
        assert_eq!(
            response(&upgrade.accept_key, Some("chat"), None),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
        );
    }

    #[test]
    fn a_compressed_connection_says_so() {
        let offer = ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");
        let upgrade = examine(&request(&[offer])).unwrap();
        let head = response(&upgrade.accept_key, None, upgrade.deflate);
        assert!(head.ends_with(
            b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n\r\n"
        ));
    }

    #[test]
    fn token_lists_are_read_in_any_form() {
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("connection", "keep-alive,upgrade"),
            ("connection", " UPGRADE ,"),
            ("upgrade", "WebSocket"),
            ("upgrade", "h2c, websocket"),
        ] {
            assert!(examine(&request(&[(name, value)])).is_ok(), "{name}: {value}");
        }
        let spread = request(&[("connection", "keep-alive"), ("connection", "upgrade")]);
        assert!(examine(&spread).is_ok());
    }

    #[test]
    fn protocols_keep_their_order_over_several_lines() {
        let name = "sec-websocket-protocol";
        let upgrade =
            examine(&request(&[(name, " mqtt ,v12.stomp"), (name, ""), (name, ", passerelle.token.a.b-_c,")])).unwrap();
        assert_eq!(upgrade.protocols, ["mqtt", "v12.stomp", "passerelle.token.a.b-_c"]);
        let most = vec!["a"; PROTOCOLS_MAX].join(",");
        assert_eq!(examine(&request(&[(name, &most)])).unwrap().protocols.len(), PROTOCOLS_MAX);
        assert_eq!(refusal(&[(name, &format!("{most},a"))]).status, StatusCode::BAD_REQUEST);
        assert_eq!(refusal(&[(name, "not a token")]).status, StatusCode::BAD_REQUEST);
        assert_eq!(refusal(&[(name, "\"quoted\"")]).status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_plain_request_is_told_what_this_is() {
        for changes in [[("upgrade", "")], [("upgrade", "h2c")]] {
            let refusal = refusal(&changes);
            assert_eq!(refusal.status, StatusCode::UPGRADE_REQUIRED);
            assert_eq!(refusal.headers, [(CONNECTION, "Upgrade"), (UPGRADE, "websocket")]);
            assert!(!is_upgrade(&request(&changes).headers));
        }
    }

    #[test]
    fn another_version_is_answered_with_ours() {
        for version in ["", "8", "12", "14", "13, 8", "13a"] {
            let refusal = refusal(&[("sec-websocket-version", version)]);
            assert_eq!(refusal.status, StatusCode::UPGRADE_REQUIRED, "{version}");
            assert!(refusal.headers.contains(&(SEC_WEBSOCKET_VERSION, "13")), "{version}");
            assert!(refusal.headers.contains(&(UPGRADE, "websocket")), "{version}");
        }
    }

    #[test]
    fn keys_must_be_sixteen_bytes() {
        let name = "sec-websocket-key";
        for key in ["", "x", "AAAA", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAA", "dGhlIHNhbXBsZSBub25jZQ=!"] {
            assert_eq!(refusal(&[(name, key)]).status, StatusCode::BAD_REQUEST, "{key}");
        }
        let good = "dGhlIHNhbXBsZSBub25jZQ==";
        assert!(refusal(&[(name, good), (name, good)]).message.contains("more than one"));
    }

    #[test]
    fn the_rest_of_the_request_must_fit() {
        assert!(refusal(&[("connection", "")]).message.contains("Connection"));
        assert!(refusal(&[("connection", "close")]).message.contains("Connection"));
        assert!(refusal(&[("host", "")]).message.contains("Host"));
        let mut post = request(&[]);
        post.method = Method::POST;
        let refusal = examine(&post).unwrap_err();
        assert_eq!((refusal.status, refusal.headers), (StatusCode::METHOD_NOT_ALLOWED, &[(ALLOW, "GET")][..]));
        let mut old = request(&[]);
        old.version = Version::HTTP_10;
        assert_eq!(examine(&old).unwrap_err().status, StatusCode::BAD_REQUEST);
    }
}
