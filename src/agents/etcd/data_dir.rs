//! A member's data directory: who may use it, and whose it is.
//!
//! ```text
//!  DATA_DIR/member/lock          held by the process that uses it
//!  DATA_DIR/member/identity      JSON: format, cluster, member, token, the members it began with
//!  DATA_DIR/member/wal/          the log
//!  DATA_DIR/member/checkpoint/   the state, now and then
//! ```

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::consensus::{Cluster, Peer};
use crate::platform::disk::{self, Disk};

/// The version of the format that this program writes, and the only one it reads.
pub const FORMAT: u32 = 1;

/// A data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A file operation failed.
    #[error("cannot {what} `{}`", path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("another process uses the data directory `{}`; stop it first, or give this one its own --data-dir", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// It was a member's and a proxy's.
    #[error("invalid datadir `{}`: both member and proxy directories exist; remove the one that is not wanted", path.display())]
    Both {
        /// The data directory.
        path: PathBuf,
    },
    /// It is a proxy's.
    #[error("the data directory `{}` is that of a proxy, which is not there yet; remove its `proxy` folder to become a member", path.display())]
    Proxy {
        /// The data directory.
        path: PathBuf,
    },
    /// It belongs to another cluster.
    #[error("the data directory `{}` belongs to the cluster with the token `{found}`, and this member is to be in `{wanted}`; give it another --data-dir, or the token it had", path.display())]
    OtherCluster {
        /// The data directory.
        path: PathBuf,
        /// The token that it has.
        found: String,
        /// The token that was given.
        wanted: String,
    },
    /// It was written by a program that knows another format.
    #[error("`{}` has format version {found}, and this program reads only version {FORMAT}; start the version of corebox that wrote it", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The version it has.
        found: u32,
    },
    /// The identity cannot be read.
    #[error("`{}` is damaged; restore it from a copy, or remove this member's data and begin anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Whose data it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    format: u32,
    /// The cluster's number.
    pub cluster: u64,
    /// The member's number.
    pub member: u64,
    /// What tells the cluster from others.
    pub token: String,
    /// The members it began with.
    pub members: Vec<(u64, Peer)>,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Identity {
    /// Describes a member of a cluster.
    pub fn new(cluster: &Cluster, member: u64, token: &str) -> Self {
        let members = cluster.members.iter().map(|(id, peer)| (*id, peer.clone())).collect();
        Self { format: FORMAT, cluster: cluster.id, member, token: token.to_owned(), members }
    }

    /// Returns the cluster it began with.
    pub fn initial_cluster(&self) -> Cluster {
        Cluster { id: self.cluster, members: self.members.iter().cloned().collect() }
    }
}

/// A data directory that is ours until it is dropped.
pub struct DataDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    _lock: Box<dyn Send + Sync>,
}

impl fmt::Debug for DataDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataDir").field("path", &self.path).finish_non_exhaustive()
    }
}

impl DataDir {
    /// Makes the directory where it is missing, and takes it.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, DataDirError> {
        let failed = |what, at: &Path| {
            let path = at.to_owned();
            move |source| DataDirError::Disk { what, path, source }
        };
        let member = path.join("member");
        let has = |name: &str| disk::exists(&*disk, &path.join(name)).map_err(failed("read", path));
        if has("proxy")? {
            let path = path.to_owned();
            let both = disk::exists(&*disk, &member).map_err(failed("read", &member))?;
            return Err(if both {
                DataDirError::Both { path }
            } else {
                DataDirError::Proxy { path }
            });
        }
        disk.create_folder(&member).map_err(failed("create", &member))?;
        let lock = member.join("lock");
        let lock = disk.lock(&lock).map_err(|source| {
            if source.kind() == io::ErrorKind::WouldBlock {
                DataDirError::InUse { path: path.to_owned() }
            } else {
                DataDirError::Disk { what: "lock", path: lock.clone(), source }
            }
        })?;
        Ok(Self { disk, path: path.to_owned(), _lock: lock })
    }

    /// Returns the folder that the member's log and checkpoints are in.
    pub fn member(&self) -> PathBuf {
        self.path.join("member")
    }

    /// Reads whose data it is; `None` where it is nobody's yet.
    pub fn identity(&self, token: &str) -> Result<Option<Identity>, DataDirError> {
        let path = self.file();
        let failed = |source| DataDirError::Disk { what: "read", path: path.clone(), source };
        if !disk::exists(&*self.disk, &path).map_err(failed)? {
            return Ok(None);
        }
        let bytes = disk::read(&*self.disk, &path).map_err(failed)?;
        let damaged = |source| DataDirError::Damaged { path: path.clone(), source };
        let FormatOnly { format: found } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if found != FORMAT {
            return Err(DataDirError::Format { path, found });
        }
        let identity: Identity = serde_json::from_slice(&bytes).map_err(damaged)?;
        if identity.token != token {
            let (found, wanted) = (identity.token, token.to_owned());
            return Err(DataDirError::OtherCluster { path: self.path.clone(), found, wanted });
        }
        Ok(Some(identity))
    }

    /// Writes down whose data it is, for good.
    pub fn claim(&self, identity: &Identity) -> Result<(), DataDirError> {
        let path = self.file();
        let folder = self.member();
        let temporary = folder.join("identity.tmp");
        let text = serde_json::to_vec_pretty(identity).map_err(io::Error::other);
        let work = || {
            let file = self.disk.open(&temporary)?;
            file.set_len(0)?;
            file.write_at(0, &text?)?;
            file.sync()?;
            self.disk.rename(&temporary, &path)?;
            self.disk.sync_folder(&folder)
        };
        let failed = |source| DataDirError::Disk { what: "write", path: path.clone(), source };
        work().map_err(failed)
    }

    fn file(&self) -> PathBuf {
        self.member().join("identity")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::random::Random;
    use crate::platform::disk::MemoryDisk;

    fn disk() -> Arc<MemoryDisk> {
        Arc::new(MemoryDisk::new(Random::seeded(1), 0))
    }

    fn identity(token: &str) -> Identity {
        let cluster = Cluster::parse("a=http://10.0.0.1:2380", token).unwrap();
        Identity::new(&cluster, cluster.named("a").unwrap(), token)
    }

    #[test]
    fn what_was_claimed_is_found_again() {
        let disk = disk();
        let dir = DataDir::open(disk.clone(), Path::new("/d")).unwrap();
        assert_eq!(dir.identity("t").unwrap(), None);
        dir.claim(&identity("t")).unwrap();
        drop(dir);
        disk.crash();
        let dir = DataDir::open(disk, Path::new("/d")).unwrap();
        assert_eq!(dir.identity("t").unwrap(), Some(identity("t")));
        let refused = dir.identity("other").unwrap_err();
        assert!(matches!(refused, DataDirError::OtherCluster { .. }), "{refused}");
    }

    #[test]
    fn two_processes_do_not_share_one() {
        let disk = disk();
        let _held = DataDir::open(disk.clone(), Path::new("/d")).unwrap();
        let refused = DataDir::open(disk, Path::new("/d")).unwrap_err();
        assert!(matches!(refused, DataDirError::InUse { .. }), "{refused}");
    }

    #[test]
    fn another_format_and_a_proxy_are_refused() {
        let disk = disk();
        let dir = DataDir::open(disk.clone(), Path::new("/d")).unwrap();
        dir.claim(&Identity { format: 7, ..identity("t") }).unwrap();
        assert!(matches!(dir.identity("t").unwrap_err(), DataDirError::Format { found: 7, .. }));
        disk.create_folder(Path::new("/d/proxy")).unwrap();
        let refused = DataDir::open(disk.clone(), Path::new("/d")).unwrap_err();
        assert!(matches!(refused, DataDirError::Both { .. }));
        disk.create_folder(Path::new("/e/proxy")).unwrap();
        let refused = DataDir::open(disk, Path::new("/e")).unwrap_err();
        assert!(matches!(refused, DataDirError::Proxy { .. }));
    }
}
