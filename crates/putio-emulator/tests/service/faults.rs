//! Faults as clients see them.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use putio_emulator::faults::{ErrorBody, MissingChecksum};
use putio_emulator::{Fault, FaultRule, storm};

use crate::client::{Request, Service, create_request, noise, patch_request, path_of};

fn failing(fault: Fault) -> Service {
    let service = Service::start();
    service.emulator.set_faults(vec![FaultRule::new(fault)]);
    service
}

fn list() -> Request {
    Request::new("GET", "/v2/files/list")
}

#[test]
fn errors_are_made_up_with_every_kind_of_body() {
    let status = |body| Fault::Status { status: 503, body, error_type: None, executed: false };
    failing(status(ErrorBody::Json)).send(list()).error(503);
    let page = failing(status(ErrorBody::Html)).send(list()).expect(503);
    assert_eq!(page.header("content-type"), Some("text/html"));
    let nothing = failing(status(ErrorBody::Empty)).send(list()).expect(503);
    assert_eq!((nothing.body.len(), nothing.header("content-length")), (0, Some("0")));

    let broken = failing(Fault::InvalidJson).send(list()).expect(200);
    assert_eq!(broken.header("content-type"), Some("application/json"));
    assert!(
        broken.body.len() > 250
            && serde_json::from_slice::<serde_json::Value>(&broken.body).is_err()
    );
    let half = failing(Fault::TruncatedJson).send(list()).expect(200);
    assert!(serde_json::from_slice::<serde_json::Value>(&half.body).is_err());
    let other = Fault::ContentType { content_type: "text/plain".to_owned() };
    assert_eq!(failing(other).send(list()).header("content-type"), Some("text/plain"));
}

#[test]
fn connections_end_before_and_after_execution() {
    for (fault, kind, executed) in [
        (Fault::ResetBefore, ErrorKind::ConnectionReset, false),
        (Fault::ResetAfter, ErrorKind::ConnectionReset, true),
        (Fault::Close { executed: false }, ErrorKind::UnexpectedEof, false),
        (Fault::Close { executed: true }, ErrorKind::UnexpectedEof, true),
    ] {
        let service = failing(fault.clone());
        let request = Request::new("POST", "/v2/files/create-folder").form("name=folder");
        let error = service.attempt(request).unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}");
        let files = service.emulator.files("user").unwrap();
        assert_eq!(files.len(), usize::from(executed), "{fault:?}");
        let log = service.emulator.log();
        assert_eq!((log[0].status, log[0].fault.as_deref()), (None, Some(fault.name())));
    }
    let service = failing(Fault::Status {
        status: 504,
        body: ErrorBody::Html,
        error_type: None,
        executed: true,
    });
    service.post("/v2/files/create-folder", "name=folder").expect(504);
    assert_eq!(service.emulator.files("user").unwrap().len(), 1);
}

#[test]
fn answers_are_late_slow_or_never_come() {
    let began = Instant::now();
    failing(Fault::Slow { milliseconds: 60 }).send(list()).expect(200);
    assert!(began.elapsed() >= Duration::from_millis(60));

    let service = Service::start();
    let id = service.emulator.seed_file("user", "f", &noise(300)).unwrap();
    let link = service.link(id);
    service.emulator.set_faults(vec![FaultRule::new(Fault::Trickle { bytes_per_second: 1_000 })]);
    let began = Instant::now();
    service.send(Request::bare("GET", &link)).expect(200);
    assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());

    let service = failing(Fault::Hang { executed: true, milliseconds: Some(50) });
    let request = Request::new("POST", "/v2/files/create-folder").form("name=folder");
    assert_eq!(service.attempt(request).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(service.emulator.files("user").unwrap().len(), 1);
    let service = failing(Fault::Hang { executed: false, milliseconds: None });
    let mut connection = service.connect();
    connection.write(&list().bytes()).unwrap();
    while service.emulator.log().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    service.emulator.reset_connections();
    assert_eq!(connection.read_head().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn answers_are_cut() {
    let service = failing(Fault::CutResponse { after_bytes: 10, reset: false });
    assert_eq!(service.attempt(list()).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    let service = failing(Fault::CutResponse { after_bytes: 10, reset: true });
    assert_eq!(service.attempt(list()).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_cut_request_keeps_what_an_upload_brought_and_executes_nothing_else() {
    let service = Service::start();
    let bytes = noise(200_000);
    let session = service.create_upload("f", 0, bytes.len());
    for (reset, kind) in [(true, ErrorKind::ConnectionReset), (false, ErrorKind::UnexpectedEof)] {
        let fault = Fault::CutRequest { after_bytes: 70_001, reset };
        service.emulator.set_faults(vec![FaultRule::new(fault).method("PATCH").nth(1)]);
        let before = service.emulator.uploads("user").unwrap()[0].offset;
        let start = usize::try_from(before).unwrap();
        let request = patch_request(&session, start).body(&bytes[start..]);
        let error = service.attempt(request).unwrap_err();
        // A client may see the end while it still sends.
        assert!(
            error.kind() == kind
                || error.kind() == ErrorKind::BrokenPipe
                || error.kind() == ErrorKind::ConnectionReset,
            "{error:?}"
        );
        assert_eq!(service.emulator.uploads("user").unwrap()[0].offset, before + 70_001);
    }
    let rest = &bytes[140_002..];
    service.patch(&session, 140_002, rest).expect(204);
    assert_eq!(service.emulator.read_file("user", "f").unwrap(), bytes);

    let service = failing(Fault::CutRequest { after_bytes: 3, reset: true });
    let request = Request::new("POST", "/v2/files/create-folder").form("name=folder");
    service.attempt(request).unwrap_err();
    assert!(service.emulator.files("user").unwrap().is_empty());
}

#[test]
fn uploads_fail_in_ways_of_their_own() {
    let service = Service::start();
    let set = |fault: Fault| service.emulator.set_faults(vec![FaultRule::new(fault)]);
    let begin = || {
        service.emulator.clear_faults();
        service.create_upload("f", 0, 10)
    };
    let session = begin();
    set(Fault::ForgetSession);
    assert_eq!(service.patch(&session, 0, b"1").error(404), "NotFound");

    let session = begin();
    service.patch(&session, 0, b"12345").expect(204);
    set(Fault::OffsetBack { bytes: 2 });
    let head = service.send(Request::new("HEAD", &session)).expect(200);
    assert_eq!(head.header("upload-offset"), Some("3"));
    set(Fault::OffsetConflict);
    let conflict = service.patch(&session, 3, b"4567890").expect(409);
    assert_eq!(conflict.header("upload-offset"), Some("3"));
    set(Fault::CorruptUpload);
    let done = service.patch(&session, 3, b"4567890").expect(204);
    let right = format!("{:08x}", crc32fast::hash(b"1234567890"));
    assert_ne!(done.header("putio-file-crc32"), Some(right.as_str()));
    let stored = service.emulator.read_file("user", "f").unwrap();
    let told = format!("{:08x}", crc32fast::hash(&stored));
    assert_eq!(done.header("putio-file-crc32"), Some(told.as_str()));

    let session = begin();
    set(Fault::OmitFileId);
    service.patch(&session, 0, b"12345").expect(204);
    let done = service.patch(&session, 5, b"67890").expect(204);
    assert_eq!((done.header("putio-file-id"), done.header("putio-file-crc32")), (None, None));
    let last = service.emulator.log().pop().unwrap();
    assert_eq!(last.fault.as_deref(), Some("omit_file_id"));

    let session = begin();
    set(Fault::FullAtFinish);
    assert_eq!(service.patch(&session, 0, b"1234567890").error(403), "NOT_ENOUGH_SPACE");
    set(Fault::DuplicateUpload);
    let before = service.emulator.files("user").unwrap().len();
    service.patch(&session, 10, b"").expect(204);
    assert_eq!(service.emulator.files("user").unwrap().len(), before + 2);

    set(Fault::FullAtCreate);
    assert_eq!(service.send(create_request("f", 0, 1)).error(403), "NOT_ENOUGH_SPACE");
    set(Fault::RelativeLocation);
    let answer = service.send(create_request("f", 0, 1)).expect(201);
    assert!(answer.header("location").unwrap().starts_with("/files/"));
}

#[test]
fn metadata_plans_and_tokens_go_wrong() {
    let service = Service::start();
    let id = service.upload("f", 0, b"1");
    let set = |fault: Fault| service.emulator.set_faults(vec![FaultRule::new(fault)]);
    let crc32 = || service.get(&format!("/v2/files/{id}")).json()["file"]["crc32"].clone();
    let right = crc32();
    set(Fault::ChecksumMissing { form: MissingChecksum::Null, seconds: 0.0 });
    assert!(crc32().is_null());
    set(Fault::ChecksumMissing { form: MissingChecksum::Empty, seconds: 60.0 });
    assert_eq!(crc32(), "");
    service.emulator.clear_faults();
    assert_eq!(crc32(), "");
    service.emulator.advance_clock(Duration::from_secs(61));
    assert_eq!(crc32(), right);

    set(Fault::TimeIgnored);
    let form = format!("file_id={id}&updated_at=2001-01-01T00:00:00Z");
    service.post("/v2/files/touch", &form).expect(200);
    let file = service.get(&format!("/v2/files/{id}")).json();
    assert!(file["file"]["updated_at"].as_str().unwrap() > "2026");

    set(Fault::WrongSpace { available_bytes: 7 });
    assert_eq!(service.get("/v2/account/info").json()["info"]["disk"]["avail"], 7);
    set(Fault::PlanInactive);
    service.get(&format!("/v2/files/{id}/url")).error(402);
    set(Fault::InvalidScope);
    assert_eq!(service.send(list()).error(401), "invalid_scope");
    set(Fault::FolderRace);
    let lost = service.post("/v2/files/create-folder", "name=contested");
    assert_eq!(lost.error(400), "NAME_ALREADY_EXIST");
    service.get("/v2/files/0/child?name=contested").expect(200);
    set(Fault::FileLost);
    assert_eq!(service.get(&format!("/v2/files/{id}/url")).error(410), "FILE_LOST");
    set(Fault::FileVanishes);
    service.get(&format!("/v2/files/{id}")).error(404);
    set(Fault::ClockSkew { seconds: -1_000_000_000 });
    let made = service.post("/v2/files/create-folder", "name=old").expect(200).json();
    assert!(made["file"]["created_at"].as_str().unwrap() < "2020");
    set(Fault::RevokeToken);
    service.send(list()).error(401);
    service.emulator.clear_faults();
    service.send(list()).error(401);
}

#[test]
fn a_storm_leaves_a_service_that_a_stubborn_client_gets_something_done_with() {
    let service = Service::start();
    service.emulator.set_faults(storm(0.6, 11));
    let bytes = noise(150_000);
    let again = |mut request: Box<dyn FnMut() -> Option<String>>| {
        (0..100).find_map(|_| request()).expect("a hundred tries fail")
    };
    let session = again(Box::new(|| {
        let answer = service.attempt(create_request("f", 0, 150_000)).ok()?;
        (answer.status == 201).then(|| path_of(answer.header("location").unwrap()))
    }));
    let id = again(Box::new(|| {
        let head = service.attempt(Request::new("HEAD", &session)).ok()?;
        let offset: usize = head.header("upload-offset")?.parse().unwrap();
        let patch = patch_request(&session, offset).body(&bytes[offset..]);
        let answer = service.attempt(patch).ok()?;
        answer.header("putio-file-id").map(str::to_owned)
    }));
    assert_eq!(service.emulator.read_file("user", "f").unwrap(), bytes);
    assert_eq!(service.emulator.files("user").unwrap()[0].id.to_string(), id);
    let log = service.emulator.log();
    assert!(log.iter().any(|entry| entry.fault.is_some()));
}
