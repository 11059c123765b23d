//! Files and folders: what is asked, how answers are read, and what becomes of lost ones.

use std::time::{Duration, SystemTime};

use putio::{Client, DeleteOptions, Error, ErrorKind, FileId, Token};

use crate::server::{Head, Reply, Server, TOKEN, in_turn};

const ROW: &str = r#"{"status":"OK","file":{"id":5000000000,"parent_id":3,"name":"a b","size":9,
    "content_type":"application/octet-stream","crc32":"0000beef","updated_at":"2026-01-01T00:00:00"}}"#;
const FOLDER: &str = r#"{"status":"OK","file":{"id":8,"parent_id":3,"name":"box","size":0,
    "content_type":"application/x-directory","crc32":null,"updated_at":"2026-01-01T00:00:00"}}"#;

fn ok() -> Reply {
    Reply::json(200, r#"{"status":"OK"}"#)
}

fn folder() -> Reply {
    Reply::json(200, FOLDER)
}

#[tokio::test]
async fn a_row_is_read_and_the_token_sent() {
    let server = Server::start(in_turn(vec![|| Reply::json(200, ROW)])).await;
    let file = server.client().file(FileId(5_000_000_000)).await.unwrap();
    assert_eq!((file.id, file.size, file.crc32), (FileId(5_000_000_000), 9, Some(0xbeef)));
    let received = &server.received()[0];
    assert!(received.head.is("GET", "/v2/files/5000000000"));
    assert_eq!(received.head.header("authorization"), Some("Bearer SECRETTOKEN"));
    assert_eq!(received.head.header("user-agent"), Some("putio-tests/1"));
    assert_eq!(received.head.header("cookie"), None);
}

/// A client and its calls are used from many tasks.
#[test]
fn calls_can_be_spawned() {
    fn check<T: Send>(_: T) {}
    fn calls(client: &'static Client, out: &'static mut Vec<u8>) {
        check(client.list(FileId::ROOT));
        check(client.delete(&[], DeleteOptions::default()));
        check(client.read_range(FileId(1), 0..1, out));
        check(async move {
            let content = vec![0; 10];
            let request = putio::UploadRequest::new(FileId::ROOT, "a", &content);
            client.upload(&request, None, &mut |_| {}).await
        });
    }
    let _ = calls;
}

#[tokio::test]
async fn failures_that_pass_are_tried_again() {
    let replies: Vec<fn() -> Reply> = vec![
        || Reply::Close,
        || Reply::new(500),
        || Reply::json(502, "<html>bad gateway</html>"),
        || Reply::json(200, "{\"file\": {\"id\""),
        || Reply::json(200, ROW).cut(20),
        || Reply::json(200, "<html>sign in to the hotel's network</html>"),
        || Reply::json(200, r#"{"status":"OK"}"#),
        || Reply::new(302).with("location", "https://elsewhere.example/"),
        || Reply::json(200, ROW),
    ];
    let server = Server::start(in_turn(replies)).await;
    let client = server.client();
    client.file(FileId(1)).await.unwrap();
    assert_eq!(server.received().len(), 9);
    let usage = client.usage();
    assert_eq!((usage.requests, usage.retries), (9, 8));
}

#[tokio::test]
async fn a_right_answer_of_a_wrong_type_is_taken() {
    let reply = || Reply::new(200);
    let server = Server::start(move |_: &Head, _: &[u8]| match reply() {
        Reply::Answer { status, headers, .. } => {
            Reply::Answer { status, headers, body: ROW.into() }.with("content-type", "text/html")
        }
        other => other,
    });
    let server = server.await;
    server.client().file(FileId(1)).await.unwrap();
    assert_eq!(server.received().len(), 1);
}

async fn refuse(reply: fn() -> Reply) -> (Error, usize) {
    let server = Server::start(in_turn(vec![reply])).await;
    let client = server.client_with(|options| options.patience.attempts_max = 3);
    let error = client.file(FileId(1)).await.unwrap_err();
    (error, server.received().len())
}

#[tokio::test]
async fn what_cannot_succeed_is_asked_once() {
    let (error, count) = refuse(|| Reply::error(401, "invalid_scope")).await;
    assert_eq!((error.kind.clone(), count), (ErrorKind::Unauthorized, 1));
    assert!(error.to_string().contains("sign in again"), "{error}");
    let cases: [(fn() -> Reply, ErrorKind); 5] = [
        (|| Reply::error(402, ""), ErrorKind::PaymentRequired),
        (|| Reply::error(403, "X"), ErrorKind::Denied),
        (|| Reply::error(404, "NotFound"), ErrorKind::NotFound),
        (|| Reply::error(410, "FILE_LOST"), ErrorKind::Lost),
        (|| Reply::json(200, "x".repeat(2 << 20)), ErrorKind::Corrupt),
    ];
    for (reply, kind) in cases {
        let (error, count) = refuse(reply).await;
        assert_eq!((error.kind, count), (kind, 1));
    }
}

#[tokio::test]
async fn patience_ends() {
    let cases: [(fn() -> Reply, ErrorKind); 3] = [
        (|| Reply::Close, ErrorKind::Network),
        (|| Reply::error(503, ""), ErrorKind::Server),
        (|| Reply::error(400, "FILE_NOT_REACHABLE"), ErrorKind::Server),
    ];
    for (reply, kind) in cases {
        let (error, count) = refuse(reply).await;
        assert_eq!((error.kind.clone(), count), (kind, 3));
        assert!(error.is_temporary());
        assert!(error.to_string().contains("tried 3 times"), "{error}");
    }
}

#[tokio::test]
async fn a_silent_server_does_not_hold_a_call_for_ever() {
    let server = Server::start(in_turn(vec![
        || Reply::Hang,
        || Reply::json(200, ROW).with("content-length", 5000),
        || Reply::json(200, ROW),
    ]))
    .await;
    let client = server.client_with(|options| {
        options.timeouts.connect = Duration::from_millis(50);
        options.timeouts.header = Duration::from_millis(50);
        options.timeouts.idle = Duration::from_millis(100);
    });
    client.file(FileId(1)).await.unwrap();
    assert_eq!(server.received().len(), 3);
}

#[tokio::test]
async fn nobody_there_is_an_error_of_the_network() {
    let server = Server::start(in_turn(vec![ok])).await;
    let client = server.client_with(|options| {
        options.api_url = "http://127.0.0.1:1".to_owned();
        options.patience.attempts_max = 2;
    });
    let error = client.account().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Network);
    let texts = format!("{error} {error:?} {client:?}");
    assert!(!texts.contains(TOKEN), "{texts}");
}

#[tokio::test]
async fn a_child_of_a_similar_name_is_not_taken_for_it() {
    let service = |head: &Head, _: &[u8]| match head.path.as_str() {
        "/v2/files/3/child" => Reply::json(200, ROW),
        _ => Reply::json(
            200,
            r#"{"files":[{"id":4,"name":"A B"},{"id":6,"name":"A B"},{"id":5,"name":"a b"}],
                "cursor":null,"parent":null}"#,
        ),
    };
    let server = Server::start(service).await;
    let client = server.client();
    let same = client.child(FileId(3), "a b").await.unwrap().unwrap();
    assert_eq!(same.id, FileId(5_000_000_000));
    let other = client.child(FileId(3), "A B").await.unwrap().unwrap();
    assert_eq!(other.id, FileId(6), "the newest of two");
    assert_eq!(client.child(FileId(3), "a B").await.unwrap(), None);
    assert_eq!(server.received()[1].head.query["name"], "A B");
}

#[tokio::test]
async fn a_child_that_is_not_there_is_none() {
    let server = Server::start(in_turn(vec![|| Reply::error(404, "NotFound")])).await;
    assert_eq!(server.client().child(FileId(3), "x").await.unwrap(), None);
}

#[tokio::test]
async fn listings_follow_cursors_and_drop_repeated_rows() {
    let service = |head: &Head, body: &[u8]| {
        if head.is("GET", "/v2/files/list") {
            let body = r#"{"files":[{"id":1,"name":"a"},{"id":2,"name":"a"}],"cursor":"c/1=",
                "parent":{"id":3,"content_type":"application/x-directory"}}"#;
            return Reply::json(200, body);
        }
        assert!(head.is("POST", "/v2/files/list/continue"));
        assert_eq!(body, b"cursor=c%2F1%3D");
        Reply::json(200, r#"{"files":[{"id":2,"name":"a"},{"id":3,"name":"b"}],"cursor":null}"#)
    };
    let server = Server::start(service).await;
    let listing = server.client().list(FileId(3)).await.unwrap();
    let ids: Vec<_> = listing.files.iter().map(|file| file.id.0).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert!(listing.parent.unwrap().is_folder());
    let query = &server.received()[0].head.query;
    assert_eq!((query["parent_id"].as_str(), query["per_page"].as_str()), ("3", "1000"));
}

#[tokio::test]
async fn an_expired_cursor_begins_the_listing_anew() {
    let first = || Reply::json(200, r#"{"files":[{"id":1}],"cursor":"x"}"#);
    let replies: Vec<fn() -> Reply> = vec![
        first,
        || Reply::error(400, "BadRequest"),
        || Reply::json(200, r#"{"files":[{"id":2}],"cursor":"y"}"#),
        || Reply::json(200, r#"{"files":[{"id":3}],"cursor":null}"#),
    ];
    let server = Server::start(in_turn(replies)).await;
    let listing = server.client().list(FileId(3)).await.unwrap();
    let ids: Vec<_> = listing.files.iter().map(|file| file.id.0).collect();
    assert_eq!(ids, [2, 3]);
}

#[tokio::test]
async fn a_listing_without_an_end_is_left() {
    let endless = || Reply::json(200, r#"{"files":[{"id":1}],"cursor":"again"}"#);
    let server = Server::start(in_turn(vec![endless])).await;
    let error = server.client().list(FileId(3)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(server.received().len() < 6);
}

#[tokio::test]
async fn a_folder_that_exists_is_found() {
    let service = |head: &Head, _: &[u8]| match head.path.as_str() {
        "/v2/files/create-folder" => Reply::error(400, "NAME_ALREADY_EXIST"),
        "/v2/files/3/child" => Reply::json(200, FOLDER),
        path => panic!("{path}"),
    };
    let server = Server::start(service).await;
    let (found, is_new) = server.client().make_folder(FileId(3), "box").await.unwrap();
    assert_eq!((found.id, is_new), (FileId(8), false));
    assert_eq!(server.received().len(), 2);
    let form = server.received()[0].form();
    assert_eq!((form["name"].as_str(), form["parent_id"].as_str()), ("box", "3"));
}

#[tokio::test]
async fn a_folder_is_made_with_one_request() {
    let server = Server::start(in_turn(vec![folder])).await;
    let (made, is_new) = server.client().make_folder(FileId(3), "box").await.unwrap();
    assert_eq!((made.id, is_new, server.received().len()), (FileId(8), true, 1));
}

#[tokio::test]
async fn a_folder_whose_making_was_not_answered_is_looked_up() {
    let server = Server::start(in_turn(vec![|| Reply::Close, folder])).await;
    let (found, is_new) = server.client().make_folder(FileId(3), "box").await.unwrap();
    assert_eq!((found.id, is_new), (FileId(8), false));
    assert_eq!(server.lines(), ["POST /v2/files/create-folder", "GET /v2/files/3/child"]);
}

#[tokio::test]
async fn a_file_in_place_of_the_folder_is_a_conflict() {
    let service = |head: &Head, _: &[u8]| match head.path.as_str() {
        "/v2/files/create-folder" => Reply::error(400, "NAME_ALREADY_EXIST"),
        "/v2/files/3/child" => Reply::json(200, ROW),
        _ => Reply::json(200, r#"{"files":[{"id":5,"name":"a b"}],"cursor":null}"#),
    };
    let server = Server::start(service).await;
    let error = server.client().create_folder(FileId(3), "a b").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
}

#[tokio::test]
async fn a_rename_that_was_not_answered_is_looked_at_when_refused() {
    let service = |head: &Head, _: &[u8]| match (head.number, head.path.as_str()) {
        (0, "/v2/files/rename") => Reply::Close,
        (1, "/v2/files/rename") => Reply::error(400, "NAME_ALREADY_EXIST"),
        (2, "/v2/files/5") => Reply::json(200, ROW),
        other => panic!("{other:?}"),
    };
    let server = Server::start(service).await;
    server.client().rename(FileId(5), "a b").await.unwrap();
    let taken = Server::start(in_turn(vec![|| Reply::error(400, "NAME_ALREADY_EXIST")])).await;
    let error = taken.client().rename(FileId(5), "a b").await.unwrap_err();
    assert_eq!((error.kind, taken.received().len()), (ErrorKind::Conflict, 1));
}

#[tokio::test]
async fn a_move_that_was_not_answered_is_looked_at_when_refused() {
    let service = |head: &Head, _: &[u8]| match (head.number, head.path.as_str()) {
        (0, "/v2/files/move") => Reply::Close,
        (1, "/v2/files/move") => Reply::json(
            200,
            r#"{"status":"OK","errors":[{"id":5,"name":"a b","error_type":"NAME_ALREADY_EXIST","status_code":400}]}"#,
        ),
        (2, "/v2/files/5") => Reply::json(200, ROW),
        other => panic!("{other:?}"),
    };
    let server = Server::start(service).await;
    server.client().move_as(FileId(5), FileId(3), "a b").await.unwrap();
}

#[tokio::test]
async fn files_that_cannot_be_moved_are_named() {
    let reply = || {
        Reply::json(
            200,
            r#"{"status":"OK","errors":[{"id":6,"name":"x","error_type":"NotFound","status_code":404}]}"#,
        )
    };
    let server = Server::start(in_turn(vec![reply])).await;
    let client = server.client();
    let errors = client.move_files(&[FileId(5), FileId(6)], FileId(3)).await.unwrap();
    assert_eq!((errors.len(), errors[0].id, errors[0].status), (1, FileId(6), Some(404)));
    let error = client.move_as(FileId(6), FileId(3), "x").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(server.received()[0].form()["file_ids"], "5,6");
}

#[tokio::test]
async fn a_copy_that_was_not_answered_is_looked_for() {
    let service = |head: &Head, _: &[u8]| match (head.number, head.path.as_str()) {
        (0, "/v2/files/copy") => Reply::new(504),
        (1, "/v2/files/5") => Reply::json(200, ROW),
        (2, "/v2/files/3/child") => Reply::json(200, ROW),
        other => panic!("{other:?}"),
    };
    let server = Server::start(service).await;
    let copy = server.client().copy(FileId(5), FileId(3), None).await.unwrap();
    assert_eq!(copy.id, FileId(5_000_000_000));
}

#[tokio::test]
async fn times_are_sent_in_utc() {
    let server = Server::start(in_turn(vec![ok])).await;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_330_800);
    server.client().touch(&[FileId(5), FileId(6)], time).await.unwrap();
    let form = server.received()[0].form();
    assert_eq!(
        (form["file_ids"].as_str(), form["updated_at"].as_str()),
        ("5,6", "2026-11-22T07:00:00Z")
    );
}

#[tokio::test]
async fn deletes_are_batched_and_repeated_while_the_trash_is_locked() {
    let service = |head: &Head, _: &[u8]| match head.number {
        0 | 1 => Reply::error(400, "TRASH_LOCK_TIMEOUT"),
        2 => Reply::json(200, r#"{"status":"OK","skipped":0,"cursor":"more"}"#),
        _ => Reply::json(200, r#"{"status":"OK","skipped":0,"cursor":null}"#),
    };
    let server = Server::start(service).await;
    let ids: Vec<_> = (1..=150).map(FileId).collect();
    server.client().delete(&ids, DeleteOptions { skip_trash: true }).await.unwrap();
    let received = server.received();
    assert_eq!(received.len(), 5);
    let forms: Vec<_> = received.iter().map(crate::server::Received::form).collect();
    assert_eq!(forms[0], forms[2]);
    assert_eq!(forms[0]["file_ids"].split(',').count(), 100);
    assert_eq!(forms[3]["cursor"], "more");
    assert_eq!(forms[4]["file_ids"].split(',').count(), 50);
    for form in forms {
        assert_eq!(
            (form["skip_nonexistents"].as_str(), form["skip_trash"].as_str()),
            ("true", "true")
        );
    }
}

#[tokio::test]
async fn a_missing_row_does_not_keep_others_from_being_deleted() {
    let service = |_: &Head, body: &[u8]| {
        let form: std::collections::HashMap<_, _> =
            url::form_urlencoded::parse(body).into_owned().collect();
        if form["file_ids"].split(',').any(|id| id == "3") {
            Reply::error(404, "NotFound")
        } else {
            Reply::json(200, r#"{"status":"OK"}"#)
        }
    };
    let server = Server::start(service).await;
    let ids: Vec<_> = (1..=4).map(FileId).collect();
    server.client().delete(&ids, DeleteOptions::default()).await.unwrap();
    let received = server.received();
    let batches: Vec<_> = received.iter().map(|one| one.form()["file_ids"].clone()).collect();
    assert_eq!(batches, ["1,2,3,4", "1,2", "3,4", "3", "4"]);
}

#[tokio::test]
async fn the_root_is_never_deleted() {
    let server = Server::start(in_turn(vec![ok])).await;
    let client = server.client();
    let error = client.delete(&[FileId(5), FileId::ROOT], DeleteOptions::default()).await;
    assert_eq!(error.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(server.received().len(), 0);
}

#[tokio::test]
async fn deletes_are_one_at_a_time() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static UNDER_WAY: AtomicU32 = AtomicU32::new(0);
    let service = |_: &Head, _: &[u8]| {
        assert_eq!(UNDER_WAY.fetch_add(1, Ordering::SeqCst), 0);
        std::thread::sleep(Duration::from_millis(5));
        UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
        Reply::json(200, r#"{"status":"OK"}"#)
    };
    let server = Server::start(service).await;
    let client = server.client();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..10 {
        let client = client.clone();
        tasks.spawn(async move {
            if number % 2 == 0 {
                client.delete(&[FileId(number + 1)], DeleteOptions::default()).await
            } else {
                client.empty_trash().await
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
    assert_eq!(server.received().len(), 10);
}

#[tokio::test]
async fn the_trash_is_listed_restored_and_emptied() {
    let service = |head: &Head, _: &[u8]| match head.path.as_str() {
        "/v2/trash/list" => Reply::json(
            200,
            r#"{"files":[{"id":9,"name":"old","size":4,"parent_id":3,"content_type":"a/b",
                "deleted_at":"2026-11-01T00:00:00","expiration_date":"2026-11-15T00:00:00"}],
                "cursor":null,"trash_size":4,"status":"OK"}"#,
        ),
        "/v2/trash/restore" if head.number == 1 => Reply::Close,
        "/v2/trash/restore" => Reply::error(404, "TRASH_FILE_NOT_FOUND"),
        _ => Reply::json(200, r#"{"status":"OK"}"#),
    };
    let server = Server::start(service).await;
    let client = server.client();
    let trash = client.trash().await.unwrap();
    assert_eq!((trash.trash_size, trash.files[0].id), (Some(4), FileId(9)));
    let file = &trash.files[0];
    let days = file.expires_at.unwrap().duration_since(file.deleted_at.unwrap()).unwrap();
    assert_eq!(days, Duration::from_secs(14 * 86_400));
    client.restore_from_trash(&[FileId(9)]).await.unwrap();
    let error = client.restore_from_trash(&[FileId(9)]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    client.delete_from_trash(&[FileId(9)]).await.unwrap();
    client.empty_trash().await.unwrap();
}

#[tokio::test]
async fn account_settings_and_token_are_read() {
    let service = |head: &Head, _: &[u8]| match head.path.as_str() {
        "/v2/account/info" => Reply::json(
            200,
            r#"{"status":"OK","info":{"user_id":7,"username":"u","mail":"m","trash_size":1,
                "disk":{"avail":1,"size":3,"used":2},"account_status":"active",
                "files_will_be_deleted_at":null,"settings":{}}}"#,
        ),
        "/v2/account/settings" => {
            Reply::json(200, r#"{"status":"OK","settings":{"trash_enabled":true}}"#)
        }
        "/v2/oauth2/validate" if head.number < 3 => {
            Reply::json(200, r#"{"result":true,"token_id":1,"token_scope":"default","user_id":7}"#)
        }
        "/v2/oauth2/validate" => Reply::error(401, "invalid_grant"),
        "/v2/oauth/grants/logout" => Reply::json(200, r#"{"status":"OK"}"#),
        path => panic!("{path}"),
    };
    let server = Server::start(service).await;
    let client = server.client();
    let account = client.account().await.unwrap();
    assert_eq!((account.user_id, account.disk.available, account.disk.used), (7, 1, 2));
    assert_eq!(client.settings().await.unwrap().trash_enabled, Some(true));
    let token = client.validate().await.unwrap();
    assert_eq!(
        (token.is_valid, token.user_id, token.scope.as_deref()),
        (true, Some(7), Some("default"))
    );
    assert!(!client.validate().await.unwrap().is_valid);
    client.revoke().await.unwrap();
}

#[test]
fn tokens_are_checked_and_hidden() {
    let token = Token::new(" abc\n".to_owned()).unwrap();
    assert_eq!((token.expose(), format!("{token:?}").as_str()), ("abc", "Token"));
    for bad in ["", " \n", "a b", "a\u{7f}", "ü", "a\r\nX: y"] {
        assert_eq!(Token::new(bad.to_owned()).unwrap_err().kind, ErrorKind::Invalid, "{bad:?}");
    }
}
