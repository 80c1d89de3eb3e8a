"""The package `etcd3gw` of PyPI, which speaks JSON to the gateway, against a member: HOST PORT."""

import base64

import etcd3gw
import told
from etcd3gw import exceptions
from told import SOON, address, beside, refused, same, taken, true

host, port = address()
client = etcd3gw.client(host, port, timeout=SOON)


def b64(text):
    return base64.b64encode(text.encode()).decode()


def keys():
    same("the path that it finds out", client.api_path, "/v3/")
    same("a key that is not there", client.get("k"), [])
    same("a put", client.put("k", "1"), True)
    client.put("k", b"\x00\xff")
    ((found, about),) = client.get("k", metadata=True)
    same("a value", found, b"\x00\xff")
    same("its key", about["key"], b"k")
    same("its version", about["version"], "2")
    same("an old value", client.get("k", revision=int(about["create_revision"])), [b"1"])
    same("a serializable read", client.get("k", serializable=True), [b"\x00\xff"])
    same("if not there", client.create("k", "2"), False)
    same("if not there", client.create("new", "2"), True)
    same("a wrong guess", client.replace("new", "1", "3"), False)
    same("a right guess", client.replace("new", "2", "3"), True)
    same("an empty value", (client.put("empty", ""), client.get("empty")), (True, [b""]))
    same("a deletion", client.delete("k", prev_kv=True), True)
    same("a second deletion", client.delete("k"), False)
    same("deletions", (client.delete("new"), client.delete("empty")), (True, True))


def ranges():
    for name in "abcd":
        client.put(f"r/{name}", name.upper())
    listed = lambda found: [(about["key"], text) for text, about in found]
    every = [(b"r/a", b"A"), (b"r/b", b"B"), (b"r/c", b"C"), (b"r/d", b"D")]
    same("a prefix", listed(client.get_prefix("r/")), every)
    for target in ["key", "create", "mod", "value"]:
        found = client.get_prefix("r/", sort_order="descend", sort_target=target)
        same(f"sorted downwards by {target}", listed(found), every[::-1])
    same("all of it", listed(client.get_all(sort_order="ascend")), every)
    same("a limit", client.get("r/", range_end="r0", limit=2), [b"A", b"B"])
    same("keys only", client.get("r/", range_end="r0", keys_only=True), [b""] * 4)
    same("a count", client.get("r/", range_end="r0", count_only=True), [])
    last = int(client.get("r/d", metadata=True)[0][1]["mod_revision"])
    same("the newest", client.get("r/", range_end="r0", min_mod_revision=last), [b"D"])
    same("the others", client.get("r/", range_end="r0", max_create_revision=last - 3), [b"A"])
    same("a deleted prefix", client.delete_prefix("r/"), True)
    same("nothing is left", client.get_all(), [])


def transactions():
    client.put("t", "1")
    compare = {"key": b64("t"), "target": "VALUE", "result": "EQUAL", "value": b64("1")}
    answer = client.transaction({
        "compare": [compare],
        "success": [
            {"request_put": {"key": b64("t"), "value": b64("2"), "prev_kv": True}},
            {"request_range": {"key": b64("t")}},
            {"request_delete_range": {"key": b64("other")}},
            {"request_txn": {"failure": [], "success": []}},
        ],
        "failure": [],
    })
    same("a transaction", answer["succeeded"], True)
    put, read, deleted, nested = answer["responses"]
    same("the value before", put["response_put"]["prev_kv"]["value"], b64("1"))
    same("what it read", read["response_range"]["kvs"][0]["value"], b64("2"))
    true("what it deleted", "deleted" not in deleted["response_delete_range"])
    same("the one within", nested["response_txn"]["succeeded"], True)
    answer = client.transaction({"compare": [compare], "success": [], "failure": []})
    true("one that fails", "succeeded" not in answer)
    wrong = {"success": [{"request_put": {"key": b64("t")}}] * 2}
    error = refused("two puts", exceptions.Etcd3Exception, lambda: client.transaction(wrong))
    text = error.detail_text
    true(f"two puts: {text}", "duplicate key given in txn request" in text)


def watches():
    client.put("w/a", "1")
    start = int(client.get("w/a", metadata=True)[0][1]["mod_revision"])
    events, cancel = client.watch_prefix("w/", start_revision=start, prev_kv=True)
    client.put("elsewhere", "1")
    client.put("w/b", "2")
    client.put("w/b", "3")
    client.delete("w/a")
    told_of = lambda e: (
        e.get("type", "PUT"),
        e["kv"]["key"],
        e["kv"].get("value"),
        e.get("prev_kv", {}).get("value"),
    )
    expected = [
        ("PUT", b"w/a", b"1", None),
        ("PUT", b"w/b", b"2", None),
        ("PUT", b"w/b", b"3", b64("2")),
        ("DELETE", b"w/a", None, b64("1")),
    ]
    same("events from a revision on", [told_of(e) for e in taken("events", events, 4)], expected)
    cancel()
    same("after the cancel", list(events), [])
    events, cancel = client.watch("w/b", start_revision=start, filters=["NOPUT"])
    client.delete("w/b")
    same("a filtered watch", taken("a filtered watch", events, 1)[0]["type"], "DELETE")
    cancel()
    once = beside(lambda: client.watch_once("once", timeout=SOON, start_revision=start))
    client.put("once", "1")
    same("one event", once("one event")["kv"]["value"], b"1")
    nothing = lambda: client.watch_once("nothing", timeout=0.1)
    refused("where nothing happens", exceptions.WatchTimedOut, nothing)


def leases():
    lease = client.lease(600)
    client.put("leased", "1", lease=lease)
    same("its lease", client.get("leased", metadata=True)[0][1]["lease"], str(lease.id))
    true("what is left", 590 < lease.ttl() <= 600)
    same("its keys", lease.keys(), [b"leased"])
    same("a refresh", lease.refresh(), 600)
    same("a leased key made once", client.create("once more", "1", lease=lease), True)
    same("its end", lease.revoke(), True)
    same("what it held", client.get("leased") + client.get("once more"), [])
    same("what is left of it", lease.ttl(), -1)
    same("a refresh of it", lease.refresh(), -1)
    error = refused("a second end", exceptions.Etcd3Exception, lease.revoke)
    true(f"a second end: {error.detail_text}", "requested lease not found" in error.detail_text)


def locks():
    with client.lock("door", ttl=600) as lock:
        same("a lock", lock.is_acquired(), True)
        same("its refresh", lock.refresh(), 600)
        other = client.lock("door", ttl=600)
        same("who comes second", other.acquire(), False)
    same("the first has left", lock.is_acquired(), False)
    same("the second", other.acquire(), True)
    same("the second leaves", other.release(), True)
    same("a second time", other.release(), False)


def maintenance():
    status = client.status()
    true("its version", status["version"].startswith("3."))
    (member,) = client.members()
    same("the member", member["name"], "one")
    same("where it serves", member["clientURLs"], [f"http://{host}:{port}"])
    same("who leads", status["leader"], member["ID"])


def by_hand():
    """What the package has no name for, through its own `post`."""
    ask = lambda path, **body: client.post(client.get_url(path), json=body)
    client.put("c", "1")
    client.put("c", "2")
    new = int(client.get("c", metadata=True)[0][1]["mod_revision"])
    ask("/kv/compaction", revision=new, physical=True)
    old = lambda: client.get("c", revision=new - 1)
    error = refused("what is compacted", exceptions.Etcd3Exception, old)
    true(f"what is compacted: {error.detail_text}", "has been compacted" in error.detail_text)
    true("a hash", ask("/maintenance/hash")["hash"] > 0)
    same("its history", ask("/maintenance/hash")["header"]["revision"], str(new))
    true("alarms", "alarms" not in ask("/maintenance/alarm"))
    ask("/maintenance/defragment")
    true("leases", "leases" in ask("/lease/leases"))


def later():
    """What is not there yet says so."""
    for path in ["/auth/enable", "/auth/user/list", "/cluster/member/add"]:
        ask = lambda: client.post(client.get_url(path), json={})
        error = refused(path, exceptions.Etcd3Exception, ask)
        true(f"{path}: {error.detail_text}", '"code":12' in error.detail_text)


told.run(keys, ranges, transactions, watches, leases, locks, maintenance, by_hand, later)
