//! Ours and a real etcd are given the same random requests, and must say the same.

use std::path::PathBuf;

use testbed::differential::{Api, tell};

/// Requests of each seed.
const REQUESTS: usize = 2000;
/// How many seeds the suite tells; `cargo xtask differential` tells others.
const SEEDS: u64 = 2;

fn tell_all(api: Api) {
    let peers = std::env::var_os("COREBOX_PEERS");
    let peers = peers.expect("run the suite through `cargo xtask test cluster`, which fetches it");
    for seed in 0..SEEDS {
        let site = super::site(&format!("differential-{}-{seed}", api.name()));
        let found = tell(api, &PathBuf::from(&peers), &site, seed, REQUESTS).unwrap();
        assert!(found.is_none(), "{}", found.unwrap_or_default());
    }
}

#[test]
fn v3_answers_are_those_of_etcd_3_5() {
    tell_all(Api::V3);
}

#[test]
fn v2_answers_are_those_of_etcd_3_4() {
    tell_all(Api::V2);
}
