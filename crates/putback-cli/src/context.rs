//! What every command starts from: the way to the user, the flags all commands share, and how a
//! repository is opened from them.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use putback_repo::{
    Error as RepositoryError, IN_THE_FUTURE, Machine, Password, ROLLED_BACK, Repository,
};
use putback_store::Store;

use crate::args::{GlobalArgs, Origins};
use crate::bytes;
use crate::config;
use crate::interrupt::Interrupt;
use crate::location;
use crate::password::{self, OtherPassword, Secret, Wanted};
use crate::report::{self, Failure};
use crate::storages::Storages;
use crate::storages::open::Clients;
use crate::ui::{Ui, text};

/// Longest location that a file or command may give.
const LOCATION_BYTES_MAX: usize = 64 << 10;
/// What the repository calls the text that `--key-file` gives.
const EXPORTED_KEY: &str = "the exported key";
/// Wrong passwords that may be typed at a prompt.
pub(crate) const PROMPTS_MAX: usize = 3;
/// What a prompt says before it asks for a password again.
pub(crate) const WRONG_PASSWORD: &str = "wrong password, try again; ";

/// What a command runs with.
pub(crate) struct Context {
    pub(crate) ui: Ui,
    pub(crate) global: GlobalArgs,
    pub(crate) origins: Origins,
    pub(crate) storages: Storages,
    pub(crate) clients: Clients,
    pub(crate) interrupt: Interrupt,
}

impl Context {
    /// Costs nothing; nothing is read yet.
    pub(crate) fn new(global: GlobalArgs, origins: Origins, storages: Storages) -> Self {
        let ui = Ui::new(global.json, global.quiet, global.verbose, global.progress_fps);
        let (clients, interrupt) = (Clients::default(), Interrupt::default());
        Self { ui, global, origins, storages, clients, interrupt }
    }

    /// The repository's location as the user gave it.
    pub(crate) fn location(&self) -> anyhow::Result<OsString> {
        let location = match self.origins.strongest(&["repo", "repo_file", "repo_command"])? {
            Some("repo_file") => {
                let path = self.global.repo_file.clone().unwrap_or_default();
                let content = std::fs::read(&path);
                line(content.map_err(|error| {
                    Failure::file_of(&self.origins.named("repo_file"), &path, &error)
                })?)?
            }
            Some("repo_command") => {
                let command = self.global.repo_command.clone().unwrap_or_default();
                line(shell_output(&command, "--repo-command")?)?
            }
            _ => self.global.repo.clone().ok_or_else(|| {
                Failure::usage_with(
                    "no repository was given",
                    "give its location with --repo, PUTBACK_REPO or a profile",
                )
            })?,
        };
        Ok(location)
    }

    /// The store of the repository.
    pub(crate) fn store(&self) -> anyhow::Result<(Arc<dyn Store>, OsString)> {
        let location = self.location()?;
        Ok((location::open_store(self, &location)?, location))
    }

    /// Opens the repository, asking for its password if need be, and shows what it noticed.
    pub(crate) fn open(&self) -> anyhow::Result<Repository> {
        self.open_with_password().map(|(repository, _)| repository)
    }

    /// As [`Context::open`], with the password that opened it; none if it was an exported key.
    pub(crate) fn open_with_password(&self) -> anyhow::Result<(Repository, Option<Password>)> {
        let (store, location) = self.store()?;
        let machine = self.machine();
        let shown = location::shown(&location);
        let Some(secret) = password::given(self)? else {
            return self.open_by_prompt(&store, &Wanted::of_repository(&shown, ""), &machine);
        };
        let (repository, password) = match secret {
            Secret::Password(password) => {
                (Repository::open(store, &password, &machine)?, Some(password))
            }
            Secret::ExportedKey { text, path } => {
                let opened = Repository::open_with_exported_key(store, &text, &machine);
                let repository = opened.map_err(|error| match error {
                    RepositoryError::Damaged { object, source } if object == EXPORTED_KEY => {
                        Failure::KeyFile { path, source }.into()
                    }
                    error => anyhow::Error::new(error),
                })?;
                (repository, None)
            }
        };
        self.show_warnings(&repository);
        Ok((repository, password))
    }

    fn open_by_prompt(
        &self,
        store: &Arc<dyn Store>,
        wanted: &Wanted,
        machine: &Machine,
    ) -> anyhow::Result<(Repository, Option<Password>)> {
        // Nobody is to search for the password of what is not there.
        if !Repository::exists(store.as_ref())? {
            let location = store.describe();
            return Err(RepositoryError::NoRepository { location }.into());
        }
        let mut attempt = 1;
        let mut remark = "";
        loop {
            let password = password::prompt(remark, wanted)?;
            match Repository::open(Arc::clone(store), &password, machine)
                .map_err(anyhow::Error::new)
            {
                Ok(repository) => {
                    self.show_warnings(&repository);
                    return Ok((repository, Some(password)));
                }
                Err(error) if attempt < PROMPTS_MAX && report::is_wrong_password(&error) => {
                    remark = WRONG_PASSWORD;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens a second repository beside [`Context::open`]'s, asking for its password if need be.
    pub(crate) fn open_other(
        &self,
        location: &OsStr,
        password: &OtherPassword<'_>,
    ) -> anyhow::Result<Repository> {
        let store = location::open_store(self, location)?;
        let machine = self.machine();
        let Some(given) = password.given(self)? else {
            let wanted = password.wanted(&location::shown(location));
            let opened = self.open_by_prompt(&store, &wanted, &machine);
            return opened.map(|(repository, _)| repository);
        };
        let repository = Repository::open(store, &given, &machine)?;
        self.show_warnings(&repository);
        Ok(repository)
    }

    /// Asks something that `y` and `yes` agree to. Ctrl-C ends the program, whatever operation asks.
    ///
    /// # Errors
    /// Nobody answered. That somebody is there, [`Ui::can_ask`] says.
    pub(crate) fn confirm(&self, question: &str) -> Result<bool, Failure> {
        let _question = self.interrupt.question();
        let answer = self.ui.ask(&format!("{question} y or yes, anything else is no: "))?;
        Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Shows what the repository noticed since the last call.
    pub(crate) fn show_warnings(&self, repository: &Repository) {
        let warnings = repository.take_warnings();
        for warning in &warnings {
            self.ui.warning(warning);
        }
        if warnings.iter().any(|warning| warning.contains(IN_THE_FUTURE)) {
            let now = text::time(repository.now());
            self.ui.notice(&format!(
                "hint: this machine's clock says {now}; if that is right, \
                 `putback rewrite SNAPSHOT --set-time TIME` gives a snapshot the time at which it \
                 was made"
            ));
        }
        if warnings.iter().any(|warning| warning.contains(ROLLED_BACK)) {
            self.ui.notice(
                "hint: `putback check` says what is missing; if you know why, because the storage \
                 was copied, `putback check --accept-rollback` ends this warning",
            );
        }
    }

    /// Where this machine keeps what outlives a run, and the times of the format.
    pub(crate) fn machine(&self) -> Machine {
        let defaults = config::project_directories();
        let cache = || defaults.as_ref().map(|defaults| defaults.cache_dir().to_path_buf());
        let state = || {
            defaults.as_ref().map(|defaults| {
                defaults.state_dir().unwrap_or(defaults.data_local_dir()).to_path_buf()
            })
        };
        Machine {
            cache: if self.global.no_cache {
                None
            } else {
                self.global.cache_dir.clone().or_else(cache)
            },
            state: self.global.state_dir.clone().or_else(state),
            times: self.global.test_times.unwrap_or_default(),
            ..Machine::default()
        }
    }

    /// How many threads work at the same time.
    pub(crate) fn workers(&self) -> usize {
        self.global
            .threads
            .map(usize::from)
            .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
            .unwrap_or(1)
    }
}

/// Runs `command` by the shell and takes what it prints; `flag` is what asked for it.
pub(crate) fn shell_output(command: &OsStr, flag: &str) -> anyhow::Result<Vec<u8>> {
    let output = shell(command).stdin(Stdio::inherit()).stderr(Stdio::inherit()).output().map_err(
        |error| anyhow::Error::new(error).context(format!("cannot run the command of {flag}")),
    )?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        let status = output.status;
        Err(Failure::other(
            format!("the command of {flag} failed: {status}"),
            "run it by hand to see why",
        )
        .into())
    }
}

#[cfg(unix)]
fn shell(command: &OsStr) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command);
    shell
}

#[cfg(not(unix))]
fn shell(command: &OsStr) -> Command {
    let mut shell = Command::new("cmd");
    shell.arg("/C").arg(command);
    shell
}

/// The first line, which must be all.
fn line(mut content: Vec<u8>) -> Result<OsString, Failure> {
    while content.last().is_some_and(u8::is_ascii_whitespace) {
        content.pop();
    }
    if content.is_empty() || content.len() > LOCATION_BYTES_MAX || content.contains(&b'\n') {
        return Err(Failure::usage("the location of the repository is to be a single line"));
    }
    bytes::to_os_string(content)
}

/// Name of this machine.
#[cfg(unix)]
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Name of this machine.
#[cfg(not(unix))]
pub(crate) fn host_name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

/// Name of this user.
pub(crate) fn user_name() -> String {
    let named = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| std::env::var(name).ok());
    named.filter(|name| !name.is_empty()).unwrap_or_else(account)
}

/// The name that the system has for the number of this user, or the number.
#[cfg(unix)]
fn account() -> String {
    let number = rustix::process::geteuid().as_raw().to_string();
    let accounts = fs_err::read_to_string("/etc/passwd").unwrap_or_default();
    let mut named = accounts.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    named.next().unwrap_or(number)
}

#[cfg(not(unix))]
fn account() -> String {
    String::new()
}

/// A path that may be relative, for messages and options.
pub(crate) fn absolute(path: &std::path::Path) -> anyhow::Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}
