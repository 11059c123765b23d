//! Facts about the source that no compiler checks: the documents say what is so.

#![allow(clippy::unwrap_used, reason = "what cannot be read is a failure of the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Licences that a dependency may have. `AND` needs all of its parts here, `OR` one.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BlueOak-1.0.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Zlib",
    "0BSD",
];

/// What no source may hold. Written in two parts, or this file would be found.
const FORBIDDEN: &[(&str, &str)] = &[
    ("todo", "!("),
    ("unimplemented", "!("),
    ("dbg", "!("),
    ("FIX", "ME"),
    ("TO", "DO"),
    ("X", "XX"),
];

/// What the format must not use: it does no I/O and knows no clock, randomness, environment or threads.
const FORBIDDEN_IN_FORMAT: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
    "fs_err",
    "getrandom",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files below `folder` whose names end like this, relative to the root.
fn files(folder: &str, end: &str) -> Vec<String> {
    let root = root();
    let mut folders = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().ends_with(end) {
                files.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

fn sources() -> Vec<String> {
    ["crates", "tests", "fuzz/fuzz_targets", "fuzz/src"]
        .iter()
        .flat_map(|folder| files(folder, ".rs"))
        .collect()
}

/// The documents, README and changelog among them.
fn documents() -> Vec<String> {
    let mut documents = files("docs", ".md");
    documents.extend(["README.md", "CHANGELOG.md"].map(str::to_owned));
    documents
}

/// The rows of the table under a heading of `docs/architecture.md`, without its head, cells trimmed.
fn table(heading: &str) -> Vec<Vec<String>> {
    let page = read("docs/architecture.md");
    let lines = page.lines().skip_while(|line| *line != heading);
    let rows =
        lines.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<String>> = rows
        .skip(2)
        .map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    assert!(!rows.is_empty(), "no table under '{heading}'");
    rows
}

/// The texts between backticks.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What `cargo metadata` says of this workspace, as it is on this machine.
fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let version = Command::new(&cargo).arg("-vV").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = Command::new(&cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--all-features",
            "--filter-platform",
            host,
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn array<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn the_crates_depend_on_each_other_as_the_architecture_says() {
    let rows = table("## Crates");
    let said: BTreeMap<String, (String, BTreeSet<String>)> = rows
        .iter()
        .map(|row| {
            (
                row[0].trim_matches('`').to_owned(),
                (row[1].trim_matches('`').to_owned(), quoted(&row[2])),
            )
        })
        .collect();
    let metadata = metadata();
    let members: BTreeSet<&str> =
        array(&metadata, "workspace_members").iter().filter_map(Value::as_str).collect();
    let mut found = BTreeMap::new();
    for package in array(&metadata, "packages") {
        if !members.contains(package["id"].as_str().unwrap()) {
            continue;
        }
        let name = package["name"].as_str().unwrap().to_owned();
        let manifest =
            Path::new(package["manifest_path"].as_str().unwrap()).canonicalize().unwrap();
        let folder =
            manifest.parent().unwrap().strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let mut ours = BTreeSet::new();
        for dependency in array(package, "dependencies") {
            if dependency["path"].is_null() {
                continue;
            }
            let needed = dependency["name"].as_str().unwrap().to_owned();
            // Tests, too, may use only what stands below.
            assert!(
                dependency["kind"] == "dev" || said.contains_key(&name),
                "docs/architecture.md does not have {name}"
            );
            if dependency["kind"] == "dev" {
                let allowed = needed == "putio-emulator"
                    || said.get(&name).is_some_and(|(_, allowed)| allowed.contains(&needed));
                assert!(allowed, "the tests of {name} use {needed}");
            } else {
                ours.insert(needed);
            }
        }
        found.insert(name, (folder, ours));
    }
    assert_eq!(found, said, "left: the manifests; right: the table in docs/architecture.md");
}

#[test]
fn threads_start_only_where_the_architecture_says() {
    let said: BTreeSet<String> =
        table("## Where concurrency starts").iter().flat_map(|row| quoted(&row[0])).collect();
    let starts = ["thread::Builder", "thread::scope", "thread::spawn"];
    let found: BTreeSet<String> = files("crates", ".rs")
        .into_iter()
        .filter(|file| file.contains("/src/") && !file.contains("/testing/"))
        .filter(|file| {
            let text = read(file);
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            starts.iter().any(|start| code.contains(start))
        })
        .collect();
    assert_eq!(found, said, "left: the source; right: docs/architecture.md");
}

#[test]
fn the_format_asks_the_system_for_nothing() {
    for file in files("crates/putback-format/src", ".rs") {
        let text = read(&file);
        for word in FORBIDDEN_IN_FORMAT {
            assert!(!text.contains(word), "{file} uses {word}");
        }
    }
}

#[test]
fn nothing_unfinished_is_left_in_the_source() {
    for file in sources() {
        for (number, line) in read(&file).lines().enumerate() {
            for (first, second) in FORBIDDEN {
                let word = format!("{first}{second}");
                assert!(!line.contains(&word), "{file}:{}: {word}", number + 1);
            }
        }
    }
}

#[test]
fn every_file_of_the_tests_is_part_of_a_test() {
    for file in sources().iter().filter(|file| file.contains("tests/")) {
        let path = Path::new(file);
        let (folder, name) = (path.parent().unwrap(), path.file_stem().unwrap().to_str().unwrap());
        // `main.rs` is a root, and so is each file of a crate's own `tests`.
        if name == "main" || (folder.ends_with("tests") && folder.starts_with("crates")) {
            continue;
        }
        let (module, parents) = if name == "mod" {
            let module = folder.file_name().unwrap().to_str().unwrap();
            (
                module,
                [folder.parent().unwrap().join("main.rs"), folder.parent().unwrap().join("mod.rs")],
            )
        } else {
            (name, [folder.join("main.rs"), folder.join("mod.rs")])
        };
        // A module of the source that has its tests in a file beside it.
        if folder.starts_with("crates") && file.contains("/src/") {
            continue;
        }
        let is_part = parents
            .iter()
            .filter_map(|parent| std::fs::read_to_string(root().join(parent)).ok())
            .any(|text| text.lines().any(|line| line.trim().ends_with(&format!("mod {module};"))));
        assert!(is_part, "no `mod {module};` leads to {file}");
    }
}

#[test]
fn every_fuzz_target_is_built_and_has_inputs_to_begin_with() {
    let manifest = read("fuzz/Cargo.toml");
    let targets = files("fuzz/fuzz_targets", ".rs");
    assert!(targets.len() >= 19, "{targets:?}");
    for target in targets {
        let path = target.strip_prefix("fuzz/").unwrap();
        assert!(manifest.contains(&format!("path = \"{path}\"")), "{target} is not built");
        let name = Path::new(&target).file_stem().unwrap().to_str().unwrap();
        let corpus = root().join("fuzz/corpus").join(name);
        assert!(corpus.read_dir().is_ok_and(|mut inputs| inputs.next().is_some()), "{name}");
    }
}

/// Comments and code as one line, so that a citation may be broken anywhere.
fn in_one_line(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.trim();
        ["//!", "///", "//"].iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line).trim()
    });
    lines.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_document_and_section_that_is_cited_exists() {
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for document in documents() {
        let text = read(&document);
        let mut is_code = false;
        let mut titles = BTreeSet::new();
        for line in text.lines() {
            is_code ^= line.starts_with("```");
            if !is_code && line.starts_with('#') {
                titles.insert(line.trim_start_matches('#').trim().to_owned());
            }
        }
        sections.insert(document, titles);
    }
    let mut count = 0;
    for file in sources() {
        let text = in_one_line(&read(&file));
        for (at, _) in text.match_indices("docs/") {
            let rest = &text[at..];
            let Some(end) = rest.find(".md").map(|end| end + ".md".len()) else { continue };
            let document = &rest[..end];
            if document.contains(|c: char| !(c.is_ascii_alphanumeric() || "/-_.".contains(c))) {
                continue;
            }
            let Some(titles) = sections.get(document) else {
                panic!("{file} cites {document}, which does not exist")
            };
            let after = rest[end..].trim_start_matches('`');
            if let Some((title, _)) =
                after.strip_prefix(", \"").and_then(|rest| rest.split_once('"'))
            {
                assert!(titles.contains(title), "{file} cites \"{title}\" of {document}");
                count += 1;
            }
        }
    }
    assert!(count >= 15, "{count} citations were found");
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    for document in documents() {
        let text = read(&document);
        let folder = root().join(&document).parent().unwrap().to_path_buf();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#', ' ']).next().unwrap_or_default();
            let is_elsewhere = target.is_empty() || target.contains("://");
            assert!(is_elsewhere || folder.join(target).exists(), "{document} links to {target}");
        }
    }
}

#[test]
fn every_file_that_the_architecture_names_exists() {
    for name in quoted(&read("docs/architecture.md").replace("```", "")) {
        if ["crates/", "tests/", "scripts/", "docs/"].iter().any(|start| name.starts_with(start)) {
            assert!(root().join(&name).exists(), "docs/architecture.md names {name}");
        }
    }
}

/// Whether an SPDX expression can be satisfied with [`LICENCES`] alone.
fn is_permitted(expression: &str) -> bool {
    // Older manifests write `A/B` for a choice.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut words = words.as_slice();
    any_of(&mut words) && words.is_empty()
}

fn any_of(words: &mut &[&str]) -> bool {
    let mut permitted = all_of(words);
    while let Some(("OR", rest)) = words.split_first().map(|(first, rest)| (*first, rest)) {
        *words = rest;
        permitted |= all_of(words);
    }
    permitted
}

fn all_of(words: &mut &[&str]) -> bool {
    let mut permitted = one_of(words);
    while let Some(("AND", rest)) = words.split_first().map(|(first, rest)| (*first, rest)) {
        *words = rest;
        permitted &= one_of(words);
    }
    permitted
}

fn one_of(words: &mut &[&str]) -> bool {
    let Some((first, rest)) = words.split_first() else { return false };
    *words = rest;
    if *first == "(" {
        let permitted = any_of(words);
        let is_closed = words.split_first().is_some_and(|(first, _)| *first == ")");
        *words = words.get(1..).unwrap_or_default();
        return permitted && is_closed;
    }
    let mut name = (*first).to_owned();
    if let ["WITH", exception, ..] = words {
        name = format!("{name} WITH {exception}");
        *words = &words[2..];
    }
    LICENCES.contains(&name.as_str())
}

#[test]
fn licence_expressions_are_understood() {
    for (expression, permitted) in [
        ("MIT", true),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("ISC AND (GPL-2.0 OR GPL-3.0)", false),
        ("GPL-3.0 OR Apache-2.0 WITH LLVM-exception", true),
        ("GPL-3.0 WITH LLVM-exception", false),
        ("(MIT", false),
        ("MIT MIT", false),
        ("", false),
    ] {
        assert_eq!(is_permitted(expression), permitted, "{expression}");
    }
}

#[test]
fn every_dependency_has_a_permitted_licence() {
    let metadata = metadata();
    let packages = array(&metadata, "packages");
    assert!(packages.len() > 20);
    for package in packages {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(is_permitted(licence), "{}: '{licence}'", package["name"]);
    }
}

/// The commands that a help text lists.
fn subcommands(of: &[&str]) -> Vec<String> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_putback")).args(of).arg("--help").output().unwrap();
    assert!(output.status.success(), "{of:?}");
    let help = String::from_utf8(output.stdout).unwrap();
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Lines that are indented further go on with a description.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_is_tested_and_documented() {
    let documents: String = documents().iter().map(|document| read(document)).collect();
    let names = subcommands(&[]);
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(
            root().join(format!("tests/cli/{name}.rs")).exists(),
            "tests/cli/{name}.rs is missing"
        );
        for words in std::iter::once(name.clone())
            .chain(subcommands(&[&name]).iter().map(|below| format!("{name} {below}")))
        {
            let mentions = [format!("putback {words}"), format!("`{words}`")];
            assert!(
                mentions.iter().any(|mention| documents.contains(mention)),
                "no document mentions `putback {words}`"
            );
        }
    }
}
