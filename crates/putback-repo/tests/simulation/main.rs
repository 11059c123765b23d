//! Two weeks of eight machines that back up, two that prune and one that compacts, on a store that lags, loses
//! answers and is left in the middle: thousands of times, and each time the same for the same seed.
//!
//! - `actors.rs`: what the machines do.
//! - `bad_input.rs`: single mishaps, on purpose.
//! - `model.rs`: what must be there.
//! - `run.rs`: one seed from beginning to end.
//! - `trees.rs`: small trees made by hand, so that nothing but the repository is under test.
//!
//! `PUTBACK_SEED=17` runs one seed, and with `PUTBACK_TRACE=text` prints every event that has the text in it;
//! `PUTBACK_SEEDS=100000..200000` runs other seeds than usual.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says why it fails by failing")]

mod actors;
mod bad_input;
mod model;
mod run;
#[allow(dead_code, unreachable_pub, reason = "the other tests use the rest")]
#[path = "../repository/support.rs"]
mod support;
mod trees;

use std::ops::Range;

use crate::run::{Outcome, Plan, run};

/// Seeds of an ordinary run of all tests together.
const SEEDS: Range<u64> = 0..2000;
/// Tests that share them.
const PARTS: u64 = 8;

/// The seeds that were asked for, or the ordinary ones.
fn seeds() -> Range<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a seed is a number");
    if let Ok(seed) = std::env::var("PUTBACK_SEED") {
        return number(&seed)..number(&seed) + 1;
    }
    let Ok(seeds) = std::env::var("PUTBACK_SEEDS") else { return SEEDS };
    match seeds.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&seeds),
    }
}

fn run_part(part: u64) {
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut failures = Vec::new();
    for seed in seeds().filter(|seed| seed % PARTS == part) {
        match run(seed, &Plan::default()) {
            Ok(outcome) => outcomes.push(outcome),
            Err(failure) => failures.push(failure),
        }
        if failures.len() >= 3 {
            break;
        }
    }
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    println!(
        "{} seeds: {} requests, {} snapshots reported, {} prunes deleted {} packs and rescued {} blobs, \
         {} segments merged and {} deleted, {} restored, {} undeleted, {} replaced, {} crashes, {} failures, {} forgotten by hand",
        outcomes.len(),
        sum(|outcome| outcome.requests),
        sum(|outcome| outcome.reported as u64),
        sum(|outcome| outcome.counts.prunes),
        sum(|outcome| outcome.counts.packs_deleted),
        sum(|outcome| outcome.counts.blobs_rescued),
        sum(|outcome| outcome.counts.segments_merged),
        sum(|outcome| outcome.counts.segments_deleted),
        sum(|outcome| outcome.counts.restored),
        sum(|outcome| outcome.counts.undeleted),
        sum(|outcome| outcome.counts.replaced),
        sum(|outcome| outcome.counts.crashes),
        sum(|outcome| outcome.counts.failures),
        sum(|outcome| outcome.counts.forgotten_by_hand),
    );
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    if outcomes.len() >= 100 {
        // Else nothing was shown.
        assert!(sum(|outcome| outcome.counts.packs_deleted) > 1000);
        assert!(sum(|outcome| outcome.counts.blobs_rescued) > 0);
        assert!(sum(|outcome| outcome.counts.crashes) > 100);
        assert!(sum(|outcome| outcome.counts.segments_deleted) > 100);
        assert!(sum(|outcome| outcome.counts.undeleted) > 100);
        assert!(sum(|outcome| outcome.counts.restored) > 100);
    }
}

macro_rules! parts {
    ($($name:ident $part:literal)*) => {
        $(
            #[test]
            fn $name() {
                run_part($part);
            }
        )*
    };
}

parts! {
    nothing_is_lost_in_seeds_0 0
    nothing_is_lost_in_seeds_1 1
    nothing_is_lost_in_seeds_2 2
    nothing_is_lost_in_seeds_3 3
    nothing_is_lost_in_seeds_4 4
    nothing_is_lost_in_seeds_5 5
    nothing_is_lost_in_seeds_6 6
    nothing_is_lost_in_seeds_7 7
}

#[test]
fn a_seed_repeats_itself() {
    for seed in seeds().take(8) {
        let hash = |result: Result<Outcome, String>| match result {
            Ok(outcome) => outcome.hash,
            Err(failure) => panic!("{failure}"),
        };
        assert_eq!(hash(run(seed, &Plan::default())), hash(run(seed, &Plan::default())));
    }
}
