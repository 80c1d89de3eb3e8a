//! A cloud-config, decoded: if one exists, every value in it is of its type and pattern.

use std::path::{Component, Path, PathBuf};

use super::content::{self, Undecodable};
use super::schema::{self, Field, Type};
use super::yaml::{self, Node, Simple, Value, YamlError};

/// A whole cloud-config. Texts that were not given are empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CloudConfig {
    /// Keys for `core`.
    pub ssh_authorized_keys: Vec<String>,
    /// What belongs to the system's own services.
    pub coreos: CoreOs,
    /// Files to write, in this order.
    pub write_files: Vec<WriteFile>,
    /// The machine's name.
    pub hostname: String,
    /// Users to make, in this order.
    pub users: Vec<User>,
    /// `localhost` to write `/etc/hosts`.
    pub manage_etc_hosts: String,
}

/// `coreos`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CoreOs {
    /// What etcd 0.4 is told.
    pub etcd: Vec<Setting>,
    /// What etcd2 is told.
    pub etcd2: Vec<Setting>,
    /// What flannel is told.
    pub flannel: Vec<Setting>,
    /// What fleet is told.
    pub fleet: Vec<Setting>,
    /// What locksmith is told.
    pub locksmith: Vec<Setting>,
    /// Who made the image fit for its cloud.
    pub oem: Oem,
    /// Where updates come from and when the machine reboots.
    pub update: Update,
    /// Units to write, enable, mask and run, in this order.
    pub units: Vec<Unit>,
}

/// An environment variable of a service. Empty values, zero and false are never given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub variable: String,
    /// Its value.
    pub value: String,
}

/// `coreos.oem`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Oem {
    /// A word for the cloud.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// The version of what was added.
    pub version_id: String,
    /// Its page.
    pub home_url: String,
    /// Where its users complain.
    pub bug_report_url: String,
}

/// `coreos.update`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Lines of `update.conf`, sorted by name.
    pub settings: Vec<Setting>,
}

impl Update {
    /// Returns the reboot strategy, if one is given.
    pub fn reboot_strategy(&self) -> Option<&str> {
        self.get("REBOOT_STRATEGY")
    }

    /// Tells whether the update engine has to read its configuration again.
    pub fn moves_engine(&self) -> bool {
        self.get("GROUP").is_some() || self.get("SERVER").is_some()
    }

    fn get(&self, variable: &str) -> Option<&str> {
        let found = self.settings.iter().find(|setting| setting.variable == variable);
        found.map(|setting| setting.value.as_str())
    }
}

/// An element of `coreos.units`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// Its name, with suffix.
    pub name: String,
    /// Whether it is linked to nothing.
    pub mask: bool,
    /// Whether what its `[Install]` says is done.
    pub enable: bool,
    /// Whether it is gone after a reboot.
    pub runtime: bool,
    /// The unit file; empty to leave the one that is there.
    pub content: String,
    /// What to do with it; nothing if empty.
    pub command: String,
    /// Files that amend it.
    pub drop_ins: Vec<DropIn>,
}

/// A file that amends a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DropIn {
    /// Its name, with `.conf`.
    pub name: String,
    /// Its text.
    pub content: String,
}

/// An element of `users`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the schema's own")]
pub struct User {
    /// The login name.
    pub name: String,
    /// The hash of the password.
    pub passwd: String,
    /// The user's keys.
    pub ssh_authorized_keys: Vec<String>,
    /// GitHub users whose keys the user gets.
    pub github_users: Vec<String>,
    /// An address that lists keys.
    pub import_url: String,
    /// Who it is.
    pub gecos: String,
    /// The home folder.
    pub homedir: String,
    /// Whether there is no home folder.
    pub no_create_home: bool,
    /// The first group.
    pub primary_group: String,
    /// Other groups.
    pub groups: Vec<String>,
    /// Whether there is no group of the user's name.
    pub no_user_group: bool,
    /// Whether it is a user of the system.
    pub system: bool,
    /// Whether the login databases are left alone.
    pub no_log_init: bool,
    /// The login shell.
    pub shell: String,
}

/// An element of `write_files`, its encoding undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteFile {
    /// Where it goes.
    pub path: String,
    /// What it holds.
    pub content: Vec<u8>,
    /// `user[:group]`; empty for root.
    pub owner: String,
    /// Its permission bits.
    pub mode: u32,
}

/// The mode of a file that says none.
pub const FILE_MODE: u32 = 0o644;

/// A cloud-config cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is not YAML.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// A key holds something else than it must.
    #[error("line {line}: `{key}` must be {wanted}")]
    Type {
        /// The key's line.
        line: usize,
        /// The key.
        key: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// A key holds a text that it does not accept.
    #[error("line {line}: invalid value `{value}` for `{key}`")]
    Pattern {
        /// The value's line.
        line: usize,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// A file's content is not what its encoding says.
    #[error("line {line}: {undecodable}")]
    Content {
        /// The line of the encoding.
        line: usize,
        /// What it is not.
        undecodable: Undecodable,
    },
    /// `manage_etc_hosts` is not `localhost`.
    #[error("line {line}: `manage_etc_hosts` can only be `localhost`, not `{value}`")]
    Hosts {
        /// The value's line.
        line: usize,
        /// The value.
        value: String,
    },
}

impl ConfigError {
    /// Returns the line to look at.
    pub fn line(&self) -> usize {
        match self {
            Self::Yaml(error) => error.line,
            Self::Type { line, .. }
            | Self::Pattern { line, .. }
            | Self::Content { line, .. }
            | Self::Hosts { line, .. } => *line,
        }
    }
}

impl CloudConfig {
    /// Decodes a cloud-config; unknown keys are ignored.
    pub fn parse(source: &str) -> Result<Self, ConfigError> {
        let tree = yaml::parse(source)?;
        check_struct(&tree, "cloud-config", schema::CLOUD_CONFIG)?;
        let files = elements(&tree, "write_files");
        Ok(Self {
            ssh_authorized_keys: texts(&tree, "ssh_authorized_keys"),
            coreos: tree.get("coreos").map(coreos).unwrap_or_default(),
            write_files: files.iter().map(write_file).collect::<Result<_, _>>()?,
            hostname: text(&tree, "hostname"),
            users: elements(&tree, "users").iter().map(user).collect(),
            manage_etc_hosts: manage_etc_hosts(&tree)?,
        })
    }
}

fn check_struct(node: &Node, key: &str, fields: &[Field]) -> Result<(), ConfigError> {
    match &node.value {
        Value::Null => Ok(()),
        Value::Map(_) => fields.iter().try_for_each(|field| match node.entry(field.name) {
            Some(entry) => check(&entry.node, entry.line, field),
            None => Ok(()),
        }),
        Value::Plain(_) | Value::Quoted(_) | Value::Binary(_) | Value::List(_) => {
            Err(ConfigError::Type { line: node.line, key: key.to_owned(), wanted: "a map of keys" })
        }
    }
}

fn check(node: &Node, line: usize, field: &Field) -> Result<(), ConfigError> {
    let key = field.name;
    let wrong = |wanted| Err(ConfigError::Type { line, key: key.to_owned(), wanted });
    if node.value == Value::Null {
        return Ok(());
    }
    match field.holds {
        Type::Text => match node.text() {
            Some(value) => accepted(field, value, node.line),
            None => wrong("text"),
        },
        Type::Flag if flag(node).is_none() => wrong("`true` or `false`"),
        Type::Integer if integer(node).is_none() => wrong("a whole number"),
        Type::Float if float(node).is_none() => wrong("a number"),
        Type::Flag | Type::Integer | Type::Float => Ok(()),
        Type::Struct(fields) => check_struct(node, key, fields),
        Type::Texts => check_list(node, line, key, |element, key| match element.text() {
            Some(_) => Ok(()),
            None => Err(ConfigError::Type { line: element.line, key, wanted: "text" }),
        }),
        Type::Structs(fields) => {
            check_list(node, line, key, |element, key| check_struct(element, &key, fields))
        }
    }
}

fn check_list(
    node: &Node,
    line: usize,
    key: &str,
    each: impl Fn(&Node, String) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    let Value::List(list) = &node.value else {
        return Err(ConfigError::Type { line, key: key.to_owned(), wanted: "a list" });
    };
    let mut numbered = list.iter().enumerate();
    numbered.try_for_each(|(at, element)| each(element, format!("{key}[{at}]")))
}

fn accepted(field: &Field, value: String, line: usize) -> Result<(), ConfigError> {
    match field.accepts {
        Some(accepts) if !value.is_empty() && !accepts(&value) => {
            Err(ConfigError::Pattern { line, key: field.name, value })
        }
        Some(_) | None => Ok(()),
    }
}

/// A quoted number or truth value counts as what it says.
fn word(node: &Node) -> Option<Simple> {
    match &node.value {
        Value::Null => Some(Simple::Null),
        Value::Plain(text) | Value::Quoted(text) => Some(yaml::simple(text)),
        Value::Binary(_) | Value::List(_) | Value::Map(_) => None,
    }
}

fn flag(node: &Node) -> Option<bool> {
    match word(node)? {
        Simple::Bool(flag) => Some(flag),
        Simple::Null => Some(false),
        Simple::Integer(_) | Simple::Float(_) | Simple::Text => None,
    }
}

fn integer(node: &Node) -> Option<i64> {
    match word(node)? {
        Simple::Integer(integer) => Some(integer),
        Simple::Null => Some(0),
        Simple::Bool(_) | Simple::Float(_) | Simple::Text => None,
    }
}

fn float(node: &Node) -> Option<String> {
    match word(node)? {
        Simple::Integer(integer) => Some(integer.to_string()),
        Simple::Float(float) => Some(float.to_string()),
        Simple::Null => Some("0".to_owned()),
        Simple::Bool(_) | Simple::Text => None,
    }
}

fn text(node: &Node, key: &str) -> String {
    node.get(key).and_then(Node::text).unwrap_or_default()
}

fn texts(node: &Node, key: &str) -> Vec<String> {
    elements(node, key).iter().filter_map(Node::text).collect()
}

fn is_set(node: &Node, key: &str) -> bool {
    node.get(key).and_then(flag).unwrap_or_default()
}

fn elements<'a>(node: &'a Node, key: &str) -> &'a [Node] {
    node.get(key).map_or(&[], Node::elements)
}

fn coreos(node: &Node) -> CoreOs {
    let of = |key: &str, fields, prefix| {
        node.get(key).map(|node| settings(node, fields, prefix)).unwrap_or_default()
    };
    let mut update = of("update", schema::UPDATE, "");
    update.sort_by(|a, b| a.variable.cmp(&b.variable));
    CoreOs {
        etcd: of("etcd", schema::ETCD, "ETCD_"),
        etcd2: of("etcd2", schema::ETCD2, "ETCD_"),
        flannel: of("flannel", schema::FLANNEL, "FLANNELD_"),
        fleet: of("fleet", schema::FLEET, "FLEET_"),
        locksmith: of("locksmith", schema::LOCKSMITH, "LOCKSMITHD_"),
        oem: node.get("oem").map(oem).unwrap_or_default(),
        update: Update { settings: update },
        units: elements(node, "units").iter().map(unit).collect(),
    }
}

fn settings(node: &Node, fields: &[Field], prefix: &str) -> Vec<Setting> {
    let set = fields.iter().filter_map(|field| {
        let value = setting(node.get(field.name)?, field.holds)?;
        Some(Setting { variable: field.environment(prefix), value })
    });
    set.collect()
}

/// Returns what a service is told; `None` for the zero values.
fn setting(node: &Node, holds: Type) -> Option<String> {
    let value = match holds {
        Type::Flag => return flag(node)?.then(|| "true".to_owned()),
        Type::Integer => integer(node)?.to_string(),
        Type::Float => float(node)?,
        Type::Text | Type::Struct(_) | Type::Texts | Type::Structs(_) => {
            return Some(node.text()?).filter(|text| !text.is_empty());
        }
    };
    (value != "0").then_some(value)
}

fn oem(node: &Node) -> Oem {
    Oem {
        id: text(node, "id"),
        name: text(node, "name"),
        version_id: text(node, "version_id"),
        home_url: text(node, "home_url"),
        bug_report_url: text(node, "bug_report_url"),
    }
}

fn unit(node: &Node) -> Unit {
    let drop_in = |node: &Node| DropIn { name: text(node, "name"), content: text(node, "content") };
    Unit {
        name: text(node, "name"),
        mask: is_set(node, "mask"),
        enable: is_set(node, "enable"),
        runtime: is_set(node, "runtime"),
        content: text(node, "content"),
        command: text(node, "command"),
        drop_ins: elements(node, "drop_ins").iter().map(drop_in).collect(),
    }
}

fn user(node: &Node) -> User {
    let mut github_users = vec![text(node, "coreos_ssh_import_github")];
    github_users.retain(|name| !name.is_empty());
    github_users.extend(texts(node, "coreos_ssh_import_github_users"));
    User {
        name: text(node, "name"),
        passwd: text(node, "passwd"),
        ssh_authorized_keys: texts(node, "ssh_authorized_keys"),
        github_users,
        import_url: text(node, "coreos_ssh_import_url"),
        gecos: text(node, "gecos"),
        homedir: text(node, "homedir"),
        no_create_home: is_set(node, "no_create_home"),
        primary_group: text(node, "primary_group"),
        groups: texts(node, "groups"),
        no_user_group: is_set(node, "no_user_group"),
        system: is_set(node, "system"),
        no_log_init: is_set(node, "no_log_init"),
        shell: text(node, "shell"),
    }
}

fn write_file(node: &Node) -> Result<WriteFile, ConfigError> {
    let encoding = text(node, "encoding");
    let line = node.entry("encoding").map_or(node.line, |entry| entry.line);
    let content = node.get("content").and_then(Node::bytes).unwrap_or_default();
    let permissions = text(node, "permissions");
    Ok(WriteFile {
        path: text(node, "path"),
        content: content::decode(content, &encoding)
            .map_err(|undecodable| ConfigError::Content { line, undecodable })?,
        owner: text(node, "owner"),
        // The pattern leaves only octal digits.
        mode: u32::from_str_radix(&permissions, 8).unwrap_or(FILE_MODE),
    })
}

pub(super) fn manage_etc_hosts(tree: &Node) -> Result<String, ConfigError> {
    let value = text(tree, "manage_etc_hosts");
    if value.is_empty() || value == "localhost" {
        return Ok(value);
    }
    let line = tree.entry("manage_etc_hosts").map_or(1, |entry| entry.line);
    Err(ConfigError::Hosts { line, value })
}

/// Makes a path absolute and takes `.` and `..` out of it, without looking at the disk.
pub fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> CloudConfig {
        CloudConfig::parse(text).unwrap()
    }

    fn refused(text: &str) -> String {
        CloudConfig::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn nothing_and_a_header_alone_are_an_empty_config() {
        for text in ["", "#cloud-config", "#cloud-config\r\n", "#cloud-config\ncoreos:\n"] {
            assert_eq!(parse(text), CloudConfig::default(), "{text:?}");
        }
    }

    #[test]
    fn unknown_keys_are_ignored() {
        let config = parse(
            "hostname: \"foo\"\nbogus: {a: 1}\nrandom_list: [1, {a: b}]\ncoreos:\n  bogus: 1\n  \
             etcd2:\n    discovery: \"https://discovery.etcd.io/x\"\n    bogus: 1\n  units:\n    \
             - name: a.service\n      fake: yes\nusers:\n  - name: fry\n    bogus: 1\n",
        );
        assert_eq!(config.hostname, "foo");
        assert_eq!(config.coreos.etcd2.len(), 1);
        assert_eq!(config.coreos.units[0].name, "a.service");
        assert_eq!(config.users[0].name, "fry");
    }

    #[test]
    fn a_scalar_of_another_simple_type_is_text() {
        let config = parse("hostname: 4\nssh_authorized_keys: [0, 1.0, yes, 'a b']\n");
        assert_eq!(config.hostname, "4");
        assert_eq!(config.ssh_authorized_keys, ["0", "1.0", "yes", "a b"]);
    }

    #[test]
    fn dos_line_ends_are_line_ends() {
        let config = parse("#cloud-config\r\nhostname: a\r\nwrite_files:\r\n  - path: /x\r\n");
        assert_eq!(config.hostname, "a");
        assert_eq!(config.write_files[0].path, "/x");
    }

    #[test]
    fn what_is_of_another_type_is_refused_with_its_line() {
        for (text, expected) in [
            ("ssh_authorized_keys: a", "line 1: `ssh_authorized_keys` must be a list"),
            ("\nssh_authorized_keys:\n - {a: b}", "line 3: `ssh_authorized_keys[0]` must be text"),
            ("coreos: true", "line 1: `coreos` must be a map of keys"),
            ("coreos:\n  units:\n   - a", "line 3: `units[0]` must be a map of keys"),
            ("hostname: [a]", "line 1: `hostname` must be text"),
            ("[a]", "line 1: `cloud-config` must be a map of keys"),
            (
                "coreos:\n  units:\n   - name: a\n     mask: 4",
                "line 4: `mask` must be `true` or `false`",
            ),
            (
                "coreos:\n  etcd2:\n    snapshot_count: many",
                "line 3: `snapshot_count` must be a whole number",
            ),
            (
                "coreos:\n  fleet:\n    etcd_request_timeout: 3s",
                "line 3: `etcd_request_timeout` must be a number",
            ),
        ] {
            assert_eq!(refused(text), expected);
        }
    }

    #[test]
    fn what_a_pattern_does_not_accept_is_refused_with_its_line() {
        for (text, expected) in [
            (
                "coreos:\n  update:\n    reboot_strategy: false",
                "line 3: invalid value `false` for `reboot_strategy`",
            ),
            (
                "write_files:\n  - path: /a\n    permissions: pants",
                "line 3: invalid value `pants` for `permissions`",
            ),
            ("coreos:\n  units:\n   - command: lol", "line 3: invalid value `lol` for `command`"),
            (
                "coreos:\n  locksmith:\n    window-start: soon",
                "line 3: invalid value `soon` for `window_start`",
            ),
            (
                "write_files:\n  - content: '*'\n    encoding: b64",
                "line 3: content cannot be decoded as \"b64\"",
            ),
            (
                "manage_etc_hosts: all",
                "line 1: `manage_etc_hosts` can only be `localhost`, not `all`",
            ),
            (
                "coreos:\n\tunits: 1",
                "line 2: tabs disallowed within this context (block indentation)",
            ),
        ] {
            assert_eq!(refused(text), expected);
        }
    }

    #[test]
    fn an_unquoted_off_stays_off() {
        let update = parse("coreos:\n  update:\n    reboot-strategy: off\n").coreos.update;
        assert_eq!(update.reboot_strategy(), Some("off"));
        assert!(!update.moves_engine());
    }

    #[test]
    fn permissions_are_octal_however_they_are_written() {
        let modes = |text: &str| parse(text).write_files[0].mode;
        for written in ["744", "0744", "'0744'", "\"744\""] {
            assert_eq!(modes(&format!("write_files:\n - permissions: {written}")), 0o744);
        }
        assert_eq!(modes("write_files:\n - path: /a"), 0o644);
        assert_eq!(modes("write_files:\n - permissions: '01777'"), 0o1777);
    }

    #[test]
    fn content_is_decoded_once_by_yaml_and_once_by_its_encoding() {
        let files = parse(
            "write_files:\n - content: !!binary aGVsbG8=\n - encoding: base64\n   content: \
             aGVsbG8=\n - encoding: gzip+base64\n   content: H4sIAAAAAAACAzMx4gIAMSmG0QMAAAA=\n \
             - encoding: gzip\n   content: !!binary H4sIAAAAAAACAzMx4gIAMSmG0QMAAAA=\n",
        )
        .write_files;
        let contents: Vec<_> = files.iter().map(|file| file.content.as_slice()).collect();
        assert_eq!(contents, [&b"hello"[..], b"hello", b"42\n", b"42\n"]);
    }

    #[test]
    fn a_user_has_everything_that_is_said_of_it() {
        let config = parse(
            "users:\n  - name: elroy\n    passwd: somehash\n    ssh-authorized-keys:\n      - \
             somekey\n    gecos: arbitrary comment\n    homedir: /home/place\n    no-create-home: \
             yes\n    primary-group: things\n    groups: [ping, pong]\n    no-user-group: true\n    \
             system: y\n    no-log-init: True\n    shell: /bin/sh\n    coreos-ssh-import-github: \
             a\n    coreos-ssh-import-github-users: [b]\n    coreos-ssh-import-url: http://c/\n",
        );
        let expected = User {
            name: "elroy".to_owned(),
            passwd: "somehash".to_owned(),
            ssh_authorized_keys: vec!["somekey".to_owned()],
            github_users: vec!["a".to_owned(), "b".to_owned()],
            import_url: "http://c/".to_owned(),
            gecos: "arbitrary comment".to_owned(),
            homedir: "/home/place".to_owned(),
            no_create_home: true,
            primary_group: "things".to_owned(),
            groups: vec!["ping".to_owned(), "pong".to_owned()],
            no_user_group: true,
            system: true,
            no_log_init: true,
            shell: "/bin/sh".to_owned(),
        };
        assert_eq!(config.users, [expected]);
    }
}
