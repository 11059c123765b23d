//! Notifications: a socket that tells of files that were created, changed and deleted.
//!
//! The first message of a client is its token. The socket is a hint, never the truth.

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use crate::call::Call;

/// What put.io closes with when a token is wrong.
const INVALID_TOKEN: u16 = 4001;

/// `GET /socket/sockjs/websocket`
pub(crate) async fn socket(call: Call, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(move |socket| converse(call, socket))
}

async fn converse(call: Call, mut socket: WebSocket) {
    // Before the token is looked at, so that nothing is missed after it was.
    let mut notifications = call.shared.notifications.subscribe();
    let user_id = match socket.recv().await {
        Some(Ok(Message::Text(token))) => {
            let state = call.shared.state();
            let known = state.tokens.get(token.as_str());
            known.map(|token| state.accounts[token.account].user_id)
        }
        _ => None,
    };
    let Some(user_id) = user_id else {
        let frame = CloseFrame { code: INVALID_TOKEN, reason: "invalid token".into() };
        // Who has gone away needs no reason.
        let _ = socket.send(Message::Close(Some(frame))).await;
        return;
    };
    loop {
        tokio::select! {
            received = socket.recv() => {
                if !matches!(received, Some(Ok(_))) {
                    return;
                }
            }
            notification = notifications.recv() => {
                let notification = match notification {
                    Ok(notification) => notification,
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                };
                if notification.user_id != user_id {
                    continue;
                }
                let message = json!({
                    "type": notification.kind,
                    "value": { "id": notification.id, "name": notification.name },
                });
                if socket.send(Message::Text(message.to_string().into())).await.is_err() {
                    return;
                }
            }
        }
    }
}
