//! `putback config`.

use std::io::Write;

use clap::{Arg, ArgAction, Args, Subcommand};

use crate::args::{self, Origin};
use crate::config::{self, Layers};
use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::ui::table::Lines;
use crate::ui::{json, text};

/// Look at the configuration
///
/// The configuration file has a table `defaults` and tables `profile.NAME`, with the long names of
/// flags as keys; flags of one command go into a table of its own, as `profile.NAME.backup`. Flags
/// win over environment variables, these over the profile, the profile over the defaults.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback config path\n  \
        putback --profile home config show\n  \
        putback config check")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Show the settings that are in effect, and where each comes from
    #[command(after_help = "Example:\n  \
            putback --profile home config show")]
    Show,
    /// Show where the configuration file is expected
    #[command(after_help = "Example:\n  \
            putback config path")]
    Path,
    /// Check the configuration file
    #[command(after_help = "Example:\n  \
            putback config check --config ./putback.toml")]
    Check,
}

/// Looks at the configuration.
pub(crate) fn run(context: &Context, args: &ConfigArgs) -> anyhow::Result<Outcome> {
    match args.command {
        ConfigCommand::Show => show(context),
        ConfigCommand::Path => path(context),
        ConfigCommand::Check => check(context),
    }
}

fn path(context: &Context) -> anyhow::Result<Outcome> {
    let path = context.global.config.clone().or_else(config::default_path);
    let path = path.ok_or_else(|| {
        Failure::other("this user has no configuration folder", "give --config FILE")
    })?;
    let mut out = context.ui.out();
    if context.ui.is_json() {
        let shown = json::name(path.as_os_str().as_encoded_bytes()).0;
        out.write_all(&json::line(&json::ConfigPath { path: shown, exists: path.exists() }))?;
    } else {
        writeln!(out, "{}", config::display(&path))?;
    }
    out.finish()?;
    Ok(Outcome::Done)
}

fn check(context: &Context) -> anyhow::Result<Outcome> {
    let command = args::command();
    let Some(layers) = Layers::load(&context.global, &command)? else {
        // None is needed, so that nothing is wrong.
        let path = config::default_path();
        if context.ui.is_json() {
            let path = path.map(|path| json::name(path.as_os_str().as_encoded_bytes()).0);
            let path = path.unwrap_or_default();
            context.ui.json(&json::ConfigCheck { path, exists: false, profiles: Vec::new() });
        } else {
            let expected = path.map_or_else(String::new, |path| {
                format!("; it would be {}", config::display(&path))
            });
            context
                .ui
                .say(format_args!("there is no configuration file, and none is needed{expected}"));
        }
        return Ok(Outcome::Done);
    };
    // Values are checked in the place of the flags they stand for, one profile after the other.
    layers.check(&command)?;
    for profile in layers.profiles() {
        layers.reread(profile, &command)?.check(&command)?;
    }
    if context.ui.is_json() {
        let path = json::name(layers.path().as_os_str().as_encoded_bytes()).0;
        context.ui.json(&json::ConfigCheck {
            path,
            exists: true,
            profiles: layers.profiles().to_vec(),
        });
    } else {
        let profiles = text::counted(layers.profiles().len() as u64, "profile", "profiles");
        context.ui.say(format_args!("{} is valid; {profiles}", config::display(layers.path())));
    }
    Ok(Outcome::Done)
}

/// A setting in effect.
struct Setting {
    key: String,
    values: Vec<String>,
    is_list: bool,
    source: String,
}

fn show(context: &Context) -> anyhow::Result<Outcome> {
    let command = args::command();
    let layers = Layers::load(&context.global, &command)?;
    let mut settings = Vec::new();
    collect(context, layers.as_ref(), &command, "", &mut settings);
    let mut out = context.ui.out();
    if context.ui.is_json() {
        let all: Vec<json::Setting> = settings.iter().map(json_setting).collect();
        out.write_all(&json::line(&all))?;
    } else {
        let mut table = Lines::new(&["Setting", "Value", "From"]);
        for setting in &settings {
            let values: Vec<String> =
                setting.values.iter().map(|value| text::printable(value)).collect();
            table.row(vec![setting.key.clone(), values.join(", "), setting.source.clone()]);
        }
        out.write_all(table.render().as_bytes())?;
    }
    out.finish()?;
    Ok(Outcome::Done)
}

/// The settings of `command` and the commands below it that something other than the program sets.
fn collect(
    context: &Context,
    layers: Option<&Layers>,
    command: &clap::Command,
    table: &str,
    settings: &mut Vec<Setting>,
) {
    for arg in command.get_arguments() {
        let Some(key) = config::key_of(arg) else { continue };
        if let Some((values, source)) = in_effect(context, layers, arg, table) {
            let is_list = matches!(arg.get_action(), ArgAction::Append);
            settings.push(Setting { key: args::join(table, key), values, is_list, source });
        }
    }
    for sub in command.get_subcommands() {
        collect(context, layers, sub, &args::join(table, sub.get_name()), settings);
    }
}

fn in_effect(
    context: &Context,
    layers: Option<&Layers>,
    arg: &Arg,
    table: &str,
) -> Option<(Vec<String>, String)> {
    let id = arg.get_id().as_str();
    if table.is_empty() && context.origins.of(id) == Origin::Flag {
        return Some((context.global.shown(id), "flag".to_owned()));
    }
    if let Some(variable) = arg.get_env()
        && let Some(value) = std::env::var_os(variable)
    {
        let value = text::escaped(value.as_encoded_bytes());
        return Some((vec![value], variable.to_string_lossy().into_owned()));
    }
    let layers = layers?;
    let values = layers.values(table, id)?.to_vec();
    let source = match layers.origin(table, id)? {
        Origin::Profile => {
            format!("profile {}", context.global.profile.as_deref().unwrap_or_default())
        }
        _ => "defaults".to_owned(),
    };
    Some((values, format!("{} in {}", text::printable(&source), config::display(layers.path()))))
}

fn json_setting(setting: &Setting) -> json::Setting {
    let value = match setting.values.as_slice() {
        [single] if !setting.is_list => single.clone().into(),
        list => list.to_vec().into(),
    };
    json::Setting { key: setting.key.clone(), value, source: setting.source.clone() }
}
