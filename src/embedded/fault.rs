//! What can be wrong with a request, in the protocol's own codes. Knows nothing of who made the request.
//!
//! The protocol decides which codes end a channel and which the whole connection (AMQP 0-9-1, section 1.2).

use amq_protocol::types::ShortString;

/// A reply code (AMQP 0-9-1, section 1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    ConnectionForced = 320,
    AccessRefused = 403,
    NotFound = 404,
    ResourceLocked = 405,
    PreconditionFailed = 406,
    FrameError = 501,
    SyntaxError = 502,
    CommandInvalid = 503,
    ChannelError = 504,
    UnexpectedFrame = 505,
    ResourceError = 506,
    NotAllowed = 530,
    NotImplemented = 540,
}

/// A refusal: what a peer did wrong, as a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The protocol's code.
    pub(crate) code: Code,
    /// What is wrong and, where that helps, what to do.
    pub(crate) text: String,
}

impl Code {
    /// The number on the wire.
    pub(crate) fn number(self) -> u16 {
        self as u16
    }

    /// The name that RabbitMQ puts before its texts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ConnectionForced => "CONNECTION_FORCED",
            Self::AccessRefused => "ACCESS_REFUSED",
            Self::NotFound => "NOT_FOUND",
            Self::ResourceLocked => "RESOURCE_LOCKED",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::FrameError => "FRAME_ERROR",
            Self::SyntaxError => "SYNTAX_ERROR",
            Self::CommandInvalid => "COMMAND_INVALID",
            Self::ChannelError => "CHANNEL_ERROR",
            Self::UnexpectedFrame => "UNEXPECTED_FRAME",
            Self::ResourceError => "RESOURCE_ERROR",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::NotImplemented => "NOT_IMPLEMENTED",
        }
    }

    /// Whether only the channel ends, not the connection.
    pub(crate) fn is_soft(self) -> bool {
        matches!(self, Self::AccessRefused | Self::NotFound | Self::ResourceLocked | Self::PreconditionFailed)
    }
}

impl Fault {
    /// A refusal with its text.
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// 404 for a queue or an exchange.
    pub(crate) fn missing(kind: &str, name: &str) -> Self {
        Self::new(Code::NotFound, format!("no {kind} '{name}' in vhost '/'"))
    }

    /// 403.
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self::new(Code::AccessRefused, text)
    }

    /// 406.
    pub(crate) fn precondition(text: impl Into<String>) -> Self {
        Self::new(Code::PreconditionFailed, text)
    }

    /// 540, with the advice that every such refusal ends with.
    pub(crate) fn unsupported(what: &str) -> Self {
        Self::new(Code::NotImplemented, format!("the embedded broker has no {what}: use RabbitMQ"))
    }

    /// 506 for a limit that was reached.
    pub(crate) fn limit(what: &str, most: usize) -> Self {
        Self::new(Code::ResourceError, format!("the embedded broker takes at most {most} {what}: use RabbitMQ"))
    }

    /// The text as the wire carries it: `NAME - text`, cut to a short string's 255 bytes.
    pub(crate) fn reply_text(&self) -> ShortString {
        short(&format!("{} - {}", self.code.name(), self.text))
    }
}

/// A short string, cut at the last whole character that fits into 255 bytes.
pub(crate) fn short(text: &str) -> ShortString {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    ShortString::try_new(text.get(..end).unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let fault = Fault::precondition("ä".repeat(300));
        let text = fault.reply_text();
        assert!(text.as_str().len() <= 255 && text.as_str().starts_with("PRECONDITION_FAILED - ä"));
        assert_eq!(short(&"x".repeat(400)).as_str().len(), 255);
    }

    #[test]
    fn only_the_four_soft_codes_spare_the_connection() {
        assert!(Fault::missing("queue", "q").code.is_soft());
        assert!(!Fault::unsupported("transactions").code.is_soft());
        assert_eq!(Code::NotAllowed.number(), 530);
    }
}
