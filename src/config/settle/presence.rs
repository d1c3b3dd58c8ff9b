//! Presence: patterns that parse, each in one table only.

use super::Settler;
use crate::config::{Presence, Presences};
use crate::model::topic::Pattern;

impl Settler<'_> {
    /// Every table, in the order of their names.
    pub(super) fn presences(&mut self) -> Presences {
        let mut all: Vec<Presence> = Vec::new();
        for name in self.names("presence") {
            let Some(one) = self.presence(&name) else { continue };
            if let Some(other) = all.iter().find(|other| other.pattern == one.pattern) {
                let sentence = format!("is the pattern of presence.{} too: keep one of them", other.name);
                self.mistake(&format!("presence.{name}.pattern"), sentence);
            }
            all.push(one);
        }
        Presences(all)
    }

    fn presence(&mut self, name: &str) -> Option<Presence> {
        let base = format!("presence.{name}");
        let path = format!("{base}.pattern");
        if !self.raw.is_set(&path) {
            self.mistake(&base, format!("needs {path}: the patterns that it is for"));
        }
        let text = self.entry(&path)?.value.text();
        let pattern = Pattern::parse(text).map_err(|error| self.mistake(&path, error.to_string())).ok()?;
        Some(Presence {
            name: name.to_owned(),
            pattern,
            join_leave: self.flag(&format!("{base}.join_leave")),
            members_max: self.number(&format!("{base}.members_max")),
        })
    }
}
