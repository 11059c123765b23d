//! `putback storage`.

mod about;
mod add;
pub(crate) mod connect;
mod list;
mod reconnect;
mod remove;
mod show;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::report::Outcome;

/// Manage storages: places on other machines that have a name
///
/// NAME:PATH is a folder in the storage NAME, wherever a location is asked for. Storages are kept in
/// the configuration file as tables [storages.NAME], which can also be written by hand.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback storage add work --client-id 1234\n  \
        putback storage list\n  \
        putback storage about putio")]
pub(crate) struct StorageArgs {
    #[command(subcommand)]
    command: StorageCommand,
}

#[derive(Subcommand, Debug)]
enum StorageCommand {
    Add(Box<add::AddArgs>),
    List(list::ListArgs),
    Show(show::ShowArgs),
    Reconnect(Box<reconnect::ReconnectArgs>),
    Remove(remove::RemoveArgs),
    About(about::AboutArgs),
}

impl StorageArgs {
    /// Whether a storage is to be added.
    pub(crate) fn is_add(&self) -> bool {
        matches!(self.command, StorageCommand::Add(_))
    }
}

/// Manages storages.
pub(crate) fn run(context: &Context, args: &StorageArgs) -> anyhow::Result<Outcome> {
    match &args.command {
        StorageCommand::Add(args) => add::run(context, args),
        StorageCommand::List(args) => list::run(context, args),
        StorageCommand::Show(args) => show::run(context, args),
        StorageCommand::Reconnect(args) => reconnect::run(context, args),
        StorageCommand::Remove(args) => remove::run(context, args),
        StorageCommand::About(args) => about::run(context, args),
    }
}

/// The name of a storage as an argument; a colon behind it is what a location has there.
fn storage_name(text: &str) -> Result<String, String> {
    match text.strip_suffix(':').unwrap_or(text) {
        "" => Err("it is empty".to_owned()),
        name => Ok(name.to_owned()),
    }
}
