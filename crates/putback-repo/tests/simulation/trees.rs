//! Small trees: how the machines of the simulation store them, and read them back.

use std::sync::Arc;

use putback_format::id::SnapshotId;
use putback_format::key::BlobKind;
use putback_format::snapshot::Statistics;
use putback_format::tree::{ChunkRef, Content, Entry, EntryKind};
use putback_repo::{
    Backup, FrameWriter, InitOptions, KdfCost, Password, Repository, Result, SlotOwner,
    SnapshotDraft,
};
use putback_store::Store;

pub(crate) use crate::support::{Files, Places, describe, noise, put_directories};

/// Options with the cheapest key derivation.
pub(crate) fn init(store: Arc<dyn Store>, machine: &putback_repo::Machine) -> Result<Repository> {
    let options = InitOptions {
        kdf_cost: KdfCost::LOW,
        pack_bytes: None,
        compression_level: Some(1),
        chunk_bytes_average: None,
        owner: SlotOwner::default(),
    };
    Repository::init(store, &Password::new(b"password".to_vec()), &options, machine)
}

/// Stores a file, or takes it over from the parent if all that it needs can be relied on.
pub(crate) fn put_file(
    backup: &Backup,
    data: &mut FrameWriter,
    bytes: &[u8],
    parent: Option<&Content>,
) -> Result<Content> {
    if let Some(Content::Chunks(chunks)) = parent {
        let mut has_all = true;
        for chunk in chunks {
            has_all &= backup.require(&chunk.id)?;
        }
        if has_all {
            return Ok(Content::Chunks(chunks.clone()));
        }
    }
    if bytes.len() <= 100 {
        return Ok(Content::Inline(bytes.to_vec()));
    }
    let put = |chunk: &[u8]| Ok(ChunkRef { id: data.put(chunk)?, length: chunk.len() as u64 });
    Ok(Content::Chunks(bytes.chunks(900).map(put).collect::<Result<_>>()?))
}

/// What a snapshot of this tree says otherwise.
pub(crate) fn draft(
    repository: &Repository,
    host: &str,
    token: &str,
    root: Entry,
    parent: Option<SnapshotId>,
) -> SnapshotDraft {
    SnapshotDraft {
        root,
        time: repository.now(),
        utc_offset: 0,
        host: host.to_owned(),
        user: "user".to_owned(),
        paths: vec![format!("/home/{host}").into_bytes()],
        tags: Vec::new(),
        description: token.to_owned(),
        program: "simulation".to_owned(),
        parent,
        complete: true,
        statistics: Statistics::default(),
        incidents: Vec::new(),
        unknown: Vec::new(),
    }
}

/// Backs up these files in one go.
pub(crate) fn back_up(
    repository: &Repository,
    host: &str,
    token: &str,
    files: &Files,
) -> Result<SnapshotId> {
    let backup = repository.begin_backup(None, 0)?;
    let (root, _) = put_tree(&backup, files, &Places::new())?;
    let stored = backup.commit(draft(repository, host, token, root, None))?;
    backup.finish()?;
    Ok(stored.id)
}

/// Stores files and directories.
pub(crate) fn put_tree(backup: &Backup, files: &Files, parent: &Places) -> Result<(Entry, Places)> {
    let mut data = backup.frame_writer(BlobKind::Data);
    let mut places = Places::new();
    for (name, bytes) in files {
        let place = put_file(backup, &mut data, bytes, parent.get(name))?;
        places.insert(name.clone(), place);
    }
    data.flush()?;
    let root = put_directories(&mut backup.frame_writer(BlobKind::Tree), files, &places)?;
    Ok((root, places))
}

/// Where all files of a tree lie.
pub(crate) fn places(repository: &Repository, root: &Entry) -> Result<Places> {
    let mut found = Places::new();
    let mut waiting = vec![(String::new(), root.clone())];
    while let Some((prefix, directory)) = waiting.pop() {
        for entry in repository.read_directory(&directory)? {
            let entry = entry?;
            let name = format!("{prefix}{}", String::from_utf8_lossy(&entry.name));
            match &entry.kind {
                EntryKind::File { content, .. } => drop(found.insert(name, content.clone())),
                _ => waiting.push((format!("{name}/"), entry)),
            }
        }
    }
    Ok(found)
}

/// Reads all files of a tree, verified.
pub(crate) fn contents(repository: &Repository, root: &Entry) -> Result<Files> {
    let mut files = Files::new();
    for (name, content) in places(repository, root)? {
        let bytes = match &content {
            Content::Inline(bytes) => bytes.clone(),
            content => {
                let mut bytes = Vec::new();
                for chunk in repository.read_chunks(content)? {
                    bytes.extend(repository.read_data_blob(&chunk.id)?);
                }
                bytes
            }
        };
        files.insert(name, bytes);
    }
    Ok(files)
}
