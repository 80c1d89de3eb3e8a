"""The package `python-etcd` of PyPI, which speaks the v2 API, against a member: HOST PORT."""

import etcd
import told
from told import SOON, address, beside, refused, same, taken, true

host, port = address()
client = etcd.Client(host, port, read_timeout=SOON)
url = f"http://{host}:{port}"


def keys():
    first = client.write("/k", "1")
    seen = (first.action, first.key, first.value, first.newKey)
    same("a new key", seen, ("set", "/k", "1", True))
    second = client.set("/k", "ü 2")
    same("a changed one", (second.value, second.newKey), ("ü 2", False))
    same("what was before", second._prev_node.value, "1")
    true("indexes", second.modifiedIndex > first.modifiedIndex and second.etcd_index > 0)
    same("a read", client.get("/k").value, "ü 2")
    same("a read by a majority", client.read("/k", quorum=True).value, "ü 2")
    same("whether it is there", ("/k" in client, "/no" in client), (True, False))
    result = client.read("/k")
    result.value = "3"
    same("an update", client.update(result).value, "3")
    same("what is popped", client.pop("/k").value, "3")
    error = refused("what is gone", etcd.EtcdKeyNotFound, lambda: client.read("/k"))
    same("its code", error.payload["errorCode"], 100)
    same("its status", error.payload["status"], 404)
    refused("the root", etcd.EtcdRootReadOnly, lambda: client.write("/", "1"))


def compares():
    client.write("/c", "1", prevExist=False)
    new = lambda: client.write("/c", "1", prevExist=False)
    refused("what is there", etcd.EtcdAlreadyExist, new)
    old = lambda: client.write("/no", "1", prevExist=True)
    refused("what is not", etcd.EtcdKeyNotFound, old)
    same("a swap", client.test_and_set("/c", "2", "1").action, "compareAndSwap")
    refused("a wrong guess", etcd.EtcdCompareFailed, lambda: client.test_and_set("/c", "3", "1"))
    index = client.read("/c").modifiedIndex
    same("a swap by index", client.write("/c", "3", prevIndex=index).value, "3")
    wrong = lambda: client.write("/c", "4", prevIndex=index)
    refused("an old index", etcd.EtcdCompareFailed, wrong)
    wrong = lambda: client.delete("/c", prevValue="1")
    refused("a wrong guess", etcd.EtcdCompareFailed, wrong)
    same("a deletion", client.delete("/c", prevValue="3").action, "compareAndDelete")


def directories():
    client.write("/d", None, dir=True)
    client.write("/d/a", "1")
    client.write("/d/sub/b", "2")
    read = client.read("/d", recursive=True, sorted=True)
    same("a directory", read.dir, True)
    leaves = [(leaf.key, leaf.value) for leaf in read.leaves]
    same("its leaves", leaves, [("/d/a", "1"), ("/d/sub/b", "2")])
    tree = [node.key for node in read.get_subtree()]
    same("its tree", tree, ["/d", "/d/a", "/d/sub", "/d/sub/b"])
    queue = [client.write("/q", str(number), append=True) for number in range(3)]
    true("a queue", all(item.action == "create" for item in queue))
    found = client.read("/q", sorted=True).children
    same("its order", [item.value for item in found], ["0", "1", "2"])
    refused("a file", etcd.EtcdNotDir, lambda: client.write("/d/a/under", "1"))
    refused("a directory", etcd.EtcdNotFile, lambda: client.write("/d", "1"))
    refused("a directory", etcd.EtcdNotFile, lambda: client.delete("/d"))
    refused("what is full", etcd.EtcdDirNotEmpty, lambda: client.delete("/d", dir=True))
    same("all of it", client.delete("/d", recursive=True).action, "delete")
    client.delete("/q", recursive=True)


def times():
    client.write("/ttl", "1", ttl=600)
    true("what is left", 590 < client.read("/ttl").ttl <= 600)
    index = client.read("/ttl").modifiedIndex
    seen = beside(lambda: client.watch("/ttl", index=index + 1))
    refreshed = client.refresh("/ttl", 900)
    true("a refresh", 890 < refreshed.ttl <= 900)
    same("its value", client.read("/ttl").value, "1")
    # A refresh wakes nobody: the next event is the end.
    index = client.write("/ttl", "2", ttl=1, prevExist=True).modifiedIndex
    same("the change", seen("the change").value, "2")
    end = client.watch("/ttl", index=index + 1, timeout=SOON)
    same("its end", (end.action, end._prev_node.value), ("expire", "2"))
    refused("what is gone", etcd.EtcdKeyNotFound, lambda: client.read("/ttl"))
    # etcd 3.5 fails here by a mistake of its own; 3.4 does not.
    client.write("/dir/a", "1")
    index = client.write("/dir", None, dir=True, ttl=1, prevExist=True).modifiedIndex
    end = client.watch("/dir", index=index + 1, recursive=True, timeout=SOON)
    same("a directory's end", (end.action, end.key, end.dir), ("expire", "/dir", True))
    never = lambda: client.write("/ttl", "1", ttl="soon")
    wrong = refused("a bad time", etcd.EtcdValueError, never)
    same("its code", wrong.payload["errorCode"], 202)


def watches():
    index = client.write("/w/a", "1").modifiedIndex
    client.write("/w/b", "2")
    client.delete("/w/a")
    seen = taken("events", client.eternal_watch("/w", index=index, recursive=True), 3)
    said = [(event.action, event.key, event.value) for event in seen]
    same("events", said, [("set", "/w/a", "1"), ("set", "/w/b", "2"), ("delete", "/w/a", None)])
    waiting = client.watch("/w/b", timeout=SOON, index=index)
    same("an event of the past", waiting.value, "2")
    nothing = lambda: client.watch("/nothing", timeout=0.2)
    refused("where nothing happens", etcd.EtcdWatchTimedOut, nothing)
    # More than the thousand events that are remembered.
    for number in range(1010):
        client.write("/many", str(number))
    past = lambda: client.watch("/w", index=index)
    error = refused("what is forgotten", etcd.EtcdEventIndexCleared, past)
    same("its code", error.payload["errorCode"], 401)


def locks():
    lock = etcd.Lock(client, "door")
    same("a lock", lock.acquire(blocking=True, lock_ttl=600), True)
    same("it is held", lock.is_acquired, True)
    same("it is renewed", lock.acquire(lock_ttl=700), True)
    other = etcd.Lock(client, "door")
    same("who comes second", other.acquire(blocking=False), False)
    second = beside(lambda: other.acquire(blocking=True, timeout=SOON))
    lock.release()
    same("who waits", second("the second lock"), True)
    same("the first has left", lock.is_acquired, False)
    other.release()
    with etcd.Lock(client, "door") as held:
        same("as a block", held.is_acquired, True)
    refused("an election", NotImplementedError, lambda: client.election)


def cluster():
    same("machines", client.machines, [url])
    ((number, member),) = client.members.items()
    same("the member", (member["name"], member["clientURLs"]), ("one", [url]))
    same("who leads", client.leader["id"], number)
    same("its own figures", client.stats["name"], "one")
    same("the leader's", client.leader_stats["leader"], number)
    true("the store's", client.store_stats["setsSuccess"] > 1000)
    true("its version", client.version.startswith("3."))
    true("the cluster's", client.cluster_version.startswith("3."))
    many = etcd.Client(((host, 1), (host, port)), allow_reconnect=True, read_timeout=SOON)
    same("one of two addresses", many.write("/many", "1").value, "1")
    stranger = etcd.Client(host, port, expected_cluster_id="1234")
    refused("another cluster", etcd.EtcdClusterIdChanged, lambda: stranger.read("/many"))


told.run(keys, compares, directories, times, watches, locks, cluster)
