//! The clients of others that the suite `cluster` runs: installed into `target`, in the versions
//! and with the checksums that `testbed/clients` names.
//!
//! ```text
//!   target/clients/pypi    the packages of testbed/clients/requirements.txt
//!   target/clients/npm     those of testbed/clients/package-lock.json
//!   target/clients/crates  the program crates_etcd_client.rs, with those of Cargo.lock
//! ```

use std::path::PathBuf;

use crate::run::{Failure, Step, root, say};

/// Clients from one registry.
struct Shelf {
    /// The registry, and the folder's name.
    name: &'static str,
    /// The files of `testbed/clients` that say what is installed.
    pins: &'static str,
    /// What installs into the working directory, which has those files.
    install: &'static str,
}

const SHELVES: [Shelf; 3] = [
    Shelf {
        name: "pypi",
        pins: "requirements.txt",
        // Debian's Python, for which the checksums are, and its setuptools, which builds two.
        install: "/usr/bin/python3 -m pip install --quiet --disable-pip-version-check --no-deps \
                  --root-user-action ignore --no-build-isolation --no-compile --require-hashes \
                  --requirement requirements.txt --target .",
    },
    Shelf {
        name: "npm",
        pins: "package.json package-lock.json",
        install: "npm ci --silent --ignore-scripts --no-audit --no-fund",
    },
    Shelf {
        name: "crates",
        pins: "Cargo.toml Cargo.lock crates_etcd_client.rs",
        // Here only the program is wanted of what is built.
        install: "CARGO_TARGET_DIR=target cargo install --quiet --locked --debug --path . \
                  --root . && rm -r target",
    },
];

/// Installs what is not here yet, or is not any more what `testbed/clients` names.
pub(crate) fn install() -> Result<(), Failure> {
    SHELVES.iter().filter(|shelf| !shelf.is_here()).try_for_each(Shelf::bring)
}

impl Shelf {
    fn folder(&self) -> PathBuf {
        root().join("target/clients").join(self.name)
    }

    /// Its pins are the last that is put there.
    fn is_here(&self) -> bool {
        self.script("for pin; do cmp -s \"$from/$pin\" \"$0/$pin\"; done").silently()
    }

    fn bring(&self) -> Result<(), Failure> {
        say(&format!("installing the clients of {} that the suite runs", self.name));
        let install = format!(
            "rm -rf \"$0\" \"$0.new\" && mkdir -p \"$0.new\" && cd \"$0.new\" && \
             for pin; do cp \"$from/$pin\" .; done && {} && mv \"$0.new\" \"$0\"",
            self.install
        );
        self.script(&install).run().map_err(|_| {
            Failure::First(format!(
                "the packages of {} that testbed/clients names cannot be installed; is the \
                 registry reached, and is this Debian 12? Then run `cargo xtask test cluster`",
                self.name
            ))
        })
    }

    /// A script with the folder as `$0`, that of the pins as `$from`, and the pins as arguments.
    fn script(&self, script: &str) -> Step {
        Step::line("sh -euc")
            .args([script])
            .args([self.folder()])
            .args(self.pins.split(' '))
            .env("from", root().join("testbed/clients"))
    }
}
