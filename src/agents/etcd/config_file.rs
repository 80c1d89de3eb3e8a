//! etcd's settings from a file (`--config-file`): YAML whose names are those of the flags. Pure.
//!
//! As in etcd the file counts alone: flags and environment variables beside it are not looked at. A
//! name that is no setting is refused, since what it was to close would stay open.

use std::collections::BTreeMap;

use serde_yaml::Value;

/// The sections about TLS, and what stands before the names of their settings as flags.
const SECTIONS: [(&str, &str); 2] =
    [("client-transport-security", ""), ("peer-transport-security", "peer-")];

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It is no YAML.
    #[error("the file is no YAML")]
    Yaml(#[source] serde_yaml::Error),
    /// It is YAML of another form.
    #[error("the file is no list of settings such as `name: node1`")]
    Form,
    /// A setting that there is not.
    #[error("`{name}` is no setting of etcd; correct it or leave it out")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// A setting with something else than a word, a number or a list of words.
    #[error("`{name}` is neither a word nor a number nor a list of them")]
    Value {
        /// Its name.
        name: String,
    },
}

/// Reads settings; `known` tells whether a name is one of a flag.
pub fn read(
    text: &str,
    known: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, String>, ConfigFileError> {
    let parsed: Value = serde_yaml::from_str(text).map_err(ConfigFileError::Yaml)?;
    let mut settings = BTreeMap::new();
    for (name, value) in fields(&parsed)? {
        match SECTIONS.iter().find(|(section, _)| *section == name) {
            Some((_, prefix)) => {
                for (inner, value) in fields(value)? {
                    insert(&mut settings, format!("{prefix}{inner}"), value, &known)?;
                }
            }
            None => insert(&mut settings, name.to_owned(), value, &known)?,
        }
    }
    Ok(settings)
}

fn fields(value: &Value) -> Result<Vec<(&str, &Value)>, ConfigFileError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Mapping(fields) => fields
            .iter()
            .map(|(name, value)| Ok((name.as_str().ok_or(ConfigFileError::Form)?, value)))
            .collect(),
        Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Sequence(_)
        | Value::Tagged(_) => Err(ConfigFileError::Form),
    }
}

fn insert(
    settings: &mut BTreeMap<String, String>,
    name: String,
    value: &Value,
    known: impl Fn(&str) -> bool,
) -> Result<(), ConfigFileError> {
    if !known(&name) {
        return Err(ConfigFileError::Unknown { name });
    }
    match words(value) {
        None => Err(ConfigFileError::Value { name }),
        // As with flags: what is empty is not given.
        Some(words) if words.is_empty() => Ok(()),
        Some(words) => {
            settings.insert(name, words);
            Ok(())
        }
    }
}

fn words(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => String::new(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Sequence(list) => list.iter().map(words).collect::<Option<Vec<_>>>()?.join(","),
        Value::Mapping(_) | Value::Tagged(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = ["name", "snapshot-count", "cors", "cert-file", "peer-cert-file"];

    fn read_it(text: &str) -> Result<BTreeMap<String, String>, ConfigFileError> {
        read(text, |name| KNOWN.contains(&name))
    }

    #[test]
    fn settings_are_named_as_flags_are() {
        let read = read_it(
            "name: 'n1'\nsnapshot-count: 5000\ncors: [a, b]\n\
             client-transport-security:\n  cert-file: c\n  \n\
             peer-transport-security:\n  cert-file: p\n",
        );
        let expected = [
            ("name", "n1"),
            ("snapshot-count", "5000"),
            ("cors", "a,b"),
            ("cert-file", "c"),
            ("peer-cert-file", "p"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read.unwrap(), BTreeMap::from(expected));
        assert_eq!(read_it("# nothing\n").unwrap(), BTreeMap::new());
        assert_eq!(read_it("name:\n").unwrap(), BTreeMap::new());
    }

    #[test]
    fn what_is_no_setting_is_named() {
        let refused = read_it("client-transport-security:\n  cert-fil: c\n").unwrap_err();
        assert!(refused.to_string().contains("`cert-fil` is no setting"), "{refused}");
        let refused = read_it("name: {a: b}\n").unwrap_err();
        assert!(refused.to_string().contains("`name` is neither"), "{refused}");
        assert!(matches!(read_it("- name\n"), Err(ConfigFileError::Form)));
        assert!(matches!(read_it("name: [\n"), Err(ConfigFileError::Yaml(_))));
    }
}
