//! `putback key rotate`.

use std::path::PathBuf;

use clap::Args;
use putback_repo::{Repository, Rotation, SlotInfo};

use crate::context::{Context, PROMPTS_MAX, WRONG_PASSWORD};
use crate::password::{self, Wanted};
use crate::report::{Failure, Outcome};
use crate::ui::{json, text};

#[derive(Args, Debug)]
pub(super) struct RotateArgs {
    /// File with another password that stays; may be given several times
    #[arg(long, env = "PUTBACK_KEEP_PASSWORD_FILE", value_name = "FILE")]
    keep_password_file: Vec<PathBuf>,
    /// Let all passwords go that are not given
    #[arg(long, env = "PUTBACK_DROP_OTHERS")]
    drop_others: bool,
    /// Change nothing; show which passwords would stay and go
    #[arg(short = 'n', long, env = "PUTBACK_DRY_RUN")]
    dry_run: bool,
}

/// Rotates the keys.
pub(super) fn run(context: &Context, args: &RotateArgs) -> anyhow::Result<Outcome> {
    let (repository, current) = context.open_with_password()?;
    let mut rotation = repository.plan_rotation(current.into_iter().collect())?;
    for path in &args.keep_password_file {
        let flag = "--keep-password-file";
        let password = password::from_file(flag, path)?;
        if !repository.keep_password(&mut rotation, password)? {
            let path = text::escaped(path.as_os_str().as_encoded_bytes());
            return Err(Failure::usage(format!(
                "{flag} names {path}, whose password opens no slot, or one that is kept already"
            ))
            .into());
        }
    }
    if args.drop_others {
        rotation.drop_others();
    }
    ask_for_others(context, &repository, &mut rotation, args.dry_run)?;
    if rotation.kept().next().is_none() {
        return Err(Failure::usage_with(
            "an exported key opened the repository, and no password was given that stays",
            "give at least one with --keep-password-file",
        )
        .into());
    }
    let shown: Vec<json::RotatedSlot> = [(true, rotation.kept().collect::<Vec<_>>())]
        .into_iter()
        .chain([(false, rotation.dropped().collect())])
        .flat_map(|(kept, slots)| slots.into_iter().map(move |slot| (kept, slot)))
        .map(|(kept, slot)| json::RotatedSlot {
            id: slot.id.to_string(),
            label: slot.owner.label.clone(),
            user_name: slot.owner.user.clone(),
            host_name: slot.owner.host.clone(),
            kept,
        })
        .collect();
    if !context.ui.is_json() {
        let verb = if args.dry_run { "would " } else { "" };
        rotation.kept().for_each(|slot| {
            let s = if args.dry_run { "" } else { "s" };
            context.ui.say(format_args!("{verb}keep{s} the password of slot {}", named(slot)));
        });
        rotation.dropped().for_each(|slot| {
            let s = if args.dry_run { "" } else { "s" };
            context.ui.say(format_args!("{verb}drop{s} the password of slot {}", named(slot)));
        });
    }
    if args.dry_run {
        if context.ui.is_json() {
            context.ui.json(&summary(true, repository.config().epoch, shown));
        } else {
            context.ui.say(format_args!("dry run: nothing was changed"));
        }
        return Ok(Outcome::Done);
    }
    let (rotated, report) = repository.rotate_keys(rotation)?;
    context.show_warnings(&rotated);
    if context.ui.is_json() {
        context.ui.json(&summary(false, report.epoch, shown));
        return Ok(Outcome::Done);
    }
    context.ui.say(format_args!("the keys were rotated: new data is sealed under a new key"));
    context.ui.notice(
        "note: a key that was exported before opens the repository no more; make a new one with \
         `putback key export`",
    );
    context.ui.notice(
        "note: what is stored stays under the key of before until `putback prune --rewrite-epoch` \
         stores it anew; snapshots that are there keep it",
    );
    Ok(Outcome::Done)
}

fn summary(dry_run: bool, epoch: u32, slots: Vec<json::RotatedSlot>) -> json::KeyRotation {
    json::KeyRotation { message_type: "summary", action: "rotated", dry_run, epoch, slots }
}

/// A slot as a person knows it.
fn named(slot: &SlotInfo) -> String {
    let owner = &slot.owner;
    let mut about = vec![format!("{}@{}", owner.user, owner.host)];
    about.retain(|text| text != "@");
    about.extend((!owner.label.is_empty()).then(|| format!("'{}'", owner.label)));
    let about = match about.is_empty() {
        true => String::new(),
        false => format!(" ({})", about.join(", ")),
    };
    text::printable(&format!("{}{about}", slot.id.short()))
}

/// Each slot that is left is kept or dropped by who sits there, or nothing is done.
fn ask_for_others(
    context: &Context,
    repository: &Repository,
    rotation: &mut Rotation,
    is_dry_run: bool,
) -> anyhow::Result<()> {
    let others: Vec<SlotInfo> = rotation.others().cloned().collect();
    if others.is_empty() {
        return Ok(());
    }
    if !context.ui.can_ask() {
        let names: Vec<String> = others.iter().map(named).collect();
        return Err(Failure::usage_with(
            format!("it is not said what becomes of the passwords of slots {}", names.join(", ")),
            "give those that stay with --keep-password-file, and let the others go with \
             --drop-others",
        )
        .into());
    }
    for slot in &others {
        // A password that was typed for another one may have opened this one too.
        if is_left(rotation, slot) {
            ask_for(context, repository, rotation, slot, is_dry_run)?;
        }
    }
    Ok(())
}

fn ask_for(
    context: &Context,
    repository: &Repository,
    rotation: &mut Rotation,
    slot: &SlotInfo,
    is_dry_run: bool,
) -> anyhow::Result<()> {
    let wanted = Wanted::new(format!("password of slot {}", named(slot)), "--keep-password-file");
    let question = format!("password of slot {}, nothing to drop it: ", named(slot));
    let mut remark = "";
    for _ in 0..PROMPTS_MAX {
        let Some(password) = password::prompt_or_none(&format!("{remark}{question}"), &wanted)?
        else {
            let drop = format!(
                "drop slot {}, so that its password opens the repository no more?",
                slot.id.short()
            );
            if is_dry_run || context.confirm(&drop)? {
                rotation.drop_slot(&slot.id);
                return Ok(());
            }
            remark = "the slot is not dropped; ";
            continue;
        };
        // It is kept whichever slot it opens.
        let opens_any = repository.keep_password(rotation, password)?;
        if !is_left(rotation, slot) {
            return Ok(());
        }
        remark = match opens_any {
            true => "this is the password of another slot, which is kept; ",
            false => WRONG_PASSWORD,
        };
    }
    Err(Failure::other(
        format!("no password was given that opens slot {}", slot.id.short()),
        "nothing was changed",
    )
    .into())
}

/// Whether it is not said yet what becomes of the slot.
fn is_left(rotation: &Rotation, slot: &SlotInfo) -> bool {
    rotation.others().any(|other| other.id == slot.id)
}
