//! `putback login`.

use clap::Args;

use crate::commands::storage::connect;
use crate::context::Context;
use crate::report::Outcome;
use crate::sign_in::SignInArgs;
use crate::storages::DEFAULT_NAME;

/// Sign in to put.io
///
/// From then on `putio:PATH` is a place for repositories. With the id of an application that is
/// registered at put.io, a code is shown that you confirm in any browser. Otherwise a token is asked
/// for, or taken from a file or a command. The token is kept in a file that you alone can read.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback login --client-id 1234\n  \
        putback login --token-command 'pass show putio'\n  \
        putback login --name work --token-file /run/secrets/putio\n  \
        putback --repo putio:backups/laptop init")]
pub(crate) struct LoginArgs {
    /// What the storage is called; another name is for another account
    #[arg(long, env = "PUTBACK_NAME", value_name = "NAME", default_value = DEFAULT_NAME)]
    name: String,
    #[command(flatten)]
    sign_in: SignInArgs,
}

/// Signs in.
pub(crate) fn run(context: &Context, args: &LoginArgs) -> anyhow::Result<Outcome> {
    match context.storages.find(&args.name).filter(|storage| storage.is_configured()) {
        Some(storage) => connect::reconnect(context, storage, &args.sign_in),
        None => connect::add(context, &args.name, &args.sign_in),
    }
}
