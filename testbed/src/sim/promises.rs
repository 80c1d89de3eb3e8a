//! What the v3 API promises its clients, held against what was agreed on. Pure.
//!
//! - Calls are strictly serializable: each answer carries its revision, so their order is known.
//! - Watches are ordered, unique, atomic, reliable, resumable and bookmarkable.
//! - No lease ends before its time, unless its owner ends it.

use std::collections::BTreeMap;

use crate::sim::truth::{Fact, Truth};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// All keys of the clients, now.
    Read,
    /// The same, as one member has them.
    Stale,
    /// The same, as they were.
    Past {
        /// At this revision; the newest if it is not positive.
        revision: i64,
    },
    /// This key and `cboth` get the value.
    Put {
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// A key gets the value if it was written last at a revision.
    Swap {
        /// The key.
        key: Vec<u8>,
        /// That revision; 0 if the key is not to be there.
        found: i64,
        /// The value.
        value: Vec<u8>,
    },
    /// A key is deleted.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// What was before is forgotten.
    Compact {
        /// This revision.
        revision: i64,
    },
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It was done, at this revision.
    Done {
        /// The revision.
        revision: i64,
    },
    /// It was not as expected; nothing was done.
    Differs {
        /// The store's revision.
        revision: i64,
    },
    /// What was read.
    Read {
        /// The store's revision.
        revision: i64,
        /// The keys, in order.
        facts: Vec<Fact>,
    },
    /// That is compacted.
    Compacted,
    /// There is no room; nothing was done.
    Full,
    /// Nothing was done.
    No,
    /// It may have been done.
    Nothing,
}

/// One call. Times are places in the order in which everything happened.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who asks.
    pub client: u64,
    /// Which member.
    pub member: u64,
    /// In which of its lives.
    pub life: u64,
    /// What for.
    pub wish: Wish,
    /// What was told.
    pub said: Said,
    /// When it was asked.
    pub start: u64,
    /// When it was told.
    pub end: u64,
}

/// A lease lives so many seconds from a moment on, at least.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// The lease.
    pub id: i64,
    /// When this was asked for.
    pub start_us: u64,
    /// The seconds; none if it was not there.
    pub ttl: i64,
}

/// What a watch wants.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    /// Key and end of the range, as on the wire.
    pub range: (Vec<u8>, Vec<u8>),
    /// No puts.
    pub no_put: bool,
    /// No deletions.
    pub no_delete: bool,
    /// With what was there before.
    pub prev: bool,
}

/// What a watch hears.
#[derive(Debug, Clone)]
pub enum Heard {
    /// It went on, at any member, from this revision.
    Asked {
        /// The revision.
        from: i64,
    },
    /// Something happened.
    Events {
        /// The store's revision.
        revision: i64,
        /// What, and what was there before.
        facts: Vec<(Fact, Option<Fact>)>,
    },
    /// Everything was told up to this revision.
    Progress {
        /// The revision.
        revision: i64,
    },
    /// What it wants is compacted.
    Lost {
        /// Up to this revision.
        compacted: i64,
    },
}

/// One watch, over all its streams.
#[derive(Debug, Clone)]
pub struct Watch {
    /// Who watches.
    pub client: u64,
    /// What.
    pub interest: Interest,
    /// What it heard, in order.
    pub heard: Vec<Heard>,
}

impl Interest {
    fn wants(&self, fact: &Fact) -> bool {
        let (from, to) = (&self.range.0, &self.range.1);
        let within = match to.as_slice() {
            [] => fact.key == *from,
            [0] => fact.key >= *from,
            _ => fact.key >= *from && fact.key < *to,
        };
        within && !if fact.value.is_some() { self.no_put } else { self.no_delete }
    }

    fn between<'t>(
        &'t self,
        truth: &'t Truth,
        from: i64,
        to: i64,
    ) -> impl Iterator<Item = &'t Fact> {
        let revisions = (from <= to).then(|| truth.revisions.range(from..=to));
        revisions.into_iter().flatten().flat_map(|(_, facts)| facts).filter(|one| self.wants(one))
    }
}

/// Checks what a watch heard; it must have heard everything up to the revision `last`.
pub fn watch(truth: &Truth, watch: &Watch, last: i64) -> Result<(), String> {
    let interest = &watch.interest;
    let wrong = |what: &str, heard: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
        Err(format!("watch {}: {what}: heard {heard:?}, and it is {expected:?}", watch.client))
    };
    let mut next = 1;
    for heard in &watch.heard {
        match heard {
            Heard::Asked { from } => {
                if *from != next {
                    return wrong("it does not go on where it was", from, &next);
                }
            }
            Heard::Events { revision, facts } => {
                let upto = facts.last().map_or(0, |(fact, _)| fact.revision);
                let told: Vec<_> = facts.iter().map(|(fact, _)| fact).collect();
                let happened: Vec<_> = interest.between(truth, next, upto).collect();
                if told != happened || *revision < upto {
                    return wrong("what happened is not what was told", heard, &happened);
                }
                for (fact, prev) in facts {
                    before(truth, interest, fact, prev.as_ref())?;
                }
                next = upto + 1;
            }
            Heard::Progress { revision } => {
                if let Some(missed) = interest.between(truth, next, *revision).next() {
                    return wrong("progress ahead of what happened", heard, missed);
                }
                next = next.max(revision + 1);
            }
            Heard::Lost { compacted } => {
                if *compacted <= next || !truth.compactions.contains(compacted) {
                    return wrong("nothing was compacted there", heard, &truth.compactions);
                }
                next = *compacted;
            }
        }
    }
    match interest.between(truth, next, last).next() {
        Some(missed) => wrong("it never heard all", &next, missed),
        None => Ok(()),
    }
}

/// Checks what an event says was there before; what is compacted need not be told.
fn before(
    truth: &Truth,
    interest: &Interest,
    fact: &Fact,
    told: Option<&Fact>,
) -> Result<(), String> {
    let keys = truth.at(fact.revision - 1);
    let was = keys.get(fact.key.as_slice()).copied().filter(|_| interest.prev);
    let left_out = told.is_none() && fact.revision <= truth.compacted();
    if told == was || left_out {
        return Ok(());
    }
    Err(format!("a watch heard that {told:?} was before {fact:?}, and it was {was:?}"))
}

/// Checks all calls.
pub fn calls(truth: &Truth, calls: &[Call]) -> Result<(), String> {
    let mut by_end: Vec<&Call> = calls.iter().filter(|call| call.end != u64::MAX).collect();
    by_end.sort_by_key(|call| call.end);
    let mut by_start = by_end.clone();
    by_start.sort_by_key(|call| call.start);
    let mut ended = by_end.into_iter().peekable();
    // What had been answered when the call began.
    let (mut newest, mut compacted) = (0, 0);
    let mut shown: BTreeMap<(u64, u64, u64), i64> = BTreeMap::new();
    for call in by_start {
        while let Some(before) = ended.next_if(|before| before.end < call.start) {
            match (&before.wish, &before.said) {
                (Wish::Compact { revision }, Said::Done { .. }) => {
                    compacted = compacted.max(*revision);
                }
                // What one member has may be old.
                (Wish::Stale, _) => {}
                (
                    _,
                    Said::Done { revision }
                    | Said::Differs { revision }
                    | Said::Read { revision, .. },
                ) => newest = newest.max(*revision),
                _ => {}
            }
        }
        let found = one(truth, call, newest, compacted);
        found.map_err(|why| format!("{why}: {call:?}, after {newest} was answered"))?;
        if let (Wish::Stale, Said::Read { revision, .. }) = (&call.wish, &call.said) {
            let before = shown.entry((call.client, call.member, call.life)).or_default();
            if revision < before {
                return Err(format!("a member went back from revision {before}: {call:?}"));
            }
            *before = *revision;
        }
    }
    values(truth, calls)
}

/// Checks one answered call; `newest` is the last revision that was answered before it began.
fn one(truth: &Truth, call: &Call, newest: i64, compacted: i64) -> Result<(), &'static str> {
    let ensure = |right: bool, why| if right { Ok(()) } else { Err(why) };
    match (&call.wish, &call.said) {
        (Wish::Compact { revision }, Said::Done { .. }) => {
            ensure(truth.compactions.contains(revision), "this was never compacted")
        }
        (Wish::Past { revision }, Said::Compacted) => {
            ensure(*revision < truth.compacted(), "this was never compacted")
        }
        (Wish::Past { revision: at }, Said::Read { revision, facts }) if *at > 0 => {
            ensure(*at >= compacted, "what was compacted was read")?;
            ensure(*revision >= newest && at <= revision, "a stale read")?;
            ensure(reads(truth, *at, facts), "this was never there")
        }
        (Wish::Stale, Said::Read { revision, facts }) => {
            ensure(reads(truth, *revision, facts), "this was never there")
        }
        (_, Said::Read { revision, facts }) => {
            ensure(*revision >= newest, "a stale read")?;
            ensure(reads(truth, *revision, facts), "this was never there")
        }
        (wish, Said::Done { revision }) => {
            ensure(*revision > newest, "a write in the past")?;
            ensure(happened(truth, wish, *revision), "this did not happen")
        }
        (wish, Said::Differs { revision }) => {
            ensure(*revision >= newest, "a stale comparison")?;
            let keys = truth.at(*revision);
            let fits = match wish {
                Wish::Swap { key, found, .. } => {
                    keys.get(key.as_slice()).map_or(0, |fact| fact.revision) == *found
                }
                Wish::Delete { key } => keys.contains_key(key.as_slice()),
                Wish::Put { .. }
                | Wish::Read
                | Wish::Stale
                | Wish::Past { .. }
                | Wish::Compact { .. } => true,
            };
            ensure(!fits, "it was as expected")
        }
        (_, Said::Compacted | Said::Full | Said::No | Said::Nothing) => Ok(()),
    }
}

/// Are these the clients' keys at a revision?
fn reads(truth: &Truth, revision: i64, facts: &[Fact]) -> bool {
    let keys = truth.at(revision);
    let there = keys.range(b"c".as_slice()..b"d".as_slice()).map(|(_, fact)| *fact);
    revision <= truth.revision() && there.eq(facts)
}

/// Did a revision do what was asked for?
fn happened(truth: &Truth, wish: &Wish, revision: i64) -> bool {
    let Some(facts) = truth.revisions.get(&revision) else { return false };
    let did = |key: &[u8], value: Option<&Vec<u8>>| {
        facts.iter().any(|fact| fact.key == key && fact.value.as_ref() == value)
    };
    match wish {
        Wish::Put { key, value } => did(key, Some(value)) && did(b"cboth", Some(value)),
        Wish::Swap { key, found, value } => {
            let keys = truth.at(revision - 1);
            let was = keys.get(key.as_slice()).map_or(0, |fact| fact.revision);
            did(key, Some(value)) && was == *found
        }
        Wish::Delete { key } => did(key, None),
        Wish::Read | Wish::Stale | Wish::Past { .. } | Wish::Compact { .. } => false,
    }
}

/// No value is written twice, nor one whose write was refused.
fn values(truth: &Truth, calls: &[Call]) -> Result<(), String> {
    let mut written: BTreeMap<&[u8], Vec<i64>> = BTreeMap::new();
    for fact in truth.revisions.values().flatten() {
        if let Some(value) = &fact.value
            && (fact.key != b"cboth" || value.starts_with(b"v"))
        {
            written.entry(value).or_default().push(fact.revision);
        }
    }
    for call in calls {
        let (Wish::Put { value, .. } | Wish::Swap { value, .. }) = &call.wish else { continue };
        let Some(revisions) = written.get(value.as_slice()) else { continue };
        if revisions.iter().any(|revision| *revision != revisions[0]) {
            return Err(format!("done twice, at revisions {revisions:?}: {call:?}"));
        }
        if matches!(call.said, Said::No | Said::Full | Said::Differs { .. }) {
            return Err(format!("refused and done, at revision {}: {call:?}", revisions[0]));
        }
    }
    Ok(())
}

/// Checks that every lease a client was given is there, and that none ended early; the clock goes in steps of `tick_ms`.
pub fn leases(truth: &Truth, kept: &[Kept], tick_ms: u64) -> Result<(), String> {
    for one in kept.iter().filter(|one| one.ttl > 0) {
        if !truth.granted.contains(&one.id) {
            return Err(format!("lease {} was never granted", one.id));
        }
        let Some(revoked_ms) = truth.revoked.get(&one.id) else { continue };
        let until_ms = one.start_us / 1_000 + one.ttl.cast_unsigned() * 1_000;
        if revoked_ms + 2 * tick_ms < until_ms {
            return Err(format!("lease {} ended at {revoked_ms} ms, before {until_ms}", one.id));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(revision: i64, key: &str, value: Option<&str>) -> Fact {
        let live = i64::from(value.is_some());
        let value = value.map(|value| value.as_bytes().to_vec());
        let (created, version) = (revision * live, live);
        Fact { revision, key: key.into(), value, created, version, lease: 0 }
    }

    /// Revision 2 puts `a`, 3 puts `c0` and `cboth`, 4 deletes `a`; 3 was compacted.
    fn truth() -> Truth {
        let mut truth = Truth::default();
        let both = vec![fact(3, "c0", Some("v1")), fact(3, "cboth", Some("v1"))];
        truth.revisions.insert(2, vec![fact(2, "a", Some("x"))]);
        truth.revisions.insert(3, both);
        truth.revisions.insert(4, vec![fact(4, "a", None)]);
        truth.compactions.push(3);
        truth
    }

    fn heard(facts: &[Fact]) -> Heard {
        let revision = facts.last().unwrap().revision;
        Heard::Events { revision, facts: facts.iter().map(|one| (one.clone(), None)).collect() }
    }

    fn watched(heard: Vec<Heard>) -> Result<(), String> {
        let range = (b"\0".to_vec(), b"\0".to_vec());
        let interest = Interest { range, ..Interest::default() };
        watch(&truth(), &Watch { client: 1, interest, heard }, 4)
    }

    #[test]
    fn a_watch_hears_all_once_in_order_and_whole_revisions() {
        let truth = truth();
        let of = |revision| truth.revisions[&revision].clone();
        let (two, three, four) = (heard(&of(2)), heard(&of(3)), heard(&of(4)));
        let all = vec![two.clone(), three.clone(), Heard::Progress { revision: 3 }, four.clone()];
        assert_eq!(watched(all), Ok(()));
        let resumed = vec![two.clone(), Heard::Asked { from: 3 }, three.clone(), four.clone()];
        assert_eq!(watched(resumed), Ok(()));
        let lost = vec![Heard::Lost { compacted: 3 }, three.clone(), four.clone()];
        assert_eq!(watched(lost), Ok(()));
        for wrong in [
            vec![three.clone(), two.clone(), four.clone()],
            vec![two.clone(), two.clone(), three.clone(), four.clone()],
            vec![two.clone(), four.clone()],
            vec![two.clone(), three.clone()],
            vec![two.clone(), heard(&of(3)[..1]), heard(&of(3)[1..]), four.clone()],
            vec![two.clone(), Heard::Progress { revision: 3 }, three, four.clone()],
            vec![two.clone(), Heard::Lost { compacted: 4 }, four.clone()],
            vec![two, Heard::Asked { from: 4 }, four],
        ] {
            assert!(watched(wrong.clone()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_answer_is_about_its_own_moment() {
        let put = Wish::Put { key: b"c0".into(), value: b"v1".into() };
        let call = |wish: Wish, said, start, end| {
            let (client, member, life) = (1, 1, 0);
            Call { client, member, life, wish, said, start, end }
        };
        let put_at = |revision| call(put.clone(), Said::Done { revision }, 1, 2);
        let mut truth = truth();
        // `reads` asks the machine how far it is, so there is none to read here.
        truth.revisions.remove(&4);
        assert_eq!(calls(&truth, &[put_at(3)]), Ok(()));
        assert!(calls(&truth, &[put_at(2)]).is_err(), "it did not happen there");
        let stale = call(Wish::Read, Said::Read { revision: 2, facts: Vec::new() }, 3, 4);
        let why = calls(&truth, &[put_at(3), stale]).unwrap_err();
        assert!(why.starts_with("a stale read"), "{why}");
        let refused = call(put.clone(), Said::No, 1, 2);
        assert!(calls(&truth, &[refused]).unwrap_err().starts_with("refused and done"));
        let wish = Wish::Swap { key: b"c0".into(), found: 3, value: b"v9".into() };
        let differs = call(wish, Said::Differs { revision: 3 }, 1, 2);
        assert!(calls(&truth, &[differs]).unwrap_err().starts_with("it was as expected"));
        truth.revisions.insert(4, vec![fact(4, "c0", Some("v1"))]);
        assert!(calls(&truth, &[put_at(3)]).unwrap_err().starts_with("done twice"));
    }

    #[test]
    fn a_lease_lives_its_time_from_when_it_was_kept_last() {
        let mut truth = Truth::default();
        let kept = [Kept { id: 7, start_us: 500_000, ttl: 1 }];
        assert!(leases(&truth, &kept, 1).is_err());
        truth.granted.insert(7);
        assert_eq!(leases(&truth, &kept, 1), Ok(()));
        truth.revoked.insert(7, 1_500);
        assert_eq!(leases(&truth, &kept, 1), Ok(()));
        truth.revoked.insert(7, 1_400);
        assert!(leases(&truth, &kept, 1).is_err());
        let gone = [Kept { id: 7, start_us: 500_000, ttl: 0 }];
        assert_eq!(leases(&truth, &gone, 1), Ok(()));
    }
}
