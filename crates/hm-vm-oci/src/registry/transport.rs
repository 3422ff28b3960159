//! Connections: with and without encryption, through proxies.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, NoProxy, Proxy};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::{Proxies, RegistryOptions};
use crate::OciError;

/// Never reached through a proxy.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// Makes connections, and keeps them.
#[derive(Debug)]
pub(super) struct Transport {
    settings: Settings,
    plain: Client,
    /// By the certificates that are trusted beside the system's. Made when they are needed: to read the system's takes
    /// longer than a request.
    secure: Mutex<HashMap<Vec<PathBuf>, Client>>,
}

impl Transport {
    pub(super) fn new(options: &RegistryOptions) -> Result<Self, OciError> {
        let settings = Settings {
            proxies: options.proxies.clone(),
            connect_timeout: options.connect_timeout,
            idle_timeout: options.idle_timeout,
        };
        let over_tls = [&options.proxies.http, &options.proxies.all]
            .into_iter()
            .flatten()
            .any(|proxy| proxy.starts_with("https:"));
        let roots = if over_tls {
            trusted(&[])?
        } else {
            RootCertStore::empty()
        };
        Ok(Self {
            plain: settings.client(roots)?,
            settings,
            secure: Mutex::default(),
        })
    }

    /// Connections without encryption.
    pub(super) fn plain(&self) -> Client {
        self.plain.clone()
    }

    /// Connections with encryption, which trust the system's certificates and these.
    pub(super) fn secure(&self, roots: &[PathBuf]) -> Result<Client, OciError> {
        let mut secure = self.secure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = secure.get(roots) {
            return Ok(client.clone());
        }
        let client = self.settings.client(trusted(roots)?)?;
        secure.insert(roots.to_vec(), client.clone());
        Ok(client)
    }
}

#[derive(Debug)]
struct Settings {
    proxies: Proxies,
    connect_timeout: Duration,
    idle_timeout: Duration,
}

impl Settings {
    fn client(&self, roots: RootCertStore) -> Result<Client, OciError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| OciError::invalid("TLS", error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Redirects are followed by hand, and the environment is the caller's.
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(self.connect_timeout)
            // What was given up is not kept in the kernel for ever.
            .tcp_user_timeout(self.idle_timeout * 4)
            .tcp_nodelay(true)
            .user_agent(concat!("hm-vm/", env!("CARGO_PKG_VERSION")));
        for proxy in self.proxies()? {
            builder = builder.proxy(proxy);
        }
        builder
            .build()
            .map_err(|error| OciError::invalid("settings of connections", chain(&error)))
    }

    fn proxies(&self) -> Result<Vec<Proxy>, OciError> {
        let except = match &self.proxies.no_proxy {
            Some(no_proxy) => format!("{no_proxy},{LOOPBACK}"),
            None => LOOPBACK.to_owned(),
        };
        let mut proxies = Vec::new();
        let mut add = |address: &Option<String>, make: fn(&str) -> reqwest::Result<Proxy>| {
            let Some(address) = address.as_deref().filter(|address| !address.is_empty()) else {
                return Ok(());
            };
            // The address may hold a password.
            let proxy = make(address)
                .map_err(|_| OciError::invalid("proxy", "its address is not valid"))?;
            proxies.push(proxy.no_proxy(NoProxy::from_string(&except)));
            Ok(())
        };
        add(&self.proxies.http, |address| Proxy::http(address))?;
        add(&self.proxies.https, |address| Proxy::https(address))?;
        add(&self.proxies.all, |address| Proxy::all(address))?;
        Ok(proxies)
    }
}

/// The system's certificates and those in these files.
fn trusted(files: &[PathBuf]) -> Result<RootCertStore, OciError> {
    let mut store = RootCertStore::empty();
    for file in files {
        let failed = |reason: String| {
            OciError::invalid(format!("certificates in {}", file.display()), reason)
        };
        let certificates =
            CertificateDer::pem_file_iter(file).map_err(|error| failed(error.to_string()))?;
        let before = store.len();
        for certificate in certificates {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            store
                .add(certificate)
                .map_err(|error| failed(error.to_string()))?;
        }
        if store.len() == before {
            return Err(failed("there are none in PEM form".to_owned()));
        }
    }
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!(%error, "reading the system's certificates");
    }
    store.add_parsable_certificates(system.certs);
    Ok(store)
}

/// The innermost reason: the outer ones only say that there was one.
fn chain(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
