//! `docs/json.md` as the promise it is.

use std::collections::BTreeSet;

use serde_json::Value;

/// The page.
pub(crate) const PAGE: &str = include_str!("../../docs/json.md");

/// Fields that the page has under `## command` and `### message`, as `a.b`, `a[].b` or `[].a`.
pub(crate) fn documented(command: &str, message: &str) -> BTreeSet<String> {
    let heading_2 = |line: &str| {
        let title = line.strip_prefix("## ")?;
        Some(title.split(", ").any(|name| name.trim_matches('`') == command))
    };
    let heading_3 = |line: &str| {
        Some(line.strip_prefix("### ")?.trim_matches('`') == message.trim_matches('`'))
    };
    let (mut in_command, mut in_message) = (false, false);
    let mut fields = BTreeSet::new();
    for line in PAGE.lines() {
        if let Some(is_meant) = heading_2(line) {
            (in_command, in_message) = (is_meant, false);
        } else if let Some(is_meant) = heading_3(line) {
            in_message = is_meant;
        } else if in_command
            && in_message
            && let Some(cell) = line.strip_prefix("| `")
            && let Some((field, _)) = cell.split_once('`')
        {
            fields.insert(field.to_owned());
        }
    }
    fields
}

/// Asserts that the page has every field of `value`.
#[track_caller]
pub(crate) fn check(command: &str, message: &str, value: &Value) {
    let known = documented(command, message);
    assert!(!known.is_empty(), "docs/json.md has no '{message}' of '{command}'");
    let mut found = BTreeSet::new();
    collect(value, "", &known, &mut found);
    let missing: Vec<&String> = found.difference(&known).collect();
    assert!(missing.is_empty(), "not in docs/json.md, {command}, {message}: {missing:?}\n{value}");
}

/// Asserts that the page has every field of every message of a run's standard output.
#[track_caller]
pub(crate) fn check_messages(command: &str, messages: &[Value]) {
    for value in messages {
        let message =
            value["message_type"].as_str().unwrap_or_else(|| panic!("no message_type in {value}"));
        let section =
            if documented(command, message).is_empty() { "every command" } else { command };
        check(section, message, value);
    }
}

/// Paths of all fields; an object that the page documents as a whole (such as the snapshot of `ls`)
/// is not entered.
fn collect(value: &Value, path: &str, known: &BTreeSet<String>, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let is_whole =
                    known.contains(&path) && !known.iter().any(|field| is_below(field, &path));
                if is_whole {
                    found.insert(path);
                } else {
                    collect(value, &path, known, found);
                }
            }
        }
        Value::Array(values) if values.iter().any(Value::is_object) => {
            for value in values {
                collect(value, &format!("{path}[]"), known, found);
            }
        }
        _ if path.is_empty() => {}
        _ => {
            found.insert(path.to_owned());
        }
    }
}

fn is_below(field: &str, path: &str) -> bool {
    field.strip_prefix(path).is_some_and(|rest| rest.starts_with('.') || rest.starts_with("[]"))
}

#[test]
fn the_page_is_understood() {
    assert!(documented("backup", "summary").contains("files_new"));
    assert!(documented("key passwd", "summary").contains("action"));
    assert!(documented("snapshots", "document").contains("[].summary.files_new"));
    assert!(documented("nonsense", "summary").is_empty());
    check(
        "backup",
        "error",
        &serde_json::json!({"message_type": "error", "error": {"message": "x"}, "item": "/"}),
    );
    let snapshot =
        serde_json::json!({"snapshot": {"id": "x"}, "nodes": [{"name": "a", "type": "file"}]});
    check("ls", "document", &snapshot);
}

#[test]
#[should_panic(expected = "not in docs/json.md")]
fn a_field_that_the_page_lacks_is_found() {
    check("backup", "summary", &serde_json::json!({"message_type": "summary", "surprise": 1}));
}

#[test]
fn the_page_has_every_field_of_the_source() {
    let source = include_str!("../../crates/putback-cli/src/ui/json.rs");
    let mut count = 0;
    let mut lines = source.lines().map(str::trim).peekable();
    let mut renamed = None;
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("#[serde(rename = \"") {
            renamed = rest.split('"').next();
        } else if line == "#[serde(flatten)]" {
            lines.next();
        } else if let Some(rest) = line.strip_prefix("pub(crate) ")
            && let Some((name, _)) = rest.split_once(": ")
            && !name.contains([' ', '('])
        {
            let name = renamed.take().unwrap_or(name);
            let is_documented = PAGE
                .lines()
                .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
                .any(|field| field.split('.').any(|part| part.trim_end_matches("[]") == name));
            assert!(is_documented, "'{name}' of ui/json.rs is not in docs/json.md");
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}
