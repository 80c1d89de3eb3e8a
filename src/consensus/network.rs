//! Calls between members: a greeting, then frames, one question and one answer at a time.
//!
//! ```text
//!  MAGIC │ frame(Hello{cluster, from}) ─▶      ◀─ frame(Welcome)
//!  frame(Request) ─▶                           ◀─ frame(Reply)       … and again
//!  frame: length u32, little-endian │ postcard
//! ```
//! A call ends when its deadline is over, or its other end is silent: who works on a question says so
//! again and again, so that a checkpoint may take as long as it takes and a lost answer is not waited
//! for. A connection whose call did not end well is never used again, and one that was idle for long
//! is not trusted. The magic lets HTTP live on the same port.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::TypeConfigExt as _;
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::consensus::figures::Figures;
use crate::consensus::identity::Peer;
use crate::consensus::leases::LeaseAsk;
use crate::consensus::proposer::Applied;
use crate::consensus::types::{Snapshot, SnapshotMeta, TypeConfig, Vote};
use crate::foundation::limits::PEER_FRAME_BYTES_MAX;
use crate::platform::net::{Address, Io, Net, first_address};
use crate::store::Command;
use crate::store::checkpoint::{PartEntry, Stored};

/// The first bytes of a connection between members.
pub const MAGIC: &[u8; 4] = b"CBX2";

/// How long a connection may be idle before its other end closes it.
pub const IDLE: Duration = Duration::from_secs(30);
/// How long a connection may be idle and still be used: well before the other end closes it, so
/// that a question is not lost on its way to a closing door.
const FRESH: Duration = Duration::from_secs(10);

/// How long the other end may take for the next part of a frame, or to say that it still works.
pub const SILENCE: Duration = Duration::from_secs(3);
/// How often who works on a question says so.
pub const SIGN: Duration = Duration::from_millis(500);
/// Largest part of a frame that has to pass within [`SILENCE`], in bytes: a line that is slower than
/// 350 kB/s is no line between members.
const PART_BYTES: usize = 1 << 20;

/// Largest piece of a checkpoint's part in one message, in bytes: what a leader has in memory of it.
const PIECE_BYTES: usize = 1 << 20;

/// Longest [`Hello`], in bytes: two numbers.
const HELLO_BYTES_MAX: usize = 20;

/// The first frame of a connection: who calls.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster that the caller belongs to.
    pub cluster: u64,
    /// The caller.
    pub from: u64,
}

/// The answer to a [`Hello`].
#[derive(Debug, Serialize, Deserialize)]
pub enum Welcome {
    /// Go on.
    Ok,
    /// We belong to another cluster.
    OtherCluster(u64),
}

/// What one member asks another.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the library's own messages")]
pub enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    /// The last of a checkpoint, whose parts were all sent.
    Snapshot {
        vote: Vote,
        meta: SnapshotMeta,
        manifest: Vec<u8>,
    },
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// Commands for the leader; it does not pass them on.
    Propose(Vec<Command>),
    /// Up to where the leader's log must be applied so that a read is not stale.
    ReadIndex,
    /// About a lease, which the leader counts.
    Lease(LeaseAsk),
    /// The parts of a checkpoint to come: how much of each is there?
    Offer(Vec<PartEntry>),
    /// A piece of one of them.
    Piece {
        part: PartEntry,
        offset: u64,
        data: Vec<u8>,
    },
}

impl Request {
    /// Tells whether it brings entries of the log, and is not only a sign of life.
    pub fn carries_entries(&self) -> bool {
        matches!(self, Self::Append(append) if !append.entries.is_empty())
    }
}

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the library's own messages")]
pub enum Reply {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    Snapshot(SnapshotResponse<TypeConfig>),
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    Proposed(Applied),
    ReadIndex(u64),
    /// Nothing was done: this member does not lead.
    NotLeader,
    /// It may or may not have been done.
    Failed(String),
    /// The answer is still to come.
    Working,
    /// The seconds of a lease; `None` if there is no such lease.
    Lease(Option<i64>),
    /// How many bytes of each part are there.
    Held(Vec<u64>),
}

/// Waits for the other end, as long as it may be silent.
async fn heard<T>(step: impl Future<Output = io::Result<T>>, silence: Duration) -> io::Result<T> {
    let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(silence, step).await.map_err(timed_out)?
}

/// Writes one frame. Each part has to be taken in time.
pub async fn send<T: Serialize>(io: &mut dyn Io, message: &T) -> io::Result<()> {
    send_counted(io, message).await.map(drop)
}

/// Writes one frame, as [`send`] does, and returns its length.
async fn send_counted<T: Serialize>(io: &mut dyn Io, message: &T) -> io::Result<usize> {
    let mut bytes = vec![0; 4];
    bytes = postcard::to_extend(message, bytes).map_err(io::Error::other)?;
    let length = bytes.len() - 4;
    if length > PEER_FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    let prefix = u32::try_from(length).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&prefix.to_le_bytes());
    for part in bytes.chunks(PART_BYTES) {
        heard(io.write_all(part), SILENCE).await?;
    }
    heard(io.flush(), SILENCE).await?;
    Ok(length)
}

/// Reads one frame, which has to begin within `idle`; each part has to come in time.
pub async fn receive<T: DeserializeOwned>(io: &mut dyn Io, idle: Duration) -> io::Result<T> {
    receive_counted(io, idle).await.map(|(message, _)| message)
}

/// Reads one frame, as [`receive`] does, and returns its length with it.
pub async fn receive_counted<T: DeserializeOwned>(
    io: &mut dyn Io,
    idle: Duration,
) -> io::Result<(T, usize)> {
    receive_within(io, idle, PEER_FRAME_BYTES_MAX).await
}

/// Reads the first frame of a connection: nobody knows yet who sends it.
pub async fn receive_hello(io: &mut dyn Io) -> io::Result<Hello> {
    receive_within(io, IDLE, HELLO_BYTES_MAX).await.map(|(hello, _)| hello)
}

async fn receive_within<T: DeserializeOwned>(
    io: &mut dyn Io,
    idle: Duration,
    bytes_max: usize,
) -> io::Result<(T, usize)> {
    let length = heard(io.read_u32_le(), idle).await? as usize;
    if length > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    // Memory grows with what arrives, not with what was announced.
    let mut body = Vec::new();
    while body.len() < length {
        let part = PART_BYTES.min(length - body.len());
        let got = heard((&mut *io).take(part as u64).read_to_end(&mut body), SILENCE).await?;
        if got < part {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    postcard::from_bytes(&body).map(|message| (message, length)).map_err(io::Error::other)
}

/// A member that answered for another cluster than ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Where it was found.
    pub url: String,
    /// The cluster it belongs to.
    pub cluster: u64,
}

/// What all lines of a member share.
#[derive(Debug)]
pub struct Caller {
    /// The member that calls.
    pub me: u64,
    /// Its cluster.
    pub cluster: u64,
    /// The network.
    pub net: Arc<dyn Net>,
    /// The last one that answered for another cluster.
    pub stranger: Mutex<Option<Stranger>>,
    /// Where calls are counted.
    pub figures: Arc<Figures>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A line to one member: connects when needed, one call at a time.
pub struct Line {
    caller: Arc<Caller>,
    peer: Peer,
    io: Option<(Box<dyn Io>, Instant)>,
    /// Which of the peer's URLs is tried next.
    next_url: usize,
}

impl Line {
    /// Makes a line that is not connected yet.
    pub fn new(caller: Arc<Caller>, peer: Peer) -> Self {
        Self { caller, peer, io: None, next_url: 0 }
    }

    /// Asks, and waits for the answer at most until `deadline` is over.
    pub async fn call(&mut self, request: &Request, deadline: Duration) -> io::Result<Reply> {
        heard(self.call_patiently(request), deadline).await
    }

    /// Asks, and waits for the answer for as long as the other end is heard.
    pub async fn call_patiently(&mut self, request: &Request) -> io::Result<Reply> {
        // Taken out, so that a call given up half way leaves no connection behind.
        let mut io = match self.io.take().filter(|(_, used)| used.elapsed() < FRESH) {
            Some((io, _)) => io,
            None => heard(self.connect(), SILENCE).await?,
        };
        let bytes = send_counted(&mut *io, request).await?;
        if request.carries_entries() {
            self.caller.figures.sent(bytes);
        }
        let mut reply = receive(&mut *io, SILENCE).await?;
        while matches!(reply, Reply::Working) {
            reply = receive(&mut *io, SILENCE).await?;
        }
        self.io = Some((io, Instant::now()));
        Ok(reply)
    }

    async fn connect(&mut self) -> io::Result<Box<dyn Io>> {
        let urls = &self.peer.peer_urls;
        let url = urls.get(self.next_url % urls.len().max(1)).cloned().unwrap_or_default();
        self.next_url += 1;
        let caller = &self.caller;
        let address = address_of(&*caller.net, &url).await?;
        let mut io = caller.net.connect(&Address::Tcp(address)).await?;
        io.write_all(MAGIC).await?;
        send(&mut *io, &Hello { cluster: caller.cluster, from: caller.me }).await?;
        match receive(&mut *io, SILENCE).await? {
            Welcome::Ok => Ok(io),
            Welcome::OtherCluster(cluster) => {
                let mut stranger = caller.stranger.lock().unwrap_or_else(PoisonError::into_inner);
                *stranger = Some(Stranger { url, cluster });
                Err(io::Error::new(io::ErrorKind::InvalidData, "it belongs to another cluster"))
            }
        }
    }
}

/// Finds the address that a peer URL such as `http://10.0.0.1:2380` names.
pub async fn address_of(net: &dyn Net, url: &str) -> io::Result<SocketAddr> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("`{url}` is no peer URL"));
    let uri: http::Uri = url.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?;
    let port = uri.port_u16().unwrap_or(80);
    Ok(SocketAddr::new(first_address(net, host).await?, port))
}

/// Makes a [`Remote`] for each member that the library wants to talk to.
#[derive(Debug, Clone)]
pub struct Remotes(pub Arc<Caller>);

impl RaftNetworkFactory<TypeConfig> for Remotes {
    type Network = Remote;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Remote {
        Remote { target, line: Line::new(self.0.clone(), node.clone()) }
    }
}

/// Another member, as the library sees it.
#[derive(Debug)]
pub struct Remote {
    target: u64,
    line: Line,
}

impl Remote {
    /// Every failure is `Unreachable`: the library then waits a little before it tries again.
    async fn call(
        &mut self,
        request: Request,
        option: RPCOption,
    ) -> Result<Reply, RPCError<TypeConfig>> {
        answered(self.line.call(&request, option.soft_ttl()).await)
    }
}

impl Remote {
    /// Sends what the other end does not have of the parts, piece by piece, and then the manifest.
    async fn send_checkpoint(&mut self, vote: Vote, snapshot: Snapshot) -> io::Result<Reply> {
        let parts = &snapshot.snapshot.saved().parts;
        let entries: Vec<_> = parts.iter().map(|part| PartEntry::of(part)).collect();
        let reply = self.line.call_patiently(&Request::Offer(entries.clone())).await?;
        let Reply::Held(held) = reply else { return Ok(reply) };
        if held.len() != parts.len() {
            return Err(io::Error::other("it does not say how much it has of each part"));
        }
        for ((saved, part), mut offset) in parts.iter().zip(entries).zip(held) {
            while offset < part.length {
                let begin = usize::try_from(offset).map_err(io::Error::other)?;
                let rest = saved.file().get(begin..).unwrap_or_default();
                let data = rest[..rest.len().min(PIECE_BYTES)].to_vec();
                let piece = Request::Piece { part, offset, data };
                let reply = self.line.call_patiently(&piece).await?;
                let Reply::Held(held) = reply else { return Ok(reply) };
                let upto = held.first().copied().filter(|upto| *upto > offset);
                offset = upto.ok_or_else(|| io::Error::other("it takes no more of a part"))?;
            }
        }
        let manifest = snapshot.snapshot.manifest().to_vec();
        self.line.call_patiently(&Request::Snapshot { vote, meta: snapshot.meta, manifest }).await
    }
}

fn answered(called: io::Result<Reply>) -> Result<Reply, RPCError<TypeConfig>> {
    match called {
        Ok(Reply::Failed(why)) => Err(NetworkError::from_string(why).into()),
        Ok(reply) => Ok(reply),
        Err(error) => Err(Unreachable::new(&error).into()),
    }
}

fn unexpected<T>(reply: &Reply) -> Result<T, RPCError<TypeConfig>> {
    Err(NetworkError::from_string(format!("unexpected reply {reply:?}")).into())
}

impl RaftNetworkV2<TypeConfig> for Remote {
    type SnapshotData = Stored;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let (figures, begun) = (self.line.caller.figures.clone(), Instant::now());
        let called = self.call(Request::Append(request), option).await;
        figures.appended(self.target, called.is_ok().then(|| begun.elapsed()));
        let reply = called?;
        if let Reply::Append(response) = reply { Ok(response) } else { unexpected(&reply) }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let reply = self.call(Request::Vote(request), option).await?;
        if let Reply::Vote(response) = reply { Ok(response) } else { unexpected(&reply) }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let reply = self.call(Request::PreVote(request), option).await?;
        if let Reply::Vote(response) = reply { Ok(response) } else { unexpected(&reply) }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending = Box::pin(self.send_checkpoint(vote, snapshot));
        match TypeConfig::select2(Box::pin(cancel), sending).await {
            openraft_rt::Select2::First(closed) => Err(closed.into()),
            openraft_rt::Select2::Second(reply) => {
                let reply = answered(reply)?;
                if let Reply::Snapshot(response) = reply {
                    Ok(response)
                } else {
                    Ok(unexpected(&reply)?)
                }
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let reply = self.call(Request::TransferLeader(request), option).await?;
        if let Reply::TransferLeader(response) = reply { Ok(response) } else { unexpected(&reply) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::clock::Timestamp;
    use crate::platform::net::MemoryNet;

    /// Time between two signs that is just shorter than the silence that ends a call.
    const OFTEN_ENOUGH: Duration = Duration::from_millis(2_900);

    #[tokio::test(start_paused = true)]
    async fn nobody_is_greeted_at_length() {
        let (mut here, mut there) = tokio::io::duplex(1 << 10);
        let longest = Hello { cluster: u64::MAX, from: u64::MAX };
        send(&mut here, &longest).await.unwrap();
        assert_eq!(receive_hello(&mut there).await.unwrap().cluster, u64::MAX);
        here.write_u32_le(21).await.unwrap();
        let refused = receive_hello(&mut there).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }

    /// Calls a member that says so often that it works, and then answers, or not.
    async fn called(signs: usize, answers: bool) -> (io::Result<Reply>, Duration) {
        let net = MemoryNet::default();
        let at = SocketAddr::from(([127, 0, 0, 1], 2380));
        let mut incoming = net.bind(&Address::Tcp(at)).await.unwrap();
        let member = async move {
            let (mut io, _) = incoming.accept().await.unwrap();
            let mut magic = [0; 4];
            io.read_exact(&mut magic).await.unwrap();
            receive_hello(&mut *io).await.unwrap();
            send(&mut *io, &Welcome::Ok).await.unwrap();
            let asked: Request = receive(&mut *io, IDLE).await.unwrap();
            assert!(matches!(asked, Request::ReadIndex));
            for _ in 0..signs {
                tokio::time::sleep(OFTEN_ENOUGH).await;
                send(&mut *io, &Reply::Working).await.unwrap();
            }
            if answers {
                send(&mut *io, &Reply::NotLeader).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let caller = Caller {
            me: 1,
            cluster: 2,
            net: Arc::new(net),
            stranger: Mutex::default(),
            figures: Arc::new(Figures::new(Timestamp::EPOCH)),
        };
        let peer =
            Peer { name: "m".to_owned(), peer_urls: vec!["http://127.0.0.1:2380".to_owned()] };
        let mut line = Line::new(Arc::new(caller), peer);
        let begun = Instant::now();
        tokio::select! {
            biased;
            reply = line.call_patiently(&Request::ReadIndex) => (reply, begun.elapsed()),
            () = member => panic!("the member waits for ever"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_heard_is_waited_for_and_who_falls_silent_is_not() {
        let (reply, took) = called(20, true).await;
        assert!(matches!(reply, Ok(Reply::NotLeader)), "{reply:?}");
        assert!(took >= OFTEN_ENOUGH * 20);
        let (reply, took) = called(2, false).await;
        assert_eq!(reply.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(took < SILENCE * 3, "{took:?}");
    }
}
