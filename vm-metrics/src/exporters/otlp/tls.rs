//! TLS roots and client certificate of the OTLP exporter.

use std::fs;
use std::path::{Path, PathBuf};

use hyper_rustls::ConfigBuilderExt;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    /// `None`: the roots of the system.
    pub(super) ca: Option<PathBuf>,
    /// Certificate and key to show to the collector.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, Error)]
pub(crate) enum TlsError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("no certificate or key in PEM: {}", path.display())]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("no certificate in {}", path.display())]
    Empty { path: PathBuf },
    #[error("cannot use the certificates")]
    Use(#[from] rustls::Error),
    #[error("cannot read the root certificates of the system")]
    System(#[source] std::io::Error),
}

impl TlsFiles {
    /// For gRPC.
    pub(super) fn for_grpc(&self) -> Result<ClientTlsConfig, TlsError> {
        // It reads them when it connects; errors should show at the start.
        self.for_http()?;
        let config = ClientTlsConfig::new();
        let config = match &self.ca {
            Some(path) => config.ca_certificate(Certificate::from_pem(read(path)?)),
            None => config.with_native_roots(),
        };
        Ok(match &self.identity {
            Some((cert, key)) => config.identity(Identity::from_pem(read(cert)?, read(key)?)),
            None => config,
        })
    }

    /// For HTTP.
    pub(super) fn for_http(&self) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder();
        let builder = match &self.ca {
            Some(path) => builder.with_root_certificates(roots(path)?),
            None => builder.with_native_roots().map_err(TlsError::System)?,
        };
        Ok(match &self.identity {
            Some((cert, key)) => builder.with_client_auth_cert(certificates(cert)?, private_key(key)?)?,
            None => builder.with_no_client_auth(),
        })
    }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    if certificates.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(certificates) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|source| TlsError::Pem { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
