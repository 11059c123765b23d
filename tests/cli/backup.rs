//! `putback backup`.

use std::ffi::OsStr;

use crate::harness::{TestEnvironment, assert_same_tree, schema};

#[test]
fn a_backup_says_what_it_did() {
    let environment = TestEnvironment::with_repository();
    environment.write("a.txt", "one");
    environment.write("b.txt", "two");
    environment.backup().shows("2 new, 0 changed, 0 unchanged").shows("saved");
    environment.backup().shows("0 new, 0 changed, 2 unchanged");
}

#[test]
fn programs_get_a_summary_whose_fields_are_documented() {
    let environment = TestEnvironment::with_repository();
    environment.write("a.txt", "one");
    let source = environment.source();
    let run = environment
        .run([OsStr::new("backup"), source.as_os_str(), "--json".as_ref(), "-v".as_ref()])
        .success();
    let summary = run.message("summary");
    assert_eq!(summary["files_new"], 1);
    assert_eq!(summary["snapshot_id"].as_str().unwrap().len(), 64);
    let file = source.join("a.txt");
    let verbose = run
        .messages()
        .into_iter()
        .find(|message| message["item"] == file.to_str().unwrap())
        .unwrap();
    assert_eq!(
        (&verbose["message_type"], &verbose["action"]),
        (&"verbose_status".into(), &"new".into())
    );
    schema::check_messages("backup", &run.messages());
}

#[test]
fn the_repository_is_made_first_if_that_is_asked_for() {
    let environment = TestEnvironment::new();
    environment.write("a.txt", "one");
    let source = environment.source();
    let arguments = [
        OsStr::new("backup"),
        "--init".as_ref(),
        "--kdf-cost".as_ref(),
        "low".as_ref(),
        source.as_os_str(),
    ];
    environment.run(arguments).success().shows("created repository");
    environment.run(arguments).success().hides("created repository").shows("1 unchanged");
}

#[test]
fn nothing_to_back_up_is_wrong_usage() {
    TestEnvironment::new().run(["backup"]).code(2).complains("nothing to back up");
}

#[test]
fn a_path_that_does_not_exist_is_named_and_no_snapshot_is_made() {
    let environment = TestEnvironment::with_repository();
    let run = environment.run(["backup", "/no/such/path"]);
    assert!(run.stderr().contains("/no/such/path"), "{}", run.stderr());
    assert_ne!(run.stderr(), "");
    environment.run(["snapshots"]).success().shows("0 snapshots");
}

#[test]
#[cfg(unix)]
fn a_file_that_cannot_be_read_is_reported_and_the_rest_is_saved() {
    use std::os::unix::fs::PermissionsExt;
    let environment = TestEnvironment::with_repository();
    environment.write("readable.txt", "one");
    let secret = environment.write("secret.txt", "two");
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o000)).unwrap();
    let source = environment.source();
    let run = environment.run_unprivileged([OsStr::new("backup"), source.as_os_str()]).code(3);
    let run =
        run.complains("secret.txt could not be read").complains("1 entry could not be backed up");
    run.shows("saved");
    environment.run(["ls", "latest"]).success().shows("readable.txt").hides("secret.txt");
    let arguments =
        [OsStr::new("backup"), "--json".as_ref(), "--quiet".as_ref(), source.as_os_str()];
    let run = environment.run_unprivileged(arguments).code(3);
    assert_eq!(run.message("summary")["error_count"], 1);
    let errors = run.error_messages();
    assert_eq!(errors[0]["kind"], "unreadable");
    schema::check_messages("backup", &errors);
}

#[test]
#[cfg(unix)]
fn many_folders_of_one_file_each_need_few_open_files() {
    let environment = TestEnvironment::with_repository();
    for number in 0..600 {
        environment.write(format!("folder-{number:03}/file"), format!("file {number}"));
    }
    let source = environment.source();
    let arguments = ["backup", source.to_str().unwrap(), "--threads", "4"];
    environment.run_with_open_files(256, arguments).success().shows("600 new");
    let selector = format!("latest:{}", source.display());
    environment.run(["restore", &selector, "-t", "out"]).success();
    assert_same_tree(&source, &environment.path("work/out"));
}

#[test]
fn what_is_excluded_is_left_out() {
    let environment = TestEnvironment::with_repository();
    for name in [
        "keep.txt",
        "a.tmp",
        "B.JPG",
        "cache/CACHEDIR.TAG",
        "cache/x",
        "marked/.skip",
        "marked/y",
        "ignored/z",
    ] {
        environment.write(name, "Signature: 8a477f597d28d172789f06886806bc55\n");
    }
    environment.write("large.bin", vec![0; 5000]);
    environment.write(".putbackignore", "ignored/\n");
    let patterns = environment.path("work/patterns");
    std::fs::write(&patterns, "# comment\nnothing-like-it\n").unwrap();
    let flags = [
        "--exclude",
        "*.tmp",
        "--iexclude",
        "*.jpg",
        "--exclude-caches",
        "--exclude-if-present",
        ".skip",
        "--exclude-larger-than",
        "4K",
        "--ignore-file",
        ".putbackignore",
        "--exclude-file",
        "patterns",
    ];
    let source = environment.source();
    environment.run(["backup", source.to_str().unwrap()].into_iter().chain(flags)).success();
    let run = environment.run(["ls", "latest"]).success().shows("keep.txt");
    let mut run = run;
    for name in ["a.tmp", "B.JPG", "cache/x", "marked/y", "large.bin", "ignored/z"] {
        run = run.hides(name);
    }
}

#[test]
fn lists_of_excludes_in_the_environment_have_one_pattern_a_line() {
    let mut environment = TestEnvironment::with_repository();
    environment.write("a.tmp", "");
    environment.write("b.o", "");
    environment.write("c,d.txt", "");
    environment.set("PUTBACK_EXCLUDE", "*.tmp\n*.o");
    environment.backup();
    environment.run(["ls", "latest"]).success().hides("a.tmp").hides("b.o").shows("c,d.txt");
}

#[test]
fn a_dry_run_lists_what_is_new_and_writes_nothing() {
    let environment = TestEnvironment::with_repository();
    environment.write("a.txt", "one");
    let source = environment.source();
    let run = environment.run([OsStr::new("backup"), "-n".as_ref(), source.as_os_str()]).success();
    run.shows("new       [ROOT]/source/a.txt").shows("dry run: nothing was written");
    environment.run(["snapshots"]).success().shows("0 snapshots");
}

#[test]
fn no_snapshot_is_made_of_what_has_not_changed_if_that_is_asked_for() {
    let environment = TestEnvironment::with_snapshot();
    let source = environment.source();
    let run = environment
        .run([OsStr::new("backup"), "--skip-if-unchanged".as_ref(), source.as_os_str()])
        .success();
    run.shows("nothing has changed");
    environment.run(["snapshots"]).success().shows("1 snapshot");
}

#[test]
fn host_tags_description_and_time_are_those_that_were_given() {
    let environment = TestEnvironment::with_repository();
    let source = environment.source();
    let source = source.to_str().unwrap();
    let flags = [
        "-H",
        "box",
        "--tag",
        "b,a",
        "--tag",
        "c",
        "--description",
        "before",
        "--time",
        "2026-01-02T03:04:05",
    ];
    environment.run(["backup", source].into_iter().chain(flags)).success();
    let all = environment.run(["snapshots", "--json"]).success().document();
    let snapshot = &all[0];
    assert_eq!(snapshot["hostname"], "box");
    assert_eq!(snapshot["username"], "ada");
    assert_eq!(snapshot["tags"], serde_json::json!(["a", "b", "c"]));
    assert_eq!(snapshot["description"], "before");
    assert_eq!(snapshot["time"], "2026-01-02T03:04:05+02:00");
    environment.run(["backup", source, "--time", "yesterday"]).code(2).complains("not a time");
}

#[test]
fn paths_are_read_from_files_and_standard_input() {
    let environment = TestEnvironment::with_repository();
    let a = environment.write("a.txt", "one");
    let b = environment.write("odd\nname", "two");
    environment.write("c.txt", "three");
    std::fs::write(environment.path("work/raw"), format!("{}\0", b.display())).unwrap();
    let input = format!("# a comment\n\n{}\n", a.display());
    let arguments = ["backup", "--files-from", "-", "--files-from-raw", "raw"];
    environment.run_with_input(arguments, input.as_bytes()).success();
    environment.run(["ls", "latest"]).success().shows("a.txt").shows(r"odd\nname").hides("c.txt");
}

#[test]
fn standard_input_becomes_a_file() {
    let environment = TestEnvironment::with_repository();
    environment
        .run_with_input(["backup", "--stdin", "--stdin-name", "db.sql"], b"select 1;\n")
        .success();
    assert_eq!(environment.run(["cat", "latest:/db.sql"]).success().stdout(), "select 1;\n");
    environment.run(["backup", "--stdin", "x"]).code(2).complains("exclude each other");
}

#[test]
fn the_output_of_a_command_is_saved_only_if_it_succeeds() {
    let environment = TestEnvironment::with_repository();
    environment
        .run(["backup", "--command", "--stdin-name", "out", "--", "echo", "hello"])
        .success();
    assert_eq!(environment.run(["cat", "latest:/out"]).success().stdout(), "hello\n");
    let run =
        environment.run(["backup", "--command", "--", "sh", "-c", "echo partial; exit 7"]).code(1);
    run.complains("failed").complains("7");
    environment.run(["snapshots"]).success().shows("1 snapshot");
    environment
        .run(["backup", "--command", "--", "/no/such/program"])
        .code(1)
        .complains("/no/such/program");
    environment.run(["backup", "--command"]).code(2).complains("--command needs a command");
    environment
        .run(["backup", "--command", "x", "--", "y"])
        .code(2)
        .complains("exclude each other");
}

#[test]
fn what_follows_two_dashes_is_a_path_even_with_a_leading_dash() {
    let environment = TestEnvironment::with_repository();
    std::fs::write(environment.path("work/-odd"), "x").unwrap();
    environment.run(["backup", "--", "-odd"]).success();
    environment.run(["ls", "latest"]).success().shows("/work/-odd");
}

#[test]
fn verbose_prints_a_line_for_each_file() {
    let environment = TestEnvironment::with_repository();
    environment.write("a.txt", "one");
    environment.write("b.tmp", "two");
    let source = environment.source();
    let source = source.to_str().unwrap();
    environment
        .run(["backup", "-v", "-e", "*.tmp", source])
        .success()
        .shows("source/a.txt, 3 B")
        .hides("b.tmp");
    environment
        .run(["backup", "-vv", "-e", "*.tmp", source])
        .success()
        .shows("unchanged ")
        .shows("excluded  [ROOT]/source/b.tmp");
}

#[test]
#[cfg(unix)]
fn an_interrupt_is_answered_and_ends_the_backup_without_a_snapshot() {
    let environment = TestEnvironment::with_repository();
    let mut command = environment.command(["backup", "--stdin"]);
    command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let kill = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    std::thread::sleep(std::time::Duration::from_millis(300));
    // The reader may be waiting for input; its end lets the operation look at the request.
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("finishing the pack in hand; press again to stop at once"), "{stderr}");
    environment.run(["snapshots"]).success().shows("0 snapshots");
}

#[test]
fn a_stream_is_named_as_a_file_could_be() {
    let environment = TestEnvironment::new();
    for name in ["", "/", "../x", "/a/../b", "a/", "."] {
        environment
            .run(["backup", "--stdin", "--stdin-name", name])
            .code(2)
            .complains("cannot be the name of a file in a snapshot")
            .complains("hint: give --stdin-name");
    }
    environment.configure("[defaults.backup]\nstdin-name = \"a\\u0000b\"\n");
    environment.run(["backup", "--stdin"]).code(2).complains("NUL");
}

#[test]
fn a_repository_inside_of_the_source_is_left_out_with_a_word() {
    let mut environment = TestEnvironment::new();
    environment.set("PUTBACK_REPO", environment.source().join("repository"));
    environment.run(["init", "--kdf-cost", "low"]).success();
    environment.write("a.txt", "x");
    let run = environment.backup();
    run.complains("[ROOT]/source/repository is left out: it is the repository itself");
    environment.run(["ls", "latest"]).success().shows("a.txt").hides("repository/");
    let source = environment.source();
    environment.run([OsStr::new("backup"), "-q".as_ref(), source.as_os_str()]).success().silent();
    std::fs::create_dir(environment.source().join("elsewhere")).unwrap();
    let run = environment.run(["backup", source.join("elsewhere").to_str().unwrap()]).success();
    assert_eq!(run.stderr(), "");
}
