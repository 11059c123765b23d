//! The protocol of `docs/format.md`, "Concurrency" and "Prune", as a model whose states are all visited.
//!
//! Two writers, two pruners and a compactor share a few packs, segments, marks and snapshots. Each takes one step at a
//! time, and any of them may be the next to act, or never act again: that is what a crash, a suspended laptop and a
//! slow request all look like to the others. Listings may leave out what was written a short time ago, time passes
//! whenever it likes, and users forget snapshots. Two promises are checked in every state:
//!
//! - a snapshot whose success was reported can be read until somebody forgets it;
//! - so can one that was written within the commit window, though its writer died before it could report.
//!
//! The protocol keeps both. Each change of it that looks harmless and is not has a test that expects the loss and
//! prints the shortest way to it:
//! `cargo nextest run -p putback-repo --test model --no-capture`.
//!
//! | step of the model | what it stands for |
//! |---|---|
//! | a writer lists marks, then the index | `load_index_for_writing` in `begin_backup` (commit.rs), step 1 |
//! | and relies on any copy that it may, stores the others | `Index::require`, `Index::claim`, step 2 |
//! | it stores a pack; it names it in a segment | `PackWriter::flush`, step 3 |
//! | it lists marks, then the index | `Backup::endangered_packs`, step 4; what is endangered: `Backup::rescue` |
//! | it takes its first look for the check | `Backup::begun` in `commit_counting` |
//! | it writes its snapshot, at any time after it looked at the clock | `write_object` in `commit_counting`, step 5 |
//! | it lists once more, and reports or deletes its snapshot | the end of `commit_counting`, step 6 |
//! | a pruner lists marks, index, snapshots | `Run::mark_unneeded` and `Run::plan` (prune.rs), step 1 |
//! | it stores a pack, names it, marks packs | `Run::repack`, `Repository::write_mark`, steps 2 and 3 |
//! | it finds marks whose time has come | `Run::carry_out_marks` |
//! | it lists snapshots, marks, index, and stores what only marked packs have | `Run::look_until_nothing_is_new`, `Backup::retain`, step 4 |
//! | it buries, deletes, unmarks | `Run::bury`, `Run::delete_packs` and what follows, steps 5 to 7 |
//! | the compactor lists segments, writes one for them, deletes them a grace period later | the merging of index segments |
//!
//! What is left out makes the model's world harsher, or is no concern of these promises: the second look of step 4 of
//! prune (the model does without), uploads in pieces, objects that are still listed after they were deleted (whoever
//! asks for one gets an error, or what its successor says as well), which frames are copied. Clocks are reduced to one
//! inequality: in ticks, a mark stands longer than the commit window and twice the lag of listings, and
//! one tick less is too short, which a test shows. A tick is as long as anybody likes; in the *coarse* models the window
//! and the lag are parts of one tick.
//!
//! Room is bounded: so many packs and segments may ever be made, and who wants one more stands still. What would need
//! more actors, blobs or objects than these is not covered; the simulation is for that.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says why it fails by failing")]

mod protocol;
mod search;

use std::time::Instant;

use protocol::{Broken, Promised, Protocol, Rules};
use search::{Outcome, search};

/// More states than this are more than a machine that runs tests has memory for.
const STATES_MAX: usize = 20_000_000;

/// One writer and two pruners, and a pack that a forgotten snapshot needed.
fn small() -> Rules {
    Rules {
        needs: [1, 1],
        backups: [1, 0],
        prunes: 2,
        merges: 0,
        forgets: 0,
        packs: vec![1],
        snapshots: vec![(1, true)],
        marked: 0,
        room: (4, 5),
        window: 1,
        lag: Some(1),
        grace: 4,
        promised: Promised::InTime,
        broken: Broken::Nothing,
    }
}

/// Window and lag within a tick.
fn coarse() -> Rules {
    Rules { window: 0, lag: Some(0), grace: 1, ..small() }
}

fn run(name: &str, rules: Rules) -> Outcome {
    let begin = Instant::now();
    let outcome = search(&Protocol::new(rules), STATES_MAX);
    println!(
        "{name}: {} states, {} steps, at most {} deep, {:.1} s",
        outcome.states,
        outcome.steps,
        outcome.depth,
        begin.elapsed().as_secs_f64()
    );
    for line in outcome.loss.iter().flatten() {
        println!("    {line}");
    }
    outcome
}

/// Asserts that nothing is ever lost, and that the search was no empty one.
#[track_caller]
fn assert_holds(name: &str, rules: Rules, states_least: usize) {
    let outcome = run(name, rules);
    assert!(outcome.loss.is_none(), "{name}: {:#?}", outcome.loss);
    assert!(outcome.states >= states_least, "{name}: only {} states", outcome.states);
}

/// Asserts that data can be lost, in this many steps at least.
#[track_caller]
fn assert_loses(name: &str, rules: Rules, steps: usize) {
    let outcome = run(name, rules.clone());
    let loss = outcome.loss.expect("a loss was expected");
    assert_eq!(loss.len() - 1, steps, "{name}: {loss:#?}");
    // Nothing else is to blame.
    let right = Rules { broken: Broken::Nothing, ..rules };
    assert_holds(&format!("{name}, done right"), right, 1);
}

#[test]
fn two_writers_and_two_pruners_lose_nothing() {
    let rules = Rules { backups: [1, 1], ..coarse() };
    assert_holds("two writers, two pruners", rules, 1_000_000);
}

#[test]
fn two_writers_and_two_pruners_lose_nothing_in_short_ticks() {
    let rules = Rules { backups: [1, 1], room: (3, 4), ..small() };
    assert_holds("two writers, two pruners, short ticks", rules, 1_000_000);
}

#[test]
fn two_writers_two_pruners_and_a_compactor_lose_nothing() {
    let rules = Rules { backups: [1, 1], merges: 1, room: (3, 4), ..coarse() };
    assert_holds("two writers, two pruners, a compactor", rules, 1_000_000);
}

#[test]
fn three_prunes_beside_a_writer_lose_nothing() {
    assert_holds("three prunes", Rules { prunes: 3, ..coarse() }, 500_000);
}

#[test]
fn packs_that_hold_more_than_one_blob_lose_nothing() {
    let rules = Rules {
        needs: [0b11, 0b10],
        backups: [1, 1],
        packs: vec![0b11],
        snapshots: vec![(0b11, true), (0b01, false)],
        room: (3, 4),
        ..coarse()
    };
    assert_holds("two blobs", rules, 100_000);
}

#[test]
fn two_copies_of_a_blob_that_two_pruners_find_lose_nothing() {
    let rules = Rules { packs: vec![1, 1], snapshots: vec![(1, false)], prunes: 3, ..coarse() };
    assert_holds("two copies", rules, 50_000);
}

#[test]
fn a_compactor_in_short_ticks_loses_nothing() {
    let rules = Rules { packs: vec![1, 1], merges: 1, room: (4, 6), ..small() };
    assert_holds("a compactor, short ticks", rules, 1_000_000);
}

#[test]
fn snapshots_that_are_forgotten_meanwhile_harm_no_other() {
    let rules = Rules { backups: [2, 0], forgets: 1, snapshots: vec![(1, false)], ..coarse() };
    assert_holds("two backups, one forgotten", rules, 100_000);
}

/// Where there are locks and listings show all: no grace is needed.
fn locked() -> Rules {
    Rules { backups: [1, 1], forgets: 1, window: 0, lag: None, grace: 0, ..small() }
}

#[test]
fn with_locks_marks_are_carried_out_at_once_and_nothing_is_lost() {
    assert_holds("locks, no grace", locked(), 100_000);
    let at_once = Rules { broken: Broken::MarksGoAtOnce, ..locked() };
    assert_holds("locks, marks go with their packs", at_once, 100_000);
}

#[test]
fn a_short_run_takes_its_first_look_for_the_check_and_loses_nothing() {
    let rules = Rules { window: 2, grace: 5, ..small() };
    let short = Rules { broken: Broken::ShortRun, ..rules.clone() };
    assert_holds("a short run", short, 100_000);
    // The half leaves time for the write. What keeps data safe is that the window begins with the look.
    let longer = Rules { broken: Broken::ShortRunOfAnyAge, ..rules };
    assert_holds("a run as long as the window", longer, 100_000);
}

#[test]
fn a_first_look_of_any_age_loses_data() {
    let broken = Broken::ShortRunWithoutLimit;
    assert_loses("a first look of any age", Rules { window: 2, grace: 5, broken, ..small() }, 18);
}

#[test]
fn a_grace_period_that_is_one_tick_too_short_loses_data() {
    assert!(run("too short a grace period", Rules { grace: 3, ..small() }).loss.is_some());
    // Of those that were reported the second check still saves all; without it they go too.
    let reported = Rules { promised: Promised::Reported, ..small() };
    assert_holds("grace 3, reported ones", Rules { grace: 3, ..reported.clone() }, 100_000);
    assert!(run("far too short", Rules { grace: 2, ..reported }).loss.is_some());
}

#[test]
fn no_check_at_commit_loses_data() {
    assert_loses("no check at commit", Rules { broken: Broken::NoCheck, ..small() }, 16);
}

#[test]
fn a_check_of_reused_packs_only_loses_data() {
    // The writer stores a pack, and what nothing needs yet is marked before its snapshot is there.
    let broken = Broken::ReusedPacksOnly;
    let rules = Rules { packs: Vec::new(), snapshots: Vec::new(), broken, ..small() };
    assert_loses("the check covers reused packs only", rules, 20);
}

#[test]
fn a_check_that_lists_the_index_before_the_marks_loses_data() {
    let rules = Rules { lag: Some(0), grace: 2, broken: Broken::IndexFirst, ..small() };
    assert_loses("the check lists the index before the marks", rules, 19);
}

#[test]
fn a_check_of_marks_only_loses_data() {
    assert_loses(
        "the check looks at marks only",
        Rules { broken: Broken::MarksOnly, ..small() },
        21,
    );
}

#[test]
fn marks_that_can_be_withdrawn_lose_data() {
    // A snapshot needs what was marked before its writer could see it.
    let broken = Broken::MarksWithdrawn;
    let rules = Rules { snapshots: vec![(1, false)], marked: 1, forgets: 1, broken, ..coarse() };
    assert_loses("marks can be withdrawn", rules, 16);
}

#[test]
fn no_tombstones_beside_a_compactor_lose_data() {
    let broken = Broken::NoTombstones;
    let rules = Rules { packs: vec![1, 1], merges: 1, broken, ..coarse() };
    assert_loses("no tombstones beside a compactor", rules, 19);
}

#[test]
fn a_writer_suspended_in_step_5_that_does_not_check_again_loses_data() {
    assert_loses("no second check", Rules { broken: Broken::NoSecondCheck, ..small() }, 18);
}

#[test]
fn marks_that_go_before_listings_must_show_the_tombstones_lose_data() {
    assert_loses("marks go at once", Rules { broken: Broken::MarksGoAtOnce, ..small() }, 20);
}
