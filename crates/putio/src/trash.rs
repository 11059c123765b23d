//! Using the trash. Its listing is in `listing`.

use crate::client::Client;
use crate::error::Error;
use crate::files::{BATCH_FILES_MAX, join_ids};
use crate::model::FileId;
use crate::retry::Attempts;
use crate::transport::Call;
use crate::wire::Done;

impl Client {
    /// Asks for rows to be taken out of the trash. The service does so some seconds later; ids stay,
    /// names and folders may differ afterwards. One request per 100 rows.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if one is not in the trash as such;
    /// those of every call.
    pub async fn restore_from_trash(&self, ids: &[FileId]) -> Result<(), Error> {
        self.use_trash("restore_from_trash", "/trash/restore", ids).await
    }

    /// Deletes rows in the trash for good. One request per 100 rows.
    ///
    /// # Errors
    /// As [`Client::restore_from_trash`].
    pub async fn delete_from_trash(&self, ids: &[FileId]) -> Result<(), Error> {
        self.use_trash("delete_from_trash", "/trash/delete", ids).await
    }

    /// Deletes all that is in the trash for good. One request.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn empty_trash(&self) -> Result<(), Error> {
        let _turn = self.transport().limits().trash_turn.lock().await;
        let call = Call::post("empty_trash", "/trash/empty");
        self.transport().send::<Done>(&call).await.map(drop)
    }

    async fn use_trash(
        &self,
        name: &'static str,
        path: &'static str,
        ids: &[FileId],
    ) -> Result<(), Error> {
        let _turn = self.transport().limits().trash_turn.lock().await;
        for batch in ids.chunks(BATCH_FILES_MAX) {
            let call = Call::post(name, path).form("file_ids", join_ids(batch));
            let mut attempts = Attempts::new(self.transport(), name);
            let mut may_be_done = false;
            loop {
                match self.transport().send_once::<Done>(&call).await {
                    Ok(_) => break,
                    // They have left the trash by an earlier request whose answer was lost.
                    Err(failure) if may_be_done && failure.error.is_not_found() => break,
                    Err(failure) => {
                        may_be_done |= failure.is_ambiguous();
                        attempts.again(failure).await?;
                    }
                }
            }
        }
        Ok(())
    }
}
