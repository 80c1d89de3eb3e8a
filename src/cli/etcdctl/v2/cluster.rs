//! `member list` and `cluster-health`.

use std::time::Duration;

use crate::cli::etcdctl::v2::session::{Session, Step};
use crate::cli::etcdctl::v2::{BAD_CONNECTION, NOT_HEALTHY, SERVER_ERROR, render};
use crate::foundation::exit::Exit;
use crate::rpc::client::members_http::{Health, Member};
use crate::rpc::client::url::Url;

/// How long `cluster-health --forever` waits between two rounds.
const ROUND: Duration = Duration::from_secs(10);

impl Session {
    pub(super) async fn member_list(&mut self) -> Step<()> {
        let members = match self.members().await {
            Ok(members) => members,
            Err(failed) => {
                let exit = if failed.someone_spoke { SERVER_ERROR } else { BAD_CONNECTION };
                return Err(self.unavailable(&failed.reasons, exit));
            }
        };
        let leader = self.members_client().leader(&self.settings.endpoints).await;
        let leader = leader.map_err(|failed| {
            self.output.complain(format_args!("Failed to get leader:  {failed}"));
            Exit::Code(1)
        })?;
        for member in &members {
            self.output.line(render::member(member, &leader.id));
        }
        Ok(())
    }

    pub(super) async fn cluster_health(&mut self, forever: bool) -> Step<()> {
        let members = match self.members().await {
            Ok(members) => members,
            Err(failed) => {
                self.output.line("cluster may be unhealthy: failed to list members");
                return Err(self.unavailable(&failed.reasons, SERVER_ERROR));
            }
        };
        loop {
            let mut healthy = 0;
            for member in &members {
                healthy += usize::from(self.is_healthy(member).await);
            }
            self.output.line(match healthy {
                count if count == members.len() => "cluster is healthy",
                0 => "cluster is unavailable",
                _ => "cluster is degraded",
            });
            if !forever {
                return if healthy == members.len() { Ok(()) } else { Err(NOT_HEALTHY) };
            }
            self.output.line("\nnext check after 10 second...\n");
            tokio::time::sleep(ROUND).await;
        }
    }

    /// Asks a member at one of its URLs after the other and says what it says.
    async fn is_healthy(&mut self, member: &Member) -> bool {
        let id = &member.id;
        if member.client_urls.is_empty() {
            self.output.line(format_args!(
                "member {id} is unreachable: no available published client urls"
            ));
            return false;
        }
        for text in &member.client_urls {
            let health = match text.parse::<Url>() {
                Ok(url) => self.members_client().health(&url).await,
                Err(why) => Health::Unreachable(why.to_string()),
            };
            match health {
                Health::Healthy => {
                    self.output.line(format_args!(
                        "member {id} is healthy: got healthy result from {text}"
                    ));
                    return true;
                }
                Health::Unhealthy(_) => {
                    self.output.line(format_args!(
                        "member {id} is unhealthy: got unhealthy result from {text}"
                    ));
                    return false;
                }
                Health::Unreachable(why) => self.output.line(format_args!(
                    "failed to check the health of member {id} on {text}: {why}"
                )),
            }
        }
        let all = member.client_urls.join(" ");
        self.output.line(format_args!("member {id} is unreachable: [{all}] are all unreachable"));
        false
    }
}
