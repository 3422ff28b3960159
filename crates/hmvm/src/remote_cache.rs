//! Which cache is shared with other machines.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use hm_pipeline::parse::read_remote_cache;
use hm_pipeline::{RemoteCacheMode, RemoteCacheRule};
use hm_vm::oci::{Reference, RegistryOptions};
use hm_vm::remote::{CacheMode, OciCache, OciCacheOptions, RemoteCache, RemoteReport};
use hm_vm::store::Store;
use hm_vm::{Cancellation, HmVm, VmBackend as _};

use crate::app::App;
use crate::backend::Keeper;
use crate::failure::Problem;
use crate::images::client::client_with;
use crate::output::sanitize::sanitize;
use crate::output::{Ui, human};

/// The options that choose the shared cache.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Shared cache")]
pub(crate) struct RemoteCacheArgs {
    /// Share results with other machines through this repository of a registry
    /// [default: $HMVM_REMOTE_CACHE, else the pipeline's, else the configuration's, else none]
    #[arg(long, value_name = "REGISTRY/REPO[,mode=MODE]", value_parser = parse)]
    remote_cache: Option<RemoteCacheRule>,
    /// Give results to the shared cache as well (read-write), or take them alone (read-only)
    /// [default: read-write]
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    remote_cache_mode: Option<RemoteCacheMode>,
    /// Share nothing
    #[arg(long, conflicts_with_all = ["remote_cache", "remote_cache_mode"])]
    no_remote_cache: bool,
}

/// A shared cache that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChosenCache {
    pub(crate) repository: String,
    pub(crate) mode: RemoteCacheMode,
    /// An option of the command line says so.
    pub(crate) is_asked_for: bool,
}

impl RemoteCacheArgs {
    /// The shared cache, if there is to be one: the option goes before the environment, then the pipeline file,
    /// then the configuration.
    pub(crate) fn choose(
        &self,
        app: &App,
        pipeline: Option<&RemoteCacheRule>,
    ) -> anyhow::Result<Option<ChosenCache>> {
        if self.no_remote_cache {
            return Ok(None);
        }
        let rule = match (&self.remote_cache, &app.environment.remote_cache, pipeline) {
            (Some(rule), _, _) => Some(rule.clone()),
            (None, Some(text), _) => Some(from_environment(text)?),
            (None, None, Some(rule)) => Some(rule.clone()),
            (None, None, None) => app.configuration()?.remote_cache.clone(),
        };
        Ok(rule.map(|rule| ChosenCache {
            repository: rule.repository,
            mode: self.remote_cache_mode.or(rule.mode).unwrap_or_default(),
            is_asked_for: self.remote_cache.is_some(),
        }))
    }
}

fn from_environment(text: &str) -> Result<RemoteCacheRule, Problem> {
    read_remote_cache(text).map_err(|wrong| {
        let problem = Problem::new(format!("HMVM_REMOTE_CACHE={text}: {}", wrong.message));
        match wrong.suggestion {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    })
}

fn parse(text: &str) -> Result<RemoteCacheRule, String> {
    read_remote_cache(text).map_err(|wrong| match wrong.suggestion {
        Some(hint) => format!("{}\nhint: {hint}", wrong.message),
        None => wrong.message,
    })
}

fn parse_mode(text: &str) -> Result<RemoteCacheMode, String> {
    let found = RemoteCacheMode::ALL
        .into_iter()
        .find(|mode| mode.name() == text);
    found.ok_or_else(|| "no mode\nhint: write read-write or read-only".to_owned())
}

/// How long a connection to a shared cache may take, and how long it may say nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to store what it has got whole, and how often something is tried again: the run waits for it.
const STORING_TIMEOUT: Duration = Duration::from_secs(20);
const RETRIES: u32 = 1;

/// How long the program waits at its end for results to be shared.
const FINISH_LIMIT: Duration = Duration::from_secs(300);

/// After this time, the program says what it waits for.
const QUIET_FOR: Duration = Duration::from_secs(2);

/// A shared cache in use.
#[derive(Debug)]
pub(crate) struct SharedCache {
    ui: Ui,
    chosen: ChosenCache,
    cache: Arc<dyn RemoteCache>,
    notices: Arc<Notices>,
}

impl SharedCache {
    /// Gives the engine the shared cache that was chosen. `cancel` ends all that it does.
    ///
    /// # Errors
    ///
    /// The configuration cannot be used, the repository is none, or the user asks for what the backend cannot do.
    pub(crate) fn attach(
        app: &App,
        engine: HmVm,
        (store, keeper): (&Store, &Keeper),
        chosen: Option<ChosenCache>,
        cancel: &Cancellation,
    ) -> anyhow::Result<(HmVm, Option<Self>)> {
        let Some(chosen) = chosen else {
            return Ok((engine, None));
        };
        if let Keeper::Daemon(daemon) = keeper {
            let message = format!(
                "results are shared from the sandbox's store: the {} backend has none to share",
                daemon.name()
            );
            if chosen.is_asked_for {
                return Err(Problem::new(message)
                    .hint("leave out --remote-cache, or use --backend sandbox")
                    .into());
            }
            app.ui.notice(&message);
            return Ok((engine, None));
        }
        let repository: Reference = chosen
            .repository
            .parse()
            .with_context(|| format!("shared cache {}", chosen.repository))?;
        let times = RegistryOptions {
            connect_timeout: CONNECT_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            storing_timeout: STORING_TIMEOUT,
            retries: RETRIES,
            ..RegistryOptions::default()
        };
        let client = client_with(app, times, cancel)?;
        let notices = Arc::new(Notices::of(&app.ui));
        let told = Arc::clone(&notices);
        let options = OciCacheOptions {
            mode: match chosen.mode {
                RemoteCacheMode::ReadOnly => CacheMode::ReadOnly,
                RemoteCacheMode::ReadWrite => CacheMode::ReadWrite,
            },
            notice: Some(Arc::new(move |text: &str| told.tell(text))),
            ..OciCacheOptions::default()
        };
        let cache = OciCache::new(store.clone(), &client, &repository, options);
        let cache: Arc<dyn RemoteCache> = Arc::new(cache);
        let shared = Self {
            ui: app.ui.clone(),
            chosen,
            cache: Arc::clone(&cache),
            notices,
        };
        Ok((engine.with_remote_cache(cache), Some(shared)))
    }

    /// From now on, what the cache has to tell goes to `tell`, and no longer to standard error.
    pub(crate) fn tell_to(&self, tell: impl Fn(&str) + Send + Sync + 'static) {
        self.notices.send_to(Box::new(tell));
    }

    /// Waits until all results are shared, or cannot be. Cancelled, or after five minutes, it waits no longer.
    pub(crate) async fn finish(&self, cancel: &Cancellation) -> RemoteReport {
        let say = async {
            tokio::time::sleep(QUIET_FOR).await;
            self.ui.say(format_args!(
                "hmvm: sharing results with {} (Ctrl-C ends that)",
                sanitize(&self.chosen.repository)
            ));
            std::future::pending().await
        };
        tokio::select! {
            report = self.cache.finish(FINISH_LIMIT) => report,
            _ = cancel.cancelled() => self.cache.finish(Duration::ZERO).await,
            () = say => RemoteReport::default(),
        }
    }
}

/// `shared 3 results (1.2 MiB)`.
pub(crate) fn shared_text(results: u64, bytes: u64) -> String {
    let results = human::plural(results, "result");
    format!("shared {results} ({})", human::size(bytes))
}

/// What a person is told of results that were not shared.
pub(crate) fn troubles(report: &RemoteReport) -> Vec<String> {
    let mut lines = Vec::new();
    // The others will have failed for the same reason.
    if let Some(first) = report.failed.first() {
        let count = u64::try_from(report.failed.len()).unwrap_or(u64::MAX);
        let were = human::plural(count, "result was|results were");
        lines.push(format!("{were} not shared: {}", sanitize(first)));
    }
    if report.unfinished > 0 {
        let were = human::plural(report.unfinished, "result was|results were");
        lines.push(format!("{were} not shared in time"));
    }
    lines
}

/// What shows a text to the user.
type Tell = Box<dyn Fn(&str) + Send + Sync>;

/// Where the notices of a shared cache go; each text once.
struct Notices {
    tell: Mutex<Tell>,
    told: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notices").finish_non_exhaustive()
    }
}

impl Notices {
    fn of(ui: &Ui) -> Self {
        let ui = ui.clone();
        Self {
            tell: Mutex::new(Box::new(move |text| ui.notice(&sanitize(text)))),
            told: Mutex::default(),
        }
    }

    fn send_to(&self, tell: Tell) {
        *self.tell.lock().unwrap_or_else(PoisonError::into_inner) = tell;
    }

    fn tell(&self, text: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(text.to_owned()) {
            drop(told);
            let tell = self.tell.lock().unwrap_or_else(PoisonError::into_inner);
            tell(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shared_is_told_and_what_was_not() {
        assert!(troubles(&RemoteReport::default()).is_empty());
        let report = RemoteReport {
            published: 2,
            bytes: 1 << 20,
            failed: vec!["full".into(), "full as well".into()],
            unfinished: 1,
        };
        let expected = [
            "2 results were not shared: full",
            "1 result was not shared in time",
        ];
        assert_eq!(troubles(&report), expected);
        let text = shared_text(report.published, report.bytes);
        assert_eq!(text, "shared 2 results (1 MiB)");
    }

    #[test]
    fn options_say_repository_and_mode() {
        let rule = parse("r.example/c,mode=read-only").expect("a cache");
        assert_eq!(rule.repository, "r.example/c");
        assert_eq!(rule.mode, Some(RemoteCacheMode::ReadOnly));
        let told = parse("r.example").expect_err("no repository");
        assert!(told.contains("\nhint: "), "{told}");
        assert_eq!(parse_mode("read-write"), Ok(RemoteCacheMode::ReadWrite));
        assert!(parse_mode("write").is_err());
    }
}
