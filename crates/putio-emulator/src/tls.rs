//! Certificates for `put.io` and `*.put.io`, from an authority of the emulator's own.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::Error;

/// Where they are kept, when files are kept in a directory: the authority's certificate, the
/// server's, and the server's key. The authority's key is thrown away.
const FILE: &str = "tls.pem";

/// Certificates and a key, as PEM.
pub(crate) struct Certificates {
    pub(crate) authority: String,
    server: String,
    key: String,
}

impl Certificates {
    /// Those in a directory, or new ones that are then kept there.
    pub(crate) fn of(folder: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = folder.map(|folder| folder.join(FILE)) else { return Self::create() };
        let fail = |source| Error::Storage { path: path.clone(), source };
        match fs_err::read_to_string(&path) {
            Ok(text) => Self::split(&text)
                .ok_or_else(|| Error::Certificates(format!("{} is damaged", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made = Self::create()?;
                let text = format!("{}{}{}", made.authority, made.server, made.key);
                fs_err::write(&path, text).map_err(fail)?;
                Ok(made)
            }
            Err(error) => Err(fail(error)),
        }
    }

    fn split(text: &str) -> Option<Self> {
        let mut parts = text.split_inclusive("-----\n").collect::<Vec<_>>().into_iter();
        // Each part of the file is a line that begins it, and all up to the line that ends it.
        let mut next = || -> Option<String> { Some(format!("{}{}", parts.next()?, parts.next()?)) };
        Some(Self { authority: next()?, server: next()?, key: next()? })
    }

    fn create() -> Result<Self, Error> {
        Self::try_create().map_err(|error| Error::Certificates(error.to_string()))
    }

    fn try_create() -> Result<Self, rcgen::Error> {
        let params = |names: Vec<String>, title: &str| {
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name.push(DnType::CommonName, title);
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2049, 12, 31);
            Ok::<_, rcgen::Error>(params)
        };
        let mut authority = params(Vec::new(), "putio-emulator authority")?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let names = vec!["put.io".to_owned(), "*.put.io".to_owned()];
        let mut server = params(names, "put.io")?;
        server.use_authority_key_identifier_extension = true;
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let server = server.signed_by(&key, &authority)?;
        let line_ends = |pem: String| pem.replace("\r\n", "\n");
        Ok(Self {
            authority: line_ends(authority.pem()),
            server: line_ends(server.pem()),
            key: line_ends(key.serialize_pem()),
        })
    }

    /// What speaks TLS with these.
    pub(crate) fn acceptor(&self, http2: bool) -> Result<TlsAcceptor, Error> {
        let fail = |error: &dyn std::fmt::Display| Error::Certificates(error.to_string());
        let certificate =
            CertificateDer::from_pem_slice(self.server.as_bytes()).map_err(|error| fail(&error))?;
        let key =
            PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|error| fail(&error))?;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| fail(&error))?
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
                .map_err(|error| fail(&error))?;
        if http2 {
            config.alpn_protocols.push(b"h2".to_vec());
        }
        config.alpn_protocols.push(b"http/1.1".to_vec());
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_in_a_directory_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let one = Certificates::of(Some(folder.path())).unwrap();
        let other = Certificates::of(Some(folder.path())).unwrap();
        assert_eq!(one.authority, other.authority);
        assert!(one.authority.starts_with("-----BEGIN CERTIFICATE-----\n"));
        assert!(other.key.contains("PRIVATE KEY") && other.key.ends_with("-----\n"));
        other.acceptor(true).unwrap();
        fs_err::write(folder.path().join(FILE), "nothing").unwrap();
        assert!(Certificates::of(Some(folder.path())).is_err());
    }
}
