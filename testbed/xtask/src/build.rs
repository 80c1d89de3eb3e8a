//! The builds: `dev` for what is checked on this computer, `lab` for what a machine boots,
//! `release` for what is given to others.

use std::path::{Path, PathBuf};

use crate::peers;
use crate::run::{Failure, Step, root, say};

/// Cargo writes below this folder, since `.cargo/config.toml` names a target.
const TARGET: &str = "target/x86_64-unknown-linux-gnu";

/// One of the builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// Quick to build.
    Dev,
    /// Optimized: what the lab's image carries.
    Lab,
    /// Small: what is given to others. Only [`dist`] makes it.
    Release,
}

impl Build {
    /// Where a program of this build is.
    pub(crate) fn program(self, name: &str) -> PathBuf {
        let folder = match self {
            Self::Dev => "debug",
            Self::Lab => "lab",
            Self::Release => "release",
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
            Self::Release => "release",
        }
    }

    /// Builds the lab and runs one of its verbs.
    pub(crate) fn testbed(self, verb: &[&str], rest: &[&str]) -> Result<(), Failure> {
        self.programs()?;
        self.run("testbed", verb, rest)
    }

    /// Runs a program that is built.
    pub(crate) fn run(self, name: &str, verb: &[&str], rest: &[&str]) -> Result<(), Failure> {
        self.run_on(self, name, verb, rest)
    }

    /// Runs a program of this build on the product of another.
    pub(crate) fn run_on(
        self,
        product: Self,
        name: &str,
        verb: &[&str],
        rest: &[&str],
    ) -> Result<(), Failure> {
        product.environment(Step::program(self.program(name)).args(verb).args(rest)).run()
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
        step.env("COREBOX_BIN", self.program("corebox"))
            .env("COREBOX_IMAGE", image_folder())
            .env("COREBOX_PEERS", peers::folder())
    }
}

/// Where a program with planted mistakes is.
pub(crate) fn planted(name: &str) -> PathBuf {
    root().join("target/planted/x86_64-unknown-linux-gnu/lab").join(name)
}

/// Where the lab's image is.
pub(crate) fn image_folder() -> PathBuf {
    root().join("target/image/lab")
}

/// Builds the lab's image with the lab's build of the product.
pub(crate) fn image() -> Result<(), Failure> {
    Build::Lab.programs()?;
    image_of(Build::Lab, "lab", &image_folder()).run()
}

/// The program as it is given to others. Alone: the features that only tools and tests need stay
/// out.
pub(crate) fn released() -> Result<(), Failure> {
    Step::cargo("build --release --package corebox --bins").run()
}

/// What anyone can install: the program built for release, checked, and the image of it. Only
/// packages that packages.lock names go in.
pub(crate) fn dist() -> Result<(), Failure> {
    let out = root().join("target/dist");
    released()?;
    Build::Lab.programs()?;
    image_of(Build::Release, "production", &out).args(["--locked"]).run()?;
    let program = out.join("corebox");
    std::fs::copy(Build::Release.program("corebox"), &program)
        .map_err(|error| Failure::Start(format!("copy to {}", program.display()), error))?;
    say("the suite `cli` runs on the released program");
    Step::cargo("nextest run --profile ci --workspace --test cli")
        .env("COREBOX_BIN", &program)
        .run()?;
    let bytes = std::fs::metadata(&program).map_or(0, |file| file.len());
    say(&format!("{} is ready; corebox has {} KiB", out.display(), bytes >> 10));
    Ok(())
}

/// The lab's builder of images, with the programs of a build.
fn image_of(build: Build, flavour: &str, out: &Path) -> Step {
    Step::program(Build::Lab.program("os-image"))
        .args(["build", "--flavour", flavour])
        .args(["--corebox".into(), build.program("corebox")])
        .args(["--init".into(), build.program("corebox-init")])
        .args(["--out".as_ref(), out])
        .args(["--tree-cache".into(), root().join("target/os-tree")])
}
