//! Holds `docs/protocol.md` and `docs/close-codes.md` true: every conversation is part of a tested transcript, and
//! tables name what the code knows.

use std::path::Path;

use super::*;
use crate::model::close::Reconnect;
use crate::protocol::REGISTRY;

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    std::fs::read_to_string(path).unwrap()
}

/// The lines of a text that go over the wire.
fn wire(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("> ") || line.starts_with("< ")).collect()
}

#[test]
fn every_conversation_in_the_document_is_tested() {
    let document = document();
    let transcripts = transcripts::all();
    let blocks: Vec<&str> = document.split("```").skip(1).step_by(2).filter(|block| !wire(block).is_empty()).collect();
    assert!(blocks.len() >= 10, "the document shows too little");
    for block in blocks {
        let wanted = wire(block);
        let is_part = |text: &String| wire(text).windows(wanted.len()).any(|part| part == wanted);
        assert!(transcripts.iter().any(|(_, text)| is_part(text)), "in no transcript:\n{}", wanted.join("\n"));
    }
}

#[test]
fn the_document_names_every_code_reason_and_subprotocol() {
    let document = document();
    let codes = ErrorCode::ALL.iter().map(|code| code.name());
    for name in codes.chain(REGISTRY.iter().map(|row| row.name)) {
        assert!(document.contains(&format!("| `{name}` |")), "docs/protocol.md has no row for {name}");
    }
}

/// What `docs/close-codes.md` says.
fn close_codes() -> String {
    let mut text = String::from(CLOSE_CODES_HEAD);
    for reason in CloseReason::ALL {
        let reconnect = match reason.reconnect() {
            Reconnect::No => "no",
            Reconnect::Yes => "yes",
            Reconnect::Later => "yes, later",
            Reconnect::WithNewToken => "with a new token",
        };
        let (code, name, meaning) = (reason.code(), reason.name(), reason.meaning().trim());
        text += &format!("| {code} | `{name}` | {reconnect} | {meaning} |\n");
    }
    text
}

const CLOSE_CODES_HEAD: &str = "# Close codes

How a session ends, and whether to come back. The name is the label of `passerelle_closes_total` and stands in the log.
The reason in the closing frame is a sentence of at most 123 bytes that says what to do.

<!-- Written by the tests from src/model/close.rs: UPDATE_DOCS=1 cargo test --lib close_codes -->

| code | name | reconnect | meaning |
|---|---|---|---|
";

#[test]
fn the_close_codes_in_the_document_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/close-codes.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, close_codes()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, close_codes(), "run UPDATE_DOCS=1 cargo test --lib close_codes");
}
