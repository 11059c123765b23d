//! Sign-in and what tokens may do.

use std::time::Duration;

use putio_emulator::options::{Approval, Profile};
use putio_emulator::{AccountOptions, Options};
use serde_json::json;

use crate::client::{Answer, Request, Service};

fn get(service: &Service, target: &str) -> Answer {
    service.send(Request::bare("GET", target))
}

/// The status that a token gets.
fn status(service: &Service, authorization: &str) -> u16 {
    let request = Request::bare("GET", "/v2/account/info");
    service.send(request.header("Authorization", authorization)).status
}

const REDIRECT: &str = "http%3A%2F%2Flocalhost%3A53682%2F";

#[test]
fn tokens_come_in_headers_of_three_kinds_and_in_queries() {
    let service = Service::start();
    for kind in ["Bearer", "token", "Token", "bearer"] {
        assert_eq!(status(&service, &format!("{kind} emulator-token")), 200);
    }
    get(&service, "/v2/account/info?oauth_token=emulator-token").expect(200);
    assert_eq!(get(&service, "/v2/account/info").error(401), "invalid_grant");
    assert_eq!(status(&service, "Bearer wrong"), 401);
    assert_eq!(service.get("/v2/oauth/grants/").error(401), "invalid_scope");
}

#[test]
fn a_browser_brings_back_a_code_that_is_good_once() {
    let service = Service::start();
    let ask = |query: &str| get(&service, &format!("/v2/oauth2/authenticate?{query}"));
    let target = format!("client_id=1000&redirect_uri={REDIRECT}&response_type=code&state=a%26b");
    let location = ask(&target).expect(302).header("location").unwrap().to_owned();
    let rest = location.strip_prefix("http://localhost:53682/?code=").unwrap();
    let (code, echo) = rest.split_once('&').unwrap();
    assert_eq!(echo, "state=a%26b");
    let form = format!(
        "client_id=1000&client_secret=emulator-secret&grant_type=authorization_code&code={code}\
         &redirect_uri={REDIRECT}"
    );
    let exchange =
        |form: &str| service.send(Request::bare("POST", "/v2/oauth2/access_token").form(form));
    let token = exchange(&form).expect(200).json();
    assert_eq!(token.as_object().unwrap().len(), 1);
    let token = token["access_token"].as_str().unwrap().to_owned();
    assert_eq!(status(&service, &format!("Bearer {token}")), 200);
    let again = exchange(&form).expect(400).json();
    assert_eq!(again["error"], "access_denied");
    let wrong = exchange("client_id=1000&client_secret=wrong&code=x").expect(400).json();
    assert_eq!(wrong["error"], "unauthorized_client");

    for bad in [
        format!("client_id=1&redirect_uri={REDIRECT}&response_type=code"),
        "client_id=1000&redirect_uri=http%3A%2F%2Felsewhere%2F&response_type=code".to_owned(),
        format!("client_id=1000&redirect_uri={REDIRECT}&response_type=other"),
    ] {
        ask(&bad).expect(400);
    }
    let target = format!("client_id=1000&redirect_uri={REDIRECT}&response_type=token");
    let location = ask(&target).expect(302).header("location").unwrap().to_owned();
    let token = location.strip_prefix("http://localhost:53682/#access_token=").unwrap();
    assert_eq!(status(&service, &format!("Token {token}")), 200);
}

#[test]
fn a_code_is_exchanged_with_basic_unless_the_profile_refuses_it() {
    for (refuses_basic, expected) in [(false, 200), (true, 400)] {
        let profile = Profile { refuses_basic, ..Profile::default() };
        let service = Service::with(Options { profile, ..Options::default() });
        let query = format!("client_id=1000&redirect_uri={REDIRECT}&response_type=code");
        let answer = get(&service, &format!("/authenticate?{query}")).expect(302);
        let code = answer.header("location").unwrap().split("code=").nth(1).unwrap().to_owned();
        let form = format!("grant_type=authorization_code&code={code}&redirect_uri={REDIRECT}");
        let request = Request::bare("POST", "/v2/oauth2/access_token")
            // 1000:emulator-secret
            .header("Authorization", "Basic MTAwMDplbXVsYXRvci1zZWNyZXQ=")
            .form(&form);
        assert_eq!(service.send(request).status, expected);
    }
}

#[test]
fn a_device_code_waits_until_it_is_linked() {
    let service = Service::with(Options { approval: Approval::Manual, ..Options::default() });
    let new = || get(&service, "/v2/oauth2/oob/code?app_id=1000&client_name=x").expect(200).json();
    let made = new();
    let code = made["code"].as_str().unwrap();
    assert!(made["qr_code_url"].as_str().unwrap().ends_with(code));
    let poll = || get(&service, &format!("/v2/oauth2/oob/code/{code}"));
    for _ in 0..3 {
        assert_eq!(poll().expect(200).json()["oauth_token"], json!(null));
    }
    assert_eq!(service.emulator.codes(), [code]);
    service.emulator.approve_code(&code.to_lowercase(), "user").unwrap();
    let token = poll().expect(200).json()["oauth_token"].as_str().unwrap().to_owned();
    assert_eq!(status(&service, &format!("Bearer {token}")), 200);
    assert_eq!(poll().error(404), "NotFound");

    // The same by somebody who is signed in, and on the page.
    let code = new()["code"].as_str().unwrap().to_owned();
    service.post("/v2/oauth2/oob/code", &format!("code={code}")).expect(200);
    assert_eq!(service.post("/v2/oauth2/oob/code", "code=NONE").error(404), "NotFound");
    let code = new()["code"].as_str().unwrap().to_owned();
    let page = get(&service, &format!("/link?code={code}")).expect(200);
    assert!(String::from_utf8(page.body).unwrap().contains(&code));
    let form = format!("code={code}&account=user");
    service.send(Request::bare("POST", "/link").form(&form)).expect(200);
    let linked = get(&service, &format!("/v2/oauth2/oob/code/{code}")).json();
    assert!(linked["oauth_token"].is_string());

    let code = new()["code"].as_str().unwrap().to_owned();
    service.emulator.advance_clock(Duration::from_secs(601));
    assert_eq!(get(&service, &format!("/v2/oauth2/oob/code/{code}")).error(404), "NotFound");
    get(&service, "/v2/oauth2/oob/code?app_id=1").expect(400);
}

#[test]
fn a_device_code_is_linked_by_itself_after_one_poll() {
    let profile = Profile { code_once: false, ..Profile::default() };
    let service = Service::with(Options { profile, ..Options::default() });
    let made = get(&service, "/v2/oauth2/oob/code?app_id=1000").expect(200).json();
    let target = format!("/v2/oauth2/oob/code/{}", made["code"].as_str().unwrap());
    let poll = || get(&service, &target).expect(200).json()["oauth_token"].clone();
    assert!(poll().is_null());
    let token = poll();
    assert!(token.is_string());
    assert_eq!(poll(), token);
}

#[test]
fn the_manual_page_asks_a_person() {
    let mut options = Options { approval: Approval::Manual, ..Options::default() };
    options.accounts.push(AccountOptions::new("o<ther", "t"));
    let service = Service::with(options);
    let query = format!("client_id=1000&redirect_uri={REDIRECT}&response_type=code&state=s");
    let page = get(&service, &format!("/v2/oauth2/authenticate?{query}")).expect(200);
    let page = String::from_utf8(page.body).unwrap();
    assert!(page.contains("Allow as user") && page.contains("o&lt;ther"));
    let press = |account: &str| {
        let form = format!("{query}&account={account}");
        let answer = service.send(Request::bare("POST", "/v2/oauth2/authenticate").form(&form));
        answer.expect(302).header("location").unwrap().to_owned()
    };
    assert!(press("user").contains("?code="));
    assert!(press("").contains("?error=access_denied"));
}

#[test]
fn a_name_and_a_password_give_a_token() {
    let mut account = AccountOptions::new("user", "emulator-token");
    account.password = Some("secret".to_owned());
    let service = Service::with(Options { accounts: vec![account], ..Options::default() });
    let put = |secret: &str, basic: &str| {
        let target = format!("/v2/oauth2/authorizations/clients/1000/x?client_secret={secret}");
        service.send(Request::bare("PUT", &target).header("Authorization", basic))
    };
    // user:secret
    let answer = put("emulator-secret", "Basic dXNlcjpzZWNyZXQ=").expect(200).json();
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(
        (status(&service, &format!("Bearer {token}")), &answer["user_id"]),
        (200, &json!(1001))
    );
    // user:wrong
    assert_eq!(put("emulator-secret", "Basic dXNlcjp3cm9uZw==").status, 401);
    let refused = put("wrong", "Basic dXNlcjpzZWNyZXQ=");
    assert_eq!(refused.error(403), "invalid_app_credentials");
}

#[test]
fn tokens_are_validated_revoked_and_limited_to_their_scope() {
    let service = Service::start();
    let validate = |token: &str| {
        get(&service, &format!("/v2/oauth2/validate?oauth_token={token}")).expect(200).json()
    };
    let valid = validate("emulator-token");
    assert_eq!((&valid["result"], &valid["token_scope"]), (&json!(true), &json!("default")));
    assert_eq!(validate("wrong")["user_id"], json!(null));

    let info = service.get("/v2/account/info?download_token=1").expect(200).json();
    let token = info["info"]["download_token"].as_str().unwrap();
    assert_eq!(validate(token)["token_scope"], "files_download");
    let id = service.emulator.seed_file("user", "file", b"1").unwrap();
    get(&service, &format!("/v2/files/{id}/url?oauth_token={token}")).expect(200);
    let refused = get(&service, &format!("/v2/files/list?oauth_token={token}"));
    assert_eq!(refused.error(401), "invalid_scope");

    service.post("/v2/oauth/grants/logout", "").expect(200);
    assert_eq!(service.get("/v2/account/info").status, 401);
    assert!(service.emulator.revoke_token("emulator-token").is_err());
}

#[test]
fn an_application_keeps_values_of_its_own() {
    let service = Service::start();
    let put = |path: &str, body: serde_json::Value| {
        service.send(Request::new("PUT", path).json(&body)).expect(200)
    };
    put("/v2/config", json!({ "config": { "a": 1 } }));
    put("/v2/config/b", json!({ "value": [1, 2] }));
    let all = service.get("/v2/config").expect(200).json();
    assert_eq!(all["config"], json!({ "a": 1, "b": [1, 2] }));
    assert_eq!(service.get("/v2/config/b").json()["value"], json!([1, 2]));
    service.send(Request::new("DELETE", "/v2/config/b")).expect(200);
    assert_eq!(service.get("/v2/config/b").error(404), "NotFound");
    for path in ["/v2/events/list", "/v2/transfers/list", "/v2/zips/list", "/v2/friends/list"] {
        service.get(path).expect(200);
    }
}
