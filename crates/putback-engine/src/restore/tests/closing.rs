//! Immutable and append-only files, which nothing can be done to once they are. Needs root, as continuous integration
//! has, and a file system that knows both.

use super::*;

const FILES: [(&str, usize, IFlags); 6] = [
    ("inline", 10, IFlags::IMMUTABLE),
    ("single", 5_000, IFlags::APPEND),
    ("several", 200_000, IFlags::IMMUTABLE),
    ("log", 200_000, IFlags::APPEND),
    ("linked", 200_000, IFlags::IMMUTABLE),
    ("linked log", 10, IFlags::APPEND),
];

fn closed_source() -> (Lab, Snapshot) {
    let lab = Lab::new();
    fs::create_dir(lab.source().join("other")).unwrap();
    for (number, (name, length, flags)) in FILES.into_iter().enumerate() {
        lab.write(name, noise(number as u64, length));
        let path = lab.source().join(name);
        if name.starts_with("linked") {
            fs::hard_link(&path, lab.source().join("other").join(name)).unwrap();
            fs::hard_link(&path, lab.source().join(format!("{name} too"))).unwrap();
        }
        set_closing_flags(&path, flags);
    }
    let snapshot = lab.back_up();
    (lab, snapshot)
}

#[test]
fn files_that_are_immutable_or_append_only_come_back_whatever_the_policy() {
    let (lab, snapshot) = closed_source();
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never]
    {
        let options = RestoreOptions { overwrite, ..lab.options() };
        let (_, told) = lab.restore(&snapshot, &options);
        assert_eq!(told.problems(), [], "{overwrite:?}");
        lab.check_same();
        let (report, told) = lab.restore(&snapshot, &options);
        assert_eq!(told.problems(), [], "{overwrite:?}");
        assert_eq!(report.files_unchanged + report.files_skipped, report.files_total);
        lab.check_same();
        lab.remove_target();
    }
}

#[test]
fn damaged_files_become_immutable_or_append_only_again() {
    let (lab, snapshot) = closed_source();
    for (number, (name, length, _)) in FILES.into_iter().enumerate() {
        let mut old = noise(number as u64, length);
        old[length - 1] ^= 1;
        lab.write_target(name, old);
    }
    let (report, told) = lab.restore(&snapshot, &lab.options());
    assert_eq!(told.problems(), []);
    assert_eq!((report.files_updated, report.files_restored), (6, 4));
    lab.check_same();
}

#[test]
fn files_of_which_only_the_flags_are_missing_get_them() {
    let (lab, snapshot) = closed_source();
    lab.restore(&snapshot, &lab.options());
    make_removable(&lab.target());
    let (report, told) = lab.restore(&snapshot, &lab.options());
    assert_eq!(told.problems(), []);
    assert_eq!((report.files_updated, report.files_unchanged), (10, 0));
    lab.check_same();
}

#[test]
fn a_name_that_cannot_be_linked_any_more_becomes_a_copy() {
    let (lab, snapshot) = closed_source();
    lab.restore(&snapshot, &lab.options());
    make_removable(&lab.target());
    fs::remove_file(lab.target().join("other/linked")).unwrap();
    set_closing_flags(&lab.target().join("linked"), IFlags::IMMUTABLE);
    let (report, told) = lab.restore(&snapshot, &lab.options());
    assert_eq!(told.problems(), []);
    assert_eq!(report.files_restored, 1);
    let (found, expected) = (look(&lab.target()), look(&lab.source()));
    let copy = &found[&b"other/linked"[..]];
    assert_eq!((copy.links, copy.flags), (1, platform::FLAG_IMMUTABLE));
    assert!(copy.content == expected[&b"other/linked"[..]].content);
    assert_eq!(found.len(), expected.len());
}
