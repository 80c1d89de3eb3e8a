//! What is wrong with user-data, said with line numbers, before any machine reads it.

use std::fmt;

use serde::Serialize;

use super::config::{self, ConfigError};
use super::content;
use super::patterns;
use super::schema::{self, Field, Type};
use super::user_data::{self, UserData};
use super::yaml::{self, Node, Simple, Value};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It cannot work.
    Error,
    /// It does nothing, or not for long.
    Warning,
    /// It may not be meant.
    Info,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub kind: Kind,
    /// Its line, counted from 1.
    pub line: usize,
    /// What it is.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Error => "error",
            Kind::Warning => "warning",
            Kind::Info => "info",
        };
        write!(f, "line {}: {kind}: {}", self.line, self.message)
    }
}

/// Looks at user-data of any kind; scripts and Ignition configs pass.
pub fn user_data(text: &str) -> Vec<Finding> {
    match user_data::kind(text.to_owned()) {
        UserData::Empty | UserData::Script(_) | UserData::Ignition => Vec::new(),
        UserData::CloudConfig(text) => cloud_config(&text),
        UserData::Unrecognized(_) => {
            let message = "must be \"#cloud-config\" or begin with \"#!\"".to_owned();
            vec![Finding { kind: Kind::Error, line: 1, message }]
        }
    }
}

/// Looks at a cloud-config, rule by rule.
pub fn cloud_config(text: &str) -> Vec<Finding> {
    let tree = match yaml::parse(text) {
        Ok(tree) => tree,
        Err(error) => {
            let message = error.message;
            return vec![Finding { kind: Kind::Error, line: error.line, message }];
        }
    };
    let mut findings = Findings::default();
    findings.discovery(&tree);
    findings.encoding(&tree);
    findings.top(&tree);
    findings.validity(&tree, schema::CLOUD_CONFIG);
    findings.read_only(&tree);
    findings.misplaced(&tree);
    findings.hosts(&tree);
    findings.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, kind: Kind, line: usize, message: impl Into<String>) {
        self.0.push(Finding { kind, line, message: message.into() });
    }

    fn discovery(&mut self, tree: &Node) {
        let found = tree.get("coreos").and_then(|coreos| coreos.get("etcd")?.entry("discovery"));
        let Some(entry) = found else { return };
        match entry.node.text() {
            Some(url) if !url.is_empty() && !patterns::discovery_url(&url) => {
                self.add(Kind::Warning, entry.line, "discovery URL is not valid");
            }
            Some(_) | None => {}
        }
    }

    fn encoding(&mut self, tree: &Node) {
        for file in elements(tree, "write_files") {
            let Some(entry) = file.entry("encoding") else { continue };
            let content = file.get("content").and_then(Node::bytes).unwrap_or_default();
            let Some(encoding) = entry.node.text() else { continue };
            if let Err(error) = content::decode(content, &encoding) {
                self.add(Kind::Error, entry.line, error.to_string());
            }
        }
    }

    fn top(&mut self, tree: &Node) {
        match tree.value {
            Value::Null => {}
            Value::Map(_) => self.structure(tree, schema::CLOUD_CONFIG),
            Value::Plain(_) | Value::Quoted(_) | Value::Binary(_) | Value::List(_) => {
                self.add(Kind::Error, tree.line, "a cloud-config must be a map of keys");
            }
        }
    }

    fn structure(&mut self, node: &Node, fields: &[Field]) {
        for entry in node.entries() {
            let key = &entry.key;
            let Some(field) = fields.iter().find(|field| entry.is(field.name)) else {
                self.add(Kind::Warning, entry.line, format!("unrecognized key \"{key}\""));
                continue;
            };
            if let Some(reason) = field.deprecated {
                let message = format!("deprecated key \"{key}\" ({reason})");
                self.add(Kind::Warning, entry.line, message);
            }
            self.typed(&entry.node, Place { line: entry.line, key: key.clone() }, field.holds);
        }
    }

    fn typed(&mut self, node: &Node, place: Place, holds: Type) {
        if !fits(node, holds) {
            let Place { line, key } = place;
            let wanted = holds.name();
            let message = format!("incorrect type for \"{key}\" (want {wanted})");
            self.add(Kind::Warning, line, message);
            return;
        }
        match holds {
            Type::Struct(fields) => self.structure(node, fields),
            Type::Texts => self.each(node, &place.key, Type::Text),
            Type::Structs(fields) => self.each(node, &place.key, Type::Struct(fields)),
            Type::Text | Type::Flag | Type::Integer | Type::Float => {}
        }
    }

    fn each(&mut self, list: &Node, key: &str, holds: Type) {
        for (at, element) in list.elements().iter().enumerate() {
            let place = Place { line: element.line, key: format!("{key}[{at}]") };
            self.typed(element, place, holds);
        }
    }

    fn validity(&mut self, node: &Node, fields: &[Field]) {
        for field in fields {
            let Some(entry) = node.entry(field.name) else { continue };
            match (field.holds, field.accepts) {
                (Type::Struct(fields), _) => self.validity(&entry.node, fields),
                (Type::Structs(fields), _) => {
                    let list = entry.node.elements();
                    for element in list {
                        self.validity(element, fields);
                    }
                }
                (_, Some(accepts)) => {
                    let value = entry.node.text().unwrap_or_default();
                    if !value.is_empty() && !accepts(&value) {
                        self.add(Kind::Error, entry.line, format!("invalid value {value}"));
                    }
                }
                (Type::Text | Type::Flag | Type::Integer | Type::Float | Type::Texts, None) => {}
            }
        }
    }

    fn read_only(&mut self, tree: &Node) {
        for file in elements(tree, "write_files") {
            let Some(entry) = file.entry("path") else { continue };
            let path = config::clean(&entry.node.text().unwrap_or_default());
            if path.starts_with("/usr") {
                let message = "file cannot be written to a read-only filesystem";
                self.add(Kind::Error, entry.line, message);
            }
        }
    }

    fn misplaced(&mut self, tree: &Node) {
        let found = tree.get("coreos").and_then(|coreos| coreos.entry("write_files"));
        if let Some(entry) = found {
            self.add(Kind::Info, entry.line, "write_files doesn't belong under coreos");
        }
    }

    /// Nothing that is applied as an error may pass here.
    fn hosts(&mut self, tree: &Node) {
        if let Err(ConfigError::Hosts { line, value }) = config::manage_etc_hosts(tree) {
            self.add(Kind::Error, line, format!("invalid value {value}"));
        }
    }
}

struct Place {
    line: usize,
    key: String,
}

fn elements<'a>(tree: &'a Node, key: &str) -> &'a [Node] {
    tree.get(key).map_or(&[], Node::elements)
}

fn fits(node: &Node, holds: Type) -> bool {
    let simple = match &node.value {
        Value::Plain(text) => yaml::simple(text),
        Value::Null | Value::Quoted(_) | Value::Binary(_) | Value::List(_) | Value::Map(_) => {
            Simple::Text
        }
    };
    match (holds, &node.value) {
        (_, Value::Null)
        | (Type::Struct(_), Value::Map(_))
        | (Type::Texts | Type::Structs(_), Value::List(_)) => true,
        (Type::Text, value) => !matches!(value, Value::List(_) | Value::Map(_)),
        (Type::Flag, _) => matches!(simple, Simple::Bool(_)),
        (Type::Integer, _) => matches!(simple, Simple::Integer(_)),
        (Type::Float, _) => matches!(simple, Simple::Integer(_) | Simple::Float(_)),
        (Type::Struct(_) | Type::Texts | Type::Structs(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        cloud_config(text).iter().map(Finding::to_string).collect()
    }

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(findings(text), expected, "{text}");
    }

    #[test]
    fn only_what_is_in_the_schema_is_recognized() {
        check("test:", &["line 1: warning: unrecognized key \"test\""]);
        check("coreos:\n  flannel:\n    bad:", &["line 3: warning: unrecognized key \"bad\""]);
        check("coreos:\n  flannel:\n    interface: good", &[]);
    }

    #[test]
    fn what_is_deprecated_is_said_with_its_reason() {
        let found = findings("coreos:\n  etcd:\n    proxy: hi");
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("line 2: warning: deprecated key \"etcd\" ("), "{found:?}");
        assert!(found[1].starts_with("line 3: warning: deprecated key \"proxy\" ("), "{found:?}");
    }

    #[test]
    fn units_are_structs() {
        check(
            "coreos:\n  units:\n    - hi\n    - there",
            &[
                "line 3: warning: incorrect type for \"units[0]\" (want struct)",
                "line 4: warning: incorrect type for \"units[1]\" (want struct)",
            ],
        );
    }

    #[test]
    fn a_flag_is_a_bool() {
        check("coreos:\n  units:\n    - enable: true", &[]);
        let wrong = "line 3: warning: incorrect type for \"enable\" (want bool)";
        for value in ["4", "bad", "\n        bad:", "\n        - bad"] {
            check(&format!("coreos:\n  units:\n    - enable: {value}"), &[wrong]);
        }
    }

    #[test]
    fn a_text_is_any_scalar() {
        for value in ["true", "4", "host"] {
            check(&format!("hostname: {value}"), &[]);
        }
        let wrong = "line 1: warning: incorrect type for \"hostname\" (want string)";
        for value in ["\n  name:", "\n  - name"] {
            check(&format!("hostname:{value}"), &[wrong]);
        }
    }

    #[test]
    fn a_section_is_a_struct() {
        let wrong = "line 1: warning: incorrect type for \"coreos\" (want struct)";
        for value in [" true", " 4", " hello", "\n  - hello"] {
            check(&format!("coreos:{value}"), &[wrong]);
        }
    }

    #[test]
    fn keys_are_a_list_of_texts() {
        let wrong = "line 1: warning: incorrect type for \"ssh_authorized_keys\" (want []string)";
        for value in [" true", " 4", " key", "\n  key: value"] {
            check(&format!("ssh_authorized_keys:{value}"), &[wrong]);
        }
        check(
            "ssh_authorized_keys:\n  - key: value",
            &["line 2: warning: incorrect type for \"ssh_authorized_keys[0]\" (want string)"],
        );
        check("ssh_authorized_keys:\n  - true\n  - 4\n  - key", &[]);
    }

    #[test]
    fn users_are_a_list_of_structs() {
        let wrong = "line 1: warning: incorrect type for \"users\" (want []struct)";
        for value in [" true", " 4", " bad", "\n  bad:"] {
            check(&format!("users:{value}"), &[wrong]);
        }
        for (value, line) in [("true", 3), ("4", 3), ("bad", 3), ("[bad]", 3)] {
            check(
                &format!("users:\n  - name: good\n  - {value}"),
                &[&format!("line {line}: warning: incorrect type for \"users[1]\" (want struct)")],
            );
        }
    }

    #[test]
    fn a_value_must_fit_its_pattern() {
        check("coreos:\n  units:\n    - command: lol", &["line 3: error: invalid value lol"]);
        let strategy = |value: &str| format!("coreos:\n  update:\n    reboot_strategy: {value}");
        check(&strategy("always"), &["line 3: error: invalid value always"]);
        check(&strategy("off"), &[]);
        check(&strategy("false"), &["line 3: error: invalid value false"]);
        for value in ["0744", "'0744'", "744", "'744'"] {
            check(&format!("write_files:\n  - permissions: {value}"), &[]);
        }
        check("manage_etc_hosts: all", &["line 1: error: invalid value all"]);
    }

    #[test]
    fn usr_cannot_be_written() {
        let wrong = "line 2: error: file cannot be written to a read-only filesystem";
        check("write_files:\n  - path: /usr/nowrite", &[wrong]);
        check("write_files:\n  - path: /tmp/../usr/nowrite", &[wrong]);
        check("write_files:\n  - path: /tmp/usr/ok", &[]);
        check("write_files:\n  - path: /usrlocal/ok", &[]);
    }

    #[test]
    fn discovery_needs_a_url() {
        let deprecated = "line 2: warning: deprecated key \"etcd\" (etcd 0.4 is no longer shipped; \
                          use etcd2)";
        let of = |url: &str| format!("coreos:\n  etcd:\n    discovery: {url}");
        let token = "https://discovery.etcd.io/00000000000000000000000000000000";
        check(&of(token), &[deprecated]);
        check(&of("http://custom.domain/mytoken"), &[deprecated]);
        check(&of("disco"), &["line 3: warning: discovery URL is not valid", deprecated]);
    }

    #[test]
    fn contents_must_be_what_their_encoding_says() {
        let of = |content: &str, encoding: &str| {
            format!("write_files:\n  - content: {content}\n    encoding: {encoding}")
        };
        let packed = "H4sIAAAAAAACAzMx4gIAMSmG0QMAAAA=";
        check(&of("aGVsbG8gd29ybGQ=", "base64"), &[]);
        check(&of(&format!("!!binary {packed}"), "gzip"), &[]);
        check(&of(packed, "gzip+base64"), &[]);
        let wrong =
            |encoding: &str| format!("line 3: error: content cannot be decoded as \"{encoding}\"");
        check(&of("!!binary aGVsbG8gd29ybGQK", "base64"), &[&wrong("base64")]);
        check(&of("hello", "custom"), &[&wrong("custom")]);
    }

    #[test]
    fn write_files_under_coreos_is_a_mistake_people_make() {
        check(
            "coreos:\n  write_files:\n    - path: /a",
            &[
                "line 2: warning: unrecognized key \"write_files\"",
                "line 2: info: write_files doesn't belong under coreos",
            ],
        );
    }

    #[test]
    fn what_is_no_yaml_has_one_finding() {
        check("a:\na", &["line 2: error: could not find expected ':'"]);
        check("#hello\na:\na", &["line 3: error: could not find expected ':'"]);
        check("\t", &["line 1: error: found character that cannot start any token"]);
        check("- a", &["line 1: error: a cloud-config must be a map of keys"]);
    }

    #[test]
    fn user_data_of_no_kind_is_an_error_and_of_another_kind_passes() {
        let of = |text: &str| user_data(text).iter().map(Finding::to_string).collect::<Vec<_>>();
        assert_eq!(of("{}"), ["line 1: error: must be \"#cloud-config\" or begin with \"#!\""]);
        for text in ["", "{\"ignitionVersion\":0}", "#!/bin/bash", "#cloud-config\nhostname: a"] {
            assert_eq!(of(text), Vec::<String>::new(), "{text}");
        }
        assert_eq!(of("#cloud-config\na:\na"), ["line 3: error: could not find expected ':'"]);
    }

    #[test]
    fn a_finding_can_be_json() {
        let finding = &cloud_config("test:")[0];
        assert_eq!(
            serde_json::to_string(finding).unwrap(),
            r#"{"kind":"warning","line":1,"message":"unrecognized key \"test\""}"#
        );
    }

    #[test]
    fn the_inputs_of_2015_have_no_findings() {
        for text in [
            include_str!("../../../testbed/inputs/cluster.yml"),
            include_str!("../../../testbed/inputs/worker.yml"),
            include_str!("../../../testbed/inputs/fleet-only.yml"),
            include_str!("../../../testbed/inputs/full.yml"),
        ] {
            assert_eq!(user_data(text), []);
        }
    }
}
