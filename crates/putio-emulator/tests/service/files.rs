//! Files and folders: one by one.

use putio_emulator::options::{ChildPick, Collation, FolderSize, MoveClash, Names, Profile};
use putio_emulator::{AccountOptions, Options};
use serde_json::json;

use crate::client::{Request, Service};

fn with(profile: Profile) -> Service {
    Service::with(Options { profile, ..Options::default() })
}

#[test]
fn a_file_shows_all_that_clients_expect() {
    let service = Service::start();
    let id = service.upload("report.txt", 0, b"hello");
    let file = service.get(&format!("/v2/files/{id}")).expect(200).json()["file"].clone();
    for key in [
        "content_type",
        "created_at",
        "crc32",
        "extension",
        "file_type",
        "first_accessed_at",
        "folder_type",
        "icon",
        "id",
        "is_hidden",
        "is_mp4_available",
        "is_shared",
        "name",
        "opensubtitles_hash",
        "parent_id",
        "screenshot",
        "size",
        "updated_at",
    ] {
        assert!(file.get(key).is_some(), "{key}");
    }
    assert_eq!(file["crc32"], format!("{:08x}", crc32fast::hash(b"hello")));
    assert_eq!((&file["size"], &file["extension"]), (&json!(5), &json!("txt")));
    let time = file["updated_at"].as_str().unwrap();
    assert!(time.len() == 19 && time.as_bytes()[10] == b'T', "{time}");

    let folder = service.folder("folder", 0);
    let file = service.get(&format!("/v2/files/{folder}")).expect(200).json()["file"].clone();
    assert_eq!(file["content_type"], "application/x-directory");
    assert_eq!((&file["crc32"], &file["size"]), (&json!(null), &json!(0)));

    let root = service.get("/v2/files/0").expect(200).json()["file"].clone();
    assert_eq!((&root["name"], &root["parent_id"]), (&json!("Your Files"), &json!(null)));
    assert_eq!(root["size"], 5);
    assert_eq!(service.get("/v2/files/999").error(404), "NotFound");
    assert_eq!(service.get("/v2/files/none").error(404), "NotFound");
    assert_eq!(service.get("/v2/nowhere").error(404), "NotFound");
    assert_eq!(service.post("/v2/account/info", "").error(405), "MethodNotAllowed");
}

#[test]
fn folder_names_are_checked_and_unique_among_siblings() {
    let service = Service::start();
    let create = |form: &str| service.post("/v2/files/create-folder", form);
    assert_eq!(create("name=").error(400), "EMPTY_NAME");
    assert_eq!(create("name=a%2Fb").error(400), "SLASH_IN_NAME");
    assert_eq!(create(&format!("name={}", "x".repeat(256))).error(400), "NAME_TOO_LONG");
    assert_eq!(create("name=a&parent_id=77").error(404), "NotFound");
    let id = service.folder("a", 0);
    assert_eq!(create("name=a&parent_id=0").error(400), "NAME_ALREADY_EXIST");
    assert_eq!(create(&format!("name=a&parent_id={id}")).expect(200).json()["status"], "OK");
    create("path=x/y/z").expect(200);
    let paths: Vec<String> =
        service.emulator.files("user").unwrap().into_iter().map(|file| file.path).collect();
    assert_eq!(paths, ["a", "a/a", "x", "x/y", "x/y/z"]);
    assert_eq!(create("path=x/y/z").error(400), "NAME_ALREADY_EXIST");
}

#[test]
fn a_child_is_found_by_name_and_the_profile_says_which_of_several() {
    for (pick, expected) in [(ChildPick::Lowest, 0), (ChildPick::Highest, 1)] {
        let service = with(Profile { child_pick: pick, ..Profile::default() });
        let ids = [service.upload("a b", 0, b"1"), service.upload("a b", 0, b"2")];
        let found = service.get("/v2/files/0/child?name=a%20b").expect(200).json();
        assert_eq!(found["file"]["id"], ids[expected]);
        assert_eq!(service.get("/v2/files/0/child?name=A%20b").error(404), "NotFound");
        assert_eq!(service.get("/v2/files/0/child").error(400), "BadRequest");
        assert_eq!(service.get("/v2/files/5/child?name=a").error(404), "NotFound");
    }
    let service = with(Profile { collation: Collation::Loose, ..Profile::default() });
    service.folder("Caf%C3%A9", 0);
    service.get("/v2/files/0/child?name=cafe%CC%81%20").expect(200);
    let again = service.post("/v2/files/create-folder", "name=CAF%C3%89");
    assert_eq!(again.error(400), "NAME_ALREADY_EXIST");
}

#[test]
fn names_are_changed_where_the_profile_says_so() {
    let service = with(Profile { names: Names::Changed, ..Profile::default() });
    let id = service.upload("a\\b%46", 0, b"1");
    let file = service.get(&format!("/v2/files/{id}")).json();
    assert_eq!(file["file"]["name"], "a-bF");
}

#[test]
fn renaming_keeps_the_id_and_refuses_a_name_that_is_taken() {
    let service = Service::start();
    let (a, b) = (service.upload("a", 0, b"1"), service.upload("b", 0, b"2"));
    service.post("/v2/files/rename", &format!("file_id={a}&name=c")).expect(200);
    let taken = service.post("/v2/files/rename", &format!("file_id={a}&name=b"));
    assert_eq!(taken.error(400), "NAME_ALREADY_EXIST");
    service.post("/v2/files/rename", &format!("file_id={b}&name=b")).expect(200);
    assert_eq!(service.names(0), ["b", "c"]);
    assert_eq!(service.post("/v2/files/rename", "file_id=99&name=x").error(404), "NotFound");
    assert_eq!(service.post("/v2/files/rename", "file_id=x&name=x").error(400), "BadRequest");
}

#[test]
fn moves_report_what_failed_and_do_the_rest() {
    let service = Service::start();
    let folder = service.folder("folder", 0);
    let (a, b) = (service.upload("a", 0, b"1"), service.upload("b", 0, b"2"));
    service.upload("b", folder, b"3");
    let form = format!("file_ids={a},{b},99,{folder}&parent_id={folder}");
    let errors = service.post("/v2/files/move", &form).expect(200).json()["errors"].clone();
    let ids: Vec<i64> =
        errors.as_array().unwrap().iter().map(|error| error["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [b, 99, folder]);
    assert_eq!(errors[0]["error_type"], "NAME_ALREADY_EXIST");
    assert_eq!(errors[1]["status_code"], 404);
    assert_eq!(service.names(folder), ["a", "b"]);
    let body = json!({ "file_id": b, "parent_id": folder, "name": "c" });
    let moved = service.send(Request::new("POST", "/v2/files/move").json(&body)).expect(200);
    assert_eq!(moved.json()["errors"], json!([]));
    assert_eq!(service.names(folder), ["a", "b", "c"]);
    let nowhere = service.post("/v2/files/move", &format!("file_ids={a}&parent_id=99"));
    assert_eq!(nowhere.error(404), "NotFound");

    let service = with(Profile { move_clash: MoveClash::Duplicate, ..Profile::default() });
    let folder = service.folder("folder", 0);
    let a = service.upload("a", 0, b"1");
    service.upload("a", folder, b"2");
    service.post("/v2/files/move", &format!("file_ids={a}&parent_id={folder}")).expect(200);
    assert_eq!(service.names(folder), ["a", "a"]);
}

#[test]
fn copies_are_files_of_their_own() {
    let service = Service::start();
    let folder = service.folder("folder", 0);
    let a = service.upload("a", 0, b"content");
    let form = format!("file_id={a}&parent_id={folder}&name=b");
    let copy = service.post("/v2/files/copy", &form).expect(200).json()["file"].clone();
    assert_ne!(copy["id"], a);
    assert_eq!(service.post("/v2/files/copy", &form).error(400), "NAME_ALREADY_EXIST");
    service.post("/v2/files/delete?skip_trash=1", &format!("file_ids={a}")).expect(200);
    assert_eq!(service.emulator.read_file("user", "folder/b").unwrap(), b"content");
    let form = format!("file_id={folder}&parent_id=0&name=twin");
    service.post("/v2/files/copy", &form).expect(200);
    assert_eq!(service.emulator.read_file("user", "twin/b").unwrap(), b"content");

    let service = with(Profile { copies_folders: false, ..Profile::default() });
    let folder = service.folder("folder", 0);
    let refused = service.post("/v2/files/copy", &format!("file_id={folder}&parent_id=0&name=b"));
    assert_eq!(refused.error(400), "NotFile");
}

#[test]
fn touching_sets_the_time_and_copying_and_moving_reset_it() {
    let service = Service::start();
    let folder = service.folder("folder", 0);
    let id = service.upload("a", 0, b"1");
    let updated = || {
        let file = service.get(&format!("/v2/files/{id}")).json();
        file["file"]["updated_at"].as_str().unwrap().to_owned()
    };
    let target =
        format!("/v2/files/touch?file_id={id}&updated_at=2020-01-02T03%3A04%3A05.9%2B01%3A00");
    service.post(&target, "").expect(200);
    assert_eq!(updated(), "2020-01-02T02:04:05");
    service.post("/v2/files/move", &format!("file_ids={id}&parent_id={folder}")).expect(200);
    assert!(updated().as_str() > "2026");
    let bad = service.post("/v2/files/touch", &format!("file_ids={id}&updated_at=yesterday"));
    assert_eq!(bad.error(400), "BadRequest");
    service.post("/v2/files/touch", &format!("file_ids={id}")).expect(200);
}

#[test]
fn deleting_is_recursive_and_tells_what_was_not_there() {
    let service = Service::start();
    let folder = service.folder("folder", 0);
    let id = service.upload("a", folder, b"1");
    let delete = |form: &str| service.post("/v2/files/delete", form);
    assert_eq!(delete("file_ids=0").error(403), "Forbidden");
    assert_eq!(delete(&format!("file_ids={folder},99")).error(404), "NotFound");
    assert_eq!(delete("").error(400), "BadRequest");
    let deleted =
        delete(&format!("file_ids={folder},99&skip_nonexistents=true")).expect(200).json();
    assert_eq!((&deleted["skipped"], &deleted["cursor"]), (&json!(1), &json!(null)));
    assert_eq!(service.get(&format!("/v2/files/{id}")).error(404), "NotFound");
    assert!(service.emulator.files("user").unwrap().is_empty());

    let service = with(Profile { delete_rows_max: 2, ..Profile::default() });
    let ids: Vec<String> =
        (0..5).map(|number| service.upload(&number.to_string(), 0, b"1").to_string()).collect();
    let mut answer = service.post("/v2/files/delete", &format!("file_ids={}", ids.join(",")));
    let mut rounds = 1;
    while let Some(cursor) = answer.expect(200).json()["cursor"].as_str() {
        answer = service.post("/v2/files/delete", &format!("cursor={cursor}"));
        rounds += 1;
    }
    assert_eq!((rounds, service.names(0).len()), (3, 0));
}

#[test]
fn accounts_do_not_see_each_other() {
    let mut options = Options::default();
    options.accounts.push(AccountOptions::new("other", "other-token"));
    let service = Service::with(options);
    let id = service.upload("a", 0, b"1");
    let as_other = |method: &str, target: &str| {
        service.send(Request::bare(method, target).header("Authorization", "token other-token"))
    };
    assert_eq!(as_other("GET", &format!("/v2/files/{id}")).error(404), "NotFound");
    assert_eq!(as_other("POST", &format!("/v2/files/delete?file_ids={id}")).error(404), "NotFound");
    let session = service.create_upload("b", 0, 5);
    assert_eq!(as_other("HEAD", &session).status, 404);
    assert_eq!(as_other("GET", "/v2/files/list").json()["files"], json!([]));
}

#[test]
fn folder_sizes_and_first_ids_follow_the_profile() {
    let profile =
        Profile { folder_size: FolderSize::Zero, first_id: 5_000_000_000, ..Profile::default() };
    let service = with(profile);
    let folder = service.folder("folder", 0);
    assert!(folder > 5_000_000_000);
    assert!(service.upload("a", folder, b"12345") > folder);
    assert_eq!(service.get(&format!("/v2/files/{folder}")).json()["file"]["size"], 0);
}
