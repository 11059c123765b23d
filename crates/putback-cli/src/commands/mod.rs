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
mod forget;
mod init;
mod key;
mod login;
mod ls;
mod man;
mod prune;
mod repair;
mod replicate;
mod repo;
mod restore;
mod rewrite;
mod select;
mod selftest;
mod snapshots;
mod stats;
mod storage;
mod tag;
mod undelete;
mod version;

use clap::Subcommand;

use crate::context::Context;
use crate::report::Outcome;

/// The commands, in the order in which a newcomer needs them.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Init(Box<init::InitArgs>),
    Login(Box<login::LoginArgs>),
    Storage(Box<storage::StorageArgs>),
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
    Forget(Box<forget::ForgetArgs>),
    Undelete(undelete::UndeleteArgs),
    Prune(prune::PruneArgs),
    Repair(repair::RepairArgs),
    Tag(tag::TagArgs),
    Rewrite(Box<rewrite::RewriteArgs>),
    Replicate(Box<replicate::ReplicateArgs>),
    Key(key::KeyArgs),
    Selftest(selftest::SelftestArgs),
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    Version(version::VersionArgs),
}

impl Command {
    /// Whether this command makes the configuration file if there is none.
    pub(crate) fn makes_configuration(&self) -> bool {
        match self {
            Self::Login(_) => true,
            Self::Storage(args) => args.is_add(),
            _ => false,
        }
    }

    /// Whether this command reports what it did, rather than printing what was asked for.
    fn is_operation(&self) -> bool {
        matches!(self, Self::Init(_) | Self::Backup(_) | Self::Restore(_) | Self::Check(_))
    }

    /// Whether flags of this command may come from the configuration file. `config` looks at the
    /// file itself, and has to work when something is wrong with it.
    pub(crate) fn uses_configuration(&self) -> bool {
        !matches!(self, Self::Config(_) | Self::Completions(_) | Self::Man(_) | Self::Version(_))
    }
}

/// Runs a command.
pub(crate) fn run(context: &Context, command: Command) -> anyhow::Result<Outcome> {
    let is_operation = command.is_operation();
    let outcome = dispatch(context, command)?;
    if is_operation {
        context.ui.say_traffic();
    } else if context.ui.verbosity() > 0 {
        context.ui.notice_traffic();
    }
    Ok(outcome)
}

fn dispatch(context: &Context, command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Init(args) => init::run(context, &args),
        Command::Login(args) => login::run(context, &args),
        Command::Storage(args) => storage::run(context, &args),
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
        Command::Forget(args) => forget::run(context, &args),
        Command::Undelete(args) => undelete::run(context, &args),
        Command::Prune(args) => prune::run(context, &args),
        Command::Repair(args) => repair::run(context, &args),
        Command::Tag(args) => tag::run(context, &args),
        Command::Rewrite(args) => rewrite::run(context, &args),
        Command::Replicate(args) => replicate::run(context, &args),
        Command::Key(args) => key::run(context, args),
        Command::Selftest(args) => selftest::run(context, &args),
        Command::Config(args) => config::run(context, &args),
        Command::Completions(args) => completions::run(context, &args),
        Command::Man(args) => man::run(context, &args),
        Command::Version(args) => version::run(context, &args),
    }
}
