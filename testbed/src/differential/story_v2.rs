//! A story of the v2 API.

use crate::differential::chance::Chance;
use crate::differential::v2::{request, waits};
use crate::differential::waits_v2::Wait;
use crate::differential::{Asked, Pair, Seen, SoFar, difference, json};
use crate::error::LabError;

/// After how many requests the answers that go on are read.
const READ_EVERY: usize = 50;

/// Tells it; returns the first difference.
pub(super) fn tell(
    pair: &mut Pair,
    mut chance: Chance,
    requests: usize,
    so_far: &mut SoFar,
) -> Result<Option<String>, LabError> {
    let first = Asked { method: "GET", path: "/v2/keys/".to_owned(), body: None };
    let (mut found, mut index) = ask(pair, &first)?;
    let mut waiting = Vec::new();
    for number in 0..requests {
        if found.is_some() {
            return Ok(found);
        }
        let asked = request(&mut chance, index);
        so_far.add(number, &asked);
        if waits(&asked) {
            waiting.push(Wait::begin(pair, asked)?);
        } else {
            let (differs, now) = ask(pair, &asked)?;
            (found, index) = (differs, index.max(now));
        }
        if number % READ_EVERY == 0 {
            for wait in &mut waiting {
                // One may have been told what the other will be.
                wait.difference(pair.apart())?;
            }
        }
    }
    let apart = pair.apart();
    for wait in &mut waiting {
        if found.is_none() {
            found = wait.end(apart)?;
        }
    }
    // Those that still wait are told no more: their connections end.
    pair.ours.kill();
    pair.theirs.kill();
    for wait in &mut waiting {
        if found.is_none() {
            found = wait.difference(apart)?;
        }
    }
    Ok(found)
}

/// Asks both; returns how they differ, and the index that ours has come to.
fn ask(pair: &mut Pair, asked: &Asked) -> Result<(Option<String>, i64), LabError> {
    let answers = pair.ask(asked)?;
    let [ours, theirs] = answers.map(|answer| Seen::of(&answer, json(&answer.body)));
    let index = ours.headers.get("x-etcd-index").and_then(|index| index.parse().ok());
    Ok((difference(asked, &ours, &theirs, pair.apart()), index.unwrap_or_default()))
}
