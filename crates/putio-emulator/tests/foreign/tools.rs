//! Where the clients are, and how they are pointed at an emulator.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use putio_emulator::{Emulator, Options, Profile};

/// Token of the account that [`Options::default`] has.
pub(crate) const TOKEN: &str = "emulator-token";

/// An emulator with all its ports, and a folder for whatever a client needs.
pub(crate) struct Setting {
    pub(crate) emulator: Emulator,
    pub(crate) folder: tempfile::TempDir,
}

impl Setting {
    pub(crate) fn new(profile: Profile) -> Self {
        let options =
            Options { profile, proxy_port: Some(0), tls_port: Some(0), ..Options::default() };
        let emulator = Emulator::start(options).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("ca.pem"), emulator.ca_pem()).unwrap();
        Self { emulator, folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, bytes).unwrap();
        path
    }

    /// A client's command, which sees nothing of this process's environment and reaches no host but
    /// this machine.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("EMULATOR_TOKEN", TOKEN)
            .current_dir(self.folder.path());
        command
    }

    /// The same, with everything for `put.io` through the emulator's proxy.
    pub(crate) fn proxied(&self, program: &Path) -> Command {
        let ca = self.path("ca.pem");
        let mut command = self.command(program);
        command
            .env("HTTPS_PROXY", self.emulator.proxy_url().unwrap())
            .env("SSL_CERT_FILE", &ca)
            .env("REQUESTS_CA_BUNDLE", &ca);
        command
    }
}

/// A client that `scripts/foreign-clients.sh` installs.
pub(crate) fn tool(path: &str) -> PathBuf {
    let folder = std::env::var_os("PUTBACK_TOOLS").map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
        cache.unwrap_or_else(home).join("putback-tools")
    });
    let tool = folder.join(path);
    assert!(
        tool.exists(),
        "{} is missing: scripts/tools.sh installs it, by `scripts/foreign-clients.sh`; \
         PUTBACK_TOOLS names another folder",
        tool.display()
    );
    tool
}

/// A program that is found by its name.
pub(crate) fn program(name: &str) -> PathBuf {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
    });
    found.unwrap_or_else(|| panic!("{name} is missing: scripts/tools.sh installs it"))
}

/// A file beside this one.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(name)
}

/// What a client printed, if it was content.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{}", described(command, &output));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

pub(crate) fn described(command: &Command, output: &Output) -> String {
    let args: Vec<&OsStr> = command.get_args().collect();
    format!(
        "{args:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Bytes that no compression or repetition makes shorter.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}
