//! A stream becomes one file, or nothing if it failed.

use std::io::{self, Read};

use putback_engine::Error;
use putback_engine::backup::{BackupReport, Source, backup};
use putback_store::Store;

use crate::support::*;

fn back_up(
    machine: &Machine,
    name: &[u8],
    reader: impl Read + Send + 'static,
    end: Result<(), String>,
) -> Result<BackupReport, Error> {
    let source =
        Source::Stream { name: name.to_vec(), reader: Box::new(reader), finish: Box::new(|| end) };
    backup(&machine.open(), source, &options(), &())
}

/// Gives some bytes, then an error.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.0.min(buffer.len());
        self.0 -= length;
        if length == 0 { Err(io::Error::other("the pipe broke")) } else { Ok(length) }
    }
}

/// Gives one byte at a time.
struct Dripping(io::Cursor<Vec<u8>>);

impl Read for Dripping {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn a_stream_of_any_length_comes_back() {
    let machine = Machine::new();
    for length in [0, 1, 128, 129, 16 << 10, 1_000_000] {
        let bytes = noise(length as u64, length);
        let readers: [Box<dyn Read + Send>; 2] = [
            Box::new(io::Cursor::new(bytes.clone())),
            Box::new(Dripping(io::Cursor::new(bytes.clone()))),
        ];
        for reader in readers {
            let report = back_up(&machine, b"dumps/shop.sql", reader, Ok(())).unwrap();
            assert_eq!(
                (report.statistics.files_new, report.statistics.bytes_read),
                (1, length as u64)
            );
            let repository = machine.open();
            repository.load_index().unwrap();
            let snapshot = repository.read_snapshot(&report.snapshot.unwrap()).unwrap();
            assert_eq!(snapshot.paths, [b"/dumps/shop.sql".to_vec()]);
            let target = tempfile::tempdir().unwrap();
            let options = restore_options(target.path());
            putback_engine::restore::restore(&repository, &snapshot, b"/dumps", &options, &())
                .unwrap();
            assert!(std::fs::read(target.path().join("shop.sql")).unwrap() == bytes, "{length}");
        }
    }
    machine.assert_clean();
}

#[test]
fn a_command_that_fails_after_its_last_byte_makes_no_snapshot() {
    let machine = Machine::new();
    let error = back_up(
        &machine,
        b"dump",
        io::Cursor::new(noise(1, 100_000)),
        Err("exit status 1".to_owned()),
    );
    assert!(matches!(error, Err(Error::Refused { message }) if message.contains("exit status 1")));
    assert!(machine.store.list("snapshots").unwrap().is_empty());
    back_up(&machine, b"dump", io::Cursor::new(noise(1, 100_000)), Ok(())).unwrap();
    machine.assert_clean();
}

#[test]
fn a_stream_that_breaks_makes_no_snapshot() {
    let machine = Machine::new();
    for bytes in [0, 1000, 3 << 20] {
        let error = back_up(&machine, b"dump", Broken(bytes), Ok(())).unwrap_err();
        assert!(matches!(error, Error::Source { .. }), "{error}");
    }
    assert!(machine.store.list("snapshots").unwrap().is_empty());
}
