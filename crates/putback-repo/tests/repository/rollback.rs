//! A storage that drops snapshots or shows an old state is found out.

use std::time::Duration;

use putback_format::mark::{ForgottenSnapshot, MarkKind};
use putback_repo::prune::{MaxUnused, PruneOptions};
use putback_repo::{Error, Machine, Repository, StoredSnapshot, Times};
use putback_store::memory::MemoryStore;
use putback_store::{Capabilities, Store};

use crate::support::*;

fn back_up_number(repository: &Repository, number: u64) -> StoredSnapshot {
    let mut files = Files::new();
    files.insert("file".to_owned(), noise(number, 200));
    back_up(repository, &files).unwrap()
}

fn hide(store: &MemoryStore, stored: &StoredSnapshot) {
    delete(store, &format!("snapshots/{}", stored.id).parse().unwrap());
}

fn forget(repository: &Repository, store: &dyn Store, stored: &StoredSnapshot) {
    let record = ForgottenSnapshot {
        snapshot: stored.id,
        writer: stored.snapshot.writer,
        sequence: stored.snapshot.sequence,
    };
    write_mark(repository, store, MarkKind::Forget(vec![record]));
}

/// The warnings of a listing.
fn warnings(repository: &Repository) -> Vec<String> {
    repository.snapshots(&Default::default()).unwrap();
    repository.take_warnings()
}

#[track_caller]
fn assert_warns(repository: &Repository, words: &str) {
    let warnings = warnings(repository);
    assert!(matches!(warnings.as_slice(), [one] if one.contains(words)), "{words}: {warnings:?}");
    let report = check(repository);
    assert!(report.rollback.iter().any(|evidence| evidence.contains(words)), "{report:?}");
}

#[test]
fn a_hidden_snapshot_is_missed_until_a_forget_record_explains_it() {
    let (made, store, key) = repository();
    let folder = tempfile::tempdir().unwrap();
    let writer = open_with(store.clone(), &key, &directories(folder.path()));
    let stored: Vec<_> = (1..=3).map(|number| back_up_number(&writer, number)).collect();
    assert_eq!(warnings(&writer), [""; 0]);
    for (number, hidden) in stored.iter().enumerate() {
        let store = store.fork();
        hide(&store, hidden);
        let reader = || open_with(store.clone(), &key, &directories(folder.path()));
        assert_warns(&reader(), &format!("snapshot number {} of writer", number + 1));
        forget(&made, &store, hidden);
        assert_eq!(warnings(&reader()), [""; 0]);
        assert_clean(&reader());
    }
}

#[test]
fn another_machine_misses_what_other_snapshots_tell_of() {
    let (_, store, key) = repository();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = [0, 1].map(|machine| {
        let directories = directories(folders[machine].path());
        open_with(store.clone(), &key, &directories)
    });
    let hidden = back_up_number(&first, 1);
    // The second machine lists before it backs up, as a backup does, and so its snapshot names the first.
    assert_eq!(warnings(&second), [""; 0]);
    back_up_number(&second, 2);
    hide(&store, &hidden);
    assert_warns(&open(store, &key), "snapshot number 1 of writer");
}

#[test]
fn an_old_copy_of_the_storage_is_noticed_by_who_saw_the_new_one() {
    let (made, store, key) = repository();
    let folder = tempfile::tempdir().unwrap();
    let open = |store: &MemoryStore| open_with(store.clone(), &key, &directories(folder.path()));
    back_up_number(&open(&store), 1);
    let old = store.fork();
    let newer: Vec<_> = (2..=3).map(|number| back_up_number(&open(&store), number)).collect();
    assert_warns(&open(&old), "snapshots number 2 to 3 of writer");
    newer.iter().for_each(|stored| forget(&made, &old, stored));
    assert_eq!(warnings(&open(&old)), [""; 0]);
    // The next snapshot takes a number that nobody has seen.
    let next = back_up_number(&open(&old), 4);
    assert_eq!(next.snapshot.sequence, 4);
    assert_eq!(warnings(&open(&old)), [""; 0]);
}

#[test]
fn an_older_configuration_is_noticed_by_who_saw_the_newer_one() {
    let (made, store, key) = repository();
    let folder = tempfile::tempdir().unwrap();
    let old = store.fork();
    write_config(&made, &store, 2);
    let open = |store: &MemoryStore| open_with(store.clone(), &key, &directories(folder.path()));
    assert_eq!(open(&store).take_warnings(), [""; 0]);
    let warnings = open(&old).take_warnings();
    assert!(matches!(warnings.as_slice(), [one] if one.contains("generation 1")), "{warnings:?}");
}

#[test]
fn what_a_person_knows_of_is_not_missed_again_and_anything_else_is() {
    let (made, store, key) = repository();
    let folder = tempfile::tempdir().unwrap();
    let open = |store: &MemoryStore| open_with(store.clone(), &key, &directories(folder.path()));
    back_up_number(&open(&store), 1);
    let old = store.fork();
    write_config(&made, &store, 2);
    (2..=3).for_each(|number| drop(back_up_number(&open(&store), number)));
    // The storage was put back to what it was.
    let repository = open(&old);
    let accepted = repository.accept_rollback().unwrap();
    assert!(
        matches!(accepted.as_slice(), [generation, snapshots]
            if generation.contains("generation 1") && snapshots.contains("number 2 to 3")),
        "{accepted:?}"
    );
    let repository = open(&old);
    assert_eq!(repository.take_warnings(), [""; 0]);
    assert_eq!(warnings(&repository), [""; 0]);
    assert_clean(&repository);
    assert_eq!(repository.accept_rollback().unwrap(), [""; 0]);
    // Numbers go on where they were, and what is lost from now on is noticed.
    let next = back_up_number(&open(&old), 4);
    assert_eq!(next.snapshot.sequence, 4);
    assert_eq!(warnings(&open(&old)), [""; 0]);
    hide(&old, &next);
    assert_warns(&open(&old), "snapshot number 4 of writer");
}

#[test]
fn prune_keeps_what_snapshots_need_that_are_gone_until_a_person_knows_of_it() {
    let shared = Capabilities { is_remote: true, connections: 2, is_consistent: false };
    for is_shared in [false, true] {
        let (_, made, key) = repository();
        let folder = tempfile::tempdir().unwrap();
        let store = if is_shared { made.fork().with_capabilities(shared) } else { made };
        let times = Times { second_look: Duration::from_millis(1), ..Times::default() };
        let machine = Machine { times, ..directories(folder.path()) };
        let opened = || open_with(store.clone(), &key, &machine);
        let writer = opened();
        let first = back_up_number(&writer, 1);
        let last = back_up_number(&writer, 2);
        let path = format!("snapshots/{}", last.id).parse().unwrap();
        let object = store.read_all(&path, 1 << 20).unwrap();
        hide(&store, &last);
        let before = store.paths();
        let options = PruneOptions { max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() };
        for dry_run in [true, false] {
            let options = PruneOptions { dry_run, ..options.clone() };
            let error = opened().prune(&options, &()).unwrap_err();
            assert!(matches!(&error, Error::SnapshotsGone { .. }), "{}", describe(&error));
            assert!(error.to_string().contains("snapshot number 2 of writer"), "{error}");
        }
        assert_eq!(store.paths(), before);
        // Out of a trash, and nothing has happened.
        store.write(&path, &object).unwrap();
        assert_eq!(opened().prune(&options, &()).unwrap().packs_unneeded, 0);
        assert_holds(&store, &key, &last, &Files::from([("file".to_owned(), noise(2, 200))]));
        // For good, and somebody knows of it.
        hide(&store, &last);
        opened().accept_rollback().unwrap();
        assert!(opened().prune(&options, &()).unwrap().packs_unneeded > 0);
        assert_holds(&store, &key, &first, &Files::from([("file".to_owned(), noise(1, 200))]));
    }
}

#[test]
fn what_was_marked_stays_when_snapshots_that_need_it_are_gone() {
    let (_, store, key) = repository();
    let folder = tempfile::tempdir().unwrap();
    let writer = open_with(store.clone(), &key, &directories(folder.path()));
    let first = back_up_number(&writer, 1);
    back_up_number(&writer, 2);
    writer.forget(std::slice::from_ref(&first)).unwrap();
    let options = PruneOptions {
        max_unused: MaxUnused::Bytes(0),
        grace: Duration::ZERO,
        ..PruneOptions::default()
    };
    assert!(writer.prune(&options, &()).unwrap().packs_unneeded > 0);
    // A machine that did not see the mark wrote a snapshot that needs the packs, and the storage has lost that.
    let third = back_up_number(&writer, 1);
    hide(&store, &third);
    let before = store.paths();
    let again = open_with(store.clone(), &key, &directories(folder.path()));
    let error = again.prune(&options, &()).unwrap_err();
    assert!(matches!(error, Error::SnapshotsGone { .. }), "{}", describe(&error));
    assert_eq!(store.paths(), before);
}

#[test]
fn what_was_seen_and_cannot_be_read_is_kept_and_told() {
    let (_, store, key) = repository();
    let folder = tempfile::tempdir().unwrap();
    let opened = || open_with(store.clone(), &key, &directories(folder.path()));
    let writer = opened();
    let stored = back_up_number(&writer, 1);
    let state = directories(folder.path()).state.unwrap().join(writer.id().to_string());
    let [seen, aside] = ["seen", "aside"].map(|name| state.join(name));
    // Nobody can read a folder as a file, whoever runs this.
    fs_err::rename(&seen, &aside).unwrap();
    fs_err::create_dir(&seen).unwrap();
    let reader = opened();
    let snapshots = reader.snapshots(&Default::default()).unwrap();
    assert_eq!(snapshots, [stored]);
    let warnings = reader.take_warnings();
    assert!(
        matches!(warnings.as_slice(), [one] if one.contains("seen") && one.contains("rolled back")),
        "{warnings:?}"
    );
    let before = store.paths();
    let is_local =
        |error: Error| matches!(error, Error::Local { path, .. } if path.ends_with("seen"));
    assert!(is_local(opened().prune(&PruneOptions::default(), &()).unwrap_err()));
    assert!(is_local(opened().accept_rollback().unwrap_err()));
    assert!(is_local(back_up(&opened(), &Files::new()).unwrap_err()));
    assert_eq!(store.paths(), before);
    // Once it can be read, it says what it said.
    fs_err::remove_dir(&seen).unwrap();
    fs_err::rename(&aside, &seen).unwrap();
    hide(&store, &snapshots[0]);
    assert_warns(&opened(), "snapshot number 1 of writer");
}
