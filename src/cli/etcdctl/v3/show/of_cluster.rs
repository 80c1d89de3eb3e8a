//! What is answered about the members.

use std::time::Duration;

use prost::Message as _;

use crate::cli::etcdctl::v3::go_text;
use crate::cli::etcdctl::v3::show::json::{self, Object};
use crate::cli::etcdctl::v3::show::{Answer, Fields, Simple, headed};
use crate::wire::etcd::v3::etcdserverpb as pb;

/// The head and the rows of a table.
type Cells = (&'static [&'static str], Vec<Vec<String>>);

fn member_row(member: &pb::Member) -> Vec<String> {
    let status = if member.name.is_empty() { "unstarted" } else { "started" };
    vec![
        format!("{:x}", member.id),
        status.to_owned(),
        member.name.clone(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner.to_string(),
    ]
}

impl Answer for pb::MemberListResponse {
    fn simple(&self, to: &mut Simple) {
        self.members.iter().for_each(|member| to.row(&member_row(member)));
    }

    fn fields(&self, to: &mut Fields) {
        to.header(self.header.as_ref());
        for member in &self.members {
            to.value("ID", member.id);
            to.text("Name", &member.name);
            member.peer_ur_ls.iter().for_each(|url| to.text("PeerURL", url));
            member.client_ur_ls.iter().for_each(|url| to.text("ClientURL", url));
            to.value("IsLearner", member.is_learner);
            to.gap();
        }
    }

    fn json(&self) -> String {
        let url = |url: &String| json::text(url);
        let member = |member: &pb::Member| {
            Object::default()
                .number("ID", member.id)
                .text("name", &member.name)
                .list("peerURLs", &member.peer_ur_ls, url)
                .list("clientURLs", &member.client_ur_ls, url)
                .yes("isLearner", member.is_learner)
                .end()
        };
        headed(self.header.as_ref()).list("members", &self.members, member).end()
    }

    fn message(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }

    fn table(&self) -> Option<Cells> {
        let head = &["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];
        Some((head, self.members.iter().map(member_row).collect()))
    }
}

impl Answer for pb::AlarmResponse {
    fn simple(&self, to: &mut Simple) {
        for raised in &self.alarms {
            let name = raised.alarm().as_str_name();
            to.line(format!("memberID:{} alarm:{name} ", raised.member_id));
        }
    }

    fn fields(&self, to: &mut Fields) {
        to.header(self.header.as_ref());
        for raised in &self.alarms {
            to.value("MemberID", raised.member_id);
            to.value("AlarmType", raised.alarm().as_str_name());
            to.gap();
        }
    }

    fn json(&self) -> String {
        let alarm = |raised: &pb::AlarmMember| {
            Object::default()
                .number("memberID", raised.member_id)
                .number("alarm", raised.alarm)
                .end()
        };
        headed(self.header.as_ref()).list("alarms", &self.alarms, alarm).end()
    }

    fn message(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

/// What each endpoint says of itself.
#[derive(Debug)]
pub(in crate::cli::etcdctl::v3) struct Statuses(
    pub(in crate::cli::etcdctl::v3) Vec<(String, pb::StatusResponse)>,
);

fn status_row((endpoint, status): &(String, pb::StatusResponse)) -> Vec<String> {
    let member = status.header.map_or(0, |header| header.member_id);
    vec![
        endpoint.clone(),
        format!("{member:x}"),
        status.version.clone(),
        go_text::size(status.db_size),
        (status.leader == member).to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
    ]
}

impl Answer for Statuses {
    fn simple(&self, to: &mut Simple) {
        self.0.iter().for_each(|one| to.row(&status_row(one)));
    }

    fn fields(&self, to: &mut Fields) {
        for (endpoint, status) in &self.0 {
            to.header(status.header.as_ref());
            to.text("Version", &status.version);
            to.value("DBSize", status.db_size);
            to.value("Leader", status.leader);
            to.value("IsLearner", status.is_learner);
            to.value("RaftIndex", status.raft_index);
            to.value("RaftTerm", status.raft_term);
            to.value("RaftAppliedIndex", status.raft_applied_index);
            let errors: Vec<_> =
                status.errors.iter().map(|error| go_text::quoted(error.as_bytes())).collect();
            to.value("Errors", format_args!("[{}]", errors.join(" ")));
            to.text("Endpoint", endpoint);
            to.gap();
        }
    }

    fn json(&self) -> String {
        json::list(&self.0, |(endpoint, status)| {
            let said = headed(status.header.as_ref())
                .text("version", &status.version)
                .number("dbSize", status.db_size)
                .number("leader", status.leader)
                .number("raftIndex", status.raft_index)
                .number("raftTerm", status.raft_term)
                .number("raftAppliedIndex", status.raft_applied_index)
                .list("errors", &status.errors, |error| json::text(error))
                .number("dbSizeInUse", status.db_size_in_use)
                .yes("isLearner", status.is_learner);
            Object::default().text_always("Endpoint", endpoint).object("Status", Some(said)).end()
        })
    }

    fn table(&self) -> Option<Cells> {
        let head = &[
            "endpoint",
            "ID",
            "version",
            "db size",
            "is leader",
            "is learner",
            "raft term",
            "raft index",
            "raft applied index",
            "errors",
        ];
        Some((head, self.0.iter().map(status_row).collect()))
    }
}

/// A hash of each endpoint's keys.
#[derive(Debug)]
pub(in crate::cli::etcdctl::v3) struct Hashes(
    pub(in crate::cli::etcdctl::v3) Vec<(String, pb::HashKvResponse)>,
);

fn hash_row((endpoint, hash): &(String, pb::HashKvResponse)) -> Vec<String> {
    vec![endpoint.clone(), hash.hash.to_string()]
}

impl Answer for Hashes {
    fn simple(&self, to: &mut Simple) {
        self.0.iter().for_each(|one| to.row(&hash_row(one)));
    }

    fn fields(&self, to: &mut Fields) {
        for (endpoint, hash) in &self.0 {
            to.header(hash.header.as_ref());
            to.text("Endpoint", endpoint);
            to.value("Hash", hash.hash);
            to.gap();
        }
    }

    fn json(&self) -> String {
        json::list(&self.0, |(endpoint, hash)| {
            let said = headed(hash.header.as_ref())
                .number("hash", hash.hash)
                .number("compact_revision", hash.compact_revision);
            Object::default().text_always("Endpoint", endpoint).object("HashKV", Some(said)).end()
        })
    }

    fn table(&self) -> Option<Cells> {
        Some((&["endpoint", "hash"], self.0.iter().map(hash_row).collect()))
    }
}

/// Whether an endpoint can serve.
#[derive(Debug)]
pub(in crate::cli::etcdctl::v3) struct Health {
    /// Which.
    pub(in crate::cli::etcdctl::v3) endpoint: String,
    /// How long it took to find out.
    pub(in crate::cli::etcdctl::v3) took: Duration,
    /// Why it cannot.
    pub(in crate::cli::etcdctl::v3) error: Option<String>,
}

/// Whether each endpoint can serve. For people, those that cannot are told on standard error.
#[derive(Debug)]
pub(in crate::cli::etcdctl::v3) struct Healths(pub(in crate::cli::etcdctl::v3) Vec<Health>);

impl Health {
    fn took(&self) -> String {
        go_text::duration(self.took)
    }

    fn error(&self) -> &str {
        self.error.as_deref().unwrap_or_default()
    }
}

impl Answer for Healths {
    fn simple(&self, to: &mut Simple) {
        for health in self.0.iter().filter(|health| health.error.is_none()) {
            to.line(format!(
                "{} is healthy: successfully committed proposal: took = {}",
                health.endpoint,
                health.took()
            ));
        }
    }

    fn fields(&self, to: &mut Fields) {
        for health in &self.0 {
            to.text("Endpoint", &health.endpoint);
            to.value("Health", health.error.is_none());
            to.text("Took", health.took());
            to.text("Error", health.error());
            to.gap();
        }
    }

    fn json(&self) -> String {
        json::list(&self.0, |health| {
            Object::default()
                .text_always("endpoint", &health.endpoint)
                .raw("health", health.error.is_none())
                .text_always("took", &health.took())
                .text("error", health.error())
                .end()
        })
    }

    fn table(&self) -> Option<Cells> {
        let row = |health: &Health| {
            let well = health.error.is_none().to_string();
            vec![health.endpoint.clone(), well, health.took(), health.error().to_owned()]
        };
        Some((&["endpoint", "health", "took", "error"], self.0.iter().map(row).collect()))
    }
}

/// A leadership that has been moved.
#[derive(Debug)]
pub(in crate::cli::etcdctl::v3) struct Moved {
    /// Who led.
    pub(in crate::cli::etcdctl::v3) from: u64,
    /// Who was to lead.
    pub(in crate::cli::etcdctl::v3) to: u64,
    /// What the store said.
    pub(in crate::cli::etcdctl::v3) answer: pb::MoveLeaderResponse,
}

impl Answer for Moved {
    fn simple(&self, to: &mut Simple) {
        to.line(format!("Leadership transferred from {:x} to {:x}", self.from, self.to));
    }

    fn fields(&self, to: &mut Fields) {
        to.header(self.answer.header.as_ref());
    }

    fn json(&self) -> String {
        headed(self.answer.header.as_ref()).end()
    }

    fn message(&self) -> Option<Vec<u8>> {
        Some(self.answer.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::etcdctl::v3::show::Format;
    use crate::cli::etcdctl::v3::show::tests::shown;

    fn statuses() -> Statuses {
        let header = pb::ResponseHeader { cluster_id: 1, member_id: 10, revision: 3, raft_term: 2 };
        let status = pb::StatusResponse {
            header: Some(header),
            version: "3.5.30".to_owned(),
            db_size: 20_480,
            leader: 10,
            raft_index: 9,
            raft_term: 2,
            raft_applied_index: 9,
            db_size_in_use: 16_384,
            ..Default::default()
        };
        let mut lost = pb::StatusResponse { leader: 0, ..status.clone() };
        lost.errors.push("etcdserver: no leader".to_owned());
        Statuses(vec![("a:1".to_owned(), status), ("b:2".to_owned(), lost)])
    }

    #[test]
    fn a_status_says_who_leads_and_what_is_wrong() {
        assert_eq!(
            shown(Format::Simple, &statuses()),
            "a:1, a, 3.5.30, 20 kB, true, false, 2, 9, 9, \n\
             b:2, a, 3.5.30, 20 kB, false, false, 2, 9, 9, etcdserver: no leader\n",
        );
        let json = shown(Format::Json, &statuses());
        let first = r#"[{"Endpoint":"a:1","Status":{"header":{"cluster_id":1,"member_id":10,"revision":3,"raft_term":2},"version":"3.5.30","dbSize":20480,"leader":10,"raftIndex":9,"raftTerm":2,"raftAppliedIndex":9,"dbSizeInUse":16384}},"#;
        assert!(json.starts_with(first), "{json}");
        serde_json::from_str::<serde_json::Value>(&json).unwrap();
        let fields = shown(Format::Fields, &statuses());
        assert!(fields.contains("\"Errors\" : []\n\"Endpoint\" : \"a:1\"\n\n"), "{fields}");
        assert!(fields.contains("\"Errors\" : [\"etcdserver: no leader\"]\n"), "{fields}");
        assert_eq!(shown(Format::Table, &statuses()).lines().count(), 6);
    }

    #[test]
    fn a_healthy_endpoint_says_how_long_it_took() {
        let health = |endpoint: &str, error: Option<&str>| Health {
            endpoint: endpoint.to_owned(),
            took: Duration::from_micros(1_500),
            error: error.map(str::to_owned),
        };
        let both = Healths(vec![health("a:1", None), health("b:2", Some("gone"))]);
        assert_eq!(
            shown(Format::Simple, &both),
            "a:1 is healthy: successfully committed proposal: took = 1.5ms\n",
        );
        assert_eq!(
            shown(Format::Json, &both),
            "[{\"endpoint\":\"a:1\",\"health\":true,\"took\":\"1.5ms\"},\
             {\"endpoint\":\"b:2\",\"health\":false,\"took\":\"1.5ms\",\"error\":\"gone\"}]\n",
        );
    }

    #[test]
    fn hashes_alarms_and_a_moved_leadership_are_a_line_each() {
        let hash = pb::HashKvResponse { hash: 7, compact_revision: 2, ..Default::default() };
        let hashes = Hashes(vec![("a:1".to_owned(), hash)]);
        assert_eq!(shown(Format::Simple, &hashes), "a:1, 7\n");
        assert_eq!(
            shown(Format::Json, &hashes),
            "[{\"Endpoint\":\"a:1\",\"HashKV\":{\"hash\":7,\"compact_revision\":2}}]\n",
        );
        let raised = pb::AlarmMember { member_id: 12, alarm: pb::AlarmType::Nospace.into() };
        let alarms = pb::AlarmResponse { header: None, alarms: vec![raised] };
        assert_eq!(shown(Format::Simple, &alarms), "memberID:12 alarm:NOSPACE \n");
        let moved = Moved { from: 10, to: 255, answer: pb::MoveLeaderResponse::default() };
        assert_eq!(shown(Format::Simple, &moved), "Leadership transferred from a to ff\n");
    }
}
