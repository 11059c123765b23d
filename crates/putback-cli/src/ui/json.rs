//! The form of what `--json` prints. Documented in `docs/json.md`, and therefore stable.
//!
//! The libraries' types do not know of it. Names are restic's where restic has the thing.

pub(crate) mod storage;

use putback_format::snapshot::{Snapshot as StoredSnapshot, Statistics};
use putback_format::tree::{Entry, EntryKind};
use putback_repo::StoredSnapshot as Stored;
use serde::Serialize;

use crate::bytes;
use crate::ui::text;

/// An object as a line.
pub(crate) fn line(object: &impl Serialize) -> Vec<u8> {
    let mut out = serde_json::to_vec(object).expect("these types have string keys and cannot fail");
    out.push(b'\n');
    out
}

/// A raw name as text, with U+FFFD where it is not UTF-8, and then exactly, in base 64.
pub(crate) fn name(raw: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(raw) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(raw).into_owned(), Some(bytes::base64(raw))),
    }
}

/// Raw names as [`name`] has one; all are given exactly if one of them needs it.
pub(crate) fn names(raw: &[Vec<u8>]) -> (Vec<String>, Option<Vec<String>>) {
    let exact = raw.iter().any(|name| std::str::from_utf8(name).is_err());
    let texts = raw.iter().map(|raw| name(raw).0).collect();
    (texts, exact.then(|| raw.iter().map(|raw| bytes::base64(raw)).collect()))
}

#[derive(Serialize)]
pub(crate) struct ExitError {
    pub(crate) message_type: &'static str,
    pub(crate) code: u8,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) causes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Warning<'a> {
    pub(crate) message_type: &'static str,
    pub(crate) message: &'a str,
}

#[derive(Serialize)]
pub(crate) struct Error<'a> {
    pub(crate) message_type: &'static str,
    pub(crate) error: ErrorMessage<'a>,
    pub(crate) during: &'static str,
    pub(crate) item: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) item_base64: Option<String>,
    pub(crate) kind: &'static str,
}

#[derive(Serialize)]
pub(crate) struct ErrorMessage<'a> {
    pub(crate) message: &'a str,
}

#[derive(Serialize)]
pub(crate) struct VerboseStatus {
    pub(crate) message_type: &'static str,
    pub(crate) action: &'static str,
    pub(crate) item: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) item_base64: Option<String>,
    pub(crate) size: u64,
}

#[derive(Serialize)]
pub(crate) struct Resumed {
    pub(crate) message_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint: Option<String>,
    pub(crate) packs: u64,
}

#[derive(Serialize)]
pub(crate) struct Checkpoint<'a> {
    pub(crate) message_type: &'static str,
    pub(crate) snapshot_id: &'a str,
}

#[derive(Serialize)]
pub(crate) struct BackupStatus {
    pub(crate) message_type: &'static str,
    pub(crate) phase: &'static str,
    pub(crate) seconds_elapsed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds_remaining: Option<u64>,
    pub(crate) percent_done: f64,
    pub(crate) total_files: u64,
    pub(crate) files_done: u64,
    pub(crate) total_bytes: u64,
    pub(crate) bytes_done: u64,
    pub(crate) error_count: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) current_files: Vec<String>,
}

#[derive(Serialize)]
pub(crate) struct RestoreStatus {
    pub(crate) message_type: &'static str,
    pub(crate) phase: &'static str,
    pub(crate) seconds_elapsed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds_remaining: Option<u64>,
    pub(crate) percent_done: f64,
    pub(crate) total_files: u64,
    pub(crate) files_restored: u64,
    pub(crate) files_skipped: u64,
    pub(crate) files_deleted: u64,
    pub(crate) total_bytes: u64,
    pub(crate) bytes_restored: u64,
    pub(crate) bytes_skipped: u64,
    pub(crate) error_count: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) current_files: Vec<String>,
}

#[derive(Serialize)]
pub(crate) struct Status {
    pub(crate) message_type: &'static str,
    pub(crate) phase: &'static str,
    pub(crate) seconds_elapsed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds_remaining: Option<u64>,
    pub(crate) percent_done: f64,
    pub(crate) total_items: u64,
    pub(crate) items_done: u64,
    pub(crate) total_bytes: u64,
    pub(crate) bytes_done: u64,
    pub(crate) error_count: u64,
}

/// What `init` reports.
#[derive(Serialize)]
pub(crate) struct Initialized {
    pub(crate) message_type: &'static str,
    pub(crate) id: String,
    pub(crate) repository: String,
}

/// Counts of a backup, in its summary and in the snapshot.
#[derive(Serialize)]
pub(crate) struct BackupCounts {
    pub(crate) files_new: u64,
    pub(crate) files_changed: u64,
    pub(crate) files_unmodified: u64,
    pub(crate) directories: u64,
    pub(crate) others: u64,
    pub(crate) data_blobs: u64,
    pub(crate) data_added: u64,
    pub(crate) data_added_packed: u64,
    pub(crate) bytes_read: u64,
    pub(crate) total_files_processed: u64,
    pub(crate) total_bytes_processed: u64,
    pub(crate) total_duration: f64,
    pub(crate) error_count: u64,
}

impl From<&Statistics> for BackupCounts {
    fn from(counts: &Statistics) -> Self {
        Self {
            files_new: counts.files_new,
            files_changed: counts.files_changed,
            files_unmodified: counts.files_unchanged,
            directories: counts.directories,
            others: counts.others,
            data_blobs: counts.blobs_added,
            data_added: counts.bytes_added,
            data_added_packed: counts.bytes_stored,
            bytes_read: counts.bytes_read,
            total_files_processed: counts.files_new + counts.files_changed + counts.files_unchanged,
            total_bytes_processed: counts.bytes_total,
            total_duration: counts.duration_ms as f64 / 1000.0,
            error_count: counts.incidents,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct BackupSummary {
    pub(crate) message_type: &'static str,
    pub(crate) dry_run: bool,
    #[serde(flatten)]
    pub(crate) counts: BackupCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) snapshot_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<String>,
    pub(crate) is_checkpoint: bool,
    pub(crate) is_unchanged: bool,
}

#[derive(Serialize)]
pub(crate) struct RestoreSummary {
    pub(crate) message_type: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) seconds_elapsed: u64,
    pub(crate) total_files: u64,
    pub(crate) total_others: u64,
    pub(crate) files_restored: u64,
    pub(crate) files_updated: u64,
    pub(crate) files_unchanged: u64,
    pub(crate) files_skipped: u64,
    pub(crate) files_deleted: u64,
    pub(crate) total_bytes: u64,
    pub(crate) bytes_restored: u64,
    pub(crate) bytes_skipped: u64,
    pub(crate) error_count: u64,
    pub(crate) errors_lost: u64,
    pub(crate) is_interrupted: bool,
}

#[derive(Serialize)]
pub(crate) struct CheckDamage {
    pub(crate) message_type: &'static str,
    pub(crate) object: String,
    pub(crate) message: String,
    pub(crate) hurts: Vec<Hurt>,
    pub(crate) hurts_total: u64,
    pub(crate) hurts_at_least: bool,
}

/// A snapshot that lost something.
#[derive(Serialize)]
pub(crate) struct HurtSnapshot {
    pub(crate) message_type: &'static str,
    pub(crate) snapshot: String,
    pub(crate) files: u64,
    pub(crate) directories: u64,
    pub(crate) is_unreadable: bool,
}

#[derive(Serialize)]
pub(crate) struct Hurt {
    pub(crate) snapshot: String,
    pub(crate) item: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) item_base64: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct CheckSummary {
    pub(crate) message_type: &'static str,
    pub(crate) num_errors: u64,
    pub(crate) hurt_snapshots: u64,
    pub(crate) snapshots: u64,
    pub(crate) packs: u64,
    pub(crate) packs_read: u64,
    pub(crate) bytes_read: u64,
    pub(crate) blobs: u64,
    pub(crate) unreferenced_packs: u64,
    pub(crate) is_interrupted: bool,
    pub(crate) rollback_evidence: Vec<String>,
    pub(crate) rollback_accepted: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// A snapshot in a listing.
#[derive(Serialize)]
pub(crate) struct Snapshot {
    pub(crate) id: String,
    pub(crate) short_id: String,
    pub(crate) time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<String>,
    pub(crate) paths: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) paths_base64: Option<Vec<String>>,
    pub(crate) hostname: String,
    pub(crate) username: String,
    pub(crate) tags: Vec<String>,
    pub(crate) description: String,
    pub(crate) program_version: String,
    pub(crate) is_checkpoint: bool,
    pub(crate) summary: BackupCounts,
}

impl From<&Stored> for Snapshot {
    fn from(stored: &Stored) -> Self {
        let snapshot: &StoredSnapshot = &stored.snapshot;
        let (paths, paths_base64) = names(&snapshot.paths);
        Self {
            id: stored.id.to_string(),
            short_id: stored.id.short(),
            time: text::exact_time(snapshot.time),
            parent: snapshot.parent.map(|id| id.to_string()),
            paths,
            paths_base64,
            hostname: snapshot.host.clone(),
            username: snapshot.user.clone(),
            tags: snapshot.tags.clone(),
            description: snapshot.description.clone(),
            program_version: snapshot.program.clone(),
            is_checkpoint: !snapshot.complete,
            summary: BackupCounts::from(&snapshot.statistics),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct SnapshotGroup {
    pub(crate) group_key: GroupKey,
    pub(crate) snapshots: Vec<Snapshot>,
}

#[derive(Serialize)]
pub(crate) struct GroupKey {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) paths: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<Vec<String>>,
}

/// What `forget` decided about a group.
#[derive(Serialize)]
pub(crate) struct ForgetGroup {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) paths: Option<Vec<String>>,
    pub(crate) keep: Vec<Snapshot>,
    pub(crate) remove: Vec<Snapshot>,
    pub(crate) reasons: Vec<ForgetReason>,
}

#[derive(Serialize)]
pub(crate) struct ForgetReason {
    pub(crate) snapshot: Snapshot,
    pub(crate) matches: Vec<String>,
}

/// A snapshot that was written again.
#[derive(Serialize)]
pub(crate) struct Replaced {
    pub(crate) message_type: &'static str,
    pub(crate) old_snapshot_id: String,
    pub(crate) new_snapshot_id: String,
}

/// A snapshot with which something could not be done.
#[derive(Serialize)]
pub(crate) struct SnapshotError<'a> {
    pub(crate) message_type: &'static str,
    pub(crate) error: ErrorMessage<'a>,
    pub(crate) during: &'static str,
    pub(crate) item: String,
}

#[derive(Serialize)]
pub(crate) struct UndeleteSummary {
    pub(crate) message_type: &'static str,
    pub(crate) undeleted_snapshots: u64,
    pub(crate) error_count: u64,
    pub(crate) is_interrupted: bool,
}

#[derive(Serialize)]
pub(crate) struct TagSummary {
    pub(crate) message_type: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) changed_snapshots: u64,
    pub(crate) unchanged_snapshots: u64,
    pub(crate) error_count: u64,
    pub(crate) is_interrupted: bool,
}

/// A path that `rewrite` removes.
#[derive(Serialize)]
pub(crate) struct RewriteRemoved {
    pub(crate) message_type: &'static str,
    pub(crate) snapshot_id: String,
    pub(crate) item: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) item_base64: Option<String>,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// What a snapshot said and says.
#[derive(Serialize)]
pub(crate) struct FieldChange {
    pub(crate) field: &'static str,
    pub(crate) old: String,
    pub(crate) new: String,
}

/// A snapshot that `rewrite` changed, or would change.
#[derive(Serialize)]
pub(crate) struct RewriteChanged {
    pub(crate) message_type: &'static str,
    pub(crate) old_snapshot_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) new_snapshot_id: Option<String>,
    pub(crate) changes: Vec<FieldChange>,
    pub(crate) paths_removed: u64,
    pub(crate) files_removed: u64,
    pub(crate) bytes_removed: u64,
}

#[derive(Serialize)]
pub(crate) struct RewriteSummary {
    pub(crate) message_type: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) changed_snapshots: u64,
    pub(crate) unchanged_snapshots: u64,
    pub(crate) error_count: u64,
    pub(crate) files_removed: u64,
    pub(crate) bytes_removed: u64,
    pub(crate) is_interrupted: bool,
}

/// A snapshot that `replicate` would copy.
#[derive(Serialize)]
pub(crate) struct ReplicateMissing {
    pub(crate) message_type: &'static str,
    pub(crate) snapshot_id: String,
    pub(crate) total_bytes: u64,
}

#[derive(Serialize)]
pub(crate) struct ReplicateSummary {
    pub(crate) message_type: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) is_like: bool,
    pub(crate) copied_snapshots: u64,
    pub(crate) present_snapshots: u64,
    pub(crate) missing_snapshots: u64,
    pub(crate) error_count: u64,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_added: u64,
    pub(crate) bytes_stored: u64,
    pub(crate) packs_written: u64,
    pub(crate) is_interrupted: bool,
}

#[derive(Serialize)]
pub(crate) struct PruneSummary {
    pub(crate) message_type: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) snapshots: u64,
    pub(crate) packs: u64,
    pub(crate) bytes: u64,
    pub(crate) blobs_needed: u64,
    pub(crate) packs_unneeded: u64,
    pub(crate) packs_repacked: u64,
    pub(crate) bytes_repacked: u64,
    pub(crate) bytes_marked: u64,
    pub(crate) bytes_written: u64,
    pub(crate) packs_partly_needed: u64,
    pub(crate) packs_due: u64,
    pub(crate) bytes_due: u64,
    pub(crate) packs_waiting: u64,
    pub(crate) bytes_waiting: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_deletion: Option<String>,
    pub(crate) packs_deleted: u64,
    pub(crate) bytes_deleted: u64,
    pub(crate) snapshots_deleted: u64,
    pub(crate) segments_merged: u64,
    pub(crate) segments_deleted: u64,
    pub(crate) blobs_rescued: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests: Option<Requests>,
    pub(crate) packs_old_key: u64,
    pub(crate) bytes_old_key: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) segments_old_key: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) snapshots_old_key: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) marks_old_key: Option<u64>,
    pub(crate) is_interrupted: bool,
}

/// What was asked of a storage.
#[derive(Serialize)]
pub(crate) struct Requests {
    pub(crate) lists: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) deletes: u64,
}

#[derive(Serialize)]
pub(crate) struct RepairFinding {
    pub(crate) message_type: &'static str,
    pub(crate) object: String,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
    pub(crate) hurts: Vec<Hurt>,
    pub(crate) hurts_total: u64,
    pub(crate) hurts_at_least: bool,
}

#[derive(Serialize)]
pub(crate) struct RepairSummary {
    pub(crate) message_type: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) findings: u64,
    pub(crate) findings_without_remedy: u64,
    pub(crate) blobs_lost: u64,
    pub(crate) objects_written: u64,
    pub(crate) marks_removed: u64,
    pub(crate) segments_written: u64,
    pub(crate) packs_indexed: u64,
    pub(crate) blobs_saved: u64,
    pub(crate) packs_marked: u64,
    pub(crate) snapshots_written: u64,
    pub(crate) snapshots_forgotten: u64,
    pub(crate) is_interrupted: bool,
}

/// An entry in a listing.
#[derive(Serialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path_base64: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) permissions: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) user: String,
    pub(crate) group: String,
    pub(crate) mtime: String,
    pub(crate) ctime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) btime: Option<String>,
    pub(crate) inode: u64,
    pub(crate) links: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) linktarget: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) linktarget_base64: Option<String>,
}

impl Node {
    /// The entry at an absolute path.
    pub(crate) fn new(path: &[u8], entry: &Entry) -> Self {
        let kind = match entry.kind {
            EntryKind::File { .. } => "file",
            EntryKind::Directory { .. } => "dir",
            EntryKind::Symlink { .. } => "symlink",
            EntryKind::Fifo => "fifo",
            EntryKind::Socket => "socket",
            EntryKind::CharacterDevice { .. } => "chardev",
            EntryKind::BlockDevice { .. } => "dev",
        };
        let linktarget = match &entry.kind {
            EntryKind::Symlink { target } => Some(name(target)),
            _ => None,
        };
        let (linktarget, linktarget_base64) =
            linktarget.map_or((None, None), |(text, exact)| (Some(text), exact));
        let (path, path_base64) = name(path);
        Self {
            name: name(&entry.name).0,
            path,
            path_base64,
            kind,
            size: text::size(entry),
            mode: entry.mode,
            permissions: text::mode(entry),
            uid: entry.uid,
            gid: entry.gid,
            user: String::from_utf8_lossy(&entry.user).into_owned(),
            group: String::from_utf8_lossy(&entry.group).into_owned(),
            mtime: text::exact_time(entry.mtime),
            ctime: text::exact_time(entry.ctime),
            btime: entry.btime.map(text::exact_time),
            inode: entry.inode,
            links: entry.links,
            linktarget,
            linktarget_base64,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Change {
    pub(crate) message_type: &'static str,
    pub(crate) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path_base64: Option<String>,
    pub(crate) modifier: &'static str,
    pub(crate) is_directory: bool,
    pub(crate) bytes_old: u64,
    pub(crate) bytes_new: u64,
}

#[derive(Serialize)]
pub(crate) struct DiffSummary {
    pub(crate) message_type: &'static str,
    pub(crate) source_snapshot: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target_snapshot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target_folder: Option<String>,
    pub(crate) changed_files: u64,
    pub(crate) metadata_changed: u64,
    pub(crate) type_changed: u64,
    pub(crate) added: DiffCounts,
    pub(crate) removed: DiffCounts,
}

#[derive(Serialize)]
pub(crate) struct DiffCounts {
    pub(crate) files: u64,
    pub(crate) dirs: u64,
    pub(crate) bytes: u64,
}

#[derive(Serialize)]
pub(crate) struct SnapshotStats {
    pub(crate) snapshots_count: u64,
    pub(crate) total_file_count: u64,
    pub(crate) directories: u64,
    pub(crate) others: u64,
    pub(crate) total_size: u64,
    pub(crate) unique_blobs: u64,
    pub(crate) unique_bytes: u64,
}

#[derive(Serialize)]
pub(crate) struct RepositoryInfo {
    pub(crate) id: String,
    pub(crate) repository: String,
    pub(crate) created: String,
    pub(crate) generation: u64,
    pub(crate) key_epoch: u32,
    pub(crate) pack_bytes: u64,
    pub(crate) chunk_bytes_average: u32,
    pub(crate) compression_level: i32,
    pub(crate) key_slots: u64,
    pub(crate) snapshots: u64,
    pub(crate) packs: u64,
    pub(crate) pack_bytes_total: u64,
    pub(crate) index_segments: u64,
    pub(crate) index_segments_replaced: u64,
    pub(crate) index_bytes: u64,
    pub(crate) data_blobs: u64,
    pub(crate) data_bytes: u64,
    pub(crate) tree_blobs: u64,
    pub(crate) tree_bytes: u64,
    pub(crate) marks: u64,
    pub(crate) other_bytes: u64,
    pub(crate) total_bytes: u64,
}

#[derive(Serialize)]
pub(crate) struct KeySlot {
    pub(crate) current: bool,
    pub(crate) outdated: bool,
    pub(crate) id: String,
    pub(crate) short_id: String,
    pub(crate) label: String,
    #[serde(rename = "userName")]
    pub(crate) user_name: String,
    #[serde(rename = "hostName")]
    pub(crate) host_name: String,
    pub(crate) created: String,
    pub(crate) memory_kib: u32,
    pub(crate) iterations: u32,
    pub(crate) lanes: u32,
}

/// What `key add`, `key passwd`, `key remove` and `key export` report.
#[derive(Serialize)]
pub(crate) struct KeyChange {
    pub(crate) message_type: &'static str,
    pub(crate) action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
}

/// What `selftest` reports.
#[derive(Serialize)]
pub(crate) struct SelftestSummary {
    pub(crate) message_type: &'static str,
    pub(crate) tests: Vec<SelftestTest>,
    pub(crate) stages: Vec<SelftestStage>,
}

/// One test of `selftest`.
#[derive(Serialize)]
pub(crate) struct SelftestTest {
    pub(crate) name: &'static str,
    pub(crate) passed: bool,
    pub(crate) detail: String,
    pub(crate) milliseconds: u64,
}

/// The speed of a stage: by bytes, or by the time it takes once.
#[derive(Serialize)]
pub(crate) struct SelftestStage {
    pub(crate) name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) milliseconds: Option<u64>,
}

/// What `key rotate` reports.
#[derive(Serialize)]
pub(crate) struct KeyRotation {
    pub(crate) message_type: &'static str,
    pub(crate) action: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) epoch: u32,
    pub(crate) slots: Vec<RotatedSlot>,
}

/// A slot, and whether its password stays.
#[derive(Serialize)]
pub(crate) struct RotatedSlot {
    pub(crate) id: String,
    pub(crate) label: String,
    #[serde(rename = "userName")]
    pub(crate) user_name: String,
    #[serde(rename = "hostName")]
    pub(crate) host_name: String,
    pub(crate) kept: bool,
}

#[derive(Serialize)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) value: serde_json::Value,
    pub(crate) source: String,
}

#[derive(Serialize)]
pub(crate) struct ConfigPath {
    pub(crate) path: String,
    pub(crate) exists: bool,
}

#[derive(Serialize)]
pub(crate) struct ConfigCheck {
    pub(crate) path: String,
    pub(crate) exists: bool,
    pub(crate) profiles: Vec<String>,
}

#[derive(Serialize)]
pub(crate) struct Version {
    pub(crate) version: &'static str,
    pub(crate) os: &'static str,
    pub(crate) arch: &'static str,
}
