//! Routes: the narrower pattern first, and a word about those that overlap.

use super::Settler;
use crate::config::Route;
use crate::model::topic::{Pattern, is_wildcard};

impl Settler<'_> {
    /// Every route, in the order in which they are tried.
    pub(super) fn routes(&mut self) -> Vec<Route> {
        let mut routes = Vec::new();
        for name in self.names("route") {
            routes.extend(self.route(&name));
        }
        let routes = narrower_first(routes);
        self.overlaps(&routes);
        routes
    }

    fn route(&mut self, name: &str) -> Option<Route> {
        let (pattern_path, exchange_path) = (format!("route.{name}.pattern"), format!("route.{name}.exchange"));
        if !self.raw.is_set(&exchange_path) {
            self.mistake(
                &format!("route.{name}"),
                format!("needs {exchange_path}: the exchange that its topics go to"),
            );
        }
        if !self.raw.is_set(&pattern_path) {
            self.mistake(&format!("route.{name}"), format!("needs {pattern_path}: the topics that it is for"));
        }
        let (text, exchange) = (self.entry(&pattern_path)?.value.text(), self.entry(&exchange_path)?.value.text());
        match Pattern::parse(text) {
            Ok(pattern) => Some(Route { name: name.to_owned(), pattern, exchange: exchange.to_owned() }),
            Err(error) => {
                self.mistake(&pattern_path, error.to_string());
                None
            }
        }
    }

    fn overlaps(&mut self, routes: &[Route]) {
        for (position, first) in routes.iter().enumerate() {
            for second in routes.iter().skip(position + 1) {
                let path = format!("route.{}.pattern", second.name);
                if first.pattern == second.pattern {
                    self.mistake(&path, format!("is the pattern of route.{} too: keep one of them", first.name));
                } else if overlap(&first.pattern, &second.pattern) && !second.pattern.includes(&first.pattern) {
                    self.warning(
                        &path,
                        format!(
                            "{} overlaps {} of route.{}: topics that match both go by route.{}, whose pattern says more",
                            second.pattern, first.pattern, first.name, first.name
                        ),
                    );
                }
            }
        }
    }
}

/// Orders routes so that none stands behind one whose pattern includes its own; among the rest, the pattern with more
/// literal text first, then by name.
fn narrower_first(mut rest: Vec<Route>) -> Vec<Route> {
    rest.sort_by(|a, b| literal_bytes(&b.pattern).cmp(&literal_bytes(&a.pattern)).then_with(|| a.name.cmp(&b.name)));
    let mut ordered = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let free = |candidate: &Route| {
            !rest.iter().any(|other| other.pattern != candidate.pattern && candidate.pattern.includes(&other.pattern))
        };
        // Inclusion has no circles, so somebody is always free.
        let next = rest.iter().position(free).unwrap_or(0);
        ordered.push(rest.remove(next));
    }
    ordered
}

fn literal_bytes(pattern: &Pattern) -> usize {
    pattern.words().filter(|word| !is_wildcard(word)).map(str::len).sum()
}

/// Whether some topic matches both patterns. The walk is bounded by the product of their words.
pub(super) fn overlap(left: &Pattern, right: &Pattern) -> bool {
    let (left, right): (Vec<&str>, Vec<&str>) = (left.words().collect(), right.words().collect());
    // `behind[j]`: whether what follows in `left` and `right[j..]` can be the same words.
    let mut behind = vec![false; right.len() + 1];
    for i in (0..=left.len()).rev() {
        let mut row = vec![false; right.len() + 1];
        for j in (0..=right.len()).rev() {
            let next_right = row.get(j + 1).copied().unwrap_or(false);
            let (next_left, next_both) =
                (behind.get(j).copied().unwrap_or(false), behind.get(j + 1).copied().unwrap_or(false));
            let possible = match (left.get(i), right.get(j)) {
                (None, None) => true,
                (Some(&"#"), Some(&"#")) => next_left || next_right,
                (Some(&"#"), _) => next_left || (j < right.len() && next_right),
                (_, Some(&"#")) => next_right || (i < left.len() && next_left),
                (Some(a), Some(b)) => (a == b || *a == "*" || *b == "*") && next_both,
                _ => false,
            };
            if let Some(cell) = row.get_mut(j) {
                *cell = possible;
            }
        }
        behind = row;
    }
    behind.first().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::topic::Topic;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    fn texts(alphabet: &[&str], words_max: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut longest: Vec<String> = vec![String::new()];
        for length in 0..words_max {
            let join =
                |prefix: &String, word: &&str| if length == 0 { (*word).into() } else { format!("{prefix}.{word}") };
            longest = longest.iter().flat_map(|prefix| alphabet.iter().map(move |word| join(prefix, word))).collect();
            all.extend(longest.clone());
        }
        all
    }

    #[test]
    fn overlap_agrees_with_enumeration() {
        // Two patterns of three words each share a topic of at most six words, if any; four are enough for these.
        let topics: Vec<Topic> = texts(&["a", "b"], 6).iter().map(|text| Topic::parse(text).unwrap()).collect();
        let patterns: Vec<Pattern> = texts(&["a", "b", "*", "#"], 3).iter().map(|text| pattern(text)).collect();
        for left in &patterns {
            for right in patterns.iter().step_by(3) {
                let enumerated = topics.iter().any(|topic| left.matches(topic) && right.matches(topic));
                assert_eq!(overlap(left, right), enumerated, "{left} and {right}");
            }
        }
    }

    #[test]
    fn no_route_stands_behind_one_that_includes_it() {
        let route = |name: &str, text: &str| Route { name: name.into(), pattern: pattern(text), exchange: "x".into() };
        let routes = narrower_first(vec![
            route("all", "#"),
            route("rpc", "rpc.#"),
            route("sum", "rpc.math.sum"),
            route("math", "rpc.math.*"),
            route("tail", "#.sum"),
        ]);
        let names: Vec<&str> = routes.iter().map(|route| route.name.as_str()).collect();
        assert_eq!(names, ["sum", "math", "rpc", "tail", "all"]);
    }
}
