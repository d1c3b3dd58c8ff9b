//! Addresses, networks, origins and path prefixes as people write them.
//!
//! Pure functions from text to value; every failure is a sentence that says what to write.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

/// An address to listen on: an IP address or `localhost`, and a port.
///
/// # Errors
/// A sentence that says what to write instead.
pub(in crate::config) fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let Some(port) = port else {
        let example = match (text.parse::<u16>(), text.parse::<IpAddr>()) {
            (Ok(port), _) => format!("127.0.0.1:{port}"),
            (_, Ok(IpAddr::V6(address))) => format!("[{address}]:8080"),
            _ if text.is_empty() => "127.0.0.1:8080".into(),
            _ => format!("{text}:8080"),
        };
        return Err(format!("is {text:?}: write address and port, such as \"{example}\""));
    };
    let Ok(port) = port.parse::<u16>() else {
        return Err(format!("is {text:?}: {port:?} is not a port, which is a number up to 65535"));
    };
    match host {
        // Not ::1 as well: a machine without IPv6 would fail to start on a name that works everywhere else.
        "localhost" => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        "" | "*" => Err(format!(
            "is {text:?}: write \"127.0.0.1:{port}\" for this machine only, or \"0.0.0.0:{port}\" or \"[::]:{port}\" for every address"
        )),
        host => Err(format!(
            "is {text:?}: {host:?} is not an IP address; write one of this machine's, such as \"127.0.0.1:{port}\""
        )),
    }
}

/// A network, or one address as the smallest.
///
/// # Errors
/// A sentence that says what to write instead.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().map(|network| network.trunc());
    address.or(network).map_err(|_| {
        format!("has {text:?}, which is neither an address nor a network: write such as \"10.0.0.7\" or \"10.0.0.0/8\"")
    })
}

/// An origin as browsers send it (RFC 6454, section 6.2): scheme, host, and a port that is not the scheme's own; or `null`.
///
/// # Errors
/// A sentence that says what to write instead.
pub(super) fn origin(text: &str) -> Result<String, String> {
    if text == "null" {
        return Ok(text.into());
    }
    if text == "*" {
        return Err("has \"*\": every origin cannot be allowed; list those whose pages are yours".into());
    }
    let wrong = |what: &str| format!("has {text:?}, which {what}: write such as \"https://example.org\"");
    let lower = text.to_ascii_lowercase();
    let (scheme, rest) = lower.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
    let own_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        // Pages inside applications: capacitor://localhost, chrome-extension://…
        _ if !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) =>
        {
            ""
        }
        _ => return Err(wrong("has no scheme")),
    };
    if rest.contains(['/', '?', '#']) {
        return Err(wrong("has a path, which browsers never send"));
    }
    let host = rest.strip_suffix(own_port).filter(|_| !own_port.is_empty()).unwrap_or(rest);
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let unusual =
        |byte: u8| byte.is_ascii_whitespace() || byte.is_ascii_control() || !byte.is_ascii() || b"@*,".contains(&byte);
    if name.is_empty() || name.bytes().any(unusual) {
        return Err(wrong("has no host as browsers write it"));
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(wrong("has a port that is no number"));
    }
    Ok(format!("{scheme}://{host}"))
}

/// A prefix of paths: empty, or a slash and what follows, without one at the end.
///
/// # Errors
/// A sentence that says what to write instead.
pub(super) fn path_prefix(text: &str) -> Result<String, String> {
    let prefix = text.trim_end_matches('/');
    if prefix.is_empty() {
        return Ok(String::new());
    }
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let starts = prefix.starts_with('/');
    if !starts || !prefix.bytes().all(usual) || prefix.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("is {text:?}: write a slash and letters, digits, - . _ ~, such as \"/live\""));
    }
    Ok(prefix.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, expected) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::]:8080"),
            ("localhost:0", "127.0.0.1:0"),
            ("0.0.0.0:1", "0.0.0.0:1"),
        ] {
            assert_eq!(address(text).map(|address| address.to_string()).as_deref(), Ok(expected));
        }
        for (text, hint) in [
            ("8080", "such as \"127.0.0.1:8080\""),
            (":8080", "\"0.0.0.0:8080\""),
            ("*:80", "\"[::]:80\""),
            ("127.0.0.1", "such as \"127.0.0.1:8080\""),
            ("::1", "such as \"[::1]:8080\""),
            ("example.org:80", "\"example.org\" is not an IP address"),
            ("127.0.0.1:99999", "\"99999\" is not a port"),
            ("", "such as \"127.0.0.1:8080\""),
        ] {
            let sentence = address(text).unwrap_err();
            assert!(sentence.contains(hint), "{text}: {sentence}");
        }
    }

    #[test]
    fn origins_take_the_form_in_which_browsers_send_them() {
        for (text, expected) in [
            ("https://Example.org", "https://example.org"),
            ("https://example.org:443", "https://example.org"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://[::1]:80", "http://[::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("null", "null"),
        ] {
            assert_eq!(origin(text).as_deref(), Ok(expected));
        }
        for (text, hint) in [
            ("example.org", "has no scheme"),
            ("https://example.org/", "has a path"),
            ("https://", "has no host"),
            ("https://*.example.org", "has no host"),
            ("https://a:b", "no number"),
            ("*", "every origin cannot be allowed"),
        ] {
            let sentence = origin(text).unwrap_err();
            assert!(sentence.contains(hint), "{text}: {sentence}");
        }
    }

    #[test]
    fn networks_and_prefixes() {
        assert_eq!(network("10.1.2.3/8").map(|network| network.to_string()).as_deref(), Ok("10.0.0.0/8"));
        assert_eq!(network("::1").map(|network| network.to_string()).as_deref(), Ok("::1/128"));
        assert!(network("10.0.0.0/33").is_err() && network("proxy").is_err());
        assert_eq!(path_prefix("/live/").as_deref(), Ok("/live"));
        assert_eq!(path_prefix("/").as_deref(), Ok(""));
        for text in ["live", "/a//b", "/../x", "/a?b", "/a b"] {
            assert!(path_prefix(text).is_err(), "{text}");
        }
    }
}
