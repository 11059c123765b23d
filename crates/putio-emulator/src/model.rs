//! What the service says of a file.

use serde_json::{Value, json};

use crate::call::{Call, Failure, Params};
use crate::clock;
use crate::faults::{Fault, MissingChecksum, Service};
use crate::options::FolderSize;
use crate::state::{AccountIndex, State};
use crate::tree::{FOLDER_TYPE, ROOT, Row, Tree};

/// How files are shown to this request.
pub(crate) struct View {
    folder_size: FolderSize,
    missing_checksum: Option<MissingChecksum>,
    stream_origin: Option<String>,
}

impl View {
    pub(crate) fn new(call: &Call, params: &Params, state: &State, account: AccountIndex) -> Self {
        let missing_checksum = match &call.fault {
            Some(Fault::ChecksumMissing { form, .. }) => Some(*form),
            _ => state.accounts[account]
                .checksums_missing
                .filter(|(until, _)| *until > call.now())
                .map(|(_, form)| form),
        };
        Self {
            folder_size: call.shared.profile().folder_size,
            missing_checksum,
            stream_origin: params.flag("stream_url").then(|| call.origin(Service::Api)),
        }
    }

    /// A row as the API shows it.
    pub(crate) fn file(&self, tree: &Tree, row: &Row) -> Value {
        let crc32 = row.content.as_ref().map(|content| match self.missing_checksum {
            None => Value::from(format!("{:08x}", content.crc32)),
            Some(MissingChecksum::Null) => Value::Null,
            Some(MissingChecksum::Empty) => "".into(),
            Some(MissingChecksum::Wrong) => format!("{:08x}", !content.crc32).into(),
        });
        let size = match (row.is_folder(), self.folder_size) {
            (true, FolderSize::Computed) => tree.size_of(row.id),
            (true, FolderSize::Zero) => 0,
            (false, _) => row.size(),
        };
        let mut shown = base(row.id, Some(row.parent), &row.name, row.is_folder());
        shown["size"] = size.into();
        shown["crc32"] = crc32.unwrap_or(Value::Null);
        shown["created_at"] = clock::format(row.created).into();
        shown["updated_at"] = clock::format(row.updated).into();
        shown["first_accessed_at"] = row.accessed.map(clock::format).into();
        if let Some(sort_by) = &row.sort_by {
            shown["sort_by"] = sort_by.as_str().into();
        }
        if let Some(origin) = &self.stream_origin {
            shown["stream_url"] = match row.is_folder() {
                true => Value::Null,
                false => format!("{origin}/v2/files/{}/stream", row.id).into(),
            };
        }
        shown
    }

    /// The root, which has no row.
    pub(crate) fn root(&self, tree: &Tree) -> Value {
        let mut shown = base(ROOT, None, "Your Files", true);
        if self.folder_size == FolderSize::Computed {
            shown["size"] = tree.size_of(ROOT).into();
        }
        shown
    }

    /// A file or folder outside the trash.
    pub(crate) fn live(&self, tree: &Tree, id: i64) -> Result<Value, Failure> {
        if id == ROOT {
            return Ok(self.root(tree));
        }
        Ok(self.file(tree, tree.live(id).ok_or_else(Failure::not_found)?))
    }
}

/// All that clients expect of any file.
pub(crate) fn base(id: i64, parent: Option<i64>, name: &str, is_folder: bool) -> Value {
    let extension = match name.rsplit_once('.') {
        Some((stem, extension)) if !is_folder && !stem.is_empty() && !extension.is_empty() => {
            Some(extension.to_ascii_lowercase())
        }
        _ => None,
    };
    let (content_type, file_type) = match is_folder {
        true => (FOLDER_TYPE, "FOLDER"),
        false => types(extension.as_deref().unwrap_or_default()),
    };
    json!({
        "id": id,
        "parent_id": parent,
        "name": name,
        "size": 0,
        "content_type": content_type,
        "file_type": file_type,
        "folder_type": "REGULAR",
        "crc32": null,
        "created_at": clock::format(0),
        "updated_at": clock::format(0),
        "first_accessed_at": null,
        "extension": extension,
        "is_shared": false,
        "is_hidden": false,
        "is_mp4_available": false,
        "icon": "https://static.put.io/images/file_types/file.png",
        "screenshot": null,
        "opensubtitles_hash": null,
    })
}

/// Content type and put.io's kind of a file, by its extension.
pub(crate) fn types(extension: &str) -> (&'static str, &'static str) {
    match extension {
        "txt" | "log" | "md" | "csv" => ("text/plain", "TEXT"),
        "html" | "htm" => ("text/html", "TEXT"),
        "json" => ("application/json", "TEXT"),
        "srt" => ("application/x-subrip", "TEXT"),
        "pdf" => ("application/pdf", "PDF"),
        "jpg" | "jpeg" => ("image/jpeg", "IMAGE"),
        "png" => ("image/png", "IMAGE"),
        "gif" => ("image/gif", "IMAGE"),
        "mp3" => ("audio/mpeg", "AUDIO"),
        "flac" => ("audio/flac", "AUDIO"),
        "mp4" => ("video/mp4", "VIDEO"),
        "mkv" => ("video/x-matroska", "VIDEO"),
        "zip" => ("application/zip", "ARCHIVE"),
        "gz" => ("application/gzip", "ARCHIVE"),
        "rar" => ("application/x-rar", "ARCHIVE"),
        "swf" => ("application/x-shockwave-flash", "SWF"),
        _ => ("application/octet-stream", "FILE"),
    }
}
