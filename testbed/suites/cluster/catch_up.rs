//! A member that was away for so long that the others no longer have the log that it lacks.

use std::fs;

use testbed::etcd::{Member, START, Site};
use testbed::wait;

use super::members::leader;

/// More than a member keeps behind a checkpoint, which is 5000 entries; each write is one.
const WRITES: usize = 5_250;
/// So long that a checkpoint is due (at 64 MiB of log) only when more entries than that are there.
const VALUE_BYTES: usize = 13_000;
const KEYS: usize = 50;

/// What the log of a member says.
fn log(site: &Site, member: &Member) -> String {
    fs::read_to_string(site.dir.join(format!("{}.log", member.name))).unwrap()
}

/// Waits until a member by itself has the last value of every key.
fn has_all(member: &Member, value: impl Fn(usize) -> String) {
    wait::until("the member to catch up", START, || {
        for number in WRITES - KEYS..WRITES {
            let path = format!("/v2/keys/w/{}", number % KEYS);
            let answer = member.get(&path).map_err(|error| error.to_string())?;
            let node = answer.json().map_err(|error| error.to_string())?;
            if node["node"]["value"] != value(number) {
                return Err(format!("{path} is old"));
            }
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_member_that_was_away_for_long_catches_up_by_a_checkpoint_and_stays_whole() {
    const INSTALLED: &str = "a checkpoint of the leader installed";
    const SHORTENED: &str = "log shortened";
    let site = super::site("catch-up");
    let mut members = super::started(&site, &["a", "b", "c"]);
    let leads = leader(&members, None);
    let away = (leads + 1) % 3;
    members[away].kill();
    let padding = "x".repeat(VALUE_BYTES);
    let value = |number: usize| format!("{number}{padding}");
    for number in 0..WRITES {
        members[leads].set(&format!("/w/{}", number % KEYS), &value(number)).unwrap();
    }
    wait::until("the leader to shorten its log", START, || {
        let said = log(&site, &members[leads]);
        if said.contains(SHORTENED) { Ok(()) } else { Err(said) }
    })
    .unwrap();
    assert!(!log(&site, &members[away]).contains(INSTALLED));
    members[away].start_healthy().unwrap();
    has_all(&members[away], value);
    let said = log(&site, &members[away]);
    assert!(said.contains(INSTALLED), "{said}");

    members[away].kill();
    members[away].start_healthy().unwrap();
    has_all(&members[away], value);
    let again = log(&site, &members[away]).matches(INSTALLED).count();
    assert_eq!(again, said.matches(INSTALLED).count(), "what it installed is on its disk");
    members[away].set("/through", "it").unwrap();
    assert_eq!(members[leads].value("/through").unwrap(), "it");
}
