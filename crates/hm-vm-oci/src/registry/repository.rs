//! A repository as a source and a destination.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use hm_vm_core::Progress;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use super::answer::{Doing, Failure, read_bounded};
use super::client::Inner;
use super::request::{Call, Session, Target};
use super::retry::Retry;
use super::token::Access;
use super::{download, upload};
use crate::descriptor::media;
use crate::{
    Descriptor, Destination, Digest, MAX_MANIFEST_BYTES, OciError, RawManifest, Reference, Source,
};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// How many idle times a manifest may take in all.
const MANIFEST_PATIENCE: u32 = 2;
/// What a manifest may be, by preference.
const ACCEPTED: [&str; 4] = [
    media::MANIFEST,
    media::INDEX,
    media::DOCKER_MANIFEST,
    media::DOCKER_LIST,
];

/// A repository of a registry, made for one reference. Clones are cheap.
///
/// What is read comes from the registry's mirrors first, whose failures only lead to the next one. What is written goes
/// to the registry itself.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(super) client: Arc<Inner>,
    pub(super) reference: Reference,
    /// Repositories of the same registry that blobs may be taken from.
    mounts: Vec<String>,
}

impl Repository {
    pub(super) fn new(client: Arc<Inner>, reference: Reference) -> Self {
        Self {
            client,
            reference,
            mounts: Vec::new(),
        }
    }

    /// The reference that it was made for.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Lets blobs that are written be taken from another repository, if that is one of the same registry and has them:
    /// then they do not travel.
    #[must_use]
    pub fn mounting(mut self, from: &Reference) -> Self {
        let is_other = from.repository() != self.reference.repository();
        if from.registry() == self.reference.registry() && is_other {
            self.mounts.push(from.repository().to_owned());
        }
        self
    }

    /// The manifest or index with this tag or digest; `None` when there is none. Verified when asked for by digest.
    ///
    /// # Errors
    ///
    /// [`OciError`], but not [`OciError::NotFound`].
    pub fn manifest(&self, tag_or_digest: &str) -> Result<Option<RawManifest>, OciError> {
        let (this, name) = (self.clone(), tag_or_digest.to_owned());
        let work = async move { this.find_manifest(&name).await };
        self.client.runtime.wait(&self.client.options.cancel, work)
    }

    /// Writes a manifest or index under a tag, or under its own digest.
    ///
    /// # Errors
    ///
    /// [`OciError`].
    pub fn put_manifest(&self, tag: &str, manifest: &RawManifest) -> Result<(), OciError> {
        let (this, tag, manifest) = (self.clone(), tag.to_owned(), manifest.clone());
        let work = async move { this.write_manifest(&tag, &manifest).await };
        self.client.runtime.wait(&self.client.options.cancel, work)
    }

    pub(super) fn retry(&self) -> Retry {
        let options = &self.client.options;
        Retry::new(options.retries, options.idle_timeout)
    }

    pub(super) fn registry(&self) -> Result<Session, OciError> {
        self.client.registry(self.reference.registry())
    }

    pub(super) fn mirrors(&self) -> Vec<Session> {
        self.client.mirrors(self.reference.registry())
    }

    /// A request for a part of this repository: `manifests/latest`.
    pub(super) fn call(&self, session: &Session, method: Method, part: &str, what: String) -> Call {
        let actions = if matches!(method, Method::GET) {
            "pull"
        } else {
            "pull,push"
        };
        Call {
            method,
            target: Target::Part {
                repository: self.reference.repository().to_owned(),
                part: part.to_owned(),
            },
            headers: HeaderMap::new(),
            body: None,
            access: Access {
                repository: session.endpoint.repository(self.reference.repository()),
                actions,
                also: Vec::new(),
            },
            doing: Doing {
                what,
                place: session.endpoint.name.clone(),
            },
        }
    }

    pub(super) fn mounts(&self) -> &[String] {
        &self.mounts
    }

    async fn find_manifest(&self, name: &str) -> Result<Option<RawManifest>, OciError> {
        for mirror in self.mirrors() {
            match self.manifest_of(&mirror, name).await {
                Ok(Some(manifest)) => return Ok(Some(manifest)),
                Ok(None) => {}
                Err(failure) => pass_over(&mirror, &failure.error),
            }
        }
        let registry = self.registry()?;
        let retry = self.retry();
        retry.run(|| self.manifest_of(&registry, name)).await
    }

    async fn manifest_of(
        &self,
        session: &Session,
        name: &str,
    ) -> Result<Option<RawManifest>, Failure> {
        let what = format!("reading {}", self.named(name));
        let mut call = self.call(session, Method::GET, &format!("manifests/{name}"), what);
        let accepted = HeaderValue::try_from(ACCEPTED.join(", "));
        call.headers.extend(accepted.map(|types| (ACCEPT, types)));
        let response = session.send(&call).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                // So that the connection can be used again.
                let _ = session.refusal(&call, response).await;
                return Ok(None);
            }
            _ => return Err(session.refusal(&call, response).await),
        }
        let told_type = header(&response, &CONTENT_TYPE);
        let told_digest = header(&response, &CONTENT_DIGEST);
        let limit = session.idle() * MANIFEST_PATIENCE;
        let bytes = match read_bounded(response, MAX_MANIFEST_BYTES, limit).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                let reason = format!("a manifest of more than {MAX_MANIFEST_BYTES} bytes");
                return Err(call.doing.answer(reason).into());
            }
            Err(Some(error)) => return Err(call.doing.transport(error)),
            Err(None) => {
                return Err(Failure::for_now(call.doing.unreachable("it is too slow")));
            }
        };
        let manifest = self.check_manifest(name, bytes, told_type, told_digest)?;
        Ok(Some(manifest))
    }

    fn check_manifest(
        &self,
        name: &str,
        bytes: Vec<u8>,
        told_type: Option<String>,
        told_digest: Option<String>,
    ) -> Result<RawManifest, OciError> {
        let digest = Digest::of(&bytes);
        let mismatch = |reason: String| OciError::Mismatch {
            what: self.named(name),
            reason,
        };
        if name.contains(':') && name != digest.to_string() {
            return Err(mismatch(format!("its content has the digest {digest}")));
        }
        // Other algorithms are not known here.
        let told = told_digest.filter(|told| told.starts_with("sha256:"));
        if let Some(told) = told
            && told != digest.to_string()
        {
            let reason =
                format!("the registry calls it {told}, its content has the digest {digest}");
            return Err(mismatch(reason));
        }
        let told = told_type.map(|told| told.split(';').next().unwrap_or("").trim().to_owned());
        let told = told.filter(|told| ACCEPTED.contains(&told.as_str()));
        let own = own_type(&bytes);
        if let (Some(told), Some(own)) = (&told, &own)
            && told != own
        {
            // What is an index for one reader and a manifest for another one is a trap.
            return Err(mismatch(format!(
                "it calls itself {own}, the registry {told}"
            )));
        }
        Ok(RawManifest {
            media_type: told.or(own).unwrap_or_default(),
            digest,
            bytes,
        })
    }

    async fn write_manifest(&self, tag: &str, manifest: &RawManifest) -> Result<(), OciError> {
        let session = self.registry()?;
        let what = format!("writing {}", self.named(tag));
        let mut call = self.call(&session, Method::PUT, &format!("manifests/{tag}"), what);
        let media_type = HeaderValue::try_from(&manifest.media_type)
            .map_err(|_| OciError::invalid(manifest.media_type.clone(), "it is no media type"))?;
        call.headers.insert(CONTENT_TYPE, media_type);
        call.body = Some(Bytes::from(manifest.bytes.clone()));
        let put = || async {
            let response = session.send(&call).await?;
            if !response.status().is_success() {
                return Err(session.refusal(&call, response).await);
            }
            let told = header(&response, &CONTENT_DIGEST);
            let told = told.filter(|told| told.starts_with("sha256:"));
            // Whatever else answers with success on the way, a page of a proxy for instance, has stored nothing.
            if response.status() != StatusCode::CREATED && told.is_none() {
                return Err(session.refusal(&call, response).await);
            }
            if let Some(told) = told
                && told != manifest.digest.to_string()
            {
                let reason = format!("the registry has stored {told}");
                return Err(Failure::for_good(OciError::Mismatch {
                    what: self.named(tag),
                    reason,
                }));
            }
            Ok(())
        };
        self.retry().run(put).await
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool, OciError> {
        let session = self.registry()?;
        self.retry().run(|| self.ask_for_blob(&session, blob)).await
    }

    /// Whether the registry has a blob.
    pub(super) async fn ask_for_blob(
        &self,
        session: &Session,
        blob: &Descriptor,
    ) -> Result<bool, Failure> {
        let what = format!("asking for {}", blob.digest);
        let call = self.call(
            session,
            Method::HEAD,
            &format!("blobs/{}", blob.digest),
            what,
        );
        let response = session.send(&call).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(false),
            _ => return Err(session.refusal(&call, response).await),
        }
        let size = header(&response, &CONTENT_LENGTH).and_then(|size| size.parse::<u64>().ok());
        match size {
            Some(size) if size != blob.size => Err(Failure::for_good(OciError::Mismatch {
                what: blob.digest.to_string(),
                reason: format!("it has {size} bytes there, and should have {}", blob.size),
            })),
            _ => Ok(true),
        }
    }

    /// What a manifest is called in messages.
    fn named(&self, name: &str) -> String {
        let mark = if name.contains(':') { '@' } else { ':' };
        format!("{}{mark}{name}", self.place())
    }

    /// What it is called in messages.
    pub(super) fn place(&self) -> String {
        format!(
            "{}/{}",
            self.reference.registry(),
            self.reference.repository()
        )
    }
}

impl Source for Repository {
    fn describe(&self) -> String {
        self.reference.to_string()
    }

    fn root(&self) -> Result<RawManifest, OciError> {
        let name = match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        self.manifest(&name)?.ok_or_else(|| OciError::NotFound {
            what: self.reference.to_string(),
            place: self.reference.registry().to_owned(),
        })
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, OciError> {
        let name = descriptor.digest.to_string();
        let found = Self::manifest(self, &name)?.ok_or_else(|| OciError::NotFound {
            what: name.clone(),
            place: self.place(),
        })?;
        let size = found.bytes.len() as u64;
        if size != descriptor.size {
            return Err(OciError::Mismatch {
                what: name,
                reason: format!("it has {size} bytes, not {}", descriptor.size),
            });
        }
        Ok(found)
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OciError> {
        download::open(self, blob)
    }
}

impl Destination for Repository {
    fn describe(&self) -> String {
        self.reference.to_string()
    }

    fn has(&self, blob: &Descriptor) -> Result<bool, OciError> {
        let (this, blob) = (self.clone(), blob.clone());
        let work = async move { this.has_blob(&blob).await };
        self.client.runtime.wait(&self.client.options.cancel, work)
    }

    fn put_blob(
        &self,
        blob: &Descriptor,
        open: &dyn Fn() -> std::io::Result<Box<dyn Read + Send>>,
        progress: &Progress,
    ) -> Result<(), OciError> {
        upload::put(self, blob, open, progress)
    }

    fn put_manifest(&self, manifest: &RawManifest) -> Result<(), OciError> {
        match (self.reference.tag(), self.reference.digest()) {
            (_, Some(digest)) if *digest != manifest.digest => Err(OciError::Mismatch {
                what: self.reference.to_string(),
                reason: format!("the manifest has the digest {}", manifest.digest),
            }),
            (Some(tag), _) => Self::put_manifest(self, tag, manifest),
            (None, _) => Self::put_manifest(self, &manifest.digest.to_string(), manifest),
        }
    }
}

/// A mirror failed: the next one is asked, and this one is left alone for a while if it cannot be reached.
pub(super) fn pass_over(mirror: &Session, error: &OciError) {
    tracing::warn!("mirror {}: {error}", mirror.endpoint.name);
    if matches!(error, OciError::Unreachable { .. }) {
        mirror.endpoint.rest();
    }
}

fn header(response: &Response, name: &HeaderName) -> Option<String> {
    let value = response.headers().get(name)?;
    value.to_str().ok().map(str::to_owned)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeOnly {
    media_type: Option<String>,
}

/// What a manifest calls itself.
fn own_type(bytes: &[u8]) -> Option<String> {
    serde_json::from_slice::<TypeOnly>(bytes).ok()?.media_type
}
