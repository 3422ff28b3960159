//! Connections with TLS and certificates of both sides.
//!
//! Not the client's own: that takes its cryptography from a setting of the whole process and panics without one, trusts
//! everybody whom the system trusts beside the CA that the user gave, and goes on without the client's certificate when that
//! cannot be read.

use std::path::Path;
use std::sync::Arc;

use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::endpoint::TlsFiles;

/// A client of the daemon at `HOST:PORT`. Connects to nobody yet.
///
/// # Errors
///
/// Which file cannot be used, and why.
pub(super) fn client(address: &str, files: &TlsFiles, time_limit: u64) -> Result<Docker, String> {
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(config(files)?)
        .https_only()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(https);
    let transport = move |request: BollardRequest| {
        let answer = client.request(request);
        async move { Ok::<_, bollard::errors::Error>(answer.await?) }
    };
    let address = Some(format!("https://{address}"));
    Docker::connect_with_custom_transport(transport, address, time_limit, API_DEFAULT_VERSION)
        .map_err(|error| error.to_string())
}

fn config(files: &TlsFiles) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(&files.ca, &error))?;
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| unusable(&files.key, &pem(error, "a private key")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("setting up TLS: {error}"))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&files.certificate)?, key)
        .map_err(|error| {
            let both = format!(
                "{} with {}",
                files.certificate.display(),
                files.key.display()
            );
            format!("{both} cannot be used: {error}")
        })
}

/// All certificates of a file; there is one at least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(path, &pem(error, "a certificate")))?;
    if found.is_empty() {
        return Err(unusable(path, &"there is no certificate in it"));
    }
    Ok(found)
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("{} cannot be used: {why}", path.display())
}

fn pem(error: PemError, what: &str) -> String {
    match error {
        PemError::Io(error) => error.to_string(),
        PemError::NoItemsFound => format!("there is not {what} in it"),
        // Others may hold parts of the content.
        _ => format!("it is not {what} in PEM"),
    }
}
