//! Listing folders, page by page.

use std::collections::HashSet;

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::model::{File, FileId, Listing, Trash, TrashedFile};
use crate::transport::Call;
use crate::wire::{ListAnswer, RawFile};

/// Rows asked for at once; the service may give fewer.
const ROWS_PER_PAGE: &str = "1000";
/// How often a listing is begun again because its cursor expired.
const RESTARTS_MAX: u32 = 3;
/// Pages in a row without a row that is new.
const EMPTY_PAGES_MAX: u32 = 3;
/// Pages of one listing, a guard against cursors without an end.
const PAGES_MAX: u32 = 20_000;

/// A listing as the service has it.
struct RawListing {
    parent: Option<RawFile>,
    rows: Vec<(FileId, RawFile)>,
    trash_size: Option<u64>,
}

/// Where a listing begins and continues.
struct Pages {
    call: &'static str,
    first: Call,
    next_path: &'static str,
}

impl Client {
    /// All rows of a folder. One request per 1000 rows. A row that a page repeats is there once; one
    /// that was changed while the pages were read may be missing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Corrupt`] if the pages do not end; those of every
    /// call.
    pub async fn list(&self, parent: FileId) -> Result<Listing, Error> {
        let call = "list";
        let first = Call::get(call, "/files/list")
            .query("parent_id", parent.to_string())
            .query("per_page", ROWS_PER_PAGE)
            .paged();
        let pages = Pages { call, first, next_path: "/files/list/continue" };
        let listing = self.list_pages(&pages).await?;
        Ok(Listing {
            parent: listing.parent.map(File::from),
            files: listing.rows.into_iter().map(|(_, row)| row.into()).collect(),
        })
    }

    /// What is in the trash. One request per 1000 rows.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the pages do not end; those of every call.
    pub async fn trash(&self) -> Result<Trash, Error> {
        let call = "trash";
        let first = Call::get(call, "/trash/list").query("per_page", ROWS_PER_PAGE).paged();
        let pages = Pages { call, first, next_path: "/trash/list/continue" };
        let listing = self.list_pages(&pages).await?;
        Ok(Trash {
            files: listing.rows.into_iter().map(|(_, row)| TrashedFile::from(row)).collect(),
            trash_size: listing.trash_size,
        })
    }

    async fn list_pages(&self, pages: &Pages) -> Result<RawListing, Error> {
        let mut restarts = 0;
        loop {
            match self.list_once(pages).await? {
                Some(listing) => return Ok(listing),
                None if restarts == RESTARTS_MAX => {
                    let message = "the cursor expired again and again";
                    return Err(Error::new(ErrorKind::Server, pages.call, message));
                }
                None => restarts += 1,
            }
        }
    }

    /// One way through all pages; `None` if a cursor was not accepted any more.
    async fn list_once(&self, pages: &Pages) -> Result<Option<RawListing>, Error> {
        let page: ListAnswer = self.transport().send(&pages.first).await?;
        let mut listing =
            RawListing { parent: page.parent, rows: Vec::new(), trash_size: page.trash_size };
        let mut seen = HashSet::new();
        add_rows(&mut listing.rows, &mut seen, page.files);
        let mut cursor = page.cursor;
        let (mut page_count, mut empty_count) = (1, 0);
        while let Some(current) = cursor.take() {
            let call = Call::post(pages.call, pages.next_path)
                .query("per_page", ROWS_PER_PAGE)
                .form("cursor", current)
                .paged();
            let page: ListAnswer = match self.transport().send(&call).await {
                Err(error) if error.kind == ErrorKind::Invalid => return Ok(None),
                answer => answer?,
            };
            let count_before = listing.rows.len();
            add_rows(&mut listing.rows, &mut seen, page.files);
            let is_empty = listing.rows.len() == count_before;
            empty_count = if is_empty { empty_count + 1 } else { 0 };
            page_count += 1;
            cursor = page.cursor;
            if cursor.is_some() && (empty_count == EMPTY_PAGES_MAX || page_count == PAGES_MAX) {
                let message = "the pages of the listing do not end";
                return Err(Error::new(ErrorKind::Corrupt, pages.call, message));
            }
        }
        Ok(Some(listing))
    }
}

fn add_rows(rows: &mut Vec<(FileId, RawFile)>, seen: &mut HashSet<FileId>, page: Vec<RawFile>) {
    rows.extend(page.into_iter().map(|row| (row.id(), row)).filter(|(id, _)| seen.insert(*id)));
}
