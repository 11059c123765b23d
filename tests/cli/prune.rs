//! `putback prune`.

use std::path::Path;

use crate::harness::{TestEnvironment, assert_same_tree, schema};

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

fn disk_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let bytes = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => disk_bytes(&entry.path()),
        false => entry.metadata().unwrap().len(),
    });
    bytes.sum()
}

/// Two snapshots, the first of which is forgotten; it alone has 2 MB.
fn forgotten() -> TestEnvironment {
    let environment = TestEnvironment::with_repository();
    let gone = environment.write("gone.bin", noise(1, 2_000_000));
    environment.write("folder/kept.bin", noise(2, 500_000));
    environment.backup();
    std::fs::remove_file(gone).unwrap();
    environment.write("new.txt", "new");
    environment.backup();
    environment.run(["forget", "latest~1"]).success();
    environment
}

#[track_caller]
fn assert_latest_is_whole(environment: &TestEnvironment, target: &str) {
    let source = environment.source();
    let from = format!("latest:{}", source.display());
    environment.run(["restore", &from, "--target", target]).success();
    assert_same_tree(&source, &environment.path("work").join(target));
    let check = environment.run(["check", "--read-data"]).success().shows("no damage found");
    assert_eq!(check.stderr(), "");
}

#[test]
fn instant_gives_the_room_back_in_one_run() {
    let environment = forgotten();
    let repository = environment.path("repository");
    let before = disk_bytes(&repository);
    environment
        .run(["prune", "--instant", "--dry-run"])
        .success()
        .shows("to mark:")
        .shows("dry run: nothing was changed");
    assert_eq!(disk_bytes(&repository), before);
    environment
        .run(["prune", "--instant"])
        .success()
        .shows("deleted: ")
        .shows("removed:  1 forgotten snapshot for good");
    let after = disk_bytes(&repository);
    assert!(after + 1_900_000 < before, "{before} to {after}");
    assert_latest_is_whole(&environment, "after");
    environment.run(["prune", "--instant"]).success().shows("nothing more can be given back");
}

#[test]
fn a_second_run_deletes_what_the_first_one_marked() {
    let environment = forgotten();
    let repository = environment.path("repository");
    let before = disk_bytes(&repository);
    environment.run(["prune"]).success().shows("marked: ").shows("go with the first prune after");
    assert!(disk_bytes(&repository) >= before);
    environment.run(["prune"]).success().shows("waiting: ").hides("marked: ");
    let planned = environment.run(["prune", "-n", "--grace", "0s"]).success();
    planned.shows("due: ").shows("that an earlier prune marked");
    environment.run(["prune", "--grace", "0s"]).success().shows("deleted: ");
    assert!(disk_bytes(&repository) + 1_900_000 < before);
    assert_latest_is_whole(&environment, "after");
}

#[test]
fn a_backup_between_the_two_runs_keeps_what_it_needs() {
    let environment = forgotten();
    environment.run(["prune"]).success().shows("marked: ");
    // What was marked is wanted again.
    environment.write("gone.bin", noise(1, 2_000_000));
    environment.backup();
    environment.run(["prune", "--grace", "0s"]).success().shows("deleted: ");
    assert_latest_is_whole(&environment, "after");
}

#[test]
fn programs_get_a_summary() {
    let environment = forgotten();
    let run = environment.run(["prune", "--json"]).success();
    schema::check_messages("prune", &run.messages());
    let summary = run.message("summary");
    assert!(summary["bytes_marked"].as_u64().unwrap() > 1_900_000, "{summary}");
    assert!(summary["next_deletion"].is_string() && summary["packs_deleted"] == 0, "{summary}");
    let run = environment.run(["prune", "--json", "--grace", "0s", "--progress-fps", "10"]);
    let summary = run.success().message("summary");
    assert_eq!(summary["snapshots_deleted"], 1, "{summary}");
}

#[test]
fn wrong_usage_is_told_and_quiet_is_quiet() {
    let environment = forgotten();
    environment.run(["prune", "--max-unused", "half"]).code(2).complains("5%");
    environment.run(["prune", "--grace", "soon"]).code(2).complains("not a duration");
    environment
        .run(["prune", "--instant", "--grace", "1h"])
        .code(2)
        .complains("--grace and --instant exclude each other");
    environment.run(["-q", "prune", "--instant", "--purge", "--repack-small"]).success().silent();
    let limits = ["prune", "--max-unused", "unlimited", "--max-repack-size", "1G"];
    environment.run(limits).success().shows("nothing more can be given back");
}

#[test]
fn a_damaged_snapshot_stops_it_before_anything_is_lost() {
    let environment = forgotten();
    let folder = environment.path("repository/snapshots");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let before = disk_bytes(&environment.path("repository/packs"));
    environment.run(["prune", "--instant"]).code(1).complains("prune stopped");
    assert_eq!(disk_bytes(&environment.path("repository/packs")), before);
}

#[test]
#[cfg(target_os = "linux")]
fn an_interrupt_stops_it_where_the_next_one_can_go_on() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let environment = forgotten();
    environment.run(["prune"]).success().shows("marked: ");
    // While somebody writes, the second half waits.
    let lock = environment.path("repository/.lock");
    let held = std::fs::File::options().read(true).write(true).open(&lock).unwrap();
    held.lock_shared().unwrap();
    let mut command = environment.command(["prune", "--grace", "0s"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let descriptors = format!("/proc/{}/fd", child.id());
    let waits = || {
        std::fs::read_dir(&descriptors).unwrap().any(|entry| {
            entry.is_ok_and(|entry| {
                std::fs::read_link(entry.path()).is_ok_and(|target| target == lock)
            })
        })
    };
    while !waits() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let kill = format!("kill -INT {}", child.id());
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(stderr.next().unwrap().unwrap().starts_with("stopping at a safe point"));
    drop(held);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(stderr.next().unwrap().unwrap().starts_with("interrupted; every snapshot is whole"));
    environment.run(["prune", "--grace", "0s"]).success().shows("deleted: ");
    assert_latest_is_whole(&environment, "after");
}

#[test]
fn small_index_segments_are_merged_and_go_later() {
    let environment = forgotten();
    environment.run(["prune", "--instant"]).success();
    for number in 0..8 {
        environment.write("new.bin", noise(100 + number, 2000));
        environment.backup();
    }
    let segments = || std::fs::read_dir(environment.path("repository/index")).unwrap().count();
    let before = segments();
    assert!((8..20).contains(&before), "{before}");
    let planned = environment.run(["prune", "-n"]).success();
    planned.shows(&format!("index:    {before} small segments would be merged"));
    assert_eq!(segments(), before);
    let run = environment.run(["prune", "--json"]).success();
    assert_eq!(run.message("summary")["segments_merged"], before);
    assert_eq!(segments(), before + 1, "the merged ones stay for a day");
    let run = environment.run(["prune", "--json", "--grace", "0s"]).success();
    assert_eq!(run.message("summary")["segments_deleted"], before);
    assert_eq!(segments(), 1);
    environment.run(["check", "--read-data"]).success();
    assert_latest_is_whole(&environment, "after");
}

#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_is_full_to_the_last_byte_can_be_emptied() {
    let mut environment = TestEnvironment::new();
    let disk = environment.path("work/disk");
    std::fs::create_dir(&disk).unwrap();
    environment.set("PUTBACK_REPO", "disk/repository");
    let noise = |seed: u32, blocks: u32| -> Vec<u8> {
        (0..blocks)
            .flat_map(|i| *blake3::hash(&[seed, i].map(u32::to_le_bytes).concat()).as_bytes())
            .collect()
    };
    environment.write("first", noise(1, 300_000));
    std::fs::write(environment.path("work/second"), noise(2, 30_000)).unwrap();
    let script = r#"
        "$PUTBACK" init --kdf-cost low --quiet
        "$PUTBACK" backup ../source --quiet
        rm ../source/first
        mv second ../source/second
        "$PUTBACK" backup ../source --quiet
        cat /dev/zero > disk/fill 2> /dev/null || true
        [ "$(df --output=avail disk | tail -n 1)" -eq 0 ]
        head -c 3000000 /dev/urandom > ../source/third
        code=0
        "$PUTBACK" backup ../source --quiet || code=$?
        [ "$code" -eq 14 ]
        rm ../source/third
        "$PUTBACK" forget latest~1 --quiet
        "$PUTBACK" prune --instant --quiet
        [ "$(df --output=avail -B 1 disk | tail -n 1)" -gt 9000000 ]
        "$PUTBACK" check --read-data --quiet
        "$PUTBACK" restore latest --target out --quiet
        rm disk/fill
        "$PUTBACK" backup ../source --quiet
        [ "$(stat -c %s disk/repository/.reserve)" -eq 262144 ]
    "#;
    let output = environment.on_a_disk_of("40m", &disk, script);
    assert!(output.status.success(), "{output:?}");
}
