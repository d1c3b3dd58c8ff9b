//! Conversations of `sub` with a server that plays a script.

use clap::Parser;

use super::*;
use crate::cli::scripted::{Step, expect, hello, http, send, websocket};

/// Far longer than any of these takes: only a fault waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn arguments(line: &[&str]) -> Arguments {
    Line::try_parse_from([&["sub"], line].concat()).unwrap().arguments
}

/// Runs `sub` as it was typed; what it printed, what it noted, and how it ended.
async fn run_line(line: &[&str]) -> (String, String, Result<(), String>) {
    let arguments = arguments(line);
    let form = if arguments.payload { Form::Payload } else { Form::Line };
    let (mut messages, mut notices) = (Vec::new(), Vec::new());
    let mut output = Output::new(form, arguments.count, &mut messages, &mut notices);
    let wish = Wish::new(arguments).unwrap();
    let outcome = tokio::time::timeout(PATIENCE, follow(&wish, &mut output)).await;
    let outcome = outcome.unwrap_or_else(|_| panic!("it goes on: {}", String::from_utf8_lossy(&notices)));
    let outcome = outcome.map_err(|failure| match failure {
        Failure::Failed(why) => why,
        other => format!("{other:?}"),
    });
    (String::from_utf8(messages).unwrap(), String::from_utf8(notices).unwrap(), outcome)
}

#[tokio::test]
async fn a_lost_connection_goes_on_where_it_stopped() {
    let first = vec![
        hello(),
        expect(r##"{"op":"subscribe","id":1,"pattern":"a.#"}"##),
        send(r#"{"op":"welcome","id":0,"heartbeat_ms":25000}"#),
        send(r##"{"op":"subscribed","id":1,"pattern":"a.#","cursors":{"events":"1.4","quiet":"9.1"}}"##),
        expect(r##"{"op":"subscribe","id":2,"pattern":"b"}"##),
        send(r#"{"op":"subscribed","id":2,"pattern":"b","cursors":{"events":"1.4","quiet":"9.1"}}"#),
        send(r#"{"op":"message","source":"events","topic":"a.b","cursor":"1.5","data":1}"#),
        send(r#"{"op":"outage","source":"events"}"#),
        send(r#"{"op":"goodbye","reason":"drain","reconnect_in_ms":1}"#),
        Step::Close(1001),
    ];
    let second = vec![
        hello(),
        expect(r##"{"op":"subscribe","id":1,"pattern":"a.#","after":{"events":"1.5","quiet":"9.1"}}"##),
        send(r##"{"op":"subscribed","id":1,"pattern":"a.#","cursors":{"events":"1.7","quiet":"9.1"}}"##),
        send(r##"{"op":"gap","pattern":"a.#","source":"events","missed":1,"reason":"expired"}"##),
        send(r#"{"op":"message","source":"events","topic":"a.c","cursor":"1.7","data":2,"replay":true}"#),
        Step::Drop,
    ];
    let third = vec![
        hello(),
        expect(r##"{"op":"subscribe","id":1,"pattern":"a.#","after":{"events":"1.7","quiet":"9.1"}}"##),
        send(r##"{"op":"subscribed","id":1,"pattern":"a.#","cursors":{"events":"1.7","quiet":"9.1"}}"##),
        send(r##"{"op":"caught_up","id":1,"pattern":"a.#","cursors":{"events":"1.7","quiet":"9.1"}}"##),
        expect(r##"{"op":"subscribe","id":2,"pattern":"b","after":{"events":"1.5","quiet":"9.1"}}"##),
        send(r#"{"op":"subscribed","id":2,"pattern":"b","cursors":{"events":"1.7","quiet":"9.1"}}"#),
        send(r#"{"op":"caught_up","id":2,"pattern":"b","cursors":{"events":"1.7","quiet":"9.1"}}"#),
        send(r#"{"op":"message","source":"events","topic":"b","cursor":"1.8","data":3}"#),
    ];
    let (address, server) = websocket(vec![first, second, third]).await;
    let url = format!("ws://{address}/ws");
    let (messages, notices, outcome) = run_line(&["--url", &url, "--count", "3", "a.#", "b", "a.#.#"]).await;
    server.await.unwrap();
    assert_eq!(outcome, Ok(()));
    let printed: Vec<serde_json::Value> = messages.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(printed.iter().map(|message| message["data"].clone()).collect::<Vec<_>>(), [1, 2, 3]);
    let noted: Vec<&str> = notices.lines().collect();
    assert_eq!(noted[0], "outage: events has lost its broker");
    assert_eq!(noted[1], "goodbye: drain");
    assert!(noted[2].contains("closed by the server: going_away (1001); trying again in"), "{}", noted[2]);
    assert_eq!(noted[3], "gap: 1 message was missed on 'a.#' from events (expired)");
    assert_eq!(noted.len(), 5);
}

#[tokio::test]
async fn it_starts_behind_the_position_that_is_named_and_prints_payloads_alone() {
    let script = vec![
        hello(),
        expect(r##"{"op":"subscribe","id":1,"pattern":"#","after":{"events":"5x.1a","orders":"1.2"}}"##),
        send(r#"{"op":"message","source":"events","topic":"a","cursor":"5x.1b","data":"hello\nworld","replay":true}"#),
    ];
    let (address, server) = websocket(vec![script]).await;
    let url = format!("ws://{address}/ws");
    let after = "events~5x.1a~orders~1.2";
    let (messages, notices, outcome) =
        run_line(&["--url", &url, "--payload", "--count", "1", "--after", after, "#"]).await;
    server.await.unwrap();
    assert_eq!((messages.as_str(), notices.as_str(), outcome), ("hello\nworld\n", "", Ok(())));
}

#[tokio::test]
async fn a_filter_is_asked_for_on_every_connection() {
    let script = |number: u32| {
        let subscribe =
            r##"{"op":"subscribe","id":1,"pattern":"#","filter":{"region":"eu","list":"[1]","text":"5","vip":true}}"##;
        let message =
            format!(r#"{{"op":"message","source":"events","topic":"a","cursor":"1.{number}","data":{number}}}"#);
        vec![hello(), expect(subscribe), Step::Send(message)]
    };
    let first = script(1).into_iter().chain([Step::Drop]).collect();
    let (address, server) = websocket(vec![first, script(2)]).await;
    let url = format!("ws://{address}/ws");
    let typed = ["--filter", "region=eu", "--filter", "vip=true", "--filter", "text=\"5\"", "--filter", "list=[1]"];
    let line = [&["--url", &url, "--payload", "--count", "2", "#"], &typed[..]].concat();
    let (messages, _, outcome) = run_line(&line).await;
    server.await.unwrap();
    assert_eq!((messages.as_str(), outcome), ("1\n2\n", Ok(())));
}

#[tokio::test]
async fn what_another_attempt_cannot_mend_ends_it() {
    let refused = vec![hello(), send(r#"{"op":"error","id":1,"code":"refused","message":"too broad: narrow it"}"#)];
    let (address, _server) = websocket(vec![refused]).await;
    let (_, _, outcome) = run_line(&["--url", &format!("ws://{address}/ws"), "#"]).await;
    assert_eq!(outcome, Err("too broad: narrow it (refused)".into()));

    let (address, _server) = websocket(vec![vec![hello(), Step::Close(4401)]]).await;
    let (_, _, outcome) = run_line(&["--url", &format!("ws://{address}/ws"), "#"]).await;
    assert_eq!(outcome, Err("closed by the server: unauthenticated (4401)".into()));

    let (address, _server) = http(vec!["HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nnot here\n".into()]).await;
    let (_, _, outcome) = run_line(&["--url", &format!("ws://{address}/ws"), "#"]).await;
    assert_eq!(outcome, Err("403 Forbidden: not here".into()));

    let (_, _, outcome) = run_line(&["--url", "127.0.0.1:8080", "#"]).await;
    assert!(outcome.unwrap_err().contains("write such as ws://127.0.0.1:8080/ws"));
}

#[tokio::test]
async fn over_event_streams_it_resumes_by_the_last_id() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    let first = format!(
        "{head}retry: 10\n\nevent: subscribed\ndata: {{\"op\":\"subscribed\",\"cursors\":{{}}}}\n\n:\n\n\
         id: e~1.5\ndata: {{\"op\":\"message\",\"data\":1}}\n\nevent: gap\ndata: {{\"op\":\"gap\",\"reason\":\"slow\"}}\n\nid: e~1.6\nda"
    );
    let busy =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".replace("503 Service Unavailable", "200 OK");
    let second = format!("{head}id: e~1.6\ndata: {{\"op\":\"message\",\ndata: \"data\":2}}\n\n");
    let (address, server) = http(vec![first, second, busy]).await;
    let url = format!("ws://{address}/ws");
    let (messages, notices, outcome) =
        run_line(&["--url", &url, "--protocol", "sse", "--token", "t0", "--after", "e~1.1", "--filter", "x=1", "a.#"])
            .await;
    let heads = server.await.unwrap();
    assert_eq!(messages, "{\"op\":\"message\",\"data\":1}\n{\"op\":\"message\", \"data\":2}\n");
    assert!(notices.starts_with("gap: messages may have been missed on '#' from a source (slow)\n"), "{notices}");
    assert!(outcome.unwrap_err().contains("is it passerelle?"));
    assert!(heads[0].starts_with("GET /sse?pattern=a%2E%23&filter=%7B%22x%22%3A1%7D HTTP/1.1\r\n"), "{}", heads[0]);
    assert!(heads[0].contains("authorization: Bearer t0\r\n") && heads[0].contains("last-event-id: e~1.1\r\n"));
    assert!(heads[1].contains("last-event-id: e~1.5\r\n"), "{}", heads[1]);
    assert!(heads[2].contains("last-event-id: e~1.6\r\n"), "{}", heads[2]);
}

#[tokio::test]
async fn over_lines_it_resumes_by_the_last_position() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n";
    let first =
        format!("{head}{{\"op\":\"subscribed\"}}\n\n{{\"op\":\"message\",\"data\":1,\"after\":\"e~1.5\"}}\n{{\"op\"");
    let second = format!("{head}{{\"op\":\"message\",\"data\":2,\"after\":\"e~1.6\"}}\n");
    let (address, server) = http(vec![first, second]).await;
    let url = format!("ws://{address}/ws");
    let line = ["--url", &url, "--protocol", "stream", "--payload", "--count", "2", "a.#"];
    let (messages, _, outcome) = run_line(&line).await;
    let heads = server.await.unwrap();
    assert_eq!((messages.as_str(), outcome), ("1\n2\n", Ok(())));
    assert!(heads[0].starts_with("GET /stream?pattern=a%2E%23 HTTP/1.1\r\n"), "{}", heads[0]);
    assert!(heads[1].contains("last-event-id: e~1.5\r\n"), "{}", heads[1]);
}

#[tokio::test]
async fn over_polls_it_goes_on_with_the_cursor_of_the_last_answer() {
    let answer = |body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let answers = vec![
        answer(r#"{"messages":[],"cursor":"e~1.4"}"#),
        answer(r#"{"messages":[],"cursor":"e~1.4","outage":["e"]}"#),
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".into(),
        answer(
            r#"{"messages":[{"op":"message","data":1},{"op":"message","data":2}],"cursor":"e~1.9","gaps":[{"op":"gap","pattern":"a","source":"e","reason":"outage","missed":null}]}"#,
        ),
        answer(r#"{"messages":[{"op":"message","data":3}],"cursor":"e~1.10"}"#),
    ];
    let (address, server) = http(answers).await;
    let url = format!("ws://{address}/ws");
    let line = ["--url", &url, "--protocol", "poll", "--payload", "--count", "3", "a"];
    let (messages, notices, outcome) = run_line(&line).await;
    let heads = server.await.unwrap();
    assert_eq!((messages.as_str(), outcome), ("1\n2\n3\n", Ok(())));
    let noted: Vec<&str> = notices.lines().collect();
    assert_eq!(noted[0], "outage: e has lost its broker");
    assert!(noted[1].contains("503"), "{}", noted[1]);
    assert_eq!(noted.last(), Some(&"gap: messages may have been missed on 'a' from e (outage)"));
    assert!(heads[0].starts_with("GET /poll?pattern=a&timeout=25 HTTP/1.1\r\n"), "{}", heads[0]);
    for (head, after) in heads[1..].iter().zip(["1%2E4", "1%2E4", "1%2E4", "1%2E9"]) {
        assert!(head.starts_with(&format!("GET /poll?pattern=a&timeout=25&after=e%7E{after} ")), "{head}");
    }
}

#[test]
fn what_was_not_typed_right_is_said() {
    let refused = |line: &[&str]| match Wish::new(arguments(line)).and_then(|wish| wish.foreign_client().map(|_| ())) {
        Err(Failure::Usage(sentence)) => sentence,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&[]), "quote it: passerelle sub '#'");
    assert!(refused(&["--protocol", "stomp", "--max-rate", "1", "#"]).contains("no word for --max-rate"));
    assert!(refused(&["--after", "1.5", "#"]).contains("source, tilde, cursor"));
    assert!(refused(&["--filter", "region", "#"]).contains("write a header and its value: region=eu"));
    assert!(refused(&["--filter", "a=1", "--filter", "a=2", "#"]).contains("names \"a\" twice"));
    assert!(refused(&["--protocol", "poll", "a."]).contains("ends in an empty word"));
    assert!(Wish::new(arguments(&["a."])).is_ok());
    assert_eq!(refused(&["--filter", "x-match=some", "#"]), "the filter takes \"all\" or \"any\" in \"x-match\"");
    assert!(refused(&[&"x".repeat(300)]).contains("300 bytes"));
}

#[tokio::test]
async fn a_rate_and_a_flow_are_asked_for_on_every_connection() {
    let line = vec![
        hello(),
        expect(r#"{"op":"subscribe","id":1,"pattern":"a","max_rate":5,"on_slow":"latest"}"#),
        send(r#"{"op":"subscribed","id":1,"pattern":"a","cursors":{"events":"1.4"}}"#),
        send(r#"{"op":"message","source":"events","topic":"a","cursor":"1.5","data":1}"#),
        Step::Drop,
    ];
    let again = vec![
        hello(),
        expect(r#"{"op":"subscribe","id":1,"pattern":"a","after":{"events":"1.5"},"max_rate":5,"on_slow":"latest"}"#),
        send(r#"{"op":"subscribed","id":1,"pattern":"a","cursors":{"events":"1.5"}}"#),
        send(r#"{"op":"message","source":"events","topic":"a","cursor":"1.9","data":2,"replay":true}"#),
    ];
    let (address, server) = websocket(vec![line, again]).await;
    let url = format!("ws://{address}/ws");
    let typed = ["--url", &url, "--count", "2", "--max-rate", "5", "--on-slow", "latest", "a"];
    let (messages, _, outcome) = run_line(&typed).await;
    server.await.unwrap();
    assert_eq!((outcome, messages.lines().count()), (Ok(()), 2));
    let wish = Wish::new(arguments(&["--max-rate", "5", "--on-slow", "latest", "a"])).unwrap();
    let query = wish.query().into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    assert_eq!(query, ["pattern=a", "max_rate=5", "on_slow=latest"]);
    assert!(Line::try_parse_from(["sub", "--max-rate", "1001", "a"]).is_err());
    assert!(Line::try_parse_from(["sub", "--on-slow", "never", "a"]).is_err());
}

#[tokio::test]
async fn what_matches_several_patterns_is_printed_once_though_each_replays_it() {
    let message = |cursor: &str, replay: bool| {
        Step::Send(format!(
            r#"{{"op":"message","source":"events","topic":"a.b","cursor":"{cursor}","data":"{cursor}","replay":{replay}}}"#
        ))
    };
    let script = vec![
        hello(),
        expect(r##"{"op":"subscribe","id":1,"pattern":"a.#","after":{"events":"1.1"}}"##),
        send(r##"{"op":"subscribed","id":1,"pattern":"a.#","cursors":{"events":"1.1"},"resumed":true}"##),
        message("1.2", true),
        send(r##"{"op":"caught_up","id":1,"pattern":"a.#","cursors":{"events":"1.2"}}"##),
        expect(r#"{"op":"subscribe","id":2,"pattern":"a.b","after":{"events":"1.1"}}"#),
        message("1.3", false),
        send(r#"{"op":"subscribed","id":2,"pattern":"a.b","cursors":{"events":"1.1"},"resumed":true}"#),
        message("1.2", true),
        message("1.3", true),
        send(r#"{"op":"caught_up","id":2,"pattern":"a.b","cursors":{"events":"1.3"}}"#),
        message("1.4", false),
    ];
    let (address, server) = websocket(vec![script]).await;
    let url = format!("ws://{address}/ws");
    let line = ["--url", &url, "--payload", "--count", "3", "--after", "events~1.1", "a.#", "a.b"];
    let (messages, _, outcome) = run_line(&line).await;
    server.await.unwrap();
    assert_eq!((messages.as_str(), outcome), ("1.2\n1.3\n1.4\n", Ok(())));
}
