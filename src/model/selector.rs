//! What a subscription wants of a source: a pattern of topics, and perhaps a filter of headers.

use std::sync::Arc;

use crate::model::filter::Filter;
use crate::model::publication::Draft;
use crate::model::topic::Pattern;

/// What a subscription wants of a source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector {
    /// The topics.
    pub pattern: Pattern,
    /// Of those only messages whose headers it lets in.
    pub filter: Option<Arc<Filter>>,
}

impl Selector {
    /// Whether it wants a message.
    pub fn matches(&self, draft: &Draft) -> bool {
        self.pattern.matches(&draft.topic) && self.lets_in(draft)
    }

    /// Whether it wants a message whose topic matches.
    pub fn lets_in(&self, draft: &Draft) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(&draft.attributes.headers))
    }
}

impl From<Pattern> for Selector {
    /// Everything that a pattern matches.
    fn from(pattern: Pattern) -> Self {
        Self { pattern, filter: None }
    }
}
