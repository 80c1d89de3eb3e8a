//! `bench`: figures of this machine, taken in one run.

use std::time::{Duration, Instant};

use clap::Subcommand;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use testbed::cluster::{Cluster, Kind};
use testbed::error::LabError;
use testbed::process::Lifetime;
use testbed::progress::Steps;

/// A lone machine on a loaded computer.
const BOOT: Duration = Duration::from_mins(5);

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// From power to ssh, of one machine at a time
    Boot {
        /// How many boots
        #[arg(long, default_value_t = 3)]
        times: u8,
        /// Containers instead of virtual machines
        #[arg(long)]
        containers: bool,
    },
}

/// Measures, and prints a table.
pub(crate) fn run(what: &What) -> Result<(), LabError> {
    let What::Boot { times, containers } = *what;
    let kind = if containers { Kind::Containers } else { Kind::Vms };
    let steps = Steps::default();
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header(["BOOT", "SSH AFTER", "SYSTEMD SAYS"]);
    for time in 1..=times {
        let name = format!("boot {time} of {times}");
        let (ssh, says) = steps.step(&name, || boot(kind))?;
        table.add_row([time.to_string(), format!("{:.1} s", ssh.as_secs_f64()), says]);
    }
    crate::print(&format!("{table}\n"))
}

fn boot(kind: Kind) -> Result<(Duration, String), LabError> {
    let mut cluster = Cluster::empty(kind, Lifetime::Owned)?;
    let start = Instant::now();
    cluster.add(1, "#cloud-config\n")?;
    let machine = cluster.machine(1);
    machine.ssh().ready(BOOT)?;
    let took = start.elapsed();
    // Waits for the boot to be over, whether or not every unit liked it.
    machine.ssh().attempt("systemctl is-system-running --wait", BOOT)?;
    let says = machine.ssh().attempt("systemd-analyze time", BOOT)?.stdout;
    Ok((took, says.lines().next().unwrap_or_default().to_owned()))
}
