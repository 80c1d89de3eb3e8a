//! `lease`: what keys live with.

use std::time::Duration;

use clap::{ArgMatches, Command};
use tokio::time::Instant;

use crate::cli::etcdctl::args::{flag, verb};
use crate::cli::etcdctl::v3::keys::word;
use crate::cli::etcdctl::v3::show::{Format, Revoked};
use crate::cli::etcdctl::v3::{Failed, Session, Step, go_text, words};
use crate::foundation::backoff::Backoff;
use crate::rpc::client::v3::{ClientError, is_broken};
use crate::wire::etcd::v3::etcdserverpb as pb;

/// How often a lease is renewed at most, however short it lives.
const RENEWAL_MIN: Duration = Duration::from_millis(500);
/// How long to wait before the next try to renew, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Describes the verbs.
pub(super) fn verb_lease() -> Command {
    let id = || word("lease", "LEASE", "The lease's id, in hex");
    words::group("lease", "Grant, renew and revoke leases").subcommands([
        verb("grant", "Make a lease").arg(word(
            "ttl",
            "SECONDS",
            "How long it lives unless renewed",
        )),
        verb("revoke", "End a lease and remove its keys").arg(id()),
        verb("timetolive", "Show how long a lease still lives")
            .arg(id())
            .arg(flag("keys", "Show its keys too")),
        verb("list", "List every lease"),
        verb("keep-alive", "Renew a lease until it ends")
            .arg(id())
            .arg(flag("once", "Renew it once")),
    ])
}

impl Session {
    pub(super) async fn lease(&mut self, words: &ArgMatches) -> Step<()> {
        match words.subcommand() {
            Some(("grant", words)) => self.grant(words).await,
            Some(("revoke", words)) => self.revoke(words).await,
            Some(("timetolive", words)) => self.time_to_live(words).await,
            Some(("list", _)) => self.leases().await,
            Some(("keep-alive", words)) => self.keep_alive(words).await,
            other => Err(words::unknown(&format!("lease {}", other.map_or("", |(verb, _)| verb)))),
        }
    }

    async fn grant(&mut self, words: &ArgMatches) -> Step<()> {
        let Some(text) = words.get_one::<String>("ttl") else {
            return Err(Failed::arguments("lease grant command needs TTL argument"));
        };
        let ttl = go_text::integer(text, 10);
        let ttl = ttl.map_err(|why| Failed::arguments(format_args!("bad TTL ({why})")))?;
        let request = pb::LeaseGrantRequest { ttl, id: 0 };
        let granted = self
            .client
            .write(|mut services| async move { services.lease.lease_grant(request).await });
        let granted = granted.await.map_err(|error| failed("failed to grant lease", error))?;
        self.show(&granted)
    }

    async fn revoke(&mut self, words: &ArgMatches) -> Step<()> {
        let id = id(words, "lease revoke command needs 1 argument")?;
        let request = pb::LeaseRevokeRequest { id };
        let revoked = self
            .client
            .write(|mut services| async move { services.lease.lease_revoke(request).await });
        let answer = revoked.await.map_err(|error| failed("failed to revoke lease", error))?;
        self.show(&Revoked { id, answer })
    }

    async fn time_to_live(&mut self, words: &ArgMatches) -> Step<()> {
        let id = id(words, "lease timetolive command needs lease ID as argument")?;
        let request = pb::LeaseTimeToLiveRequest { id, keys: words.get_flag("keys") };
        let left = self
            .client
            .read(|mut services| async move { services.lease.lease_time_to_live(request).await });
        let left = left.await?;
        self.show(&left)
    }

    async fn leases(&mut self) -> Step<()> {
        let listed = self.client.read(|mut services| async move {
            services.lease.lease_leases(pb::LeaseLeasesRequest {}).await
        });
        let listed = listed.await?;
        self.show(&listed)
    }

    async fn keep_alive(&mut self, words: &ArgMatches) -> Step<()> {
        let id = id(words, "lease keep-alive command needs lease ID as argument")?;
        if words.get_flag("once") {
            let kept = self.renewed(id).await?;
            if kept.ttl <= 0 {
                return Err(Failed::new(2, "etcdserver: requested lease not found"));
            }
            return self.show(&kept);
        }
        let mut retry = Backoff::new(RETRY.0, RETRY.1);
        let mut lives_until = None;
        loop {
            let wait = match self.renewed(id).await {
                Ok(kept) if kept.ttl <= 0 => break,
                Ok(kept) => {
                    self.show(&kept)?;
                    retry.reset();
                    let ttl = Duration::from_secs(kept.ttl.unsigned_abs());
                    lives_until = Some(Instant::now() + ttl);
                    (ttl / 3).max(RENEWAL_MIN)
                }
                Err(ClientError::Refused { status }) if !is_broken(&status) => {
                    return Err(ClientError::Refused { status }.into());
                }
                // Somebody may be reached before it ends, if it was ever seen to live.
                Err(error) => match lives_until {
                    None => return Err(error.into()),
                    Some(end) if Instant::now() >= end => break,
                    Some(_) => {
                        self.client.forget();
                        retry.next_wait()
                    }
                },
            };
            tokio::time::sleep(wait).await;
        }
        if self.settings.show.format == Format::Simple {
            self.output.line(format_args!("lease {id:016x} expired or revoked."));
        }
        Ok(())
    }

    /// Renews a lease once; its time to live is zero if there is no such lease.
    async fn renewed(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, ClientError> {
        let renewed = async {
            let (_requests, mut answers) =
                self.client.keep_alive(pb::LeaseKeepAliveRequest { id }).await?;
            let answer = answers.message().await;
            let answer = answer.map_err(|status| ClientError::Refused { status })?;
            let ended = || tonic::Status::unavailable("the stream has ended");
            answer.ok_or_else(|| ClientError::Refused { status: ended() })
        };
        let late = |_| Err(ClientError::Late);
        tokio::time::timeout(self.settings.client.command, renewed).await.unwrap_or_else(late)
    }
}

fn id(words: &ArgMatches, needs: &str) -> Step<i64> {
    let text = words.get_one::<String>("lease").ok_or_else(|| Failed::arguments(needs))?;
    go_text::integer(text, 16).map_err(|why| {
        Failed::arguments(format_args!("bad lease ID arg ({why}), expecting ID in Hex"))
    })
}

fn failed(what: &str, error: ClientError) -> Failed {
    let failed = Failed::from(error);
    Failed { text: format!("{what} ({})", failed.text), ..failed }
}
