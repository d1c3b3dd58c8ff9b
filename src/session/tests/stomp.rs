//! STOMP frames as lines of a transcript: `VERB name:value; name:value | body`. `content-length` is left out, because a body
//! always has it; a heart-beat is `(heart-beat)`.

use crate::protocol::Outbound;

/// A frame as a client sends it.
pub(super) fn frame(line: &str) -> String {
    if line == "(heart-beat)" {
        return "\n".into();
    }
    let (head, body) = line.split_once(" | ").unwrap_or((line, ""));
    let (verb, headers) = head.split_once(' ').unwrap_or((head, ""));
    let headers: String = headers.split("; ").filter(|one| !one.is_empty()).map(|one| format!("{one}\n")).collect();
    format!("{verb}\n{headers}\n{body}\0")
}

/// A frame of the server as a line.
pub(super) fn line(outbound: Outbound) -> String {
    let (bytes, kind) = match &outbound {
        Outbound::Text(bytes) => (bytes, ""),
        Outbound::Binary(bytes) => (bytes, "binary "),
    };
    let text = String::from_utf8_lossy(bytes);
    if text == "\n" {
        return "< (heart-beat)".into();
    }
    let (head, body) = text.split_once("\n\n").unwrap();
    let body = body.strip_suffix('\0').unwrap();
    let mut lines = head.split('\n');
    let verb = lines.next().unwrap();
    let headers: Vec<&str> = lines.filter(|line| !line.starts_with("content-length:")).collect();
    let body = if body.is_empty() { String::new() } else { format!(" | {body}") };
    format!("< {kind}{verb} {}{body}", headers.join("; "))
}
