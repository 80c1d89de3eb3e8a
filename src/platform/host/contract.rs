//! What any machine must do.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::platform::host::{Host, Program, User};

/// The files that the machine under test has.
pub(crate) const FILES: [(&str, &str); 5] = [
    ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
    ("/etc/hostname", "before\n"),
    ("/etc/passwd", "root:x:0:0::/root:/bin/sh\ncore:x:500:500::/home/core:/bin/bash\n"),
    ("/etc/group", "root:x:0:\ndocker:x:233:core\n"),
    ("/proc/cmdline", "quiet cloud-config-url=http://example.com/a\n"),
];

/// Everything that any machine must do; the one under test has [`FILES`] and `/bin/cat`.
pub(crate) async fn contract(host: &dyn Host) {
    assert_eq!(host.machine_id().unwrap(), "0123456789abcdef0123456789abcdef");
    assert_eq!(host.kernel_command_line().unwrap(), "quiet cloud-config-url=http://example.com/a");
    let core = User { name: "core".into(), uid: 500, gid: 500, home: "/home/core".into() };
    assert_eq!(host.user_numbered(500).unwrap().as_ref(), Some(&core));
    assert_eq!(host.user("core").unwrap(), Some(core));
    assert_eq!(host.user("nobody-here").unwrap(), None);
    assert_eq!(host.group("docker").unwrap(), Some(233));
    assert_eq!(host.group("nobody-here").unwrap(), None);
    assert_eq!(host.read(Path::new("/etc/hostname")).unwrap(), b"before\n");
    let missing = host.read(Path::new("/etc/none")).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);

    assert_eq!(host.hostname().unwrap(), "before");
    host.set_hostname("after.example").await.unwrap();
    assert_eq!(host.hostname().unwrap(), "after.example");
    assert_eq!(host.read(Path::new("/etc/hostname")).unwrap(), b"after.example\n");
    for bad in ["", "a b", "a\nb", &"a".repeat(65)] {
        let refused = host.set_hostname(bad).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{bad:?}");
    }

    let mut program = Program {
        path: "/bin/cat".into(),
        arguments: Vec::new(),
        input: b"hello".to_vec(),
        deadline: Duration::from_secs(10),
    };
    let ended = host.run(&program).await.unwrap();
    assert_eq!((ended.code, ended.output), (Some(0), b"hello".to_vec()));
    program.path = "/bin/no-such-program".into();
    let missing = host.run(&program).await.unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}
