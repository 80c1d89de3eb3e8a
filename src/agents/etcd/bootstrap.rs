//! From the settings to a member of a cluster: what the data directory says, else a beginning.

use crate::agents::etcd::config::{Begin, Config};
use crate::agents::etcd::data_dir::{DataDir, DataDirError, Identity};
use crate::agents::etcd::discovery::{DiscoveryError, Seeker};
use crate::consensus::identity::{Cluster, ClusterError, member_id};
use crate::rpc::client::http::HttpClient;

/// A member has no cluster to be in.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The members were not found.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// What was found is no cluster.
    #[error("cannot begin a cluster")]
    Cluster {
        /// Why not.
        source: ClusterError,
    },
    /// This member is not in it.
    #[error(
        "couldn't find local name `{name}` in the initial cluster configuration `{cluster}`; add `{name}={url}` to it"
    )]
    NotListed {
        /// This member's name.
        name: String,
        /// The members that were given.
        cluster: String,
        /// This member's peer URL.
        url: String,
    },
    /// It is in it with other URLs.
    #[error(
        "--initial-cluster must include {name}={advertised} given --initial-advertise-peer-urls={advertised}; it has {listed}"
    )]
    OtherUrls {
        /// This member's name.
        name: String,
        /// What it advertises.
        advertised: String,
        /// What stands in the list.
        listed: String,
    },
}

/// Finds out who this member is; `waiting` is told what it waits for.
pub async fn identify(
    config: &Config,
    data: &DataDir,
    http: &HttpClient,
    waiting: impl Fn(&str),
) -> Result<Identity, BootstrapError> {
    let token = config.begin.token();
    if let Some(identity) = data.identity(token)? {
        if matches!(config.begin, Begin::Discovery { .. }) {
            tracing::info!("the discovery URL is not asked: this member has data already");
        }
        return Ok(identity);
    }
    let members = match &config.begin {
        Begin::Static { cluster, .. } => cluster.clone(),
        Begin::Discovery { url, .. } => {
            let own: Vec<_> =
                config.advertise_peer.iter().map(|url| format!("{}={url}", config.name)).collect();
            let id = format!("{:x}", member_id(&config.advertise_peer, token));
            let seeker = Seeker { http: http.clone(), url: url.clone(), id, own: own.join(",") };
            seeker.find(waiting).await?
        }
    };
    let identity = begin(config, &members, token)?;
    data.claim(&identity)?;
    Ok(identity)
}

/// Makes the cluster and finds this member in it. Pure.
fn begin(config: &Config, members: &str, token: &str) -> Result<Identity, BootstrapError> {
    let cluster = Cluster::parse(members, token);
    let cluster = cluster.map_err(|source| BootstrapError::Cluster { source })?;
    let advertised = || config.advertise_peer.join(",");
    let id = cluster.named(&config.name).ok_or_else(|| BootstrapError::NotListed {
        name: config.name.clone(),
        cluster: members.to_owned(),
        url: advertised(),
    })?;
    if id != member_id(&config.advertise_peer, token) {
        return Err(BootstrapError::OtherUrls {
            name: config.name.clone(),
            advertised: advertised(),
            listed: cluster.members[&id].peer_urls.join(","),
        });
    }
    Ok(Identity::new(&cluster, id, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, url: &str) -> Config {
        Config::read(|flag| match flag {
            "name" => Some(name.to_owned()),
            "initial-advertise-peer-urls" => Some(url.to_owned()),
            _ => None,
        })
        .unwrap()
    }

    #[test]
    fn a_member_that_is_not_listed_is_told_what_to_add() {
        let refused =
            begin(&config("c", "http://3:1"), "a=http://1:1,b=http://2:1", "t").unwrap_err();
        assert!(refused.to_string().contains("add `c=http://3:1` to it"), "{refused}");
        let refused = begin(&config("a", "http://3:1"), "a=http://1:1", "t").unwrap_err();
        assert!(matches!(refused, BootstrapError::OtherUrls { .. }), "{refused}");
        assert!(begin(&config("a", "http://1:1"), "a=http://1:1", "t").is_ok());
    }
}
