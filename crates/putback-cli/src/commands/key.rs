//! `putback key`.

mod rotate;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use putback_format::id::SlotId;
use putback_repo::{Repository, SlotInfo, SlotOwner};

use crate::commands::init::Cost;
use crate::context::{self, Context};
use crate::password::{self, NewPasswordArgs};
use crate::report::{Failure, Outcome};
use crate::ui::table::Lines;
use crate::ui::{json, text};

/// Manage the passwords of a repository
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback key list\n  \
        putback key add --label 'for Grace'\n  \
        putback key export --output key.txt")]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand, Debug)]
enum KeyCommand {
    /// Add a password
    #[command(after_help = "Examples:\n  \
            putback key add --label 'for Grace'\n  \
            putback key add --new-password-file ~/.second-password")]
    Add(AddArgs),
    /// List the slots of all passwords
    #[command(after_help = "Example:\n  \
            putback key list")]
    List(ListArgs),
    /// Remove a password; the last one stays
    #[command(after_help = "Example:\n  \
            putback key remove 1a2b3c4d")]
    Remove(RemoveArgs),
    /// Change the password that opens the repository now
    #[command(after_help = "Example:\n  \
            putback key passwd --new-password-file ~/.new-password")]
    Passwd(PasswdArgs),
    /// Seal what is written from now on under a new key
    ///
    /// For when a password or an exported key was lost to somebody. The passwords that stay are asked
    /// for, one after another, since their slots have to hold the new key; an empty line, and a yes to the
    /// question that follows, drops a slot. Passwords that are dropped open the repository no more, and
    /// neither does any key that was exported before. What is stored already
    /// stays under the key of before: `putback prune --rewrite-epoch` stores it anew.
    #[command(after_help = "Examples:\n  \
            putback key rotate\n  \
            putback key rotate --keep-password-file ~/.second-password --drop-others")]
    Rotate(rotate::RotateArgs),
    /// Print the key as text that can be kept on paper and typed in again
    ///
    /// Whoever has the text can read all backups without a password: print it and delete the file.
    /// It opens the repository with --key-file.
    #[command(after_help = "Examples:\n  \
            putback key export | lpr\n  \
            putback key export --output key.txt\n  \
            putback --key-file key.txt snapshots")]
    Export(ExportArgs),
}

#[derive(Args, Debug)]
struct AddArgs {
    /// What the slot is for; shown by `key list`
    #[arg(long, env = "PUTBACK_LABEL", value_name = "TEXT", default_value = "")]
    label: String,
    /// User name in the slot, instead of yours
    #[arg(long, env = "PUTBACK_USER", value_name = "NAME")]
    user: Option<String>,
    /// Host name in the slot, instead of this machine's
    #[arg(short = 'H', long, env = "PUTBACK_HOST", value_name = "HOST")]
    host: Option<String>,
    #[command(flatten)]
    password: NewPasswordArgs,
    /// Work of trying the password: low (19 MiB), default (64 MiB), high (1 GiB of memory)
    #[arg(long, env = "PUTBACK_KDF_COST", value_name = "COST", default_value = "default")]
    kdf_cost: Cost,
}

#[derive(Args, Debug)]
struct ListArgs {}

#[derive(Args, Debug)]
struct RemoveArgs {
    /// Slot, as `key list` shows it
    #[arg(value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    id: String,
}

#[derive(Args, Debug)]
struct PasswdArgs {
    /// What the slot is for; shown by `key list`
    #[arg(long, env = "PUTBACK_LABEL", value_name = "TEXT", default_value = "")]
    label: String,
    #[command(flatten)]
    password: NewPasswordArgs,
    /// Work of trying the password: low (19 MiB), default (64 MiB), high (1 GiB of memory). As before if not given
    #[arg(long, env = "PUTBACK_KDF_COST", value_name = "COST")]
    kdf_cost: Option<Cost>,
}

#[derive(Args, Debug)]
struct ExportArgs {
    /// File to write to, readable by you alone; must not exist. Standard output if not given
    #[arg(short, long, env = "PUTBACK_OUTPUT", value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Manages passwords.
pub(crate) fn run(context: &Context, args: KeyArgs) -> anyhow::Result<Outcome> {
    match args.command {
        KeyCommand::Add(args) => add(context, &context.open()?, &args),
        KeyCommand::List(ListArgs {}) => list(context, &context.open()?),
        KeyCommand::Remove(args) => remove(context, &context.open()?, &args),
        KeyCommand::Passwd(args) => change(context, &context.open()?, &args),
        KeyCommand::Rotate(args) => rotate::run(context, &args),
        KeyCommand::Export(args) => export(context, &context.open()?, &args),
    }
}

fn add(context: &Context, repository: &Repository, args: &AddArgs) -> anyhow::Result<Outcome> {
    let password = args.password.read(context)?;
    let owner = SlotOwner {
        label: args.label.clone(),
        user: args.user.clone().unwrap_or_else(context::user_name),
        host: args.host.clone().unwrap_or_else(context::host_name),
    };
    let id = repository.add_slot(&password, args.kdf_cost.into(), &owner)?;
    changed(context, "added", Some(id), &format!("added a password as slot {}", id.short()));
    Ok(Outcome::Done)
}

fn change(
    context: &Context,
    repository: &Repository,
    args: &PasswdArgs,
) -> anyhow::Result<Outcome> {
    if password::is_exported_key(context)? {
        return Err(Failure::other(
            "an exported key opened the repository, so there is no password to change",
            "`putback key add` adds a new password with the exported key, and `putback key remove` \
             then removes the one that is lost",
        )
        .into());
    }
    let password = args.password.read(context)?;
    // The password changes, not whose it is, nor what guessing it costs.
    let kept = repository.slots()?.into_iter().find(|slot| slot.is_current);
    let cost = match (args.kdf_cost, &kept) {
        (None, Some(kept)) => kept.cost,
        (given, _) => given.unwrap_or_default().into(),
    };
    let label = match kept {
        Some(kept) if args.label.is_empty() => kept.owner.label,
        _ => args.label.clone(),
    };
    let owner = SlotOwner { label, user: context::user_name(), host: context::host_name() };
    let id = repository.change_password(&password, cost, &owner)?;
    changed(
        context,
        "changed",
        Some(id),
        &format!("the password was changed; its slot is {}", id.short()),
    );
    Ok(Outcome::Done)
}

fn remove(
    context: &Context,
    repository: &Repository,
    args: &RemoveArgs,
) -> anyhow::Result<Outcome> {
    let id = repository.find_slot(&args.id)?;
    let slots = repository.slots()?;
    if slots.len() > 1 && slots.iter().any(|slot| slot.id == id && slot.is_current) {
        return Err(Failure::other(
            format!("slot {} is the one of the password that was just used", id.short()),
            "use another password to remove it, or `putback key passwd` to replace it",
        )
        .into());
    }
    repository.remove_slot(&id)?;
    changed(context, "removed", Some(id), &format!("removed the password of slot {}", id.short()));
    Ok(Outcome::Done)
}

fn list(context: &Context, repository: &Repository) -> anyhow::Result<Outcome> {
    let slots = repository.slots()?;
    context.show_warnings(repository);
    let mut out = context.ui.out();
    if context.ui.is_json() {
        let all: Vec<json::KeySlot> = slots.iter().map(json_slot).collect();
        out.write_all(&json::line(&all))?;
    } else {
        let mut table = Lines::new(&["ID", "Created", "User", "Host", ">Memory", "Label"]);
        for slot in &slots {
            let current = if slot.is_current { "*" } else { " " };
            table.row(vec![
                format!("{current}{}", slot.id.short()),
                text::time(slot.created),
                text::printable(&slot.owner.user),
                text::printable(&slot.owner.host),
                text::bytes(u64::from(slot.cost.memory_kib) << 10),
                match slot.is_outdated {
                    true => format!("{} (opens nothing)", text::printable(&slot.owner.label)),
                    false => text::printable(&slot.owner.label),
                },
            ]);
        }
        out.write_all(table.render().as_bytes())?;
    }
    out.finish()?;
    Ok(Outcome::Done)
}

fn json_slot(slot: &SlotInfo) -> json::KeySlot {
    json::KeySlot {
        current: slot.is_current,
        outdated: slot.is_outdated,
        id: slot.id.to_string(),
        short_id: slot.id.short(),
        label: slot.owner.label.clone(),
        user_name: slot.owner.user.clone(),
        host_name: slot.owner.host.clone(),
        created: text::exact_time(slot.created),
        memory_kib: slot.cost.memory_kib,
        iterations: slot.cost.iterations,
        lanes: slot.cost.lanes,
    }
}

fn export(
    context: &Context,
    repository: &Repository,
    args: &ExportArgs,
) -> anyhow::Result<Outcome> {
    let key = repository.export_key();
    match &args.output {
        Some(path) => {
            let mut file = create_private(path)?;
            file.write_all(key.as_bytes())?;
            file.sync_all()?;
            let shown = text::escaped(path.as_os_str().as_encoded_bytes());
            changed(
                context,
                "exported",
                None,
                &format!("the key is in {shown}; whoever has it can read all backups"),
            );
        }
        None => {
            let mut out = context.ui.out();
            out.write_all(key.as_bytes())?;
            out.finish()?;
        }
    }
    Ok(Outcome::Done)
}

/// Creates a file that only its owner can read.
fn create_private(path: &Path) -> std::io::Result<fs_err::File> {
    let mut options = fs_err::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use fs_err::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

fn changed(context: &Context, action: &'static str, id: Option<SlotId>, sentence: &str) {
    if context.ui.is_json() {
        context.ui.json(&json::KeyChange {
            message_type: "summary",
            action,
            id: id.map(|id| id.to_string()),
        });
    } else {
        context.ui.say(format_args!("{sentence}"));
    }
}
