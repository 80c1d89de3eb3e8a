//! One run of `etcdctl`: finds the members, does the job, says how it ended.

use std::future::Future;

use crate::cli::endpoints;
use crate::cli::etcdctl::v2::render::{self, Rendered, Show};
use crate::cli::etcdctl::v2::words::{Job, Watched};
use crate::cli::etcdctl::v2::{Asks, BAD_CONNECTION, SERVER_ERROR, Settings, exec};
use crate::cli::output::Output;
use crate::foundation::exit::Exit;
use crate::rpc::client::http::HttpClient;
use crate::rpc::client::keys::{Answer, KeysFailure};
use crate::rpc::client::keys_http::{Ask, KeysClient};
use crate::rpc::client::members_http::{Member, MembersClient, NoAnswer};
use crate::rpc::client::url::Url;

/// What Go's client says where nobody can be reached.
const UNAVAILABLE: &str = "client: etcd cluster is unavailable or misconfigured";

/// How a step ends that ends everything.
pub(super) type Step<T> = Result<T, Exit>;

/// One run.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) http: HttpClient,
    pub(super) settings: Settings,
    pub(super) output: Output,
}

impl Session {
    pub(super) const fn new(http: HttpClient, settings: Settings, output: Output) -> Self {
        Self { http, settings, output }
    }

    /// Does the job and returns how the process ends.
    pub(super) async fn carry_out(&mut self, job: Job) -> Exit {
        let done = match job {
            Job::Keys(ask, show) => self.keys(&ask, show).await,
            Job::Watch { what, forever } => self.watch(&what, forever).await,
            Job::ExecWatch { what, program } => self.exec_watch(&what, &program).await,
            Job::MemberList => self.member_list().await,
            Job::ClusterHealth { forever } => self.cluster_health(forever).await,
        };
        done.err().unwrap_or(Exit::Ok)
    }

    async fn keys(&mut self, ask: &Ask, show: Show) -> Step<()> {
        let client = self.client().await?;
        self.show_curl(ask, &client);
        let asked = client.ask(ask);
        let answer = self.in_time(asked).await?;
        self.show(&answer, show)
    }

    fn show(&mut self, answer: &Answer, show: Show) -> Step<()> {
        match render::answer(answer, show, self.settings.format) {
            Rendered::Out(text) => {
                self.output.text(text);
                Ok(())
            }
            Rendered::IsDirectory(key) => {
                self.output.complain(format_args!("{key}: is a directory"));
                Err(Exit::Code(1))
            }
        }
    }

    async fn watch(&mut self, what: &Watched, forever: bool) -> Step<()> {
        let client = self.client().await?;
        let mut from = what.from;
        self.show_curl(&Ask::wait(&what.key, what.recursive, from), &client);
        loop {
            let waited = client.wait(&what.key, what.recursive, from).await;
            let event = waited.map_err(|failure| self.failed(&failure))?;
            from = event.node.as_ref().map_or(from, |node| node.modified_index + 1);
            if let Some(text) = render::change(&event, what.recursive, self.settings.format) {
                self.output.text(text);
                if !forever {
                    return Ok(());
                }
            }
        }
    }

    async fn exec_watch(&mut self, what: &Watched, program: &[String]) -> Step<()> {
        let client = self.client().await?;
        let wait = |from| Box::pin(client.wait(&what.key, what.recursive, from));
        let mut waiting = wait(what.from);
        let mut children = exec::Children::default();
        loop {
            let waited = tokio::select! {
                biased;
                () = children.one_ended() => continue,
                waited = &mut waiting => waited,
            };
            let event = waited.map_err(|failure| self.failed(&failure))?;
            let Some(node) = event.node else { return Ok(()) };
            waiting = wait(node.modified_index + 1);
            if node.dir {
                self.output.complain(format_args!("Ignored dir {} change", node.key));
                continue;
            }
            let started = children.start(program, event.action, &node).await;
            started.map_err(|why| self.complain(why, Exit::Code(1)))?;
        }
    }

    /// Makes a client of the endpoints that are to be asked.
    async fn client(&mut self) -> Step<KeysClient> {
        if self.settings.asks == Asks::Published {
            self.sync().await?;
        }
        self.debug(|settings| format!("Cluster-Endpoints: {}", join(&settings.endpoints, ", ")));
        let endpoints = self.settings.endpoints.clone();
        Ok(KeysClient::new(self.http.clone(), endpoints).with_deadline(self.settings.deadline))
    }

    /// Replaces the endpoints that were given by those that the members publish.
    async fn sync(&mut self) -> Step<()> {
        let given = join(&self.settings.endpoints, ",");
        self.debug(|_| format!("start to sync cluster using endpoints({given})"));
        if let Some(first) = self.settings.endpoints.first().cloned() {
            let target = first.below("/v2/members");
            self.debug(|_| format!("cURL Command: curl -X GET {}{target}", first.origin));
        }
        let members = match self.members().await {
            Ok(members) => members,
            // An old proxy: it serves keys all the same.
            Err(failed) if failed.someone_spoke => return Ok(()),
            Err(failed) => return Err(self.unavailable(&failed.reasons, BAD_CONNECTION)),
        };
        let published: Vec<String> =
            members.into_iter().flat_map(|member| member.client_urls).collect();
        if published.is_empty() {
            self.output.complain("etcd cluster has no published client endpoints.");
            self.output.complain(format_args!(
                "Try '--no-sync' if you want to access non-published client endpoints({given})."
            ));
            return Err(self.complain("client: no endpoints available", SERVER_ERROR));
        }
        let endpoints = endpoints::parse(&published.join(","));
        self.settings.endpoints = endpoints.map_err(|why| {
            self.complain(format!("a member publishes what cannot be asked: {why}"), SERVER_ERROR)
        })?;
        self.debug(|settings| {
            format!("got endpoints({}) after sync", join(&settings.endpoints, ","))
        });
        Ok(())
    }

    /// Asks who the members are, within the total deadline.
    pub(super) async fn members(&self) -> Result<Vec<Member>, NoAnswer> {
        let client = self.members_client();
        let listed = client.list(&self.settings.endpoints);
        tokio::time::timeout(self.settings.total, listed).await.unwrap_or_else(|_| {
            let reasons = vec!["the total timeout has passed".to_owned()];
            Err(NoAnswer { reasons, someone_spoke: false })
        })
    }

    pub(super) fn members_client(&self) -> MembersClient {
        MembersClient::new(self.http.clone(), self.settings.deadline)
    }

    async fn in_time<T>(&mut self, work: impl Future<Output = Result<T, KeysFailure>>) -> Step<T> {
        match tokio::time::timeout(self.settings.total, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(failure)) => Err(self.failed(&failure)),
            Err(_) => {
                let reason = "the total timeout has passed".to_owned();
                Err(self.unavailable(&[reason], SERVER_ERROR))
            }
        }
    }

    fn failed(&mut self, failure: &KeysFailure) -> Exit {
        match failure {
            KeysFailure::Refused(error) => self.complain(error, SERVER_ERROR),
            KeysFailure::Unreachable { .. } | KeysFailure::Unknown { .. } => {
                self.unavailable(&[failure.to_string()], SERVER_ERROR)
            }
        }
    }

    /// Says that nobody answered, and how each endpoint failed.
    pub(super) fn unavailable(&mut self, reasons: &[String], exit: Exit) -> Exit {
        self.complain(UNAVAILABLE, exit);
        for (number, reason) in reasons.iter().enumerate() {
            self.output.complain(format_args!("error #{number}: {reason}"));
        }
        exit
    }

    pub(super) fn complain(&mut self, why: impl std::fmt::Display, exit: Exit) -> Exit {
        self.output.complain(format_args!("Error:  {why}"));
        exit
    }

    fn show_curl(&mut self, ask: &Ask, client: &KeysClient) {
        if let Some(endpoint) = client.endpoints().first() {
            self.debug(|_| format!("cURL Command: {}", ask.curl(endpoint)));
        }
    }

    fn debug(&mut self, text: impl FnOnce(&Settings) -> String) {
        if self.settings.debug {
            self.output.complain(text(&self.settings));
        }
    }
}

fn join(endpoints: &[Url], separator: &str) -> String {
    let shown: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    shown.join(separator)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cli::etcdctl::v2::words;
    use crate::cli::output::Kept;
    use crate::foundation::tasks::Tasks;
    use crate::platform::net::MemoryNet;
    use crate::rpc::client::scripted::{Reply, Scripted, origin};

    const MEMBERS: &str = r#"{"members":[{"id":"a1","name":"core-1","peerURLs":["http://10.0.0.1:2380"],"clientURLs":["http://10.0.0.1:2379"]}]}"#;
    const VALUE: &str =
        r#"{"action":"get","node":{"key":"/a","value":"1","modifiedIndex":7,"createdIndex":7}}"#;
    const MISSING: &str = r#"{"errorCode":100,"message":"Key not found","cause":"/a","index":5}"#;

    /// Types a line at a store that replies like this.
    async fn typed(line: &str, replies: Vec<Reply>) -> (u8, Kept, Vec<String>) {
        let (net, tasks) = (MemoryNet::default(), Tasks::default());
        let server = Scripted::start(&net, &origin(), &tasks, replies).await;
        let (exit, kept) = run_on(net, line).await;
        (exit, kept, server.requests())
    }

    async fn run_on(net: MemoryNet, line: &str) -> (u8, Kept) {
        let matches = words::command().try_get_matches_from(line.split(' ')).unwrap();
        let job = words::job(&matches, || Ok(String::new())).unwrap();
        let endpoint = Some("http://10.0.0.1:2379".to_owned());
        let settings = Settings::read(&matches, endpoint).unwrap();
        let (output, kept) = Output::kept();
        let mut session = Session::new(HttpClient::new(Arc::new(net)), settings, output);
        let exit = session.carry_out(job).await;
        (exit.code(), kept)
    }

    #[tokio::test(start_paused = true)]
    async fn the_members_are_asked_where_they_say_they_are() {
        let replies = vec![Reply::ok(MEMBERS), Reply::ok(VALUE)];
        let (exit, kept, requests) = typed("etcdctl get /a", replies).await;
        assert_eq!((exit, kept.out().as_str()), (0, "1\n"));
        assert!(requests[0].starts_with("GET /v2/members "), "{requests:?}");
        assert!(requests[1].starts_with("GET /v2/keys/a "), "{requests:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_sync_the_first_request_is_the_verbs() {
        let (exit, kept, requests) =
            typed("etcdctl --no-sync get /a", vec![Reply::ok(VALUE)]).await;
        assert_eq!((exit, kept.out().as_str(), requests.len()), (0, "1\n", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_written_as_the_original_wrote_it() {
        for format in ["simple", "json"] {
            let line = format!("etcdctl --no-sync -o {format} get /a");
            let (exit, kept, _) = typed(&line, vec![Reply::status(404, "", MISSING)]).await;
            assert_eq!((exit, kept.err().as_str()), (4, "Error:  100: Key not found (/a) [5]\n"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_listens_each_endpoint_is_named() {
        let (exit, kept) = run_on(MemoryNet::default(), "etcdctl get /a").await;
        assert_eq!(exit, 2);
        assert_eq!(
            kept.err(),
            "Error:  client: etcd cluster is unavailable or misconfigured\n\
             error #0: cannot connect to http://10.0.0.1:2379: connection refused\n",
        );
    }

    #[tokio::test(start_paused = true)]
    async fn members_that_publish_nothing_are_no_use() {
        let members = r#"{"members":[{"id":"a1","name":"","peerURLs":[],"clientURLs":[]}]}"#;
        let (exit, kept, _) = typed("etcdctl get /a", vec![Reply::ok(members)]).await;
        assert_eq!(exit, 4);
        assert!(kept.err().starts_with("etcd cluster has no published client endpoints.\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn debugging_shows_what_curl_would_be_told() {
        let (_, kept, _) = typed("etcdctl --no-sync --debug get /a", vec![Reply::ok(VALUE)]).await;
        assert_eq!(
            kept.err(),
            "Cluster-Endpoints: http://10.0.0.1:2379\n\
             cURL Command: curl -X GET http://10.0.0.1:2379/v2/keys/a\n",
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_without_an_end_goes_on_after_what_it_saw() {
        let replies = vec![Reply::ok(VALUE), Reply::status(400, "", MISSING)];
        let line = "etcdctl --no-sync watch --forever --after-index 3 /a";
        let (exit, kept, requests) = typed(line, replies).await;
        assert_eq!((exit, kept.out().as_str()), (4, "1\n"));
        assert!(requests[0].contains("waitIndex=4 "), "{requests:?}");
        assert!(requests[1].contains("waitIndex=8 "), "{requests:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn members_are_listed_with_their_leader() {
        let leader = r#"{"id":"a1","name":"core-1","peerURLs":[],"clientURLs":[]}"#;
        let replies = vec![Reply::ok(MEMBERS), Reply::ok(leader)];
        let (exit, kept, _) = typed("etcdctl member list", replies).await;
        assert_eq!(exit, 0);
        assert_eq!(
            kept.out(),
            "a1: name=core-1 peerURLs=http://10.0.0.1:2380 clientURLs=http://10.0.0.1:2379 isLeader=true\n",
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_is_as_healthy_as_its_members_say() {
        let health = |said: &str| Reply::ok(&format!(r#"{{"health":"{said}"}}"#));
        let well = vec![Reply::ok(MEMBERS), health("true")];
        let (exit, kept, _) = typed("etcdctl cluster-health", well).await;
        assert_eq!(exit, 0);
        assert_eq!(
            kept.out(),
            "member a1 is healthy: got healthy result from http://10.0.0.1:2379\n\
             cluster is healthy\n",
        );
        let ill = vec![Reply::ok(MEMBERS), health("false")];
        let (exit, kept, _) = typed("etcdctl cluster-health", ill).await;
        assert_eq!(exit, 5);
        assert!(kept.out().ends_with("cluster is unavailable\n"), "{}", kept.out());
    }
}
