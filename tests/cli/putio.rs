//! Repositories on put.io.

use std::ffi::OsStr;

use putio_emulator::faults::{ErrorBody, Fault, FaultRule};
use putio_emulator::{Emulator, Options};

use crate::harness::putio::{ADA_TOKEN, GRACE_TOKEN, options};
use crate::harness::{PASSWORD, Run, TestEnvironment, assert_same_tree, schema};

/// Where the tests keep their repository.
const REPOSITORY: &str = "putio:backups/laptop";

/// Signed in, with a repository.
fn with_repository(options: Options) -> (TestEnvironment, Emulator) {
    let (mut environment, emulator) = TestEnvironment::signed_in(options);
    environment.set("PUTBACK_REPO", REPOSITORY);
    environment.run(["init", "--kdf-cost", "low"]).success();
    (environment, emulator)
}

/// So many bytes that no program can make smaller: Xorshift, always the same.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Writes some files into the source.
fn fill(environment: &TestEnvironment) {
    environment.write("a.txt", "first file\n");
    environment.write("folder/b.txt", "second file\n");
    environment.write("folder/deeper/c.bin", noise(700_000));
}

fn backup(environment: &TestEnvironment, more: &[&str]) -> Run {
    let source = environment.source();
    let arguments = [OsStr::new("backup"), source.as_os_str()];
    environment.run(arguments.into_iter().chain(more.iter().map(OsStr::new)))
}

#[test]
fn a_folder_is_backed_up_to_put_io_and_comes_back() {
    let (environment, emulator) = with_repository(options());
    fill(&environment);
    backup(&environment, &[]).success().shows("snapshot ").shows("storage:  ").shows(" received, ");
    environment.write("a.txt", "changed\n");
    backup(&environment, &[]).success().shows("0 new, 1 changed, 2 unchanged");
    environment.run(["snapshots"]).success().shows("2 snapshots").hides("storage:");
    environment.run(["snapshots", "-v"]).success().complains("storage:  ");
    environment.run(["check"]).success().shows("no damage found");
    environment.run(["check", "--read-data"]).success().shows("no damage found");
    let source = environment.source();
    let selector = format!("latest:{}", source.display());
    environment.run(["restore", &selector, "--target", "out"]).success().shows("storage:  ");
    assert_same_tree(&source, &environment.path("work/out"));
    let files = emulator.files("ada").unwrap();
    assert!(files.iter().all(|file| file.path.starts_with("backups")), "{files:?}");
    assert_eq!(
        environment.run(["repo", "info", "--json"]).success().document()["repository"],
        REPOSITORY
    );
    assert_eq!(emulator.files("grace").unwrap(), []);
}

#[test]
fn without_cache_and_state_another_machine_sees_the_same() {
    let (mut environment, _emulator) = with_repository(options());
    fill(&environment);
    backup(&environment, &[]).success();
    environment.set("PUTBACK_STATE_DIR", environment.path("other-state"));
    environment.set("PUTBACK_NO_CACHE", "1");
    let selector = format!("latest:{}", environment.source().display());
    environment.run(["restore", &selector, "--target", "out"]).success();
    assert_same_tree(&environment.source(), &environment.path("work/out"));
    backup(&environment, &[]).success().shows("0 new, 0 changed, 3 unchanged");
}

#[test]
fn a_token_in_the_environment_is_all_that_is_needed() {
    let (mut environment, emulator) = TestEnvironment::with_putio(options());
    environment.set("PUTBACK_PUTIO_TOKEN", ADA_TOKEN);
    environment.set("PUTBACK_REPO", "putio:/elsewhere/");
    fill(&environment);
    backup(&environment, &["--init", "--kdf-cost", "low"]).success();
    environment.run(["check"]).success();
    assert!(emulator.files("ada").unwrap().iter().any(|file| file.path == "elsewhere"));
    assert_eq!(environment.configuration(), "");
}

#[test]
fn the_token_is_in_nothing_that_is_printed_or_kept_but_its_file() {
    let (environment, emulator) = with_repository(options());
    fill(&environment);
    let mut printed = String::new();
    let mut note = |run: Run| {
        printed.push_str(&run.stdout());
        printed.push_str(&run.stderr());
    };
    note(backup(&environment, &["-vv"]).success());
    note(backup(&environment, &["--json", "-v"]).success());
    for command in [
        &["storage", "list"][..],
        &["storage", "show", "putio"],
        &["storage", "show", "putio", "--json"],
        &["storage", "about", "putio", "-vv"],
        &["config", "show"],
        &["snapshots", "--json"],
        &["repo", "info"],
        &["check", "-vv", "--read-data"],
        &["restore", "latest", "--target", "out", "-vv"],
        &["login", "--token-command", "cat /no/such/file"],
    ] {
        note(environment.run(command));
    }
    emulator.revoke_token(ADA_TOKEN).unwrap();
    for command in
        [&["snapshots", "-vv"][..], &["backup", ".", "--json"], &["storage", "about", "putio"]]
    {
        note(environment.run(command).code(13));
    }
    assert!(!printed.contains(ADA_TOKEN), "{printed}");
    environment.assert_nowhere(ADA_TOKEN, &[environment.token_file("putio")]);
}

#[test]
fn a_revoked_token_stops_cleanly_and_says_how_to_sign_in() {
    let (environment, emulator) = with_repository(options());
    fill(&environment);
    backup(&environment, &[]).success();
    emulator.revoke_token(ADA_TOKEN).unwrap();
    for command in
        [&["snapshots"][..], &["backup", "."], &["check"], &["restore", "latest", "-t", "out"]]
    {
        environment
            .run(command)
            .code(13)
            .complains("sign-in is needed")
            .complains("hint: sign in again: putback storage reconnect putio");
    }
    let run = environment.run(["snapshots", "--json"]).code(13);
    assert_eq!(run.error_messages().last().unwrap()["code"], 13);
}

#[test]
fn a_full_account_leads_to_14_and_earlier_snapshots_stay() {
    let (environment, emulator) = with_repository(options());
    fill(&environment);
    backup(&environment, &[]).success();
    let (used, _) = emulator.usage("ada").unwrap();
    emulator.set_quota("ada", used + 100_000).unwrap();
    environment.write("large.bin", noise(3_000_000));
    backup(&environment, &[]).code(14).complains("hint: make room");
    // What there was no room for does not keep anybody from making room.
    environment.run(["tag", "--add", "kept", "latest"]).success();
    environment.run(["prune"]).success();
    emulator.set_quota("ada", 1 << 40).unwrap();
    environment.run(["check", "--read-data"]).success();
    backup(&environment, &[]).success();
}

#[test]
fn two_accounts_are_two_storages() {
    let (environment, emulator) = TestEnvironment::signed_in(options());
    environment.login("work", GRACE_TOKEN).success();
    for storage in ["putio", "work"] {
        let repository = format!("{storage}:backup");
        environment.run(["--repo", &repository, "init", "--kdf-cost", "low"]).success();
    }
    environment.write("of-grace.txt", "x");
    let source = environment.source();
    environment
        .run([OsStr::new("--repo"), "work:backup".as_ref(), "backup".as_ref(), source.as_os_str()])
        .success();
    environment.run(["--repo", "work:backup", "snapshots"]).success().shows("1 snapshot");
    environment.run(["--repo", "putio:backup", "snapshots"]).success().shows("0 snapshots");
    for account in ["ada", "grace"] {
        assert!(emulator.files(account).unwrap().iter().any(|file| file.path == "backup"));
    }
}

#[test]
fn a_place_that_cannot_be_one_is_wrong_usage() {
    let (environment, _emulator) = TestEnvironment::signed_in(options());
    environment.run(["--repo", "putio:", "init"]).code(2).complains("as in putio:backups/laptop");
    environment.run(["--repo", "putio:a/../b", "init"]).code(2).complains("'.' and '..'");
    environment
        .run(["--repo", "work:x", "init"])
        .code(2)
        .complains("no storage 'work' is configured")
        .complains("there is 'putio'; `putback login --name work` adds one of this name")
        .complains("if 'work:...' is a folder, write it with a leading ./");
    environment
        .run(["--repo", "putio:nothing/here", "snapshots"])
        .code(10)
        .complains("putback init");
}

#[test]
fn objects_for_programs_tell_of_requests_and_waits() {
    let (environment, emulator) = with_repository(options());
    fill(&environment);
    let refused = Fault::RateLimited {
        reset_in_seconds: Some(3.0),
        retry_after_seconds: None,
        captcha: false,
        holds: true,
    };
    emulator.set_faults(vec![FaultRule::new(refused).nth(2)]);
    let run = backup(&environment, &["--json"]).success();
    schema::check_messages("backup", &run.messages());
    let traffic = &run.message("summary")["traffic"];
    assert!(traffic["requests"].as_u64().unwrap() > 5, "{traffic}");
    assert!(traffic["bytes_sent"].as_u64().unwrap() > 700_000, "{traffic}");
    assert!(traffic["seconds_throttled"].as_f64().unwrap() >= 2.0, "{traffic}");
    let errors = run.error_messages();
    let waits: Vec<_> = errors.iter().filter(|it| it["message_type"] == "waiting").collect();
    assert_eq!(waits.len(), 1, "{}", run.stderr());
    schema::check("every command", "waiting", waits[0]);
    assert_eq!(waits[0]["storage"], "putio");
    assert_eq!(waits[0]["reason"], "rate_limited");
    assert_eq!(emulator.violations(), []);
}

#[test]
fn a_wait_is_told_in_a_line_where_it_is_asked_for() {
    let (environment, emulator) = with_repository(options());
    for (flags, is_told) in [(&["snapshots", "-v"][..], true), (&["snapshots"], false)] {
        let refused = Fault::RateLimited {
            reset_in_seconds: Some(2.0),
            retry_after_seconds: None,
            captcha: false,
            holds: true,
        };
        emulator.set_faults(vec![FaultRule::new(refused).nth(1)]);
        let run = environment.run(flags).success();
        let told = run.stderr();
        assert_eq!(told.contains(" s for put.io's rate limit"), is_told, "{told}");
    }
}

#[test]
fn requests_that_fail_are_repeated_and_told_of() {
    let (environment, emulator) = with_repository(options());
    fill(&environment);
    emulator.set_faults(vec![
        FaultRule::new(Fault::Status {
            status: 503,
            body: ErrorBody::Html,
            error_type: None,
            executed: false,
        })
        .times(2),
    ]);
    let run = backup(&environment, &["--json"]).success();
    let retries: Vec<_> = run
        .error_messages()
        .into_iter()
        .filter(|message| message["message_type"] == "retrying")
        .collect();
    assert!(!retries.is_empty(), "{}", run.stderr());
    for retry in &retries {
        schema::check("every command", "retrying", retry);
    }
    assert!(run.message("summary")["traffic"]["retries"].as_u64().unwrap() >= 1);
}

#[test]
fn limits_of_requests_and_bytes_are_kept() {
    let (environment, emulator) = with_repository(options());
    fill(&environment);
    emulator.clear_log();
    let started = std::time::Instant::now();
    backup(&environment, &["--tpslimit", "8", "--limit-upload", "1M", "--connections", "1"])
        .success();
    let requests = emulator.log().len() as f64;
    let least = (requests - 2.0) / 8.0;
    assert!(started.elapsed().as_secs_f64() >= least, "{requests} in {:?}", started.elapsed());
}

#[test]
fn two_repositories_of_one_account_keep_one_limit_of_requests() {
    let (mut environment, emulator) = with_repository(options());
    fill(&environment);
    backup(&environment, &[]).success();
    environment.set("PUTBACK_TO_PASSWORD", PASSWORD);
    let second = "putio:backups/second";
    environment.run(["init", "--kdf-cost", "low", "--repo", second]).success();
    emulator.clear_log();
    environment.run(["replicate", "--to", second, "--tpslimit", "5"]).success();
    let mut log = emulator.log();
    log.retain(|entry| !entry.path.starts_with("/download/"));
    // 0.2 s from one to the next, and two of these for what arrives late. With a limit for each of the two stores it
    // would be a second less.
    let least = (log.len() - 3) as f64 / 5.0;
    let seconds = (log[log.len() - 1].at - log[0].at).as_secs_f64();
    assert!(log.len() > 10 && seconds >= least, "{} requests in {seconds} s", log.len());
}

#[test]
fn a_proxy_and_its_certificate_are_used() {
    let (mut environment, emulator) =
        TestEnvironment::with_putio(Options { proxy_port: Some(0), ..options() });
    environment.unset("PUTBACK_PUTIO_API_URL");
    environment.unset("PUTBACK_PUTIO_UPLOAD_URL");
    environment.set("PUTBACK_PUTIO_TOKEN", ADA_TOKEN);
    environment.set("HTTPS_PROXY", emulator.proxy_url().unwrap());
    std::fs::write(environment.path("work/ca.pem"), emulator.ca_pem()).unwrap();
    environment.run(["storage", "about", "putio", "--cacert", "ca.pem"]).success().shows("ada");
    environment.set("PUTBACK_CACERT", "ca.pem");
    environment.set("PUTBACK_REPO", REPOSITORY);
    fill(&environment);
    backup(&environment, &["--init", "--kdf-cost", "low"]).success();
    environment.run(["check", "--read-data"]).success();
    std::fs::write(environment.path("work/ca.pem"), "no certificate").unwrap();
    environment.run(["storage", "about", "putio"]).code(2).complains("has no certificate in it");
}

#[test]
fn snapshots_are_replicated_to_put_io_and_back() {
    let (mut environment, _emulator) = TestEnvironment::signed_in(options());
    environment.set("PUTBACK_REPO", environment.path("repository"));
    environment.run(["init", "--kdf-cost", "low"]).success();
    fill(&environment);
    backup(&environment, &[]).success();
    environment.set("PUTBACK_TO_PASSWORD", PASSWORD);
    let there = ["--repo", REPOSITORY];
    environment.run(["init", "--kdf-cost", "low", "--repo", REPOSITORY]).success();
    environment.run(["replicate", "--to", REPOSITORY]).success().shows("1 snapshot copied");
    environment.write("a.txt", "changed\n");
    backup(&environment, &[]).success();
    environment
        .run(["replicate", "--to", REPOSITORY])
        .success()
        .shows("1 snapshot copied, 1 there already")
        .shows("0 B of files read; ");
    environment.run(["check", "--read-data"].into_iter().chain(there)).success();
    let third = environment.path("third");
    let third = third.to_str().unwrap();
    environment.set("PUTBACK_LIKE_PASSWORD", PASSWORD);
    environment.run(["init", "--kdf-cost", "low", "--repo", third, "--like", REPOSITORY]).success();
    let back = environment.run(["replicate", "--to", third, "--json"].into_iter().chain(there));
    assert_eq!(back.success().message("summary")["is_like"], true);
    let source = environment.source();
    let selector = format!("latest:{}", source.display());
    environment.run(["restore", &selector, "--target", "out", "--repo", third]).success();
    assert_same_tree(&source, &environment.path("work/out"));
}
