//! User-data that cannot be used: one sentence that names the place, and nothing is changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testbed::apart::Apart;

const SOON: Duration = Duration::from_secs(20);

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli").join(name);
        // What an earlier run left, where there was one.
        fs::remove_dir_all(&path).ok();
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            fs::remove_dir_all(&self.0).ok();
        }
    }
}

/// What is wrong with user-data, and what is said of it.
struct Wrong {
    user_data: Vec<u8>,
    said: &'static [&'static str],
}

fn wrong(user_data: impl AsRef<[u8]>, said: &'static [&'static str]) -> Wrong {
    Wrong { user_data: user_data.as_ref().to_vec(), said }
}

#[test]
fn user_data_that_cannot_be_used_is_named_and_nothing_of_it_is_applied() {
    let folder = Folder::new("unusable");
    let applied = "#cloud-config\nhostname: applied\nwrite_files:\n- {path: /etc/a, content: b}\n";
    for Wrong { user_data, said } in [
        wrong(format!("{applied}  coreos: [\n"), &["the cloud-config has a mistake: line 5: "]),
        wrong(
            format!("{applied}users: ada\n"),
            &["the cloud-config has a mistake: line 5: ", "users"],
        ),
        wrong("hostname: a\n", &["its first line must be `#cloud-config` or begin with `#!`"]),
        wrong([0xff, 0xfe, 0x00], &["user-data is not applied"]),
        wrong(vec![b'#'; (1 << 20) + 1], &["/user-data` is longer than 1048576 bytes"]),
    ] {
        let apart = Apart::new(&folder.0).unwrap();
        let path = folder.0.join("user-data");
        fs::write(&path, &user_data).unwrap();
        let flag = format!("--from-file={}", path.display());
        let workspace = format!("--workspace={}", folder.0.join("workspace").display());
        let cloudinit = || apart.applet("coreos-cloudinit").args([&flag, &workspace]);

        let ended = cloudinit().finish(SOON).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        let errors: Vec<_> = ended.stderr.lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(errors.len(), 1, "one sentence: {}", ended.stderr);
        for part in said {
            assert_eq!(errors[0].matches(part).count(), 1, "`{part}`, once: {}", errors[0]);
        }
        let lenient = cloudinit().arg("--ignore-failure").finish(SOON).unwrap();
        assert_eq!(lenient.status.code(), Some(0), "{}", lenient.stderr);
        assert_eq!(apart.files().unwrap(), [], "{}", ended.stderr);
        assert!(!folder.0.join("workspace").exists());
    }
}

#[test]
fn a_folder_in_the_place_of_user_data_is_named() {
    let folder = Folder::new("folder");
    let apart = Apart::new(&folder.0).unwrap();
    let flag = format!("--from-file={}", folder.0.display());
    let ended = apart.applet("coreos-cloudinit").arg(flag).finish(SOON).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let said = format!("`{}` is a folder; name the file in it", folder.0.display());
    assert!(ended.stderr.contains(&said), "{}", ended.stderr);
    assert_eq!(apart.files().unwrap(), []);
}
