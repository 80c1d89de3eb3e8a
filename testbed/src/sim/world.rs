//! A world that one seed decides: three members, two clients, faults, and the checks.
//!
//! A run has two parts. First there is trouble: links break, members lose power or go slow, leaders
//! are moved. Then everything is repaired, and the members must agree and answer again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use corebox::consensus::log_store::WriterKind;
use corebox::consensus::mistakes::Mistakes;
use corebox::consensus::{Cluster, Member, Options, Peer, Seams};
use corebox::foundation::clock::Timestamp;
use corebox::foundation::random::Random;
use corebox::foundation::tasks::Tasks;
use corebox::platform::disk::MemoryDisk;
use corebox::platform::net::{Address, Net as _};
use corebox::rpc::server::access::Access;
use corebox::rpc::server::keys_v2::{self, Service};
use corebox::rpc::server::{listen, peer};
use corebox::store::wal::Sizes;

use crate::sim::checks::{Answer, linearizable};
use crate::sim::client::Client;
use crate::sim::invariants::Invariants;
use crate::sim::net::{SimClock, TurmoilNet};
use crate::sim::record::Record;
use crate::sim::scribe;

const MEMBERS: u64 = 3;
const CLIENTS: u64 = 2;
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
    /// Losses of power.
    pub crashes: u64,
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
            "{} steps, {} of {} calls answered, {} crashes lost {} unsynced operations, hash {:016x}",
            self.steps, self.answered, self.calls, self.crashes, self.lost_writes, self.hash
        )
    }
}

/// What is wrong with the network: one thing at a time, because the simulator's calls overwrite
/// each other.
struct Broken {
    name: &'static str,
    at: IpAddr,
    other: IpAddr,
}

/// One member as the world sees it.
struct Host {
    ip: IpAddr,
    disk: MemoryDisk,
    member: Arc<Mutex<Option<Member>>>,
    /// When it gets its power back.
    down_until: Option<u64>,
}

impl Host {
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
    World::new(setup.clone()).run()
}

/// What a member's host runs, from one loss of power to the next.
async fn serve(
    options: Options,
    seams: Seams,
    slot: Arc<Mutex<Option<Member>>>,
    stop: Arc<AtomicBool>,
) -> Result<(), Box<dyn std::error::Error>> {
    let (clock, random) = (seams.clock.clone(), seams.random.fork());
    let member = Member::start(options, seams).await?;
    let tasks = Tasks::default();
    let any = |port| Address::Tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
    peer::serve(TurmoilNet.bind(&any(PEER_PORT)).await?, &member, &tasks);
    let service = Service {
        member: member.clone(),
        clock,
        deadline: DEADLINE,
        access: Access::default(),
        stop: tasks.stopping(),
    };
    let clients = TurmoilNet.bind(&any(CLIENT_PORT)).await?;
    listen::serve(clients, keys_v2::router(service), &tasks);
    let writes = member.clone();
    tasks.spawn("scribe", |_| async move { scribe::work(writes, random, &stop).await });
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(member);
    std::future::pending().await
}

/// A member's options, a little different for every seed.
fn options(setup: &Setup, cluster: &Cluster, id: u64, random: &Random) -> Options {
    let heartbeat_ms = random.between(40, 80);
    let segment_bytes = random.between(4, 32) << 10;
    Options {
        heartbeat_ms,
        election_ms: heartbeat_ms * random.between(4, 6),
        writer: WriterKind::Task,
        sizes: Sizes { first_bytes: 4 << 10, segment_bytes },
        checkpoint_log_bytes: random.between(1, 16) << 10,
        entries_kept: random.between(0, 10),
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
}

impl World {
    fn new(setup: Setup) -> Self {
        let random = Random::seeded(setup.seed);
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
        let cluster = Cluster::new((1..=MEMBERS).map(peer), "sim").expect("three make a cluster");
        for number in 1..=MEMBERS {
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
            let member: Arc<Mutex<Option<Member>>> = Arc::default();
            let (slot, stop) = (member.clone(), self.stop.clone());
            self.sim.host(ip(number), move || {
                serve(options.clone(), seams.clone(), slot.clone(), stop.clone())
            });
            self.hosts.insert(number, Host { ip: ip(number), disk, member, down_until: None });
        }
    }

    fn add_clients(&mut self) {
        for number in 11..11 + CLIENTS {
            let client = Client::new(number, &self.urls(), &self.record, self.random.fork());
            let (stop, complaint) = (self.stop.clone(), self.complaint.clone());
            self.sim.client(ip(number), async move {
                if let Err(wrong) = client.work(&stop).await {
                    *complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(wrong);
                }
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
        Outcome {
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
            self.restart_due();
            self.step()?;
        }
        self.repair();
        let probe = Client::new(20, &self.urls(), &self.record, self.random.fork());
        self.sim.client(ip(20), async move {
            probe.until_all_answer().await;
            Ok(())
        });
        let deadline = self.now_ms + self.setup.repair_ms;
        while !self.step()? || !self.agree() {
            if self.now_ms > deadline {
                return Err(format!("no agreement {} ms after the repair", self.setup.repair_ms));
            }
        }
        linearizable(&self.record.inner().history)
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
        for (number, host) in &self.hosts {
            let member = host.member().clone();
            if let Some(member) = member
                && let Some(status) = self.invariants.check(*number, &member)?
            {
                self.record.note(*number, format_args!("{status}"));
            }
        }
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
        let clients = (11..11 + CLIENTS).map(ip);
        self.hosts.values().map(|host| host.ip).chain(clients).collect()
    }

    fn some_member(&self) -> u64 {
        self.random.between(1, MEMBERS)
    }

    fn fault(&mut self) {
        let number = self.some_member();
        let other = self.some_member();
        let until = self.now_ms + self.random.between(50, 2000);
        let name = match self.random.below(100) {
            0..15 => "cut off from the members",
            15..20 => "cut off from everyone",
            20..30 => "cannot send to another",
            30..35 => "paused",
            35..60 => "crash",
            60..65 => "crash of all",
            65..75 => "slow disk",
            75..85 => "move the leader",
            85..95 => "checkpoint",
            _ => "heal",
        };
        self.record.note(number, format_args!("fault: {name}, other {other}, until {until}"));
        match name {
            "crash" => return self.crash(number, until),
            "crash of all" => return (1..=MEMBERS).for_each(|number| self.crash(number, until)),
            "slow disk" => {
                return self.hosts[&number].disk.set_sync_ms_max(self.random.between(0, 400));
            }
            "move the leader" => return self.move_leader(other),
            "checkpoint" => return self.checkpoint(),
            _ => {}
        }
        self.broken = Broken { name, at: ip(number), other: ip(other) };
        self.heal_at = Some(until);
        self.set_links();
    }

    /// Makes every link work, delivers what was held, and breaks again what is to be broken.
    fn set_links(&self) {
        let everyone = self.everyone();
        for (at, a) in everyone.iter().enumerate() {
            for b in &everyone[at + 1..] {
                self.sim.release(*a, *b);
            }
        }
        let Broken { name, at, other } = self.broken;
        for to in everyone.into_iter().filter(|to| *to != at) {
            match name {
                "cut off from the members" if to <= ip(MEMBERS) => self.sim.partition(at, to),
                "cut off from everyone" => self.sim.partition(at, to),
                "cannot send to another" if to == other => self.sim.partition_oneway(at, to),
                "paused" => self.sim.hold(at, to),
                _ => {}
            }
        }
    }

    fn heal(&mut self) {
        self.heal_at = None;
        self.broken.name = "";
        self.set_links();
    }

    /// The power of a member fails: nothing more leaves it, and its disk keeps what was synced.
    fn crash(&mut self, number: u64, until: u64) {
        if self.hosts[&number].down_until.is_some() {
            return;
        }
        // Dropping a simulated stream says goodbye to the other end. A power failure does not.
        let me = ip(number);
        for to in self.everyone().into_iter().filter(|to| *to != me) {
            self.sim.partition(me, to);
        }
        *self.hosts[&number].member() = None;
        self.sim.crash(me);
        self.set_links();
        let host = self.hosts.get_mut(&number).expect("a member");
        let unsynced = host.disk.crash();
        host.down_until = Some(until);
        self.invariants.crashed(number);
        *self.record.inner().lives.entry(number).or_default() += 1;
        self.crashes += 1;
        self.record.note(number, format_args!("crashed with {unsynced} unsynced operations"));
    }

    fn restart_due(&mut self) {
        if self.heal_at.is_some_and(|at| at <= self.now_ms) {
            self.heal();
        }
        for (number, host) in &mut self.hosts {
            if host.down_until.is_some_and(|at| at <= self.now_ms) {
                host.down_until = None;
                self.record.note(*number, format_args!("starts again"));
                self.sim.bounce(host.ip);
            }
        }
    }

    fn repair(&mut self) {
        self.record.note(0, format_args!("everything is repaired"));
        self.heal();
        for host in self.hosts.values_mut() {
            host.disk.set_sync_ms_max(5);
            host.down_until = host.down_until.map(|_| 0);
        }
        self.restart_due();
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Asks whoever leads to hand leadership to another.
    fn move_leader(&self, to: u64) {
        let target = self.hosts[&to].member().as_ref().map(Member::id);
        let Some(target) = target else { return };
        for host in self.hosts.values() {
            let Some(member) = host.member().clone() else { continue };
            let (raft, ..) = member.parts();
            if raft.is_leader() && member.id() != target {
                // The call only puts a message in a queue, so it is ready at the first poll.
                let trigger = raft.trigger();
                let moved = trigger.transfer_leader(target);
                futures_util::FutureExt::now_or_never(moved);
            }
        }
    }

    /// Asks every member that runs for a checkpoint.
    fn checkpoint(&self) {
        for host in self.hosts.values() {
            let Some(member) = host.member().clone() else { continue };
            let (raft, ..) = member.parts();
            futures_util::FutureExt::now_or_never(raft.trigger().snapshot());
        }
    }
}
