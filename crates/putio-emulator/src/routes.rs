//! Which path leads where.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get, patch, post, put};

use crate::serve::{Services, no_such_method, no_such_path};
use crate::{account, auth, download, files, listing, pages, socket, trash, upload};

/// The services with all their paths.
pub(crate) fn services() -> Services {
    Services {
        api: finished(api()),
        upload: finished(uploads()),
        storage: finished(Router::new().route("/download/{id}", get(download::storage))),
        app: finished(app()),
        socket: finished(Router::new().route("/socket/sockjs/websocket", get(socket::socket))),
    }
}

fn finished(router: Router) -> Router {
    // Uploads have no limit of their own; parameters are limited where they are read.
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::disable())
}

fn api() -> Router {
    Router::new()
        .merge(sign_in())
        .route("/v2/account/info", get(account::info))
        .route("/v2/account/settings", get(account::settings).post(account::set_settings))
        .route("/v2/config", get(account::config).put(account::set_config))
        .route(
            "/v2/config/{key}",
            get(account::config_value)
                .put(account::set_config_value)
                .delete(account::remove_config_value),
        )
        .route("/v2/files/list", get(listing::list))
        .route("/v2/files/list/continue", post(listing::list_continue))
        .route("/v2/files/list/items-shared-with-you", get(listing::shared_with_you))
        .route("/v2/files/items-shared-with-you", get(listing::shared_with_you))
        .route("/v2/files/search", get(listing::search))
        .route("/v2/files/search/continue", post(listing::search_continue))
        .route("/v2/files/create-folder", post(files::create_folder))
        .route("/v2/files/rename", post(files::rename))
        .route("/v2/files/move", post(files::move_files))
        .route("/v2/files/copy", post(files::copy))
        .route("/v2/files/touch", post(files::touch))
        .route("/v2/files/delete", post(files::delete))
        .route("/v2/files/set-sort-by", post(files::set_sort_by))
        .route("/v2/files/remove-sort-by-settings", post(files::remove_sort_by))
        .route("/v2/files/upload", post(upload::redirect))
        .route("/v2/files/{id}", get(files::get))
        .route("/v2/files/{id}/child", get(files::child))
        .route("/v2/files/{id}/can-write", get(files::can_write))
        .route("/v2/files/{id}/url", get(download::url))
        .route("/v2/files/{id}/download", get(download::redirect))
        .route("/v2/files/{id}/download/{name}", get(download::redirect_named))
        .route("/v2/files/{id}/stream", get(download::redirect))
        .route("/v2/files/{id}/stream/{name}", get(download::redirect_named))
        .route("/v2/trash/list", get(trash::list))
        .route("/v2/trash/list/continue", post(trash::list_continue))
        .route("/v2/trash/restore", post(trash::restore))
        .route("/v2/trash/delete", post(trash::delete))
        .route("/v2/trash/empty", post(trash::empty))
        .route("/v2/events/list", get(account::events))
        .route("/v2/transfers/list", get(account::transfers))
        .route("/v2/transfers/count", get(account::transfer_count))
        .route("/v2/zips/list", get(account::zips))
        .route("/v2/friends/list", get(account::friends))
        .route("/v2/friends/waiting-requests", get(account::friends))
}

fn sign_in() -> Router {
    Router::new()
        .route("/v2/oauth2/authenticate", get(auth::authenticate).post(auth::authenticate_answer))
        .route("/v2/oauth2/access_token", get(auth::access_token).post(auth::access_token))
        .route("/v2/oauth2/oob/code", get(auth::new_code).post(auth::link_code))
        .route("/v2/oauth2/oob/code/{code}", get(auth::poll_code))
        .route("/v2/oauth2/authorizations/clients/{id}", put(auth::authorize))
        .route("/v2/oauth2/authorizations/clients/{id}/{fingerprint}", put(auth::authorize))
        .route("/v2/oauth2/validate", get(auth::validate))
        .route("/v2/oauth/grants/logout", post(auth::logout))
        .route("/v2/oauth/grants/", any(auth::first_party))
        .route("/v2/oauth/grants/{id}/delete", any(auth::first_party))
        .route("/v2/oauth/clients/", any(auth::first_party))
        .route("/v2/oauth/clients/delete-all", any(auth::first_party))
        .route("/v2/oauth/clients/{id}/delete", any(auth::first_party))
}

fn uploads() -> Router {
    Router::new()
        .route("/files/", post(upload::create).options(upload::options))
        .route("/files", post(upload::create).options(upload::options))
        .route("/files/{id}", patch(upload::patch).head(upload::head).delete(upload::terminate))
        .route("/v2/files/upload", post(upload::form))
        .route("/", post(upload::form))
}

fn app() -> Router {
    Router::new()
        .route("/", get(pages::home))
        .route("/authenticate", get(auth::authenticate))
        .route("/link", get(pages::link).post(pages::link_answer))
        .route("/captcha/{id}", get(pages::captcha))
}
