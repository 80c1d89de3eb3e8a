//! Globs as Go's `path.Match` has them: `*` and `?` stop at `/`, `[a-z]`, `[^a-z]`, `\` quotes.

/// Tells whether all of `name` fits `pattern`. A pattern that makes no sense fits nothing.
///
/// Takes time in proportion to both lengths: only the last star is ever taken up again.
pub fn matches(pattern: &str, name: &str) -> bool {
    let literal = pattern.find(['*', '?', '[', '\\']).unwrap_or(pattern.len());
    if !name.starts_with(&pattern[..literal]) {
        return false;
    }
    let Some(pattern) = parse(pattern) else { return false };
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut next) = (0, 0);
    // Where to go on if what follows the last star does not fit: after the star, one further.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let fits = match (pattern.get(at), name.get(next)) {
            (None, None) => return true,
            (Some(Piece::Star), _) => {
                retry = Some((at + 1, next));
                at += 1;
                continue;
            }
            (Some(piece), Some(c)) => piece.fits(*c),
            (Some(_), None) | (None, Some(_)) => false,
        };
        if fits {
            (at, next) = (at + 1, next + 1);
            continue;
        }
        match retry {
            Some((after, from)) if name.get(from).is_some_and(|c| *c != '/') => {
                retry = Some((after, from + 1));
                (at, next) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// One step of a pattern.
#[derive(Debug)]
enum Piece {
    Char(char),
    Any,
    Star,
    Class { not: bool, ranges: Vec<(char, char)> },
}

impl Piece {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::Any => c != '/',
            Self::Star => false,
            Self::Class { not, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *not
            }
        }
    }
}

fn parse(pattern: &str) -> Option<Vec<Piece>> {
    let mut chars = pattern.chars().peekable();
    let mut pieces = Vec::new();
    while let Some(c) = chars.next() {
        pieces.push(match c {
            '*' => Piece::Star,
            '?' => Piece::Any,
            '\\' => Piece::Char(chars.next()?),
            '[' => class(&mut chars)?,
            other => Piece::Char(other),
        });
    }
    Some(pieces)
}

/// Parses what follows a `[`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Piece> {
    let not = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if chars.peek() == Some(&']') && !ranges.is_empty() {
            chars.next();
            return Some(Piece::Class { not, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_of_patterns_holds() {
        for (pattern, name, fits) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[]a]", "a", false),
            ("[-]", "-", false),
            ("[x-]", "x", false),
            ("[", "a", false),
            ("a[", "a", false),
            ("\\", "\\", false),
            ("*x", "xxx", true),
            ("", "", true),
            ("", "a", false),
            ("example@*.service", "example@1.service", true),
            ("example@*.service", "example@.service", true),
            ("example@*.service", "other@1.service", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "`{pattern}` on `{name}`");
        }
    }

    proptest! {
        #[test]
        fn every_name_fits_itself_with_stars_put_in(name in "[a-z@.0-9]{0,20}", at in 0usize..20) {
            let at = at.min(name.len());
            let pattern = format!("{}*{}", &name[..at], &name[at..]);
            prop_assert!(matches(&name, &name));
            prop_assert!(matches(&pattern, &name));
        }
    }
}
