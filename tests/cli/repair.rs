//! `putback repair`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use putback_format::envelope::{self, ObjectKind};
use putback_format::id::SnapshotId;
use putback_repo::{Machine, Password, Repository};
use putback_store::local::LocalStore;

use crate::harness::{PASSWORD, TestEnvironment, assert_same_tree, schema};

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

fn objects(environment: &TestEnvironment, folder: &str) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(environment.path("repository").join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Changes an object behind everybody's back.
fn harm(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Four backups, each with five new files of 600 KB in a folder of its own.
struct Fixture {
    environment: TestEnvironment,
    /// The pack of data and the segment of each.
    packs: Vec<PathBuf>,
    segments: Vec<PathBuf>,
}

fn fixture() -> Fixture {
    let environment = TestEnvironment::with_repository();
    let (mut packs, mut segments) = (Vec::new(), Vec::new());
    for backup in 0..4_u8 {
        for file in 0..5_u8 {
            let content = noise(backup * 10 + file, 600_000);
            environment.write(format!("folder {backup}/file {file}"), content);
        }
        let before = ["packs", "index"].map(|folder| objects(&environment, folder));
        environment.backup();
        let is_data = |path: &PathBuf| path.metadata().unwrap().len() > 1_000_000;
        let new = |folder, before: &BTreeSet<PathBuf>| {
            objects(&environment, folder).difference(before).cloned().collect::<Vec<_>>()
        };
        packs.extend(new("packs", &before[0]).into_iter().filter(is_data));
        segments.extend(new("index", &before[1]));
    }
    assert_eq!((packs.len(), segments.len()), (4, 4));
    Fixture { environment, packs, segments }
}

/// As the worst of days leaves it: a pack is gone, one is cut short, one has a flipped bit, and a segment is gone.
fn harmed() -> Fixture {
    let fixture = fixture();
    std::fs::remove_file(&fixture.packs[0]).unwrap();
    harm(&fixture.packs[1], |bytes| bytes.truncate(bytes.len() / 2));
    harm(&fixture.packs[2], |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
    });
    std::fs::remove_file(&fixture.segments[3]).unwrap();
    fixture
}

#[track_caller]
fn assert_restores(environment: &TestEnvironment, snapshot: &str, target: &str) {
    let source = environment.source();
    let from = format!("{snapshot}:{}", source.display());
    environment.run(["restore", &from, "--target", target]).success();
    assert_same_tree(&source, &environment.path("work").join(target));
}

#[test]
fn what_is_left_is_saved_and_the_next_backup_heals_the_rest() {
    let Fixture { environment, packs, .. } = harmed();
    let check = environment.run(["check", "--read-data"]).code(1);
    for pack in &packs[..3] {
        assert!(check.stderr().contains(name(pack)), "{}", check.stderr());
    }
    assert!(check.stderr().contains("is not in the repository"), "{}", check.stderr());

    environment
        .run(["repair", "index", "--yes"])
        .code(3)
        .complains(name(&packs[3]))
        .shows("1 index segment written");
    environment.run(["repair", "index"]).code(3).complains("repair packs");
    let planned = environment.run(["repair", "packs", "--dry-run"]).code(3);
    planned
        .complains("folder 0/file 0")
        .complains("hurt: snapshot ")
        .complains(" files\n")
        .shows("dry run: nothing was changed");
    environment
        .run(["repair", "packs", "--yes"])
        .code(3)
        .complains("then mark it")
        .shows("good blobs stored anew")
        .shows("3 packs marked")
        .shows("blobs are lost");
    environment.run(["repair", "index"]).success().shows("nothing to repair");
    environment
        .run(["repair", "snapshots", "--dry-run", "--verbose"])
        .success()
        .complains("folder 2/file ");
    environment
        .run(["repair", "snapshots", "--yes"])
        .success()
        .shows("without what is lost is")
        .shows("4 broken snapshots stay among the others")
        .shows("`putback repair snapshots --forget` forgets");

    environment.backup().shows("unchanged");
    environment.run(["check", "--read-data"]).success().shows("no damage found");
    assert_restores(&environment, "latest", "after");
    environment.run(["repair", "snapshots", "--yes"]).success().shows("nothing to repair");
    // What was marked goes.
    environment.run(["prune", "--instant"]).success().shows("deleted: ");
    let check = environment.run(["check", "--read-data"]).success().shows("no damage found");
    assert_eq!(check.stderr(), "");
    assert_restores(&environment, "latest", "pruned");
}

#[test]
fn what_is_gone_from_its_source_too_is_left_out_of_its_snapshots() {
    let Fixture { environment, .. } = harmed();
    environment.run(["repair", "index", "--yes"]).code(3);
    environment.run(["repair", "packs", "--yes"]).code(3);
    for backup in 0..3 {
        let folder = environment.source().join(format!("folder {backup}"));
        std::fs::rename(&folder, environment.path("work").join(format!("kept {backup}"))).unwrap();
    }
    environment.backup();
    environment.run(["check", "--read-data"]).code(1).complains("folder 0/file 0");
    // Prune cannot take away what a snapshot needs and nobody has.
    environment.run(["prune", "--instant"]).code(1).complains("putback repair snapshots");
    let run = environment.run(["repair", "snapshots", "--forget", "--yes", "--json"]).success();
    schema::check_messages("repair snapshots", &run.messages());
    let summary = run.message("summary");
    assert_eq!(
        (&summary["snapshots_written"], &summary["snapshots_forgotten"]),
        (&4.into(), &4.into())
    );
    for finding in run.error_messages() {
        schema::check("repair snapshots", "finding", &finding);
    }
    environment.run(["check", "--read-data"]).success();
    environment.run(["prune", "--instant"]).success();
    let check = environment.run(["check", "--read-data"]).success().shows("no damage found");
    assert_eq!(check.stderr(), "");

    // Of the fourth snapshot everything comes back that was not lost.
    let listed = environment.run(["snapshots", "--json", "--tag", "repaired"]).document();
    let fourth = listed.as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    let from = format!("{fourth}:{}", environment.source().display());
    environment.run(["restore", &from, "--target", "old"]).success();
    let old = environment.path("work/old");
    assert!(std::fs::read_dir(old.join("folder 0")).unwrap().next().is_none(), "all was lost");
    let mut restored = 0;
    for backup in 1..3 {
        for entry in std::fs::read_dir(old.join(format!("folder {backup}"))).unwrap() {
            let path = entry.unwrap().path();
            let kept = environment.path("work").join(format!("kept {backup}")).join(name(&path));
            assert!(std::fs::read(&path).unwrap() == std::fs::read(kept).unwrap(), "{path:?}");
            restored += 1;
        }
    }
    assert!((2..=8).contains(&restored), "{restored} files");
    assert_same_tree(&environment.source().join("folder 3"), &old.join("folder 3"));
}

#[test]
fn a_snapshot_that_cannot_be_read_is_forgotten_for_good() {
    let environment = TestEnvironment::with_repository();
    let mut snapshots = Vec::new();
    for content in ["one", "two", "three"] {
        environment.write("file", content);
        let before = objects(&environment, "snapshots");
        environment.backup();
        snapshots.extend(objects(&environment, "snapshots").difference(&before).cloned());
    }
    for (harmed, kept) in [(&snapshots[2], 2), (&snapshots[0], 1)] {
        harm(harmed, |bytes| bytes.truncate(100));
        environment.run(["check"]).code(1).complains("is gone, and no forget record explains it");
        let number = if kept == 2 { "taken for snapshot number 3 of" } else { "number 1 of" };
        environment
            .run(["repair", "snapshots", "--forget", "--yes"])
            .success()
            .complains("so that prune can go on")
            .complains(number);
        let check = environment.run(["check"]).success();
        assert!(!check.stderr().contains("rolled back"), "{}", check.stderr());
        let listed = environment.run(["snapshots"]).success();
        assert!(listed.shows(&format!("{kept} snapshot")).stderr().is_empty());
    }
    // A gap that an unreadable snapshot does not account for stays one.
    environment.backup();
    environment.backup();
    let new = objects(&environment, "snapshots");
    let new: Vec<_> = new.iter().filter(|path| !snapshots.contains(path)).collect();
    harm(new[0], |bytes| bytes.truncate(100));
    std::fs::remove_file(new[1]).unwrap();
    environment.run(["repair", "snapshots", "--forget", "--yes"]).success();
    environment.run(["check"]).code(1).complains("are gone, and no forget record explains it");
}

#[test]
fn a_snapshot_of_a_newer_program_is_left_alone_and_told_as_such() {
    let environment = TestEnvironment::with_snapshot();
    let folder = environment.path("repository");
    let repository = Repository::open(
        Arc::new(LocalStore::new(folder.clone())),
        &Password::new(PASSWORD.as_bytes().to_vec()),
        &Machine::default(),
    )
    .unwrap();
    let id = name(objects(&environment, "snapshots").first().unwrap()).parse().unwrap();
    let mut payload = repository.read_snapshot(&id).unwrap().encode();
    payload[2] += 1;
    let (_, keys) = putback_format::slot::import(&repository.export_key()).unwrap();
    let master = keys.master("a snapshot", 1).unwrap();
    let kind = ObjectKind::Snapshot;
    let object = envelope::seal(kind, repository.id(), 1, master, [7; 32], &payload).unwrap();
    let newer = folder.join(format!("snapshots/{}", SnapshotId::of_stored(&object)));
    std::fs::write(&newer, object).unwrap();
    for flags in [&["--yes"][..], &["--yes", "--forget"]] {
        let run = environment
            .run(["repair", "snapshots"].iter().chain(flags))
            .code(3)
            .complains(name(&newer))
            .complains("needs a newer version")
            .complains("update putback");
        assert!(!run.stderr().contains("damaged:"), "{}", run.stderr());
        assert!(!run.stderr().contains("forget"), "{}", run.stderr());
        assert!(!run.stdout().contains("forg"), "{}", run.stdout());
    }
    let run = environment.run(["repair", "snapshots", "--yes", "--forget", "--json"]).code(3);
    let finding = run.error_messages().into_iter().find(|it| it["message_type"] == "finding");
    let finding = finding.unwrap();
    schema::check("repair snapshots", "finding", &finding);
    assert!(finding["hint"].is_string() && finding["remedy"].is_null(), "{finding}");
    assert!(newer.exists());
    assert!(objects(&environment, "marks").is_empty());
}

#[test]
fn nothing_is_written_before_somebody_agrees() {
    let Fixture { environment, segments, .. } = fixture();
    for what in ["index", "packs", "snapshots"] {
        environment.run(["repair", what]).success().shows("nothing to repair");
    }
    harm(&segments[1], |bytes| bytes[100] ^= 1);
    let before = objects(&environment, "index");
    environment.run(["repair", "index"]).code(2).complains("--yes").complains(name(&segments[1]));
    environment.run(["repair", "packs"]).code(1).complains("putback repair index");
    environment.run(["repair", "index", "--dry-run"]).success().shows("dry run");
    assert_eq!(objects(&environment, "index"), before);
    let run = environment.run(["repair", "index", "--yes", "--json"]).success();
    schema::check_messages("repair index", &run.messages());
    assert_eq!(run.message("summary")["segments_written"], 1);
    environment.run(["repair", "index", "--yes"]).success().shows("nothing to repair");
    environment.run(["repair", "packs", "0", "--read-data-subset", "5%"]).code(2);
    environment.run(["repair", "packs", "xyz"]).code(2).complains("no pack matches");
    environment.backup();
    assert_restores(&environment, "latest", "after");
}

#[test]
fn one_pack_can_be_named() {
    let Fixture { environment, packs, .. } = fixture();
    for pack in &packs[..2] {
        harm(pack, |bytes| bytes[1000] ^= 1);
    }
    let run = environment.run(["repair", "packs", name(&packs[0]), "--yes"]).code(3);
    run.complains(name(&packs[0])).shows("1 pack marked");
    environment.run(["check", "--read-data"]).code(1).complains(name(&packs[1]));
}

#[test]
fn what_is_gone_is_told_as_missing_and_a_snapshot_that_cannot_be_read_can_be_forgotten() {
    let environment = TestEnvironment::with_snapshot();
    std::fs::remove_file(environment.path("repository/PUTBACK.txt")).unwrap();
    environment.run(["check"]).code(1).complains("damaged: PUTBACK.txt: it is missing\n");
    environment.run(["repair", "index", "--yes"]).success().complains("PUTBACK.txt: it is missing");
    let snapshots = objects(&environment, "snapshots");
    let snapshot = snapshots.first().unwrap();
    harm(snapshot, |bytes| bytes[50] ^= 1);
    let said = format!(
        "damaged: snapshots/{}: its bytes are not those that its name promises\n",
        name(snapshot)
    );
    let short = &name(snapshot)[..8];
    environment
        .run(["check"])
        .code(1)
        .complains(&said)
        .complains(&format!("hurt: snapshot {short}: it cannot be read"))
        .complains("is damaged in 1 place\n");
    environment
        .run(["repair", "snapshots", "--yes"])
        .code(3)
        .complains("`putback repair snapshots --forget` forgets it")
        .shows("1 broken snapshot stays");
    let run = environment.run(["repair", "snapshots", "--forget", "--yes"]).success();
    run.shows("1 snapshot forgotten");
}

#[test]
fn a_mark_that_cannot_be_read_is_blamed_itself_and_the_others_count() {
    let environment = TestEnvironment::with_repository();
    for number in 0..3 {
        environment.write("file", format!("{number}"));
        environment.backup();
    }
    let forget = |selector: &str| {
        let before = objects(&environment, "marks");
        environment.run(["forget", selector]).success();
        objects(&environment, "marks").difference(&before).next().unwrap().clone()
    };
    forget("latest~2");
    // Only its record still tells that there was a first one.
    environment.run(["prune", "--instant"]).success();
    assert_eq!(objects(&environment, "snapshots").len(), 2);
    let second = forget("latest~1");
    harm(&second, |bytes| bytes[50] ^= 1);
    for flags in [&["--dry-run"][..], &["--instant"]] {
        let run = environment
            .run(["prune"].iter().chain(flags))
            .code(1)
            .complains("a mark cannot be read")
            .complains(name(&second))
            .complains("putback repair index");
        assert!(!run.stderr().contains("repair snapshots"), "{}", run.stderr());
    }
    let check = environment.run(["check"]).code(1).complains(name(&second));
    assert!(!check.stderr().contains("snapshot number"), "{}", check.stderr());
    environment.run(["repair", "index", "--yes"]).success().shows("1 mark removed");
    environment.run(["prune", "--dry-run"]).success();
}
