//! What must be there: the reference model beside every run.
//!
//! Each content that a machine begins to back up has a *token*, which its snapshots carry as their description. So
//! whatever snapshot is found later, the model knows what it must hold. Of each snapshot whose commit
//! reported success it knows whether it must still be there.

use std::collections::{BTreeMap, BTreeSet};

use putback_format::id::SnapshotId;

use crate::trees::Files;

/// What became of a snapshot that was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It must be there.
    Required,
    /// It was given other words: it, or a successor with its token, must be there.
    Replaced,
    /// Somebody wanted it to go, or a prune may.
    Free,
}

struct Reported {
    token: String,
    fate: Fate,
    machine: usize,
    is_complete: bool,
}

/// What must be there.
#[derive(Default)]
pub(crate) struct Model {
    contents: BTreeMap<String, Files>,
    reported: BTreeMap<SnapshotId, Reported>,
    /// Tokens of which some snapshot was forgotten on purpose.
    forgotten: BTreeSet<String>,
    tokens: u64,
}

impl Model {
    /// A new token, for this content.
    pub(crate) fn token(&mut self, files: &Files) -> String {
        self.tokens += 1;
        let token = format!("content {}", self.tokens);
        self.contents.insert(token.clone(), files.clone());
        token
    }

    /// What snapshots with this token hold.
    pub(crate) fn contents(&self, token: &str) -> Option<&Files> {
        self.contents.get(token)
    }

    /// A machine begins to write complete snapshots, which make its checkpoints void.
    pub(crate) fn completes(&mut self, machine: usize) {
        for reported in self.reported.values_mut() {
            if reported.machine == machine && !reported.is_complete {
                reported.fate = Fate::Free;
            }
        }
    }

    /// A commit reported success.
    pub(crate) fn reported(
        &mut self,
        id: SnapshotId,
        token: &str,
        machine: usize,
        is_complete: bool,
    ) {
        let token = token.to_owned();
        // Somebody may have seen and forgotten it before its writer was told.
        let fate = match self.reported.get(&id) {
            Some(known) => known.fate,
            None => Fate::Required,
        };
        self.reported.insert(id, Reported { token, fate, machine, is_complete });
    }

    /// Somebody begins to forget these.
    pub(crate) fn forgets(&mut self, id: SnapshotId, token: &str) {
        self.forgotten.insert(token.to_owned());
        let (token, fate) = (token.to_owned(), Fate::Free);
        let unknown = Reported { token, fate, machine: usize::MAX, is_complete: true };
        self.reported.entry(id).or_insert(unknown).fate = Fate::Free;
    }

    /// Somebody begins to write it again with other words.
    pub(crate) fn replaces(&mut self, id: SnapshotId, token: &str) {
        let (token, fate) = (token.to_owned(), Fate::Replaced);
        let unknown = Reported { token, fate, machine: usize::MAX, is_complete: true };
        let reported = self.reported.entry(id).or_insert(unknown);
        if reported.fate == Fate::Required {
            reported.fate = Fate::Replaced;
        }
    }

    /// It has a successor, which reported success.
    pub(crate) fn replaced(&mut self, id: SnapshotId) {
        if let Some(reported) = self.reported.get_mut(&id) {
            reported.fate = Fate::Free;
        }
    }

    /// Whether a reported snapshot must be there.
    pub(crate) fn is_required(&self, id: &SnapshotId) -> bool {
        self.reported.get(id).is_some_and(|reported| reported.fate == Fate::Required)
    }

    /// Whether its commit reported success, whatever became of it.
    pub(crate) fn is_reported(&self, id: &SnapshotId) -> bool {
        self.reported.get(id).is_some_and(|reported| reported.machine != usize::MAX)
    }

    /// Reported snapshots of this fate, with their tokens.
    pub(crate) fn with_fate(&self, fate: Fate) -> impl Iterator<Item = (&SnapshotId, &str)> {
        self.reported
            .iter()
            .filter(move |(_, reported)| reported.fate == fate && reported.machine != usize::MAX)
            .map(|(id, reported)| (id, reported.token.as_str()))
    }

    /// Whether nobody wanted anything with this token to go.
    pub(crate) fn must_live_on(&self, token: &str) -> bool {
        !self.forgotten.contains(token)
    }

    /// How many commits reported success.
    pub(crate) fn count(&self) -> usize {
        self.reported.values().filter(|reported| reported.machine != usize::MAX).count()
    }
}
