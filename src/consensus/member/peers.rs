//! What a member answers the others.

use std::io;
use std::sync::PoisonError;

use openraft::errors::RaftError;
use tokio::io::AsyncReadExt as _;

use crate::consensus::member::{FORWARDED, Member};
use crate::consensus::network::{
    IDLE, MAGIC, Reply, Request, SIGN, Welcome, receive_counted, receive_hello, send,
};
use crate::consensus::proposer::ProposeError;
use crate::consensus::types::{Snapshot, TypeConfig, Vote};
use crate::platform::net::Io;
use crate::store::Command;

impl Member {
    /// Answers another member until it goes away; the [`MAGIC`] has been read already.
    pub fn serve_peer(&self, io: Box<dyn Io>) {
        let member = self.clone();
        let tasks = self.tasks().clone();
        // Without tasks the member stops, and the connection is closed.
        let Some(tasks) = tasks else { return };
        tasks.spawn("peer", |stop| async move {
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                ended = member.converse(io) => ended,
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a member's connection ended");
            }
        });
    }

    /// Answers another member, reading the [`MAGIC`] first.
    pub fn greet_peer(&self, mut io: Box<dyn Io>) {
        let member = self.clone();
        let Some(tasks) = self.tasks().clone() else { return };
        tasks.spawn("greeting", |stop| async move {
            let mut magic = [0; 4];
            let read = tokio::time::timeout(IDLE, io.read_exact(&mut magic));
            let read = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                read = read => read,
            };
            if matches!(read, Ok(Ok(_))) && &magic == MAGIC {
                member.serve_peer(io);
            }
        });
    }

    async fn converse(&self, mut io: Box<dyn Io>) -> io::Result<()> {
        let io = &mut *io;
        let hello = receive_hello(io).await?;
        let own = self.inner.caller.cluster;
        if hello.cluster != own {
            tracing::warn!(
                from = format_args!("{:x}", hello.from),
                cluster = format_args!("{:x}", hello.cluster),
                "refused a member of another cluster"
            );
            return send(io, &Welcome::OtherCluster(own)).await;
        }
        send(io, &Welcome::Ok).await?;
        loop {
            let (request, bytes): (Request, usize) = receive_counted(io, IDLE).await?;
            if request.carries_entries() {
                self.inner.figures.received(bytes);
            }
            let mut reply = Box::pin(self.handle(request));
            let reply = loop {
                tokio::select! {
                    biased;
                    reply = &mut reply => break reply,
                    () = tokio::time::sleep(SIGN) => send(io, &Reply::Working).await?,
                }
            };
            send(io, &reply).await?;
        }
    }

    /// Takes over the leader's state.
    async fn install(&self, vote: Vote, snapshot: Snapshot) -> Result<Reply, String> {
        let installed = self.inner.raft.install_full_snapshot(vote, snapshot).await;
        let response = installed.map_err(|error| error.to_string())?;
        // Where this member has agreed entries as far as the snapshot's, the library takes nothing
        // over and answers at once, though they may not be safe here yet. To the leader the answer
        // says that they are, and it would never send again what a loss of power took.
        self.inner.log.settle().await.map_err(|error| error.to_string())?;
        Ok(Reply::Snapshot(response))
    }

    async fn handle(&self, request: Request) -> Reply {
        let raft = &self.inner.raft;
        let result = match request {
            Request::Append(request) => {
                let now = tokio::time::Instant::now();
                *self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
                raft.append_entries(request).await.map(Reply::Append).map_err(said)
            }
            Request::Vote(request) => raft.vote(request).await.map(Reply::Vote).map_err(said),
            Request::PreVote(request) => {
                raft.pre_vote(request).await.map(Reply::Vote).map_err(said)
            }
            Request::Offer(parts) => {
                let held = self.inner.store.offered(parts).await;
                let busy = || Reply::Failed("another checkpoint is being installed".to_owned());
                self.or_end(held.map(|held| held.map_or_else(busy, Reply::Held))).await
            }
            Request::Piece { part, offset, data } => {
                let held = self.inner.store.receive(part, offset, data).await;
                let missing = || Reply::Failed("this part was not offered".to_owned());
                let reply =
                    |upto: Option<u64>| upto.map_or_else(missing, |upto| Reply::Held(vec![upto]));
                self.or_end(held.map(reply)).await
            }
            Request::Snapshot { vote, meta, manifest } => {
                match self.or_end(self.inner.store.received(manifest).await).await {
                    Ok(Some(snapshot)) => self.install(vote, Snapshot { meta, snapshot }).await,
                    Ok(None) => Err("not all parts of the checkpoint have come".to_owned()),
                    Err(why) => Err(why),
                }
            }
            Request::TransferLeader(request) => {
                let handled = raft.handle_transfer_leader(request).await;
                handled.map(Reply::TransferLeader).map_err(|error| error.to_string())
            }
            Request::Propose(commands) => Ok(self.handle_proposal(commands).await),
            Request::ReadIndex => {
                let index = self.inner.reader.read_index().await;
                Ok(index.map_or(Reply::NotLeader, Reply::ReadIndex))
            }
            Request::Lease(ask) => {
                let answer = self.inner.leases.answer(ask).await;
                Ok(answer.map_or(Reply::NotLeader, Reply::Lease))
            }
        };
        result.unwrap_or_else(Reply::Failed)
    }

    /// Ends the member where storing what came has failed: its disk may not be relied on.
    async fn or_end<T>(&self, stored: io::Result<T>) -> Result<T, String> {
        match stored {
            Ok(done) => Ok(done),
            // What another sent says nothing about this member's disk.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error.to_string()),
            Err(error) => {
                let why = error.to_string();
                tracing::error!("{why}; nothing more is written: this member stops");
                self.end(why.clone()).await;
                Err(why)
            }
        }
    }

    async fn handle_proposal(&self, commands: Vec<Command>) -> Reply {
        match self.inner.proposer.propose(commands, true, FORWARDED).await {
            Ok(applied) => Reply::Proposed(applied),
            Err(
                ProposeError::NotLeader
                | ProposeError::NoLeader
                | ProposeError::Overloaded
                | ProposeError::Stopping,
            ) => Reply::NotLeader,
            Err(error @ ProposeError::Unknown { .. }) => Reply::Failed(error.to_string()),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn said(error: RaftError<TypeConfig>) -> String {
    error.to_string()
}
