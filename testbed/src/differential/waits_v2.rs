//! Requests of the v2 API that wait for changes: both are asked, and the answers are compared when
//! no more can come.

use std::time::Duration;

use serde_json::Value;

use crate::differential::{Asked, Pair, Seen, difference, json};
use crate::error::LabError;
use crate::etcd::ANSWER;
use crate::http::{Request, Slow};
use crate::wait;

/// How long both may take to tell of the last change, on a loaded machine.
const TOLD: Duration = Duration::from_secs(10);

/// A request and its two answers.
#[derive(Debug)]
pub(super) struct Wait {
    asked: Asked,
    answers: [Slow; 2],
}

impl Wait {
    /// Asks both, and waits until both wait.
    pub(super) fn begin(pair: &Pair, asked: Asked) -> Result<Self, LabError> {
        let request = Request { method: asked.method, path: &asked.path, body: None };
        let ask = |member: &crate::etcd::Member| Slow::ask(member.client, &request, ANSWER);
        let answers = [ask(&pair.ours)?, ask(&pair.theirs)?];
        Ok(Self { asked, answers })
    }

    /// Takes what came, so that no server waits for us; returns how they differ.
    pub(super) fn difference(&mut self, apart: i64) -> Result<Option<String>, LabError> {
        let [ours, theirs] = &mut self.answers;
        let (ours, theirs) = (seen(ours)?, seen(theirs)?);
        Ok(difference(&self.asked, &ours, &theirs, apart))
    }

    /// Waits until both were told the same; returns how they differ where that does not come.
    pub(super) fn end(&mut self, apart: i64) -> Result<Option<String>, LabError> {
        let mut failed = None;
        let equal = wait::until_exactly("two equal answers", TOLD, || {
            match self.difference(apart) {
                Ok(None) => return Ok(()),
                Ok(Some(found)) => return Err(found),
                Err(error) => failed = Some(error),
            }
            Ok(())
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(equal.err().map(|late| late.last)),
        }
    }
}

/// Each line is a change; of a refusal there is one.
fn seen(slow: &mut Slow) -> Result<Seen, LabError> {
    let answer = slow.so_far()?;
    let whole = answer.body.rfind('\n').map_or("", |end| &answer.body[..end]);
    let lines: Value = whole.lines().map(json).collect();
    Ok(Seen::of(&answer, lines))
}
