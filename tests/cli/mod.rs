//! One file per command, and some for what all commands share.

mod backup;
mod cat;
mod check;
mod completions;
mod config;
mod diff;
mod dump;
mod find;
mod forget;
mod help;
mod init;
mod key;
mod location;
mod login;
mod ls;
mod man;
mod output;
mod password;
#[cfg(target_os = "linux")]
mod prompts;
mod prune;
mod putio;
mod repair;
mod replicate;
mod repo;
mod restore;
mod rewrite;
mod selftest;
mod snapshots;
mod stats;
mod storage;
mod tag;
mod undelete;
mod version;
