//! Resumable uploads and forms.

use putio_emulator::options::{EmptyUpload, Overwritten, Profile};
use putio_emulator::{AccountOptions, Options};

use crate::client::{Request, Service, create_request, metadata, noise, patch_request, path_of};

fn offset(service: &Service, session: &str) -> usize {
    let answer = service.send(Request::new("HEAD", session)).expect(200);
    assert_eq!(answer.header("tus-resumable"), Some("1.0.0"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.header("upload-offset").unwrap().parse().unwrap()
}

#[test]
fn a_file_appears_with_its_last_byte() {
    let service = Service::start();
    let bytes = noise(300_000);
    let session = service.create_upload("file.bin", 0, bytes.len());
    let answer = service.patch(&session, 0, &bytes[..100_000]).expect(204);
    assert_eq!(answer.header("upload-offset"), Some("100000"));
    assert_eq!(answer.header("putio-file-id"), None);
    assert!(service.names(0).is_empty());
    assert_eq!(service.emulator.uploads("user").unwrap()[0].offset, 100_000);
    assert_eq!(offset(&service, &session), 100_000);

    let answer = service.patch(&session, 100_000, &bytes[100_000..]).expect(204);
    let crc32 = format!("{:08x}", crc32fast::hash(&bytes));
    assert_eq!(answer.header("putio-file-crc32"), Some(crc32.as_str()));
    let id = answer.header("putio-file-id").unwrap().to_owned();
    assert_eq!(service.emulator.read_file("user", "file.bin").unwrap(), bytes);
    // Whoever lost that answer asks again with nothing.
    let again = service.patch(&session, bytes.len(), b"").expect(204);
    assert_eq!(again.header("putio-file-id"), Some(id.as_str()));
    assert_eq!(again.header("putio-file-crc32"), Some(crc32.as_str()));
    assert_eq!(offset(&service, &session), bytes.len());
    assert_eq!(service.names(0), ["file.bin"]);
    assert!(service.emulator.uploads("user").unwrap().is_empty());
}

#[test]
fn chunked_bodies_and_bodies_that_wait_for_leave_are_taken() {
    let service = Service::start();
    let session = service.create_upload("chunked", 0, 11);
    let chunked = patch_request(&session, 0)
        .header("Transfer-Encoding", "chunked")
        .body(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    let answer = service.send(chunked).expect(204);
    assert!(answer.header("putio-file-id").is_some());
    assert_eq!(service.emulator.read_file("user", "chunked").unwrap(), b"hello world");

    let session = service.create_upload("patient", 0, 5);
    let mut connection = service.connect();
    let head =
        patch_request(&session, 0).header("Expect", "100-continue").header("Content-Length", "5");
    connection.write(&head.bytes()).unwrap();
    assert_eq!(connection.read_answer(false).unwrap().status, 100);
    connection.write(b"hello").unwrap();
    connection.read_answer(false).unwrap().expect(204);

    // Who would be refused is not told to go on.
    let mut connection = service.connect();
    let head =
        patch_request(&session, 3).header("Expect", "100-continue").header("Content-Length", "5");
    connection.write(&head.bytes()).unwrap();
    connection.read_answer(false).unwrap().expect(409);
}

#[test]
fn bytes_of_a_patch_that_was_cut_are_kept() {
    let service = Service::start();
    let bytes = noise(50_000);
    let session = service.create_upload("file", 0, bytes.len());
    let mut connection = service.connect();
    let head = patch_request(&session, 0).header("Content-Length", "50000");
    connection.write(&head.bytes()).unwrap();
    connection.write(&bytes[..20_000]).unwrap();
    let kept = loop {
        let offset = service.emulator.uploads("user").unwrap()[0].offset;
        if offset == 20_000 {
            break offset;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    drop(connection);
    let kept = usize::try_from(kept).unwrap();
    assert_eq!(offset(&service, &session), kept);
    service.patch(&session, kept, &bytes[kept..]).expect(204);
    assert_eq!(service.emulator.read_file("user", "file").unwrap(), bytes);
}

#[test]
fn a_wrong_offset_and_too_many_bytes_are_refused_and_the_connection_goes_on() {
    let service = Service::start();
    let session = service.create_upload("file", 0, 10);
    let mut connection = service.connect();
    let mut patch = |offset: usize, body: &[u8]| {
        connection.send(patch_request(&session, offset).body(body)).unwrap()
    };
    let conflict = patch(4, b"1234");
    assert_eq!(conflict.header("upload-offset"), Some("0"));
    assert_eq!(conflict.header("tus-resumable"), Some("1.0.0"));
    assert_eq!(conflict.error(409), "Conflict");
    assert_eq!(patch(0, b"12345678901").status, 413);
    assert_eq!(patch(0, b"12345").status, 204);
    assert_eq!(patch(0, b"12345").header("upload-offset"), Some("5"));
    assert_eq!(patch(5, b"67890").status, 204);
    assert_eq!(patch(10, b"1").status, 413);
    let wrong = Request::new("PATCH", &session).header("Upload-Offset", "10");
    assert_eq!(service.send(wrong).error(415), "UnsupportedMediaType");
    assert_eq!(service.patch("/files/unknown", 0, b"1").error(404), "NotFound");
}

#[test]
fn an_upload_says_where_to_go_and_needs_no_protocol_version() {
    let service = Service::start();
    let answer = service.send(create_request("file", 0, 3)).expect(201);
    let location = answer.header("location").unwrap();
    assert!(location.starts_with(&format!("{}/files/", service.emulator.upload_url())));
    assert_eq!(answer.header("tus-resumable"), Some("1.0.0"));
    assert_eq!(service.send(create_request("file", 77, 3)).error(404), "NotFound");
    assert_eq!(service.send(create_request("a/b", 0, 3)).error(400), "SLASH_IN_NAME");
    let bad = Request::new("POST", "/files/").header("Upload-Length", "x");
    assert_eq!(service.send(bad).error(400), "BadRequest");
    let options = service.send(Request::bare("OPTIONS", "/files/")).expect(204);
    assert_eq!(options.header("tus-version"), Some("1.0.0"));
    let nobody = Request::bare("POST", "/files/").header("Upload-Length", "1");
    assert_eq!(service.send(nobody).error(401), "Unauthorized");

    let session = path_of(location);
    service.send(Request::new("DELETE", &session)).expect(204);
    assert_eq!(service.send(Request::new("HEAD", &session)).status, 404);
}

#[test]
fn a_time_is_taken_over_with_the_upload() {
    let service = Service::start();
    let pairs =
        [("filename", "f"), ("parent_id", "0"), ("updated-at", "2001-02-03T04:05:06.7-01:00")];
    let create = Request::new("POST", "/files/")
        .header("Upload-Length", "1")
        .header("Upload-Metadata", &metadata(&pairs));
    let session = path_of(service.send(create).expect(201).header("location").unwrap());
    service.patch(&session, 0, b"1").expect(204);
    let found = service.get("/v2/files/0/child?name=f").expect(200).json();
    assert_eq!(found["file"]["updated_at"], "2001-02-03T05:05:06");
}

#[test]
fn empty_files_are_finished_when_the_profile_says_so() {
    for (empty_upload, early) in [(EmptyUpload::OnCreate, true), (EmptyUpload::OnPatch, false)] {
        let profile = Profile { empty_upload, ..Profile::default() };
        let service = Service::with(Options { profile, ..Options::default() });
        let answer = service.send(create_request("empty", 0, 0)).expect(201);
        assert_eq!(answer.header("putio-file-id").is_some(), early);
        assert_eq!(service.names(0).len(), usize::from(early));
        let session = path_of(answer.header("location").unwrap());
        let answer = service.patch(&session, 0, b"").expect(204);
        assert!(answer.header("putio-file-id").is_some());
        assert_eq!(answer.header("putio-file-crc32"), Some("00000000"));
        assert_eq!(service.names(0), ["empty"]);
    }
}

#[test]
fn a_second_file_of_a_name_stands_beside_the_first_unless_it_overwrites() {
    let upload = |service: &Service, overwrite: &str, body: &[u8]| {
        let pairs = [("name", "f"), ("parent_id", "0"), ("overwrite", overwrite)];
        let create = Request::new("POST", "/files/")
            .header("Upload-Length", &body.len().to_string())
            .header("Upload-Metadata", &metadata(&pairs));
        let answer = service.send(create).expect(201);
        let session = path_of(answer.header("location").unwrap());
        let answer = service.patch(&session, 0, body).expect(204);
        answer.header("putio-file-id").unwrap().parse::<i64>().unwrap()
    };
    for (overwritten, same_id, trashed) in [
        (Overwritten::Removed, false, 0),
        (Overwritten::Trashed, false, 1),
        (Overwritten::SameId, true, 0),
    ] {
        let profile = Profile { overwritten, ..Profile::default() };
        let service = Service::with(Options { profile, ..Options::default() });
        let first = upload(&service, "false", b"one");
        let second = upload(&service, "true", b"two");
        assert_eq!(first == second, same_id, "{overwritten:?}");
        assert_eq!(service.names(0), ["f"]);
        assert_eq!(service.emulator.read_file("user", "f").unwrap(), b"two");
        assert_eq!(service.emulator.trash("user").unwrap().len(), trashed);
        upload(&service, "false", b"three");
        assert_eq!(service.names(0), ["f", "f"]);
    }
}

#[test]
fn the_quota_holds_when_an_upload_begins_and_when_it_ends() {
    let mut account = AccountOptions::new("user", "emulator-token");
    account.quota_bytes = 10;
    let service = Service::with(Options { accounts: vec![account], ..Options::default() });
    assert_eq!(service.send(create_request("f", 0, 11)).error(403), "NOT_ENOUGH_SPACE");
    let (one, other) = (service.create_upload("f", 0, 8), service.create_upload("g", 0, 8));
    service.patch(&one, 0, b"12345678").expect(204);
    assert_eq!(service.patch(&other, 0, b"12345678").error(403), "NOT_ENOUGH_SPACE");
    let disk = service.get("/v2/account/info").json()["info"]["disk"].clone();
    assert_eq!(disk, serde_json::json!({ "avail": 2, "size": 10, "used": 8 }));
    // With room again, the bytes that are there become a file.
    service.emulator.set_quota("user", 100).unwrap();
    let answer = service.patch(&other, 8, b"").expect(204);
    assert!(answer.header("putio-file-id").is_some());
}

#[test]
fn torrents_are_started_unless_they_are_protected() {
    let service = Service::start();
    let torrent = b"d8:announce3:url4:infod4:name1:aee";
    assert!(service.upload("a.torrent", 0, torrent) > 0);
    let create = Request::new("POST", "/files/")
        .header("Upload-Length", &torrent.len().to_string())
        .header("Upload-Metadata", &metadata(&[("name", "b.torrent"), ("parent_id", "0")]));
    let session = path_of(service.send(create).expect(201).header("location").unwrap());
    let answer = service.patch(&session, 0, torrent).expect(204);
    assert_eq!(answer.header("putio-file-id"), None);
    assert_eq!(service.names(0), ["a.torrent"]);
    let transfers = service.get("/v2/transfers/list").expect(200).json();
    assert_eq!(transfers["transfers"][0]["name"], "b.torrent");
}

fn form(target: &str, fields: &[(&str, &str)], file: Option<(&str, &str)>) -> Request {
    let mut body = String::new();
    for (name, value) in fields {
        body.push_str(&format!(
            "--mark\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        ));
    }
    if let Some((name, content)) = file {
        body.push_str(&format!(
            "--mark\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n{content}\r\n"
        ));
    }
    body.push_str("--mark--\r\n");
    Request::bare("POST", target)
        .header("Content-Type", "multipart/form-data; boundary=mark")
        .body(body.as_bytes())
}

#[test]
fn forms_are_uploads_too() {
    let service = Service::start();
    let folder = service.folder("folder", 0);
    let parent = folder.to_string();
    let target = "/v2/files/upload?oauth_token=emulator-token";
    let sent = form(target, &[("parent_id", &parent)], Some(("a.txt", "content")));
    let answer = service.send(sent).expect(200).json();
    assert_eq!(
        (&answer["file"]["name"], &answer["file"]["parent_id"]),
        (&"a.txt".into(), &folder.into())
    );
    let sent = form("/?oauth_token=emulator-token", &[("filename", "b")], Some(("x", "2")));
    assert_eq!(service.send(sent).expect(200).json()["file"]["name"], "b");
    let sent = form(target, &[("torrent", "true")], Some(("x", "2")));
    assert_eq!(service.send(sent).error(400), "NotTorrent");
    let sent = form(target, &[], Some(("x", "d8:announce3:url4:infod4:name1:aee")));
    assert_eq!(service.send(sent).expect(200).json()["transfer"]["name"], "x");
    assert_eq!(service.send(form(target, &[], None)).error(400), "BadRequest");
    let nobody = form("/v2/files/upload", &[], Some(("x", "2")));
    assert_eq!(service.send(nobody).error(401), "Unauthorized");
    assert_eq!(service.names(0), ["b", "folder"]);
}

#[test]
fn finished_uploads_are_forgotten_where_the_profile_says_so() {
    let profile = Profile { forgets_finished_uploads: true, ..Profile::default() };
    let service = Service::with(Options { profile, ..Options::default() });
    let session = service.create_upload("f", 0, 1);
    service.patch(&session, 0, b"1").expect(204);
    assert_eq!(service.send(Request::new("HEAD", &session)).status, 404);
}
