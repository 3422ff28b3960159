//! The client, and what all its repositories share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::endpoint::Endpoint;
use super::request::Session;
use super::runtime::Runtime;
use super::transport::Transport;
use super::{RegistryOptions, Repository};
use crate::{Destination, OciError, Reference, Source};

/// A client of registries. Clones share connections, tokens and threads, which end with the last clone, repository
/// or reader.
///
/// Everything blocks; it may be called from any thread, but holds up an asynchronous one.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    inner: Arc<Inner>,
}

/// What all repositories of a client share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) options: RegistryOptions,
    pub(super) runtime: Runtime,
    pub(super) transport: Transport,
    /// By what references and mirrors call them.
    endpoints: Mutex<HashMap<String, Arc<Endpoint>>>,
}

impl RegistryClient {
    /// A client with threads of its own. Connects to nobody, and reads no file yet.
    ///
    /// # Errors
    ///
    /// [`OciError::Invalid`] when an option cannot be used, or when no thread can be started.
    pub fn new(options: RegistryOptions) -> Result<Self, OciError> {
        for host in options.hosts.values() {
            for mirror in &host.mirrors {
                Endpoint::mirror(mirror, &options)?;
            }
        }
        let inner = Inner {
            transport: Transport::new(&options)?,
            runtime: Runtime::start()?,
            endpoints: Mutex::default(),
            options,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// A repository of a registry, to read and to write. Costs nothing.
    pub fn repository(&self, reference: &Reference) -> Repository {
        Repository::new(Arc::clone(&self.inner), reference.clone())
    }

    /// The image of this name, to be read: by its digest if it names one, else by its tag.
    pub fn source(&self, reference: &Reference) -> Arc<dyn Source> {
        Arc::new(self.repository(reference))
    }

    /// The place for an image of this name: its manifest gets the reference's tag.
    pub fn destination(&self, reference: &Reference) -> Arc<dyn Destination> {
        Arc::new(self.repository(reference))
    }
}

impl Inner {
    /// Requests to the registry itself.
    pub(super) fn registry(self: &Arc<Self>, name: &str) -> Result<Session, OciError> {
        let make = || Endpoint::registry(name, &self.options);
        self.session(format!("registry {name}"), make)
    }

    /// Requests to the mirrors of a registry that may be asked now.
    pub(super) fn mirrors(self: &Arc<Self>, name: &str) -> Vec<Session> {
        let Some(host) = self.options.hosts.get(name) else {
            return Vec::new();
        };
        let session = |mirror: &String| {
            let make = || Endpoint::mirror(mirror, &self.options);
            self.session(format!("mirror {mirror}"), make).ok()
        };
        let sessions = host.mirrors.iter().filter_map(session);
        sessions
            .filter(|session| !session.endpoint.rests())
            .collect()
    }

    fn session(
        self: &Arc<Self>,
        key: String,
        make: impl FnOnce() -> Result<Endpoint, OciError>,
    ) -> Result<Session, OciError> {
        let mut endpoints = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let endpoint = match endpoints.get(&key) {
            Some(endpoint) => Arc::clone(endpoint),
            None => {
                let endpoint = Arc::new(make()?);
                endpoints.insert(key, Arc::clone(&endpoint));
                endpoint
            }
        };
        Ok(Session {
            client: Arc::clone(self),
            endpoint,
        })
    }
}
