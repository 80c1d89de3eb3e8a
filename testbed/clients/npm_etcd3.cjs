// The package `etcd3` of npm, which speaks gRPC, against a member: HOST PORT.

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { Etcd3, GRPCNotImplementedError, STMConflictError } = require('etcd3');

const [host, port] = process.argv.slice(2);
const client = new Etcd3({ hosts: `http://${host}:${port}` });

// For what must happen soon. The script as a whole has a deadline too.
const SOON = 15000;

const same = (what, seen, expected) => {
  const shown = value => JSON.stringify(value) ?? String(value);
  assert.deepEqual(seen, expected, `${what}: expected ${shown(expected)}, saw ${shown(seen)}`);
};
const soon = (what, promise) => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing after ${SOON} ms`)), SOON);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};
const refused = async (what, kind, call) => {
  let seen;
  try {
    seen = await call();
  } catch (error) {
    assert(error instanceof kind, `${what}: expected ${kind.name}, saw ${error.stack}`);
    return error;
  }
  assert.fail(`${what}: expected ${kind.name}, saw ${JSON.stringify(seen)}`);
};
const says = async (what, text, call) => {
  const error = await refused(what, Error, call);
  assert(error.message.includes(text), `${what}: expected ${text}, saw ${error.message}`);
};

async function keys() {
  same('a key that is not there', await client.get('k').string(), null);
  await client.put('k').value('1');
  same('a value', await client.get('k'), '1');
  const before = await client.put('k').value(Buffer.from([0, 255])).getPrevious();
  same('the value before', before.value.toString(), '1');
  same('bytes', [...(await client.get('k').buffer())], [0, 255]);
  const { kvs, count } = await client.get('k').exec();
  same('how many', count, '1');
  same('its version', kvs[0].version, '2');
  same('an old value', await client.get('k').revision(kvs[0].create_revision).string(), '1');
  same('a serializable read', (await client.get('k').serializable(true).buffer()).length, 2);
  await client.put('n').value(42);
  same('a number', await client.get('n').number(), 42);
  await client.put('n').touch();
  same('touched', (await client.get('n').exec()).kvs[0].version, '2');
  await client.put('j').value(JSON.stringify({ a: 1 }));
  same('json', await client.get('j').json(), { a: 1 });
  same('whether it is there', await client.get('j').exists(), true);
  same('whether it is there', await client.get('no').exists(), false);
  const gone = await client.delete().key('k').getPrevious();
  same('what was deleted', gone.map(kv => [...kv.value]), [[0, 255]]);
  same('a second deletion', (await client.delete().key('k')).deleted, '0');
  same('all of it', (await client.delete().all()).deleted, '2');
}

async function ranges() {
  for (const name of 'abcd') await client.put(`r/${name}`).value(name.toUpperCase());
  const every = { 'r/a': 'A', 'r/b': 'B', 'r/c': 'C', 'r/d': 'D' };
  same('a prefix', await client.getAll().prefix('r/').strings(), every);
  same('all of it', await client.getAll(), every);
  same('keys', await client.getAll().prefix('r/').keys(), Object.keys(every));
  same('a count', await client.getAll().prefix('r/').count(), 4);
  for (const target of ['Key', 'Version', 'Create', 'Mod', 'Value']) {
    const sorted = await client.getAll().prefix('r/').sort(target, 'Descend').limit(1).keys();
    same(`sorted by ${target}`, sorted, target === 'Version' ? ['r/a'] : ['r/d']);
  }
  const range = { start: 'r/b', end: 'r/d' };
  same('a range', await client.getAll().inRange(range).keys(), ['r/b', 'r/c']);
  const last = (await client.get('r/d').exec()).kvs[0].mod_revision;
  same('the newest', await client.getAll().minModRevision(last).keys(), ['r/d']);
  same('the newest made', await client.getAll().minCreateRevision(last).keys(), ['r/d']);
  same('the others', (await client.getAll().maxModRevision(last - 1).keys()).length, 3);
  const ours = client.namespace('r/');
  same('a namespace', await ours.get('a'), 'A');
  same('all of it', await ours.getAll().keys(), ['a', 'b', 'c', 'd']);
  await ours.put('e').value('E');
  same('seen from without', await client.get('r/e'), 'E');
  same('a deleted prefix', (await client.delete().prefix('r/')).deleted, '5');
}

async function transactions() {
  await client.put('t').value('1');
  const done = await client
    .if('t', 'Value', '==', '1')
    .and('t', 'Version', '==', 1)
    .and('t', 'Create', '>', 1)
    .and('t', 'Mod', '!=', 1)
    .and('t', 'Lease', '==', 0)
    .then(client.put('t').value('2'), client.get('t'), client.delete().key('other'))
    .else(client.get('t'))
    .commit();
  same('a transaction', done.succeeded, true);
  same('what it read', done.responses[1].response_range.kvs[0].value.toString(), '2');
  same('what it deleted', done.responses[2].response_delete_range.deleted, '0');
  const not = await client.if('t', 'Value', '==', '1').else(client.get('t')).commit();
  same('one that fails', not.succeeded, false);
  same('what it read', not.responses[0].response_range.kvs[0].value.toString(), '2');
  const [three, four] = [client.put('t').value('3'), client.put('t').value('4')];
  const twice = client.if('t', 'Version', '>', 0).then(three, four);
  await says('two puts of a key', 'duplicate key given in txn request', () => twice.commit());
  for (const isolation of [0, 1, 2, 3]) {
    await client.stm({ isolation }).transact(async tx => {
      const value = await tx.get('t').number();
      await tx.put('t').value(value + 1);
      same('its own write', await tx.get('t').number(), value + 1);
    });
  }
  same('four additions', await client.get('t').number(), 6);
  let tries = 0;
  await client.stm({ retries: 3 }).transact(async tx => {
    const value = await tx.get('t').number();
    if (tries++ === 0) await client.put('t').value(100);
    await tx.put('t').value(value + 1);
  });
  same('one that was disturbed', [tries, await client.get('t').number()], [2, 101]);
  const disturbed = () => client.stm({ retries: 0 }).transact(async tx => {
    await tx.get('t').number();
    await client.put('t').value(7);
    await tx.put('t').value(8);
  });
  await refused('one that may not try again', STMConflictError, disturbed);
}

async function watches() {
  const start = (await client.put('w/a').value('1')).header.revision;
  const watcher = await client.watch().prefix('w/').startRevision(start).withPreviousKV().create();
  const seen = [];
  const four = new Promise(resolve => {
    const tell = kind => (kv, before) => {
      seen.push([kind, `${kv.key}`, `${kv.value}`, before ? `${before.value}` : '']);
      if (seen.length === 4) resolve();
    };
    watcher.on('put', tell('put')).on('delete', tell('delete'));
  });
  await client.put('elsewhere').value('1');
  await client.put('w/b').value('2');
  await client.put('w/b').value('3');
  await client.delete().key('w/a');
  await soon('four events', four);
  same('events from a revision on', seen, [
    ['put', 'w/a', '1', ''],
    ['put', 'w/b', '2', ''],
    ['put', 'w/b', '3', '2'],
    ['delete', 'w/a', '', '1'],
  ]);
  const deletes = await client.watch().key('w/b').only('delete').create();
  const first = once(deletes, 'data');
  await client.put('w/b').value('4');
  await client.delete().key('w/b');
  const [answer] = await soon('a filtered watch', first);
  same('a filtered watch', answer.events.map(event => event.type), ['Delete']);
  await deletes.cancel();
  await watcher.cancel();
  const count = seen.length;
  const ended = await client.watch().key('w/end').create();
  const end = once(ended, 'put');
  await client.put('w/end').value('1');
  await soon('a watch beside those that ended', end);
  same('after the cancel', seen.length, count);
  await ended.cancel();
}

async function leases() {
  const lease = client.lease(600, { autoKeepAlive: false });
  await lease.put('leased').value('1');
  const id = await lease.grant();
  same('its lease', (await client.get('leased').exec()).kvs[0].lease, id);
  const left = await client.leaseClient.leaseTimeToLive({ ID: id, keys: true });
  same('what was granted', left.grantedTTL, '600');
  same('its keys', left.keys.map(String), ['leased']);
  same('leases', (await client.leaseClient.leaseLeases()).leases.map(each => each.ID), [id]);
  same('a refresh', (await lease.keepaliveOnce()).TTL, '600');
  await client.put('leased').value('2').ignoreLease();
  same('it keeps its lease', (await client.get('leased').exec()).kvs[0].lease, id);
  await lease.revoke();
  same('what it held', await client.get('leased').string(), null);
  const again = () => client.leaseClient.leaseRevoke({ ID: id });
  await says('a second end', 'requested lease not found', again);
  const kept = client.lease(5);
  const renewed = once(kept, 'keepaliveSucceeded');
  await kept.grant();
  await soon('a renewal', renewed);
  const lost = once(kept, 'lost');
  await client.leaseClient.leaseRevoke({ ID: await kept.grant() });
  await soon('the loss of a lease', lost);
}

async function locks() {
  const first = client.lock('door').ttl(600);
  await first.acquire();
  await refused('who comes second', Error, () => client.lock('door').acquire());
  await first.release();
  same('as a block', await client.lock('door').do(() => 'inside'), 'inside');
}

async function elections() {
  const election = client.election('boss', 600);
  same('nobody leads', await election.leader(), undefined);
  const first = election.campaign('a');
  await soon('the first', first.wait());
  same('who leads', await election.leader(), 'a');
  const told = (observer, value) => new Promise(resolve => {
    observer.on('change', seen => seen === value && resolve());
  });
  const observer = await soon('who looks on', election.observe());
  const changed = told(observer, 'still a');
  await first.proclaim('still a');
  await soon('what it says now', changed);
  same('what it says now', [observer.leader(), await election.leader()], ['still a', 'still a']);
  await soon('who looks away', observer.cancel());
  const second = election.campaign('b');
  await soon('who waits', once(second, '_isWaiting'));
  const next = told(await soon('who looks on', election.observe()), 'b');
  const elected = second.wait();
  await first.resign();
  await soon('the second', elected);
  same('who leads', await election.leader(), 'b');
  await soon('who looks on', next);
  await second.resign();
  same('nobody leads', await election.leader(), undefined);
}

const NO_LEADER = 'bad leader transferee';

async function maintenance() {
  const status = await client.maintenance.status();
  assert(status.version.startsWith('3.'), `its version: saw ${status.version}`);
  const { members } = await client.cluster.memberList({});
  same('the members', members.map(member => member.name), ['one']);
  same('who leads', status.leader, members[0].ID);
  same('where it serves', members[0].clientURLs, [`http://${host}:${port}`]);
  const alarms = action => client.maintenance.alarm({ action, alarm: 'None' });
  same('alarms', (await alarms('Get')).alarms, []);
  const full = { memberID: members[0].ID, alarm: 'Nospace' };
  const nospace = action => client.maintenance.alarm({ action, ...full });
  same('an alarm', (await nospace('Activate')).alarms.length, 1);
  // Its circuit breaker opens after this error: another client may run into it.
  const other = new Etcd3({ hosts: `http://${host}:${port}` });
  await says('a put', 'database space exceeded', () => other.put('full').value('1'));
  other.close();
  same('what is disarmed', (await nospace('Deactivate')).alarms.length, 1);
  await client.put('full').value('1');
  await client.maintenance.defragment();
  const { hash } = await client.maintenance.hash();
  assert(hash > 0, `a hash: saw ${hash}`);
  // This version calls it by another name than its gRPC library gives it.
  const broken = new Etcd3({ hosts: `http://${host}:${port}` });
  await refused('a hash of keys', TypeError, () => broken.maintenance.hashKV({ revision: '0' }));
  broken.close();
  const none = () => client.maintenance.moveLeader({ targetID: '1' });
  await says('a leader that is no member', NO_LEADER, none);
}

async function compaction() {
  const old = (await client.put('c').value('1')).header.revision;
  const { revision } = (await client.put('c').value('2')).header;
  await client.kv.compact({ revision, physical: true });
  same('what is left', await client.get('c').revision(revision).string(), '2');
  const text = 'required revision has been compacted';
  await says('what is not', text, () => client.get('c').revision(old).string());
  await says('a second time', text, () => client.kv.compact({ revision, physical: false }));
}

// What is not there yet says so.
async function later() {
  const peerURLs = ['http://127.0.0.1:1'];
  for (const [what, call] of [
    ['users', () => client.getUsers()],
    ['roles', () => client.getRoles()],
    ['a new user', () => client.user('u').create('p')],
    ['a new role', () => client.role('r').create()],
    ['guarding', () => client.auth.authEnable()],
    ['a new member', () => client.cluster.memberAdd({ peerURLs })],
    ['another address', () => client.cluster.memberUpdate({ ID: '1', peerURLs })],
    ['a member\'s end', () => client.cluster.memberRemove({ ID: '1' })],
  ]) {
    await refused(what, GRPCNotImplementedError, call);
  }
  const snapshot = await client.maintenance.snapshot();
  const [error] = await soon('a snapshot', once(snapshot, 'error').then(([e]) => [e], e => [e]));
  same('a snapshot', error.code ?? error.constructor.name, 12);
}

const steps = [keys, ranges, transactions, watches, leases, locks, elections, maintenance];

async function all() {
  for (const step of [...steps, compaction, later]) {
    console.log(step.name);
    await step();
  }
  console.log('end');
}

// Who looks on at an election is not waited for.
all().then(() => process.exit(0), error => {
  console.error(error.message.includes(': expected') ? error.message : error.stack);
  process.exit(1);
});
