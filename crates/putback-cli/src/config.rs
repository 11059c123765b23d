//! The configuration file: `[defaults]` and `[profile.NAME]`, with the long flags as keys, and the
//! tables of [`crate::storages`].
//!
//! ```toml
//! [defaults]
//! cache-dir = "/var/cache/putback"
//!
//! [profile.home]
//! repo = "/mnt/disk/backup"
//! password-command = "pass show backup"
//!
//! [profile.home.backup]
//! paths = ["/home/ada"]
//! exclude = ["*.tmp", "/home/ada/.cache"]
//! ```
//!
//! Which keys there are is asked of the command line itself, so that the two cannot differ. A value
//! becomes the default of its flag ([`Layers::apply`]): flags win over environment variables, these
//! over the profile, the profile over `[defaults]`. The whole file is checked whenever it is read.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction};
use directories::ProjectDirs;
use toml::{Table, Value};

use crate::args::{self, GlobalArgs, Origin};
use crate::report::Failure;
use crate::storages::{Storage, table};
use crate::ui::text;

/// Folders of this user for this program.
pub(crate) fn project_directories() -> Option<ProjectDirs> {
    ProjectDirs::from("", "", "putback")
}

/// Where the configuration is expected.
pub(crate) fn default_path() -> Option<PathBuf> {
    project_directories().map(|directories| directories.config_dir().join("putback.toml"))
}

/// What the configuration file says, for one choice of profile.
#[derive(Debug)]
pub(crate) struct Layers {
    path: PathBuf,
    profiles: Vec<String>,
    /// By table (empty for flags of every command, else `backup`, `key.add`) and id of the flag.
    values: HashMap<(String, String), Layered>,
    /// `[storages.NAME]`.
    storages: Vec<Storage>,
}

/// A value and where it was found.
#[derive(Debug)]
struct Layered {
    values: Vec<String>,
    origin: Origin,
}

impl Layers {
    /// Reads the file that the flags ask for, or the one that is expected; `None` if there is none.
    pub(crate) fn load(
        global: &GlobalArgs,
        command: &clap::Command,
    ) -> anyhow::Result<Option<Self>> {
        let explicit = global.config.is_some();
        let Some(path) = global.config.clone().or_else(default_path) else { return Ok(None) };
        let content = match fs_err::read_to_string(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !explicit => {
                return match &global.profile {
                    None => Ok(None),
                    Some(profile) => Err(Failure::usage_with(
                        format!("there is no profile '{}'", text::printable(profile)),
                        format!("profiles are kept in {}, which does not exist", display(&path)),
                    )
                    .into()),
                };
            }
            Err(error) => return Err(Failure::file_of("--config", &path, &error).into()),
        };
        Ok(Some(Self::read(path, &content, global.profile.as_deref(), command)?))
    }

    /// The same for a command that makes the file if there is none, even where it was asked for.
    pub(crate) fn load_if_any(
        global: &GlobalArgs,
        command: &clap::Command,
    ) -> anyhow::Result<Option<Self>> {
        match &global.config {
            Some(path) if global.profile.is_none() && !path.try_exists()? => Ok(None),
            _ => Self::load(global, command),
        }
    }

    fn read(
        path: PathBuf,
        content: &str,
        profile: Option<&str>,
        command: &clap::Command,
    ) -> Result<Self, Failure> {
        let table: Table = content.parse().map_err(|error: toml::de::Error| {
            let line =
                error.span().map_or(1, |span| content[..span.start].matches('\n').count() + 1);
            Failure::usage(format!("{} line {line}: {}", display(&path), error.message()))
        })?;
        let mut reader = Reader { path: &path, command, values: HashMap::new() };
        let mut profiles = Vec::new();
        let mut storages = Vec::new();
        for (key, value) in &table {
            match key.as_str() {
                "defaults" => reader.table(value, "[defaults]", (Origin::Defaults, true))?,
                "profile" => {
                    let Value::Table(table) = value else {
                        return Err(reader.wrong_type("profile", "", "tables [profile.NAME]"));
                    };
                    for (name, value) in table {
                        profiles.push(name.clone());
                        let shown = format!("[profile.{}]", text::printable(name));
                        reader.table(value, &shown, (Origin::Profile, profile == Some(name)))?;
                    }
                }
                "storages" => storages = table::read(&path, value)?,
                unknown if value.is_table() && command.find_subcommand(unknown).is_some() => {
                    return Err(reader.outside_a_profile(unknown, unknown));
                }
                unknown if command.get_arguments().any(|arg| key_of(arg) == Some(unknown)) => {
                    return Err(reader.outside_a_profile(unknown, ""));
                }
                unknown => {
                    return Err(reader.unknown(unknown, "", &["defaults", "profile", "storages"]));
                }
            }
        }
        let values = reader.values;
        if let Some(profile) = profile
            && !profiles.iter().any(|name| name == profile)
        {
            let message =
                format!("there is no profile '{}' in {}", text::printable(profile), display(&path));
            let names: Vec<&str> = profiles.iter().map(String::as_str).collect();
            return Err(match nearest(profile, &names) {
                Some(name) => Failure::usage_with(
                    message,
                    format!("did you mean '{}'?", text::printable(name)),
                ),
                None => Failure::usage(message),
            });
        }
        Ok(Self { path, profiles, values, storages })
    }

    /// The storages in the file; a second call has none.
    pub(crate) fn take_storages(&mut self) -> Vec<Storage> {
        std::mem::take(&mut self.storages)
    }

    /// What the same file says for another profile.
    pub(crate) fn reread(&self, profile: &str, command: &clap::Command) -> anyhow::Result<Self> {
        let content = fs_err::read_to_string(&self.path)?;
        Ok(Self::read(self.path.clone(), &content, Some(profile), command)?)
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the profiles in it.
    pub(crate) fn profiles(&self) -> &[String] {
        &self.profiles
    }

    /// Where the value of a flag was found, if it is in the file.
    pub(crate) fn origin(&self, table: &str, id: &str) -> Option<Origin> {
        self.get(table, id).map(|layered| layered.origin)
    }

    /// The values of a flag, if it is in the file.
    pub(crate) fn values(&self, table: &str, id: &str) -> Option<&[String]> {
        self.get(table, id).map(|layered| layered.values.as_slice())
    }

    fn get(&self, table: &str, id: &str) -> Option<&Layered> {
        self.values.get(&(table.to_owned(), id.to_owned()))
    }

    /// Makes the file's values the defaults of the flags.
    pub(crate) fn apply(&self, command: clap::Command) -> clap::Command {
        self.apply_table(command, "")
    }

    fn apply_table(&self, command: clap::Command, table: &str) -> clap::Command {
        command
            .mut_args(|arg| match self.values(table, arg.get_id().as_str()) {
                Some(values) => args::with_defaults(arg, values.to_vec()),
                None => arg,
            })
            .mut_subcommands(|command| {
                let table = args::join(table, command.get_name());
                self.apply_table(command, &table)
            })
    }

    /// What clap found wrong with a value of the file.
    pub(crate) fn explain(&self, error: &clap::Error) -> anyhow::Error {
        Failure::usage(format!("{}: {}", display(&self.path), args::reason(error))).into()
    }

    /// Checks the values of all tables as the flags' own parsers would.
    pub(crate) fn check(&self, command: &clap::Command) -> anyhow::Result<()> {
        let mut tables: Vec<&str> = self.values.keys().map(|(table, _)| table.as_str()).collect();
        tables.sort_unstable();
        tables.dedup();
        for table in tables {
            // The command alone, so that only its own and the common values are looked at; what it
            // requires besides is not asked for.
            let words =
                std::iter::once("putback").chain(table.split('.').filter(|word| !word.is_empty()));
            if let Err(error) = self.apply(command.clone()).try_get_matches_from(words)
                && matches!(
                    error.kind(),
                    clap::error::ErrorKind::InvalidValue | clap::error::ErrorKind::ValueValidation
                )
            {
                return Err(self.explain(&error));
            }
        }
        Ok(())
    }
}

/// Takes the tables apart.
struct Reader<'a> {
    path: &'a Path,
    command: &'a clap::Command,
    values: HashMap<(String, String), Layered>,
}

impl Reader<'_> {
    /// Reads `[defaults]` or a profile; `shown` names it, `layer` says what its values are and
    /// whether they count.
    fn table(&mut self, value: &Value, shown: &str, layer: (Origin, bool)) -> Result<(), Failure> {
        let command = self.command;
        self.command_table(command, "", value, shown, layer)
    }

    fn command_table(
        &mut self,
        command: &clap::Command,
        name: &str,
        value: &Value,
        shown: &str,
        layer: (Origin, bool),
    ) -> Result<(), Failure> {
        let Value::Table(table) = value else {
            return Err(Failure::usage(format!(
                "{shown} in {} must be a table",
                display(self.path)
            )));
        };
        for (key, value) in table {
            // `repo` is a flag and a command: a table is the command's.
            let sub = command.get_subcommands().find(|sub| sub.get_name() == key);
            let arg = command.get_arguments().find(|arg| key_of(arg) == Some(key));
            if let Some(sub) = sub
                && (value.is_table() || arg.is_none())
            {
                let inner = format!("{}.{key}]", shown.trim_end_matches(']'));
                self.command_table(sub, &args::join(name, key), value, &inner, layer)?;
            } else if let Some(arg) = arg {
                let values = self.flag_values(arg, key, value, shown)?;
                self.keep((name.to_owned(), arg.get_id().to_string()), values, layer);
            } else {
                let flags = command.get_arguments().filter_map(key_of);
                let known: Vec<&str> =
                    flags.chain(command.get_subcommands().map(clap::Command::get_name)).collect();
                return Err(self.unknown(key, shown, &known));
            }
        }
        Ok(())
    }

    fn keep(
        &mut self,
        key: (String, String),
        values: Vec<String>,
        (origin, counts): (Origin, bool),
    ) {
        let is_weaker = self.values.get(&key).is_some_and(|known| known.origin > origin);
        if counts && !is_weaker {
            self.values.insert(key, Layered { values, origin });
        }
    }

    /// The values of a key as the command line would have them.
    fn flag_values(
        &self,
        arg: &Arg,
        key: &str,
        value: &Value,
        shown: &str,
    ) -> Result<Vec<String>, Failure> {
        let scalar = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            Value::Datetime(time) => Some(time.to_string()),
            _ => None,
        };
        match (arg.get_action(), value) {
            (ArgAction::SetTrue, Value::Boolean(value)) => Ok(vec![value.to_string()]),
            (ArgAction::SetTrue, _) => Err(self.wrong_type(key, shown, "true or false")),
            (ArgAction::Count, Value::Integer(number @ 0..=9)) => Ok(vec![number.to_string()]),
            (ArgAction::Count, Value::Boolean(value)) => Ok(vec![u8::from(*value).to_string()]),
            (ArgAction::Count, _) => Err(self.wrong_type(key, shown, "a number from 0 to 9")),
            (ArgAction::Append, Value::Array(values)) => {
                let values: Option<Vec<String>> = values.iter().map(scalar).collect();
                values.ok_or_else(|| self.wrong_type(key, shown, "a list of strings"))
            }
            (ArgAction::Append, value) => scalar(value)
                .map(|value| vec![value])
                .ok_or_else(|| self.wrong_type(key, shown, "a list of strings")),
            (_, value) => scalar(value)
                .map(|value| vec![value])
                .ok_or_else(|| self.wrong_type(key, shown, "a single value")),
        }
    }

    fn unknown(&self, key: &str, shown: &str, known: &[&str]) -> Failure {
        let message = format!("unknown key '{}' in {}", text::printable(key), self.place(shown));
        match nearest(key, known) {
            Some(name) => Failure::usage_with(message, format!("did you mean '{name}'?")),
            None => Failure::usage_with(message, format!("known keys are {}", known.join(", "))),
        }
    }

    /// A key that would be right one level deeper; `table` is the command's, empty if it is a flag
    /// of every command.
    fn outside_a_profile(&self, key: &str, table: &str) -> Failure {
        let below = |outer: &str| format!("[{}]", args::join(outer, table).trim_end_matches('.'));
        Failure::usage_with(
            format!("'{key}' stands outside of any profile in {}", self.place("")),
            format!(
                "put it into {} for one profile, or into {} for all",
                below("profile.NAME"),
                below("defaults")
            ),
        )
    }

    /// A table of the file, or the file itself.
    fn place(&self, shown: &str) -> String {
        if shown.is_empty() {
            display(self.path)
        } else {
            format!("{shown} of {}", display(self.path))
        }
    }

    fn wrong_type(&self, key: &str, shown: &str, expected: &str) -> Failure {
        Failure::usage(format!("'{key}' in {} must be {expected}", self.place(shown)))
    }
}

/// The key of a flag, for those that a file may set: its long name, and `paths` for what is backed
/// up.
pub(crate) fn key_of(arg: &Arg) -> Option<&str> {
    match arg.get_id().as_str() {
        // They say which file and which table of it.
        "config" | "profile" => None,
        "paths" => Some("paths"),
        _ => args::long_name(arg),
    }
}

/// `path` for a person.
pub(crate) fn display(path: &Path) -> String {
    text::escaped(path.as_os_str().as_encoded_bytes())
}

/// The known word that was probably meant; the nearest by edit distance, whatever the distance.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known.iter().copied().min_by_key(|candidate| distance(word, candidate))
}

/// How many characters must be inserted, deleted, replaced or swapped with their neighbour to turn
/// one word into the other (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(64).collect();
    let right: Vec<char> = right.chars().take(64).collect();
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for (row, cells) in rows.iter_mut().enumerate() {
        cells[0] = row;
    }
    for (column, cell) in rows[0].iter_mut().enumerate() {
        *cell = column;
    }
    for row in 1..=left.len() {
        for column in 1..=right.len() {
            let replaced = usize::from(left[row - 1] != right[column - 1]);
            let mut best = (rows[row - 1][column] + 1)
                .min(rows[row][column - 1] + 1)
                .min(rows[row - 1][column - 1] + replaced);
            if row > 1
                && column > 1
                && left[row - 1] == right[column - 2]
                && left[row - 2] == right[column - 1]
            {
                best = best.min(rows[row - 2][column - 2] + 1);
            }
            rows[row][column] = best;
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str, profile: Option<&str>) -> Result<Layers, Failure> {
        Layers::read(PathBuf::from("/c/putback.toml"), content, profile, &args::command())
    }

    fn check(content: &str, message: &str, hint: Option<&str>) {
        let Failure::Usage { message: found, hint: found_hint } = read(content, None).unwrap_err()
        else {
            panic!("not wrong usage");
        };
        assert_eq!(found, message);
        assert_eq!(found_hint.as_deref(), hint);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file_and_the_nearest_known_one() {
        check(
            "[defaults]\npasword-file = 'x'",
            "unknown key 'pasword-file' in [defaults] of /c/putback.toml",
            Some("did you mean 'password-file'?"),
        );
        check(
            "[profile.a.backup]\nexlude = ['x']",
            "unknown key 'exlude' in [profile.a.backup] of /c/putback.toml",
            Some("did you mean 'exclude'?"),
        );
        check(
            "[default]",
            "unknown key 'default' in /c/putback.toml",
            Some("did you mean 'defaults'?"),
        );
    }

    #[test]
    fn what_stands_outside_of_any_profile_is_told_where_it_belongs() {
        check(
            "[backup]\nexclude = ['x']",
            "'backup' stands outside of any profile in /c/putback.toml",
            Some(
                "put it into [profile.NAME.backup] for one profile, or into [defaults.backup] for all",
            ),
        );
        check(
            "repo = '/r'",
            "'repo' stands outside of any profile in /c/putback.toml",
            Some("put it into [profile.NAME] for one profile, or into [defaults] for all"),
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named() {
        check(
            "[defaults]\njson = 'yes'",
            "'json' in [defaults] of /c/putback.toml must be true or false",
            None,
        );
        check(
            "[defaults]\nrepo = ['a']",
            "'repo' in [defaults] of /c/putback.toml must be a single value",
            None,
        );
        check(
            "[defaults.backup]\nexclude = [true]",
            "'exclude' in [defaults.backup] of /c/putback.toml must be a list of strings",
            None,
        );
        check("profile = 1", "'profile' in /c/putback.toml must be tables [profile.NAME]", None);
        check(
            "[defaults]\nbackup = 1",
            "[defaults.backup] in /c/putback.toml must be a table",
            None,
        );
    }

    #[test]
    fn what_is_no_toml_is_named_by_line() {
        let error = read("[defaults]\nrepo =\n", None).unwrap_err().to_string();
        assert!(error.starts_with("/c/putback.toml line 2: "), "{error}");
    }

    #[test]
    fn the_profile_wins_over_the_defaults_wherever_it_stands() {
        let content = "[profile.a]\nrepo = 'pa'\n[defaults]\nrepo = 'd'\nthreads = 2\n\
                       [profile.b]\nrepo = 'pb'";
        let layers = read(content, Some("a")).unwrap();
        assert_eq!(layers.values("", "repo").unwrap(), ["pa"]);
        assert_eq!(layers.origin("", "repo"), Some(Origin::Profile));
        assert_eq!(layers.values("", "threads").unwrap(), ["2"]);
        assert_eq!(layers.origin("", "threads"), Some(Origin::Defaults));
        assert_eq!(read(content, None).unwrap().values("", "repo").unwrap(), ["d"]);
        assert_eq!(layers.profiles(), ["a", "b"]);
    }

    #[test]
    fn an_unknown_profile_is_an_error_with_the_nearest_one() {
        let error = read("[profile.home]", Some("hoem")).unwrap_err();
        let Failure::Usage { message, hint } = error else { panic!("not wrong usage") };
        assert_eq!(message, "there is no profile 'hoem' in /c/putback.toml");
        assert_eq!(hint.as_deref(), Some("did you mean 'home'?"));
    }

    #[test]
    fn a_value_that_its_flag_refuses_is_found_by_the_check() {
        let layers = read("[defaults.restore]\noverwrite = 'sometimes'", None).unwrap();
        let error = layers.check(&args::command()).unwrap_err().to_string();
        assert_eq!(error, "/c/putback.toml: 'sometimes' is not a valid value of 'overwrite'");
        let layers =
            read("[defaults]\nthreads = 4\n[defaults.backup]\npaths = ['/a']", None).unwrap();
        layers.check(&args::command()).unwrap();
    }

    #[test]
    fn distance_counts_swapped_neighbours_once() {
        for (left, right, expected) in
            [("", "", 0), ("a", "", 1), ("hoem", "home", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }
}
