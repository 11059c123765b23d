//! `putback backup`.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use jiff::Zoned;
use putback_engine::backup::{
    self, BackupOptions, BackupReport, FilterOptions, ParentChoice, Source,
};
use putback_repo::{Action, Event, Observer, Repository};

use crate::args::{Origin, Origins};
use crate::bytes;
use crate::commands::init::{self, RepositoryArgs};
use crate::commands::select;
use crate::context::{self, Context};
use crate::location;
use crate::password::{self, Secret};
use crate::report::{self, Failure, Outcome};
use crate::ui::progress::{self, Entries, Kind};
use crate::ui::{Ui, json, text};

/// Longest name that Linux gives a file; a longer one could not be restored.
const NAME_BYTES_MAX: usize = 255;
/// Longest list of paths that is read from a file.
const LIST_BYTES_MAX: u64 = 1 << 30;

/// Back up files and folders
///
/// Files that have not changed since the last snapshot of the same host and paths are not read
/// again. What cannot be read is reported and left out; the exit code is then 3. An interrupted
/// backup continues where it was when the command is run again.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback backup ~/Documents ~/Pictures --exclude '*.tmp' --tag daily\n  \
        putback backup / --one-file-system --exclude-caches --exclude-file /etc/putback.exclude\n  \
        putback backup --stdin --stdin-name database.sql < database.sql\n  \
        putback backup --command --stdin-name database.sql -- pg_dump -U postgres shop")]
pub(crate) struct BackupArgs {
    /// Files and folders
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// With --command: the command and its arguments. Otherwise: further paths
    #[arg(last = true, value_name = "CMD")]
    trailing: Vec<OsString>,

    /// Back up standard input as one file
    #[arg(long, env = "PUTBACK_STDIN", help_heading = "What to back up")]
    stdin: bool,
    /// Name of the file that --stdin or --command makes
    #[arg(
        long,
        env = "PUTBACK_STDIN_NAME",
        value_name = "NAME",
        default_value = "stdin",
        alias = "stdin-filename",
        help_heading = "What to back up"
    )]
    stdin_name: OsString,
    /// Back up what CMD prints; a snapshot is made only if it succeeds
    #[arg(long, env = "PUTBACK_COMMAND", help_heading = "What to back up")]
    command: bool,
    /// Read paths from FILE, one a line; empty lines and those that begin with # are left out; - is
    /// standard input
    #[arg(long, env = "PUTBACK_FILES_FROM", value_name = "FILE", help_heading = "What to back up")]
    files_from: Vec<PathBuf>,
    /// Read paths from FILE, each ended by a NUL byte; - is standard input
    #[arg(
        long,
        env = "PUTBACK_FILES_FROM_RAW",
        value_name = "FILE",
        help_heading = "What to back up"
    )]
    files_from_raw: Vec<PathBuf>,

    #[command(flatten)]
    filter: FilterArgs,

    /// Tag of the snapshot; TAG,TAG are two
    #[arg(long, env = "PUTBACK_TAG", value_name = "TAG", help_heading = "The snapshot")]
    tag: Vec<String>,
    /// Host name in the snapshot, instead of this machine's
    #[arg(
        short = 'H',
        long,
        env = "PUTBACK_HOST",
        value_name = "HOST",
        help_heading = "The snapshot"
    )]
    host: Option<String>,
    /// Text that describes the snapshot
    #[arg(long, env = "PUTBACK_DESCRIPTION", value_name = "TEXT", help_heading = "The snapshot")]
    description: Option<String>,
    /// Time of the snapshot, instead of now: 2026-11-22T13:05:07, with an offset or local
    #[arg(long, env = "PUTBACK_TIME", value_name = "TIME", value_parser = text::parse_time,
          help_heading = "The snapshot")]
    time: Option<Zoned>,
    /// Make no snapshot if nothing has changed
    #[arg(long, env = "PUTBACK_SKIP_IF_UNCHANGED", help_heading = "The snapshot")]
    skip_if_unchanged: bool,

    /// Snapshot to compare with, instead of the last one of the same host and paths
    #[arg(long, env = "PUTBACK_PARENT", value_name = "SNAPSHOT", help_heading = "How to work")]
    parent: Option<String>,
    /// Read all files, even those that seem unchanged
    #[arg(short, long, env = "PUTBACK_FORCE", help_heading = "How to work")]
    force: bool,
    /// Take a file for unchanged although its inode number differs
    #[arg(long, env = "PUTBACK_IGNORE_INODE", help_heading = "How to work")]
    ignore_inode: bool,
    /// Take a file for unchanged although its change time differs
    #[arg(long, env = "PUTBACK_IGNORE_CTIME", help_heading = "How to work")]
    ignore_ctime: bool,
    /// Write nothing; list what is new or changed
    #[arg(short = 'n', long, env = "PUTBACK_DRY_RUN", help_heading = "How to work")]
    dry_run: bool,
    /// Compression of what is added, instead of the repository's: -7 to 22, or fast, default,
    /// better, max
    #[arg(long, env = "PUTBACK_COMPRESSION", value_name = "LEVEL",
          value_parser = init::compression_level, allow_negative_numbers = true,
          help_heading = "How to work")]
    compression: Option<i32>,
    /// How often a long backup makes what it has stored restorable: 90s, 5m, 1h
    #[arg(long, env = "PUTBACK_CHECKPOINT_INTERVAL", value_name = "TIME", default_value = "5m",
          value_parser = text::parse_duration, help_heading = "How to work")]
    checkpoint_interval: Duration,
    /// Make the repository first if there is none
    #[arg(long, env = "PUTBACK_INIT", help_heading = "The new repository")]
    init: bool,
    #[command(flatten)]
    settings: RepositoryArgs,
}

/// What is left out.
#[derive(Args, Debug)]
#[command(next_help_heading = "What to leave out")]
struct FilterArgs {
    /// Leave out what matches: 'name' at any depth, '/path' from the root, '!pattern' takes back
    #[arg(short, long, env = "PUTBACK_EXCLUDE", value_name = "PATTERN")]
    exclude: Vec<String>,
    /// The same, upper and lower case being equal
    #[arg(long, env = "PUTBACK_IEXCLUDE", value_name = "PATTERN")]
    iexclude: Vec<String>,
    /// Read patterns from FILE, one a line
    #[arg(long, env = "PUTBACK_EXCLUDE_FILE", value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// The same, upper and lower case being equal
    #[arg(long, env = "PUTBACK_IEXCLUDE_FILE", value_name = "FILE")]
    iexclude_file: Vec<PathBuf>,
    /// Leave out the content of folders that hold a file NAME, which must begin with HEADER if one
    /// is given
    #[arg(long, env = "PUTBACK_EXCLUDE_IF_PRESENT", value_name = "NAME[:HEADER]")]
    exclude_if_present: Vec<OsString>,
    /// Leave out the content of folders that are marked as caches by a CACHEDIR.TAG
    #[arg(long, env = "PUTBACK_EXCLUDE_CACHES")]
    exclude_caches: bool,
    /// Leave out files larger than this
    #[arg(long, env = "PUTBACK_EXCLUDE_LARGER_THAN", value_name = "SIZE",
          value_parser = text::parse_bytes)]
    exclude_larger_than: Option<u64>,
    /// In each folder, obey the file NAME as git obeys .gitignore
    #[arg(long, env = "PUTBACK_IGNORE_FILE", value_name = "NAME")]
    ignore_file: Vec<OsString>,
    /// Stay on the file systems of the given paths
    #[arg(short = 'x', long, env = "PUTBACK_ONE_FILE_SYSTEM")]
    one_file_system: bool,
}

impl FilterArgs {
    /// Whether the files of patterns are there. Only looked at: a pipe can be read once.
    fn check(&self, origins: &Origins) -> Result<(), Failure> {
        let files = [("exclude_file", &self.exclude_file), ("iexclude_file", &self.iexclude_file)];
        for (id, files) in files {
            for file in files {
                let looked = std::fs::metadata(file).and_then(|metadata| {
                    match (metadata.is_dir(), metadata.is_file()) {
                        (true, _) => Err(std::io::ErrorKind::IsADirectory.into()),
                        (_, true) => std::fs::File::open(file).map(drop),
                        _ => Ok(()),
                    }
                });
                looked.map_err(|error| Failure::file_of(&origins.named(id), file, &error))?;
            }
        }
        Ok(())
    }

    fn options(&self) -> FilterOptions {
        FilterOptions {
            exclude: self.exclude.clone(),
            iexclude: self.iexclude.clone(),
            exclude_files: self.exclude_file.clone(),
            iexclude_files: self.iexclude_file.clone(),
            exclude_if_present: self.exclude_if_present.iter().map(split_marker).collect(),
            exclude_caches: self.exclude_caches,
            exclude_larger_than: self.exclude_larger_than,
            ignore_files: self.ignore_file.clone(),
            one_file_system: self.one_file_system,
        }
    }
}

/// `NAME[:HEADER]`.
fn split_marker(marker: &OsString) -> (OsString, Option<Vec<u8>>) {
    let raw = marker.as_encoded_bytes();
    let Some(colon) = raw.iter().position(|byte| *byte == b':') else {
        return (marker.clone(), None);
    };
    match bytes::to_os_string(raw[..colon].to_vec()) {
        Ok(name) => (name, Some(raw[colon + 1..].to_vec())),
        Err(_) => (marker.clone(), None),
    }
}

/// Backs up.
pub(crate) fn run(context: &Context, args: BackupArgs) -> anyhow::Result<Outcome> {
    // Before any password is asked for: what is to be backed up must make sense.
    let choice = Choice::of(context, &args)?;
    args.filter.check(&context.origins)?;
    let repository = open(context, &args)?;
    let cancel = context.interrupt.cancel("finishing the pack in hand");
    let source = choice.source(&args)?;
    let time = args.time.clone().unwrap_or_else(Zoned::now);
    let options = BackupOptions {
        filter: args.filter.options(),
        host: args.host.clone().unwrap_or_else(context::host_name),
        user: context::user_name(),
        tags: args.tag.iter().flat_map(|tags| select::split_tags(tags)).collect(),
        description: args.description.clone().unwrap_or_default(),
        time: args.time.as_ref().map(text::timestamp),
        utc_offset: time.offset().seconds(),
        program: format!("putback {}", env!("CARGO_PKG_VERSION")),
        parent: match &args.parent {
            _ if args.force => ParentChoice::None,
            Some(selector) => ParentChoice::Snapshot(selector.clone()),
            None => ParentChoice::Automatic,
        },
        ignore_inode: args.ignore_inode,
        ignore_ctime: args.ignore_ctime,
        dry_run: args.dry_run,
        skip_if_unchanged: args.skip_if_unchanged,
        checkpoint_interval: args.checkpoint_interval,
        workers: context.workers(),
        compression_level: args.compression,
        estimate_total: progress::wants_total(&context.ui),
        repository_folder: location::local_folder(&context.location()?)?,
        cancel,
    };
    let entries = Entries::wanted(&context.ui, args.dry_run);
    let report = progress::watch(&context.ui, Kind::Backup, entries, |observer| {
        let observer = RepositoryNotice::new(observer, &context.ui, &options);
        backup::backup(&repository, source, &options, &observer)
    })?;
    context.show_warnings(&repository);
    show(context, &report, args.dry_run);
    if report.is_interrupted {
        return Ok(Outcome::Interrupted);
    }
    Ok(Outcome::of_problems(report.statistics.incidents))
}

/// Says so when the repository lies in what is backed up, and is left out for that.
struct RepositoryNotice<'a> {
    observer: &'a dyn Observer,
    ui: &'a Ui,
    /// The repository, as paths of the source may name it.
    folders: Vec<Vec<u8>>,
    is_said: AtomicBool,
}

impl<'a> RepositoryNotice<'a> {
    fn new(observer: &'a dyn Observer, ui: &'a Ui, options: &BackupOptions) -> Self {
        let folder = options.repository_folder.as_ref();
        let absolute = folder.and_then(|folder| std::path::absolute(folder).ok());
        let real = folder.and_then(|folder| fs_err::canonicalize(folder).ok());
        let folders = absolute.into_iter().chain(real).map(|path| bytes::of(path.as_os_str()));
        Self { observer, ui, folders: folders.collect(), is_said: false.into() }
    }
}

impl Observer for RepositoryNotice<'_> {
    fn event(&self, event: Event<'_>) {
        if let Event::Entry { path, action: Action::Excluded, .. } = event
            && self.folders.iter().any(|folder| folder == path)
            && !self.is_said.swap(true, Ordering::Relaxed)
        {
            let path = text::escaped(path);
            self.ui.notice(&format!("{path} is left out: it is the repository itself"));
        }
        self.observer.event(event);
    }
}

/// Opens the repository, or makes it where `--init` asks for that.
fn open(context: &Context, args: &BackupArgs) -> anyhow::Result<Repository> {
    if !args.init {
        return context.open();
    }
    let missing = match context.open() {
        Err(error) if report::is_no_repository(&error) => error,
        opened => return opened,
    };
    if args.dry_run {
        return Err(missing);
    }
    init::check_place(context)?;
    let password = match password::given(context)? {
        Some(Secret::Password(password)) => password,
        _ => password::for_new_repository(context, &location::shown(&context.location()?))?,
    };
    init::create(context, &args.settings, args.compression, None, &password)
}

/// What is to be backed up.
enum Choice {
    Paths(Vec<PathBuf>),
    Stdin,
    Command,
}

impl Choice {
    fn of(context: &Context, args: &BackupArgs) -> anyhow::Result<Self> {
        let origins = &context.origins;
        let is_flag = |id| origins.of(id) == Origin::Flag;
        let mut streams: Vec<&str> = Vec::new();
        streams.extend(args.stdin.then_some("stdin"));
        streams.extend(args.command.then_some("command"));
        let stream = origins.strongest(&streams)?;
        // What stands behind two dashes belongs to --command, and is more paths without it.
        let mut lists = vec!["paths", "files_from", "files_from_raw"];
        if stream != Some("command") {
            lists.push("trailing");
        }
        let list_origin = lists.iter().map(|id| origins.of(id)).max().unwrap_or(Origin::BuiltIn);
        if let Some(stream) = stream {
            if is_flag(stream) && list_origin == Origin::Flag {
                return Err(
                    Failure::usage(format!("--{stream} and paths exclude each other")).into()
                );
            }
            // Paths of a profile give way to a stream that was asked for here, and the reverse.
            if origins.of(stream) >= list_origin {
                return Self::of_stream(stream, args);
            }
        }
        // Lists of different origin do not add up: flags replace what a profile says.
        let counts = |id| origins.of(id) == list_origin;
        let mut paths = Vec::new();
        if counts("paths") {
            paths.extend(args.paths.iter().cloned());
        }
        if counts("trailing") {
            paths.extend(args.trailing.iter().map(PathBuf::from));
        }
        for file in args.files_from.iter().filter(|_| counts("files_from")) {
            paths.extend(lines(&read_list(&origins.named("files_from"), file)?)?);
        }
        for file in args.files_from_raw.iter().filter(|_| counts("files_from_raw")) {
            paths.extend(raw_paths(&read_list(&origins.named("files_from_raw"), file)?)?);
        }
        if paths.is_empty() {
            return Err(Failure::usage_with(
                "nothing to back up",
                "give files and folders: putback backup PATH...",
            )
            .into());
        }
        Ok(Self::Paths(paths))
    }

    fn of_stream(stream: &str, args: &BackupArgs) -> anyhow::Result<Self> {
        check_stream_name(&bytes::of(&args.stdin_name))?;
        match stream {
            "stdin" => Ok(Self::Stdin),
            _ if args.trailing.is_empty() => Err(Failure::usage_with(
                "--command needs a command",
                "write it behind two dashes: putback backup --command -- pg_dump shop",
            )
            .into()),
            _ => Ok(Self::Command),
        }
    }

    fn source(self, args: &BackupArgs) -> anyhow::Result<Source> {
        let name = bytes::of(&args.stdin_name);
        match self {
            Self::Paths(paths) => Ok(Source::Paths(paths)),
            Self::Stdin => Ok(Source::Stream {
                name,
                reader: Box::new(std::io::stdin()),
                finish: Box::new(|| Ok(())),
            }),
            Self::Command => command_source(name, &args.trailing),
        }
    }
}

/// Whether a stream can have this name in a snapshot: it is the path of a file from the root on.
fn check_stream_name(name: &[u8]) -> Result<(), Failure> {
    let refused = |why: &str| {
        let shown = text::escaped(name);
        Err(Failure::usage_with(
            format!("'{shown}' cannot be the name of a file in a snapshot: {why}"),
            "give --stdin-name a name such as shop.sql, or a path such as databases/shop.sql",
        ))
    };
    let mut parts = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).peekable();
    if parts.peek().is_none() || name.ends_with(b"/") {
        return refused("it names no file");
    }
    if name.contains(&0) {
        return refused("it holds a NUL byte");
    }
    for part in parts {
        if part == b"." || part == b".." {
            return refused("'.' and '..' lead elsewhere");
        }
        if part.len() > NAME_BYTES_MAX {
            return refused("a part of it is longer than 255 bytes");
        }
    }
    Ok(())
}

/// A command whose output is being read. It does not outlive the backup that it was started for.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // After `wait` both are no more than a look at a status that is known.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the command; its output is the source, its exit status the end of it.
fn command_source(name: Vec<u8>, words: &[OsString]) -> anyhow::Result<Source> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| Failure::usage("--command needs a command"))?;
    let shown = text::escaped(program.as_encoded_bytes());
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| anyhow::Error::new(error).context(format!("cannot run {shown}")))?;
    let mut child = Running(child);
    let reader: Box<dyn Read + Send> = match child.0.stdout.take() {
        Some(stdout) => Box::new(stdout),
        None => Box::new(std::io::empty()),
    };
    let finish = Box::new(move || match child.0.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown} failed: {status}")),
        Err(error) => Err(format!("cannot wait for {shown}: {error}")),
    });
    Ok(Source::Stream { name, reader, finish })
}

/// A list of paths in a file that `flag` names.
fn read_list(flag: &str, file: &Path) -> anyhow::Result<Vec<u8>> {
    let unusable = |error| Failure::file_of(flag, file, &error);
    let reader: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(unusable)?)
    };
    let mut content = Vec::new();
    reader.take(LIST_BYTES_MAX + 1).read_to_end(&mut content).map_err(unusable)?;
    if content.len() as u64 > LIST_BYTES_MAX {
        let shown = text::escaped(file.as_os_str().as_encoded_bytes());
        return Err(
            Failure::usage(format!("the list of paths {shown} is longer than 1 GiB")).into()
        );
    }
    Ok(content)
}

fn lines(content: &[u8]) -> Result<Vec<PathBuf>, Failure> {
    let lines =
        content.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")).map(to_path).collect()
}

fn raw_paths(content: &[u8]) -> Result<Vec<PathBuf>, Failure> {
    content.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(to_path).collect()
}

fn to_path(raw: &[u8]) -> Result<PathBuf, Failure> {
    bytes::to_os_string(raw.to_vec()).map(PathBuf::from)
}

fn show(context: &Context, report: &BackupReport, dry_run: bool) {
    let ui = &context.ui;
    let counts = &report.statistics;
    if ui.is_json() {
        ui.json_summary(&json::BackupSummary {
            message_type: "summary",
            dry_run,
            counts: counts.into(),
            snapshot_id: report.snapshot.map(|id| id.to_string()),
            parent: report.parent.map(|id| id.to_string()),
            is_checkpoint: report.is_interrupted && report.snapshot.is_some(),
            is_unchanged: report.is_unchanged,
        });
        return;
    }
    if report.is_interrupted {
        match report.snapshot {
            Some(id) => ui.interrupted(&format!(
                "interrupted; what was backed up so far is safe as checkpoint {}, and the next \
                 backup continues from it",
                id.short()
            )),
            None => {
                ui.interrupted(
                    "interrupted; nothing was saved, earlier snapshots are as they were",
                );
            }
        }
        return;
    }
    let files = counts.files_new + counts.files_changed + counts.files_unchanged;
    ui.say(format_args!(
        "files:    {} new, {} changed, {} unchanged; {}",
        text::count(counts.files_new),
        text::count(counts.files_changed),
        text::count(counts.files_unchanged),
        text::counted(counts.directories, "folder", "folders"),
    ));
    let verb = if dry_run { "to add:  " } else { "added:   " };
    ui.say(format_args!(
        "{verb} {} of new data, {} stored",
        text::bytes(counts.bytes_added),
        text::bytes(counts.bytes_stored)
    ));
    ui.say(format_args!(
        "in all:   {}, {} in {}; {} read",
        text::counted(files, "file", "files"),
        text::bytes(counts.bytes_total),
        text::duration(counts.duration_ms / 1000),
        text::bytes(counts.bytes_read),
    ));
    match report.snapshot {
        Some(id) => ui.say(format_args!("snapshot {} saved", id.short())),
        None if report.is_unchanged => {
            ui.say(format_args!("nothing has changed; no snapshot was made"));
        }
        None => ui.say(format_args!("dry run: nothing was written")),
    }
    if counts.incidents > 0 {
        ui.warning(&format!(
            "{} could not be backed up as {} should have been; see above",
            text::counted(counts.incidents, "entry", "entries"),
            if counts.incidents == 1 { "it" } else { "they" }
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_paths_are_taken_apart() {
        let paths = |texts: &[&str]| texts.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(lines(b"/a\n\n# no\n/b c\r\n/d").unwrap(), paths(&["/a", "/b c", "/d"]));
        assert_eq!(raw_paths(b"/a\0#b\nc\0").unwrap(), paths(&["/a", "#b\nc"]));
    }

    #[test]
    fn a_stream_is_named_as_a_file_could_be() {
        let long = format!("a/{}", "x".repeat(256));
        for name in
            ["", "/", "//", "a/", "..", "../x", "/a/../x", "a/..", ".", "./x", "a\0b", &long]
        {
            assert!(check_stream_name(name.as_bytes()).is_err(), "{name}");
        }
        for name in ["stdin", "a/b", "/a/b", "a//b", "..x", "x..", "...", &"x".repeat(255)] {
            assert!(check_stream_name(name.as_bytes()).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_marker_may_have_a_header() {
        assert_eq!(split_marker(&OsString::from(".nobackup")), (OsString::from(".nobackup"), None));
        assert_eq!(
            split_marker(&OsString::from("TAG:a:b")),
            (OsString::from("TAG"), Some(b"a:b".to_vec()))
        );
    }
}
