//! Holds `docs/protocol.md` true: every conversation in it is part of a tested transcript, and its tables name what
//! the code knows.

use std::path::Path;

use super::*;
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
