//! `putback man`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap_mangen::Man;

use crate::args;
use crate::context::Context;
use crate::report::Outcome;
use crate::ui::text;

/// Write manual pages
///
/// With --output one page for each command, in roff, as man reads it. Without it the main page goes
/// to standard output.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback man | man -l -\n  \
        putback man --output ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Folder to write to; made if it does not exist
    #[arg(short, long, env = "PUTBACK_OUTPUT", value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Writes manual pages.
pub(crate) fn run(context: &Context, args: &ManArgs) -> anyhow::Result<Outcome> {
    let mut command = args::command();
    command.build();
    let Some(folder) = &args.output else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        let mut out = context.ui.out();
        out.write_all(&page)?;
        out.finish()?;
        return Ok(Outcome::Done);
    };
    fs_err::create_dir_all(folder)?;
    let mut pages = Vec::new();
    collect(&command, "putback", &mut pages)?;
    for (name, page) in &pages {
        fs_err::write(folder.join(format!("{name}.1")), page)?;
    }
    let shown = text::escaped(folder.as_os_str().as_encoded_bytes());
    context.ui.say(format_args!(
        "wrote {} to {shown}",
        text::counted(pages.len() as u64, "page", "pages")
    ));
    Ok(Outcome::Done)
}

/// The pages of `command` and of those below it, by name.
fn collect(
    command: &clap::Command,
    name: &str,
    pages: &mut Vec<(String, Vec<u8>)>,
) -> std::io::Result<()> {
    let mut page = Vec::new();
    Man::new(command.clone().name(args::owned(name.to_owned()))).render(&mut page)?;
    pages.push((name.to_owned(), page));
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        collect(sub, &format!("{name}-{}", sub.get_name()), pages)?;
    }
    Ok(())
}
