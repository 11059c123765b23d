//! `putback ls`.

use crate::harness::{TestEnvironment, schema};

#[test]
fn without_a_folder_all_is_listed() {
    let environment = TestEnvironment::with_snapshot();
    let run = environment.run(["ls", "latest"]).success();
    run.shows("[ROOT]/source/a.txt\n")
        .shows("[ROOT]/source/folder\n")
        .shows("[ROOT]/source/folder/deeper/c.bin\n");
}

#[test]
fn of_a_folder_only_its_own_entries_are_listed() {
    let environment = TestEnvironment::with_snapshot();
    let source = environment.source();
    let source = source.to_str().unwrap();
    let expected = "[ROOT]/source/a.txt\n[ROOT]/source/folder\n";
    assert_eq!(environment.run(["ls", "latest", source]).success().stdout(), expected);
    assert_eq!(environment.run(["ls", &format!("latest:{source}")]).success().stdout(), expected);
    let run = environment.run(["ls", "latest", source, "--recursive"]).success();
    assert_eq!(run.stdout().lines().count(), 5);
    environment.run(["ls", "latest:/a", "/b"]).code(2).complains("the path is given twice");
}

#[test]
fn a_long_list_has_mode_owner_size_and_time() {
    let environment = TestEnvironment::with_snapshot();
    let source = environment.source();
    let source = source.to_str().unwrap();
    let text = environment.run(["ls", "-l", "latest", source]).success().stdout();
    let file = text.lines().find(|line| line.ends_with("a.txt")).unwrap();
    assert!(file.starts_with("-rw") && file.contains(" 11 ") && file.contains("+02:00"), "{file}");
    assert!(text.lines().any(|line| line.starts_with('d')), "{text}");
    let folder = format!("{source}/folder/deeper");
    environment.run(["ls", "-l", "--human", "latest", &folder]).success().shows("293.0 KiB");
}

#[test]
fn the_list_is_sorted_as_asked() {
    let environment = TestEnvironment::with_snapshot();
    let sorted = |flags: &[&str]| {
        let text = environment.run(["ls", "latest"].iter().chain(flags)).success().stdout();
        text.lines()
            .filter(|line| line.contains('.'))
            .map(|line| line.rsplit('/').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(sorted(&["--sort", "size"]), ["a.txt", "b.txt", "c.bin"]);
    assert_eq!(sorted(&["--sort", "size", "--reverse"]), ["c.bin", "b.txt", "a.txt"]);
    assert_eq!(sorted(&["--sort", "extension"])[0], "c.bin");
    assert_eq!(sorted(&["--reverse"])[2], "a.txt");
}

#[test]
fn programs_get_one_document_whose_fields_are_documented() {
    let environment = TestEnvironment::with_snapshot();
    #[cfg(unix)]
    std::os::unix::fs::symlink("a.txt", environment.source().join("link")).unwrap();
    environment.backup();
    let document = environment.run(["ls", "latest", "--json"]).success().document();
    schema::check("ls", "document", &document);
    let nodes = document["nodes"].as_array().unwrap();
    let file = nodes.iter().find(|node| node["name"] == "a.txt").unwrap();
    assert_eq!((&file["type"], &file["size"]), (&"file".into(), &11.into()));
    #[cfg(unix)]
    assert!(nodes.iter().any(|node| node["type"] == "symlink" && node["linktarget"] == "a.txt"));
    let sorted = environment.run(["ls", "latest", "--json", "--sort", "size"]).success().document();
    assert_eq!(sorted["nodes"].as_array().unwrap().len(), nodes.len());
}
