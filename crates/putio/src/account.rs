//! The account and the token.

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::model::{Account, Settings, TokenInfo};
use crate::transport::Call;
use crate::wire::{AccountAnswer, Done, SettingsAnswer, ValidateAnswer};

impl Client {
    /// Who the account belongs to and how much space it has. One request.
    ///
    /// # Errors
    /// Those of every call: [`ErrorKind::Unauthorized`], [`ErrorKind::RateLimited`],
    /// [`ErrorKind::CaptchaNeeded`], [`ErrorKind::Network`], [`ErrorKind::Server`].
    pub async fn account(&self) -> Result<Account, Error> {
        let call = Call::get("account", "/account/info");
        Ok(self.transport().send::<AccountAnswer>(&call).await?.info.into())
    }

    /// The account's settings. One request.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn settings(&self) -> Result<Settings, Error> {
        let call = Call::get("settings", "/account/settings");
        Ok(self.transport().send::<SettingsAnswer>(&call).await?.settings.into())
    }

    /// What the service says of the token. One request. A token that is not valid is an answer,
    /// not an error.
    ///
    /// # Errors
    /// Those of every call but [`ErrorKind::Unauthorized`].
    pub async fn validate(&self) -> Result<TokenInfo, Error> {
        let call = Call::get("validate", "/oauth2/validate");
        match self.transport().send::<ValidateAnswer>(&call).await {
            Ok(answer) => Ok(answer.into()),
            Err(error) if matches!(error.kind, ErrorKind::Unauthorized | ErrorKind::Denied) => {
                Ok(TokenInfo { is_valid: false, token_id: None, scope: None, user_id: None })
            }
            Err(error) => Err(error),
        }
    }

    /// Signs out: the token is not valid any more, also for others who were given the same one.
    ///
    /// # Errors
    /// Those of every call but [`ErrorKind::Unauthorized`]: a token that is not valid is signed out.
    pub async fn revoke(&self) -> Result<(), Error> {
        let call = Call::post("revoke", "/oauth/grants/logout");
        match self.transport().send::<Done>(&call).await {
            Err(error) if error.kind != ErrorKind::Unauthorized => Err(error),
            _ => Ok(()),
        }
    }
}
