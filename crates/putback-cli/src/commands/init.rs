//! `putback init`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use putback_repo::{
    Error as RepositoryError, InitOptions, KdfCost, Password, Repository, SlotOwner,
};

use crate::context::{self, Context};
use crate::location;
use crate::password::{self, OtherPassword};
use crate::report::{Failure, Outcome};
use crate::ui::{json, text};

/// Make a new repository
///
/// The location is a folder that is made if it does not exist. On this machine it must hold nothing else, but
/// for hidden files and what systems keep in the root of a disk; in a storage over a network, what else is
/// there is left alone. Who loses the password loses the backups: `putback key add` adds a second one,
/// `putback key export` prints the key to paper.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback init --repo /mnt/disk/backup\n  \
        putback init --repo /mnt/disk/backup --password-file ~/.backup-password --kdf-cost high\n  \
        putback init --repo /mnt/second/backup --like /mnt/disk/backup")]
pub(crate) struct InitArgs {
    #[command(flatten)]
    settings: RepositoryArgs,
    /// Compression of what is stored: -7 to 22, or fast, default, better, max
    #[arg(long, env = "PUTBACK_COMPRESSION", value_name = "LEVEL", value_parser = compression_level,
          allow_negative_numbers = true)]
    compression: Option<i32>,
    /// Cut and name chunks as this other repository does, so that `putback replicate` between the two copies
    /// them as they are. Who opens one of them can then tell whether the other holds a file that they have
    #[arg(
        long,
        env = "PUTBACK_LIKE",
        value_name = "LOCATION",
        conflicts_with = "chunk_size",
        help_heading = "The other repository"
    )]
    like: Option<OsString>,
    /// File that holds its password; see also PUTBACK_LIKE_PASSWORD
    #[arg(
        long,
        env = "PUTBACK_LIKE_PASSWORD_FILE",
        value_name = "FILE",
        help_heading = "The other repository"
    )]
    like_password_file: Option<PathBuf>,
    /// Command that prints its password; run by the shell
    #[arg(
        long,
        env = "PUTBACK_LIKE_PASSWORD_COMMAND",
        value_name = "COMMAND",
        help_heading = "The other repository"
    )]
    like_password_command: Option<OsString>,
    /// Open file descriptor to read its password from
    #[arg(
        long,
        env = "PUTBACK_LIKE_PASSWORD_FD",
        value_name = "N",
        help_heading = "The other repository"
    )]
    like_password_fd: Option<u32>,
}

impl InitArgs {
    /// The repository that the new one is to be like.
    fn like(&self, context: &Context) -> anyhow::Result<Option<Repository>> {
        let password = OtherPassword {
            prefix: "like",
            file: self.like_password_file.as_deref(),
            command: self.like_password_command.as_ref(),
            descriptor: self.like_password_fd,
        };
        self.like.as_deref().map(|location| context.open_other(location, &password)).transpose()
    }
}

/// What a repository is made with.
#[derive(Args, Debug)]
#[command(next_help_heading = "The new repository")]
pub(crate) struct RepositoryArgs {
    /// Work of trying a password: low (19 MiB), default (64 MiB), high (1 GiB of memory)
    #[arg(long, env = "PUTBACK_KDF_COST", value_name = "COST", default_value = "default")]
    pub(crate) kdf_cost: Cost,
    /// Size of the objects that data is packed into, 8M to 256M
    #[arg(long, env = "PUTBACK_PACK_SIZE", value_name = "SIZE", value_parser = text::parse_bytes)]
    pub(crate) pack_size: Option<u64>,
    /// Average size of the pieces that files are cut into, 16K to 2M, a power of two
    #[arg(long, env = "PUTBACK_CHUNK_SIZE", value_name = "SIZE", value_parser = chunk_size)]
    pub(crate) chunk_size: Option<u32>,
}

/// `--kdf-cost`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Cost {
    Low,
    #[default]
    Default,
    High,
}

impl From<Cost> for KdfCost {
    fn from(cost: Cost) -> Self {
        match cost {
            Cost::Low => Self::LOW,
            Cost::Default => Self::DEFAULT,
            Cost::High => Self::HIGH,
        }
    }
}

/// Reads a level of compression, by number or name.
pub(crate) fn compression_level(text: &str) -> Result<i32, String> {
    match text {
        "fast" => Ok(1),
        "default" => Ok(3),
        "better" => Ok(9),
        "max" => Ok(19),
        number => match number.parse() {
            Ok(level @ -7..=22) => Ok(level),
            _ => Err("write a number from -7 to 22, or fast, default, better or max".to_owned()),
        },
    }
}

fn chunk_size(text: &str) -> Result<u32, String> {
    let bytes = text::parse_bytes(text)?;
    u32::try_from(bytes).map_err(|_| "larger than 2M".to_owned())
}

/// Makes a repository.
pub(crate) fn run(context: &Context, args: &InitArgs) -> anyhow::Result<Outcome> {
    // Before a password is asked for: the location must make sense.
    check_place(context)?;
    let shown = location::shown(&context.location()?);
    let like = args.like(context)?;
    let password = password::for_new_repository(context, &shown)?;
    create(context, &args.settings, args.compression, like.as_ref(), &password)?;
    Ok(Outcome::Done)
}

/// Names, besides hidden ones, that systems give to what they keep in the root of a disk.
const OF_SYSTEMS: [&str; 3] = ["lost+found", "System Volume Information", "$RECYCLE.BIN"];

/// Refuses a folder of this machine that holds files of somebody: between them, a repository would be
/// changed or deleted by mistake. What an `init` that was interrupted has left is not in the way.
pub(crate) fn check_place(context: &Context) -> anyhow::Result<()> {
    let (store, location) = context.store()?;
    let Some(folder) = location::local_folder(&location)? else { return Ok(()) };
    let shown = location::shown(&location);
    match fs_err::metadata(&folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            let message = format!("{shown} is a file, and a repository is a folder");
            return Err(Failure::usage(message).into());
        }
        // Whatever else keeps it from being made is told when it is.
        Err(_) => return Ok(()),
    }
    if Repository::exists(store.as_ref())? {
        let location = store.describe();
        return Err(RepositoryError::RepositoryExists { location }.into());
    }
    for entry in fs_err::read_dir(&folder)? {
        let name = entry?.file_name();
        let is_harmless = name.to_str().is_some_and(|name| {
            name.starts_with('.') || OF_SYSTEMS.contains(&name) || Repository::uses_name(name)
        });
        if !is_harmless {
            let name = text::escaped(name.as_encoded_bytes());
            return Err(Failure::usage_with(
                format!("{shown} is not empty: it holds {name}"),
                "give the repository a folder of its own; one that does not exist is made",
            )
            .into());
        }
    }
    Ok(())
}

/// Makes a repository at the given location and says so; also for `backup --init`.
pub(crate) fn create(
    context: &Context,
    args: &RepositoryArgs,
    compression: Option<i32>,
    like: Option<&Repository>,
    password: &Password,
) -> anyhow::Result<Repository> {
    let (store, _) = context.store()?;
    let options = InitOptions {
        kdf_cost: args.kdf_cost.into(),
        pack_bytes: args.pack_size,
        compression_level: compression,
        chunk_bytes_average: args.chunk_size,
        owner: SlotOwner {
            label: String::new(),
            user: context::user_name(),
            host: context::host_name(),
        },
    };
    let machine = context.machine();
    let repository = match like {
        Some(like) => Repository::init_like(store, password, &options, like, &machine)?,
        None => Repository::init(store, password, &options, &machine)?,
    };
    context.show_warnings(&repository);
    let id = repository.config().repository.to_string();
    let location = text::printable(&repository.location());
    if context.ui.is_json() {
        context.ui.json(&json::Initialized {
            message_type: "initialized",
            id,
            repository: location,
        });
    } else {
        context.ui.say(format_args!("created repository {} at {location}", &id[..8]));
        context.ui.say(format_args!(
            "without the password nobody can read it; `putback key export` prints the key to paper"
        ));
    }
    Ok(repository)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_given_by_number_or_name() {
        for (text, level) in
            [("-7", -7), ("22", 22), ("fast", 1), ("default", 3), ("better", 9), ("max", 19)]
        {
            assert_eq!(compression_level(text).unwrap(), level);
        }
        for text in ["", "23", "-8", "best", "3.5"] {
            assert!(compression_level(text).is_err(), "{text}");
        }
    }
}
