//! Pages of other origins that talk HTTP: they are told whether they may, and can read what they are answered.

use super::Broker;
use crate::program::{Program, request};

/// A request of a page of this origin.
async fn ask(program: &Program, (method, path, origin): (&str, &str, &str), more: &str) -> String {
    let host = &program.public;
    let text =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nConnection: close\r\n{more}\r\n");
    request(host, &text).await.to_lowercase()
}

/// Pages of this machine may come while everything is on loopback.
const ADMITTED: &str = "http://localhost:3000";

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_may_come_is_told_so_before_it_sends_what_not_every_page_may() {
    let program = Broker::Embedded.serve(&[]).await;
    for (path, method) in [("/publish/a.b", "post"), ("/sse", "get"), ("/stream", "get"), ("/poll?pattern=a", "get")] {
        let asked = "Access-Control-Request-Headers: content-type\r\n";
        let answer = ask(&program, ("OPTIONS", path, ADMITTED), asked).await;
        assert!(answer.starts_with("http/1.1 204"), "{path}: {answer}");
        assert!(answer.contains(&format!("access-control-allow-origin: {ADMITTED}")), "{path}: {answer}");
        assert!(answer.contains(&format!("access-control-allow-methods: {method}")), "{path}: {answer}");
        for name in ["content-type", "x-message-id", "last-event-id", "authorization"] {
            assert!(answer.contains(name), "{path}: {answer}");
        }
        let answer = ask(&program, ("OPTIONS", path, "https://elsewhere.example"), asked).await;
        assert!(answer.starts_with("http/1.1 403") && !answer.contains("allow-origin"), "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_may_come_can_read_every_answer() {
    let program = Broker::Embedded.serve(&[]).await;
    let readable = format!("access-control-allow-origin: {ADMITTED}");
    for (method, path, status) in [
        ("POST", "/publish/a.b", "200"),
        ("GET", "/publish/a.b", "405"),
        ("GET", "/poll?pattern=a&timeout=0", "200"),
        ("GET", "/poll?pattern=a.", "400"),
        ("GET", "/sse", "400"),
        ("GET", "/stream?pattern=a&last=x", "400"),
        ("POST", "/stream", "405"),
    ] {
        let answer = ask(&program, (method, path, ADMITTED), "Content-Length: 0\r\n").await;
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{method} {path}: {answer}");
        assert!(answer.contains(&readable) && answer.contains("vary: origin"), "{method} {path}: {answer}");
        assert_eq!(answer.contains("\r\nallow: "), status == "405", "{method} {path}: {answer}");
        let answer = ask(&program, (method, path, "https://elsewhere.example"), "Content-Length: 0\r\n").await;
        assert!(!answer.contains("access-control-allow-origin"), "{method} {path}: {answer}");
    }
}
