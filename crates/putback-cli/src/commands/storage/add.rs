//! `putback storage add`.

use clap::{Args, ValueEnum};

use crate::commands::storage::{connect, storage_name};
use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::sign_in::SignInArgs;
use crate::storages::DEFAULT_NAME;

/// Add a storage and sign in to it
///
/// `putback login` does the same with the name putio. Limits, connections and certificates that are
/// given here are kept for the storage.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback storage add putio --client-id 1234\n  \
        putback storage add work --token-command 'pass show putio-work' --limit-upload 2M\n  \
        pass show putio | putback storage add putio --token-stdin")]
pub(crate) struct AddArgs {
    /// What it is to be called: letters, digits, - and _; asked for if not given
    #[arg(value_name = "NAME", value_parser = storage_name)]
    name: Option<String>,
    /// The service
    #[arg(long = "type", env = "PUTBACK_TYPE", value_name = "TYPE", default_value = "putio")]
    kind: Kind,
    #[command(flatten)]
    sign_in: SignInArgs,
}

/// `--type`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// put.io
    Putio,
}

/// Adds a storage.
pub(crate) fn run(context: &Context, args: &AddArgs) -> anyhow::Result<Outcome> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => ask_for_name(context)?,
    };
    if context.storages.find(&name).is_some_and(|storage| storage.is_configured()) {
        return Err(Failure::usage_with(
            format!("there is a storage '{name}' already"),
            format!(
                "sign in to it again by `putback storage reconnect {name}`, or take another name"
            ),
        )
        .into());
    }
    match args.kind {
        Kind::Putio => connect::add(context, &name, &args.sign_in),
    }
}

fn ask_for_name(context: &Context) -> anyhow::Result<String> {
    if !context.ui.can_ask() {
        return Err(Failure::usage_with(
            "no name was given, and there is no terminal to ask",
            "say what the storage is to be called: putback storage add NAME",
        )
        .into());
    }
    let is_free = context.storages.find(DEFAULT_NAME).is_none();
    let question = if is_free { "name of the storage [putio]: " } else { "name of the storage: " };
    let name = context.ui.ask(question)?;
    Ok(if name.is_empty() && is_free { DEFAULT_NAME.to_owned() } else { name })
}
