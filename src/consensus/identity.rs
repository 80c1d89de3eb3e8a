//! Who the members of a cluster are, and the numbers that say so. Pure.
//!
//! A member's number is made of its peer URLs and the cluster's token, the cluster's of its
//! members' numbers, as etcd makes them: two clusters never share one by chance.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

/// Most members of a cluster: a quorum of more is slower and no safer.
pub const MEMBERS_MAX: usize = 9;

/// One member, as the others know it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Where the others reach it, such as `http://10.0.0.1:2380`.
    pub peer_urls: Vec<String>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.peer_urls.join(","))
    }
}

/// The members a cluster begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's number.
    pub id: u64,
    /// Its members by their numbers.
    pub members: BTreeMap<u64, Peer>,
}

/// The members that were given make no cluster.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClusterError {
    /// Not `name=url,…`.
    #[error("`{text}` in the initial cluster is not `name=url`, such as `a=http://10.0.0.1:2380`")]
    Syntax {
        /// The part that is wrong.
        text: String,
    },
    /// Two members are the same.
    #[error("the initial cluster has two members with the peer URLs {urls}; give each its own")]
    Duplicate {
        /// The URLs that both have.
        urls: String,
    },
    /// None, or too many.
    #[error("the initial cluster has {count} members; a cluster has 1 to {MEMBERS_MAX}")]
    Count {
        /// How many there are.
        count: usize,
    },
}

impl Cluster {
    /// Reads the value of `--initial-cluster`: `a=url,b=url`; a name that stands twice has two URLs.
    pub fn parse(text: &str, token: &str) -> Result<Self, ClusterError> {
        let mut by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let split =
                part.split_once('=').filter(|(name, url)| !name.is_empty() && !url.is_empty());
            let (name, url) =
                split.ok_or_else(|| ClusterError::Syntax { text: part.to_owned() })?;
            by_name.entry(name).or_default().push(url.to_owned());
        }
        let peers = by_name.into_iter().map(|(name, mut peer_urls)| {
            peer_urls.sort();
            Peer { name: name.to_owned(), peer_urls }
        });
        Self::new(peers, token)
    }

    /// Numbers the members and the cluster.
    pub fn new(peers: impl IntoIterator<Item = Peer>, token: &str) -> Result<Self, ClusterError> {
        let mut members = BTreeMap::new();
        for peer in peers {
            let id = member_id(&peer.peer_urls, token);
            let urls = peer.peer_urls.join(",");
            if members.insert(id, peer).is_some() {
                return Err(ClusterError::Duplicate { urls });
            }
        }
        if members.is_empty() || members.len() > MEMBERS_MAX {
            return Err(ClusterError::Count { count: members.len() });
        }
        let mut hash = Sha1::new();
        for id in members.keys() {
            hash.update(id.to_be_bytes());
        }
        Ok(Self { id: first_eight(hash), members })
    }

    /// Returns the number of the member of that name.
    pub fn named(&self, name: &str) -> Option<u64> {
        self.members.iter().find(|(_, peer)| peer.name == name).map(|(id, _)| *id)
    }
}

/// Returns a bootstrapped member's number: the first eight bytes of the SHA-1 of its sorted peer
/// URLs and the cluster's token.
pub fn member_id(peer_urls: &[String], token: &str) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url.as_bytes());
    }
    hash.update(token.as_bytes());
    first_eight(hash)
}

fn first_eight(hash: Sha1) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.finalize()[..8]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_that_etcd_makes() {
        // Recorded: the member and the cluster of `testbed/golden/etcd-v2.txt`.
        let cluster = Cluster::parse("default=http://127.0.0.1:12380", "etcd-cluster").unwrap();
        assert_eq!(format!("{:x}", cluster.id), "a7ef944b95711739");
        assert_eq!(
            cluster.named("default").map(|id| format!("{id:x}")).unwrap(),
            "ddd67b312462fd7b"
        );
    }

    #[test]
    fn another_token_makes_another_cluster() {
        let one = Cluster::parse("a=http://1:1,b=http://2:1", "x").unwrap();
        let other = Cluster::parse("b=http://2:1,a=http://1:1", "y").unwrap();
        assert_ne!(one.id, other.id);
        assert_eq!(one, Cluster::parse("b=http://2:1,a=http://1:1", "x").unwrap());
    }

    #[test]
    fn what_is_no_cluster_is_refused() {
        let error = |text| Cluster::parse(text, "x").unwrap_err();
        assert_eq!(error("a"), ClusterError::Syntax { text: "a".into() });
        assert_eq!(error(""), ClusterError::Count { count: 0 });
        assert_eq!(error("a=u,b=u"), ClusterError::Duplicate { urls: "u".into() });
        let many: Vec<_> = (0..10).map(|n| format!("n{n}=u{n}")).collect();
        assert_eq!(error(&many.join(",")), ClusterError::Count { count: 10 });
    }
}
