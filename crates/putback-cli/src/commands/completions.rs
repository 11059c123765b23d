//! `putback completions`.

use clap::Args;
use clap_complete::Shell;

use crate::args;
use crate::context::Context;
use crate::report::Outcome;
use std::io::Write;

/// Print a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback completions bash > ~/.local/share/bash-completion/completions/putback\n  \
        putback completions zsh > ~/.zfunc/_putback\n  \
        putback completions fish > ~/.config/fish/completions/putback.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints a completion script.
pub(crate) fn run(context: &Context, args: &CompletionsArgs) -> anyhow::Result<Outcome> {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "putback", &mut script);
    let mut out = context.ui.out();
    out.write_all(&script)?;
    out.finish()?;
    Ok(Outcome::Done)
}
