//! The trash and its lock.

use std::time::Duration;

use putio_emulator::options::Profile;
use putio_emulator::{Fault, FaultRule, Options};
use serde_json::json;

use crate::client::{Request, Service, names};

fn with(profile: Profile) -> Service {
    Service::with(Options { profile, ..Options::default() })
}

fn trash(service: &Service) -> Vec<String> {
    names(&service.get("/v2/trash/list").expect(200).json())
}

#[test]
fn what_is_deleted_goes_to_the_trash_and_comes_back_with_its_id() {
    let service = Service::start();
    let folder = service.folder("folder", 0);
    let child = service.upload("child", folder, b"12345");
    service.post("/v2/files/delete", &format!("file_ids={folder}")).expect(200);
    let listed = service.get("/v2/trash/list").expect(200).json();
    assert_eq!((&listed["total"], &listed["trash_size"]), (&json!(1), &json!(5)));
    let row = &listed["files"][0];
    for key in [
        "id",
        "name",
        "size",
        "created_at",
        "deleted_at",
        "expiration_date",
        "content_type",
        "extension",
        "file_type",
        "folder_type",
        "first_accessed_at",
        "icon",
        "parent_id",
        "screenshot",
    ] {
        assert!(row.get(key).is_some(), "{key}");
    }
    let restore = |id: i64| service.post("/v2/trash/restore", &format!("file_ids={id}"));
    assert_eq!(restore(child).error(404), "TRASH_FILE_NOT_FOUND");
    restore(folder).expect(200);
    service.get(&format!("/v2/files/{child}")).expect(200);
    assert!(trash(&service).is_empty());

    // The trash is part of what is used, until it is emptied.
    service.post("/v2/files/delete", &format!("file_ids={child}")).expect(200);
    assert_eq!(service.emulator.usage("user").unwrap().0, 5);
    service.post("/v2/trash/empty", "").expect(200);
    assert_eq!(service.emulator.usage("user").unwrap().0, 0);
    assert_eq!(restore(child).error(404), "TRASH_FILE_NOT_FOUND");
}

#[test]
fn a_restore_takes_time_and_another_place_or_name_where_it_must() {
    let service = with(Profile { restore_milliseconds: 60_000, ..Profile::default() });
    let folder = service.folder("folder", 0);
    let file = service.upload("file.txt", folder, b"1");
    service.upload("file.txt", 0, b"2");
    service.post("/v2/files/delete", &format!("file_ids={file}")).expect(200);
    service.post("/v2/files/delete?skip_trash=true", &format!("file_ids={folder}")).expect(200);
    service.post("/v2/trash/restore", &format!("file_ids={file}")).expect(200);
    assert_eq!(service.get(&format!("/v2/files/{file}")).status, 404);
    service.emulator.advance_clock(Duration::from_secs(61));
    let found = service.get(&format!("/v2/files/{file}")).expect(200).json()["file"].clone();
    assert_eq!((&found["parent_id"], &found["name"]), (&json!(0), &json!("file (1).txt")));

    service.post("/v2/files/delete", &format!("file_ids={file}")).expect(200);
    service.emulator.set_faults(vec![FaultRule::new(Fault::RestoreNever).times(1)]);
    service.post("/v2/trash/restore", &format!("file_ids={file}")).expect(200);
    service.emulator.advance_clock(Duration::from_secs(600));
    assert_eq!(trash(&service), ["file (1).txt"]);
    service.emulator.set_faults(vec![FaultRule::new(Fault::RestoreRenames)]);
    service.post("/v2/trash/restore", &format!("file_ids={file}")).expect(200);
    service.emulator.advance_clock(Duration::from_secs(61));
    let found = service.get(&format!("/v2/files/{file}")).expect(200).json()["file"].clone();
    assert_eq!(found["name"], "file (1) (1).txt");
}

#[test]
fn the_trash_is_listed_in_pages_and_forgets_after_14_days() {
    let service = Service::start();
    let ids: Vec<String> =
        (0..5).map(|number| service.upload(&number.to_string(), 0, b"1").to_string()).collect();
    service.post("/v2/files/delete", &format!("file_ids={}", ids.join(","))).expect(200);
    let first = service.get("/v2/trash/list?per_page=3").expect(200).json();
    let cursor = first["cursor"].as_str().unwrap();
    let rest = service.post("/v2/trash/list/continue", &format!("cursor={cursor}")).expect(200);
    assert_eq!(names(&first).len() + names(&rest.json()).len(), 5);
    let bad = service.post("/v2/trash/list/continue", "cursor=x");
    assert_eq!(bad.error(400), "BadRequest");
    service.post("/v2/trash/delete", &format!("file_ids={}", ids[0])).expect(200);
    assert_eq!(trash(&service).len(), 4);
    service.emulator.advance_clock(Duration::from_secs(14 * 86_400 + 1));
    assert!(trash(&service).is_empty());
}

#[test]
fn the_trash_has_one_lock_for_each_account() {
    let service = with(Profile { trash_operation_milliseconds: 300, ..Profile::default() });
    let ids: Vec<i64> = (0..2).map(|number| service.upload(&number.to_string(), 0, b"1")).collect();
    let delete = |id: i64, query: &str| {
        let target = format!("/v2/files/delete?{query}");
        Request::new("POST", &target).form(&format!("file_ids={id}"))
    };
    let mut slow = service.connect();
    slow.write(&delete(ids[0], "").bytes()).unwrap();
    while service.emulator.log().len() < 5 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // The first operation holds the lock for long enough to be met.
    let mut refused = 0;
    while service.send(delete(ids[1], "")).status == 400 {
        refused += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(refused > 0);
    slow.read_answer(false).unwrap().expect(200);
    assert_eq!(trash(&service).len(), 2);

    let service = Service::start();
    let id = service.upload("a", 0, b"1");
    let locked = Fault::TrashLocked { seconds: 60.0 };
    service.emulator.set_faults(vec![FaultRule::new(locked).times(1)]);
    for _ in 0..2 {
        assert_eq!(service.send(delete(id, "")).error(400), "TRASH_LOCK_TIMEOUT");
    }
    assert_eq!(service.post("/v2/trash/empty", "").error(400), "TRASH_LOCK_TIMEOUT");
    service.emulator.advance_clock(Duration::from_secs(61));
    service.send(delete(id, "")).expect(200);
}

#[test]
fn an_account_without_trash_deletes_for_good() {
    let service = Service::start();
    let (a, b) = (service.upload("a", 0, b"1"), service.upload("b", 0, b"1"));
    service.post("/v2/files/delete", &format!("file_ids={a}")).expect(200);
    let body = json!({ "trash_enabled": false });
    service.send(Request::new("POST", "/v2/account/settings").json(&body)).expect(200);
    assert!(trash(&service).is_empty());
    service.post("/v2/files/delete", &format!("file_ids={b}")).expect(200);
    assert!(trash(&service).is_empty());
    let settings = service.get("/v2/account/settings").json();
    assert_eq!(settings["settings"]["trash_enabled"], false);
}
