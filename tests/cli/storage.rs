//! `putback storage`.

use crate::harness::putio::{ADA_TOKEN, GRACE_TOKEN, answer_all, options};
use crate::harness::{TestEnvironment, schema};

#[test]
fn a_storage_is_added_with_its_limits_and_the_file_keeps_its_comments() {
    let (environment, emulator) = TestEnvironment::with_putio(options());
    let by_hand = "# my backups\n[defaults]\nquiet = false   # for now\n\n[profile.home]\n";
    environment.configure(by_hand);
    environment
        .run_with_input(
            [
                "storage",
                "add",
                "work",
                "--token-stdin",
                "--connections",
                "3",
                "--tpslimit",
                "2.5",
                "--limit-upload",
                "2M",
                "--api-url",
                &emulator.api_url(),
            ],
            GRACE_TOKEN.as_bytes(),
        )
        .success()
        .shows("signed in to put.io as grace");
    assert_eq!(
        environment.configuration(),
        format!(
            "{by_hand}\n[storages.work]\ntype = \"putio\"\naccount = \"grace\"\n\
             token-file = \"storages/work.token\"\napi-url = \"{}\"\nconnections = 3\n\
             limit-upload = \"2M\"\ntpslimit = 2.5\n",
            emulator.api_url()
        )
    );
    environment
        .run(["storage", "add", "work", "--token-stdin"])
        .code(2)
        .complains("there is a storage 'work' already")
        .complains("putback storage reconnect work");
    environment.login("Work", GRACE_TOKEN).code(2).complains("upper and lower case only");
}

#[test]
fn a_name_that_could_be_mistaken_is_refused() {
    let (environment, _emulator) = TestEnvironment::with_putio(options());
    for name in ["c", "http", "S3", "file", "a b", "a/b", "_x", "x.y", "latest"] {
        environment
            .run_with_input(["storage", "add", name, "--token-stdin"], ADA_TOKEN.as_bytes())
            .code(2)
            .complains("cannot be the name of a storage");
    }
    environment.run(["storage", "add"]).code(2).complains("putback storage add NAME");
    environment.run(["storage", "add", "x1", "--type", "s3"]).code(2).complains("putio");
    assert_eq!(environment.configuration(), "");
}

#[test]
fn storages_are_listed_and_shown_without_their_tokens() {
    let (mut environment, _emulator) = TestEnvironment::signed_in(options());
    environment.login("work", GRACE_TOKEN).success();
    let list = environment.run(["storage", "list"]).success();
    assert_eq!(
        list.stdout(),
        "Name    Type   Account  Token\n\
         putio:  putio  ada      [ROOT]/home/.config/putback/storages/putio.token\n\
         work:   putio  grace    [ROOT]/home/.config/putback/storages/work.token\n"
    );
    let document = environment.run(["storage", "list", "--json"]).success().document();
    schema::check("storage list", "document", &document);
    assert_eq!(document[1]["name"], "work");
    assert_eq!(document[1]["token_exists"], true);
    environment.set("PUTBACK_TPSLIMIT", "4");
    std::fs::remove_file(environment.token_file("work")).unwrap();
    let show = environment.run(["storage", "show", "work:", "--connections", "5"]).success();
    let text = show.stdout();
    let line = |key: &str| {
        text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}:\n{text}"))
    };
    assert!(line("account").contains("grace") && line("account").ends_with("[storages.work]"));
    assert!(line("token").contains("storages/work.token (missing)"), "{text}");
    assert!(line("connections").ends_with("flag") && line("connections").contains('5'));
    assert!(line("tpslimit").ends_with("PUTBACK_TPSLIMIT"));
    assert!(line("api-url").ends_with("PUTBACK_PUTIO_API_URL"));
    let document = environment.run(["storage", "show", "work", "--json"]).success().document();
    schema::check("storage show", "document", &document);
    assert_eq!(document["token_exists"], false);
}

#[test]
fn without_storages_the_list_says_how_to_add_one() {
    let environment = TestEnvironment::new();
    let run = environment.run(["storage", "list"]).success();
    assert_eq!(run.stdout(), "");
    run.complains("`putback login` adds one");
    assert_eq!(
        environment.run(["storage", "list", "--json"]).success().document(),
        serde_json::json!([])
    );
}

#[test]
fn a_storage_that_is_not_there_is_answered_with_those_that_are() {
    let (environment, _emulator) = TestEnvironment::signed_in(options());
    for command in [
        &["storage", "show", "work"][..],
        &["storage", "about", "work"],
        &["storage", "remove", "work", "--yes"],
        &["storage", "reconnect", "work"],
    ] {
        environment
            .run(command)
            .code(2)
            .complains("no storage 'work' is configured")
            .complains("there is 'putio'; `putback login --name work` adds one");
    }
}

#[test]
fn space_is_shown_for_people_and_for_programs() {
    let (environment, emulator) = TestEnvironment::signed_in(options());
    emulator.seed_file("ada", "film.mkv", &vec![7; 3 << 20]).unwrap();
    let about = environment.run(["storage", "about", "putio"]).success();
    let text = about.stdout();
    for expected in [
        "account   ada (ada@example.com)",
        "space     931.3 GiB",
        "used      3.0 MiB (0 %)",
        "free      931.3 GiB",
        "in trash  0 B",
    ] {
        assert!(text.contains(expected), "no '{expected}' in\n{text}");
    }
    assert_eq!(about.stderr(), "");
    let document = environment.run(["storage", "about", "putio:", "--json"]).success().document();
    schema::check("storage about", "document", &document);
    assert_eq!(document["bytes_used"], 3 << 20);
    assert_eq!(document["username"], "ada");
}

#[test]
fn files_that_are_due_for_deletion_are_warned_of() {
    let (mut environment, _emulator) = TestEnvironment::signed_in(options());
    let address = answer_all(
        r#"{"status": "OK", "info": {"user_id": 7, "username": "ada", "mail": "a@b.example",
            "disk": {"avail": 10, "size": 30, "used": 20}, "trash_size": 5,
            "account_status": "inactive", "files_will_be_deleted_at": "2026-12-24T00:00:00"}}"#,
    );
    environment.set("PUTBACK_PUTIO_API_URL", address);
    environment
        .run(["storage", "about", "putio"])
        .success()
        .shows("used      20 B (67 %)")
        .complains("warning: put.io will delete all files of this account on 2026-12-24T00:00:00");
    let run = environment.run(["storage", "about", "putio", "--json"]).success();
    assert_eq!(run.document()["files_will_be_deleted_at"], "2026-12-24T00:00:00");
    schema::check("storage about", "document", &run.document());
    assert_eq!(run.error_messages()[0]["message_type"], "warning");
}

#[test]
fn a_storage_is_removed_with_its_token_and_nothing_else() {
    let (environment, _emulator) = TestEnvironment::signed_in(options());
    let before = format!("{}\n# mine\n[profile.a]\n", environment.configuration());
    environment.configure(&before);
    environment.login("work", GRACE_TOKEN).success();
    environment.run(["storage", "remove", "work"]).code(2).complains("hint: give --yes");
    assert!(environment.token_file("work").exists());
    let run = environment.run(["storage", "remove", "work", "--yes", "--json"]).success();
    schema::check("storage remove", "summary", &run.message("summary"));
    assert!(!environment.token_file("work").exists());
    assert!(environment.token_file("putio").exists());
    let after = environment.configuration();
    assert!(after.contains("[storages.putio]") && after.contains("# mine\n[profile.a]"), "{after}");
    assert!(!after.contains("work"), "{after}");
    // Whoever else has the token can still use it.
    environment.login("work", GRACE_TOKEN).success();
}

#[test]
fn a_revoked_token_is_of_no_use_to_anybody() {
    let (environment, _emulator) = TestEnvironment::signed_in(options());
    environment
        .run(["storage", "remove", "putio", "--revoke", "--yes"])
        .success()
        .shows("storage 'putio' is removed, and its token is revoked at put.io");
    environment.login("putio", ADA_TOKEN).code(13);
}

#[test]
fn a_token_that_another_storage_uses_is_not_revoked() {
    let (environment, _emulator) = TestEnvironment::signed_in(options());
    environment.login("second", ADA_TOKEN).success();
    environment
        .run(["storage", "remove", "second", "--revoke", "--yes"])
        .success()
        .complains("the token is not revoked: storage 'putio' uses the same one");
    environment.run(["storage", "about", "putio"]).success();
}

#[test]
fn a_token_file_of_somebody_else_is_left_alone() {
    let (environment, _emulator) = TestEnvironment::with_putio(options());
    std::fs::write(environment.path("work/token"), ADA_TOKEN).unwrap();
    environment.run(["storage", "add", "work", "--token-file", "token"]).success();
    environment
        .run(["storage", "remove", "work", "--yes"])
        .success()
        .shows("the token in [ROOT]/work/token was not touched");
    assert!(environment.path("work/token").exists());
}

#[test]
fn a_revoked_token_leads_to_13_and_reconnecting_helps() {
    let (environment, emulator) = TestEnvironment::signed_in(options());
    emulator.revoke_token(ADA_TOKEN).unwrap();
    let run = environment
        .run(["storage", "about", "putio"])
        .code(13)
        .complains("error: cannot ask put.io about storage 'putio'")
        .complains("hint: sign in again: putback storage reconnect putio");
    assert!(!run.stderr().contains(ADA_TOKEN));
    let run = environment.run(["storage", "about", "putio", "--json"]).code(13);
    assert_eq!(run.error_messages().last().unwrap()["code"], 13);
    let mut again =
        environment.start(["storage", "reconnect", "putio", "--client-id", "1000", "--json"]);
    let code = again.message()["code"].as_str().unwrap().to_owned();
    emulator.approve_code(&code, "ada").unwrap();
    let summary = again.message();
    schema::check("storage reconnect", "summary", &summary);
    assert_eq!(summary["action"], "reconnected");
    assert_eq!(again.wait().0, 0);
    environment.run(["storage", "about", "putio"]).success();
}

#[test]
fn a_missing_token_leads_to_13() {
    let (environment, _emulator) = TestEnvironment::signed_in(options());
    std::fs::remove_file(environment.token_file("putio")).unwrap();
    environment
        .run(["--repo", "putio:x", "snapshots"])
        .code(13)
        .complains("nobody has signed in to storage 'putio' on this machine")
        .complains("putback storage reconnect putio");
}

#[test]
fn a_token_command_is_tried_again_by_reconnect_and_stays() {
    let (environment, _emulator) = TestEnvironment::with_putio(options());
    std::fs::write(environment.path("work/vault"), ADA_TOKEN).unwrap();
    environment.run(["storage", "add", "putio", "--token-command", "cat vault"]).success();
    std::fs::write(environment.path("work/vault"), "WRONG").unwrap();
    environment.run(["storage", "reconnect", "putio"]).code(13);
    std::fs::write(environment.path("work/vault"), ADA_TOKEN).unwrap();
    environment.run(["storage", "reconnect", "putio"]).success().shows("connected again");
    assert!(environment.configuration().contains("token-command = \"cat vault\""));
    // Another way to sign in takes its place.
    environment
        .run_with_input(["storage", "reconnect", "putio", "--token-stdin"], ADA_TOKEN.as_bytes())
        .success();
    assert!(!environment.configuration().contains("token-command"));
    assert!(environment.token_file("putio").exists());
}

#[test]
fn a_storage_of_the_environment_is_listed_and_cannot_be_changed() {
    let (mut environment, _emulator) = TestEnvironment::with_putio(options());
    environment.set("PUTBACK_PUTIO_TOKEN", ADA_TOKEN);
    environment
        .run(["storage", "list"])
        .success()
        .shows("putio:  putio           PUTBACK_PUTIO_TOKEN");
    environment.run(["storage", "about", "putio"]).success().shows("ada");
    environment.run(["storage", "remove", "putio", "-y"]).code(2).complains("by the environment");
    environment.run(["storage", "reconnect", "putio"]).code(2).complains("from the environment");
    environment.set("PUTBACK_PUTIO_TOKEN_FILE", "/x");
    environment
        .run(["storage", "list"])
        .code(2)
        .complains("PUTBACK_PUTIO_TOKEN and PUTBACK_PUTIO_TOKEN_FILE exclude each other");
}

#[test]
fn an_unknown_key_of_a_storage_is_an_error_of_every_command() {
    let environment = TestEnvironment::new();
    environment.configure("[storages.putio]\ntype = 'putio'\nconections = 2\n");
    for command in [&["snapshots"][..], &["storage", "list"], &["config", "check"]] {
        environment
            .run(command)
            .code(2)
            .complains("unknown key 'conections' in [storages.putio] of [ROOT]/home/.config/")
            .complains("did you mean 'connections'?");
    }
}

#[test]
fn an_address_that_would_carry_the_token_in_the_open_is_refused() {
    let (mut environment, _emulator) = TestEnvironment::signed_in(options());
    environment.set("PUTBACK_PUTIO_API_URL", "http://api.put.io");
    environment.run(["storage", "about", "putio"]).code(2).complains("PUTBACK_PUTIO_API_URL");
    environment.run(["login", "--token-stdin"]).code(2).complains("https://HOST");
}
