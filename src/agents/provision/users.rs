//! The programs that make users what a cloud-config says.

use std::ffi::OsString;
use std::time::Duration;

use crate::platform::host::Program;
use crate::wire::cloud_config::config::User;

/// How long a program that edits the user files may take: they are locked by one at a time.
const DEADLINE: Duration = Duration::from_mins(1);

pub(super) fn program(path: &str, arguments: Vec<String>, input: String) -> Program {
    Program {
        path: path.into(),
        arguments: arguments.into_iter().map(OsString::from).collect(),
        input: input.into_bytes(),
        deadline: DEADLINE,
    }
}

/// Returns the program that makes a user that is not there.
pub(super) fn create(user: &User) -> Program {
    let mut arguments = Vec::new();
    let password = if user.passwd.is_empty() { "*" } else { &user.passwd };
    valued(&mut arguments, "--password", password);
    valued(&mut arguments, "--comment", &user.gecos);
    valued(&mut arguments, "--home-dir", &user.homedir);
    let home = if user.no_create_home { "--no-create-home" } else { "--create-home" };
    arguments.push(home.to_owned());
    valued(&mut arguments, "--gid", &user.primary_group);
    valued(&mut arguments, "--groups", &user.groups.join(","));
    flag(&mut arguments, "--no-user-group", user.no_user_group);
    flag(&mut arguments, "--system", user.system);
    flag(&mut arguments, "--no-log-init", user.no_log_init);
    valued(&mut arguments, "--shell", &user.shell);
    arguments.push(user.name.clone());
    program("useradd", arguments, String::new())
}

/// Returns the program that gives a user that is there its password, if it has one.
pub(super) fn set_password(user: &User) -> Option<Program> {
    let line = format!("{}:{}", user.name, user.passwd);
    (!user.passwd.is_empty()).then(|| program("chpasswd", vec!["-e".to_owned()], line))
}

/// Returns the program that replaces one set of a user's keys.
pub(super) fn set_keys(user: &str, set: &str, keys: &[String]) -> Program {
    let arguments = ["-u", user, "-a", set].map(str::to_owned).to_vec();
    program("update-ssh-keys", arguments, keys.join("\n"))
}

fn valued(arguments: &mut Vec<String>, option: &str, value: &str) {
    if !value.is_empty() {
        arguments.extend([option.to_owned(), value.to_owned()]);
    }
}

fn flag(arguments: &mut Vec<String>, option: &str, given: bool) {
    if given {
        arguments.push(option.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(program: &Program) -> String {
        let arguments: Vec<_> =
            program.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        format!("{} {}", program.path.display(), arguments.join("|"))
    }

    #[test]
    fn a_user_is_made_with_all_that_is_said_of_it_in_this_order() {
        let user = User {
            name: "ada".to_owned(),
            passwd: "$6$hash".to_owned(),
            gecos: "Operator of the lab".to_owned(),
            homedir: "/home/a".to_owned(),
            no_create_home: true,
            primary_group: "wheel".to_owned(),
            groups: vec!["sudo".to_owned(), "docker".to_owned()],
            no_user_group: true,
            system: true,
            no_log_init: true,
            shell: "/bin/bash".to_owned(),
            ..User::default()
        };
        assert_eq!(
            shown(&create(&user)),
            "useradd --password|$6$hash|--comment|Operator of the lab|--home-dir|/home/a|\
             --no-create-home|--gid|wheel|--groups|sudo,docker|--no-user-group|--system|\
             --no-log-init|--shell|/bin/bash|ada"
        );
    }

    #[test]
    fn a_user_of_whom_nothing_is_said_cannot_log_in_by_password() {
        let user = User { name: "ada".to_owned(), ..User::default() };
        assert_eq!(shown(&create(&user)), "useradd --password|*|--create-home|ada");
        assert_eq!(set_password(&user), None);
    }

    #[test]
    fn a_password_is_set_by_its_hash() {
        let user = User { name: "ada".to_owned(), passwd: "$6$hash".to_owned(), ..User::default() };
        let program = set_password(&user).unwrap();
        assert_eq!(shown(&program), "chpasswd -e");
        assert_eq!(program.input, b"ada:$6$hash");
    }

    #[test]
    fn keys_are_a_line_each() {
        let program = set_keys("core", "lab", &["a".to_owned(), "b".to_owned()]);
        assert_eq!(shown(&program), "update-ssh-keys -u|core|-a|lab");
        assert_eq!(program.input, b"a\nb");
    }
}
