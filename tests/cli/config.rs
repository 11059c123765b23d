//! The configuration file and `putback config`.

use crate::harness::{TestEnvironment, schema};

#[test]
fn an_unknown_key_is_an_error_of_every_command_that_reads_the_file() {
    let environment = TestEnvironment::new();
    environment.configure("[defaults]\npasword-file = '/x'\n");
    for command in [&["snapshots"][..], &["config", "check"], &["config", "show"]] {
        environment
            .run(command)
            .code(2)
            .complains("unknown key 'pasword-file' in [defaults] of [ROOT]/home/.config/")
            .complains("hint: did you mean 'password-file'?");
    }
}

#[test]
fn a_table_of_a_command_outside_of_any_profile_is_told_where_it_belongs() {
    let environment = TestEnvironment::new();
    environment.configure("[backup]\nexclude = ['*.tmp']\n");
    environment
        .run(["snapshots"])
        .code(2)
        .complains("'backup' stands outside of any profile in [ROOT]/home/.config/")
        .complains("hint: put it into [profile.NAME.backup] for one profile");
}

#[test]
fn an_unknown_profile_is_an_error() {
    let environment = TestEnvironment::new();
    environment
        .run(["--profile", "home", "snapshots"])
        .code(2)
        .complains("there is no profile 'home'");
    environment.configure("[profile.home]\n");
    environment
        .run(["--profile", "hoem", "snapshots"])
        .code(2)
        .complains("hint: did you mean 'home'?");
}

#[test]
fn a_file_that_was_asked_for_must_exist() {
    TestEnvironment::new()
        .run(["--config", "missing.toml", "snapshots"])
        .code(2)
        .complains("error: --config names missing.toml, which does not exist");
}

#[test]
fn flags_win_over_variables_over_the_profile_over_the_defaults() {
    let mut environment = TestEnvironment::new();
    environment.unset("PUTBACK_REPO");
    environment.configure("[defaults]\nrepo = 'defaults://x'\n[profile.p]\nrepo = 'profile://x'\n");
    let check = |environment: &TestEnvironment, arguments: &[&str], scheme: &str| {
        environment.run(arguments).code(2).complains(&format!("'{scheme}://'"));
    };
    check(&environment, &["snapshots"], "defaults");
    check(&environment, &["--profile", "p", "snapshots"], "profile");
    environment.set("PUTBACK_PROFILE", "p");
    check(&environment, &["snapshots"], "profile");
    environment.set("PUTBACK_REPO", "variable://x");
    check(&environment, &["snapshots"], "variable");
    check(&environment, &["snapshots", "--repo", "flag://x"], "flag");
    check(&environment, &["-r", "flag://x", "snapshots"], "flag");
}

#[test]
fn a_value_that_its_flag_refuses_is_named_with_the_file() {
    let environment = TestEnvironment::new();
    environment.configure("[profile.p.backup]\nexclude-larger-than = 'huge'\n");
    environment
        .run(["config", "check"])
        .code(2)
        .complains("putback.toml: 'huge' is not a valid value");
    environment
        .run(["--profile", "p", "backup", "x"])
        .code(2)
        .complains("'huge' is not a valid value");
    // Not asked for, not in the way.
    environment.run(["--repo", "x://y", "snapshots"]).code(2).complains("'x://'");
}

#[test]
fn a_variable_set_to_nothing_is_not_set() {
    let mut environment = TestEnvironment::new();
    environment.configure("[defaults]\nrepo = 'defaults://x'\n");
    environment.set("PUTBACK_REPO", "");
    environment.set("PUTBACK_THREADS", "");
    environment.set("PUTBACK_JSON", "");
    environment
        .run(["snapshots"])
        .code(2)
        .complains("error: this version of putback does not support 'defaults://'");
}

#[test]
fn a_switch_is_understood_in_the_environment() {
    let mut environment = TestEnvironment::new();
    environment.set("PUTBACK_REPO", "x://y");
    for value in ["1", "true", "yes", "on"] {
        environment.set("PUTBACK_JSON", value);
        assert_eq!(environment.run(["snapshots"]).code(2).error_messages()[0]["code"], 2);
    }
    for value in ["0", "false", "no", "off"] {
        environment.set("PUTBACK_JSON", value);
        environment.run(["snapshots"]).code(2).complains("error: ");
    }
    environment.set("PUTBACK_JSON", "perhaps");
    environment.run(["snapshots"]).code(2).complains("perhaps");
}

#[test]
fn what_is_in_effect_is_shown_with_its_source() {
    let mut environment = TestEnvironment::new();
    environment.set("PUTBACK_CACHE_DIR", "/from/variable");
    environment.set("PUTBACK_EXCLUDE", "*.o\n*.tmp");
    environment.configure(
        "[defaults]\nthreads = 3\nstate-dir = '/d'\n[profile.p]\nstate-dir = '/p'\n\
         [profile.p.backup]\npaths = ['/a', '/b']\n",
    );
    let run = environment.run(["--profile", "p", "config", "show", "--verbose"]).success();
    let text = run.stdout();
    let line = |key: &str| {
        text.lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_else(|| panic!("{key} in\n{text}"))
    };
    assert!(line("verbose").contains("flag"));
    assert!(
        line("cache-dir").contains("/from/variable")
            && line("cache-dir").contains("PUTBACK_CACHE_DIR")
    );
    assert!(line("threads").contains("defaults in [ROOT]"));
    assert!(line("state-dir").contains("/p") && line("state-dir").contains("profile p"));
    assert!(line("backup.paths").contains("/a, /b"));
    assert!(line("backup.exclude").contains("*.o"));
    let document = environment.run(["config", "show", "--json"]).success().document();
    schema::check("config show", "document", &document);
}

#[test]
fn no_secret_is_shown() {
    TestEnvironment::new().run(["config", "show"]).success().hides(crate::harness::PASSWORD);
}

#[test]
fn the_path_of_the_file_is_shown_whether_or_not_it_exists() {
    let environment = TestEnvironment::new();
    environment.run(["config", "path"]).success().shows("[ROOT]/home/.config/putback/putback.toml");
    let document = environment.run(["config", "path", "--json"]).success().document();
    assert_eq!(document["exists"], false);
    schema::check("config path", "document", &document);
    environment.run(["config", "path", "--config", "other.toml"]).success().shows("other.toml");
}

#[test]
fn a_valid_file_is_said_to_be_valid() {
    let environment = TestEnvironment::new();
    let run = environment.run(["config", "check"]).success();
    run.shows(
        "there is no configuration file, and none is needed; it would be [ROOT]/home/.config/",
    );
    let document = environment.run(["config", "check", "--json"]).success().document();
    schema::check("config check", "document", &document);
    assert_eq!(document["exists"], false);
    environment.run(["config", "check", "--config", "no.toml"]).code(2).complains("no.toml");
    environment
        .configure("[defaults.repo.info]\nhuman = true\n[profile.a.key.add]\nkdf-cost = 'high'\n");
    environment.run(["config", "check"]).success().shows("putback.toml is valid; 1 profile");
    schema::check(
        "config check",
        "document",
        &environment.run(["config", "check", "--json"]).success().document(),
    );
}

#[test]
fn paths_and_excludes_of_a_profile_are_backed_up() {
    let environment = TestEnvironment::with_repository();
    environment.write("keep.txt", "x");
    environment.write("skip.tmp", "x");
    let source = environment.source();
    environment.configure(&format!(
        "[profile.p.backup]\npaths = ['{}']\nexclude = ['*.tmp']\n",
        source.display()
    ));
    environment.run(["--profile", "p", "backup"]).success();
    environment.run(["ls", "latest"]).success().shows("keep.txt").hides("skip.tmp");
    // A stream that is asked for here replaces the paths of the profile.
    environment
        .run_with_input(["--profile", "p", "backup", "--stdin", "--stdin-name", "s"], b"data")
        .success();
    assert_eq!(environment.run(["cat", "latest:/s"]).success().stdout(), "data");
}
