//! Who we are to a server: passwords, and tokens for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Url};
use serde::Deserialize;
use tokio::sync::Mutex as AsyncMutex;

use super::answer::{Doing, Failure, read_bounded};
use super::challenge::Challenge;
use super::endpoint::may_follow;
use super::request::Session;
use crate::OciError;
use crate::credentials::{Credential, Found};

/// No token server's answer is longer.
const MOST_BYTES: u64 = 1 << 20;
/// As the protocol has it, where the server says nothing.
const DEFAULT_LIFE: u64 = 60;
/// A token is not used in the last moments of its life.
const MARGIN: Duration = Duration::from_secs(5);
const CLIENT_ID: &str = "hm-vm";

/// What is known of how a server wants to be told who we are.
#[derive(Debug, Default)]
pub(super) struct Authority {
    challenge: Mutex<Option<Challenge>>,
    /// By repository.
    credentials: AsyncMutex<HashMap<String, Arc<Found>>>,
    /// By what they are for.
    tokens: Mutex<HashMap<Vec<String>, Arc<AsyncMutex<Slot>>>>,
}

/// A token, asked for by one at a time.
#[derive(Debug, Default)]
struct Slot {
    token: Option<Token>,
    /// When asking failed last, and how: who has waited meanwhile does not ask again.
    failed: Option<(Instant, String)>,
}

#[derive(Clone, Debug)]
struct Token {
    header: HeaderValue,
    until: Instant,
}

/// What we want to do with which repository.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// As the server calls it.
    pub(super) repository: String,
    /// `pull`, `pull,push`.
    pub(super) actions: &'static str,
    /// Repositories that blobs are taken from.
    pub(super) also: Vec<String>,
}

impl Access {
    fn scopes(&self) -> Vec<String> {
        let first = format!("repository:{}:{}", self.repository, self.actions);
        let also = self.also.iter();
        std::iter::once(first)
            .chain(also.map(|name| format!("repository:{name}:pull")))
            .collect()
    }
}

impl Session {
    /// What the server is told as far as it is known that it wants to be told anything.
    pub(super) async fn known_authorization(
        &self,
        access: &Access,
        doing: &Doing,
    ) -> Result<Option<HeaderValue>, Failure> {
        let challenge = self.challenge().clone();
        match challenge {
            None => Ok(None),
            Some(challenge) => self
                .authorization(&challenge, access, None, doing)
                .await
                .map(Some),
        }
    }

    /// What the server is told after it has refused us. `rejected` is what it was told.
    pub(super) async fn new_authorization(
        &self,
        challenge: Challenge,
        access: &Access,
        rejected: Option<&HeaderValue>,
        doing: &Doing,
    ) -> Result<HeaderValue, Failure> {
        *self.challenge() = Some(challenge.clone());
        self.authorization(&challenge, access, rejected, doing)
            .await
    }

    fn challenge(&self) -> std::sync::MutexGuard<'_, Option<Challenge>> {
        let challenge = &self.endpoint.authority.challenge;
        challenge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn authorization(
        &self,
        challenge: &Challenge,
        access: &Access,
        rejected: Option<&HeaderValue>,
        doing: &Doing,
    ) -> Result<HeaderValue, Failure> {
        let Challenge::Bearer { realm, service, .. } = challenge else {
            let found = self.find_credentials(&access.repository).await?;
            let Some(Credential::Password { user, password }) = &found.credential else {
                let reason = format!("it wants a password, and {}", self.nothing_found(&found));
                return Err(doing.denied(reason).into());
            };
            let header = basic(user, password.expose())?;
            if rejected == Some(&header) {
                let reason = format!("name and password of {user:?} are not accepted");
                return Err(doing.denied(reason).into());
            }
            return Ok(header);
        };
        let scopes = access.scopes();
        let slot = {
            let tokens = &self.endpoint.authority.tokens;
            let mut tokens = tokens.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(tokens.entry(scopes.clone()).or_default())
        };
        let asked = Instant::now();
        let mut slot = slot.lock().await;
        if let Some(token) = &slot.token
            && rejected != Some(&token.header)
            && Instant::now() < token.until
        {
            return Ok(token.header.clone());
        }
        if let Some((when, reason)) = &slot.failed
            && *when > asked
        {
            return Err(doing.unreachable(reason.clone()).into());
        }
        let found = self.find_credentials(&access.repository).await?;
        match self
            .fetch(realm, service.as_deref(), &scopes, &found, doing)
            .await
        {
            Ok(token) => {
                let header = token.header.clone();
                slot.token = Some(token);
                Ok(header)
            }
            Err(failure) => {
                slot.token = None;
                slot.failed = Some((Instant::now(), failure.error.to_string()));
                Err(failure)
            }
        }
    }

    async fn find_credentials(&self, repository: &str) -> Result<Arc<Found>, Failure> {
        let mut known = self.endpoint.authority.credentials.lock().await;
        if let Some(found) = known.get(repository) {
            return Ok(Arc::clone(found));
        }
        let files = self.client.options.credentials.clone();
        let (registry, name) = (self.endpoint.name.clone(), repository.to_owned());
        // Helpers are programs.
        let found = tokio::task::spawn_blocking(move || files.find(&registry, &name));
        let found = Arc::new(found.await.unwrap_or_default());
        for trouble in &found.troubles {
            tracing::warn!("looking for credentials: {trouble}");
        }
        known.insert(repository.to_owned(), Arc::clone(&found));
        Ok(found)
    }

    /// Why nobody knows who we are, if that was asked for and is so.
    pub(super) async fn hint(&self, access: &Access) -> Option<String> {
        let known = self.endpoint.authority.credentials.lock().await;
        let found = known.get(&access.repository)?;
        found
            .credential
            .is_none()
            .then(|| self.nothing_found(found))
    }

    fn nothing_found(&self, found: &Found) -> String {
        let mut reason = format!("there are no credentials for {}", self.endpoint.name);
        if !found.troubles.is_empty() {
            reason = format!("{reason} ({})", found.troubles.join("; "));
        }
        reason
    }

    /// Asks the token server.
    async fn fetch(
        &self,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
        found: &Found,
        doing: &Doing,
    ) -> Result<Token, Failure> {
        if let Some(Credential::Bearer(token)) = &found.credential {
            return Ok(Token {
                header: secret_header(format!("Bearer {}", token.expose()))?,
                until: Instant::now() + Duration::from_secs(DEFAULT_LIFE),
            });
        }
        let invalid = || doing.answer(format!("that tokens are to be had at {realm:?}"));
        let url = Url::parse(realm).map_err(|_| invalid())?;
        let own = self.endpoint.url("x", "y")?;
        may_follow(&own, &url, &self.client.options).map_err(|why| doing.answer(why))?;
        let doing = Doing {
            what: "asking for a token".to_owned(),
            place: url.host_str().unwrap_or_default().to_owned(),
        };
        let client = self.endpoint.client(&url, &self.client)?;
        let request = token_request(&client, url, service, scopes, found)?;
        let response = self.head(request.send(), &doing).await?;
        if !response.status().is_success() {
            let mut failure = doing
                .refusal(response, self.client.options.idle_timeout)
                .await;
            if let (OciError::Denied { reason, .. }, None) = (&mut failure.error, &found.credential)
            {
                *reason = format!("{reason}; {}", self.nothing_found(found));
            }
            return Err(failure);
        }
        let bytes = match read_bounded(response, MOST_BYTES, self.client.options.idle_timeout).await
        {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(doing.answer("too much").into()),
            Err(Some(error)) => return Err(doing.transport(error)),
            Err(None) => return Err(Failure::for_now(doing.unreachable("it breaks off"))),
        };
        read_token(&bytes, &doing)
    }
}

/// An identity token is posted, a password is a header, and whoever has neither just asks.
fn token_request(
    client: &Client,
    mut url: Url,
    service: Option<&str>,
    scopes: &[String],
    found: &Found,
) -> Result<RequestBuilder, OciError> {
    if let Some(Credential::Identity(token)) = &found.credential {
        // Forms are written as queries are.
        let mut form = url.clone();
        form.query_pairs_mut()
            .clear()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", service.unwrap_or_default())
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", token.expose());
        let body = form.query().unwrap_or_default().to_owned();
        let form = client.request(Method::POST, url);
        return Ok(form
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body));
    }
    let mut query = url.query_pairs_mut();
    if let Some(service) = service {
        query.append_pair("service", service);
    }
    for scope in scopes {
        query.append_pair("scope", scope);
    }
    let password = match &found.credential {
        Some(Credential::Password { user, password }) => {
            query
                .append_pair("account", user)
                .append_pair("client_id", CLIENT_ID);
            Some(basic(user, password.expose())?)
        }
        _ => None,
    };
    drop(query);
    let request = client.request(Method::GET, url);
    Ok(match password {
        Some(password) => request.header(AUTHORIZATION, password),
        None => request,
    })
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

fn read_token(bytes: &[u8], doing: &Doing) -> Result<Token, Failure> {
    // serde's own words may hold parts of the token.
    let answer: TokenAnswer =
        serde_json::from_slice(bytes).map_err(|_| doing.answer("something that is no token"))?;
    let filled = |token: Option<String>| token.filter(|token| !token.is_empty());
    let Some(token) = filled(answer.token).or(filled(answer.access_token)) else {
        return Err(doing.answer("without a token").into());
    };
    // A life that overflows the clock is long enough.
    let life = answer.expires_in.unwrap_or(DEFAULT_LIFE).min(24 * 60 * 60);
    let life = Duration::from_secs(life);
    Ok(Token {
        header: secret_header(format!("Bearer {token}"))?,
        until: Instant::now() + life.saturating_sub(MARGIN),
    })
}

fn basic(user: &str, password: &str) -> Result<HeaderValue, OciError> {
    let both = BASE64_STANDARD.encode(format!("{user}:{password}"));
    secret_header(format!("Basic {both}"))
}

fn secret_header(text: String) -> Result<HeaderValue, OciError> {
    let mut header = HeaderValue::try_from(text).map_err(|_| {
        OciError::invalid("credentials", "they hold characters that cannot be sent")
    })?;
    header.set_sensitive(true);
    Ok(header)
}
