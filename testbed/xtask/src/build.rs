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

    /// Builds every program, with the features that the tests need too: cargo would build all
    /// dependencies a second time for another choice of packages or features.
    pub(crate) fn programs(self) -> Result<(), Failure> {
        Step::cargo(&format!("build --profile {} --workspace --bins --test sim", self.profile()))
            .run()
    }

    /// Cargo's name for it.
    fn profile(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Lab => "lab",
        }
    }

    /// Builds the lab and runs one of its verbs.
    pub(crate) fn testbed(self, verb: &[&str], rest: &[&str]) -> Result<(), Failure> {
        self.programs()?;
        self.run("testbed", verb, rest)
    }

    /// Runs a program that is built.
    pub(crate) fn run(self, name: &str, verb: &[&str], rest: &[&str]) -> Result<(), Failure> {
        self.environment(Step::program(self.program(name)).args(verb).args(rest)).run()
    }

    /// The build that made the newest program of this name.
    pub(crate) fn newest(name: &str) -> Option<Self> {
        let made = |build: &Self| {
            std::fs::metadata(build.program(name)).and_then(|file| file.modified()).ok()
        };
        let builds = [Self::Dev, Self::Lab].into_iter();
        builds
            .filter_map(|build| Some((made(&build)?, build)))
            .max_by_key(|(at, _)| *at)
            .map(|(_, build)| build)
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
    Build::Lab.programs()?;
    Step::program(Build::Lab.program("os-image"))
        .args(["build", "--flavour", "lab"])
        .args(["--corebox".into(), Build::Lab.program("corebox")])
        .args(["--init".into(), Build::Lab.program("corebox-init")])
        .args(["--out".into(), image_folder()])
        .args(["--tree-cache".into(), root().join("target/os-tree")])
        .run()
}
