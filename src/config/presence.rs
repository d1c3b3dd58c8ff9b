//! `[presence.NAME]`: patterns of which it can be asked who is subscribed to them.

use crate::model::topic::Pattern;

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Its name: ASCII letters, digits, `_` and `-`.
    pub name: String,
    /// The patterns that it is for: those that this one includes.
    pub pattern: Pattern,
    /// Whether subscribers are told who comes and goes.
    pub join_leave: bool,
    /// Members of one pattern who are named; of more only the count is told.
    pub members_max: usize,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presences(pub Vec<Presence>);

impl Presences {
    /// The one for this pattern, if presence is on for it; of several the one that says most.
    pub fn of(&self, pattern: &Pattern) -> Option<&Presence> {
        let including = self.0.iter().filter(|presence| presence.pattern.includes(pattern));
        including.reduce(|best, next| if best.pattern.includes(&next.pattern) { next } else { best })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_table_that_includes_a_pattern_counts() {
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        let one =
            |text: &str| Presence { name: text.to_owned(), pattern: pattern(text), join_leave: false, members_max: 1 };
        let all = Presences(vec![one("a.#"), one("a.*"), one("a.b"), one("c.*")]);
        let of = |text: &str| all.of(&pattern(text)).map(|presence| presence.name.as_str());
        assert_eq!(
            [of("a.b"), of("a.x"), of("a.*"), of("a.x.y"), of("a.#")].map(Option::unwrap),
            ["a.b", "a.*", "a.*", "a.#", "a.#"]
        );
        assert_eq!([of("c.#"), of("b"), of("#")], [None; 3]);
    }
}
