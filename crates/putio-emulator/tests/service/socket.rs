//! Notifications.

use crate::client::{Connection, Request, Service};

fn frame(text: &str) -> Vec<u8> {
    // A masked text frame (RFC 6455, section 5.2), with a mask that changes nothing.
    let mut bytes = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn open(service: &Service, token: &str) -> Connection {
    let mut connection = service.connect();
    let request = Request::bare("GET", "/socket/sockjs/websocket")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    connection.send(request).unwrap().expect(101);
    connection.write(&frame(token)).unwrap();
    connection
}

/// Opcode and payload of the next frame.
fn next(connection: &mut Connection) -> (u8, Vec<u8>) {
    let (head, _) = connection.read_up_to(2);
    let length = usize::from(head[1]);
    assert!(length < 126);
    (head[0] & 0x0f, connection.read_up_to(length).0)
}

#[test]
fn who_listens_is_told_of_changes_and_a_wrong_token_is_turned_away() {
    let service = Service::start();
    let mut connection = open(&service, "emulator-token");
    // Until the token was looked at, changes may pass unnoticed: make some until one is told of.
    let told = std::thread::scope(|scope| {
        let told = scope.spawn(|| next(&mut connection));
        let mut number = 0;
        while !told.is_finished() {
            service.folder(&format!("f{number}"), 0);
            number += 1;
        }
        told.join().unwrap()
    });
    let message: serde_json::Value = serde_json::from_slice(&told.1).unwrap();
    assert_eq!(message["type"], "file_create");
    let name = message["value"]["name"].as_str().unwrap();
    let id = message["value"]["id"].as_i64().unwrap();
    let files = service.emulator.files("user").unwrap();
    assert!(files.iter().any(|file| file.id == id && file.name == name));

    let (opcode, payload) = next(&mut open(&service, "wrong"));
    assert_eq!((opcode, u16::from_be_bytes([payload[0], payload[1]])), (8, 4001));
}
