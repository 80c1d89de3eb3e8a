//! The crate `etcd-client`, which speaks gRPC, against a member: HOST PORT.

use std::fmt::Debug;
use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmType, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error,
    EventType, GetOptions, KeyValue, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions,
    SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchFilterType, WatchOptions, WatchStream,
};

/// How long anything may take.
const SOON: Duration = Duration::from_secs(10);
/// What gRPC calls what is not there, what is wrong, and what was compacted.
const UNIMPLEMENTED: i32 = 12;
const INVALID_ARGUMENT: i32 = 3;
const OUT_OF_RANGE: i32 = 11;

type Told = Result<(), Error>;

#[track_caller]
fn same<T: PartialEq + Debug>(what: &str, found: T, expected: T) {
    assert!(found == expected, "{what}: {found:?}, and not {expected:?}");
}

#[track_caller]
fn refused<T>(what: &str, answer: Result<T, Error>, code: i32, words: &str) {
    match answer {
        Ok(_) => panic!("{what}: it was not refused"),
        Err(Error::GRpcStatus(status)) => {
            same(what, status.code() as i32, code);
            assert!(status.message().contains(words), "{what}: {status:?}");
        }
        Err(other) => panic!("{what}: {other:?}"),
    }
}

fn shown(kvs: &[KeyValue]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    kvs.iter().map(|kv| (text(kv.key()), text(kv.value()))).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn value(client: &mut Client, key: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(client.get(key, None).await?.kvs().first().map(|kv| kv.value().to_vec()))
}

async fn keys(client: &mut Client) -> Told {
    same("a key that is not there", value(client, "k").await?, None);
    let first = client.put("k", "1", None).await?.header().unwrap().revision();
    let second = client.put("k", [0, 0xff], Some(PutOptions::new().with_prev_key())).await?;
    same("the value before", second.prev_key().unwrap().value(), b"1");
    let found = client.get("k", Some(GetOptions::new().with_serializable())).await?;
    let kv = &found.kvs()[0];
    same("a value", kv.value(), &[0, 0xff]);
    same("its version", kv.version(), 2);
    same("where it was created", kv.create_revision(), first);
    same("where it was changed", kv.mod_revision(), first + 1);
    let past = client.get("k", Some(GetOptions::new().with_revision(first))).await?;
    same("a value of the past", past.kvs()[0].value(), b"1");
    let gone = client.delete("k", Some(DeleteOptions::new().with_prev_key())).await?;
    same("a deletion", gone.deleted(), 1);
    same("what was deleted", gone.prev_kvs()[0].value(), &[0, 0xff]);
    same("a second deletion", client.delete("k", None).await?.deleted(), 0);
    let ignored = PutOptions::new().with_ignore_value();
    refused(
        "no value to keep",
        client.put("k", "", Some(ignored)).await,
        INVALID_ARGUMENT,
        "key not found",
    );
    refused("no key", client.put("", "1", None).await, INVALID_ARGUMENT, "key is not provided");
    Ok(())
}

async fn ranges(client: &mut Client) -> Told {
    for name in ["a", "b", "c", "d"] {
        client.put(format!("r/{name}"), name.to_uppercase(), None).await?;
    }
    let every = [("r/a", "A"), ("r/b", "B"), ("r/c", "C"), ("r/d", "D")];
    let prefix = || GetOptions::new().with_prefix();
    same("a prefix", shown(client.get("r/", Some(prefix())).await?.kvs()), pairs(&every));
    let down = prefix().with_sort(SortTarget::Value, SortOrder::Descend).with_limit(1);
    let found = client.get("r/", Some(down)).await?;
    same("sorted, and limited", shown(found.kvs()), pairs(&every[3..]));
    same("that there is more", (found.more(), found.count()), (true, 4));
    let range = client.get("r/b", Some(GetOptions::new().with_range("r/d"))).await?;
    same("a range", shown(range.kvs()), pairs(&every[1..3]));
    let from = client.get("r/c", Some(GetOptions::new().with_from_key())).await?;
    same("from a key on", shown(from.kvs()), pairs(&every[2..]));
    let bare = client.get("r/", Some(prefix().with_keys_only())).await?;
    same("keys only", bare.kvs().iter().all(|kv| kv.value().is_empty()), true);
    let counted = client.get("r/", Some(prefix().with_count_only())).await?;
    same("a count", (counted.kvs().len(), counted.count()), (0, 4));
    let newest = bare.kvs()[3].mod_revision();
    let late = client.get("r/", Some(prefix().with_min_mod_revision(newest))).await?;
    same("the newest", shown(late.kvs()), pairs(&every[3..]));
    let gone = client.delete("r/", Some(DeleteOptions::new().with_prefix())).await?;
    same("a deleted prefix", gone.deleted(), 4);
    Ok(())
}

async fn transactions(client: &mut Client) -> Told {
    let revision = client.put("t", "1", None).await?.header().unwrap().revision();
    let within = Txn::new()
        .when([Compare::version("t", CompareOp::Equal, 9)])
        .or_else([TxnOp::put("nested", "1", None)]);
    let txn = Txn::new()
        .when([
            Compare::value("t", CompareOp::Equal, "1"),
            Compare::version("t", CompareOp::Greater, 0),
            Compare::create_revision("t", CompareOp::Less, revision + 1),
            Compare::mod_revision("t", CompareOp::Equal, revision),
            Compare::lease("t", CompareOp::NotEqual, 7),
        ])
        .and_then([
            TxnOp::put("t", "2", None),
            TxnOp::get("t", None),
            TxnOp::delete("other", None),
            TxnOp::txn(within),
        ])
        .or_else([TxnOp::get("t", None)]);
    let done = client.txn(txn).await?;
    same("a transaction", done.succeeded(), true);
    let answers = done.op_responses();
    let [
        TxnOpResponse::Put(_),
        TxnOpResponse::Get(read),
        TxnOpResponse::Delete(gone),
        TxnOpResponse::Txn(inner),
    ] = &answers[..]
    else {
        panic!("the answers of a transaction: {answers:?}");
    };
    same("what it read", shown(read.kvs()), pairs(&[("t", "2")]));
    same("what it deleted", gone.deleted(), 0);
    same("the one within", inner.succeeded(), false);
    same("what that put", value(client, "nested").await?, Some(b"1".to_vec()));
    let twice = Txn::new().and_then([TxnOp::put("t", "3", None), TxnOp::put("t", "4", None)]);
    refused("two puts of a key", client.txn(twice).await, INVALID_ARGUMENT, "duplicate key");
    Ok(())
}

/// Takes so many events of a watch.
async fn events(
    stream: &mut WatchStream,
    count: usize,
) -> Result<Vec<(bool, String, String)>, Error> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(SOON, stream.message()).await;
        let answer = next.expect("events come soon")?.expect("the watch goes on");
        taken.extend(answer.events().iter().map(|event| {
            let shown = shown(event.kv().into_iter().cloned().collect::<Vec<_>>().as_slice());
            let (key, value) = shown.into_iter().next().unwrap_or_default();
            (event.event_type() == EventType::Put, key, value)
        }));
    }
    Ok(taken)
}

async fn watches(client: &mut Client) -> Told {
    let start = client.put("w/a", "1", None).await?.header().unwrap().revision();
    let options = WatchOptions::new().with_prefix().with_start_revision(start).with_prev_key();
    let mut stream = client.watch("w/", Some(options)).await?;
    client.put("elsewhere", "1", None).await?;
    client.put("w/b", "2", None).await?;
    client.delete("w/a", None).await?;
    let event = |put, key: &str, value: &str| (put, key.to_owned(), value.to_owned());
    let expected = vec![event(true, "w/a", "1"), event(true, "w/b", "2"), event(false, "w/a", "")];
    same("events from a revision on", events(&mut stream, 3).await?, expected);
    stream.request_progress().await?;
    let progress =
        tokio::time::timeout(SOON, stream.message()).await.expect("progress is told soon");
    let progress = progress?.expect("the watch goes on");
    same("progress has no events", progress.events().len(), 0);
    same("how far it is", progress.header().unwrap().revision(), start + 3);
    let only = WatchOptions::new().with_filters([WatchFilterType::NoPut]).with_watch_id(77);
    stream.watch("w/b", Some(only)).await?;
    let created = stream.message().await?.expect("the watch goes on");
    same("a second watch on the stream", (created.created(), created.watch_id()), (true, 77));
    stream.cancel(0).await?;
    let canceled = stream.message().await?.expect("the stream goes on");
    same("the first one's end", (canceled.canceled(), canceled.watch_id()), (true, 0));
    client.put("w/b", "3", None).await?;
    client.delete("w/b", None).await?;
    same("deletions only", events(&mut stream, 1).await?, vec![event(false, "w/b", "")]);
    Ok(())
}

async fn leases(client: &mut Client) -> Told {
    let granted = client.lease_grant(600, Some(LeaseGrantOptions::new().with_id(4242))).await?;
    same("a lease", (granted.id(), granted.ttl()), (4242, 600));
    client.put("leased", "1", Some(PutOptions::new().with_lease(4242))).await?;
    let (mut keeper, mut kept) = client.lease_keep_alive(4242).await?;
    keeper.keep_alive().await?;
    let alive = tokio::time::timeout(SOON, kept.message()).await.expect("it is kept soon")?;
    same("a refresh", alive.map(|one| (one.id(), one.ttl())), Some((4242, 600)));
    let keys = LeaseTimeToLiveOptions::new().with_keys();
    let left = client.lease_time_to_live(4242, Some(keys)).await?;
    same("what was granted", left.granted_ttl(), 600);
    assert!((590..=600).contains(&left.ttl()), "what is left: {}", left.ttl());
    same("its keys", left.keys(), &[b"leased".to_vec()]);
    let all: Vec<_> = client.leases().await?.leases().iter().map(|one| one.id()).collect();
    same("all leases", all, vec![4242]);
    client.lease_revoke(4242).await?;
    same("its key went with it", value(client, "leased").await?, None);
    refused("a second end", client.lease_revoke(4242).await, 5, "lease not found");
    Ok(())
}

async fn maintenance(client: &mut Client) -> Told {
    let status = client.status().await?;
    assert!(status.version().starts_with("3."), "its version: {}", status.version());
    let members = client.member_list().await?;
    same("one member", members.members().len(), 1);
    same("which leads", status.leader(), members.members()[0].id());
    same("its name", members.members()[0].name(), "one");
    let revision = client.put("m", "1", None).await?.header().unwrap().revision();
    let hashed = client.hash_kv(0).await?;
    same("the same hash twice", client.hash_kv(revision).await?.hash(), hashed.hash());
    client.hash().await?;
    client.defragment().await?;
    let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await?;
    same("no alarm", alarms.alarms().len(), 0);
    client.compact(revision, None).await?;
    let past = GetOptions::new().with_revision(revision - 1);
    refused("the past", client.get("m", Some(past)).await, OUT_OF_RANGE, "has been compacted");
    refused("what is compacted", client.compact(revision, None).await, OUT_OF_RANGE, "compacted");
    Ok(())
}

/// A range that comes in parts, which etcd has from 3.7 on.
async fn parts(client: &mut Client) -> Told {
    let every = pairs(&[("p/a", "A"), ("p/b", "B"), ("p/c", "C")]);
    for (key, value) in &every {
        client.put(key.as_str(), value.as_str(), None).await?;
    }
    let prefix = GetOptions::new().with_prefix();
    let mut parts = client.kv_client().get_stream("p/", Some(prefix)).await?;
    let mut streamed = Vec::new();
    while let Some(part) = parts.message().await? {
        streamed.extend(shown(part.kvs()));
    }
    same("all parts", streamed, every);
    Ok(())
}

/// What is not there yet says so.
async fn later(client: &mut Client) -> Told {
    let urls = ["http://127.0.0.1:9"];
    refused("a new member", client.member_add(urls, None).await, UNIMPLEMENTED, "");
    refused("users", client.user_list().await, UNIMPLEMENTED, "");
    refused("a lock", client.lock("l", None).await, UNIMPLEMENTED, "");
    refused("a leader", client.leader("e").await, UNIMPLEMENTED, "");
    let backup = match client.snapshot().await {
        Ok(mut parts) => parts.message().await.map(drop),
        Err(error) => Err(error),
    };
    refused("a backup", backup, UNIMPLEMENTED, "");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Told {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [host, port] = &words[..] else { panic!("HOST PORT") };
    let options = ConnectOptions::new().with_timeout(SOON).with_require_leader(true);
    let mut client = Client::connect([format!("{host}:{port}")], Some(options)).await?;
    println!("keys");
    keys(&mut client).await?;
    println!("ranges");
    ranges(&mut client).await?;
    println!("transactions");
    transactions(&mut client).await?;
    println!("watches");
    watches(&mut client).await?;
    println!("leases");
    leases(&mut client).await?;
    println!("maintenance");
    maintenance(&mut client).await?;
    println!("parts");
    parts(&mut client).await?;
    println!("later");
    later(&mut client).await?;
    println!("end");
    Ok(())
}
