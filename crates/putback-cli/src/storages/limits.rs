//! How a storage may be used: flags of every command, and keys of a storage's table.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::args::{Origin, Origins};
use crate::ui::text;

/// Most requests that may be under way at once.
const CONNECTIONS_MAX: u16 = 64;
/// Most requests a second that can be asked for.
const REQUESTS_PER_SECOND_MAX: f64 = 1000.0;

/// Flags of every command that uses a storage over a network.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Options of storages")]
pub(crate) struct Limits {
    /// Transfers under way to a storage at the same time, 1 to 64
    #[arg(long, global = true, env = "PUTBACK_CONNECTIONS", value_name = "N")]
    pub(crate) connections: Option<Connections>,
    /// Most that is sent to a storage in a second: 500K, 2M; a plain number is in KiB
    #[arg(long, global = true, env = "PUTBACK_LIMIT_UPLOAD", value_name = "RATE")]
    pub(crate) limit_upload: Option<Rate>,
    /// Most that is fetched from a storage in a second
    #[arg(long, global = true, env = "PUTBACK_LIMIT_DOWNLOAD", value_name = "RATE")]
    pub(crate) limit_download: Option<Rate>,
    /// Most requests to a storage in a second; it may have a fraction
    #[arg(long, global = true, env = "PUTBACK_TPSLIMIT", value_name = "N")]
    pub(crate) tpslimit: Option<RequestRate>,
    /// File with certificates (PEM) that are trusted besides those of the system
    #[arg(long, global = true, env = "PUTBACK_CACERT", value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
}

/// Keys of these flags, in configuration files and as they are shown.
pub(crate) const KEYS: &[&str] =
    &["connections", "limit-upload", "limit-download", "tpslimit", "cacert"];

impl Limits {
    /// The value of a flag as it is shown, by its id or its key.
    pub(crate) fn shown(&self, id: &str) -> Option<String> {
        match id {
            "connections" => self.connections.map(|value| value.to_string()),
            "limit_upload" | "limit-upload" => self.limit_upload.map(|value| value.to_string()),
            "limit_download" | "limit-download" => {
                self.limit_download.map(|value| value.to_string())
            }
            "tpslimit" => self.tpslimit.map(|value| value.to_string()),
            "cacert" => {
                let path = self.cacert.as_ref()?;
                Some(text::escaped(path.as_os_str().as_encoded_bytes()))
            }
            _ => None,
        }
    }

    /// What holds for a storage: a flag, a variable or a profile wins over what the storage's table
    /// says, and this over `[defaults]`.
    pub(crate) fn over(&self, storage: &Self, origins: &Origins) -> Self {
        fn choose<T: Clone>(
            asked: Option<&T>,
            storage: Option<&T>,
            origins: &Origins,
            id: &str,
        ) -> Option<T> {
            let is_strong = origins.of(id) > Origin::Defaults;
            let (first, second) = if is_strong { (asked, storage) } else { (storage, asked) };
            first.or(second).cloned()
        }
        Self {
            connections: choose(
                self.connections.as_ref(),
                storage.connections.as_ref(),
                origins,
                "connections",
            ),
            limit_upload: choose(
                self.limit_upload.as_ref(),
                storage.limit_upload.as_ref(),
                origins,
                "limit_upload",
            ),
            limit_download: choose(
                self.limit_download.as_ref(),
                storage.limit_download.as_ref(),
                origins,
                "limit_download",
            ),
            tpslimit: choose(
                self.tpslimit.as_ref(),
                storage.tpslimit.as_ref(),
                origins,
                "tpslimit",
            ),
            cacert: choose(self.cacert.as_ref(), storage.cacert.as_ref(), origins, "cacert"),
        }
    }

    /// Those that stand on the command line, for storages that are added with them.
    pub(crate) fn flags_only(&self, origins: &Origins) -> Self {
        let is_flag = |id| origins.of(id) == Origin::Flag;
        Self {
            connections: self.connections.filter(|_| is_flag("connections")),
            limit_upload: self.limit_upload.filter(|_| is_flag("limit_upload")),
            limit_download: self.limit_download.filter(|_| is_flag("limit_download")),
            tpslimit: self.tpslimit.filter(|_| is_flag("tpslimit")),
            cacert: self.cacert.clone().filter(|_| is_flag("cacert")),
        }
    }
}

/// `--connections`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connections(u16);

impl Connections {
    /// How many.
    pub(crate) fn count(self) -> usize {
        usize::from(self.0)
    }
}

impl FromStr for Connections {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(count @ 1..=CONNECTIONS_MAX) => Ok(Self(count)),
            _ => Err(format!("not a number from 1 to {CONNECTIONS_MAX}")),
        }
    }
}

impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes a second; 0 is without a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(u64);

impl Rate {
    /// Bytes a second, if there is a limit.
    pub(crate) fn bytes_per_second(self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }
}

impl FromStr for Rate {
    type Err = String;

    /// A number without a unit is in KiB, as the users of restic and rclone know it.
    fn from_str(text: &str) -> Result<Self, String> {
        let error = || "write 500K, 1.5M, a number of KiB, or off".to_owned();
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self(0));
        }
        let text = text.strip_suffix("/s").unwrap_or(text).trim();
        if let Ok(kibibytes) = text.parse::<u64>() {
            return kibibytes.checked_mul(1024).map(Self).ok_or_else(error);
        }
        text::parse_bytes(text).map(Self).map_err(|_| error())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("off"),
            // Exact, and understood by `from_str`.
            bytes if bytes % (1 << 20) == 0 => write!(f, "{}M", bytes >> 20),
            bytes if bytes % (1 << 10) == 0 => write!(f, "{}K", bytes >> 10),
            bytes => write!(f, "{bytes}B"),
        }
    }
}

/// Requests a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RequestRate(f64);

impl RequestRate {
    /// Requests a second.
    pub(crate) fn per_second(self) -> f64 {
        self.0
    }
}

impl FromStr for RequestRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(rate) if rate > 0.0 && rate <= REQUESTS_PER_SECOND_MAX => Ok(Self(rate)),
            _ => Err("not a number above 0 and up to 1000".to_owned()),
        }
    }
}

impl fmt::Display for RequestRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_unit_or_is_in_kibibytes_and_is_shown_as_it_can_be_read() {
        for (text, bytes, shown) in [
            ("100", 102_400, "100K"),
            ("500K", 512_000, "500K"),
            ("2M", 2 << 20, "2M"),
            ("2MiB/s", 2 << 20, "2M"),
            ("1.5M", 3 << 19, "1536K"),
            ("1000B", 1000, "1000B"),
            ("0", 0, "off"),
            ("off", 0, "off"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate, Rate(bytes), "{text}");
            assert_eq!(rate.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(rate), "{shown}");
        }
        for text in ["", "fast", "-1", "1X", "99999999999999999999"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for text in ["0", "65", "-1", "x", ""] {
            assert!(text.parse::<Connections>().is_err(), "{text}");
        }
        for text in ["0", "-1", "nan", "inf", "1001", ""] {
            assert!(text.parse::<RequestRate>().is_err(), "{text}");
        }
        assert_eq!("0.5".parse::<RequestRate>().unwrap().to_string(), "0.5");
    }

    #[test]
    fn a_storage_wins_over_the_defaults_and_gives_way_to_everything_else() {
        let asked = Limits { connections: Some(Connections(1)), ..Limits::default() };
        let storage = Limits {
            connections: Some(Connections(9)),
            limit_upload: Some(Rate(7)),
            ..Limits::default()
        };
        for (origin, expected) in [
            (Origin::Defaults, 9),
            (Origin::Profile, 1),
            (Origin::Environment, 1),
            (Origin::Flag, 1),
        ] {
            let origins = Origins::default().with("connections", origin);
            let merged = asked.over(&storage, &origins);
            assert_eq!(merged.connections, Some(Connections(expected)), "{origin:?}");
            assert_eq!(merged.limit_upload, Some(Rate(7)));
            assert_eq!(
                asked.flags_only(&origins).connections.is_some(),
                origin == Origin::Flag,
                "{origin:?}"
            );
        }
    }
}
