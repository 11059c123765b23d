//! Sign-in by code and by browser.

use std::time::Duration;

use putio::auth::{DeviceCode, Loopback, SignIn};
use putio::{ErrorKind, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{Head, Reply, Server, in_turn};

const PAUSE: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_code_is_confirmed_after_a_while() {
    let server = Server::start(|head: &Head, _: &[u8]| {
        assert_eq!(head.header("authorization"), None);
        match (head.number, head.path.as_str()) {
            (0, "/v2/oauth2/oob/code") => {
                assert_eq!(
                    (head.query["app_id"].as_str(), head.query["client_name"].as_str()),
                    ("77", "my box")
                );
                Reply::json(200, r#"{"status":"OK","code":"ABC123","qr_code_url":null}"#)
            }
            (1 | 3, "/v2/oauth2/oob/code/ABC123") => {
                Reply::json(200, r#"{"status":"OK","oauth_token":null}"#)
            }
            (2, _) => Reply::Close,
            (_, "/v2/oauth2/oob/code/ABC123") => {
                Reply::json(200, r#"{"status":"OK","oauth_token":"TOK"}"#)
            }
            other => panic!("{other:?}"),
        }
    })
    .await;
    let sign_in = SignIn::new(&server.options()).unwrap();
    let code = sign_in.request_code("77", "my box").await.unwrap();
    assert_eq!(code, DeviceCode { code: "ABC123".to_owned(), qr_code_url: None });
    let token = sign_in.wait(&code, PAUSE, LIMIT).await.unwrap();
    assert_eq!(token.expose(), "TOK");
}

#[tokio::test]
async fn codes_expire() {
    let code = DeviceCode { code: "ABC123".to_owned(), qr_code_url: None };
    let gone = Server::start(in_turn(vec![|| Reply::error(404, "NotFound")])).await;
    let sign_in = SignIn::new(&gone.options()).unwrap();
    assert_eq!(sign_in.poll(&code).await.unwrap_err().kind, ErrorKind::Expired);
    assert_eq!(sign_in.wait(&code, PAUSE, LIMIT).await.unwrap_err().kind, ErrorKind::Expired);

    let pending = || Reply::json(200, r#"{"oauth_token":null}"#);
    let slow = Server::start(in_turn(vec![pending])).await;
    let sign_in = SignIn::new(&slow.options()).unwrap();
    let limit = Duration::from_millis(50);
    assert_eq!(sign_in.wait(&code, PAUSE, limit).await.unwrap_err().kind, ErrorKind::Expired);
}

#[tokio::test]
async fn a_code_nobody_could_type_is_refused() {
    for code in ["", "../../account", "\\u001b[2J"] {
        let body = format!(r#"{{"code":"{code}"}}"#);
        let server = Server::start(move |_: &Head, _: &[u8]| Reply::json(200, body.clone())).await;
        let sign_in = SignIn::new(&server.options()).unwrap();
        let error = sign_in.request_code("77", "x").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt, "{code}");
    }
}

#[tokio::test]
async fn a_browsers_code_is_exchanged_with_the_secret_in_the_body() {
    let server =
        Server::start(in_turn(vec![|| Reply::json(200, r#"{"access_token":"TOK"}"#), || {
            Reply::json(400, r#"{"error":"access_denied"}"#)
        }]))
        .await;
    let sign_in = SignIn::new(&server.options()).unwrap();
    let secret = Token::new("hush".to_owned()).unwrap();
    let redirect = "http://127.0.0.1:53682/";
    let token = sign_in.exchange("77", &secret, redirect, "c0de").await.unwrap();
    assert_eq!(token.expose(), "TOK");
    let received = &server.received()[0];
    assert!(received.head.is("POST", "/v2/oauth2/access_token"));
    assert!(received.head.query.is_empty());
    let form = received.form();
    for (key, value) in [
        ("client_id", "77"),
        ("client_secret", "hush"),
        ("grant_type", "authorization_code"),
        ("redirect_uri", redirect),
        ("code", "c0de"),
    ] {
        assert_eq!(form[key], value);
    }
    let error = sign_in.exchange("77", &secret, redirect, "c0de").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.to_string().contains("access_denied"), "{error}");

    let url = sign_in.authorize_url("77", redirect, "s t&");
    let expected = format!(
        "{}/v2/oauth2/authenticate?client_id=77&response_type=code\
         &redirect_uri=http%3A%2F%2F127.0.0.1%3A53682%2F&state=s+t%26",
        server.url
    );
    assert_eq!(url, expected);
}

async fn browse(base: &str, target: &str) -> String {
    let address = base.strip_prefix("http://").unwrap().trim_end_matches('/');
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{target} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    // In two pieces, as it may come.
    let (first, second) = request.split_at(request.len() / 2);
    stream.write_all(first.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream.write_all(second.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_browser_comes_back_with_the_right_state_only() {
    let loopback = Loopback::bind(0).unwrap();
    let base = loopback.redirect_uri();
    assert!(base.starts_with("http://127.0.0.1:") && base.ends_with('/'), "{base}");
    let waiting = tokio::spawn(loopback.wait("s1", LIMIT));
    // A connection that a browser opens in advance.
    let address = base.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
    let _idle = TcpStream::connect(&address).await.unwrap();
    for (target, status) in [
        ("GET /?code=x&state=s2", "HTTP/1.1 400 Bad Request"),
        ("GET /?code=x", "HTTP/1.1 400 Bad Request"),
        ("GET /?state=s1", "HTTP/1.1 400 Bad Request"),
        ("GET /favicon.ico?code=x&state=s1", "HTTP/1.1 404 Not Found"),
        ("POST /?code=x&state=s1", "HTTP/1.1 405 Method Not Allowed"),
        ("GET http://elsewhere.example/?code=x&state=s1", "HTTP/1.1 405 Method Not Allowed"),
        ("GET /?code=the%20code&state=s1", "HTTP/1.1 200 OK"),
    ] {
        assert_eq!(browse(&base, target).await, status, "{target}");
    }
    assert_eq!(waiting.await.unwrap().unwrap(), "the code");
}

#[tokio::test]
async fn a_person_can_say_no_or_nothing() {
    let loopback = Loopback::bind(0).unwrap();
    let base = loopback.redirect_uri();
    let waiting = tokio::spawn(loopback.wait("s1", LIMIT));
    browse(&base, "GET /?error=access_denied&state=s1").await;
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Denied, "access_denied"));

    let loopback = Loopback::bind(0).unwrap();
    let error = loopback.wait("s1", Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Expired);
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let first = Loopback::bind(0).unwrap();
    let port = first.redirect_uri().trim_end_matches('/').rsplit(':').next().unwrap().parse();
    assert_eq!(Loopback::bind(port.unwrap()).unwrap_err().kind, ErrorKind::Local);
}
