//! put.io and its names with TLS, behind a proxy and on a port of their own.

use std::net::TcpStream;
use std::sync::Arc;

use putio_emulator::{Fault, FaultRule, Options};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::client::{Connection, Request, Service, create_request};

type Tls = Connection<StreamOwned<ClientConnection, TcpStream>>;

fn service() -> Service {
    Service::with(Options { proxy_port: Some(0), tls_port: Some(0), ..Options::default() })
}

/// Asks the proxy for a host; the stream, and what it answered.
fn tunnel(service: &Service, target: &str) -> (TcpStream, String) {
    use std::io::{Read as _, Write as _};
    let proxy = service.emulator.proxy_url().unwrap();
    let mut stream = TcpStream::connect(proxy.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        answer.push(byte[0]);
    }
    (stream, String::from_utf8(answer).unwrap())
}

fn secure(service: &Service, stream: TcpStream, host: &str) -> Tls {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(service.emulator.ca_pem().as_bytes()).unwrap();
    roots.add(authority).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = host.to_owned().try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    Connection::over(StreamOwned::new(connection, stream))
}

fn connect(service: &Service, host: &str) -> Tls {
    let (stream, answer) = tunnel(service, &format!("{host}:443"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    secure(service, stream, host)
}

/// The same request as to put.io itself.
fn to(host: &str, request: Request) -> Request {
    request.with_host(host)
}

#[test]
fn links_name_the_hosts_of_put_io_and_each_host_serves_its_own() {
    let service = service();
    let id = service.emulator.seed_file("user", "file", b"content").unwrap();
    let mut api = connect(&service, "api.put.io");
    let url = api.send(to("api.put.io", Request::new("GET", &format!("/v2/files/{id}/url"))));
    let url = url.unwrap().expect(200).json()["url"].as_str().unwrap().to_owned();
    let target = url.strip_prefix("https://s01.put.io").unwrap();
    let mut storage = connect(&service, "s01.put.io");
    let bytes = storage.send(to("s01.put.io", Request::bare("GET", target))).unwrap();
    assert_eq!(bytes.expect(200).body, b"content");
    let foreign = storage.send(to("s01.put.io", Request::new("GET", "/v2/files/list"))).unwrap();
    assert_eq!(foreign.error(404), "NotFound");

    let mut upload = connect(&service, "upload.put.io");
    let made = upload.send(to("upload.put.io", create_request("f", 0, 1))).unwrap().expect(201);
    assert!(made.header("location").unwrap().starts_with("https://upload.put.io/files/"));
    let form = to("api.put.io", Request::new("POST", "/v2/files/upload?parent_id=0"));
    let redirect = api.send(form).unwrap().expect(307);
    let location = "https://upload.put.io/v2/files/upload?parent_id=0";
    assert_eq!(redirect.header("location"), Some(location));
    let mut app = connect(&service, "app.put.io");
    app.send(to("app.put.io", Request::bare("GET", "/link"))).unwrap().expect(200);
}

#[test]
fn the_proxy_leads_nowhere_else() {
    let service = service();
    for target in ["example.com:443", "put.io.example.com:443", "127.0.0.1:22", "xput.io:443"] {
        let (_, answer) = tunnel(&service, target);
        assert!(answer.starts_with("HTTP/1.1 502 "), "{target}: {answer}");
    }
    let mut plain = Connection::open(&service.emulator.proxy_url().unwrap());
    let answer = plain.send(Request::bare("GET", "http://api.put.io/v2/files/list")).unwrap();
    assert_eq!(answer.status, 502);
    assert!(service.emulator.log().is_empty());
}

#[test]
fn the_port_for_tls_needs_no_proxy_and_resets_reach_through_tls() {
    let service = service();
    let open = || {
        let stream = TcpStream::connect(service.emulator.tls_address().unwrap()).unwrap();
        secure(&service, stream, "api.put.io")
    };
    let list = || to("api.put.io", Request::new("GET", "/v2/files/list"));
    open().send(list()).unwrap().expect(200);
    service.emulator.set_faults(vec![FaultRule::new(Fault::ResetAfter).host("api.*")]);
    let error = open().send(list()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
