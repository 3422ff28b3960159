//! One request: who we are, redirects, time limits.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};

use super::answer::{Doing, Failure, read_bounded};
use super::challenge::Challenge;
use super::client::Inner;
use super::endpoint::{Encryption, Endpoint, may_follow};
use super::token::Access;
use crate::OciError;

const MOST_REDIRECTS: usize = 5;
/// What is read of an answer that nobody wants, so that its connection can be used again.
const MOST_UNWANTED: u64 = 64 << 10;

/// Requests to one server.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) client: Arc<Inner>,
    pub(super) endpoint: Arc<Endpoint>,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// A part of a repository.
    Part { repository: String, part: String },
    /// An address that the server has named.
    Address(Url),
}

/// A request that can be sent again.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    pub(super) access: Access,
    pub(super) doing: Doing,
}

impl Session {
    /// Sends a request, tells who we are if that is wanted, and follows redirects of what is read. Any status but 401 is
    /// a success.
    pub(super) async fn send(&self, call: &Call) -> Result<Response, Failure> {
        let known = self.known_authorization(&call.access, &call.doing).await?;
        let response = self.first(call, known.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.follow(call, response, known.as_ref()).await;
        }
        let Some(challenge) = Challenge::of(response.headers()) else {
            return Err(self.refusal(call, response).await);
        };
        let _ = read_bounded(response, MOST_UNWANTED, self.idle()).await;
        let told = self
            .new_authorization(challenge, &call.access, known.as_ref(), &call.doing)
            .await?;
        let response = self.once(call, self.url(call)?, Some(&told)).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(self.refusal(call, response).await);
        }
        self.follow(call, response, Some(&told)).await
    }

    /// What the server says that is not what was hoped for.
    pub(super) async fn refusal(&self, call: &Call, response: Response) -> Failure {
        let mut failure = call.doing.refusal(response, self.idle()).await;
        if let OciError::Denied { reason, .. } = &mut failure.error
            && let Some(hint) = self.hint(&call.access).await
        {
            *reason = format!("{reason}; {hint}");
        }
        failure
    }

    pub(super) fn idle(&self) -> Duration {
        self.client.options.idle_timeout
    }

    /// Waits for the beginning of an answer.
    pub(super) async fn head(
        &self,
        answer: impl Future<Output = reqwest::Result<Response>>,
        doing: &Doing,
    ) -> Result<Response, Failure> {
        let limit = self.client.options.connect_timeout + self.idle();
        match tokio::time::timeout(limit, answer).await {
            Ok(outcome) => outcome.map_err(|error| doing.transport(error)),
            Err(_) => {
                let reason = "it does not answer in time";
                Err(Failure::for_now(doing.unreachable(reason)))
            }
        }
    }

    fn url(&self, call: &Call) -> Result<Url, Failure> {
        match &call.target {
            Target::Part { repository, part } => Ok(self.endpoint.url(repository, part)?),
            Target::Address(url) => Ok(url.clone()),
        }
    }

    /// Finds out whether a server on loopback speaks TLS: one that does refuses what is sent without.
    async fn first(
        &self,
        call: &Call,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let outcome = self.once(call, self.url(call)?, authorization).await;
        if self.endpoint.encryption() != Encryption::Unknown {
            return outcome;
        }
        let may_be_tls = match &outcome {
            Ok(response) => {
                response.status() == StatusCode::BAD_REQUEST
                    && !response
                        .headers()
                        .contains_key("docker-distribution-api-version")
            }
            Err(failure) => failure.error.to_string().contains("the connection broke"),
        };
        if !may_be_tls {
            if outcome.is_ok() {
                self.endpoint.learn(Encryption::Never);
            }
            return outcome;
        }
        self.endpoint.learn(Encryption::Always);
        match self.once(call, self.url(call)?, authorization).await {
            // It does speak TLS, but is a stranger.
            Err(failure) if !failure.may_pass => {
                self.endpoint.learn(Encryption::Unknown);
                Err(failure)
            }
            Err(_) => {
                self.endpoint.learn(Encryption::Unknown);
                outcome
            }
            encrypted => encrypted,
        }
    }

    async fn once(
        &self,
        call: &Call,
        url: Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let client = self.endpoint.client(&url, &self.client)?;
        let authorization = authorization.filter(|_| self.endpoint.owns(&url));
        let mut request = client
            .request(call.method.clone(), url)
            .headers(call.headers.clone());
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        self.head(request.send(), &call.doing).await
    }

    async fn follow(
        &self,
        call: &Call,
        mut response: Response,
        mut authorization: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        for _ in 0..=MOST_REDIRECTS {
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            if !matches!(call.method, Method::GET | Method::HEAD) {
                return Err(call
                    .doing
                    .answer("that it is to be written elsewhere")
                    .into());
            }
            let from = response.url().clone();
            let to = location(&response, &call.doing)?;
            may_follow(&from, &to, &self.client.options).map_err(|why| call.doing.answer(why))?;
            if !self.endpoint.owns(&to) {
                // For the rest of the way: who is there must not send us back with it.
                authorization = None;
            }
            let _ = read_bounded(response, MOST_UNWANTED, self.idle()).await;
            response = self.once(call, to, authorization).await?;
        }
        Err(call.doing.answer("with too many redirects").into())
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where an answer points to.
pub(super) fn location(response: &Response, doing: &Doing) -> Result<Url, Failure> {
    let text = response.headers().get(LOCATION);
    let text = text.and_then(|location| location.to_str().ok());
    let url = text.and_then(|text| response.url().join(text).ok());
    Ok(url.ok_or_else(|| doing.answer("without saying where to go on"))?)
}
