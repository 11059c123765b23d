//! Listings: pages, orders, delays, searching.

use std::collections::BTreeSet;
use std::time::Duration;

use putio_emulator::options::{ListingOrder, Profile};
use putio_emulator::{Fault, FaultRule, Options};
use serde_json::json;

use crate::client::{Request, Service, names};

fn with(profile: Profile) -> Service {
    Service::with(Options { profile, ..Options::default() })
}

fn fill(service: &Service, count: usize) -> i64 {
    let folder = service.emulator.seed_folder("user", "folder").unwrap();
    for number in 0..count {
        let path = format!("folder/{number:03}");
        service.emulator.seed_file("user", &path, &vec![0; count - number]).unwrap();
    }
    folder
}

#[test]
fn pages_follow_each_other_by_cursors_that_can_be_asked_again() {
    let service = Service::start();
    let folder = fill(&service, 25);
    let target = format!("/v2/files/list?parent_id={folder}&per_page=10&total=1&breadcrumbs=true");
    let first = service.get(&target).expect(200).json();
    assert_eq!((&first["total"], &first["parent"]["id"]), (&json!(25), &json!(folder)));
    assert_eq!(first["breadcrumbs"], json!([[0, "Your Files"]]));
    assert_eq!(first["status"], "OK");
    let cursor = first["cursor"].as_str().unwrap();
    assert!(!cursor.contains(['"', '\\']));
    let form = service.post("/v2/files/list/continue?per_page=10", &format!("cursor={cursor}"));
    let request =
        Request::new("POST", "/v2/files/list/continue").json(&json!({ "cursor": cursor }));
    let (form, json) = (form.expect(200).json(), service.send(request).expect(200).json());
    assert_eq!(names(&form), names(&json));
    let last = form["cursor"].as_str().unwrap();
    let third = service.post("/v2/files/list/continue", &format!("cursor={last}")).json();
    assert_eq!(third["cursor"], json!(null));
    let mut all = [names(&first), names(&form), names(&third)].concat();
    all.dedup();
    assert_eq!(all.len(), 25);

    let continued = |form: &str| service.post("/v2/files/list/continue", form).error(400);
    assert_eq!(continued("cursor=unknown"), "BadRequest");
    assert_eq!(continued(""), "BadRequest");
    service.emulator.advance_clock(Duration::from_secs(601));
    assert_eq!(continued(&format!("cursor={cursor}")), "BadRequest");
}

#[test]
fn page_sizes_are_capped_and_checked() {
    let service = with(Profile { page_rows_max: 3, ..Profile::default() });
    let folder = fill(&service, 5);
    let list = |query: &str| service.get(&format!("/v2/files/list?parent_id={folder}{query}"));
    assert_eq!(names(&list("").json()).len(), 3);
    assert_eq!(names(&list("&per_page=1000").json()).len(), 3);
    assert_eq!(names(&list("&per_page=2").json()).len(), 2);
    assert_eq!(list("&per_page=2&no_cursor=1").json()["cursor"], json!(null));
    for bad in ["0", "-1", "many"] {
        let refused = list(&format!("&per_page={bad}"));
        assert_eq!(refused.status, 400, "{bad}");
    }
    assert_eq!(service.get("/v2/files/list?parent_id=12345678").error(404), "NotFound");
}

#[test]
fn listings_are_sorted_and_filtered_as_asked() {
    let service = Service::start();
    let folder = fill(&service, 3);
    service.emulator.seed_file("user", "folder/text.txt", b"").unwrap();
    service.emulator.seed_folder("user", "folder/below").unwrap();
    let list = |query: &str| {
        let answer = service.get(&format!("/v2/files/list?parent_id={folder}&{query}"));
        names(&answer.expect(200).json())
    };
    assert_eq!(list(""), ["000", "001", "002", "below", "text.txt"]);
    assert_eq!(list("sort_by=NAME_DESC")[0], "text.txt");
    assert_eq!(list("sort_by=SIZE_DESC")[..2], ["000", "001"]);
    assert_eq!(list("content_type=application/x-directory"), ["below"]);
    assert_eq!(list("file_type=TEXT&content_type="), ["text.txt"]);
    service
        .post("/v2/files/set-sort-by", &format!("file_id={folder}&sort_by=NAME_DESC"))
        .expect(200);
    assert_eq!(list("")[0], "text.txt");
    service.post("/v2/files/remove-sort-by-settings", "").expect(200);
    assert_eq!(list("")[0], "000");
    // A file is a parent without children.
    let file = service.emulator.seed_file("user", "file", b"1").unwrap();
    let listed = service.get(&format!("/v2/files/list?parent_id={file}")).expect(200).json();
    assert_eq!((&listed["files"], &listed["parent"]["name"]), (&json!([]), &json!("file")));
    let shared = service.get("/v2/files/list?parent_id=-2").expect(200).json();
    assert_eq!(shared["parent"]["id"], -2);
    service.get("/v2/files/list/items-shared-with-you").expect(200);

    let service = with(Profile { listing_order: ListingOrder::Shuffled, ..Profile::default() });
    let folder = fill(&service, 30);
    let orders: BTreeSet<Vec<String>> = (0..5).map(|_| service.names(folder)).collect();
    assert!(orders.len() > 1);
}

#[test]
fn a_late_listing_shows_what_was_there_before() {
    let service = with(Profile { listing_delay_milliseconds: 60_000, ..Profile::default() });
    let old = service.upload("old", 0, b"1");
    let kept = service.upload("kept", 0, b"1");
    assert!(service.names(0).is_empty());
    service.emulator.advance_clock(Duration::from_secs(61));
    assert_eq!(service.names(0), ["kept", "old"]);
    service.upload("new", 0, b"1");
    service.post("/v2/files/delete", &format!("file_ids={old}")).expect(200);
    service.post("/v2/files/rename", &format!("file_id={kept}&name=renamed")).expect(200);
    assert_eq!(service.names(0), ["kept", "old"]);
    // Lookups see it at once.
    service.get("/v2/files/0/child?name=renamed").expect(200);
    assert_eq!(service.get(&format!("/v2/files/{old}")).status, 404);
    service.emulator.advance_clock(Duration::from_secs(61));
    assert_eq!(service.names(0), ["new", "renamed"]);
}

#[test]
fn faults_spoil_listings_in_every_way() {
    let service = Service::start();
    let folder = fill(&service, 5);
    let all: Vec<String> = (0..5).map(|number| format!("{number:03}")).collect();
    let spoilt = |fault: Fault| {
        service.emulator.set_faults(vec![FaultRule::new(fault)]);
        service.get(&format!("/v2/files/list?parent_id={folder}")).expect(200).json()
    };
    assert_eq!(names(&spoilt(Fault::MissingRows { rows: 2 })), all[2..]);
    assert_eq!(names(&spoilt(Fault::RepeatedRows { rows: 2 }))[5..], all[3..]);
    let shuffled = spoilt(Fault::ShuffledRows);
    assert_eq!(
        names(&shuffled).into_iter().collect::<BTreeSet<_>>(),
        all.iter().cloned().collect()
    );
    let twins = spoilt(Fault::DuplicateNames);
    let ids: BTreeSet<i64> = twins["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["id"].as_i64().unwrap())
        .collect();
    assert_eq!((names(&twins).len(), ids.len()), (10, 10));
    let phantoms = spoilt(Fault::PhantomRows { rows: 1 });
    let id = phantoms["files"][5]["id"].as_i64().unwrap();
    assert_eq!(service.get(&format!("/v2/files/{id}")).error(404), "NotFound");
    assert_eq!(names(&spoilt(Fault::StaleListing { seconds: 60.0 })).len(), 0);
    assert_eq!(names(&spoilt(Fault::RenameDuringListing)), all);
    service.emulator.clear_faults();
    assert!(service.names(folder).contains(&"renamed-004".to_owned()));

    let first = service.get(&format!("/v2/files/list?parent_id={folder}&per_page=2")).json();
    let cursor = first["cursor"].as_str().unwrap();
    service.emulator.set_faults(vec![FaultRule::new(Fault::CursorExpired).times(1)]);
    let form = format!("cursor={cursor}");
    assert_eq!(service.post("/v2/files/list/continue", &form).error(400), "BadRequest");
    service.post("/v2/files/list/continue", &form).expect(200);
}

#[test]
fn searching_finds_parts_of_names_once_they_are_indexed() {
    let service = with(Profile { search_delay_milliseconds: 20_000, ..Profile::default() });
    fill(&service, 12);
    let search = |query: &str| service.get(&format!("/v2/files/search?query={query}&per_page=5"));
    assert_eq!(search("01").expect(200).json()["total"], 0);
    service.emulator.advance_clock(Duration::from_secs(21));
    let found = search("0").json();
    assert_eq!((&found["total"], names(&found).len()), (&json!(13 - 1), 5));
    let cursor = found["cursor"].as_str().unwrap();
    let more = service.post("/v2/files/search/continue", &format!("cursor={cursor}")).expect(200);
    assert_eq!(names(&more.json()).len(), 5);
    // A cursor of one kind of listing is none of another.
    let other = service.post("/v2/files/list/continue", &format!("cursor={cursor}"));
    assert_eq!(other.error(400), "BadRequest");
    assert_eq!(search(&"x".repeat(300)).error(400), "SEARCH_TOO_LONG_QUERY");
}
