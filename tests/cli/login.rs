//! `putback login`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::harness::putio::{
    ADA_TOKEN, CLIENT_ID, CLIENT_SECRET, GRACE_TOKEN, client, free_port, get, options,
};
use crate::harness::{TestEnvironment, schema};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Asserts that an attempt to sign in left nothing behind.
#[track_caller]
fn assert_nothing_written(environment: &TestEnvironment) {
    assert_eq!(environment.configuration(), "");
    assert!(!environment.path("home/.config/putback").exists());
}

#[test]
fn a_code_that_is_confirmed_elsewhere_signs_in() {
    let (environment, emulator) = TestEnvironment::with_putio(options());
    let mut login = environment.start(["login", "--client-id", CLIENT_ID, "--json"]);
    let asked = login.message();
    schema::check("login", "device_code", &asked);
    assert_eq!(asked["link"], "https://put.io/link");
    let code = asked["code"].as_str().unwrap();
    assert!(asked["link_with_code"].as_str().unwrap().ends_with(code), "{asked}");
    emulator.approve_code(code, "ada").unwrap();
    let summary = login.message();
    schema::check("login", "summary", &summary);
    assert_eq!(summary["action"], "added");
    assert_eq!(summary["account"]["username"], "ada");
    assert_eq!(summary["account"]["bytes_total"], 1_000_000_000_000_u64);
    let (exit, stdout, stderr) = login.wait();
    assert_eq!(exit, 0, "{stderr}");
    let file = environment.token_file("putio");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    assert_eq!(mode(&environment.config_file()), 0o600);
    assert_eq!(
        environment.configuration(),
        "[storages.putio]\ntype = \"putio\"\naccount = \"ada\"\n\
         token-file = \"storages/putio.token\"\nclient-id = \"1000\"\n"
    );
    let token = std::fs::read_to_string(&file).unwrap();
    assert!(!stdout.contains(token.trim()) && !stderr.contains(token.trim()));
    environment.run(["storage", "about", "putio"]).success().shows("ada");
}

#[test]
fn a_person_sees_the_code_and_the_page_and_whose_account_it_is() {
    let (environment, emulator) = TestEnvironment::with_putio(options());
    let mut command = environment.command(["login", "--client-id", CLIENT_ID]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    // Title, blank, page, code.
    for _ in 0..4 {
        std::io::BufRead::read_line(&mut stderr, &mut text).unwrap();
    }
    assert!(text.contains("    https://put.io/link\n"), "{text}");
    emulator.approve_code(text.lines().last().unwrap().trim(), "ada").unwrap();
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        stdout.starts_with(
            "signed in to put.io as ada (ada@example.com): 931.3 GiB free of 931.3 GiB\n\
             storage 'putio' is ready"
        ),
        "{stdout}"
    );
    assert!(!text.contains('\u{1b}') && !text.contains('\u{2588}'), "{text}");
}

#[test]
fn a_code_that_expires_leads_to_13_and_nothing_is_written() {
    let (environment, emulator) = TestEnvironment::with_putio(options());
    let mut login = environment.start(["login", "--client-id", CLIENT_ID, "--json"]);
    login.message();
    emulator.advance_clock(Duration::from_secs(3600));
    let (exit, _, stderr) = login.wait();
    assert_eq!(exit, 13, "{stderr}");
    assert!(stderr.contains("was not confirmed in time"), "{stderr}");
    assert_nothing_written(&environment);
}

#[test]
fn an_interrupt_leads_to_130_and_nothing_is_written() {
    let (environment, _emulator) = TestEnvironment::with_putio(options());
    let mut login = environment.start(["login", "--client-id", CLIENT_ID, "--json"]);
    login.message();
    login.interrupt();
    let (exit, stdout, _) = login.wait();
    assert_eq!(exit, 130);
    assert!(!stdout.contains("summary"), "{stdout}");
    assert_nothing_written(&environment);
}

#[test]
fn a_client_id_that_put_io_does_not_know_is_an_error() {
    let (environment, _emulator) = TestEnvironment::with_putio(options());
    environment
        .run(["login", "--client-id", "999"])
        .code(1)
        .complains("error: cannot get a code from put.io");
    environment.run(["login", "--client-id", "a b"]).code(2).complains("numbers such as 1234");
    assert_nothing_written(&environment);
}

#[test]
fn a_token_comes_from_standard_input() {
    let (environment, _emulator) = TestEnvironment::with_putio(options());
    environment
        .login("putio", &format!("  {ADA_TOKEN}\r\n"))
        .success()
        .shows("signed in to put.io as ada")
        .shows("putback --repo putio:backups/");
    let file = environment.token_file("putio");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{ADA_TOKEN}\n"));
    assert_eq!(mode(&file), 0o600);
}

#[test]
fn a_token_in_a_file_or_from_a_command_stays_where_it_is() {
    let (environment, _emulator) = TestEnvironment::with_putio(options());
    let file = environment.path("work/token");
    std::fs::write(&file, ADA_TOKEN).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    environment.run(["login", "--token-file", "token", "-q"]).success().silent();
    assert!(
        environment.configuration().contains(&format!("token-file = \"{}\"", file.display())),
        "{}",
        environment.configuration()
    );
    environment
        .run(["login", "--name", "second", "--token-command", "cat token"])
        .success()
        .shows("signed in to put.io as ada");
    assert!(environment.configuration().contains("token-command = \"cat token\""));
    assert!(!environment.path("home/.config/putback/storages").exists());
    environment.run(["storage", "about", "second"]).success().shows("ada");
    // Where it cannot be kept from others, that is said.
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    environment
        .run(["storage", "about", "putio"])
        .success()
        .complains("warning: others on this machine may read the token in [ROOT]/work/token");
    environment.run(["login", "--name", "third", "--token-command", "exit 3"]).code(1);
    assert!(!environment.configuration().contains("third"));
}

#[test]
fn a_token_in_the_environment_is_kept_by_login() {
    let (mut environment, _emulator) = TestEnvironment::with_putio(options());
    environment.set("PUTBACK_PUTIO_TOKEN", ADA_TOKEN);
    environment
        .run(["login"])
        .success()
        .shows("signed in to put.io as ada")
        .complains("as long as PUTBACK_PUTIO_TOKEN is set");
    environment.unset("PUTBACK_PUTIO_TOKEN");
    environment.run(["storage", "about", "putio"]).success().shows("ada");
}

#[test]
fn without_a_terminal_something_must_say_how_to_sign_in() {
    let (environment, _emulator) = TestEnvironment::with_putio(options());
    for arguments in [&["login"][..], &["storage", "add", "putio"]] {
        environment
            .run(arguments)
            .code(2)
            .complains("nothing says how to sign in to put.io")
            .complains("--client-id ID")
            .complains("--token-file")
            .complains("PUTBACK_PUTIO_TOKEN");
    }
    environment
        .run(["login", "--browser"])
        .code(2)
        .complains("--browser needs the id of an application")
        .complains("http://127.0.0.1:53682/");
    environment
        .run(["login", "--browser", "--client-id", CLIENT_ID])
        .code(2)
        .complains("--client-secret-file");
    environment
        .run(["login", "--token-stdin", "--token-file", "x"])
        .code(2)
        .complains("exclude each other");
    assert_nothing_written(&environment);
}

#[test]
fn a_token_that_put_io_does_not_accept_leads_to_13_and_nothing_is_written() {
    let (environment, _emulator) = TestEnvironment::with_putio(options());
    let run = environment.login("putio", "WRONGTOKEN").code(13);
    let run = run.complains("put.io does not accept this token; nothing was changed");
    assert!(!run.stderr().contains("WRONGTOKEN"));
    for token in ["", "\n", "two words", "ü"] {
        environment
            .login("putio", token)
            .code(2)
            .complains("what is in standard input is no token");
    }
    assert_nothing_written(&environment);
}

#[test]
fn a_browser_that_comes_back_with_the_right_state_signs_in_and_no_other() {
    let port = free_port();
    let putio = putio_emulator::Options {
        clients: vec![client(port)],
        approval: putio_emulator::options::Approval::Automatic,
        ..options()
    };
    let (mut environment, _emulator) = TestEnvironment::with_putio(putio);
    environment.set("PUTBACK_PUTIO_CLIENT_SECRET", CLIENT_SECRET);
    let port_text = port.to_string();
    let mut login = environment.start([
        "login",
        "--browser",
        "--client-id",
        CLIENT_ID,
        "--redirect-port",
        &port_text,
        "--json",
    ]);
    let asked = login.message();
    schema::check("login", "browser_sign_in", &asked);
    let redirect = asked["redirect"].as_str().unwrap();
    assert_eq!(redirect, format!("http://127.0.0.1:{port}/"));
    // Somebody else's page sends the browser here.
    for address in ["?code=stolen&state=wrong", "?code=stolen", "elsewhere?code=x&state=y"] {
        let (status, _, _) = get(&format!("{redirect}{address}"));
        assert!((400..500).contains(&status), "{address}: {status}");
    }
    let (status, location, _) = get(asked["link"].as_str().unwrap());
    assert_eq!(status, 302);
    let (status, _, body) = get(&location.unwrap());
    assert_eq!(status, 200);
    assert!(body.contains("signed in"), "{body}");
    assert_eq!(login.message()["account"]["username"], "ada");
    let (exit, stdout, stderr) = login.wait();
    assert_eq!(exit, 0, "{stderr}");
    assert!(!(stdout + &stderr).contains(CLIENT_SECRET));
    environment.assert_nowhere(CLIENT_SECRET, &[]);
    environment.run(["storage", "about", "putio"]).success().shows("ada");
}

#[test]
fn a_wrong_secret_is_an_error_of_the_exchange() {
    let port = free_port();
    let putio = putio_emulator::Options {
        clients: vec![client(port)],
        approval: putio_emulator::options::Approval::Automatic,
        ..options()
    };
    let (environment, _emulator) = TestEnvironment::with_putio(putio);
    std::fs::write(environment.path("work/secret"), "not-the-secret\n").unwrap();
    let port_text = port.to_string();
    let mut login = environment.start([
        "login",
        "--browser",
        "--client-id",
        CLIENT_ID,
        "--redirect-port",
        &port_text,
        "--json",
        "--client-secret-file",
        "secret",
    ]);
    let asked = login.message();
    let (_, location, _) = get(asked["link"].as_str().unwrap());
    get(&location.unwrap());
    let (exit, _, stderr) = login.wait();
    assert_ne!(exit, 0);
    assert!(stderr.contains("does not exchange the browser's code"), "{stderr}");
    assert!(!stderr.contains("not-the-secret"), "{stderr}");
    assert_nothing_written(&environment);
}

#[test]
fn a_port_in_use_is_named() {
    let (mut environment, _emulator) = TestEnvironment::with_putio(options());
    environment.set("PUTBACK_PUTIO_CLIENT_SECRET", CLIENT_SECRET);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    environment
        .run(["login", "--browser", "--client-id", CLIENT_ID, "--redirect-port", &port])
        .code(1)
        .complains(&format!("cannot wait for the browser on port {port}"));
}

#[test]
fn signing_in_again_keeps_the_settings_and_refuses_another_account() {
    let (environment, _emulator) = TestEnvironment::signed_in(options());
    let by_hand =
        format!("{}# slow line\nlimit-upload = \"1M\" # at home\n", environment.configuration());
    environment.configure(&by_hand);
    std::fs::write(environment.token_file("putio"), "REVOKED\n").unwrap();
    environment.login("putio", ADA_TOKEN).success().shows("storage 'putio' is connected again");
    assert_eq!(environment.configuration(), by_hand);
    assert_eq!(
        std::fs::read_to_string(environment.token_file("putio")).unwrap(),
        format!("{ADA_TOKEN}\n")
    );
    environment
        .login("putio", GRACE_TOKEN)
        .code(1)
        .complains("this is the account grace, and storage 'putio' is of ada; nothing was changed");
    assert_eq!(
        std::fs::read_to_string(environment.token_file("putio")).unwrap(),
        format!("{ADA_TOKEN}\n")
    );
}

#[test]
fn a_configuration_that_was_asked_for_is_made() {
    let (environment, _emulator) = TestEnvironment::with_putio(options());
    environment
        .run_with_input(
            ["--config", "conf/putback.toml", "login", "--token-stdin"],
            ADA_TOKEN.as_bytes(),
        )
        .success();
    assert!(environment.path("work/conf/storages/putio.token").exists());
    environment
        .run(["--config", "conf/putback.toml", "storage", "about", "putio"])
        .success()
        .shows("ada");
    assert!(!environment.path("home/.config/putback").exists());
}
