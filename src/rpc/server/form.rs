//! Forms and queries as Go reads them: what its `net/url` and `mime` refuse is refused here, in the
//! same words, since clients see them. Pure.

/// The one kind of body that has parameters.
const FORM: &str = "application/x-www-form-urlencoded";

/// Why a form, a query or a content type cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormError {
    /// A `%` without two hex digits behind it.
    #[error("invalid URL escape \"{0}\"")]
    Escape(String),
    /// Parameters with a `;` between them.
    #[error("invalid semicolon separator in query")]
    Semicolon,
    /// A content type that does not begin with a word.
    #[error("mime: no media type")]
    NoMediaType,
    /// A content type whose first word is followed by something else than `/`.
    #[error("mime: expected slash after first token")]
    NoSlash,
    /// A content type without a word behind the `/`.
    #[error("mime: expected token after slash")]
    NoSubtype,
    /// A content type with more than two words before its parameters.
    #[error("mime: unexpected content after media subtype")]
    Trailing,
}

/// Reads `a=1&b=2`. What is no UTF-8 becomes U+FFFD, as it does in etcd's answers.
pub(super) fn pairs(text: &[u8]) -> Result<Vec<(String, String)>, FormError> {
    let mut found = Vec::new();
    for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        if pair.contains(&b';') {
            return Err(FormError::Semicolon);
        }
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let mut half = || unescape(halves.next().unwrap_or_default());
        found.push((half()?, half()?));
    }
    Ok(found)
}

/// Tells whether a body of this content type is a form.
pub(super) fn is_form(content_type: Option<&str>) -> Result<bool, FormError> {
    let Some(content_type) = content_type.filter(|kind| !kind.is_empty()) else { return Ok(false) };
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let token = |text: &str| text.find(|c| !is_token(c)).unwrap_or(text.len());
    let (first, rest) = kind.split_at(token(&kind));
    if first.is_empty() {
        return Err(FormError::NoMediaType);
    }
    if !rest.is_empty() {
        let rest = rest.strip_prefix('/').ok_or(FormError::NoSlash)?;
        match token(rest) {
            0 => return Err(FormError::NoSubtype),
            end if end < rest.len() => return Err(FormError::Trailing),
            _ => {}
        }
    }
    Ok(kind == FORM)
}

/// Tells whether each `%` of a path has two hex digits behind it.
pub(super) fn is_path(text: &str) -> bool {
    let mut parts = text.split('%');
    parts.next();
    parts.all(|part| {
        part.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
    })
}

fn is_token(c: char) -> bool {
    c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c)
}

fn unescape(text: &[u8]) -> Result<String, FormError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let escape = &text[at..text.len().min(at + 3)];
                let wrong = || FormError::Escape(String::from_utf8_lossy(escape).into_owned());
                bytes.push(escaped(escape).ok_or_else(wrong)?);
                at += 2;
            }
            byte => bytes.push(*byte),
        }
        at += 1;
    }
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Reads `%41`.
fn escaped(escape: &[u8]) -> Option<u8> {
    let [_, high, low] = escape else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, FormError> {
        pairs(text.as_bytes())
    }

    #[test]
    fn a_form_is_read_as_go_reads_it() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (text, expected) in [
            ("value=a+b%20c%2B", vec![pair("value", "a b c+")]),
            ("&&value&=x&a=b=c&", vec![pair("value", ""), pair("", "x"), pair("a", "b=c")]),
            ("v=%ff%C3%A4", vec![pair("v", "\u{fffd}ä")]),
            ("", vec![]),
        ] {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_broken_form_is_refused_in_the_words_of_go() {
        for (text, said) in [
            ("a=%zz", "invalid URL escape \"%zz\""),
            ("a=%2", "invalid URL escape \"%2\""),
            ("%=1", "invalid URL escape \"%\""),
            ("a=1;b=2", "invalid semicolon separator in query"),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), said, "{text}");
        }
    }

    #[test]
    fn only_a_form_is_a_form() {
        for (kind, expected) in [
            (None, Ok(false)),
            (Some(""), Ok(false)),
            (Some("text/plain"), Ok(false)),
            (Some("application/x-www-form-urlencodedx"), Ok(false)),
            (Some("APPLICATION/X-WWW-FORM-URLENCODED"), Ok(true)),
            (Some("application/x-www-form-urlencoded ; charset=utf-8"), Ok(true)),
            (Some("/x"), Err(FormError::NoMediaType)),
            (Some("a b"), Err(FormError::NoSlash)),
            (Some("bad/;;"), Err(FormError::NoSubtype)),
            (Some("a/b/c"), Err(FormError::Trailing)),
        ] {
            assert_eq!(is_form(kind), expected, "{kind:?}");
        }
    }

    #[test]
    fn a_path_with_half_an_escape_is_none() {
        assert!(is_path("/a%20b") && is_path("/") && is_path("/a%ff"));
        assert!(!is_path("/%") && !is_path("/%z0") && !is_path("/a%2"));
    }
}
