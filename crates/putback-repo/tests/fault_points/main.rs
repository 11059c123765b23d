//! Every point at which something can go wrong: each request of each workload fails in each way, on a store with
//! locks and on one without.
//!
//! A point is a workload, a kind of store, a request of it, and a way to fail: with an error or with the death of the
//! process, before the request has its effect or after it, once or for ever (all later requests fail; or the process
//! dies again at the same request each time it is started). After each point:
//!
//! - every snapshot that was reported, and that nobody asked to forget, is restored and compared, by a machine
//!   that has no cache;
//! - the workload runs again, on the same machine, without repair of any kind, and succeeds;
//! - then `check` reads everything and finds nothing, and every snapshot is restored again.
//!
//! `cargo nextest run -p putback-repo --test fault_points --no-capture` shows how many points there are.
//! Unlike the tests in `tests/repository/faults.rs`, which look at single promises of some operations, this counts.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says why it fails by failing")]

#[allow(dead_code, unreachable_pub, reason = "the other tests use the rest")]
#[path = "../repository/support.rs"]
mod support;

mod harness;
mod workloads;

use harness::{Kind, WAYS, count_points, count_requests};
use workloads::Workload;

/// All workloads on all kinds of stores have at least so many points, and every run of these tests meets all of them.
const POINTS_LEAST: u64 = 20_000;

macro_rules! points {
    ($($test:ident $workload:ident)*) => {
        $(
            #[test]
            fn $test() {
                for kind in Kind::ALL {
                    let points = count_points(Workload::$workload, kind);
                    println!("{:?} on {kind:?}: {points} points", Workload::$workload);
                    assert_eq!(points, WAYS * count_requests(Workload::$workload, kind));
                }
            }
        )*

        const WORKLOADS: &[Workload] = &[$(Workload::$workload),*];
    };
}

points! {
    init_at_every_point Init
    a_first_backup_at_every_point FirstBackup
    a_later_backup_at_every_point LaterBackup
    a_backup_with_a_checkpoint_at_every_point Checkpoint
    a_backup_that_goes_on_after_a_crash_at_every_point Resumed
    forget_at_every_point Forget
    undelete_at_every_point Undelete
    other_tags_at_every_point Replace
    the_first_half_of_prune_at_every_point PruneMark
    the_second_half_of_prune_at_every_point PruneCarryOut
    a_prune_that_stores_anew_at_every_point PruneRepack
    a_prune_beside_a_commit_at_every_point PruneRescue
    forget_and_prune_at_every_point ForgetAndPrune
    another_password_at_every_point KeyAdd
    a_removed_password_at_every_point KeyRemove
    a_changed_password_at_every_point KeyChange
    rotated_keys_at_every_point KeyRotate
    packs_moved_to_the_new_key_at_every_point RewriteEpoch
    a_compaction_at_every_point Compact
    a_repair_of_the_index_at_every_point RepairIndex
    a_repair_of_packs_at_every_point RepairPacks
    a_repair_of_snapshots_at_every_point RepairSnapshots
}

#[test]
fn there_are_as_many_points_as_promised() {
    let mut sum = 0;
    for workload in WORKLOADS {
        let points = Kind::ALL.map(|kind| WAYS * count_requests(*workload, kind));
        println!("{workload:?}: {points:?} points");
        sum += points.iter().sum::<u64>();
    }
    println!("{} workloads, {sum} points", WORKLOADS.len());
    assert!(WORKLOADS.len() >= 12 && sum >= POINTS_LEAST, "{sum} points");
}
