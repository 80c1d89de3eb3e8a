//! A world that one seed decides: a member, three or five, their clients, faults, and the checks.
//!
//! A run has two parts. First there is trouble: links break, members lose power, disks fail or go
//! slow, leaders are moved. Then everything is repaired, and the members must agree and answer
//! again.

mod faults;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use corebox::consensus::auto_compaction::AutoCompaction;
use corebox::consensus::log_writer::WriterKind;
use corebox::consensus::mistakes::Mistakes;
use corebox::consensus::{Cluster, Member, Options, Peer, Seams};
use corebox::foundation::clock::Timestamp;
use corebox::foundation::random::Random;
use corebox::foundation::tasks::Tasks;
use corebox::platform::disk::MemoryDisk;
use corebox::platform::net::{Address, Net as _};
use corebox::rpc::server::access::Access;
use corebox::rpc::server::keys_v2::Service;
use corebox::rpc::server::{listen, peer, v3};
use corebox::store::wal::Sizes;

use crate::sim::checks::{Answer, linearizable};
use crate::sim::client::Client;
use crate::sim::invariants::Invariants;
use crate::sim::kv::KvClient;
use crate::sim::net::{SimClock, TurmoilNet};
use crate::sim::promises::{self, Heard, Said};
use crate::sim::record::Record;
use crate::sim::scribe;
use crate::sim::watcher::Watcher;
use crate::sim::world::faults::{Aim, Broken};

/// How many members a seed may have. One that is alone reads without a round, has a clock that stands
/// still, and takes all of its log for agreed on when it starts.
const MEMBERS: [u64; 6] = [3, 3, 3, 5, 5, 1];
/// The numbers of clients of the v2 keys, of the v3 keys, and of those that watch the v3 keys.
const CLIENTS: Range<u64> = 11..13;
const KV_CLIENTS: Range<u64> = 13..15;
const WATCHERS: Range<u64> = 15..17;
/// The number of the client that looks whether everything works again.
const PROBE: u64 = 20;
const PEER_PORT: u16 = 2380;
const CLIENT_PORT: u16 = 2379;
/// How long a member works on a client's request.
const DEADLINE: Duration = Duration::from_millis(900);

/// What to run.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Decides everything.
    pub seed: u64,
    /// The mistake that the members make, if any.
    pub mistakes: Mistakes,
    /// Simulated milliseconds of trouble.
    pub trouble_ms: u64,
    /// Simulated milliseconds within which a repaired cluster must work again.
    pub repair_ms: u64,
    /// Keep the lines of the trace, not only their hash.
    pub keep_lines: bool,
}

impl Setup {
    /// Makes the usual run for a seed.
    pub fn new(seed: u64) -> Self {
        let mistakes = Mistakes::default();
        Self { seed, mistakes, trouble_ms: 10_000, repair_ms: 20_000, keep_lines: false }
    }
}

/// What a run showed.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The hash of the whole trace.
    pub hash: u64,
    /// Steps of simulated time.
    pub steps: u64,
    /// Calls of clients.
    pub calls: usize,
    /// Those that were answered.
    pub answered: usize,
    /// Answers that clients of the v3 keys got, and events that their watches were told.
    pub answered_v3: usize,
    /// See there.
    pub events: usize,
    /// Losses of power.
    pub crashes: u64,
    /// Those within a sync.
    pub crashes_in_sync: u64,
    /// Members that ended since their disk failed.
    pub disk_errors: u64,
    /// Members that caught up by a checkpoint.
    pub installed: u64,
    /// Compactions of the v3 keys, leases that ended and alarms that were raised.
    pub compactions: usize,
    /// See there.
    pub leases_ended: usize,
    /// See there.
    pub alarms: u64,
    /// Unsynced operations that they lost or tore.
    pub lost_writes: u64,
    /// What went wrong, if anything.
    pub violation: Option<String>,
    /// The trace, where it was kept.
    pub lines: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps, {} of {} calls answered, {} of v3, {} events, {} compactions, {} leases ended, {} alarms, {} crashes ({} in a sync) lost {} unsynced operations, {} disk errors, {} checkpoints installed, hash {:016x}",
            self.steps,
            self.answered,
            self.calls,
            self.answered_v3,
            self.events,
            self.compactions,
            self.leases_ended,
            self.alarms,
            self.crashes,
            self.crashes_in_sync,
            self.lost_writes,
            self.disk_errors,
            self.installed,
            self.hash
        )
    }
}

/// One member as the world sees it.
struct Host {
    ip: IpAddr,
    disk: MemoryDisk,
    member: Slot<Member>,
    /// Why it could not start.
    failed: Slot<String>,
    /// When it starts again.
    down_until: Option<u64>,
    /// Since when its disk is known to have refused something.
    refused_at: Option<u64>,
}

/// What a member's host and the world share.
type Slot<T> = Arc<Mutex<Option<T>>>;

impl Host {
    fn failed(&self) -> MutexGuard<'_, Option<String>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn member(&self) -> MutexGuard<'_, Option<Member>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ip(number: u64) -> IpAddr {
    Ipv4Addr::new(192, 168, 0, u8::try_from(number).unwrap_or(u8::MAX)).into()
}

thread_local! {
    /// The first panic of this run: the simulator only says that there was one.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs one seed. A panic anywhere inside is a violation too.
pub fn run(setup: &Setup) -> Outcome {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if turmoil::in_simulation() {
                PANIC.with_borrow_mut(|first| {
                    first.get_or_insert_with(|| info.to_string());
                });
            } else {
                usual(info);
            }
        }));
    });
    PANIC.take();
    align_task_numbers();
    World::new(setup.clone()).run()
}

/// Lets every run begin at the same place in tokio's numbers of tasks. They go on for as long as
/// the process, and a runtime that ends drops its tasks in an order that follows from the lowest
/// bits of their numbers; so they would decide which connections of a crashed member end first.
fn align_task_numbers() {
    /// More than the lists into which a runtime sorts its tasks, and a power of two as they are.
    const PERIOD: u64 = 1 << 10;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime without I/O and timers needs nothing");
    let next = || runtime.spawn(async {}).id().to_string().parse::<u64>();
    while !next().expect("a task's number").is_multiple_of(PERIOD) {}
}

/// What a member's host runs, from one loss of power to the next.
async fn serve(
    options: Options,
    seams: Seams,
    member: Slot<Member>,
    failed: Slot<String>,
    stop: Arc<AtomicBool>,
) -> Result<(), Box<dyn std::error::Error>> {
    match start(options, seams, &stop).await {
        Ok(started) => *member.lock().unwrap_or_else(PoisonError::into_inner) = Some(started),
        // The world decides whether it may be so.
        Err(error) => {
            let why = error.to_string();
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        }
    }
    std::future::pending().await
}

async fn start(
    options: Options,
    seams: Seams,
    stop: &Arc<AtomicBool>,
) -> Result<Member, Box<dyn std::error::Error>> {
    let (clock, random) = (seams.clock.clone(), seams.random.fork());
    let election = Duration::from_millis(options.election_ms);
    let member = Member::start(options, seams).await?;
    let tasks = Tasks::default();
    let any = |port| Address::Tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
    peer::serve(TurmoilNet.bind(&any(PEER_PORT)).await?, &member, &tasks);
    let grpc = v3::Service {
        member: member.clone(),
        random: Arc::new(random.fork()),
        deadline: DEADLINE,
        election,
        stop: tasks.stopping(),
        readers: Arc::default(),
    };
    grpc.readers.watch(&tasks);
    let service = Service {
        member: member.clone(),
        clock,
        deadline: DEADLINE,
        access: Access::default(),
        stop: tasks.stopping(),
    };
    let clients = TurmoilNet.bind(&any(CLIENT_PORT)).await?;
    let answers = v3::Beside::new(Arc::new(grpc), service);
    listen::serve_both(clients, answers, &listen::Places::default(), &tasks);
    let (writes, stop) = (member.clone(), stop.clone());
    tasks.spawn("scribe", |_| async move { scribe::work(writes, random, &stop).await });
    Ok(member)
}

/// A member's options, a little different for every seed.
fn options(setup: &Setup, cluster: &Cluster, id: u64, random: &Random) -> Options {
    let heartbeat_ms = random.between(40, 80);
    let segment_bytes = random.between(4, 32) << 10;
    let compaction_ms = random.between(300, 3_000);
    let keep = AutoCompaction::Periodic(Duration::from_millis(compaction_ms));
    Options {
        heartbeat_ms,
        election_ms: heartbeat_ms * random.between(4, 6),
        writer: WriterKind::Task,
        sizes: Sizes { first_bytes: 4 << 10, segment_bytes },
        checkpoint_log_bytes: random.between(1, 16) << 10,
        entries_kept: random.between(0, 10),
        quota_bytes: random.one_in(6).then(|| random.between(600, 3_000)),
        auto_compaction: random.one_in(4).then_some(keep),
        mistakes: setup.mistakes,
        ..Options::new(id, cluster.clone(), PathBuf::from("/member"))
    }
}

struct World {
    setup: Setup,
    random: Random,
    sim: turmoil::Sim<'static>,
    record: Arc<Record>,
    hosts: BTreeMap<u64, Host>,
    invariants: Invariants,
    stop: Arc<AtomicBool>,
    /// What a client saw that must not be.
    complaint: Arc<Mutex<Option<String>>>,
    tick_ms: u64,
    now_ms: u64,
    steps: u64,
    broken: Broken,
    heal_at: Option<u64>,
    crashes: u64,
    crashes_in_sync: u64,
    disk_errors: u64,
    aim: Option<Aim>,
    members: u64,
    /// The revision of the v3 keys after the last change there will be; 0 while it is not known.
    last: Arc<AtomicI64>,
}

impl World {
    fn new(setup: Setup) -> Self {
        let random = Random::seeded(setup.seed);
        let members = MEMBERS[usize::try_from(random.below(6)).unwrap_or_default()];
        let tick_ms = [1, 2, 5][usize::try_from(random.below(3)).unwrap_or_default()];
        let latency_ms_max = random.between(1, 20);
        let sim = turmoil::Builder::new()
            .rng_seed(random.next_u64())
            .epoch(std::time::UNIX_EPOCH)
            .tick_duration(Duration::from_millis(tick_ms))
            .simulation_duration(Duration::from_millis(setup.trouble_ms + setup.repair_ms + 1_000))
            .min_message_latency(Duration::from_millis(random.between(0, 1)))
            .max_message_latency(Duration::from_millis(latency_ms_max))
            .enable_random_order()
            .tcp_capacity(1024)
            .build();
        let mut world = Self {
            record: Arc::new(Record::new(setup.keep_lines)),
            setup,
            random,
            sim,
            hosts: BTreeMap::new(),
            invariants: Invariants::default(),
            stop: Arc::default(),
            complaint: Arc::default(),
            tick_ms,
            now_ms: 0,
            steps: 0,
            broken: Broken { name: "", at: ip(1), other: ip(1) },
            heal_at: None,
            crashes: 0,
            crashes_in_sync: 0,
            disk_errors: 0,
            aim: None,
            members,
            last: Arc::default(),
        };
        world.add_members();
        world.add_clients();
        world
    }

    fn add_members(&mut self) {
        let peer = |number| Peer {
            name: format!("m{number}"),
            peer_urls: vec![format!("http://{}:{PEER_PORT}", ip(number))],
        };
        let peers = (1..=self.members).map(peer);
        let cluster = Cluster::new(peers, "sim").expect("any of these numbers makes a cluster");
        for number in 1..=self.members {
            let disk = MemoryDisk::new(self.random.fork(), self.random.between(0, 20));
            let id = cluster.named(&format!("m{number}")).expect("it was named");
            let options = options(&self.setup, &cluster, id, &self.random);
            let skew = Timestamp::from_secs(1_000_000 + self.random.below(3));
            let seams = Seams {
                net: Arc::new(TurmoilNet),
                disk: Arc::new(disk.clone()),
                clock: Arc::new(SimClock { start: skew }),
                random: Arc::new(self.random.fork()),
            };
            let (member, failed): (Slot<Member>, Slot<String>) = Default::default();
            let (slot, why, stop) = (member.clone(), failed.clone(), self.stop.clone());
            self.sim.host(ip(number), move || {
                let (slot, why, stop) = (slot.clone(), why.clone(), stop.clone());
                serve(options.clone(), seams.clone(), slot, why, stop)
            });
            let ip = ip(number);
            let host = Host { ip, disk, member, failed, down_until: None, refused_at: None };
            self.hosts.insert(number, host);
        }
    }

    fn add_clients(&mut self) {
        for number in CLIENTS {
            let client = Client::new(number, &self.urls(), &self.record, self.random.fork());
            let (stop, complaint) = (self.stop.clone(), self.complaint.clone());
            self.sim.client(ip(number), async move {
                if let Err(wrong) = client.work(&stop).await {
                    *complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(wrong);
                }
                Ok(())
            });
        }
        for number in KV_CLIENTS {
            let client = KvClient::new(number, &self.urls(), &self.record, self.random.fork());
            let stop = self.stop.clone();
            self.sim.client(ip(number), async move {
                client.work(&stop).await;
                Ok(())
            });
        }
        for number in WATCHERS {
            let watcher = Watcher::new(number, &self.urls(), &self.record, self.random.fork());
            let last = self.last.clone();
            self.sim.client(ip(number), async move {
                watcher.work(&last).await;
                Ok(())
            });
        }
    }

    fn urls(&self) -> BTreeMap<u64, String> {
        let url = |number: &u64| (*number, format!("http://{}:{CLIENT_PORT}", ip(*number)));
        self.hosts.keys().map(url).collect()
    }

    fn run(mut self) -> Outcome {
        let violation = match catch_unwind(AssertUnwindSafe(|| self.story())) {
            Ok(result) => result.err(),
            Err(_) => Some(PANIC.take().unwrap_or_else(|| "panic".to_owned())),
        };
        let inner = self.record.inner();
        let answered = |answer: &Answer| !matches!(answer, Answer::Unknown | Answer::Refused);
        let truth = self.invariants.truth();
        let heard = inner.watches.iter().flat_map(|watch| &watch.heard);
        let told =
            |heard: &Heard| if let Heard::Events { facts, .. } = heard { facts.len() } else { 0 };
        Outcome {
            answered_v3: inner.calls.iter().filter(|call| call.said != Said::Nothing).count(),
            events: heard.map(told).sum(),
            crashes_in_sync: self.crashes_in_sync,
            disk_errors: self.disk_errors,
            installed: self.invariants.installed(),
            compactions: truth.compactions.len(),
            leases_ended: truth.revoked.len(),
            alarms: truth.alarms,
            hash: inner.hash,
            steps: self.steps,
            calls: inner.history.len(),
            answered: inner.history.iter().filter(|one| answered(&one.answer)).count(),
            crashes: self.crashes,
            lost_writes: self.hosts.values().map(|host| host.disk.lost()).sum(),
            violation,
            lines: inner.lines.clone(),
        }
    }

    fn story(&mut self) -> Result<(), String> {
        let mut next_fault = self.random.between(200, 1500);
        let pause_max = self.random.between(300, 2500);
        while self.now_ms < self.setup.trouble_ms {
            if self.now_ms >= next_fault {
                self.fault();
                next_fault = self.now_ms + self.random.between(20, pause_max);
            }
            self.step()?;
        }
        self.repair();
        self.probe()?;
        self.check_history()
    }

    /// Steps until everyone answers and agrees, and all that was watched is told.
    fn probe(&mut self) -> Result<(), String> {
        let probe = Client::new(PROBE, &self.urls(), &self.record, self.random.fork());
        let answered = Arc::new(AtomicBool::new(false));
        let told = answered.clone();
        self.sim.client(ip(PROBE), async move {
            probe.until_all_answer().await;
            told.store(true, Ordering::Relaxed);
            Ok(())
        });
        let deadline = self.now_ms + self.setup.repair_ms;
        loop {
            let done = self.step()?;
            let agreed = answered.load(Ordering::Relaxed) && self.agree();
            if agreed {
                let revision = self.invariants.truth().revision();
                self.last.store(revision, Ordering::Relaxed);
                if done {
                    return Ok(());
                }
            }
            if self.now_ms > deadline {
                let what = if agreed { "not all was told" } else { "no agreement" };
                return Err(format!("{what} {} ms after the repair", self.setup.repair_ms));
            }
        }
    }

    /// Checks what can only be known when all is over.
    fn check_history(&self) -> Result<(), String> {
        let truth = self.invariants.truth();
        for host in self.hosts.values() {
            let member = host.member();
            let member = member.as_ref().ok_or("a member is away at the end")?;
            if !member.read(|machine| machine == truth.machine()) {
                return Err(format!("{} has other keys than were agreed on", host.ip));
            }
        }
        let inner = self.record.inner();
        linearizable(&inner.history)?;
        promises::calls(truth, &inner.calls)?;
        promises::leases(truth, &inner.kept, self.tick_ms)?;
        let last = self.last.load(Ordering::Relaxed);
        inner.watches.iter().try_for_each(|watch| promises::watch(truth, watch, last))
    }

    /// One step of simulated time, and the checks. True when all clients are done.
    fn step(&mut self) -> Result<bool, String> {
        let done = self.sim.step().map_err(|error| match PANIC.take() {
            Some(panic) => panic,
            None => error.to_string(),
        })?;
        self.now_ms += self.tick_ms;
        self.steps += 1;
        self.record.inner().now_us = u128::from(self.now_ms) * 1000;
        if let Some(wrong) = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(wrong);
        }
        self.end_refused()?;
        let mut running = Vec::new();
        for (number, host) in &self.hosts {
            let Some(member) = host.member().clone() else { continue };
            // One that stopped after all because its disk failed ends with the next step.
            if member.status().failed.is_some() && host.disk.has_refused() {
                continue;
            }
            if let Some(status) = self.invariants.check(*number, &member, self.now_ms)? {
                self.record.note(*number, format_args!("{status}"));
            }
            running.push(member);
        }
        self.invariants.check_quorum(&running, self.members)?;
        self.crash_in_sync();
        self.restart_due();
        Ok(done)
    }

    /// Have all members applied the same entries, and seen the last lease end?
    fn agree(&self) -> bool {
        let applied = |host: &Host| {
            let member = host.member();
            let member = member.as_ref()?;
            let leases = member.read(|machine| machine.keys_v3.view().leases().count());
            (leases == 0).then(|| member.status().applied)
        };
        let applied: Vec<_> = self.hosts.values().map(applied).collect();
        applied.iter().all(|one| one.is_some() && *one == applied[0])
    }

    fn everyone(&self) -> Vec<IpAddr> {
        let clients = CLIENTS.chain(KV_CLIENTS).chain(WATCHERS).map(ip);
        self.hosts.values().map(|host| host.ip).chain(clients).collect()
    }
}
