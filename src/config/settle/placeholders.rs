//! Templates: literal text with placeholders in braces. Which placeholders there are, and what text may stand between them, is for
//! each kind of template to say.

use crate::config::key::nearest;

/// The parts of a template, in order.
///
/// # Errors
/// The first thing that is wrong with it, in words.
pub(super) fn parts<P>(
    text: &str,
    literal: impl Fn(&str) -> Result<P, String>,
    placeholder: impl Fn(&str) -> Result<P, String>,
) -> Result<Vec<P>, String> {
    let mut parts = Vec::new();
    let between = |piece: &str, parts: &mut Vec<P>| {
        if piece.contains('}') {
            return Err(format!("is {text:?}: a brace is closed and was not opened"));
        }
        if !piece.is_empty() {
            parts.push(literal(piece)?);
        }
        Ok(())
    };
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            return Err(format!("is {text:?}: a brace is opened and not closed"));
        };
        between(before, &mut parts)?;
        parts.push(placeholder(name)?);
        rest = after;
    }
    between(rest, &mut parts)?;
    Ok(parts)
}

/// The header field that a placeholder names, if it names one.
pub(super) fn header(name: &str) -> Option<String> {
    name.strip_prefix("header.").filter(|field| !field.is_empty()).map(str::to_owned)
}

/// What is said of a placeholder that is none of those known.
pub(super) fn unknown(name: &str, text: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(known) => format!("is {text:?}: {{{name}}} is not known: did you mean {{{known}}}?"),
        None => {
            let all = known.iter().map(|known| format!("{{{known}}}")).collect::<Vec<_>>().join(", ");
            format!("is {text:?}: {{{name}}} is none of {all}")
        }
    }
}
