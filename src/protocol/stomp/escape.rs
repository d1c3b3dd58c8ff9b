//! How headers are escaped, which each version does otherwise.
//!
//! What a version has no escape for cannot be said in it. It is written as U+FFFD, so that nothing that comes from
//! outside starts a header or a frame: a NUL in every version, a CR in 1.1 (whose readers do not agree whether it belongs
//! to the end of a line), CR and LF in 1.0, and in a name of 1.0 the colon. Colons in a value of 1.0 need no escape, because
//! the first colon of a line ends the name.

use super::frame::Verb;
use super::version::Version;

/// What is written in place of what cannot be said.
pub(super) const REPLACEMENT: &str = "\u{FFFD}";

/// Which escapes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escaping {
    /// None: a backslash is a backslash.
    None,
    /// `\\`, `\n` and `\c`.
    Three,
    /// And `\r`.
    Four,
}

/// Where in a header a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the colon.
    Name,
    /// After it.
    Value,
}

impl Escaping {
    /// That of a frame's headers. Those of `CONNECT` and `CONNECTED` are never escaped; `STOMP` comes before a version is
    /// agreed on, and what it may hold is the same in all versions that have it.
    pub(super) const fn of(verb: Verb, version: Version) -> Self {
        match (verb, version) {
            (Verb::Connect | Verb::Connected, _) => Self::None,
            (Verb::Stomp, _) | (_, Version::V12) => Self::Four,
            (_, Version::V11) => Self::Three,
            (_, Version::V10) => Self::None,
        }
    }

    /// What is meant by a text; `None` when a backslash in it escapes nothing.
    pub(super) fn unescape(self, text: &str) -> Option<String> {
        if self == Self::None || !text.contains('\\') {
            return Some(text.to_owned());
        }
        let mut meant = String::with_capacity(text.len());
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            meant.push(if character == '\\' { self.meaning(characters.next()?)? } else { character });
        }
        Some(meant)
    }

    fn meaning(self, letter: char) -> Option<char> {
        match letter {
            '\\' => Some('\\'),
            'n' => Some('\n'),
            'c' => Some(':'),
            'r' if self == Self::Four => Some('\r'),
            _ => None,
        }
    }

    /// Appends a text as it is written at that place.
    pub(super) fn push(self, place: Place, text: &str, out: &mut Vec<u8>) {
        if !text.bytes().any(is_special) {
            return out.extend_from_slice(text.as_bytes());
        }
        for byte in text.bytes() {
            match self.written(place, byte) {
                Some(escape) => out.extend_from_slice(escape.as_bytes()),
                None => out.push(byte),
            }
        }
    }

    /// What is written for a byte; `None` for one that stands for itself.
    fn written(self, place: Place, byte: u8) -> Option<&'static str> {
        match (byte, self) {
            (0, _) | (b'\r', Self::None | Self::Three) | (b'\n', Self::None) => Some(REPLACEMENT),
            (b'\r', Self::Four) => Some("\\r"),
            (b'\n', _) => Some("\\n"),
            (b':', Self::None) => (place == Place::Name).then_some(REPLACEMENT),
            (b':', _) => Some("\\c"),
            (b'\\', Self::Three | Self::Four) => Some("\\\\"),
            _ => None,
        }
    }
}

/// Whether a byte does not stand for itself in every version and at every place.
const fn is_special(byte: u8) -> bool {
    matches!(byte, 0 | b'\n' | b'\r' | b':' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(escaping: Escaping, place: Place, text: &str) -> String {
        let mut out = Vec::new();
        escaping.push(place, text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_version_escapes_what_it_can_and_replaces_the_rest() {
        let text = "a\\b:c\nd\re\0é";
        for (escaping, name, value) in [
            (Escaping::None, "a\\b\u{FFFD}c\u{FFFD}d\u{FFFD}e\u{FFFD}é", "a\\b:c\u{FFFD}d\u{FFFD}e\u{FFFD}é"),
            (Escaping::Three, "a\\\\b\\cc\\nd\u{FFFD}e\u{FFFD}é", "a\\\\b\\cc\\nd\u{FFFD}e\u{FFFD}é"),
            (Escaping::Four, "a\\\\b\\cc\\nd\\re\u{FFFD}é", "a\\\\b\\cc\\nd\\re\u{FFFD}é"),
        ] {
            assert_eq!(written(escaping, Place::Name, text), name, "{escaping:?}");
            assert_eq!(written(escaping, Place::Value, text), value, "{escaping:?}");
        }
    }

    #[test]
    fn only_the_escapes_of_a_version_are_read() {
        for (text, none, three, four) in [
            ("plain", Some("plain"), Some("plain"), Some("plain")),
            ("\\n\\c\\\\", Some("\\n\\c\\\\"), Some("\n:\\"), Some("\n:\\")),
            ("\\r", Some("\\r"), None, Some("\r")),
            ("\\\\r", Some("\\\\r"), Some("\\r"), Some("\\r")),
            ("\\t", Some("\\t"), None, None),
            ("\\N", Some("\\N"), None, None),
            ("end\\", Some("end\\"), None, None),
            ("\\é", Some("\\é"), None, None),
        ] {
            assert_eq!(Escaping::None.unescape(text).as_deref(), none, "{text}");
            assert_eq!(Escaping::Three.unescape(text).as_deref(), three, "{text}");
            assert_eq!(Escaping::Four.unescape(text).as_deref(), four, "{text}");
        }
    }

    #[test]
    fn the_frames_that_agree_on_a_version_stand_outside_it() {
        for version in Version::ALL {
            assert_eq!(Escaping::of(Verb::Connect, version), Escaping::None);
            assert_eq!(Escaping::of(Verb::Connected, version), Escaping::None);
            assert_eq!(Escaping::of(Verb::Stomp, version), Escaping::Four);
        }
        assert_eq!(
            Version::ALL.map(|version| Escaping::of(Verb::Send, version)),
            [Escaping::None, Escaping::Three, Escaping::Four]
        );
    }
}
