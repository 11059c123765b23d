//! An emulator on a directory is gone on with by a later one.

use putio_emulator::{Options, Storage};

use crate::client::{Request, Service, noise, patch_request};

fn on(folder: &std::path::Path) -> Service {
    Service::with(Options { storage: Storage::Directory(folder.to_owned()), ..Options::default() })
}

fn content_files(folder: &std::path::Path) -> usize {
    fs_err::read_dir(folder.join("content")).unwrap().count()
}

#[test]
fn files_trash_settings_tokens_and_ids_survive() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(300_000);
    let (id, gone, highest, token) = {
        let service = on(folder.path());
        let parent = service.folder("folder", 0);
        let id = service.upload("file", parent, &bytes);
        let copied = service.post("/v2/files/copy", &format!("file_id={id}&parent_id=0&name=copy"));
        copied.expect(200);
        let gone = service.upload("gone", 0, b"1");
        service.post("/v2/files/delete?skip_trash=1", &format!("file_ids={gone}")).expect(200);
        let trashed = service.upload("trashed", 0, b"1");
        service.post("/v2/files/delete", &format!("file_ids={trashed}")).expect(200);
        service.post("/v2/files/touch", &format!("file_id={id}&updated_at=2001-02-03T04:05:06Z"));
        service.post("/v2/account/settings", "sort_by=NAME_DESC").expect(200);
        let answer = service.get("/v2/account/info?download_token=1").json();
        let token = answer["info"]["download_token"].as_str().unwrap().to_owned();
        (id, gone, trashed, token)
    };
    // The copy shares its bytes.
    assert_eq!(content_files(folder.path()), 2);
    // What a process leaves that was killed in the middle of a line.
    let journal = folder.path().join("journal.jsonl");
    let mut text = fs_err::read(&journal).unwrap();
    text.extend_from_slice(b"{\"row\":{\"account\"");
    fs_err::write(&journal, text).unwrap();

    let service = on(folder.path());
    assert_eq!(service.emulator.read_file("user", "folder/file").unwrap(), bytes);
    assert_eq!(service.emulator.read_file("user", "copy").unwrap(), bytes);
    assert_eq!(service.names(0), ["folder", "copy"]);
    assert_eq!(service.emulator.trash("user").unwrap().len(), 1);
    let file = service.get(&format!("/v2/files/{id}")).json()["file"].clone();
    assert_eq!(file["updated_at"], "2001-02-03T04:05:06");
    assert_eq!(service.get(&format!("/v2/files/{gone}")).status, 404);
    assert!(service.upload("new", 0, b"1") > highest);
    let target = format!("/v2/files/{id}/url?oauth_token={token}");
    service.send(Request::bare("GET", &target)).expect(200);

    service.post("/v2/files/delete?skip_trash=1", &format!("file_ids={id}")).expect(200);
    assert_eq!(service.emulator.read_file("user", "copy").unwrap(), bytes);
    service.emulator.reset();
    assert_eq!(content_files(folder.path()), 0);
}

#[test]
fn an_unfinished_upload_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(200_000);
    let session = {
        let service = on(folder.path());
        let session = service.create_upload("file", 0, bytes.len());
        let cut = putio_emulator::Fault::CutRequest { after_bytes: 123_456, reset: true };
        service.emulator.set_faults(vec![putio_emulator::FaultRule::new(cut).method("PATCH")]);
        service.attempt(patch_request(&session, 0).body(&bytes)).unwrap_err();
        session
    };
    let id = {
        let service = on(folder.path());
        let head = service.send(Request::new("HEAD", &session)).expect(200);
        assert_eq!(head.header("upload-offset"), Some("123456"));
        let done = service.patch(&session, 123_456, &bytes[123_456..]).expect(204);
        let crc32 = format!("{:08x}", crc32fast::hash(&bytes));
        assert_eq!(done.header("putio-file-crc32"), Some(crc32.as_str()));
        done.header("putio-file-id").unwrap().to_owned()
    };
    // A client that lost the last answer asks the next process.
    let service = on(folder.path());
    let again = service.patch(&session, bytes.len(), b"").expect(204);
    assert_eq!(again.header("putio-file-id"), Some(id.as_str()));
    assert_eq!(service.emulator.read_file("user", "file").unwrap(), bytes);
}

#[test]
fn a_journal_that_is_none_is_refused_and_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let storage = Storage::Directory(folder.path().to_owned());
        let options = Options { storage, ..Options::default() };
        putio_emulator::Emulator::start(options).unwrap_err().to_string()
    };
    fs_err::write(folder.path().join("journal.jsonl"), "hello\n").unwrap();
    assert!(start().contains("damaged at line 1"));
    fs_err::write(folder.path().join("journal.jsonl"), "{\"version\":2}\n").unwrap();
    assert!(start().contains("not of version 1"));
}

#[test]
fn snapshots_bring_files_back() {
    let folder = tempfile::tempdir().unwrap();
    let service = on(folder.path());
    let id = service.upload("file", 0, b"content");
    service.emulator.take_snapshot("before");
    service.post("/v2/files/delete?skip_trash=1", &format!("file_ids={id}")).expect(200);
    service.upload("other", 0, b"1");
    service.emulator.restore_snapshot("before").unwrap();
    assert_eq!(service.names(0), ["file"]);
    assert_eq!(service.emulator.read_file("user", "file").unwrap(), b"content");
    assert!(service.emulator.restore_snapshot("none").is_err());
    drop(service);
    let service = on(folder.path());
    assert_eq!(service.emulator.read_file("user", "file").unwrap(), b"content");
}
