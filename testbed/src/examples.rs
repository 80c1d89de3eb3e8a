//! The example units on a cluster: which there are, and what it looks like when they run.

use std::time::Duration;

use crate::error::LabError;
use crate::view::View;
use crate::{fleet, inputs};

/// The units' files.
pub const FILES: [(&str, &str); 2] = [inputs::EXAMPLE, inputs::EXAMPLE_GLOBAL];
/// How many instances of the template are started at most.
const INSTANCES: u8 = 3;

/// The instances to start on a cluster of `size` nodes; no two may share a machine.
#[must_use]
pub fn instances(size: u8) -> Vec<String> {
    (1..=size.min(INSTANCES)).map(|number| format!("example@{number}.service")).collect()
}

/// What to start.
#[must_use]
pub fn names(size: u8) -> Vec<String> {
    let global = inputs::EXAMPLE_GLOBAL.0.to_owned();
    instances(size).into_iter().chain([global]).collect()
}

/// Waits until each instance runs on one machine, and the global unit on all `size` of them.
pub fn run_everywhere(
    view: View<'_>,
    through: u8,
    size: u8,
    limit: Duration,
) -> Result<(), LabError> {
    view.states_until(through, "the example units to run", limit, |states| {
        let once = |unit: &String| fleet::runs_on(states, unit).len() == 1;
        let global = fleet::runs_on(states, inputs::EXAMPLE_GLOBAL.0).len() == usize::from(size);
        (global && instances(size).iter().all(once)).then_some(())
    })
}
