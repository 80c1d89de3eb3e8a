//! Users and groups as `/etc/passwd` and `/etc/group` have them. Pure.

use crate::platform::host::User;

/// Finds a user in the text of `/etc/passwd`. A line that makes no sense is skipped.
pub fn user_in(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().filter_map(user_of).find(|user| user.name == name)
}

/// Finds the first user of a number in the text of `/etc/passwd`.
pub fn user_numbered_in(passwd: &str, uid: u32) -> Option<User> {
    passwd.lines().filter_map(user_of).find(|user| user.uid == uid)
}

/// Finds the number of a group in the text of `/etc/group`.
pub fn group_in(group: &str, name: &str) -> Option<u32> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let (found, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        (found == name).then(|| gid.parse().ok())?
    };
    group.lines().find_map(entry)
}

fn user_of(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, _] = fields[..] else { return None };
    if name.is_empty() || name.starts_with('#') {
        return None;
    }
    let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
    Some(User { name: name.to_owned(), uid, gid, home: home.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# a comment\nbad:x:no:0::/:/bin/sh\n\
        short:x:1:1\n\ncore:x:500:501:CoreOS Admin:/home/core:/bin/bash\ncore:x:7:7::/:/\n";

    #[test]
    fn a_user_is_found_by_name_and_the_first_line_wins() {
        let core = user_in(PASSWD, "core").unwrap();
        assert_eq!((core.uid, core.gid, core.home.to_str()), (500, 501, Some("/home/core")));
        assert_eq!(user_numbered_in(PASSWD, 500), Some(core));
        assert_eq!(user_numbered_in(PASSWD, 501), None);
    }

    #[test]
    fn lines_that_make_no_sense_are_no_users() {
        for name in ["bad", "short", "# a comment", "", "nobody"] {
            assert_eq!(user_in(PASSWD, name), None, "{name}");
        }
    }

    #[test]
    fn a_group_is_found_by_name() {
        let group = "root:x:0:\nbad\ndocker:x:233:core,other\nodd:x:many:\n";
        assert_eq!(group_in(group, "docker"), Some(233));
        assert_eq!(group_in(group, "odd"), None);
        assert_eq!(group_in(group, "core"), None);
    }
}
