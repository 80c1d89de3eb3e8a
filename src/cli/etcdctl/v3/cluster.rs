//! The members and how they fare: `member`, `endpoint`, `alarm`, `defrag`, `move-leader`.

use clap::{ArgMatches, Command};
use tokio::time::Instant;

use crate::cli::etcdctl::args::{flag, verb};
use crate::cli::etcdctl::v3::keys::{number, word};
use crate::cli::etcdctl::v3::settings::Endpoint;
use crate::cli::etcdctl::v3::show::{Hashes, Health, Healths, Moved, Statuses};
use crate::cli::etcdctl::v3::{Failed, Session, Step, go_text, words};
use crate::rpc::client::v3::{Client, ClientError};
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::alarm_request::AlarmAction;

/// The key that a member's health is seen by.
const HEALTH_KEY: &[u8] = b"health";
/// Verbs of `member` that are not there yet.
const LATER: &[&str] = &["add", "promote", "remove", "update"];

/// Describes the verbs.
pub(super) fn verbs() -> [Command; 5] {
    let of_cluster = || flag("cluster", "Ask every member of the cluster").global(true);
    [
        words::group("member", "Show who the members are").subcommand(
            verb("list", "List the members").arg(
                clap::Arg::new("consistency")
                    .long("consistency")
                    .value_name("LEVEL")
                    .help("Read linearizable (`l`) or serializable (`s`)")
                    .default_value("l"),
            ),
        ),
        words::group("endpoint", "Ask members how they fare").arg(of_cluster()).subcommands([
            verb("health", "Show which members can serve"),
            verb("status", "Show what each member says of itself"),
            verb("hashkv", "Show a hash of each member's keys")
                .arg(number("rev", "As they were at this revision; now if 0")),
        ]),
        words::group("alarm", "List and take back alarms").subcommands([
            verb("list", "List every alarm"),
            verb("disarm", "Take every alarm back"),
        ]),
        verb("defrag", "Have members give space on disk back").arg(of_cluster()),
        verb("move-leader", "Make another member lead").arg(word("member", "ID", "Which, in hex")),
    ]
}

impl Session {
    pub(super) async fn member(&mut self, words: &ArgMatches) -> Step<()> {
        match words.subcommand() {
            Some(("list", words)) => {
                let local =
                    words.get_one::<String>("consistency").is_some_and(|level| level == "s");
                let listed = self.members(!local).await?;
                self.show(&listed)
            }
            Some((verb, _)) if LATER.contains(&verb) => {
                Err(words::later(&format!("member {verb}")))
            }
            other => Err(words::unknown(&format!("member {}", other.map_or("", |(verb, _)| verb)))),
        }
    }

    async fn members(&self, linearizable: bool) -> Result<pb::MemberListResponse, ClientError> {
        let request = pb::MemberListRequest { linearizable };
        self.client
            .read(|mut services| async move { services.cluster.member_list(request).await })
            .await
    }

    /// Returns whom to ask: those that were named, or every member.
    async fn asked(&self, words: &ArgMatches) -> Step<Vec<Endpoint>> {
        if !words.get_flag("cluster") {
            return Ok(self.settings.endpoints.clone());
        }
        let members = self.members(true).await.map_err(|error| {
            let failed = Failed::from(error);
            let text =
                format!("failed to fetch endpoints from etcd cluster member list: {}", failed.text);
            Failed { text, ..failed }
        })?;
        let urls = members.members.iter().flat_map(|member| &member.client_ur_ls);
        urls.map(|url| Endpoint::parse(url)).collect()
    }

    pub(super) async fn endpoint(&mut self, words: &ArgMatches) -> Step<()> {
        match words.subcommand() {
            Some(("health", words)) => self.health(words).await,
            Some(("status", words)) => self.status(words).await,
            Some(("hashkv", words)) => self.hash_kv(words).await,
            other => {
                Err(words::unknown(&format!("endpoint {}", other.map_or("", |(verb, _)| verb))))
            }
        }
    }

    async fn health(&mut self, words: &ArgMatches) -> Step<()> {
        let endpoints = self.asked(words).await?;
        let seen =
            futures_util::future::join_all(endpoints.iter().map(|endpoint| self.seen(endpoint)));
        let healths = Healths(seen.await);
        self.show(&healths)?;
        let unwell =
            || healths.0.iter().filter_map(|health| Some((health, health.error.as_ref()?)));
        if self.settings.show.is_simple() {
            for (Health { endpoint, .. }, error) in unwell() {
                self.output.complain(format_args!(
                    "{endpoint} is unhealthy: failed to commit proposal: {error}"
                ));
            }
        }
        if unwell().next().is_some() { Err(Failed::error("unhealthy cluster")) } else { Ok(()) }
    }

    /// Reads through a member, and asks it for alarms.
    async fn seen(&self, endpoint: &Endpoint) -> Health {
        let client = self.client.only(&endpoint.url);
        let start = Instant::now();
        let read = client
            .read(|mut services| async move {
                let request = pb::RangeRequest { key: HEALTH_KEY.into(), ..Default::default() };
                services.kv.range(request).await
            })
            .await;
        let took = start.elapsed();
        let error = match read {
            Err(ClientError::Refused { status })
                if status.code() == tonic::Code::PermissionDenied =>
            {
                None
            }
            Err(error) => Some(error.to_string()),
            Ok(_) => match alarms(&client, get_alarms()).await {
                Ok(raised) => active(&raised),
                Err(error) => Some(format!("Unable to fetch the alarm list: {error}")),
            },
        };
        Health { endpoint: endpoint.name().to_owned(), took, error }
    }

    async fn status(&mut self, words: &ArgMatches) -> Step<()> {
        let mut statuses = Vec::new();
        let mut failed = None;
        for endpoint in self.asked(words).await? {
            match status(&self.client.only(&endpoint.url)).await {
                Ok(status) => statuses.push((endpoint.name().to_owned(), status)),
                Err(error) => failed = Some(self.missed("status", &endpoint, &error)),
            }
        }
        self.show(&Statuses(statuses))?;
        failed.map_or(Ok(()), Err)
    }

    async fn hash_kv(&mut self, words: &ArgMatches) -> Step<()> {
        let revision = words.get_one::<i64>("rev").copied().unwrap_or_default();
        let request = pb::HashKvRequest { revision };
        let mut hashes = Vec::new();
        let mut failed = None;
        for endpoint in self.asked(words).await? {
            let client = self.client.only(&endpoint.url);
            let hash = client
                .read(|mut services| async move { services.maintenance.hash_kv(request).await })
                .await;
            match hash {
                Ok(hash) => hashes.push((endpoint.name().to_owned(), hash)),
                Err(error) => failed = Some(self.missed("hash", &endpoint, &error)),
            }
        }
        self.show(&Hashes(hashes))?;
        failed.map_or(Ok(()), Err)
    }

    /// Says that one member did not tell, and returns how the process ends for it.
    fn missed(&mut self, what: &str, endpoint: &Endpoint, error: &ClientError) -> Failed {
        let name = endpoint.name();
        self.output.complain(format_args!("Failed to get the {what} of endpoint {name} ({error})"));
        Failed::error(format_args!("not every endpoint has told its {what}"))
    }

    pub(super) async fn alarm(&mut self, words: &ArgMatches) -> Step<()> {
        let listed = alarms(&self.client, get_alarms()).await?;
        match words.subcommand_name() {
            Some("list") => self.show(&listed),
            Some("disarm") => {
                let mut taken_back = pb::AlarmResponse { alarms: Vec::new(), ..listed.clone() };
                for raised in listed.alarms {
                    let request = pb::AlarmRequest {
                        action: AlarmAction::Deactivate.into(),
                        member_id: raised.member_id,
                        alarm: raised.alarm,
                    };
                    taken_back.alarms.extend(alarms(&self.client, request).await?.alarms);
                }
                self.show(&taken_back)
            }
            other => Err(words::unknown(&format!("alarm {}", other.unwrap_or_default()))),
        }
    }

    pub(super) async fn defrag(&mut self, words: &ArgMatches) -> Step<()> {
        let endpoints = self.asked(words).await?;
        self.defrag_each(&endpoints).await
    }

    /// Has those that were named give space back.
    pub(super) async fn defrag_named(&mut self) -> Step<()> {
        let endpoints = self.settings.endpoints.clone();
        self.defrag_each(&endpoints).await
    }

    async fn defrag_each(&mut self, endpoints: &[Endpoint]) -> Step<()> {
        let mut failures = 0;
        for endpoint in endpoints {
            let start = Instant::now();
            let client = self.client.only(&endpoint.url);
            let done = client.write(|mut services| async move {
                services.maintenance.defragment(pb::DefragmentRequest {}).await
            });
            let (done, name) = (done.await, endpoint.name());
            let took = go_text::duration(start.elapsed());
            match done {
                Ok(_) => self
                    .output
                    .line(format_args!("Finished defragmenting etcd member[{name}]. took {took}")),
                Err(error) => {
                    failures += 1;
                    self.output.complain(format_args!(
                        "Failed to defragment etcd member[{name}]. took {took}. ({error})"
                    ));
                }
            }
        }
        if failures == 0 {
            Ok(())
        } else {
            Err(Failed::error(format_args!("{failures} members failed")))
        }
    }

    pub(super) async fn move_leader(&mut self, words: &ArgMatches) -> Step<()> {
        let Some(text) = words.get_one::<String>("member") else {
            return Err(Failed::arguments("move-leader command needs 1 argument"));
        };
        let target = u64::from_str_radix(text, 16).map_err(|_| {
            let text = format_args!("`{text}` is no member's ID; `etcdctl member list` has them");
            Failed::arguments(text)
        })?;
        let names =
            self.settings.endpoints.iter().map(Endpoint::name).collect::<Vec<_>>().join(" ");
        let Some((leads, leader)) = self.leader().await? else {
            return Err(Failed::arguments(format_args!("no leader endpoint given at [{names}]")));
        };
        let request = pb::MoveLeaderRequest { target_id: target };
        let moved = leader
            .write(|mut services| async move { services.maintenance.move_leader(request).await });
        let answer = moved.await?;
        self.show(&Moved { from: leads, to: target, answer })
    }

    /// Finds the one of the endpoints that leads.
    async fn leader(&self) -> Step<Option<(u64, Client)>> {
        for endpoint in &self.settings.endpoints {
            let client = self.client.only(&endpoint.url);
            let said = status(&client).await?;
            if said.header.is_some_and(|header| header.member_id == said.leader) {
                return Ok(Some((said.leader, client)));
            }
        }
        Ok(None)
    }
}

async fn status(client: &Client) -> Result<pb::StatusResponse, ClientError> {
    let ask = client.read(|mut services| async move {
        services.maintenance.status(pb::StatusRequest {}).await
    });
    ask.await
}

fn get_alarms() -> pb::AlarmRequest {
    pb::AlarmRequest { action: AlarmAction::Get.into(), ..Default::default() }
}

async fn alarms(
    client: &Client,
    request: pb::AlarmRequest,
) -> Result<pb::AlarmResponse, ClientError> {
    client.write(|mut services| async move { services.maintenance.alarm(request).await }).await
}

/// Says which alarms keep a member from serving.
fn active(raised: &pb::AlarmResponse) -> Option<String> {
    let names: Vec<_> = raised.alarms.iter().map(|alarm| alarm.alarm().as_str_name()).collect();
    (!names.is_empty()).then(|| format!("Active Alarm(s): {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_makes_a_member_unwell() {
        let raised = |alarms: Vec<pb::AlarmType>| {
            let alarm = |kind: pb::AlarmType| pb::AlarmMember { member_id: 1, alarm: kind.into() };
            pb::AlarmResponse { header: None, alarms: alarms.into_iter().map(alarm).collect() }
        };
        assert_eq!(active(&raised(vec![])), None);
        let both = raised(vec![pb::AlarmType::Nospace, pb::AlarmType::Corrupt]);
        assert_eq!(active(&both).as_deref(), Some("Active Alarm(s): NOSPACE, CORRUPT"));
    }
}
