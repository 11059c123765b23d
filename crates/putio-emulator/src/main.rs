//! The program `putio-emulator`: an emulator of put.io on ports of one's choice.
//!
//! Everything it does is in the library; here are the arguments.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use putio_emulator::options::{AccountOptions, Approval, ClientOptions, RateLimit};
use putio_emulator::{Emulator, Error, FaultRule, Options, Profile, Storage, storm};
use serde_json::json;

/// A server that behaves as put.io does, faults included, for testing programs without the service.
///
/// Accounts, files, trash, quota, sign-in, resumable uploads, downloads through links, limits on
/// requests, latency, bandwidth, and every kind of failure on demand. It listens until it is
/// interrupted.
#[derive(Debug, Parser)]
#[command(version, after_long_help = after_help(), max_term_width = 100)]
struct Args {
    /// Address of plain HTTP: /v2/..., /files/ and /download/ share this origin. Port 0 is any
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address of a CONNECT proxy that is put.io and *.put.io with TLS (for HTTPS_PROXY)
    #[arg(long, value_name = "ADDRESS")]
    proxy: Option<SocketAddr>,
    /// Address that speaks TLS at once, as put.io and *.put.io
    #[arg(long, value_name = "ADDRESS")]
    tls: Option<SocketAddr>,
    /// Address of the admin side channel: faults, log, files (GET / lists what there is)
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Origin of the links that are handed out by plain HTTP, if it is not that of --listen
    #[arg(long, value_name = "URL")]
    external_url: Option<String>,

    /// Keep files and unfinished uploads here, for this run and later ones; in memory without it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// An account: its name, its token, and how much it may store (default 1TB); can be repeated
    #[arg(long = "account", value_name = "NAME:TOKEN[:QUOTA]", value_parser = account)]
    accounts: Vec<AccountOptions>,
    /// Password of an account, for sign-in by name and password; can be repeated
    #[arg(long = "password", value_name = "NAME:PASSWORD", value_parser = pair)]
    passwords: Vec<(String, String)>,
    /// An application that may ask for a sign-in: id, secret, and where browsers are sent back to.
    /// Without any there is 1000:emulator-secret:http://localhost:53682/
    #[arg(long = "client", value_name = "ID:SECRET:REDIRECT_URI", value_parser = client)]
    clients: Vec<ClientOptions>,
    /// Sign-ins wait until a person agrees on the page; otherwise the first account agrees at once
    #[arg(long)]
    manual_approval: bool,

    /// Added to each request before its answer, such as 100ms
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = time)]
    latency: Duration,
    /// Added to each new connection
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = time)]
    connect_latency: Duration,
    /// Speed of the line that all uploads share, in bytes per second, such as 25MB
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    upload_rate: Option<u64>,
    /// Speed of the line that all answers share, in bytes per second
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    download_rate: Option<u64>,
    /// Limit of requests for each token, such as list:10/1s; the group is one of list, read, write,
    /// delete, trash, account, oauth, upload, download, other, * (each), all (their sum)
    #[arg(long = "limit", value_name = "GROUP:COUNT/TIME", value_parser = limit)]
    limits: Vec<RateLimit>,
    /// Show limits in the headers of every answer, not only of refusals
    #[arg(long)]
    limit_headers: bool,

    /// How the service behaves where more than one way is possible
    #[arg(long, value_enum, default_value_t = ProfileName::Plain)]
    profile: ProfileName,
    /// Replace single switches of the profile: a JSON object
    #[arg(long, value_name = "JSON")]
    profile_switches: Option<String>,
    /// Faults: a file with a JSON array of rules; can be repeated
    #[arg(long = "fault", value_name = "FILE")]
    faults: Vec<PathBuf>,
    /// This share of all requests fails, in every way (after the rules of --fault)
    #[arg(long, value_name = "SHARE", value_parser = share)]
    storm: Option<f64>,
    /// Decides everything that is left to chance
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    /// The service's clock is ahead of this machine's by so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    clock_skew: i64,

    /// Write the certificate of the authority for TLS here (for SSL_CERT_FILE and the like)
    #[arg(long, value_name = "FILE")]
    write_ca: Option<PathBuf>,
    /// Write the addresses here as JSON, once it listens
    #[arg(long, value_name = "FILE")]
    print_ready: Option<PathBuf>,
    /// One line on standard error for each request
    #[arg(long, short)]
    verbose: bool,
}

const EXAMPLES: &str = "\
Examples:
  An account with 10 GB, reached by plain HTTP:
      putio-emulator --account alice:secret-token:10GB
      curl -H 'Authorization: Bearer secret-token' http://127.0.0.1:8080/v2/account/info

  putback with it:
      export PUTBACK_PUTIO_API_URL=http://127.0.0.1:8080
      export PUTBACK_PUTIO_UPLOAD_URL=http://127.0.0.1:8080
      export PUTBACK_PUTIO_TOKEN=emulator-token

  Programs that know https://api.put.io alone, such as rclone:
      putio-emulator --proxy 127.0.0.1:8081 --write-ca ca.pem
      export HTTPS_PROXY=http://127.0.0.1:8081 SSL_CERT_FILE=$PWD/ca.pem
      export RCLONE_CONFIG_P_TYPE=putio
      export RCLONE_CONFIG_P_TOKEN='{\"access_token\":\"emulator-token\"}'
      rclone copy folder p:folder

  A slow line, and a service that fails three requests of ten:
      putio-emulator --latency 100ms --upload-rate 25MB --storm 0.3 --seed 7 --verbose

  The second PATCH is reset after 1000 bytes; every listing lags by two seconds:
      putio-emulator --fault faults.json      with this in the file:
      [{\"method\": \"PATCH\", \"nth\": 2,
        \"fault\": {\"kind\": \"cut_request\", \"after_bytes\": 1000, \"reset\": true}},
       {\"path\": \"/v2/files/list\",
        \"fault\": {\"kind\": \"stale_listing\", \"seconds\": 2}}]

  Steering it while it runs:
      putio-emulator --admin 127.0.0.1:8082
      curl http://127.0.0.1:8082/
      curl http://127.0.0.1:8082/log

Without --account there is one account, user:emulator-token.

Rules of --fault: a rule is a fault and the requests that it happens to. All is optional but fault.
  method, path, host       with * for any characters; except: a list of paths that are left alone
  service                  api, upload, storage, app, socket
  account                  its name
  nth, from, to            number of the request among those that match, from 1
  probability, seed        a share of them
  times                    at most so often
  is_last                  later rules are not asked about what this one matches
Kinds of faults, and their fields:
  rate_limited             reset_in_seconds, retry_after_seconds, captcha, holds
  status                   status, body (json, html, empty), error_type, executed
  invalid_json, truncated_json, content_type (content_type)
  reset_before, reset_after, close (executed), hang (executed, milliseconds)
  slow (milliseconds), trickle (bytes_per_second)
  cut_request, cut_response (after_bytes, reset), cut_download (after_bytes, chunked, reset)
  flip_bit (offset), ignore_range, wrong_range (shift), link_expired (status), storage_missing
  forget_session, offset_back (bytes), offset_conflict, corrupt_upload, omit_file_id,
  relative_location, duplicate_upload
  stale_listing (seconds), missing_rows, repeated_rows, phantom_rows (rows), cursor_expired,
  shuffled_rows, duplicate_names, rename_during_listing
  checksum_missing (form: null, empty, wrong; seconds), time_ignored
  revoke_token, invalid_scope, plan_inactive, full_at_create, full_at_finish,
  wrong_space (available_bytes)
  trash_locked (seconds), restore_renames, restore_never
  file_vanishes, file_lost, file_not_reachable (seconds), deleted_during_download (after_bytes),
  folder_race, clock_skew (seconds)
  one_of                   faults: a list of {weight, fault}

Switches of --profile-switches, with the defaults of the plain profile:
";

/// The text after the options: examples, rules, and the switches with their defaults.
fn after_help() -> String {
    let switches = serde_json::to_string_pretty(&Profile::default()).unwrap_or_default();
    format!("{EXAMPLES}{switches}")
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProfileName {
    /// As clients have been seen to rely on it
    Plain,
    /// As it is believed to be: names are changed, lookups loose, ids beyond 32 bits
    Realistic,
    /// Everything uncertain as bad as it may be: small pages, late listings, duplicates
    Hostile,
}

fn account(text: &str) -> Result<AccountOptions, String> {
    let mut parts = text.splitn(3, ':');
    let (Some(name), Some(token)) = (parts.next(), parts.next()) else {
        return Err("expected NAME:TOKEN or NAME:TOKEN:QUOTA".to_owned());
    };
    let mut account = AccountOptions::new(name, token);
    if let Some(quota) = parts.next() {
        account.quota_bytes = bytes(quota)?;
    }
    Ok(account)
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME:PASSWORD")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn client(text: &str) -> Result<ClientOptions, String> {
    let mut parts = text.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(id), Some(secret), Some(uri)) => Ok(ClientOptions {
            client_id: id.to_owned(),
            client_secret: secret.to_owned(),
            redirect_uris: vec![uri.to_owned()],
        }),
        _ => Err("expected ID:SECRET:REDIRECT_URI".to_owned()),
    }
}

/// `25MB`, `64KiB`, `1000`.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "expected a number such as 25MB".to_owned())?;
    let factor: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        unit => return Err(format!("unknown unit {unit}")),
    };
    number.checked_mul(factor).ok_or_else(|| "too large".to_owned())
}

/// `100ms`, `2s`, `1m`.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| "expected a time such as 100ms".to_owned())?;
    let seconds = match &text[digits.len()..] {
        "ms" => number / 1_000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        unit => return Err(format!("unknown unit {unit}")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn limit(text: &str) -> Result<RateLimit, String> {
    let parts = text.split_once(':').and_then(|(group, rest)| {
        let (requests, window) = rest.split_once('/')?;
        Some((group, requests.parse().ok()?, window))
    });
    let (group, requests, window) = parts.ok_or("expected GROUP:COUNT/TIME")?;
    let window_seconds = time(window)?.as_secs_f64();
    Ok(RateLimit { group: group.to_owned(), requests, window_seconds })
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number between 0 and 1".to_owned()),
    }
}

/// What went wrong, for the last line that is printed.
type Failed = Box<dyn std::error::Error>;

/// The port of an address, which has to be on the machine's same address as all others.
fn port(args: &Args, address: Option<SocketAddr>) -> Result<Option<u16>, String> {
    let own: IpAddr = args.listen.ip();
    match address {
        Some(address) if address.ip() != own => {
            Err(format!("{address} is another address than {own} of --listen"))
        }
        address => Ok(address.map(|address| address.port())),
    }
}

fn options(args: &Args) -> Result<Options, Failed> {
    let mut profile = match args.profile {
        ProfileName::Plain => Profile::default(),
        ProfileName::Realistic => Profile::realistic(),
        ProfileName::Hostile => Profile::hostile(),
    };
    if let Some(text) = &args.profile_switches {
        let mut all = serde_json::to_value(&profile)?;
        let switches: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)?;
        for (name, value) in switches {
            all[name] = value;
        }
        profile = serde_json::from_value(all)?;
    }
    let mut faults = Vec::new();
    for path in &args.faults {
        let text = fs_err::read_to_string(path)?;
        let rules: Vec<FaultRule> = serde_json::from_str(&text)
            .map_err(|error| format!("{} is no list of fault rules: {error}", path.display()))?;
        faults.extend(rules);
    }
    if let Some(share) = args.storm {
        faults.extend(storm(share, args.seed));
    }
    let mut options = Options {
        latency: args.latency,
        connect_latency: args.connect_latency,
        upload_bytes_per_second: args.upload_rate,
        download_bytes_per_second: args.download_rate,
        profile,
        rate_limits: args.limits.clone(),
        rate_headers: args.limit_headers,
        faults,
        seed: args.seed,
        clock_skew_seconds: args.clock_skew,
        external_url: args.external_url.clone(),
        address: args.listen.ip(),
        http_port: args.listen.port(),
        proxy_port: port(args, args.proxy)?,
        tls_port: port(args, args.tls)?,
        admin_port: port(args, args.admin)?,
        verbose: args.verbose,
        ..Options::default()
    };
    if !args.accounts.is_empty() {
        options.accounts.clone_from(&args.accounts);
    }
    for (name, password) in &args.passwords {
        let account = options.accounts.iter_mut().find(|account| account.name == *name);
        let account = account.ok_or_else(|| Error::NoAccount(name.clone()))?;
        account.password = Some(password.clone());
    }
    if !args.clients.is_empty() {
        options.clients.clone_from(&args.clients);
    }
    if args.manual_approval {
        options.approval = Approval::Manual;
    }
    if let Some(folder) = &args.data {
        options.storage = Storage::Directory(folder.clone());
    }
    Ok(options)
}

fn run(args: &Args) -> Result<(), Failed> {
    let options = options(args)?;
    let accounts: Vec<String> =
        options.accounts.iter().map(|account| account.name.clone()).collect();
    let emulator = Emulator::start(options)?;
    if let Some(path) = &args.write_ca {
        fs_err::write(path, emulator.ca_pem())?;
    }
    let mut out = anstream::stdout();
    writeln!(out, "put.io for {} at {}", accounts.join(", "), emulator.api_url())?;
    if let Some(url) = emulator.proxy_url() {
        writeln!(out, "HTTPS_PROXY={url}")?;
    }
    if let Some(address) = emulator.tls_address() {
        writeln!(out, "TLS at {address}")?;
    }
    if let Some(url) = emulator.admin_url() {
        writeln!(out, "admin at {url}")?;
    }
    out.flush()?;
    if let Some(path) = &args.print_ready {
        let ready = json!({
            "api_url": emulator.api_url(),
            "upload_url": emulator.upload_url(),
            "proxy_url": emulator.proxy_url(),
            "tls_address": emulator.tls_address(),
            "admin_url": emulator.admin_url(),
            "ca_file": args.write_ca,
        });
        // Whoever waits for the file must not see half of it.
        let mut fresh = path.clone().into_os_string();
        fresh.push(".new");
        fs_err::write(&fresh, format!("{ready}\n"))?;
        fs_err::rename(&fresh, path)?;
    }
    emulator.wait_for_interrupt()?;
    Ok(())
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!("\n  caused by: {cause}"));
                source = cause.source();
            }
            // Nobody may be there to read it; the exit code says it, too.
            let _ = writeln!(anstream::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_times_and_limits_are_read_with_their_units() {
        assert_eq!(bytes("25MB"), Ok(25_000_000));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("7"), Ok(7));
        assert!(bytes("MB").is_err() && bytes("1XB").is_err() && bytes("99999999TB").is_err());
        assert_eq!(time("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(time("soon").is_err() && time("-1s").is_err());
        let expected = RateLimit { group: "list".to_owned(), requests: 10, window_seconds: 1.0 };
        assert_eq!(limit("list:10/1s"), Ok(expected));
        assert!(limit("list:ten/1s").is_err());
        assert!(share("1.1").is_err() && share("0.3").is_ok());
    }

    #[test]
    fn an_account_is_a_name_a_token_and_perhaps_a_quota() {
        let parsed = account("alice:token:10GB").unwrap();
        assert_eq!((parsed.name.as_str(), parsed.quota_bytes), ("alice", 10_000_000_000));
        assert!(account("alice").is_err());
    }

    #[test]
    fn the_arguments_are_consistent() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_fault_and_every_switch() {
        let help = <Args as clap::CommandFactory>::command().render_long_help().to_string();
        for switch in serde_json::to_value(Profile::default()).unwrap().as_object().unwrap().keys()
        {
            assert!(help.contains(switch.as_str()), "{switch}");
        }
        // serde knows all kinds, and says so when it is given another.
        let refused = serde_json::from_str::<FaultRule>(r#"{"fault": {"kind": "?"}}"#);
        let refused = refused.unwrap_err().to_string();
        let kinds: Vec<&str> = refused.split('`').skip(3).step_by(2).collect();
        assert!(kinds.len() > 40, "{refused}");
        for kind in kinds {
            assert!(help.contains(kind), "{kind}");
        }
    }

    #[test]
    fn switches_are_put_over_the_profile_and_unknown_ones_are_refused() {
        let with = |switches: &str| {
            let args = ["putio-emulator", "--profile", "hostile", "--profile-switches", switches];
            options(&Args::parse_from(args))
        };
        let profile = with(r#"{"page_rows_max": 3}"#).unwrap().profile;
        assert_eq!(profile, Profile { page_rows_max: 3, ..Profile::hostile() });
        assert!(with(r#"{"no_such_switch": 3}"#).is_err());
    }
}
