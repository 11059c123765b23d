//! The admin side channel.

use putio_emulator::Options;
use serde_json::{Value, json};

use crate::client::{Answer, Connection, Request, Service};

fn service() -> Service {
    Service::with(Options { admin_port: Some(0), ..Options::default() })
}

fn admin(service: &Service, method: &str, path: &str, body: Value) -> Answer {
    let mut connection = Connection::open(&service.emulator.admin_url().unwrap());
    connection.send(Request::bare(method, path).json(&body)).unwrap()
}

#[test]
fn files_are_made_harmed_and_looked_at() {
    let service = service();
    let call = |method: &str, path: &str, body: Value| admin(&service, method, path, body);
    let mut connection = Connection::open(&service.emulator.admin_url().unwrap());
    let put = Request::bare("PUT", "/accounts/user/content/a/b.txt").body(b"content");
    let id = connection.send(put).unwrap().expect(200).json()["id"].as_i64().unwrap();
    call("PUT", "/accounts/user/folders/x/y", json!({})).expect(200);
    let got = call("GET", "/accounts/user/content/a/b.txt", json!({})).expect(200);
    assert_eq!(got.body, b"content");
    let files = call("GET", "/accounts/user/files", json!({})).expect(200).json();
    let paths: Vec<&str> =
        files.as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["a", "a/b.txt", "x", "x/y"]);

    call("PUT", "/snapshots/s", json!({})).expect(200);
    call("POST", &format!("/files/{id}/corrupt"), json!({ "offset": 0 })).expect(200);
    assert_ne!(service.emulator.read_file("user", "a/b.txt").unwrap(), b"content");
    call("POST", &format!("/files/{id}/duplicate"), json!({})).expect(200);
    call("POST", &format!("/files/{id}/lose"), json!({})).expect(200);
    service.get(&format!("/v2/files/{id}/url")).expect(410);
    call("POST", "/snapshots/s/restore", json!({})).expect(200);
    assert_eq!(service.emulator.read_file("user", "a/b.txt").unwrap(), b"content");
    call("POST", &format!("/files/{id}/remove"), json!({})).expect(200);
    call("GET", "/accounts/user/content/a/b.txt", json!({})).expect(404);
    call("GET", "/accounts/nobody/files", json!({})).expect(404);
    call("PUT", "/accounts/user/quota", json!({ "bytes": 5 })).expect(200);
    assert_eq!(service.emulator.usage("user").unwrap(), (0, 5));
    call("PUT", "/accounts/user/deletion", json!({ "at": "2030-01-31T00:00:00" })).expect(200);
    let info = service.get("/v2/account/info").json()["info"].clone();
    assert_eq!(info["files_will_be_deleted_at"], "2030-01-31T00:00:00");
    assert_eq!(info["account_status"], "inactive");
    let accounts = json!({ "name": "two", "token": "second", "quota_bytes": 9 });
    call("POST", "/accounts", accounts.clone()).expect(200);
    call("POST", "/accounts", accounts).expect(400);
    let info = Request::bare("GET", "/v2/account/info?oauth_token=second");
    assert_eq!(service.send(info).expect(200).json()["info"]["disk"]["size"], 9);
    call("POST", "/tokens/revoke", json!({ "token": "second" })).expect(200);
    call("POST", "/reset", json!({})).expect(200);
    assert!(service.emulator.files("user").unwrap().is_empty());
}

#[test]
fn faults_speed_and_the_log_are_steered() {
    let service = service();
    let call = |method: &str, path: &str, body: Value| admin(&service, method, path, body);
    let rules = json!([{ "path": "/v2/files/list", "times": 1,
                         "fault": { "kind": "status", "status": 500 } }]);
    call("PUT", "/faults", rules).expect(200);
    service.get("/v2/files/list").expect(500);
    service.get("/v2/files/list").expect(200);
    let unknown = json!([{ "fault": { "kind": "no_such_fault" } }]);
    assert!(call("PUT", "/faults", unknown).status >= 400);
    let log = call("GET", "/log", json!({})).expect(200).json();
    assert_eq!((&log[0]["status"], &log[0]["fault"]), (&json!(500), &json!("status")));
    assert_eq!(log[1]["service"], "api");
    let expected = json!({ "allow": [{ "method": "GET", "path": "/v2/files/*" }], "at_most": 2 });
    call("POST", "/assert", expected.clone()).expect(200);
    service.get("/v2/account/info").expect(200);
    let unexpected = call("POST", "/assert", expected).expect(409).json();
    assert_eq!(unexpected["unexpected"][0]["path"], "/v2/account/info");
    call("DELETE", "/log", json!({})).expect(200);
    assert!(service.emulator.log().is_empty());

    call("POST", "/storm", json!({ "probability": 1.0, "seed": 1 })).expect(200);
    let rules = call("GET", "/faults", json!({})).expect(200).json();
    assert!(rules.as_array().unwrap().len() > 3);
    call("PUT", "/faults", json!([])).expect(200);
    call("PUT", "/speed", json!({ "latency_ms": 30 })).expect(200);
    service.get("/v2/files/list").expect(200);
    assert!(service.emulator.log().pop().unwrap().latency.as_millis() >= 30);
    call("PUT", "/speed", json!({})).expect(200);
    call("PUT", "/profile", json!({ "page_rows_max": 1 })).expect(200);
    service.folder("a", 0);
    service.folder("b", 0);
    assert_eq!(service.names(0).len(), 1);
    let limits = json!([{ "group": "account", "requests": 1, "window_seconds": 60.0 }]);
    call("PUT", "/limits", limits).expect(200);
    service.get("/v2/account/info").expect(200);
    service.get("/v2/account/info").expect(429);
    call("GET", "/violations", json!({})).expect(200);
    call("POST", "/clock", json!({ "advance_seconds": 100 })).expect(200);
    service.get("/v2/account/info").expect(200);
    let code = service.send(Request::bare("GET", "/v2/oauth2/oob/code?app_id=1000")).json();
    let code = code["code"].as_str().unwrap();
    assert_eq!(call("GET", "/codes", json!({})).json(), json!([code]));
    call("POST", &format!("/codes/{code}/approve"), json!({ "account": "user" })).expect(200);
    call("POST", "/connections/reset", json!({})).expect(200);
    call("GET", "/nowhere", json!({})).expect(404);
}
