//! Origins and anonymous access, rule by rule.

use std::net::SocketAddr;

use super::*;
use crate::config::{Auth, Embedded};

fn local() -> Settings {
    Settings::default()
}

fn public() -> Settings {
    let mut settings = Settings::default();
    settings.server.listen = vec![SocketAddr::from(([0, 0, 0, 0], 8080))];
    settings
}

fn visit<'a>(origin: Option<&'a str>, host: &'a str, scheme: Scheme) -> Visit<'a> {
    Visit { origin, host: Some(host), scheme, proxied: false }
}

fn admits(settings: &Settings, origin: &str, host: &str, scheme: Scheme) -> bool {
    Origins::new(settings).admit(visit(Some(origin), host, scheme)).is_ok()
}

#[test]
fn the_same_origin_is_scheme_host_and_port() {
    let cases = [
        ("http://example.org", "example.org", Scheme::Http, true),
        ("http://Example.ORG", "example.org:80", Scheme::Http, true),
        ("https://example.org:443", "example.org", Scheme::Https, true),
        ("http://example.org:8080", "example.org:8080", Scheme::Http, true),
        ("http://[2001:db8::1]:8080", "[2001:DB8::1]:8080", Scheme::Http, true),
        ("https://example.org", "example.org", Scheme::Http, false),
        ("http://example.org", "example.org:8080", Scheme::Http, false),
        ("http://evil.org", "example.org", Scheme::Http, false),
        ("http://example.org.evil.org", "example.org", Scheme::Http, false),
        ("http://example.org@evil.org", "example.org@evil.org", Scheme::Http, false),
        ("http://example.org/", "example.org", Scheme::Http, false),
        ("example.org", "example.org", Scheme::Http, false),
        ("", "", Scheme::Http, false),
        ("http://", "", Scheme::Http, false),
        ("http://a:", "a:", Scheme::Http, false),
        ("http://a:99999", "a:99999", Scheme::Http, false),
        ("http://a http://b", "a http://b", Scheme::Http, false),
    ];
    for (origin, host, scheme, expected) in cases {
        assert_eq!(admits(&public(), origin, host, scheme), expected, "{origin} at {host}");
    }
}

#[test]
fn any_loopback_origin_is_let_in_while_everything_is_on_loopback() {
    for origin in
        ["http://localhost:3000", "https://app.localhost", "http://127.0.0.1", "http://127.8.9.1:1", "http://[::1]:5"]
    {
        assert!(admits(&local(), origin, "localhost:8080", Scheme::Http), "{origin}");
        assert!(!admits(&public(), origin, "localhost:8080", Scheme::Http), "{origin}");
    }
    for origin in
        ["http://notlocalhost", "http://localhost.evil.org", "http://10.0.0.1", "ftp://localhost", "null", "file://"]
    {
        assert!(!admits(&local(), origin, "localhost:8080", Scheme::Http), "{origin}");
    }
}

#[test]
fn listed_origins_are_let_in_and_null_only_when_listed() {
    let mut settings = public();
    settings.server.allowed_origins = vec!["https://app.example.org".into(), "http://dev.example.org:3000".into()];
    assert!(admits(&settings, "https://APP.example.org:443", "x", Scheme::Http));
    assert!(admits(&settings, "http://dev.example.org:3000", "x", Scheme::Https));
    assert!(!admits(&settings, "http://app.example.org", "x", Scheme::Http));
    assert!(!admits(&settings, "null", "x", Scheme::Http));
    settings.server.allowed_origins.push("null".into());
    assert!(admits(&settings, "null", "x", Scheme::Http));
}

#[test]
fn no_origin_is_no_browser_and_a_refusal_names_the_key() {
    let origins = Origins::new(&public());
    assert_eq!(origins.admit(visit(None, "x", Scheme::Http)), Ok(()));
    let refused = origins.admit(visit(Some("http://evil.org"), "x", Scheme::Http)).unwrap_err();
    assert_eq!(refused, "refused origin http://evil.org: add it to server.allowed_origins");
    let forged = origins.admit(visit(Some(&format!("http://a\n{}", "é".repeat(500))), "x", Scheme::Http)).unwrap_err();
    assert!(!forged.contains('\n') && forged.len() < 300, "{forged}");
}

#[test]
fn loopback_means_every_listener() {
    assert!(everything_on_loopback(&local()));
    assert!(!everything_on_loopback(&public()));
    let mut admin = local();
    admin.admin.listen = Some(SocketAddr::from(([192, 0, 2, 1], 8081)));
    assert!(!everything_on_loopback(&admin));
    let embedded = Embedded { listen: SocketAddr::from(([0, 0, 0, 0], 5672)), ..Embedded::default() };
    assert!(!everything_on_loopback(&Settings { embedded: Some(embedded), ..local() }));
    let mut proxied = local();
    proxied.server.unix_socket = Some("socket".into());
    assert!(!everything_on_loopback(&proxied));
    let mut mapped = local();
    mapped.server.listen = vec!["[::ffff:127.0.0.1]:80".parse().unwrap()];
    assert!(everything_on_loopback(&mapped));
}

#[test]
fn anonymous_access_is_for_this_machine_unless_configured() {
    let rule = AnonymousRule::new(&local());
    for host in ["localhost:8080", "LOCALHOST", "127.0.0.1:8080", "[::1]:8080", "demo.localhost", "localhost.:1"] {
        assert!(rule.admit(visit(None, host, Scheme::Http)).is_ok(), "{host}");
    }
    for host in ["example.org", "localhost.evil.org", "192.0.2.1:8080", "", "[::1", "localhost:x", "evil.org@localhost"]
    {
        assert_eq!(rule.admit(visit(None, host, Scheme::Http)), Err(ANONYMOUS_IS_LOCAL), "{host}");
    }
    let without_host = Visit { host: None, ..visit(None, "", Scheme::Http) };
    assert_eq!(rule.admit(without_host), Err(ANONYMOUS_IS_LOCAL));
    let proxied = Visit { proxied: true, ..visit(None, "localhost", Scheme::Http) };
    assert_eq!(rule.admit(proxied), Err(ANONYMOUS_IS_LOCAL));
    assert_eq!(AnonymousRule::new(&public()).admit(visit(None, "localhost", Scheme::Http)), Err(ANONYMOUS_IS_LOCAL));
    for sentence in [ANONYMOUS_IS_LOCAL, ANONYMOUS_IS_OFF] {
        assert!(sentence.len() <= 123, "too long for a close frame");
    }
}

#[test]
fn configured_access_is_what_it_says() {
    let configured = |anonymous, mut settings: Settings| {
        settings.auth = Auth { anonymous: Some(anonymous), anonymous_publish: None };
        AnonymousRule::new(&settings)
    };
    let proxied = Visit { proxied: true, ..visit(None, "example.org", Scheme::Https) };
    assert!(configured(true, public()).admit(proxied).is_ok());
    assert_eq!(configured(false, local()).admit(visit(None, "localhost", Scheme::Http)), Err(ANONYMOUS_IS_OFF));
}

#[test]
fn anonymous_publishing_is_on_with_the_embedded_listener_only() {
    let publishes = |settings: &Settings| {
        AnonymousRule::new(settings).admit(visit(None, "localhost", Scheme::Http)).unwrap().grants.publish
    };
    assert!(!publishes(&local()));
    let mut settings = Settings { embedded: Some(Embedded::default()), ..local() };
    assert!(publishes(&settings));
    settings.auth.anonymous_publish = Some(false);
    assert!(!publishes(&settings));
    let allowed = Auth { anonymous: None, anonymous_publish: Some(true) };
    assert!(publishes(&Settings { auth: allowed, ..local() }));
}

#[test]
fn proxies_are_told_by_their_headers() {
    for header in ["Forwarded", "X-Forwarded-For", "x-forwarded-anything", "VIA", "X-Real-IP"] {
        assert!(tells_of_a_proxy(header), "{header}");
    }
    for header in ["Host", "X-Forwarded", "Origin", "Viaduct"] {
        assert!(!tells_of_a_proxy(header), "{header}");
    }
}
