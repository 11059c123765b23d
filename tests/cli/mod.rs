//! One file per command, and some for what all commands share.

mod backup;
mod cat;
mod check;
mod completions;
mod config;
mod diff;
mod dump;
mod find;
mod help;
mod init;
mod key;
mod location;
mod ls;
mod man;
mod output;
mod password;
mod repo;
mod restore;
mod snapshots;
mod stats;
mod version;
