//! One file per command: an `Args` struct whose comments are the help, and `run`, which makes
//! options of it, calls one library function and shows its report.

mod backup;
mod cat;
mod check;
mod completions;
mod config;
mod diff;
mod dump;
mod find;
mod init;
mod key;
mod ls;
mod man;
mod repo;
mod restore;
mod select;
mod snapshots;
mod stats;
mod version;

use clap::Subcommand;

use crate::context::Context;
use crate::report::Outcome;

/// The commands, in the order in which a newcomer needs them.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Init(init::InitArgs),
    Backup(Box<backup::BackupArgs>),
    Restore(Box<restore::RestoreArgs>),
    Snapshots(snapshots::SnapshotsArgs),
    Ls(ls::LsArgs),
    Find(find::FindArgs),
    Diff(diff::DiffArgs),
    Cat(cat::CatArgs),
    Dump(dump::DumpArgs),
    Stats(stats::StatsArgs),
    Repo(repo::RepoArgs),
    Check(check::CheckArgs),
    Key(key::KeyArgs),
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    Version(version::VersionArgs),
}

impl Command {
    /// Whether flags of this command may come from the configuration file. `config` looks at the
    /// file itself, and has to work when something is wrong with it.
    pub(crate) fn uses_configuration(&self) -> bool {
        !matches!(self, Self::Config(_) | Self::Completions(_) | Self::Man(_) | Self::Version(_))
    }
}

/// Runs a command.
pub(crate) fn run(context: &Context, command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Init(args) => init::run(context, &args),
        Command::Backup(args) => backup::run(context, *args),
        Command::Restore(args) => restore::run(context, *args),
        Command::Snapshots(args) => snapshots::run(context, &args),
        Command::Ls(args) => ls::run(context, &args),
        Command::Find(args) => find::run(context, args),
        Command::Diff(args) => diff::run(context, &args),
        Command::Cat(args) => cat::run(context, &args),
        Command::Dump(args) => dump::run(context, &args),
        Command::Stats(args) => stats::run(context, &args),
        Command::Repo(args) => repo::run(context, &args),
        Command::Check(args) => check::run(context, &args),
        Command::Key(args) => key::run(context, args),
        Command::Config(args) => config::run(context, &args),
        Command::Completions(args) => completions::run(context, &args),
        Command::Man(args) => man::run(context, &args),
        Command::Version(args) => version::run(context, &args),
    }
}
