//! `bench boot`: from packages to an image, from power to a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use testbed::cluster::{Cluster, Kind};
use testbed::error::LabError;
use testbed::machine::Machine;
use testbed::process::{Lifetime, Program};
use testbed::progress::Steps;
use testbed::{lab, vm, wait};

use crate::bench::figures::Figures;
use crate::bench::machine;

/// Three machines at once on a loaded computer.
const BOOT: Duration = Duration::from_mins(5);
/// A build from packages that are not here yet.
const BUILD: Duration = Duration::from_mins(15);
/// What the lab's image writes to its serial line once `boot-complete.target` is reached.
const COMPLETE: &str = "corebox: boot-complete";

/// Measures, and prints a table.
pub(super) fn run(times: u8) -> Result<(), LabError> {
    let steps = Steps::default();
    let mut figures = Figures::default();
    build(&steps, &mut figures)?;
    for time in 1..=times {
        for size in [1, 3] {
            let name = format!("{size} at once, {time} of {times}");
            steps.step(&name, || boot(size, &mut figures))?;
        }
    }
    crate::print(&format!("{}\n{}\n", machine()?, figures.table()))
}

/// Builds the image twice, with programs that are built already: from packages that the host has
/// fetched before, and with the packages unpacked.
fn build(steps: &Steps, figures: &mut Figures) -> Result<(), LabError> {
    let folder = lab::root().join("bench-image");
    let tree = folder.join("tree");
    let built = steps.step("image from its packages", || image(&folder, &tree)).and_then(|fresh| {
        let cached = steps.step("image, packages unpacked", || image(&folder, &tree))?;
        Ok((fresh, cached))
    });
    fs::remove_dir_all(&folder).map_err(LabError::file("remove", &folder))?;
    let (fresh, cached) = built?;
    figures.add("image build from cached packages", "s", Some(75.0), fresh);
    figures.add("image build, packages unpacked", "s", Some(30.0), cached);
    let image = vm::image()?;
    let on_disk = Program::line("du --block-size=1 --summarize").arg(&image).run(BOOT)?;
    let bytes = on_disk.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
    let bytes = bytes.ok_or_else(|| LabError::Missing(format!("du says `{on_disk}`")))?;
    figures.add("image, on disk", "MiB", None, bytes / f64::from(1 << 20));
    Ok(())
}

fn image(folder: &Path, tree: &Path) -> Result<f64, LabError> {
    let start = Instant::now();
    Program::new(beside("os-image")?)
        .args(["build", "--flavour", "lab", "--corebox"])
        .arg(beside("corebox")?)
        .arg("--init")
        .arg(beside("corebox-init")?)
        .arg("--out")
        .arg(folder)
        .arg("--tree-cache")
        .arg(tree)
        .run(BUILD)?;
    Ok(start.elapsed().as_secs_f64())
}

/// A program of the same build as this one.
fn beside(name: &str) -> Result<PathBuf, LabError> {
    let own = std::env::current_exe().map_err(LabError::file("find", Path::new("testbed")))?;
    Ok(own.with_file_name(name))
}

/// Boots so many machines at once that form a cluster, with the host's clock.
fn boot(size: u8, figures: &mut Figures) -> Result<(), LabError> {
    let numbers: Vec<u8> = (1..=size).collect();
    let start = Instant::now();
    let cluster = Cluster::found(Kind::Vms, size, Lifetime::Owned)?;
    wait::until("boot-complete on every serial line", BOOT, || {
        cluster.machines().iter().try_for_each(|machine| complete(machine.as_ref()))
    })?;
    let (name, bar) = if size == 1 { ("one machine", 20.0) } else { ("three at once", 45.0) };
    let complete = start.elapsed().as_secs_f64();
    figures.add(&format!("{name}: power to boot-complete"), "s", Some(bar), complete);
    cluster.store_ready(&numbers, BOOT)?;
    cluster.fleet_ready(1, &numbers, BOOT)?;
    figures.add(&format!("{name}: power to all listed"), "s", None, start.elapsed().as_secs_f64());
    let memory = memory(cluster.machine(size))?;
    for (applet, mib) in &memory {
        figures.add(&format!("{name}: {applet} (PSS)"), "MiB", None, *mib);
    }
    let sum = memory.iter().map(|(_, mib)| mib).sum();
    figures.add(&format!("{name}: all applets (PSS)"), "MiB", Some(80.0), sum);
    Ok(())
}

fn complete(machine: &dyn Machine) -> Result<(), String> {
    let said = fs::read(machine.console()).map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&said);
    if said.contains(COMPLETE) { Ok(()) } else { Err(format!("{} boots", machine.name())) }
}

/// What each running applet has of the machine's memory, in MiB: its own pages, and its share of
/// those that it shares.
fn memory(machine: &dyn Machine) -> Result<Vec<(String, f64)>, LabError> {
    const ASK: &str = "for p in /proc/[0-9]*; do \
         [ \"$(readlink $p/exe)\" = \"$(readlink -f /usr/bin/corebox)\" ] || continue; \
         name=$(tr '\\0' '\\n' <$p/cmdline | head -n 1); \
         pss=$(grep ^Pss: $p/smaps_rollup | tr -dc 0-9); \
         echo \"${name##*/} $pss\"; done";
    machine.ssh().ready(BOOT)?;
    let said = machine.ssh().root(ASK)?;
    let row = |line: &str| {
        let (name, kib) = line.split_once(' ')?;
        Some((name.to_owned(), kib.parse::<f64>().ok()? / 1024.0))
    };
    let rows: Option<Vec<_>> = said.lines().map(row).collect();
    rows.filter(|rows| !rows.is_empty())
        .ok_or_else(|| LabError::Missing(format!("no applet's memory in `{said}`")))
}
