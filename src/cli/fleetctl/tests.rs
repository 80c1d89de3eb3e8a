//! Whole runs of `fleetctl` against a small fleet in memory, on paused time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::fleetctl::fake::{Fleet, LAG};
use crate::cli::fleetctl::{grant, words};
use crate::cli::output::Output;
use crate::foundation::exit::chain;
use crate::platform::net::MemoryNet;
use crate::rpc::client::http::HttpClient;
use crate::wire::fleet::JobState::{Inactive, Launched, Loaded};

const TEXT: &str = "[Service]\nExecStart=/bin/sleep 100\n";
const GLOBAL: &str = "[Service]\nExecStart=/bin/sleep 100\n\n[X-Fleet]\nGlobal=true\n";

#[derive(Debug)]
struct Ran {
    exit: u8,
    out: String,
    err: String,
    took: Duration,
}

async fn run_on(net: &MemoryNet, typed: &str) -> Ran {
    let args = std::iter::once("fleetctl").chain(typed.split_whitespace());
    let matches = words::command().try_get_matches_from(args).unwrap();
    let wish = words::wish(&matches, &|_| None).map_err(|error| chain(&error)).unwrap();
    let (output, kept) = Output::kept();
    let began = Instant::now();
    let exit = grant(wish, HttpClient::new(Arc::new(net.clone())), output).await;
    Ran { exit: exit.code(), out: kept.out(), err: kept.err(), took: began.elapsed() }
}

async fn check(fleet: &Fleet, typed: &str, exit: u8, out: &str, err: &str) -> Ran {
    let ran = run_on(&fleet.net, typed).await;
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (exit, out, err), "{typed}");
    ran
}

/// Puts a file somewhere and returns how to type its path.
fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_unit_is_submitted_loaded_started_stopped_unloaded_and_destroyed() {
    let (fleet, folder) = (Fleet::start().await, tempfile::tempdir().unwrap());
    let path = write(folder.path(), "a.service", TEXT);
    check(&fleet, &format!("submit {path}"), 0, "Unit a.service inactive\n", "").await;
    assert_eq!(fleet.text("a.service"), TEXT);
    let loaded = "Unit a.service loaded on aaaaaaaa.../10.0.0.1\n";
    check(&fleet, "load a.service", 0, loaded, "").await;
    let launched = "Unit a.service launched on aaaaaaaa.../10.0.0.1\n";
    let ran = check(&fleet, "start a", 0, launched, "").await;
    assert!(ran.took >= LAG && ran.took < LAG * 2, "{:?}", ran.took);
    let stopped = "Successfully stopped units [a.service].\n";
    check(&fleet, "stop a.service", 0, loaded, stopped).await;
    let unloaded = "Successfully unloaded units [a.service].\n";
    check(&fleet, "unload a.service", 0, "Unit a.service inactive\n", unloaded).await;
    check(&fleet, "destroy a.service", 0, "Destroyed a.service\n", "").await;
    assert_eq!(fleet.desired("a.service"), None);
}

#[tokio::test(start_paused = true)]
async fn starting_a_file_stores_it_first() {
    let (fleet, folder) = (Fleet::start().await, tempfile::tempdir().unwrap());
    let path = write(folder.path(), "a.service", &format!("{TEXT}[X-Fleet]\nFoo=1\n"));
    let out = "Unit a.service inactive\nUnit a.service launched on aaaaaaaa.../10.0.0.1\n";
    let err = "WARNING: Unit a.service: unrecognized requirement in [X-Fleet] section: \"Foo\"\n";
    check(&fleet, &format!("start {path}"), 0, out, err).await;
    assert_eq!(fleet.writes(), ["PUT a.service inactive 2", "PUT a.service launched 0"]);
    check(&fleet, "start a.service", 0, "", "").await;
    assert_eq!(fleet.writes().len(), 2, "what is started already is left alone");
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_made_of_its_template() {
    let (fleet, folder) = (Fleet::start().await, tempfile::tempdir().unwrap());
    fleet.keep("web@.service", TEXT, Inactive);
    let out = "Unit web@1.service inactive\nTriggered unit web@1.service start\n";
    check(&fleet, "start --no-block web@1", 0, out, "").await;
    assert_eq!(fleet.text("web@1.service"), TEXT);
    write(folder.path(), "db@.service", TEXT);
    let typed = format!("submit {}", folder.path().join("db@7.service").display());
    check(&fleet, &typed, 0, "Unit db@7.service inactive\n", "").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_nowhere_cannot_be_started() {
    let fleet = Fleet::start().await;
    for verb in ["submit", "load", "start"] {
        let err =
            "Error creating units: unable to find Unit(no.service) in Registry or on filesystem\n";
        check(&fleet, &format!("{verb} /nowhere/no.service"), 1, "", err).await;
    }
    for verb in ["stop", "unload", "destroy"] {
        check(&fleet, &format!("{verb} no.service"), 0, "", "Units not found in registry\n").await;
    }
    for verb in ["submit", "load", "start", "stop", "unload", "restart", "destroy"] {
        check(&fleet, verb, 0, "", "No units given\n").await;
    }
    check(&fleet, "cat no.service", 1, "", "Unit no.service not found\n").await;
    check(&fleet, "cat", 1, "", "One unit file must be provided\n").await;
    assert_eq!(run_on(&fleet.net, "restart no.service").await.exit, 1);
}

#[tokio::test(start_paused = true)]
async fn why_no_machine_takes_a_unit_is_told_while_start_goes_on_waiting() {
    let fleet = Fleet::start().await;
    fleet.keep("a.service", TEXT, Inactive);
    fleet.no_place_for("a.service");
    let err = "Unit a.service is on no machine yet:\n  \
               aaaaaaaa.../10.0.0.1: its metadata has no `disk`\n  \
               bbbbbbbb.../10.0.0.2: its metadata has no `disk`\n  \
               cccccccc.../10.0.0.3: its metadata has no `disk`\n\
               Error waiting for units: timed out waiting for unit a.service to report state launched\n";
    let ran = check(&fleet, "start --block-attempts=3 a.service", 1, "", err).await;
    assert!(ran.took >= Duration::from_secs(6) && ran.took < Duration::from_secs(7));
    let stopped = "Unable to stop unit a.service in state inactive\n";
    check(&fleet, "stop a.service", 1, "", stopped).await;
    let unloaded = "Successfully unloaded units [a.service].\n";
    check(&fleet, "unload a.service", 0, "Unit a.service inactive\n", unloaded).await;
    assert_eq!(fleet.desired("a.service"), Some(Inactive));
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_fails_is_told_with_its_machine() {
    let fleet = Fleet::start().await;
    fleet.keep("a.service", TEXT, Inactive);
    fleet.let_fail("a.service");
    let ran = run_on(&fleet.net, "start --block-attempts=2 a.service").await;
    assert_eq!(ran.exit, 1);
    let told = "Unit a.service on aaaaaaaa.../10.0.0.1 is loaded failed failed\n";
    assert!(ran.err.starts_with(told), "{}", ran.err);
}

#[tokio::test(start_paused = true)]
async fn a_stored_unit_is_replaced_only_when_told_to() {
    let (fleet, folder) = (Fleet::start().await, tempfile::tempdir().unwrap());
    fleet.keep("a.service", TEXT, Launched);
    let new = TEXT.replace("100", "200");
    let path = write(folder.path(), "a.service", &new);
    let differs = format!(
        "WARNING: Unit a.service in registry differs from local unit file {path}. Add --replace to override.\n"
    );
    check(&fleet, &format!("start {path}"), 0, "", &differs).await;
    let forbidden = "WARNING: can not replace Unit(a.service) in state 'launched', use the appropriate command\n";
    check(&fleet, &format!("submit --replace {path}"), 0, "", forbidden).await;
    assert_eq!(fleet.text("a.service"), TEXT);
    let launched = "Unit a.service launched on aaaaaaaa.../10.0.0.1\n";
    check(&fleet, &format!("start --replace {path}"), 0, launched, "").await;
    assert_eq!(fleet.text("a.service"), new);
    let same = "Found same Unit(a.service) in Registry, nothing to do\n";
    check(&fleet, &format!("start --replace {path}"), 0, "", same).await;
}

#[tokio::test(start_paused = true)]
async fn global_units_are_never_waited_for() {
    let fleet = Fleet::start().await;
    fleet.keep("g.service", GLOBAL, Inactive);
    for (verb, desired, err) in [
        ("load", Loaded, ""),
        ("start", Launched, ""),
        ("stop", Loaded, "Successfully stopped units [].\n"),
        ("unload", Inactive, "Successfully unloaded units [].\n"),
    ] {
        let out = format!("Triggered global unit g.service {verb}\n");
        let ran = check(&fleet, &format!("{verb} g.service"), 0, &out, err).await;
        assert_eq!((fleet.desired("g.service"), ran.took), (Some(desired), Duration::ZERO));
    }
    assert_eq!(run_on(&fleet.net, "restart g.service").await.exit, 1);
}

#[tokio::test(start_paused = true)]
async fn without_blocking_a_command_only_triggers() {
    let fleet = Fleet::start().await;
    fleet.keep("a.service", TEXT, Launched);
    let stopped = "Successfully stopped units [a.service].\n";
    let triggered = "Triggered unit a.service stop\n";
    let ran = check(&fleet, "stop --no-block a.service", 0, triggered, stopped).await;
    assert_eq!(ran.took, Duration::ZERO);
    let ran = check(&fleet, "destroy --no-block a.service", 0, "Destroyed a.service\n", "").await;
    assert_eq!(ran.took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn destroy_waits_until_the_unit_is_gone() {
    let fleet = Fleet::start().await;
    fleet.keep("a.service", TEXT, Launched);
    fleet.keep("b.service", TEXT, Launched);
    let out = "Destroyed a.service\nDestroyed b.service\n";
    let ran = check(&fleet, "destroy a.service none.service b.service", 0, out, "").await;
    assert!(ran.took >= LAG * 2, "{:?}", ran.took);
}

#[tokio::test(start_paused = true)]
async fn restart_stops_and_starts_what_runs() {
    let fleet = Fleet::start().await;
    fleet.keep("a.service", TEXT, Launched);
    fleet.keep("b.service", TEXT, Inactive);
    let on = "on aaaaaaaa.../10.0.0.1\n";
    let out = format!("Unit a.service loaded {on}Unit a.service launched {on}");
    let err = "Unable to restart unit b.service in state inactive\n";
    check(&fleet, "restart a.service b.service", 0, &out, err).await;
    assert_eq!(fleet.writes(), ["PUT a.service loaded 0", "PUT a.service launched 0"]);
}

#[tokio::test(start_paused = true)]
async fn cat_shows_what_is_stored() {
    let fleet = Fleet::start().await;
    fleet.keep("g.service", GLOBAL, Inactive);
    check(&fleet, "cat g", 0, GLOBAL, "").await;
}

#[tokio::test(start_paused = true)]
async fn listings_are_as_they_were() {
    let fleet = Fleet::start().await;
    let machines = "MACHINE\t\tIP\t\tMETADATA\n\
                    aaaaaaaa...\t10.0.0.1\track=0\n\
                    bbbbbbbb...\t10.0.0.2\track=1\n\
                    cccccccc...\t10.0.0.3\track=2\n";
    check(&fleet, "list-machines", 0, machines, "").await;
    check(&fleet, "list-units", 0, "UNIT\tMACHINE\tACTIVE\tSUB\n", "").await;
    check(&fleet, "list-unit-files --no-legend", 0, "", "").await;
    fleet.keep("a.service", TEXT, Launched);
    fleet.keep("b.service", TEXT, Loaded);
    fleet.keep("c.service", TEXT, Inactive);
    fleet.keep("g.service", GLOBAL, Launched);
    let units = "UNIT\t\tMACHINE\t\t\tACTIVE\t\tSUB\n\
                 a.service\taaaaaaaa.../10.0.0.1\tactive\t\trunning\n\
                 b.service\taaaaaaaa.../10.0.0.1\tinactive\tdead\n";
    check(&fleet, "list-units", 0, units, "").await;
    let files = "a.service\t1c6fb6f\tlaunched\tlaunched\taaaaaaaa.../10.0.0.1\n\
                 b.service\t1c6fb6f\tloaded\t\tloaded\t\taaaaaaaa.../10.0.0.1\n\
                 c.service\t1c6fb6f\tinactive\tinactive\t-\n\
                 g.service\tf2d6c9c\tlaunched\t-\t\tglobal\n";
    let hash = crate::wire::fleet::UnitFile::parse(GLOBAL).unwrap().hash().short();
    let files = files.replace("f2d6c9c", &hash);
    check(&fleet, "list-unit-files --no-legend", 0, &files, "").await;
    let full = "UNIT\t\tMACHINE\na.service\taaaaaaaa11/10.0.0.1\nb.service\taaaaaaaa11/10.0.0.1\n";
    check(&fleet, "list-units -l --fields=unit,machine", 0, full, "").await;
}

#[tokio::test(start_paused = true)]
async fn programs_read_listings_as_json_and_yaml() {
    let fleet = Fleet::start().await;
    fleet.keep("a.service", TEXT, Launched);
    let ran = run_on(&fleet.net, "list-units --output=json").await;
    let read: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(read[0]["machineID"], "aaaaaaaa11");
    assert_eq!(read[0]["systemdSubState"], "running");
    let ran = run_on(&fleet.net, "list-machines --output=yaml").await;
    assert!(ran.out.starts_with("- id: aaaaaaaa11\n  primaryIP: 10.0.0.1\n"), "{}", ran.out);
}

#[tokio::test(start_paused = true)]
async fn where_no_fleet_runs_one_sentence_says_what_to_do() {
    let why = "cannot reach fleet at unix:///var/run/fleet.sock: connection refused; \
               see `systemctl status fleet.service` there, or give another `--endpoint`\n";
    let ran = run_on(&MemoryNet::default(), "list-units").await;
    assert_eq!((ran.exit, ran.err), (1, format!("Error retrieving list of units: {why}")));
    let ran = run_on(&MemoryNet::default(), "list-machines").await;
    assert_eq!(ran.exit, 1);
    let said: Vec<&str> = ran.err.lines().collect();
    assert_eq!(
        format!("{}\n", said[0]),
        format!("Error retrieving list of active machines: {why}")
    );
    assert!(said[2].contains("etcdctl cluster-health"), "{said:?}");
    for typed in ["start a.service", "stop a.service", "destroy a.service", "cat a.service"] {
        assert_eq!(run_on(&MemoryNet::default(), typed).await.exit, 1, "{typed}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_words_there_is_the_usage_and_verify_is_gone() {
    let net = MemoryNet::default();
    let ran = run_on(&net, "").await;
    assert_eq!(ran.exit, 0);
    assert!(ran.out.contains("list-unit-files") && !ran.out.contains("fd-forward"), "{}", ran.out);
    let version = concat!("fleetctl version ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(run_on(&net, "--version").await.out, version);
    assert_eq!(run_on(&net, "verify a.service").await.exit, 2);
}
