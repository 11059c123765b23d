//! `putback key`.

use crate::harness::{PASSWORD, TestEnvironment, schema};

fn slots(environment: &TestEnvironment) -> Vec<serde_json::Value> {
    let document = environment.run(["key", "list", "--json"]).success().document();
    schema::check("key list", "document", &document);
    document.as_array().unwrap().clone()
}

#[test]
fn a_second_password_opens_the_repository_until_it_is_removed() {
    let mut environment = TestEnvironment::with_repository();
    environment.set("PUTBACK_NEW_PASSWORD", "another one");
    environment
        .run(["key", "add", "--label", "for Grace", "--kdf-cost", "low"])
        .success()
        .shows("added a password");
    let all = slots(&environment);
    assert_eq!(all.len(), 2);
    let added = all.iter().find(|slot| slot["label"] == "for Grace").unwrap();
    assert_eq!(added["current"], false);
    environment.set("PUTBACK_PASSWORD", "another one");
    environment.run(["snapshots"]).success();
    environment.set("PUTBACK_PASSWORD", PASSWORD);
    environment
        .run(["key", "remove", added["short_id"].as_str().unwrap()])
        .success()
        .shows("removed the password");
    environment.set("PUTBACK_PASSWORD", "another one");
    environment.run(["snapshots"]).code(12);
}

#[test]
fn a_changed_password_replaces_the_old_one() {
    let mut environment = TestEnvironment::with_repository();
    std::fs::write(environment.path("work/new"), "new one\n").unwrap();
    let run = environment
        .run(["key", "passwd", "--new-password-file", "new", "--kdf-cost", "low", "--json"])
        .success();
    schema::check_messages("key passwd", &run.messages());
    environment.run(["snapshots"]).code(12);
    environment.set("PUTBACK_PASSWORD", "new one");
    environment.run(["key", "list"]).success().shows("ada").shows("*");
    assert_eq!(slots(&environment).len(), 1);
}

#[test]
fn a_changed_password_costs_as_much_to_guess_as_before() {
    let mut environment = TestEnvironment::with_repository();
    let cost = |environment: &TestEnvironment| {
        let [slot] = slots(environment).try_into().unwrap();
        [&slot["memory_kib"], &slot["iterations"], &slot["lanes"]].map(|n| n.as_u64().unwrap())
    };
    let before = cost(&environment);
    assert_eq!(before[0], 19 << 10, "as the harness makes it, not the default");
    environment.set("PUTBACK_NEW_PASSWORD", "new one");
    environment.run(["key", "passwd"]).success();
    environment.set("PUTBACK_PASSWORD", "new one");
    assert_eq!(cost(&environment), before);
    environment.run(["key", "passwd", "--kdf-cost", "default"]).success();
    assert_eq!(cost(&environment)[0], 64 << 10);
}

#[test]
fn the_last_password_stays() {
    let environment = TestEnvironment::with_repository();
    let only = slots(&environment)[0]["id"].as_str().unwrap().to_owned();
    environment
        .run(["key", "remove", &only])
        .code(1)
        .complains("the last password slot cannot be removed");
    environment
        .run(["key", "remove", "ffffffffffff"])
        .code(1)
        .complains("no password slot matches");
    environment.run(["key", "remove", ""]).code(2);
}

#[test]
fn the_beginning_of_several_slots_removes_none() {
    let mut environment = TestEnvironment::with_repository();
    environment.set("PUTBACK_NEW_PASSWORD", "another one");
    // There are sixteen first digits.
    let (first, count) = loop {
        environment.run(["key", "add", "--kdf-cost", "low"]).success();
        let firsts: Vec<String> = slots(&environment)
            .iter()
            .map(|slot| slot["id"].as_str().unwrap()[..1].to_owned())
            .collect();
        let count = |first: &String| firsts.iter().filter(|other| *other == first).count();
        if let Some(first) = firsts.iter().find(|first| count(first) > 1) {
            break (first.clone(), firsts.len());
        }
    };
    environment
        .run(["key", "remove", &first])
        .code(1)
        .complains(&format!("'{first}' matches 2 password slots"))
        .complains("hint: nothing was changed; give more digits: ");
    assert_eq!(slots(&environment).len(), count);
}

#[test]
fn an_exported_key_opens_the_repository_without_a_password() {
    let mut environment = TestEnvironment::with_snapshot();
    environment.run(["key", "export", "--output", "key.txt"]).success().shows("key.txt");
    let path = environment.path("work/key.txt");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(environment.run(["key", "export"]).success().stdout(), text);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    environment.run(["key", "export", "--output", "key.txt"]).code(1).complains("key.txt");
    environment.unset("PUTBACK_PASSWORD");
    environment.run(["--key-file", "key.txt", "snapshots"]).success().shows("1 snapshot");
    // Typed in again, with other line breaks and stray blanks.
    std::fs::write(&path, format!("\n{}\n\n", text.replace('\n', " \r\n"))).unwrap();
    environment.run(["--key-file", "key.txt", "snapshots"]).success();
    environment
        .run(["--key-file", "key.txt", "key", "passwd", "--new-password-command", "echo new"])
        .code(1)
        .complains("there is no password to change")
        .complains("hint: `putback key add`");
    std::fs::write(&path, "no key").unwrap();
    environment
        .run(["--key-file", "key.txt", "snapshots"])
        .code(12)
        .complains("error: key.txt is not a whole exported key")
        .complains("\nhint: compare it with the text that `putback key export` printed");
    let wrong = text.replace("01 ", "01 Z");
    assert_ne!(wrong, text);
    std::fs::write(&path, wrong).unwrap();
    environment.run(["--key-file", "key.txt", "snapshots"]).code(12).complains("line 1");
    std::fs::write(&path, [255; 10]).unwrap();
    environment.run(["--key-file", "key.txt", "snapshots"]).code(12);
    environment.set("PUTBACK_REPO", environment.path("other"));
    environment
        .run(["--key-file", "key.txt", "init"])
        .code(2)
        .complains("a new repository needs a password");
}

/// A repository with a snapshot and two passwords; files with them, and with a third one.
fn with_two_passwords() -> TestEnvironment {
    let mut environment = TestEnvironment::with_snapshot();
    environment.set("PUTBACK_NEW_PASSWORD", "second one");
    environment.run(["key", "add", "--label", "for Grace", "--kdf-cost", "low"]).success();
    std::fs::write(environment.path("work/second"), "second one\n").unwrap();
    std::fs::write(environment.path("work/stranger"), "third one\n").unwrap();
    environment
}

#[test]
fn rotated_keys_open_with_the_passwords_that_were_kept() {
    let mut environment = with_two_passwords();
    environment.run(["key", "export", "--output", "old.txt"]).success();
    let run = environment
        .run(["key", "rotate", "--keep-password-file", "second"])
        .success()
        .shows("keeps the password of slot")
        .shows("'for Grace'")
        .shows("the keys were rotated");
    assert!(run.stderr().contains("a key that was exported before opens the repository no more"));
    environment.write("new.txt", "new");
    environment.backup();
    environment.run(["check", "--read-data"]).success().shows("no damage found");
    let all = slots(&environment);
    assert!(all.len() == 2 && all.iter().all(|slot| slot["outdated"] == false), "{all:?}");
    environment.set("PUTBACK_PASSWORD", "second one");
    environment.run(["snapshots"]).success().shows("2 snapshots");
    environment.run(["key", "export", "--output", "new.txt"]).success();
    environment.unset("PUTBACK_PASSWORD");
    environment
        .run(["--key-file", "old.txt", "snapshots"])
        .code(12)
        .complains("the key is of before the last rotation")
        .complains("hint: give a password that was kept");
    environment.run(["--key-file", "new.txt", "snapshots"]).success().shows("2 snapshots");
    // An exported key rotates too, as long as a password stays.
    environment
        .run(["--key-file", "new.txt", "key", "rotate", "--drop-others"])
        .code(2)
        .complains("no password was given that stays");
    let arguments = [
        "--key-file",
        "new.txt",
        "key",
        "rotate",
        "--drop-others",
        "--keep-password-file",
        "second",
    ];
    environment.run(arguments).success().shows("drops the password");
    environment.set("PUTBACK_PASSWORD", "second one");
    environment.run(["restore", "latest", "--target", "restored"]).success();
}

#[test]
fn without_a_terminal_every_other_password_has_to_be_spoken_of() {
    let mut environment = with_two_passwords();
    let before = slots(&environment);
    environment
        .run(["key", "rotate"])
        .code(2)
        .complains("it is not said what becomes of the passwords of slots")
        .complains("'for Grace'")
        .complains("hint: give those that stay with --keep-password-file");
    environment
        .run(["key", "rotate", "--keep-password-file", "stranger", "--drop-others"])
        .code(2)
        .complains("stranger, whose password opens no slot");
    environment
        .run(["key", "rotate", "--drop-others", "--dry-run"])
        .success()
        .shows("would drop the password of slot")
        .shows("dry run: nothing was changed");
    assert_eq!(slots(&environment), before);
    let run = environment.run(["key", "rotate", "--drop-others", "--json"]).success();
    schema::check_messages("key rotate", &run.messages());
    let summary = run.messages().pop().unwrap();
    let kept: Vec<bool> = summary["slots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slot| slot["kept"].as_bool().unwrap())
        .collect();
    assert_eq!(kept, [true, false]);
    assert_eq!(slots(&environment).len(), 1);
    environment.run(["snapshots"]).success();
    environment.set("PUTBACK_PASSWORD", "second one");
    environment.run(["snapshots"]).code(12).complains("wrong password");
}

#[test]
fn prune_stores_anew_what_is_under_the_key_of_before() {
    let environment = TestEnvironment::with_snapshot();
    environment.run(["key", "rotate"]).success();
    environment
        .run(["prune", "--rewrite-epoch", "--max-repack-size", "1", "--dry-run"])
        .success()
        .shows("old key:  2 packs (")
        .shows("left under a key of before; the next run goes on");
    let run = environment.run(["prune", "--rewrite-epoch", "--instant", "--json"]).success();
    schema::check_messages("prune", &run.messages());
    let summary = run.messages().pop().unwrap();
    assert_eq!((&summary["packs_repacked"], &summary["packs_old_key"]), (&2.into(), &0.into()));
    assert_eq!(summary["snapshots_old_key"], 1);
    environment
        .run(["prune", "--rewrite-epoch", "--instant"])
        .success()
        .shows("old key:  no pack that stays is under a key of before")
        .shows("besides, under such a key: ");
    environment.run(["check", "--read-data"]).success().shows("no damage found");
}

#[test]
fn what_is_left_under_the_key_of_before_is_counted_after_the_deletions() {
    let environment = TestEnvironment::with_snapshot();
    environment.write("more.bin", vec![9; 3_000]);
    environment.backup();
    environment.run(["forget", "--keep-last", "1"]).success();
    environment.run(["key", "rotate"]).success();
    let prune = ["prune", "--rewrite-epoch", "--instant"];
    let run = environment.run(prune.iter().chain(&["--json"])).success();
    let summary = run.message("summary");
    assert_eq!(summary["snapshots_deleted"], 1, "{summary}");
    assert_eq!(summary["snapshots_old_key"], 1, "the forgotten one is gone: {summary}");
    assert_eq!(summary["marks_old_key"], 1, "the forget record: {summary}");
    let listed = |folder: &str| {
        std::fs::read_dir(environment.path("repository").join(folder)).unwrap().count() as u64
    };
    assert_eq!((listed("snapshots"), listed("marks")), (1, 1));
    let segments = summary["segments_old_key"].as_u64().unwrap();
    assert!(segments < listed("index"), "what this run wrote is under the new key: {summary}");
    environment
        .run(prune)
        .success()
        .shows("besides, under such a key: ")
        .shows("snapshots keep theirs until they are forgotten and pruned")
        .shows("forget records stay for good");
}
