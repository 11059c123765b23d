//! `putback version`.

use std::io::Write;

use clap::Args;

use crate::context::Context;
use crate::report::Outcome;
use crate::ui::json;

/// Show the version
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
        putback version --json")]
pub(crate) struct VersionArgs {}

/// Shows the version.
pub(crate) fn run(context: &Context, _: &VersionArgs) -> anyhow::Result<Outcome> {
    let version = json::Version {
        version: env!("CARGO_PKG_VERSION"),
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
    };
    let mut out = context.ui.out();
    if context.ui.is_json() {
        out.write_all(&json::line(&version))?;
    } else {
        writeln!(out, "putback {} on {}/{}", version.version, version.os, version.arch)?;
    }
    out.finish()?;
    Ok(Outcome::Done)
}
