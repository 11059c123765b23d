//! Addresses: which ones are safe to use, and which ones may see the token.

use std::net::IpAddr;

use reqwest::Url;
use url::Host;

use crate::error::{Error, ErrorKind};

/// A base address that paths are appended to.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    url: Url,
}

impl Base {
    /// Takes an address as a person wrote it.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |message: &str| Error::new(ErrorKind::Invalid, "address", message);
        let url = Url::parse(text.trim()).map_err(|error| {
            refuse("the base address of the service is not a web address").with_source(error)
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("the base address of the service must not contain a password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("the base address of the service must not contain `?` or `#`"));
        }
        if !is_safe(&url) {
            return Err(refuse(
                "the base address of the service must begin with https:// (http:// is for this \
                 machine's own addresses)",
            ));
        }
        Ok(Self { url })
    }

    /// The base with `path` appended, which begins with a slash.
    pub(crate) fn join(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let whole = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&whole);
        url
    }

    /// Whether `url` is on this host, port and scheme.
    pub(crate) fn is_origin_of(&self, url: &Url) -> bool {
        self.url.origin() == url.origin()
    }

    /// Whether it is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }

    /// Reads an address the service gave in a header, relative ones included. A plain `http` for a
    /// host known by `https` comes from servers behind a proxy and is put right.
    pub(crate) fn resolve(&self, text: &str) -> Option<Url> {
        let mut url = self.url.join(text).ok()?;
        if url.scheme() == "http" && self.url.scheme() == "https" && url.host() == self.url.host() {
            url.set_scheme("https").ok()?;
            url.set_port(self.url.port()).ok()?;
        }
        Some(url)
    }
}

/// Whether bytes may go there: `https`, or this machine.
pub(crate) fn is_safe(url: &Url) -> bool {
    match url.scheme() {
        "https" => url.host().is_some(),
        "http" => is_loopback(url),
        _ => false,
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_or_this_machine() {
        for good in [
            "https://api.put.io",
            "https://api.put.io/",
            "http://127.0.0.1:1",
            "http://127.9.9.9",
            "http://[::1]:8080",
            "http://localhost:3000/base/",
        ] {
            assert!(Base::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "api.put.io",
            "http://api.put.io",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "ftp://127.0.0.1",
            "https://user:hunter2@api.put.io",
            "https://api.put.io/?a=b",
            "file:///etc/passwd",
        ] {
            let error = Base::parse(bad).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid, "{bad}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn paths_are_appended() {
        let join = |base: &str| Base::parse(base).unwrap().join("/v2/files/list").to_string();
        assert_eq!(join("https://api.put.io"), "https://api.put.io/v2/files/list");
        assert_eq!(join("https://api.put.io/"), "https://api.put.io/v2/files/list");
        assert_eq!(join("http://localhost:3/base/"), "http://localhost:3/base/v2/files/list");
    }

    #[test]
    fn addresses_of_headers_are_resolved() {
        let base = Base::parse("https://upload.put.io").unwrap();
        let resolve = |text: &str| base.resolve(text).unwrap().to_string();
        assert_eq!(resolve("/files/1"), "https://upload.put.io/files/1");
        assert_eq!(resolve("https://upload.put.io/files/1"), "https://upload.put.io/files/1");
        assert_eq!(resolve("http://upload.put.io/files/1"), "https://upload.put.io/files/1");
        let foreign = base.resolve("https://elsewhere.example/files/1").unwrap();
        assert!(!base.is_origin_of(&foreign));
        let downgraded = base.resolve("http://elsewhere.example/files/1").unwrap();
        assert!(!is_safe(&downgraded));
    }
}
