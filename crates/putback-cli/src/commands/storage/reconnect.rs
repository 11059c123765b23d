//! `putback storage reconnect`.

use clap::Args;

use crate::commands::storage::{connect, storage_name};
use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::sign_in::SignInArgs;

/// Sign in to a storage again, when its token is lost or no longer valid
///
/// Everything else that is known of the storage stays as it is.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback storage reconnect putio\n  \
        pass show putio | putback storage reconnect putio --token-stdin")]
pub(crate) struct ReconnectArgs {
    /// The storage
    #[arg(value_name = "NAME", value_parser = storage_name)]
    name: String,
    #[command(flatten)]
    sign_in: SignInArgs,
}

/// Signs in again.
pub(crate) fn run(context: &Context, args: &ReconnectArgs) -> anyhow::Result<Outcome> {
    let storage = context.storages.get(&args.name)?;
    if !storage.is_configured() {
        return Err(Failure::usage_with(
            format!("storage '{}' has its token from the environment", storage.name),
            "change the variable, or unset it and run `putback login`",
        )
        .into());
    }
    connect::reconnect(context, storage, &args.sign_in)
}
