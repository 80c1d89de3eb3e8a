//! What is an ssh key: a line of `authorized_keys`. Pure.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Longest line, in bytes: `sshd` reads no longer ones.
pub const LINE_BYTES_MAX: usize = 8_192;

/// Key blobs are padded, but not by every tool.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A line that is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not an ssh key: a type such as `ssh-ed25519`, then its base64 text")]
pub struct BadKey {
    /// Its number, from 1.
    pub line: usize,
}

/// The lines of a text that are keys, and those that are not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// The keys, with their options and comments.
    pub keys: Vec<&'a str>,
    /// The others, save empty lines and comments.
    pub bad: Vec<BadKey>,
}

/// Sorts the lines of a text.
pub fn parse(text: &str) -> Parsed<'_> {
    let mut parsed = Parsed::default();
    for (number, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if is_key(line) {
            parsed.keys.push(line);
        } else {
            parsed.bad.push(BadKey { line: number + 1 });
        }
    }
    parsed
}

/// Tells whether a line is a key: `[OPTIONS] TYPE BASE64 [COMMENT]`, where what the base64 text
/// stands for begins with the type again.
fn is_key(line: &str) -> bool {
    if line.len() > LINE_BYTES_MAX || line.contains('\0') {
        return false;
    }
    is_plain_key(line) || after_options(line).is_some_and(is_plain_key)
}

fn is_plain_key(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let (Some(kind), Some(blob)) = (words.next(), words.next()) else { return false };
    let Ok(blob) = BASE64.decode(blob) else { return false };
    let Some((length, rest)) = blob.split_first_chunk::<4>() else { return false };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    // A key is more than its type.
    rest.len() > length && rest.get(..length) == Some(kind.as_bytes())
}

/// Returns what follows the options, in which a space counts only outside of quotes.
fn after_options(line: &str) -> Option<&str> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => return Some(line[at..].trim_start()),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Real keys that nobody has the other half of.
    pub(crate) const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1tT1o7ZC8yxvR5Yk1UQ0h0d2c0bDhqUHZ4Zm5yc3V2 core@a";
    pub(crate) const OTHER: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJi b";

    #[test]
    fn a_key_may_have_options_and_a_comment() {
        let with_options = format!("command=\"echo \\\"a b\\\"\",no-pty {ED25519}");
        let no_comment = ED25519.rsplit_once(' ').unwrap().0;
        for line in [ED25519, &with_options, no_comment] {
            assert_eq!(parse(line), Parsed { keys: vec![line], bad: vec![] }, "{line}");
        }
    }

    #[test]
    fn what_is_no_key_is_told_by_its_line() {
        let type_differs = ED25519.replace("ssh-ed25519 ", "ssh-rsa ");
        let cut = &ED25519[..20];
        for bad in ["hello", "ssh-rsa", "ssh-rsa AAAA", "root:x:0:0:root:/root", cut, &type_differs]
        {
            let text = format!("# keys\n\n{bad}\n{ED25519}\r\n");
            let parsed = parse(&text);
            assert_eq!(parsed.bad, [BadKey { line: 3 }], "{bad}");
            assert_eq!(parsed.keys, [ED25519]);
        }
    }
}
