//! `/v2/stats`: how the member fares, as etcd tells it. Source: the specification A.6.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::response::Response;
use http::{Method, StatusCode};
use serde::Serialize;

use crate::consensus::Member;
use crate::consensus::figures::{Follower, Rate};
use crate::foundation::clock::{Clock, Timestamp};
use crate::rpc::server::answer::{json_answer, message, not_found, only, to_json};
use crate::store::tally::{Deed, Tally};

/// A moment that never was, as Go writes it.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Answers what is below `/v2/stats`.
pub(super) fn stats(member: &Member, clock: &dyn Clock, rest: &str, method: &Method) -> Response {
    let json = |body: String| json_answer(StatusCode::OK, body);
    let get = &Method::GET;
    match rest {
        "/self" => only(get, method, || json(to_json(&own(member, clock.now())))),
        "/store" => only(get, method, || json(to_json(&store(&member.figures().keys)))),
        "/leader" => only(get, method, || {
            if member.status().leads {
                json(to_json(&leader(member)))
            } else {
                message(StatusCode::FORBIDDEN, "not current leader")
            }
        }),
        _ => not_found(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Own {
    name: String,
    id: String,
    state: &'static str,
    start_time: String,
    leader_info: LeaderInfo,
    recv_append_request_cnt: u64,
    #[serde(skip_serializing_if = "is_zero")]
    recv_pkg_rate: f64,
    #[serde(skip_serializing_if = "is_zero")]
    recv_bandwidth_rate: f64,
    send_append_request_cnt: u64,
    #[serde(skip_serializing_if = "is_zero")]
    send_pkg_rate: f64,
    #[serde(skip_serializing_if = "is_zero")]
    send_bandwidth_rate: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaderInfo {
    leader: String,
    uptime: String,
    start_time: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(rate: &f64) -> bool {
    *rate <= 0.0
}

/// Returns what a member is, in the words of etcd.
pub(super) fn state(member: &Member) -> &'static str {
    let status = member.status();
    if status.leads {
        "StateLeader"
    } else if status.stands {
        "StateCandidate"
    } else {
        "StateFollower"
    }
}

fn own(member: &Member, now: Timestamp) -> Own {
    let figures = member.figures();
    let leadership = figures.leadership();
    let published = member.read(|machine| machine.published.get(&member.id()).cloned());
    let (sent, received): (Rate, Rate) = figures.traffic();
    Own {
        name: published.unwrap_or_default().name,
        id: format!("{:x}", member.id()),
        state: state(member),
        start_time: figures.started.rfc3339(),
        leader_info: match leadership.leader {
            Some(leader) => LeaderInfo {
                leader: format!("{leader:x}"),
                uptime: go_duration(now.since(leadership.since)),
                start_time: leadership.since.rfc3339(),
            },
            None => LeaderInfo {
                leader: String::new(),
                uptime: go_duration(Duration::ZERO),
                start_time: NEVER.to_owned(),
            },
        },
        recv_append_request_cnt: received.count,
        recv_pkg_rate: received.appends,
        recv_bandwidth_rate: received.bytes,
        send_append_request_cnt: sent.count,
        send_pkg_rate: sent.appends,
        send_bandwidth_rate: sent.bytes,
    }
}

#[derive(Serialize)]
struct Leader {
    leader: String,
    followers: BTreeMap<String, FollowerView>,
}

#[derive(Serialize)]
struct FollowerView {
    latency: LatencyView,
    counts: CountsView,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LatencyView {
    current: f64,
    average: f64,
    standard_deviation: f64,
    minimum: f64,
    maximum: f64,
}

#[derive(Serialize)]
struct CountsView {
    fail: u64,
    success: u64,
}

fn leader(member: &Member) -> Leader {
    let known = member.figures().followers();
    let others = member.members().into_iter().filter(|(id, _)| *id != member.id());
    let followers = others.map(|(id, _)| {
        let empty = Follower::default();
        let follower = known.get(&id).map_or(&empty, |follower| follower);
        (format!("{id:x}"), view(follower))
    });
    Leader { leader: format!("{:x}", member.id()), followers: followers.collect() }
}

fn view(follower: &Follower) -> FollowerView {
    let latency = follower.latency();
    FollowerView {
        latency: LatencyView {
            current: latency.current,
            average: latency.average,
            standard_deviation: latency.deviation(),
            minimum: latency.minimum,
            maximum: latency.maximum,
        },
        counts: CountsView { fail: follower.fail.get(), success: latency.count },
    }
}

/// The kinds of requests in the order in which etcd tells of them, and its words for them.
const DEEDS: [(Deed, &str); 7] = [
    (Deed::Get, "gets"),
    (Deed::Set, "sets"),
    (Deed::Delete, "delete"),
    (Deed::Update, "update"),
    (Deed::Create, "create"),
    (Deed::CompareAndSwap, "compareAndSwap"),
    (Deed::CompareAndDelete, "compareAndDelete"),
];

/// Returns the counts in etcd's order, which a map of JSON does not keep.
fn store(tally: &Tally) -> Ordered {
    let mut pairs = Vec::new();
    for (deed, name) in DEEDS {
        let counts = tally.of(deed);
        pairs.push((format!("{name}Success"), counts.success.get()));
        pairs.push((format!("{name}Fail"), counts.fail.get()));
    }
    pairs.push(("expireCount".to_owned(), tally.expired.get()));
    pairs.push(("watchers".to_owned(), tally.watchers.get()));
    Ordered(pairs)
}

struct Ordered(Vec<(String, u64)>);

impl Serialize for Ordered {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, count)| (name, count)))
    }
}

/// Writes a time as Go does: `1h2m3.4s`, `538.1ms`.
fn go_duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let (whole, part, digits, unit) = match nanos {
        0..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => (nanos / 1_000, nanos % 1_000, 3, "µs"),
        1_000_000..1_000_000_000 => (nanos / 1_000_000, nanos % 1_000_000, 6, "ms"),
        _ => (nanos / 1_000_000_000, nanos % 1_000_000_000, 9, "s"),
    };
    let minutes = if unit == "s" { whole / 60 } else { 0 };
    let large = match (minutes / 60, minutes % 60) {
        (0, 0) => String::new(),
        (0, minutes) => format!("{minutes}m"),
        (hours, minutes) => format!("{hours}h{minutes}m"),
    };
    let small = whole - minutes * 60;
    let fraction = format!(".{part:0digits$}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{large}{small}{fraction}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_go_writes_it() {
        for (nanos, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (538_182_000, "538.182ms"),
            (10_580_082_697, "10.580082697s"),
            (60_000_000_000, "1m0s"),
            (3_723_400_000_000, "1h2m3.4s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn the_counts_are_in_the_order_of_etcd() {
        let tally = Tally::default();
        tally.count(Deed::Get, true);
        assert_eq!(
            to_json(&store(&tally)),
            "{\"getsSuccess\":1,\"getsFail\":0,\"setsSuccess\":0,\"setsFail\":0,\
             \"deleteSuccess\":0,\"deleteFail\":0,\"updateSuccess\":0,\"updateFail\":0,\
             \"createSuccess\":0,\"createFail\":0,\"compareAndSwapSuccess\":0,\
             \"compareAndSwapFail\":0,\"compareAndDeleteSuccess\":0,\"compareAndDeleteFail\":0,\
             \"expireCount\":0,\"watchers\":0}",
        );
    }
}
