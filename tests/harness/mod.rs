//! Runs the real program in a home of its own, and says what it printed.

pub(crate) mod putio;
pub(crate) mod schema;
#[cfg(target_os = "linux")]
pub(crate) mod terminal;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Password of repositories that [`TestEnvironment::with_repository`] makes.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A user who is nobody; what root may not read cannot be tested as root.
#[cfg(unix)]
const NOBODY: u32 = 65_534;

/// A home, a configuration, a cache and a repository that no other test sees.
pub(crate) struct TestEnvironment {
    root: tempfile::TempDir,
    variables: Vec<(OsString, OsString)>,
}

impl TestEnvironment {
    /// With nothing in it.
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("putback-test-").tempdir().unwrap();
        for folder in ["home", "source", "work"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        let mut environment = Self { root, variables: Vec::new() };
        environment.set("PUTBACK_REPO", environment.path("repository"));
        environment.set("PUTBACK_PASSWORD", PASSWORD);
        environment
    }

    /// With an empty repository.
    pub(crate) fn with_repository() -> Self {
        let environment = Self::new();
        environment.run(["init", "--kdf-cost", "low"]).success();
        environment
    }

    /// With a repository that holds one snapshot of a few files in [`Self::source`].
    pub(crate) fn with_snapshot() -> Self {
        let environment = Self::with_repository();
        environment.write("a.txt", "first file\n");
        environment.write("folder/b.txt", "second file\n");
        environment.write("folder/deeper/c.bin", vec![7; 300_000]);
        environment.backup();
        environment
    }

    /// With the checkpoints of a backup of two files that was not finished; the id is that of one with only the first
    /// file, `a.txt`.
    pub(crate) fn with_checkpoint() -> (Self, String) {
        let environment = Self::with_repository();
        environment.write("a.txt", "first file\n");
        environment.write("b.txt", "second file\n");
        // A checkpoint after every step, and without what was made at the end they are all that there is.
        let mut arguments = vec![OsString::from("backup"), environment.source().into()];
        let options = ["--checkpoint-interval", "0s", "--threads", "1", "--json"];
        arguments.extend(options.map(OsString::from));
        let run = environment.run(arguments).success();
        let messages = run.messages();
        let checkpoint = messages.iter().find(|message| message["message_type"] == "checkpoint");
        let checkpoint = checkpoint.unwrap()["snapshot_id"].as_str().unwrap().to_owned();
        let summary = run.message("summary");
        let complete = summary["snapshot_id"].as_str().unwrap();
        environment.run(["forget", complete, "--unsafe-allow-remove-all"]).success();
        (environment, checkpoint)
    }

    /// Backs up [`Self::source`].
    pub(crate) fn backup(&self) -> Run {
        self.run([OsStr::new("backup"), self.source().as_os_str()]).success()
    }

    /// A path below the root of everything.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(name)
    }

    /// The folder that tests back up.
    pub(crate) fn source(&self) -> PathBuf {
        self.path("source")
    }

    /// Where the configuration file is expected.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.path("home/.config/putback/putback.toml")
    }

    /// Writes the configuration file.
    pub(crate) fn configure(&self, content: &str) {
        let path = self.config_file();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Writes a file of the source.
    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.source().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Sets an environment variable of the program.
    pub(crate) fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        let name = name.into();
        self.unset(&name);
        self.variables.push((name, value.into()));
    }

    /// Removes an environment variable of the program.
    pub(crate) fn unset(&mut self, name: impl AsRef<OsStr>) {
        self.variables.retain(|(known, _)| known != name.as_ref());
    }

    /// The program with these arguments, ready to run in a clean environment.
    pub(crate) fn command<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_putback"));
        command
            .args(arguments)
            .current_dir(self.path("work"))
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TZ", "Etc/GMT-2")
            .env("USER", "ada")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs a script of the shell, to which `$PUTBACK` is the program, with a disk of this size at `folder`, which only
    /// the script sees.
    #[cfg(target_os = "linux")]
    pub(crate) fn on_a_disk_of(
        &self,
        size: &str,
        folder: &Path,
        script: &str,
    ) -> std::process::Output {
        const MOUNT: &str =
            "mount -t tmpfs -o size=\"$1\" putback-test \"$2\" || exit 99; exec sh -euc \"$3\"";
        let program = self.command([""; 0]);
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", MOUNT, "sh", size]);
        command.arg(folder).arg(script).env_clear();
        for (name, value) in program.get_envs() {
            command.envs(value.map(|value| (name, value)));
        }
        command.env("PUTBACK", program.get_program()).current_dir(self.path("work"));
        let output = command.stdin(Stdio::null()).output().unwrap();
        let is_mounted = ![Some(1), Some(99)].contains(&output.status.code())
            || !output.stderr.windows(6).any(|part| part == b"mount:")
                && !output.stderr.starts_with(b"unshare");
        assert!(is_mounted, "this test needs user namespaces and tmpfs: {output:?}");
        output
    }

    /// Runs the program.
    pub(crate) fn run<I, S>(&self, arguments: I) -> Run
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.finish(self.command(arguments).output().unwrap())
    }

    /// Runs the program with these bytes on its standard input.
    pub(crate) fn run_with_input<I, S>(&self, arguments: I, input: &[u8]) -> Run
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The program may end before it has read all.
        drop(child.stdin.take().unwrap().write_all(input));
        self.finish(child.wait_with_output().unwrap())
    }

    /// Runs the program as somebody who may not read what only its owner may.
    #[cfg(unix)]
    pub(crate) fn run_unprivileged<I, S>(&self, arguments: I) -> Run
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        use std::os::unix::process::CommandExt;
        let mut command = self.command(arguments);
        if is_root() {
            open_to_all(self.root.path());
            command.uid(NOBODY).gid(NOBODY);
        }
        self.finish(command.output().unwrap())
    }

    /// Runs the program where a process may have this many files open, and may not raise that.
    #[cfg(unix)]
    pub(crate) fn run_with_open_files<I, S>(&self, limit: u32, arguments: I) -> Run
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let program = self.command(arguments);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\""));
        command.arg(program.get_program()).args(program.get_args()).env_clear();
        for (name, value) in program.get_envs() {
            command.envs(value.map(|value| (name, value)));
        }
        command.current_dir(self.path("work")).stdin(Stdio::null());
        self.finish(command.output().unwrap())
    }

    fn finish(&self, output: Output) -> Run {
        Run { output, root: self.root.path().to_str().unwrap().to_owned() }
    }
}

/// Whether this process may read everything.
#[cfg(unix)]
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    let probe = tempfile::NamedTempFile::new().unwrap();
    probe.as_file().metadata().unwrap().uid() == 0
}

/// Lets everybody enter and write below `root`, but for files without any permission.
#[cfg(unix)]
fn open_to_all(root: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() && metadata.permissions().mode() & 0o777 != 0 {
                folders.push(entry.path());
            } else if metadata.is_file() && metadata.permissions().mode() & 0o777 != 0 {
                std::fs::set_permissions(entry.path(), PermissionsExt::from_mode(0o666)).unwrap();
            }
        }
    }
}

/// What a run of the program led to.
pub(crate) struct Run {
    output: Output,
    root: String,
}

impl Run {
    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn code(self, expected: i32) -> Self {
        let found = self.output.status.code();
        assert_eq!(found, Some(expected), "stdout:\n{}\nstderr:\n{}", self.stdout(), self.stderr());
        self
    }

    /// Asserts exit code 0.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        self.code(0)
    }

    /// Standard output, normalised.
    pub(crate) fn stdout(&self) -> String {
        self.normalised(&self.output.stdout)
    }

    /// Standard error, normalised.
    pub(crate) fn stderr(&self) -> String {
        self.normalised(&self.output.stderr)
    }

    /// Standard output as it is.
    pub(crate) fn stdout_bytes(&self) -> &[u8] {
        &self.output.stdout
    }

    /// Asserts that standard output has this text.
    #[track_caller]
    pub(crate) fn shows(self, text: &str) -> Self {
        assert!(
            self.stdout().contains(text),
            "no '{text}' in\n{}\nstderr:\n{}",
            self.stdout(),
            self.stderr()
        );
        self
    }

    /// Asserts that standard output does not have this text.
    #[track_caller]
    pub(crate) fn hides(self, text: &str) -> Self {
        assert!(!self.stdout().contains(text), "'{text}' in\n{}", self.stdout());
        self
    }

    /// Asserts that standard error has this text.
    #[track_caller]
    pub(crate) fn complains(self, text: &str) -> Self {
        assert!(self.stderr().contains(text), "no '{text}' in\n{}", self.stderr());
        self
    }

    /// Asserts that nothing was printed anywhere.
    #[track_caller]
    pub(crate) fn silent(self) -> Self {
        assert_eq!((self.stdout().as_str(), self.stderr().as_str()), ("", ""));
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub(crate) fn document(&self) -> Value {
        serde_json::from_slice(&self.output.stdout)
            .unwrap_or_else(|error| panic!("{error} in\n{}", self.stdout()))
    }

    /// Standard output as JSON objects, one a line.
    #[track_caller]
    pub(crate) fn messages(&self) -> Vec<Value> {
        parse_lines(&self.output.stdout)
    }

    /// Standard error as JSON objects, one a line.
    #[track_caller]
    pub(crate) fn error_messages(&self) -> Vec<Value> {
        parse_lines(&self.output.stderr)
    }

    /// The only message of this type on standard output.
    #[track_caller]
    pub(crate) fn message(&self, message_type: &str) -> Value {
        let mut found =
            self.messages().into_iter().filter(|message| message["message_type"] == message_type);
        let first =
            found.next().unwrap_or_else(|| panic!("no {message_type} in\n{}", self.stdout()));
        assert!(found.next().is_none(), "several {message_type} in\n{}", self.stdout());
        first
    }

    fn normalised(&self, bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).replace(&self.root, "[ROOT]")
    }
}

#[track_caller]
pub(crate) fn parse_lines(bytes: &[u8]) -> Vec<Value> {
    let parse =
        |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in '{line}'"));
    String::from_utf8_lossy(bytes).lines().map(parse).collect()
}

/// Asserts that two folders hold the same names and bytes.
#[track_caller]
pub(crate) fn assert_same_tree(left: &Path, right: &Path) {
    let names = |folder: &Path| {
        let mut names: Vec<OsString> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(left), names(right), "{} and {}", left.display(), right.display());
    for name in names(left) {
        let (left, right) = (left.join(&name), right.join(&name));
        let metadata = std::fs::symlink_metadata(&left).unwrap();
        if metadata.is_dir() {
            assert_same_tree(&left, &right);
        } else if metadata.is_symlink() {
            assert_eq!(std::fs::read_link(&left).unwrap(), std::fs::read_link(&right).unwrap());
        } else if metadata.is_file() {
            assert!(
                std::fs::read(&left).unwrap() == std::fs::read(&right).unwrap(),
                "{}",
                left.display()
            );
        }
    }
}
