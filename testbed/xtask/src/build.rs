//! The two builds: `dev` for what is checked on this computer, `lab` for what a machine boots.

use std::path::PathBuf;

use crate::run::{Failure, Step, root};

/// Cargo writes below this folder, since `.cargo/config.toml` names a target.
const TARGET: &str = "target/x86_64-unknown-linux-gnu";

/// One of the two builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// Quick to build.
    Dev,
    /// Optimized: what the image carries.
    Lab,
}

impl Build {
    /// Where a program of this build is.
    pub(crate) fn program(self, name: &str) -> PathBuf {
        let folder = match self {
            Self::Dev => "debug",
            Self::Lab => "lab",
        };
        root().join(TARGET).join(folder).join(name)
    }

    /// Builds the product.
    pub(crate) fn product(self) -> Result<(), Failure> {
        match self {
            Self::Dev => Step::cargo("build --package corebox --bin corebox").run(),
            Self::Lab => Step::cargo("build --profile lab --package corebox --bins").run(),
        }
    }

    /// Builds the lab and runs one of its verbs.
    pub(crate) fn testbed(self, verb: &[&str], rest: &[&str]) -> Result<(), Failure> {
        let profile = match self {
            Self::Dev => "dev",
            Self::Lab => "lab",
        };
        Step::cargo(&format!("build --quiet --profile {profile} --package testbed --bin testbed"))
            .run()?;
        let step = Step::program(self.program("testbed")).args(verb).args(rest);
        self.environment(step).run()
    }

    /// Tells a program where what it tests is.
    pub(crate) fn environment(self, step: Step) -> Step {
        step.env("COREBOX_BIN", self.program("corebox")).env("COREBOX_IMAGE", image_folder())
    }
}

/// Where the lab's image is.
pub(crate) fn image_folder() -> PathBuf {
    root().join("target/image/lab")
}

/// Builds the lab's image with the lab's build of the product.
pub(crate) fn image() -> Result<(), Failure> {
    Build::Lab.product()?;
    Step::cargo("run --quiet --profile lab --package os-image -- build --flavour lab")
        .args(["--corebox".into(), Build::Lab.program("corebox")])
        .args(["--init".into(), Build::Lab.program("corebox-init")])
        .args(["--out".into(), image_folder()])
        .args(["--tree-cache".into(), root().join("target/os-tree")])
        .run()
}
