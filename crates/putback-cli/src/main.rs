//! The program `putback`: reads arguments, environment and configuration, calls one library
//! function per command, prints what it reports, and chooses the exit code.
//!
//! Nothing below this crate prints, reads the environment or knows of exit codes. What decides
//! anything about backups belongs into `putback-engine`.

mod args;
mod bytes;
mod commands;
mod config;
mod context;
mod interrupt;
mod location;
mod password;
mod report;
mod sign_in;
mod storages;
mod ui;

use std::process::ExitCode;

use crate::context::Context;
use crate::ui::Ui;

fn main() -> ExitCode {
    let parsed = match args::parse(std::env::args_os().collect()) {
        Ok(parsed) => parsed,
        Err(args::StartError::CommandLine(error)) => return report::command_line(&error),
        Err(args::StartError::Failed(error)) => return report::failed(&Ui::early(), &error),
    };
    let context = Context::new(parsed.global, parsed.origins, parsed.storages);
    let watched = context.interrupt.watch(&context.ui);
    let result = watched.and_then(|()| commands::run(&context, parsed.command));
    if let Err(error) = &result
        && report::is_interrupted_prompt(error)
    {
        // The prompt has raised the signal, too: whichever of the two is first says so and ends the program.
        context.interrupt.come(&context.ui);
    }
    context.interrupt.settle();
    match result {
        Ok(outcome) => outcome.into(),
        // Whoever read our output has seen enough: not an error, and nobody is left to tell.
        Err(_) if context.ui.is_stdout_closed() => ExitCode::SUCCESS,
        Err(error) => report::failed(&context.ui, &error),
    }
}
