//! The program.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::client::{Connection, Request};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_putio-emulator"))
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path, args: &[&str]) -> (Running, Value) {
    let ready = folder.join("ready.json");
    let _ = fs_err::remove_file(&ready);
    let child = program()
        .current_dir(folder)
        .args(["--listen", "127.0.0.1:0", "--print-ready", "ready.json"])
        .args(args)
        .stdout(Stdio::null())
        .stderr(fs_err::File::create(folder.join("stderr")).unwrap().into_file())
        .spawn()
        .unwrap();
    let running = Running(child);
    for _ in 0..1_000 {
        if let Ok(text) = fs_err::read_to_string(&ready) {
            return (running, serde_json::from_str(&text).unwrap());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{}", fs_err::read_to_string(folder.join("stderr")).unwrap());
}

#[test]
fn it_serves_until_it_is_killed_and_goes_on_with_its_directory() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--data", "data", "--account", "alice:secret:1MB", "--verbose"];
    let (running, ready) = start(folder.path(), &args);
    let send = |ready: &Value, request: Request| {
        let mut connection = Connection::open(ready["api_url"].as_str().unwrap());
        connection.send(request.header("Authorization", "Bearer secret")).unwrap()
    };
    let create = Request::bare("POST", "/v2/files/create-folder").form("name=kept");
    send(&ready, create).expect(200);
    drop(running);
    let shown = fs_err::read_to_string(folder.path().join("stderr")).unwrap();
    assert!(shown.contains("200 POST   127.0.0.1/v2/files/create-folder"), "{shown}");

    let (_running, ready) = start(folder.path(), &args);
    let found = send(&ready, Request::bare("GET", "/v2/files/0/child?name=kept")).expect(200);
    assert_eq!(found.json()["file"]["name"], "kept");
    let info = send(&ready, Request::bare("GET", "/v2/account/info")).json();
    assert_eq!(info["info"]["disk"]["size"], 1_000_000);
}

#[test]
fn it_writes_its_authority_and_takes_faults_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let rules = r#"[{"path": "/v2/files/list", "fault": {"kind": "status", "status": 503}}]"#;
    fs_err::write(folder.path().join("faults.json"), rules).unwrap();
    let args = [
        "--proxy",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--tls",
        "127.0.0.1:0",
        "--write-ca",
        "ca.pem",
        "--fault",
        "faults.json",
        "--latency",
        "1ms",
        "--limit",
        "*:100/1s",
    ];
    let (_running, ready) = start(folder.path(), &args);
    let authority = fs_err::read_to_string(folder.path().join("ca.pem")).unwrap();
    assert!(authority.starts_with("-----BEGIN CERTIFICATE-----"));
    for key in ["api_url", "upload_url", "proxy_url", "admin_url", "tls_address", "ca_file"] {
        assert!(ready[key].is_string(), "{key}: {ready}");
    }
    let mut connection = Connection::open(ready["api_url"].as_str().unwrap());
    connection.send(Request::new("GET", "/v2/files/list")).unwrap().expect(503);
    connection.send(Request::new("GET", "/v2/account/info")).unwrap().expect(200);
    let mut connection = Connection::open(ready["admin_url"].as_str().unwrap());
    let help = connection.send(Request::bare("GET", "/")).unwrap().expect(200);
    assert!(String::from_utf8(help.body).unwrap().contains("/faults"));
}

#[test]
fn it_says_what_is_wrong_with_its_arguments() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("faults.json"), "[{}]").unwrap();
    for (args, expected) in [
        (&["--fault", "faults.json"][..], "faults.json is no list of fault rules"),
        (&["--account", "a:x", "--account", "a:y"], "there are two accounts 'a'"),
        (&["--proxy", "127.0.0.2:0"], "another address"),
        (&["--storm", "2"], "between 0 and 1"),
        (&["--password", "b:x"], "there is no account 'b'"),
    ] {
        let output = program()
            .current_dir(folder.path())
            .args(["--listen", "127.0.0.1:0"])
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(expected), "{args:?}: {text}");
    }
    let help = program().arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for word in ["Examples:", "HTTPS_PROXY", "--storm", "--print-ready"] {
        assert!(help.contains(word), "{word}");
    }
}
