//! The store's cluster in one process, on a simulated network, disk and clock, from one seed.
//!
//! ```text
//!   world ─┬─▶ members: the product's own `Member` and servers, over net and a disk that fails
//!          ├─▶ clients, kv, watchers: the product's own clients of both APIs; all goes into the record
//!          ├─▶ scribes: change the v3 keys through each member
//!          ├─▶ faults: partitions, delays, crashes, disks that are slow or fail, moved leaders
//!          └─▶ invariants after every step; checks and promises of the whole history at the end
//! ```
//! The same seed tells the same story, to the letter. What it took is in
//! `docs/adr/0004-simulation.md`.

pub mod checks;
pub mod client;
pub mod invariants;
pub mod kv;
pub mod net;
pub mod promises;
pub mod record;
pub mod scribe;
pub mod truth;
pub mod watcher;
pub mod world;

pub use world::{Outcome, Setup, run};

use corebox::consensus::mistakes::{Mistake, Mistakes};

/// Plants the mistake of that name; the error says which there are, or how to build them.
pub fn planted(name: &str) -> Result<Mistakes, String> {
    let known = Mistake::ALL.iter().find(|(known, _)| *known == name);
    let Some((_, mistake)) = known else {
        let names: Vec<_> = Mistake::ALL.iter().map(|(name, _)| *name).collect();
        return Err(format!("no mistake `{name}`; there are {}", names.join(" ")));
    };
    plant(*mistake)
}

#[cfg(feature = "planted-mistakes")]
#[expect(clippy::unnecessary_wraps, reason = "the same call as without the feature")]
fn plant(mistake: Mistake) -> Result<Mistakes, String> {
    Ok(Mistakes::planted(mistake))
}

#[cfg(not(feature = "planted-mistakes"))]
fn plant(_mistake: Mistake) -> Result<Mistakes, String> {
    Err("this build has no mistakes to plant; `cargo xtask sim --break NAME` makes one".to_owned())
}
