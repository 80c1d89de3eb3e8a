//! A story of the v3 API.

use std::future::Future;

use corebox::wire::etcd::v3::etcdserverpb as pb;
use serde_json::{Value, json};
use tonic::Status;

use crate::differential::chance::Chance;
use crate::differential::v3::{Step, step, touch};
use crate::differential::watches_v3::Watches;
use crate::differential::{Asked, Pair, Seen, SoFar, difference, json};
use crate::error::LabError;
use crate::etcd_v3::{Client, run};

/// After how many steps all watches must have been told all, at the latest.
const SETTLE_EVERY: usize = 16;

/// Tells it; returns the first difference.
pub(super) fn tell(
    pair: &mut Pair,
    chance: Chance,
    requests: usize,
    so_far: &mut SoFar,
) -> Result<Option<String>, LabError> {
    run(async {
        match Story::begin(pair, chance).await {
            Ok(mut story) => story.tell(requests, so_far).await,
            Err(found) => Ok(Some(found)),
        }
    })?
}

struct Story<'a> {
    pair: &'a mut Pair,
    chance: Chance,
    clients: [Client; 2],
    watches: [Watches; 2],
    /// How far both have come.
    revision: i64,
    /// Where their history begins.
    compacted: i64,
}

impl<'a> Story<'a> {
    async fn begin(pair: &'a mut Pair, chance: Chance) -> Result<Self, String> {
        let clients = [&pair.ours, &pair.theirs].map(|member| Client::new(member.client));
        let ours = Watches::open(&clients[0]).await.map_err(|status| failed("ours", &status))?;
        let theirs =
            Watches::open(&clients[1]).await.map_err(|status| failed("theirs", &status))?;
        let watches = [ours, theirs];
        Ok(Self { pair, chance, clients, watches, revision: 1, compacted: 0 })
    }

    async fn tell(
        &mut self,
        requests: usize,
        so_far: &mut SoFar,
    ) -> Result<Option<String>, LabError> {
        for number in 0..requests {
            let step = step(&mut self.chance, self.revision);
            so_far.add(number, &step);
            let found = match &step {
                Step::Ask(asked) => self.ask(asked).await?,
                Step::Watch(_) | Step::Cancel(_) | Step::Progress | Step::Hash(_) => {
                    match self.call(&step).await {
                        Ok(()) => self.touch(&step).await?,
                        Err(found) => Some(found),
                    }
                }
            };
            let settled = match found {
                None if number % SETTLE_EVERY == 0 => self.settle().await.err(),
                found => found,
            };
            if settled.is_some() {
                return Ok(settled);
            }
        }
        Ok(self.end().await.err())
    }

    async fn ask(&mut self, asked: &Asked) -> Result<Option<String>, LabError> {
        let compacts = asked.path == "/v3/kv/compaction";
        if compacts && let Err(found) = self.settle().await {
            return Ok(Some(found));
        }
        let answers = self.pair.ask(asked)?;
        let [ours, theirs] = answers.map(|answer| Seen::of(&answer, json(&answer.body)));
        if let Some(revision) = ours.body["header"]["revision"].as_str() {
            self.revision = self.revision.max(revision.parse().unwrap_or_default());
        }
        if compacts && ours.status == 200 {
            self.compacted = compacted_by(asked);
        }
        Ok(difference(asked, &ours, &theirs, self.pair.apart()))
    }

    /// Does what is gRPC.
    async fn call(&mut self, step: &Step) -> Result<(), String> {
        let [ours, theirs] = &mut self.watches;
        match step {
            Step::Ask(_) => Ok(()),
            Step::Watch(asked) if ours.has_lost(asked.watch_id) => Ok(()),
            Step::Watch(asked) => {
                let called = Called::new("etcdserverpb.Watch/Watch", step);
                let compacted = self.compacted;
                let begun = both(ours.create(asked, compacted), theirs.create(asked, compacted));
                called.compare(begun.await?)?;
                // One that begins in the past is told it before more happens.
                self.settle().await
            }
            Step::Cancel(place) => {
                let called = Called::new("etcdserverpb.Watch/Watch", step);
                self.settle().await?;
                let [ours, theirs] = &mut self.watches;
                match both(ours.cancel(*place), theirs.cancel(*place)).await? {
                    [None, None] => Ok(()),
                    [ours, theirs] => {
                        let none = || Seen::body(Value::Null);
                        called.compare([ours.unwrap_or_else(none), theirs.unwrap_or_else(none)])
                    }
                }
            }
            Step::Progress => {
                let called = Called::new("etcdserverpb.Watch/Watch", step);
                self.settle().await?;
                let [ours, theirs] = &mut self.watches;
                called.compare(both(ours.progress(), theirs.progress()).await?)
            }
            Step::Hash(revision) => self.hash(*revision).await,
        }
    }

    /// Changes the key of a watch from the past that was told nothing: when 3.5.1 looks at that past
    /// is a matter of time, and a compaction before that would end the watch.
    async fn touch(&mut self, step: &Step) -> Result<Option<String>, LabError> {
        let Step::Watch(watch) = step else { return Ok(None) };
        let past = 1..=self.revision;
        if !past.contains(&watch.start_revision) || !self.watches[0].newest_waits() {
            return Ok(None);
        }
        for asked in touch(&watch.key) {
            if let Some(found) = self.ask(&asked).await? {
                return Ok(Some(found));
            }
        }
        Ok(self.settle().await.err())
    }

    async fn hash(&self, revision: i64) -> Result<(), String> {
        let [ours, theirs] = &self.clients;
        let [ours, theirs] = [hash(ours, revision).await, hash(theirs, revision).await];
        Called::new("etcdserverpb.Maintenance/HashKV", &revision).compare([ours, theirs])
    }

    async fn settle(&mut self) -> Result<(), String> {
        let [ours, theirs] = &mut self.watches;
        both(ours.settle(self.revision), theirs.settle(self.revision)).await.map(drop)
    }

    /// Compares what every watch was told, and what is kept.
    async fn end(&mut self) -> Result<(), String> {
        self.settle().await?;
        let [ours, theirs] = &self.watches;
        for ((id, ours), (same, theirs)) in ours.told().zip(theirs.told()) {
            Called::new("etcdserverpb.Watch/Watch", &format!("told the watch {id}, or {same}"))
                .compare([ours, theirs])?;
        }
        for revision in [0, self.compacted, self.compacted + 1, self.revision / 2, self.revision] {
            self.hash(revision).await?;
        }
        Ok(())
    }
}

/// A call of gRPC, as it is shown.
struct Called(Asked);

impl Called {
    fn new(path: &str, what: &impl std::fmt::Debug) -> Self {
        let body = Some(("application/grpc", format!("{what:?}")));
        Self(Asked { method: "POST", path: format!("/{path}"), body })
    }

    fn compare(&self, [ours, theirs]: [Seen; 2]) -> Result<(), String> {
        difference(&self.0, &ours, &theirs, 0).map_or(Ok(()), Err)
    }
}

async fn both<T>(
    ours: impl Future<Output = Result<T, Status>>,
    theirs: impl Future<Output = Result<T, Status>>,
) -> Result<[T; 2], String> {
    let ours = ours.await.map_err(|status| failed("ours", &status))?;
    let theirs = theirs.await.map_err(|status| failed("theirs", &status))?;
    Ok([ours, theirs])
}

fn failed(who: &str, status: &Status) -> String {
    format!("{who}: {status}")
}

fn compacted_by(asked: &Asked) -> i64 {
    let body = asked.body.as_ref().map(|(_, body)| json(body)).unwrap_or_default();
    body["revision"].as_i64().unwrap_or_default()
}

async fn hash(client: &Client, revision: i64) -> Seen {
    let answer = client.maintenance.clone().hash_kv(pb::HashKvRequest { revision }).await;
    Seen::body(match answer.map(tonic::Response::into_inner) {
        Ok(answer) => json!({
            "hash": answer.hash,
            "hash_revision": answer.hash_revision,
            "compact_revision": answer.compact_revision,
            "revision": answer.header.map_or(0, |header| header.revision),
        }),
        Err(status) => json!({ "code": i32::from(status.code()), "message": status.message() }),
    })
}
