"""The package `etcd3` of PyPI, which speaks gRPC, against a member: HOST PORT."""

import io
import queue

import grpc

import etcd3
import told
from etcd3 import exceptions
from told import SOON, address, beside, refused, same, taken, true

host, port = address()
client = etcd3.client(host, port, timeout=SOON)


def value(key, **how):
    return client.get(key, **how)[0]


def unimplemented(what, call):
    error = refused(what, grpc.RpcError, call)
    same(what, error.code(), grpc.StatusCode.UNIMPLEMENTED)


def keys():
    same("a key that is not there", client.get("k"), (None, None))
    first = client.put("k", "1").header.revision
    second = client.put("k", b"\x00\xff", prev_kv=True)
    same("the value before", second.prev_kv.value, b"1")
    found, about = client.get("k")
    same("a value", found, b"\x00\xff")
    same("its key", about.key, b"k")
    same("its version", about.version, 2)
    same("where it was created", about.create_revision, first)
    same("where it was changed", about.mod_revision, first + 1)
    same("its lease", about.lease_id, 0)
    same("a serializable read", value("k", serializable=True), b"\x00\xff")
    same("if not there", client.put_if_not_exists("k", "2"), False)
    same("if not there", client.put_if_not_exists("new", "2"), True)
    same("a wrong guess", client.replace("new", "1", "3"), False)
    same("a right guess", client.replace("new", "2", "3"), True)
    same("a deletion", client.delete("new"), True)
    same("a second deletion", client.delete("new"), False)
    gone = client.delete("k", prev_kv=True, return_response=True)
    same("what was deleted", [kv.value for kv in gone.prev_kvs], [b"\x00\xff"])


def ranges():
    for name in "abcd":
        client.put(f"r/{name}", name.upper())
    listed = lambda found: [(about.key, text) for text, about in found]
    every = [(b"r/a", b"A"), (b"r/b", b"B"), (b"r/c", b"C"), (b"r/d", b"D")]
    same("a prefix", listed(client.get_prefix("r/")), every)
    found = client.get_prefix("r/", sort_order="descend", sort_target="key")
    same("sorted downwards", listed(found), every[::-1])
    found = client.get_prefix("r/", sort_order="ascend", sort_target="value")
    same("sorted by value", listed(found), every)
    same("a range", listed(client.get_range("r/b", "r/d")), every[1:3])
    same("all of it", listed(client.get_all()), every)
    bare = client.get_prefix("r/", keys_only=True)
    same("keys only", [text for text, _ in bare], [b""] * 4)
    same("a count", client.get_prefix_response("r/").count, 4)
    same("a deleted prefix", client.delete_prefix("r/").deleted, 4)
    same("nothing is left", list(client.get_all()), [])


def transactions():
    tx = client.transactions
    client.put("t", "1")
    revision = client.get("t")[1].mod_revision
    done, answers = client.transaction(
        compare=[
            tx.value("t") == "1",
            tx.version("t") > 0,
            tx.create("t") < revision + 1,
            tx.mod("t") == revision,
            tx.value("t") != "2",
        ],
        success=[
            tx.put("t", "2"),
            tx.get("t"),
            tx.delete("other"),
            tx.txn(compare=[tx.version("t") == 9], success=[], failure=[tx.put("nested", "1")]),
        ],
        failure=[tx.get("t")],
    )
    same("a transaction", done, True)
    same("its answers", len(answers), 4)
    same("what it put", answers[0].response_put.header.revision, revision + 1)
    same("what it read", [text for text, _ in answers[1]], [b"2"])
    same("what it deleted", answers[2].response_delete_range.deleted, 0)
    same("the one within", answers[3].response_txn.succeeded, False)
    same("what that put", value("nested"), b"1")
    done, answers = client.transaction([tx.value("t") == "1"], [], [tx.get("t")])
    same("one that fails", (done, [text for text, _ in answers[0]]), (False, [b"2"]))
    twice = [tx.put("t", "3"), tx.put("t", "4")]
    error = refused("two puts of a key", grpc.RpcError, lambda: client.transaction([], twice, []))
    same("two puts of a key", error.code(), grpc.StatusCode.INVALID_ARGUMENT)
    same("two puts of a key", error.details(), "etcdserver: duplicate key given in txn request")


def watches():
    start = client.put("w/a", "1").header.revision
    events, cancel = client.watch_prefix("w/", start_revision=start, prev_kv=True)
    client.put("elsewhere", "1")
    client.put("w/b", "2")
    client.put("w/b", "3")
    client.delete("w/a")
    seen = [(type(e).__name__, e.key, e.value, e.prev_value) for e in taken("events", events, 4)]
    expected = [
        ("PutEvent", b"w/a", b"1", b""),
        ("PutEvent", b"w/b", b"2", b""),
        ("PutEvent", b"w/b", b"3", b"2"),
        ("DeleteEvent", b"w/a", b"", b"1"),
    ]
    same("events from a revision on", seen, expected)
    cancel()
    same("after the cancel", list(events), [])
    # This version cannot ask for filters: it assigns to a repeated field, which protobuf refuses.
    filtered = lambda: client.watch("w/b", filters=[etcd3.etcdrpc.WatchCreateRequest.NOPUT])
    refused("a filtered watch", AttributeError, filtered)
    answers, cancel = client.watch_prefix_response("w/")
    last = client.put("w/c", "1").header.revision
    answer = taken("a whole answer", answers, 1)[0]
    same("its revision", answer.header.revision, last)
    same("its events", [e.value for e in answer.events], [b"1"])
    cancel()
    box = queue.Queue()
    number = client.add_watch_callback("called", box.put)
    once = beside(lambda: client.watch_once("once", timeout=SOON, start_revision=last))
    client.put("called", "1")
    client.put("once", "1")
    same("one event", once("one event").value, b"1")
    same("a callback", [e.value for e in box.get(timeout=SOON).events], [b"1"])
    client.cancel_watch(number)
    nothing = lambda: client.watch_once("nothing", timeout=0.1)
    refused("where nothing happens", exceptions.WatchTimedOut, nothing)


def leases():
    lease = client.lease(600)
    client.put("leased", "1", lease=lease)
    same("its lease", client.get("leased")[1].lease_id, lease.id)
    same("what was granted", lease.granted_ttl, 600)
    true("what is left", 590 < lease.remaining_ttl <= 600)
    same("its keys", list(lease.keys), [b"leased"])
    same("a refresh", [answer.TTL for answer in lease.refresh()], [600])
    same("a chosen id", client.lease(600, lease_id=4242).id, 4242)
    refused("an id twice", exceptions.PreconditionFailedError, lambda: client.lease(9, 4242))
    lease.revoke()
    same("what it held", value("leased"), None)
    same("what is left of it", lease.remaining_ttl, -1)
    same("a refresh of it", [answer.TTL for answer in lease.refresh()], [0])
    error = refused("a second end", grpc.RpcError, lease.revoke)
    same("a second end", error.details(), "etcdserver: requested lease not found")
    short = client.lease(3)
    start = client.put("short", "1", lease=short).header.revision
    gone = client.watch_once("short", timeout=SOON, start_revision=start + 1)
    same("what time ends", type(gone).__name__, "DeleteEvent")


def locks():
    with client.lock("door", ttl=600) as lock:
        true("a lock", lock.is_acquired())
        same("its refresh", [answer.TTL for answer in lock.refresh()], [600])
        other = client.lock("door", ttl=600)
        # Waiting for it is left out: it watches from now on, and so may miss the first's leaving.
        same("who comes second", other.acquire(timeout=0), False)
    same("the first has left", lock.is_acquired(), False)
    same("the second", other.acquire(timeout=0), True)
    same("the second leaves", other.release(), True)
    same("a second time", other.release(), False)


def compaction():
    old = client.put("c", "1").header.revision
    new = client.put("c", "2").header.revision
    client.compact(new, physical=True)
    same("what is left", value("c"), b"2")
    error = refused("a second time", grpc.RpcError, lambda: client.compact(new))
    same("a second time", error.details(), "etcdserver: mvcc: required revision has been compacted")
    events, _ = client.watch("c", start_revision=old)
    gone = refused("an old watch", exceptions.RevisionCompactedError, lambda: next(events))
    same("where history begins", gone.compacted_revision, new)


def maintenance():
    status = client.status()
    true("its version", status.version.startswith("3."))
    true("its size", status.db_size > 0)
    true("its log", status.raft_index > 0 and status.raft_term > 0)
    members = list(client.members)
    same("the members", [member.name for member in members], ["one"])
    same("who leads", status.leader.id, members[0].id)
    same("where it serves", list(members[0].client_urls), [f"http://{host}:{port}"])
    same("alarms", list(members[0].active_alarms), [])
    raised = client.create_alarm(members[0].id)
    same("an alarm", [(a.alarm_type, a.member_id) for a in raised], [(1, members[0].id)])
    same("alarms", len(list(client.list_alarms())), 1)
    error = refused("a put", grpc.RpcError, lambda: client.put("full", "1"))
    same("a put", error.details(), "etcdserver: mvcc: database space exceeded")
    same("what is disarmed", len(client.disarm_alarm(members[0].id)), 1)
    same("alarms", list(client.list_alarms()), [])
    client.put("full", "1")
    client.defragment()
    true("a hash", client.hash() >= 0)


def later():
    """What is not there yet says so."""
    urls = ["http://127.0.0.1:1"]
    unimplemented("a new member", lambda: client.add_member(urls))
    unimplemented("another address", lambda: client.update_member(1, urls))
    unimplemented("a member's end", lambda: client.remove_member(1))
    unimplemented("a snapshot", lambda: client.snapshot(io.BytesIO()))


told.run(keys, ranges, transactions, watches, leases, locks, compaction, maintenance, later)
