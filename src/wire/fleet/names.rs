//! Names of units: which are allowed, what a template and an instance are, specifiers.

use std::fmt;
use std::str::FromStr;

/// Longest name that fleet's server accepts, in characters.
pub const NAME_CHARS_MAX: usize = 256;

/// Suffixes that the server accepts.
const SUFFIXES: [&str; 13] = [
    "automount",
    "busname",
    "device",
    "mount",
    "path",
    "scope",
    "service",
    "slice",
    "snapshot",
    "socket",
    "swap",
    "target",
    "timer",
];

/// Suffixes that may have an `@` before them.
const SUFFIXES_OF_INSTANCES: [&str; 5] = ["path", "service", "socket", "target", "timer"];

/// Suffixes that `fleetctl` takes as they are; to anything else it appends `.service`.
const SUFFIXES_OF_FILES: [&str; 7] =
    ["service", "socket", "timer", "path", "device", "mount", "automount"];

/// The name of a unit of the cluster, such as `web@1.service`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName(String);

/// A name that the server refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("unit name cannot be empty")]
    Empty,
    /// Too many characters.
    #[error("unit name exceeds maximum of {NAME_CHARS_MAX} characters")]
    TooLong,
    /// No suffix.
    #[error("unit name `{0}` must contain a dot; write for example `{0}.service`")]
    NoDot(String),
    /// An empty suffix.
    #[error("unit name `{0}` cannot end in a dot")]
    EndsInDot(String),
    /// No prefix.
    #[error("unit name `{0}` cannot start in \"@\"")]
    StartsWithAt(String),
    /// A character that systemd would not take.
    #[error(
        "unit name `{name}` has the invalid character {bad:?}; letters, digits and `:-_.\\@` are valid"
    )]
    BadCharacter {
        /// The name.
        name: String,
        /// The first such character.
        bad: char,
    },
    /// A suffix that systemd does not know.
    #[error("unit name `{name}` has the unknown suffix `.{suffix}`")]
    BadSuffix {
        /// The name.
        name: String,
        /// What stands after the last dot.
        suffix: String,
    },
}

impl UnitName {
    /// Checks a name as the server does.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let owned = || name.to_owned();
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.chars().count() > NAME_CHARS_MAX {
            return Err(NameError::TooLong);
        }
        let (stem, suffix) = name.rsplit_once('.').ok_or_else(|| NameError::NoDot(owned()))?;
        if suffix.is_empty() {
            return Err(NameError::EndsInDot(owned()));
        }
        if stem.starts_with('@') {
            return Err(NameError::StartsWithAt(owned()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if let Some(bad) = stem.chars().find(|c| !allowed(*c)) {
            return Err(NameError::BadCharacter { name: owned(), bad });
        }
        let known = if stem.contains('@') { &SUFFIXES_OF_INSTANCES[..] } else { &SUFFIXES[..] };
        if !known.contains(&suffix) {
            return Err(NameError::BadSuffix { name: owned(), suffix: suffix.to_owned() });
        }
        Ok(Self(owned()))
    }

    /// Returns the full name (`%n`).
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name without its suffix (`%N`).
    pub fn stem(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(stem, _)| stem)
    }

    /// Returns what stands after the last dot.
    pub fn suffix(&self) -> &str {
        self.0.rsplit_once('.').map_or("", |(_, suffix)| suffix)
    }

    /// Returns what stands before the first `@`, or the stem (`%p`).
    pub fn prefix(&self) -> &str {
        self.stem().split_once('@').map_or(self.stem(), |(prefix, _)| prefix)
    }

    /// Returns what stands after the first `@` (`%i`), if this is an instance.
    pub fn instance(&self) -> Option<&str> {
        self.stem().split_once('@').map(|(_, instance)| instance).filter(|it| !it.is_empty())
    }

    /// Tells whether this is a template, which cannot run.
    pub fn is_template(&self) -> bool {
        self.stem().split_once('@').is_some_and(|(_, instance)| instance.is_empty())
    }

    /// Returns the template of an instance, or a template itself.
    pub fn template(&self) -> Option<Self> {
        let (prefix, _) = self.stem().split_once('@')?;
        Some(Self(format!("{prefix}@.{}", self.suffix())))
    }

    /// Replaces `%n`, `%N`, `%p` and `%i`; everything else stays as it is.
    pub fn expand(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let specifier = rest[at + 1..].chars().next();
            let value = match specifier {
                Some('n') => Some(self.as_str()),
                Some('N') => Some(self.stem()),
                Some('p') => Some(self.prefix()),
                Some('i') => Some(self.instance().unwrap_or_default()),
                _ => None,
            };
            out.push_str(value.unwrap_or("%"));
            rest = &rest[at + if value.is_some() { 2 } else { 1 }..];
        }
        out.push_str(rest);
        out
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UnitName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::parse(name)
    }
}

/// Makes a unit's name of what a person typed: the base name of a path, with `.service` appended
/// where the type is none of those that people write files of.
pub fn mangle(typed: &str) -> String {
    let base = typed.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match base.rsplit_once('.') {
        Some((_, suffix)) if SUFFIXES_OF_FILES.contains(&suffix) => base.to_owned(),
        _ => format!("{base}.service"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_of_names_holds() {
        let none: Option<&str> = None;
        for (name, stem, prefix, template, instance) in [
            ("foo.service", "foo", "foo", none, none),
            ("foo@.service", "foo@", "foo", Some("foo@.service"), none),
            ("foo@bar.service", "foo@bar", "foo", Some("foo@.service"), Some("bar")),
            ("foo@bar@baz.service", "foo@bar@baz", "foo", Some("foo@.service"), Some("bar@baz")),
            ("foo.1@2.service", "foo.1@2", "foo.1", Some("foo.1@.service"), Some("2")),
            ("ssh@1.socket", "ssh@1", "ssh", Some("ssh@.socket"), Some("1")),
        ] {
            let unit = UnitName::parse(name).unwrap();
            assert_eq!((unit.stem(), unit.prefix(), unit.instance()), (stem, prefix, instance));
            assert_eq!(unit.template().as_ref().map(UnitName::as_str), template);
            assert_eq!(unit.is_template(), instance.is_none() && template.is_some());
        }
    }

    #[test]
    fn bad_names_are_refused() {
        let long = format!("{}.service", "a".repeat(NAME_CHARS_MAX));
        for name in [
            "",
            "foo",
            "foo.",
            "@foo.service",
            "foo bar.service",
            "foo/bar.service",
            "foo.unknown",
            "foo@1.mount",
            "fo%o.service",
            long.as_str(),
        ] {
            assert!(UnitName::parse(name).is_err(), "{name}");
        }
        for name in ["a:b-c_d.e\\f.target", "x.snapshot", "x.busname", "x@y.timer"] {
            assert!(UnitName::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_people_type_becomes_a_name() {
        for (typed, name) in [
            ("foo", "foo.service"),
            ("foo.1", "foo.1.service"),
            ("dir/bar.socket", "bar.socket"),
            ("x.target", "x.target.service"),
            ("./a@1", "a@1.service"),
        ] {
            assert_eq!(mangle(typed), name);
        }
    }

    #[test]
    fn four_specifiers_are_known() {
        let unit = UnitName::parse("foo@bar@baz.service").unwrap();
        assert_eq!(unit.expand("%p-%i|%n|%N"), "foo-bar@baz|foo@bar@baz.service|foo@bar@baz");
        assert_eq!(unit.expand("%H 100% %%"), "%H 100% %%");
    }

    proptest! {
        #[test]
        fn an_accepted_name_is_its_parts(name in "[a-z.@]{0,10}\\.(service|timer|mount)") {
            if let Ok(unit) = UnitName::parse(&name) {
                prop_assert_eq!(format!("{}.{}", unit.stem(), unit.suffix()), name);
                prop_assert!(unit.stem().starts_with(unit.prefix()));
                prop_assert_eq!(unit.expand("%n"), unit.as_str());
            }
        }
    }
}
