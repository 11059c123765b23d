//! The command line: which flags there are, and how environment and configuration join in.
//!
//! Every flag can also come from `PUTBACK_<FLAG>` or from the configuration file. There is one
//! mechanism for all: environment variables are clap's, and what the configuration says becomes the
//! default of the flag, so that all ways go through the same parser and the same checks.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{BoolishValueParser, Resettable, Str};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser};

use putback_repo::Times;

use crate::commands::Command;
use crate::config::{self, Layers};
use crate::report::Failure;
use crate::storages::limits::Limits;
use crate::storages::{self, Storages};
use crate::ui::progress::Cadence;
use crate::ui::text;

/// Encrypted, deduplicating backups.
///
/// A repository holds snapshots: what was in some folders at some time. It is encrypted with a
/// password before anything leaves this machine.
#[derive(Parser, Debug)]
#[command(
    name = "putback",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Examples:\n  \
        putback --repo /mnt/disk/backup init\n  \
        putback --repo /mnt/disk/backup backup ~/Documents ~/Pictures\n  \
        putback --repo /mnt/disk/backup snapshots\n  \
        putback --repo /mnt/disk/backup restore latest --target /tmp/restored\n  \
        putback login && putback --repo putio:backups/laptop init\n\
        \n\
        Every flag can also be given as an environment variable, or under its name in the\n\
        configuration file; lists in environment variables have one value a line.\n\
        \n\
        Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but for some entries,\n\
        10 no repository, 11 busy, 12 wrong password, 13 sign-in needed, 14 storage full,\n\
        130 interrupted."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Repository: a folder, file:///path, or STORAGE:PATH, as in putio:backups/laptop
    #[arg(short, long, global = true, env = "PUTBACK_REPO", value_name = "LOCATION")]
    pub(crate) repo: Option<OsString>,
    /// File that holds the location of the repository
    #[arg(
        long,
        global = true,
        env = "PUTBACK_REPO_FILE",
        value_name = "FILE",
        alias = "repository-file"
    )]
    pub(crate) repo_file: Option<PathBuf>,
    /// Command that prints the location of the repository; run by the shell
    #[arg(long, global = true, env = "PUTBACK_REPO_COMMAND", value_name = "COMMAND")]
    pub(crate) repo_command: Option<OsString>,
    /// File that holds the password; see also PUTBACK_PASSWORD
    #[arg(short, long, global = true, env = "PUTBACK_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Command that prints the password; run by the shell
    #[arg(long, global = true, env = "PUTBACK_PASSWORD_COMMAND", value_name = "COMMAND")]
    pub(crate) password_command: Option<OsString>,
    /// Open file descriptor to read the password from
    #[arg(long, global = true, env = "PUTBACK_PASSWORD_FD", value_name = "N")]
    pub(crate) password_fd: Option<u32>,
    /// File with the text of `putback key export`, instead of a password
    #[arg(long, global = true, env = "PUTBACK_KEY_FILE", value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Folder for what speeds things up and may be deleted at any time
    #[arg(long, global = true, env = "PUTBACK_CACHE_DIR", value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Keep no cache
    #[arg(long, global = true, env = "PUTBACK_NO_CACHE")]
    pub(crate) no_cache: bool,
    /// Folder for what lets an interrupted backup continue
    #[arg(long, global = true, env = "PUTBACK_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Commit window, lag of listings and pause between looks, in seconds, for tests of many programs on one
    /// repository: every program on it needs the same
    #[arg(long, global = true, hide = true, env = "PUTBACK_TEST_TIMES", value_parser = text::parse_times)]
    pub(crate) test_times: Option<Times>,
    /// Print objects for programs, as docs/json.md describes them
    #[arg(long, global = true, env = "PUTBACK_JSON")]
    pub(crate) json: bool,
    /// Print nothing but errors and what a listing is asked for
    #[arg(short, long, global = true, env = "PUTBACK_QUIET")]
    pub(crate) quiet: bool,
    /// Print a line for each entry; twice: also for excluded ones
    #[arg(short, long, global = true, action = ArgAction::Count, env = "PUTBACK_VERBOSE")]
    pub(crate) verbose: u8,
    /// Updates of the progress per second, 0.01 to 10
    #[arg(
        long,
        global = true,
        env = "PUTBACK_PROGRESS_FPS",
        value_name = "N",
        default_value = "10"
    )]
    pub(crate) progress_fps: Cadence,
    /// Profile of the configuration file
    #[arg(long, global = true, env = "PUTBACK_PROFILE", value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Configuration file, instead of putback.toml in the user's configuration folder
    #[arg(long, global = true, env = "PUTBACK_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Threads that work at the same time; as many as there are processors if not given
    #[arg(long, global = true, env = "PUTBACK_THREADS", value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

impl GlobalArgs {
    /// The value of a flag, for `config show`; empty if it has none.
    pub(crate) fn shown(&self, id: &str) -> Vec<String> {
        let os = |value: Option<&std::ffi::OsStr>| {
            value.map(|value| text::escaped(value.as_encoded_bytes()))
        };
        let path = |value: &Option<PathBuf>| os(value.as_ref().map(|value| value.as_os_str()));
        let value = match id {
            "repo" => os(self.repo.as_deref()),
            "repo_file" => path(&self.repo_file),
            "repo_command" => os(self.repo_command.as_deref()),
            "password_file" => path(&self.password_file),
            "password_command" => os(self.password_command.as_deref()),
            "password_fd" => self.password_fd.map(|value| value.to_string()),
            "key_file" => path(&self.key_file),
            "cache_dir" => path(&self.cache_dir),
            "no_cache" => Some(self.no_cache.to_string()),
            "state_dir" => path(&self.state_dir),
            "test_times" => self.test_times.map(|times| format!("{times:?}")),
            "json" => Some(self.json.to_string()),
            "quiet" => Some(self.quiet.to_string()),
            "verbose" => Some(self.verbose.to_string()),
            "progress_fps" => Some(self.progress_fps.to_string()),
            "threads" => self.threads.map(|value| value.to_string()),
            _ => self.limits.shown(id),
        };
        value.into_iter().collect()
    }
}

/// Where a value comes from. Later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Nobody said anything.
    BuiltIn,
    /// `[defaults]` of the configuration file.
    Defaults,
    /// The chosen profile of the configuration file.
    Profile,
    /// An environment variable.
    Environment,
    /// The command line.
    Flag,
}

/// Where the values of the command's flags come from, by id.
#[derive(Debug, Default)]
pub(crate) struct Origins(HashMap<String, Origin>);

impl Origins {
    /// Of the flag `id`: its long name with `_` for `-`.
    pub(crate) fn of(&self, id: &str) -> Origin {
        self.0.get(id).copied().unwrap_or(Origin::BuiltIn)
    }

    /// Of several flags that answer the same question, the one with the strongest origin; `None` if
    /// none was given.
    ///
    /// # Errors
    /// Two of the same origin: then nothing says which one is meant.
    pub(crate) fn strongest<'a>(&self, ids: &[&'a str]) -> Result<Option<&'a str>, Failure> {
        let strongest = ids.iter().map(|id| self.of(id)).max().unwrap_or(Origin::BuiltIn);
        if strongest == Origin::BuiltIn {
            return Ok(None);
        }
        let mut chosen = ids.iter().filter(|id| self.of(id) == strongest);
        let first = chosen.next().copied();
        match (first, chosen.next()) {
            (Some(first), Some(second)) => Err(Failure::usage(format!(
                "{} and {} exclude each other",
                shown(first, strongest),
                shown(second, strongest)
            ))),
            _ => Ok(first),
        }
    }

    /// The flag `id`, or the variable or key that gave its value, for messages.
    pub(crate) fn named(&self, id: &str) -> String {
        match self.of(id) {
            Origin::BuiltIn => shown(id, Origin::Flag),
            origin => shown(id, origin),
        }
    }

    /// Notes that something besides flags was given; for environment variables without a flag.
    pub(crate) fn with(&self, id: &str, origin: Origin) -> Self {
        let mut all = self.0.clone();
        all.insert(id.to_owned(), origin);
        Self(all)
    }

    fn collect(&mut self, matches: &ArgMatches, layers: Option<&Layers>, table: &str) {
        for id in matches.ids() {
            let origin = match matches.value_source(id.as_str()) {
                Some(ValueSource::CommandLine) => Origin::Flag,
                Some(ValueSource::EnvVariable) => Origin::Environment,
                _ => layers
                    .and_then(|layers| {
                        layers.origin(table, id.as_str()).or_else(|| layers.origin("", id.as_str()))
                    })
                    .unwrap_or(Origin::BuiltIn),
            };
            let known = self.0.entry(id.as_str().to_owned()).or_insert(origin);
            *known = origin.max(*known);
        }
        if let Some((name, matches)) = matches.subcommand() {
            self.collect(matches, layers, &join(table, name));
        }
    }
}

fn shown(id: &str, origin: Origin) -> String {
    match origin {
        Origin::Flag => format!("--{}", id.replace('_', "-")),
        Origin::Environment => format!("PUTBACK_{}", id.to_uppercase()),
        _ => format!("'{}'", id.replace('_', "-")),
    }
}

/// The name of a command's table in a profile: `key` and `add` make `key.add`.
pub(crate) fn join(table: &str, name: &str) -> String {
    if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") }
}

/// A command line that was understood.
pub(crate) struct Parsed {
    pub(crate) global: GlobalArgs,
    pub(crate) command: Command,
    pub(crate) origins: Origins,
    pub(crate) storages: Storages,
}

/// Why there is no [`Parsed`].
pub(crate) enum StartError {
    /// Clap's: wrong usage, help, version.
    CommandLine(clap::Error),
    /// The configuration's.
    Failed(anyhow::Error),
}

impl From<clap::Error> for StartError {
    fn from(error: clap::Error) -> Self {
        Self::CommandLine(error)
    }
}

impl From<anyhow::Error> for StartError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Understands the command line, with environment and configuration.
///
/// The configuration file is read only for commands that use it: `version`, `completions` and the
/// like work whatever is in it.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Parsed, StartError> {
    let plain = command();
    let matches = plain.clone().try_get_matches_from(&arguments)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let layers = match cli.command.uses_configuration() {
        true if cli.command.makes_configuration() => Layers::load_if_any(&cli.global, &plain)?,
        true => Layers::load(&cli.global, &plain)?,
        false => None,
    };
    let Some(mut layers) = layers else {
        let mut origins = Origins::default();
        origins.collect(&matches, None, "");
        let storages = storages_of(&cli, Vec::new())?;
        return Ok(Parsed { global: cli.global, command: cli.command, origins, storages });
    };
    let configured = layers.take_storages();
    let matches = layers
        .apply(plain)
        .try_get_matches_from(&arguments)
        // The flags and variables alone were fine.
        .map_err(|error| layers.explain(&error))?;
    let cli = Cli::from_arg_matches(&matches)?;
    let mut origins = Origins::default();
    origins.collect(&matches, Some(&layers), "");
    let storages = storages_of(&cli, configured)?;
    Ok(Parsed { global: cli.global, command: cli.command, origins, storages })
}

/// What the configuration has, and what the environment adds to it.
fn storages_of(cli: &Cli, configured: Vec<storages::Storage>) -> anyhow::Result<Storages> {
    if !cli.command.uses_configuration() {
        return Ok(Storages::default());
    }
    let file = cli.global.config.clone().or_else(config::default_path);
    Ok(Storages::new(file, configured)?)
}

/// The whole command line, as clap has it, ready to parse.
pub(crate) fn command() -> clap::Command {
    prepare(Cli::command())
}

fn prepare(command: clap::Command) -> clap::Command {
    command.mut_args(prepare_flag).mut_subcommands(prepare)
}

/// What all flags have in common where an environment variable sets them.
fn prepare_flag(arg: Arg) -> Arg {
    let mut arg = arg.hide_env_values(true);
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        arg = arg.value_parser(BoolishValueParser::new());
    }
    let Some(variable) = arg.get_env() else { return arg };
    let Some(value) = std::env::var_os(variable) else { return arg };
    if value.is_empty() {
        // Set to nothing means not set, as everywhere.
        return arg.env(Resettable::Reset);
    }
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    if is_list && arg.get_value_delimiter().is_none() && value.as_encoded_bytes().contains(&b'\n') {
        return arg.value_delimiter('\n');
    }
    arg
}

/// What clap found wrong, in a few words and without the usage that follows.
pub(crate) fn reason(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    if let (ErrorKind::InvalidValue | ErrorKind::ValueValidation, Some(value), Some(arg)) =
        (error.kind(), context(ContextKind::InvalidValue), context(ContextKind::InvalidArg))
    {
        let flag = arg.split([' ', '=']).next().unwrap_or(&arg).trim_start_matches('-');
        let because =
            std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
        return text::printable(&format!("'{value}' is not a valid value of '{flag}'{because}"));
    }
    let rendered = error.to_string();
    let first = rendered.lines().next().unwrap_or_default();
    text::printable(first.strip_prefix("error: ").unwrap_or(first))
}

/// A list of default values for a flag.
pub(crate) fn with_defaults(arg: Arg, values: Vec<String>) -> Arg {
    arg.default_values(values.into_iter().map(Into::<clap::builder::OsStr>::into)).required(false)
}

/// Names of a command's long flags, for tables and tests.
pub(crate) fn long_name(arg: &Arg) -> Option<&str> {
    match arg.get_id().as_str() {
        "help" | "version" => None,
        _ => arg.get_long(),
    }
}

/// Text for clap that was made at run time.
pub(crate) fn owned(text: String) -> Str {
    Str::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flags that are about one service, which is in the names of their variables.
    const OF_PUTIO: &[&str] = &[
        "client-id",
        "client-secret-file",
        "token-file",
        "token-command",
        "api-url",
        "upload-url",
    ];

    fn every_command(command: &clap::Command, visit: &mut impl FnMut(&clap::Command)) {
        visit(command);
        for sub in command.get_subcommands() {
            every_command(sub, visit);
        }
    }

    #[test]
    fn clap_finds_no_contradiction_among_the_flags() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_has_the_environment_variable_of_its_name() {
        let mut count = 0;
        every_command(&Cli::command(), &mut |command| {
            for arg in command.get_arguments() {
                let Some(long) = long_name(arg) else { continue };
                let service = if OF_PUTIO.contains(&long) { "PUTIO_" } else { "" };
                let name = long.replace('-', "_").to_uppercase();
                let expected = format!("PUTBACK_{service}{name}");
                let found = arg.get_env().map(|name| name.to_string_lossy().into_owned());
                assert_eq!(
                    found.as_deref(),
                    Some(expected.as_str()),
                    "--{long} of {}",
                    command.get_name()
                );
                count += 1;
            }
        });
        assert!(count > 80, "{count}");
    }

    #[test]
    fn every_command_ends_its_help_with_an_example() {
        every_command(&Cli::command(), &mut |command| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example"), "{}", command.get_name());
            assert!(help.contains("\n  putback "), "{}", command.get_name());
        });
    }

    #[test]
    fn of_two_ways_to_give_one_thing_the_stronger_wins_and_equals_are_refused() {
        let mut origins = Origins::default();
        assert_eq!(origins.strongest(&["repo", "repo_file"]).unwrap(), None);
        origins.0.insert("repo".to_owned(), Origin::Environment);
        origins.0.insert("repo_file".to_owned(), Origin::Flag);
        assert_eq!(origins.strongest(&["repo", "repo_file"]).unwrap(), Some("repo_file"));
        origins.0.insert("repo".to_owned(), Origin::Flag);
        let error = origins.strongest(&["repo", "repo_file"]).unwrap_err();
        assert_eq!(error.to_string(), "--repo and --repo-file exclude each other");
    }
}
