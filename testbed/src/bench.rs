//! `bench`: figures of this machine, taken in one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Subcommand;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use testbed::cluster::{Cluster, Kind};
use testbed::error::LabError;
use testbed::machine::Machine;
use testbed::process::{Lifetime, Program};
use testbed::progress::Steps;
use testbed::{lab, vm, wait};

/// Three machines at once on a loaded computer.
const BOOT: Duration = Duration::from_mins(5);
/// A build from packages that are not here yet.
const BUILD: Duration = Duration::from_mins(15);
/// What the lab's image writes to its serial line once `boot-complete.target` is reached.
const COMPLETE: &str = "corebox: boot-complete";

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Build of the image, its size, boots of one and of three machines, memory of what runs there
    Boot {
        /// How many times; each figure is the median
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
        times: u8,
    },
}

/// Measures, and prints a table.
pub(crate) fn run(what: &What) -> Result<(), LabError> {
    let What::Boot { times } = *what;
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

/// Named samples in the order in which the names came.
#[derive(Debug, Default)]
struct Figures(Vec<(Figure, Vec<f64>)>);

/// One row of the table.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    name: String,
    unit: &'static str,
    /// What it is to stay below, where something was promised.
    bar: Option<f64>,
}

impl Figures {
    fn add(&mut self, name: &str, unit: &'static str, bar: Option<f64>, value: f64) {
        match self.0.iter_mut().find(|(figure, _)| figure.name == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((Figure { name: name.to_owned(), unit, bar }, vec![value])),
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(ASCII_MARKDOWN).set_header(["FIGURE", "MEDIAN", "ALL", "BAR"]);
        for (figure, values) in &self.0 {
            let shown = |value: &f64| format!("{value:.1}");
            let all: Vec<_> = values.iter().map(shown).collect();
            let bar = figure.bar.map_or_else(String::new, |bar| format!("{bar} {}", figure.unit));
            let median = format!("{:.1} {}", median(values), figure.unit);
            table.add_row([figure.name.clone(), median, all.join(" "), bar]);
        }
        table
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
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

/// What these figures were taken on.
fn machine() -> Result<String, LabError> {
    let read =
        |path: &str| fs::read_to_string(path).map_err(LabError::file("read", Path::new(path)));
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let (cpu, memory) = (read("/proc/cpuinfo")?, read("/proc/meminfo")?);
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    Ok(format!(
        "{cores} cores of {}, {} of memory, Linux {}",
        value(&cpu, "model name"),
        value(&memory, "MemTotal"),
        read("/proc/sys/kernel/osrelease")?.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn a_row_has_all_its_samples_and_its_bar() {
        let mut figures = Figures::default();
        figures.add("a boot", "s", Some(20.0), 12.34);
        figures.add("a boot", "s", Some(20.0), 14.0);
        let table = figures.table().to_string();
        assert!(table.contains("| a boot | 13.2 s | 12.3 14.0 | 20 s |"), "{table}");
    }
}
