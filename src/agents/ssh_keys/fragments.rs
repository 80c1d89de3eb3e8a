//! What a change makes of a user's fragments, and `authorized_keys` of them. Pure.

use std::collections::BTreeMap;
use std::fmt;

use crate::agents::ssh_keys::keys::{self, BadKey};

/// The fragment that keeps what was in `authorized_keys` before there were any.
pub const OLD: &str = "old_authorized_keys";

/// Longest fragment, in bytes: thousands of keys.
pub const FRAGMENT_BYTES_MAX: usize = 1 << 20;

/// What stands first in `authorized_keys`.
const HEADER: &str = "# made by update-ssh-keys from authorized_keys.d, which is what to change\n";

/// The name of a fragment, which is a file's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// Parses a name: no `/`, no control characters, no `.` in front.
    pub fn parse(name: &str) -> Result<Self, Refusal> {
        let bad = |c: char| c == '/' || c.is_control();
        if name.is_empty() || name.len() > 200 || name.starts_with('.') || name.contains(bad) {
            return Err(Refusal::BadName { name: name.to_owned() });
        }
        Ok(Self(name.to_owned()))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What to do with the fragments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing: make `authorized_keys` anew.
    Nothing,
    /// Set a fragment's keys.
    Add {
        /// The fragment.
        name: Name,
        /// Its keys, a line each.
        text: String,
        /// What to do where it is there already.
        existing: Existing,
    },
    /// Forget a fragment.
    Delete(Name),
    /// Empty a fragment, so that it is not added again.
    Disable(Name),
}

/// What to do with a fragment that is there before it is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Replace its keys, unless it is disabled.
    Replace,
    /// Leave it.
    Keep,
    /// Replace its keys, and enable it.
    Force,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was made, or there was nothing to change.
    Done,
    /// The fragment is there and was left.
    Kept,
    /// The fragment is disabled and stays so.
    Disabled,
}

/// A change that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name is none.
    #[error("`{}` is not a name for keys: no `/`, no `.` in front", name.escape_debug())]
    BadName {
        /// What was given.
        name: String,
    },
    /// One of the keys is none.
    #[error("the keys of `{name}` cannot be added")]
    BadKey {
        /// The fragment.
        name: Name,
        /// Which line.
        source: BadKey,
    },
    /// There are no keys to add.
    #[error("there is no key to add as `{name}`")]
    NoKey {
        /// The fragment.
        name: Name,
    },
    /// Too much was given.
    #[error("the keys of `{name}` are longer than {FRAGMENT_BYTES_MAX} bytes")]
    TooLong {
        /// The fragment.
        name: Name,
    },
    /// There is no such fragment.
    #[error("there are no keys named `{name}`; `-l` lists those there are")]
    NotFound {
        /// What was asked for.
        name: Name,
    },
    /// Nobody could log in any more.
    #[error("not one key would be left, so nothing was changed; `--force` does it all the same")]
    Empty,
}

/// A user's fragments: their texts, empty where disabled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragments(pub BTreeMap<Name, String>);

impl Fragments {
    /// Makes a change.
    pub fn apply(&mut self, change: Change) -> Result<Outcome, Refusal> {
        match change {
            Change::Nothing => Ok(Outcome::Done),
            Change::Add { name, text, existing } => self.add(name, &text, existing),
            Change::Delete(name) => match self.0.remove(&name) {
                Some(_) => Ok(Outcome::Done),
                None => Err(Refusal::NotFound { name }),
            },
            Change::Disable(name) => {
                self.0.insert(name, String::new());
                Ok(Outcome::Done)
            }
        }
    }

    fn add(&mut self, name: Name, text: &str, existing: Existing) -> Result<Outcome, Refusal> {
        if text.len() > FRAGMENT_BYTES_MAX {
            return Err(Refusal::TooLong { name });
        }
        let parsed = keys::parse(text);
        if let Some(source) = parsed.bad.into_iter().next() {
            return Err(Refusal::BadKey { name, source });
        }
        if parsed.keys.is_empty() {
            return Err(Refusal::NoKey { name });
        }
        match (existing, self.0.get(&name).map(String::as_str)) {
            (Existing::Replace | Existing::Keep, Some("")) => return Ok(Outcome::Disabled),
            (Existing::Keep, Some(_)) => return Ok(Outcome::Kept),
            (Existing::Replace | Existing::Keep | Existing::Force, _) => {}
        }
        let mut text = parsed.keys.join("\n");
        text.push('\n');
        self.0.insert(name, text);
        Ok(Outcome::Done)
    }

    /// Takes over what `authorized_keys` said before there were fragments; only its keys, so
    /// that nothing else can leak through it.
    pub fn adopt(&mut self, authorized_keys: &str) {
        let parsed = keys::parse(authorized_keys);
        if !parsed.keys.is_empty() {
            self.0.insert(Name(OLD.to_owned()), parsed.keys.join("\n") + "\n");
        }
    }

    /// Makes the text of `authorized_keys`, and names the lines that were left out.
    pub fn render(&self) -> (String, Vec<(Name, BadKey)>) {
        let mut text = HEADER.to_owned();
        let mut bad = Vec::new();
        for (name, fragment) in &self.0 {
            let parsed = keys::parse(fragment);
            for key in parsed.keys {
                text.push_str(key);
                text.push('\n');
            }
            bad.extend(parsed.bad.into_iter().map(|line| (name.clone(), line)));
        }
        (text, bad)
    }

    /// Returns how many keys there are in all.
    pub fn key_count(&self) -> usize {
        self.counts().map(|(_, count)| count).sum()
    }

    /// Returns the fragments by name, with how many keys each has; a disabled one has none.
    pub fn counts(&self) -> impl Iterator<Item = (&Name, usize)> {
        self.0.iter().map(|(name, text)| (name, keys::parse(text).keys.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::ssh_keys::keys::tests::{ED25519, OTHER};

    fn name(name: &str) -> Name {
        Name::parse(name).unwrap()
    }

    fn add(of: &str, text: &str, existing: Existing) -> Change {
        Change::Add { name: name(of), text: text.to_owned(), existing }
    }

    #[test]
    fn authorized_keys_is_the_sum_of_the_fragments_by_name() {
        let mut fragments = Fragments::default();
        fragments.apply(add("b", OTHER, Existing::Replace)).unwrap();
        fragments.apply(add("a", &format!("# x\n{ED25519}\n"), Existing::Replace)).unwrap();
        assert_eq!(fragments.render(), (format!("{HEADER}{ED25519}\n{OTHER}\n"), vec![]));
        fragments.apply(Change::Delete(name("a"))).unwrap();
        assert_eq!(fragments.key_count(), 1);
        let gone = fragments.apply(Change::Delete(name("a"))).unwrap_err();
        assert_eq!(gone, Refusal::NotFound { name: name("a") });
    }

    #[test]
    fn a_fragment_is_replaced_unless_it_is_to_be_kept() {
        let mut fragments = Fragments::default();
        fragments.apply(add("a", ED25519, Existing::Keep)).unwrap();
        let kept = fragments.apply(add("a", OTHER, Existing::Keep));
        assert_eq!(kept, Ok(Outcome::Kept));
        assert!(fragments.render().0.contains(ED25519));
        fragments.apply(add("a", OTHER, Existing::Replace)).unwrap();
        assert!(!fragments.render().0.contains(ED25519));
    }

    #[test]
    fn a_disabled_fragment_comes_back_only_by_force() {
        let mut fragments = Fragments::default();
        fragments.apply(add("a", ED25519, Existing::Replace)).unwrap();
        fragments.apply(Change::Disable(name("a"))).unwrap();
        let refused = fragments.apply(add("a", ED25519, Existing::Replace));
        assert_eq!(refused, Ok(Outcome::Disabled));
        assert_eq!(fragments.key_count(), 0);
        fragments.apply(add("a", ED25519, Existing::Force)).unwrap();
        assert_eq!(fragments.key_count(), 1);
    }

    #[test]
    fn one_bad_key_refuses_them_all_and_so_does_none() {
        let mut fragments = Fragments::default();
        let bad = fragments.apply(add("a", &format!("{ED25519}\nnonsense\n"), Existing::Force));
        assert_eq!(bad, Err(Refusal::BadKey { name: name("a"), source: BadKey { line: 2 } }));
        let none = fragments.apply(add("a", "# nothing\n", Existing::Force));
        assert_eq!(none, Err(Refusal::NoKey { name: name("a") }));
        assert_eq!(fragments, Fragments::default());
    }

    #[test]
    fn what_was_there_before_is_kept_without_what_is_no_key() {
        let mut fragments = Fragments::default();
        fragments.adopt(&format!("root:x:0:0\n{ED25519}\n"));
        assert_eq!(fragments.0[&name(OLD)], format!("{ED25519}\n"));
    }

    #[test]
    fn a_bad_line_in_a_fragment_is_left_out_and_named() {
        let fragments = Fragments(BTreeMap::from([(name("a"), format!("junk\n{ED25519}\n"))]));
        let (text, bad) = fragments.render();
        assert_eq!(text, format!("{HEADER}{ED25519}\n"));
        assert_eq!(bad, [(name("a"), BadKey { line: 1 })]);
    }

    #[test]
    fn a_name_that_would_leave_the_folder_is_refused() {
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "a\nb"] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }
}
