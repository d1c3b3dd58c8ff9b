//! Plays the conversations under `tests/transcripts` with a [`Player`].
//!
//! | line | means |
//! |---|---|
//! | `# …` | a comment |
//! | `name: value` | before the first step: `protocol`, `identity` (`anyone`, `listener`, `user NAME`, `stranger SENTENCE`), `publish`, `consume` (queues that are open, by their names or templates), `presence` (patterns for which it is on) |
//! | `> …` | the client sends this text; of STOMP a frame, written as in [`stomp`], of MQTT a packet, as in [`mqtt`] |
//! | `! …` | something happens on the server's side; see `happen` and `completion` |
//! | `< …` | the client gets this text, a line each |
//! | `= …` | the session asks this of its driver, or ends |
//!
//! What follows a `>` or a `!` is everything that it causes, in order.

use std::path::Path;

use super::player::Player;

/// All transcripts: file name and text.
pub(super) fn all() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let named = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (named(path), std::fs::read_to_string(path).unwrap())).collect()
}

fn play(name: &str, text: &str) {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let lines: Vec<(usize, &str)> = lines.map(|(number, line)| (number + 1, line)).collect();
    let is_step = |line: &str| ["> ", "! ", "< ", "= "].iter().any(|start| line.starts_with(start));
    let settings: Vec<(&str, &str)> =
        lines.iter().map_while(|(_, line)| if is_step(line) { None } else { line.split_once(": ") }).collect();
    let (mut player, mut caused) = Player::new(&settings);
    for (number, line) in &lines[settings.len()..] {
        if let Some(expected) = line.starts_with(['<', '=']).then_some(*line) {
            assert!(!caused.is_empty(), "{name}:{number}: nothing more was said, expected {expected}");
            assert_eq!(caused.remove(0), *expected, "{name}:{number}");
            continue;
        }
        assert_eq!(caused, Vec::<String>::new(), "{name}, before line {number}");
        caused = match line.split_at(2) {
            ("> ", text) => player.receive(text),
            ("! ", text) => player.happen(text),
            _ => panic!("{name}:{number}: {line:?} is no line of a transcript"),
        };
    }
    assert_eq!(caused, Vec::<String>::new(), "{name}, at its end");
}

#[test]
fn every_transcript_goes_as_written() {
    let transcripts = all();
    assert!(transcripts.len() >= 8, "the transcripts are not all there");
    transcripts.iter().for_each(|(name, text)| play(name, text));
}

#[test]
#[should_panic(expected = "wrong:2")]
fn a_wrong_transcript_fails() {
    play("wrong", "> {\"op\":\"ping\",\"id\":1}\n< {\"op\":\"pong\",\"id\":2}");
}
