//! Walks over real folders. A walk is written as one line per step, with paths relative to the folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use putback_format::tree::EntryKind;

use super::filter::Filter;
use super::roots::{RepositoryFolder, Roots, absolute_path};
use super::walk::{HANDLES_MAX, Step, Walker};
use crate::Error;
use crate::backup::FilterOptions;
use crate::platform::{FileKind, TargetDirectory, Users, bytes_of_path, path_of_bytes};

struct Folder(tempfile::TempDir);

impl Folder {
    /// Makes files of these paths, with their path as content; a trailing slash makes a directory.
    fn with(paths: &[&str]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for path in paths {
            folder.add(path, path.as_bytes());
        }
        folder
    }

    fn add(&self, path: &str, content: &[u8]) {
        let full = self.path(path);
        if path.ends_with('/') {
            fs::create_dir_all(full).unwrap();
        } else {
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(full, content).unwrap();
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Empty for what is above the folder.
    fn shown(&self, path: &[u8]) -> Option<String> {
        let rest = path.strip_prefix(bytes_of_path(self.0.path()).as_ref())?;
        Some(String::from_utf8_lossy(rest).escape_debug().to_string())
    }

    fn walker(&self, roots: &[&str], filter: Filter) -> Walker {
        let paths: Vec<_> = roots.iter().map(|root| self.path(root)).collect();
        let roots = Roots::resolve(&paths, Path::new("/"));
        assert_eq!(roots.missing, []);
        Walker::new(&roots, Arc::new(filter), Arc::new(Users::new()))
    }

    fn walk(&self, roots: &[&str], filter: Filter) -> Vec<String> {
        self.finish(self.walker(roots, filter))
    }

    fn finish(&self, mut walker: Walker) -> Vec<String> {
        let mut lines = Vec::new();
        let mut depth = 0;
        let mut is_inside = Vec::new();
        while let Some(step) = walker.next_step().unwrap() {
            match step {
                Step::Enter { path, entry, is_wanted } => {
                    assert!(matches!(entry.kind, EntryKind::Directory { .. }));
                    let name = path.rsplit(|byte| *byte == b'/').next().unwrap();
                    assert_eq!(entry.name, name);
                    let mark = if is_wanted { "" } else { " (passage)" };
                    is_inside.push(self.shown(&path).is_some());
                    lines.extend(self.shown(&path).map(|path| format!("enter {path}{mark}")));
                    depth += 1;
                }
                Step::Leave => {
                    depth -= 1;
                    if is_inside.pop().unwrap() {
                        lines.push("leave".to_owned());
                    }
                }
                Step::Entry(found) => {
                    assert!(found.path.ends_with(found.name()));
                    assert_eq!(found.directory().stat(found.name()).unwrap(), found.stat);
                    lines.push(self.shown(&found.path).expect("below the folder"));
                }
                Step::Excluded { path, exclusion } => {
                    lines.extend(
                        self.shown(&path).map(|path| format!("without {path}: {exclusion}")),
                    );
                }
                Step::Problem { path, kind, message } => {
                    lines.extend(
                        self.shown(&path).map(|path| format!("{kind:?} {path}: {message}")),
                    );
                }
            }
        }
        assert_eq!(depth, 0);
        lines
    }
}

fn filter(change: impl FnOnce(&mut FilterOptions)) -> Filter {
    let mut options = FilterOptions::default();
    change(&mut options);
    Filter::new(&options).unwrap()
}

/// Everything below the folder, without `enter` and `leave`.
fn check(folder: &Folder, filter: Filter, expected: &[&str]) {
    let lines = folder.walk(&[""], filter);
    let lines: Vec<_> =
        lines.iter().filter(|line| !line.starts_with("enter") && *line != "leave").collect();
    assert_eq!(lines, expected);
}

#[test]
fn entries_come_depth_first_in_the_order_of_their_bytes() {
    let folder = Folder::with(&["b/z", "b/a", "a", "c", "B", "b-", "empty/"]);
    fs::write(folder.path("").join(path_of_bytes(b"\xff\n")), b"").unwrap();
    symlink("b", folder.path("link")).unwrap();
    symlink("..", folder.path("b/loop")).unwrap();
    assert_eq!(
        folder.walk(&[""], Filter::default()),
        [
            "enter ",
            "/B",
            "/a",
            "enter /b",
            "/b/a",
            "/b/loop",
            "/b/z",
            "leave",
            "/b-",
            "/c",
            "enter /empty",
            "leave",
            "/link",
            "/\u{fffd}\\n",
            "leave"
        ]
    );
}

#[test]
fn roots_are_reached_through_passages() {
    let folder = Folder::with(&["a/b/wanted/file", "a/b/not", "a/file", "a/z", "other/x"]);
    symlink("a", folder.path("link")).unwrap();
    assert_eq!(
        folder
            .walk(&["a/file", "a/b/wanted/", "link/b/not", "a/b/./wanted/file"], Filter::default()),
        [
            "enter  (passage)",
            "enter /a (passage)",
            "enter /a/b (passage)",
            "enter /a/b/wanted",
            "/a/b/wanted/file",
            "leave",
            "leave",
            "/a/file",
            "leave",
            "enter /link (passage)",
            "enter /link/b (passage)",
            "/link/b/not",
            "leave",
            "leave",
            "leave",
        ]
    );
    // A root that is a link is a link.
    assert_eq!(folder.walk(&["link"], Filter::default()), ["enter  (passage)", "/link", "leave"]);
}

#[test]
fn roots_become_absolute_by_their_words() {
    for (path, expected) in [
        ("a", "/here/a"),
        ("./a//b/", "/here/a/b"),
        ("../a", "/a"),
        ("../../..", "/"),
        ("/x/./y/../z", "/x/z"),
        (".", "/here"),
        ("/", "/"),
    ] {
        assert_eq!(
            absolute_path(Path::new(path), Path::new("/here")),
            expected.as_bytes(),
            "{path}"
        );
    }
}

#[test]
fn nested_and_repeated_roots_are_one() {
    let folder = Folder::with(&["a/b/c", "a-b"]);
    let resolve = |paths: &[&str]| {
        let paths: Vec<_> = paths.iter().map(PathBuf::from).collect();
        let roots = Roots::resolve(&paths, folder.0.path());
        let shown = roots.paths.iter().map(|path| folder.shown(path).unwrap_or_default());
        (shown.collect::<Vec<_>>(), roots)
    };
    assert_eq!(resolve(&["a/b", "a", "a/b/c", "./a"]).0, ["/a"]);
    assert_eq!(resolve(&["a/b", "a-b"]).0, ["/a-b", "/a/b"]);
    let (_, all) = resolve(&["a", "/"]);
    assert_eq!(
        (all.paths, all.tree.is_root, all.tree.children.len()),
        (vec![b"/".to_vec()], true, 0)
    );
    let (paths, roots) = resolve(&["missing", "a", "a/b/c/no"]);
    assert_eq!(paths, ["/a"]);
    let message = roots.missing_error().unwrap().to_string();
    assert!(message.contains("'missing'") && message.contains("'a/b/c/no'"), "{message}");
    assert!(resolve(&["a"]).1.missing_error().is_none());
}

#[test]
fn patterns_say_why_they_exclude() {
    let folder = Folder::with(&["a.o", "keep.o", "cache/x", "sub/cache", "sub/B.TMP"]);
    check(
        &folder,
        filter(|options| {
            options.exclude = vec!["*.o".into(), "!keep.o".into(), "cache/".into()];
            options.iexclude = vec!["*.tmp".into()];
        }),
        &[
            "without /a.o: matches '*.o'",
            "without /cache: matches 'cache/'",
            "/keep.o",
            "without /sub/B.TMP: matches '*.tmp'",
            "/sub/cache",
        ],
    );
    let anchored = format!("{}/sub", folder.0.path().display());
    let expected = format!("without /sub: matches '{anchored}'");
    check(
        &folder,
        filter(|options| options.exclude = vec![anchored]),
        &["/a.o", "/cache/x", "/keep.o", &expected],
    );
    // A root is not above the rules.
    let lines = folder.walk(&["sub"], filter(|options| options.exclude = vec!["sub".into()]));
    assert_eq!(lines, ["enter  (passage)", "without /sub: matches 'sub'", "leave"]);
}

#[test]
fn patterns_are_read_from_files() {
    let folder = Folder::with(&["src/a.o", "src/A.O", "src/b"]);
    folder.add("list", b"# no objects\n*.o\n");
    let rules = filter(|options| options.exclude_files = vec![folder.path("list")]);
    let lines = folder.walk(&["src"], rules);
    assert!(
        lines.contains(&"without /src/a.o: matches '*.o'".to_owned())
            && lines.contains(&"/src/A.O".to_owned())
    );
    let rules = filter(|options| options.iexclude_files = vec![folder.path("list")]);
    assert!(folder.walk(&["src"], rules).contains(&"without /src/A.O: matches '*.o'".to_owned()));

    let missing =
        FilterOptions { exclude_files: vec![folder.path("none")], ..FilterOptions::default() };
    assert!(
        matches!(Filter::new(&missing), Err(Error::Source { path, .. }) if path.ends_with("none"))
    );
    let bad = FilterOptions { exclude: vec!["[".into()], ..FilterOptions::default() };
    assert!(matches!(Filter::new(&bad), Err(Error::Pattern { .. })));
    for name in ["a/b", "..", ""] {
        let bad = FilterOptions { ignore_files: vec![name.into()], ..FilterOptions::default() };
        assert!(matches!(Filter::new(&bad), Err(Error::Pattern { .. })), "{name}");
    }
}

#[test]
fn a_tag_leaves_only_itself() {
    let folder = Folder::with(&["a/x", "a/.nobackup", "b/x", "c/x", "c/.nobackup/y"]);
    check(
        &folder,
        filter(|options| options.exclude_if_present = vec![(".nobackup".into(), None)]),
        &[
            "without /a: its folder holds .nobackup",
            "/a/.nobackup",
            "/b/x",
            "/c/.nobackup/y",
            "/c/x",
        ],
    );
    let folder = Folder::with(&["a/x", "b/x"]);
    folder.add("a/tag", b"yes and more");
    folder.add("b/tag", b"ye");
    check(
        &folder,
        filter(|options| options.exclude_if_present = vec![("tag".into(), Some(b"yes".to_vec()))]),
        &["without /a: its folder holds tag", "/a/tag", "/b/tag", "/b/x"],
    );
}

#[test]
fn caches_are_known_by_their_signature() {
    let folder = Folder::with(&["real/data", "fake/data", "fake/CACHEDIR.TAG", "linked/data"]);
    folder.add(
        "real/CACHEDIR.TAG",
        b"Signature: 8a477f597d28d172789f06886806bc55\n# made by a test\n",
    );
    symlink("../real/CACHEDIR.TAG", folder.path("linked/CACHEDIR.TAG")).unwrap();
    check(
        &folder,
        filter(|options| options.exclude_caches = true),
        &[
            "/fake/CACHEDIR.TAG",
            "/fake/data",
            "/linked/CACHEDIR.TAG",
            "/linked/data",
            "without /real: its folder is a cache",
            "/real/CACHEDIR.TAG",
        ],
    );
}

#[test]
fn ignore_files_nest_as_in_git() {
    let folder = Folder::with(&[
        "a.o",
        "build/x",
        "sub/build",
        "sub/a.o",
        "sub/b.o",
        "sub/deep/b.o",
        "sub/deep/c",
        "top",
        "sub/top",
    ]);
    folder.add(".gitignore", b"# objects\n*.o\nbuild/\n/top\n[\n\xff\n");
    folder.add("sub/.gitignore", b"!a.o\r\nc\n");
    let outer = format!("{}/.gitignore", folder.0.path().display());
    let inner = format!("{}/sub/.gitignore", folder.0.path().display());
    let without = |path: &str, pattern: &str, file: &str| {
        format!("without {path}: matches '{pattern}' in {file}")
    };
    let expected = [
        "/.gitignore".to_owned(),
        without("/a.o", "*.o", &outer),
        without("/build", "build/", &outer),
        "/sub/.gitignore".to_owned(),
        "/sub/a.o".to_owned(),
        without("/sub/b.o", "*.o", &outer),
        "/sub/build".to_owned(),
        without("/sub/deep/b.o", "*.o", &outer),
        without("/sub/deep/c", "c", &inner),
        "/sub/top".to_owned(),
        without("/top", "/top", &outer),
    ];
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    check(&folder, filter(|options| options.ignore_files = vec![".gitignore".into()]), &expected);
}

#[test]
fn large_files_stay_out_and_large_directories_do_not() {
    let folder = Folder::with(&["dir/"]);
    folder.add("small", &[0; 100]);
    folder.add("large", &[0; 101]);
    check(
        &folder,
        filter(|options| options.exclude_larger_than = Some(100)),
        &["without /large: larger than 100 bytes", "/small"],
    );
}

#[test]
fn mount_points_are_kept_empty() {
    let device =
        |path: &str| crate::platform::stat_path(Path::new(path)).map(|stat| stat.device).ok();
    if device("/dev/shm").is_none() || device("/dev/shm") == device("/dev") {
        return;
    }
    let rules = filter(|options| options.one_file_system = true);
    let roots = Roots::resolve(&["/dev".into()], Path::new("/"));
    let mut walker = Walker::new(&roots, Arc::new(rules), Arc::new(Users::new()));
    let mut seen = Vec::new();
    while let Some(step) = walker.next_step().unwrap() {
        match step {
            Step::Excluded { path, exclusion } if path == b"/dev/shm" => {
                seen.push(exclusion.to_string());
            }
            Step::Enter { path, .. } if path == b"/dev/shm" => {
                seen.push("enter".to_owned());
                assert!(matches!(walker.next_step().unwrap(), Some(Step::Leave)));
            }
            Step::Entry(found) => assert!(!found.path.starts_with(b"/dev/shm/")),
            _ => {}
        }
    }
    assert_eq!(seen, ["on another file system", "enter"]);
}

#[test]
fn the_repository_is_left_out_wherever_it_is_met() {
    let folder = Folder::with(&["data", "repo/config/1", "repo/packs/2", "z"]);
    symlink("repo", folder.path("link")).unwrap();
    let repository = RepositoryFolder::find(&folder.path("link")).unwrap();
    check(
        &folder,
        Filter::default().without_repository(repository.clone()),
        &["/data", "/link", "without /repo: is the repository", "/z"],
    );
    let check_outside = |path: &str| {
        Roots::resolve(&[folder.path(path)], Path::new("/")).check_outside(&repository)
    };
    for path in ["", "data", "link"] {
        assert!(check_outside(path).is_ok(), "{path}");
    }
    for path in ["repo", "repo/packs", "repo/config/1", "link/packs", "link/packs/2"] {
        let error = check_outside(path).unwrap_err();
        assert!(matches!(&error, Error::Refused { message } if message.contains(path)), "{error}");
    }
    assert!(matches!(RepositoryFolder::find(&folder.path("none")), Err(Error::Source { .. })));
}

#[test]
fn what_vanishes_is_told_and_the_walk_goes_on() {
    let folder = Folder::with(&["a", "b", "c/x", "d/x", "e"]);
    let mut walker = folder.walker(&[""], Filter::default());
    while let Some(step) = walker.next_step().unwrap() {
        if matches!(&step, Step::Entry(found) if found.name() == b"a") {
            break;
        }
    }
    fs::remove_file(folder.path("b")).unwrap();
    fs::remove_dir_all(folder.path("c")).unwrap();
    fs::remove_dir_all(folder.path("d")).unwrap();
    symlink("/etc", folder.path("d")).unwrap();
    let mut lines = Vec::new();
    while let Some(step) = walker.next_step().unwrap() {
        match step {
            Step::Entry(found) => lines.extend(folder.shown(&found.path)),
            Step::Problem { path, kind, .. } => {
                lines.push(format!("{kind:?} {}", folder.shown(&path).unwrap()));
            }
            Step::Enter { .. } => panic!("nothing is left to enter"),
            _ => {}
        }
    }
    // What became a link is a link; it leads nowhere.
    assert_eq!(lines, ["Vanished /b", "Vanished /c", "/d", "/e"]);
}

#[test]
fn a_file_handle_outlives_the_walk() {
    use std::io::Read;

    let folder = Folder::with(&["dir/file"]);
    symlink("target", folder.path("dir/link")).unwrap();
    let mut walker = folder.walker(&["dir"], Filter::default());
    let mut found = Vec::new();
    while let Some(step) = walker.next_step().unwrap() {
        if let Step::Entry(entry) = step {
            found.push(entry);
        }
    }
    drop(walker);
    let mut content = String::new();
    found[0].open().unwrap().read_to_string(&mut content).unwrap();
    assert_eq!((content.as_str(), found[0].stat.kind), ("dir/file", FileKind::File));
    assert_eq!(found[1].read_link().unwrap(), b"target");
    assert!(found[1].xattrs().problem.is_none());
}

#[test]
fn a_tree_may_be_deeper_than_handles_are_kept() {
    let folder = Folder::with(&[]);
    let depth = 4 * HANDLES_MAX;
    let mut directory = TargetDirectory::open(folder.0.path()).unwrap();
    for _ in 0..depth {
        directory.create_file(b"z-after").unwrap();
        directory = directory.create_child(b"directory-with-a-long-name").unwrap();
    }
    let lines = folder.walk(&[""], Filter::default());
    assert_eq!(lines.iter().filter(|line| line.ends_with("/z-after")).count(), depth);
    assert_eq!(lines.iter().filter(|line| line.starts_with("enter")).count(), depth + 1);
    assert!(
        TargetDirectory::open(folder.0.path())
            .unwrap()
            .remove_all(b"directory-with-a-long-name")
            .problems
            .is_empty()
    );
}

#[test]
fn a_directory_that_moves_away_is_told() {
    let folder = Folder::with(&["top/", "away/"]);
    let mut directory = TargetDirectory::open(&folder.path("top")).unwrap();
    for _ in 0..HANDLES_MAX + 20 {
        directory.create_file(b"z").unwrap();
        directory = directory.create_child(b"d").unwrap();
    }
    let mut walker = folder.walker(&["top"], Filter::default());
    let mut told = Vec::new();
    let mut leaves = 0;
    while let Some(step) = walker.next_step().unwrap() {
        match step {
            Step::Leave => {
                leaves += 1;
                if leaves == 1 {
                    // The walk is at the bottom. The way up leads elsewhere, and `top/d` is no longer there;
                    // `top/d/d/d` has moved, but is found by its path.
                    fs::rename(folder.path("top/d/d/d/d"), folder.path("away/deep")).unwrap();
                    fs::rename(folder.path("top/d/d"), folder.path("away/middle")).unwrap();
                    fs::create_dir(folder.path("top/d/d")).unwrap();
                    fs::rename(folder.path("away/middle/d"), folder.path("top/d/d/d")).unwrap();
                }
            }
            Step::Problem { path, kind, message } => {
                told.push(format!("{kind:?} {}: {message}", folder.shown(&path).unwrap()));
            }
            Step::Entry(found) if found.path.len() <= folder.0.path().as_os_str().len() + 12 => {
                told.extend(folder.shown(&found.path));
            }
            _ => {}
        }
    }
    let moved = "Unreadable /top/d/d: the directory was moved while it was read";
    assert_eq!(told, ["/top/d/d/d/z", moved, "/top/d/z", "/top/z"]);
}

/// Permissions do not bind root, so another user walks in a process of its own.
#[test]
fn an_unreadable_directory_is_kept_without_its_contents() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    let folder = Folder::with(&["closed/secret", "open/file", "passage/root/file"]);
    let set = |path: &str, mode| {
        fs::set_permissions(folder.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("", 0o755);
    set("closed", 0o700);
    set("passage", 0o711);
    if crate::platform::effective_uid() != 0 {
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "source::tests::walk_named_by_the_environment",
            "--ignored",
            "--nocapture",
        ])
        .env("PUTBACK_TEST_FOLDER", folder.0.path())
        .uid(65534)
        .gid(65534)
        .output();
    let Ok(output) = output else { return };
    let output = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = output.lines().filter_map(|line| line.strip_prefix("step ")).collect();
    let lines: Vec<_> = lines.iter().filter_map(|line| folder.shown(line.as_bytes())).collect();
    let expected = [
        " enter",
        "/closed Unreadable Permission denied (os error 13)",
        "/closed enter",
        "/open enter",
        "/open/file",
        "/passage enter",
        "/passage/root enter",
        "/passage/root/file",
    ];
    assert_eq!(lines, expected, "{output}");
}

#[test]
#[ignore = "a helper of another test"]
fn walk_named_by_the_environment() {
    let Some(folder) = std::env::var_os("PUTBACK_TEST_FOLDER").map(PathBuf::from) else { return };
    let paths = [folder.join("closed"), folder.join("open"), folder.join("passage/root")];
    let roots = Roots::resolve(&paths, Path::new("/"));
    let mut walker = Walker::new(&roots, Arc::new(Filter::default()), Arc::new(Users::new()));
    println!();
    while let Some(step) = walker.next_step().unwrap() {
        match step {
            Step::Enter { path, .. } => println!("step {} enter", String::from_utf8_lossy(&path)),
            Step::Entry(found) => println!("step {}", String::from_utf8_lossy(&found.path)),
            Step::Problem { path, kind, message } => {
                println!("step {} {kind:?} {message}", String::from_utf8_lossy(&path));
            }
            _ => {}
        }
    }
}
