//! The option, and what decides where it is not given.

use clap::{Args, ValueEnum};
use hm_vm::docker::EngineKind;
use hm_vm::store::Store;
use hm_vm::{HmVm, VmConfig};

use super::auto;
use super::daemon;
use super::keeper::Keeper;
use super::opened::{Looked, Opened};
use crate::app::App;
use crate::failure::{Problem, Report, contract};

/// What isolates the VM.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct BackendArgs {
    /// What isolates VMs, and keeps their snapshots [default: the pipeline's, else the configuration's, else auto]
    #[arg(long, value_enum, value_name = "BACKEND")]
    backend: Option<BackendChoice>,
}

/// Value of `--backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendChoice {
    /// The first one that works here, in this order
    Auto,
    /// Linux namespaces and overlayfs
    Sandbox,
    /// Containers of a Docker
    Docker,
    /// Containers of a Podman service
    Podman,
}

impl BackendChoice {
    /// The name that users write.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Sandbox => "sandbox",
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Opens the backend of this name; without one, the sandbox.
    ///
    /// # Errors
    ///
    /// It cannot be used here.
    pub(crate) fn open(self, app: &App, store: &Store) -> anyhow::Result<Keeper> {
        let kind = match self {
            Self::Auto | Self::Sandbox => return Ok(Keeper::Store(store.clone())),
            Self::Docker => EngineKind::Docker,
            Self::Podman => EngineKind::Podman,
        };
        daemon::open(app, store, kind).map(Keeper::Daemon)
    }

    /// Reads the name that a file has. `whose` is the file's.
    fn read(name: &str, whose: &str) -> Result<Self, Problem> {
        Self::from_str(name, false).map_err(|_| {
            let known: Vec<&str> = Self::value_variants()
                .iter()
                .map(|choice| choice.name())
                .collect();
            Problem::new(format!("the {whose} backend {name:?} is not known"))
                .hint(format!("this version has: {}", known.join(", ")))
        })
    }
}

/// A backend that was found, and why those before it were not taken.
struct Found {
    keeper: Keeper,
    notices: Vec<String>,
}

impl BackendArgs {
    /// Opens the store and the engine on the chosen backend. `named` is what a pipeline file chooses; the user's
    /// choice goes before it.
    ///
    /// # Errors
    ///
    /// The store or the backend cannot be used, or no backend can.
    pub(crate) fn open(
        &self,
        app: &App,
        named: Option<&str>,
        config: VmConfig,
    ) -> anyhow::Result<Opened> {
        let store = app.store()?;
        let found = match self.choice(app, named)? {
            BackendChoice::Auto => {
                let is_weaker = !config.allow_weaker.is_empty();
                first_that_works(app, &store, is_weaker)?
            }
            choice => Found {
                keeper: choice.open(app, &store)?,
                notices: Vec::new(),
            },
        };
        let Found { keeper, notices } = found;
        let registry = keeper.registry(app)?;
        Ok(Opened {
            engine: HmVm::new(keeper.backend()?, registry, config),
            store,
            keeper,
            notices,
        })
    }

    /// The snapshots and the keys of the backend that [`open`](Self::open) would take. Where none works, those of the
    /// sandbox: they can be looked at without.
    ///
    /// # Errors
    ///
    /// The store or the backend cannot be used.
    pub(crate) fn look(&self, app: &App) -> anyhow::Result<Looked> {
        let store = app.store()?;
        let keeper = match self.choice(app, None)? {
            BackendChoice::Auto => match first_that_works(app, &store, false) {
                Ok(found) => found.keeper,
                Err(_) => Keeper::Store(store.clone()),
            },
            choice => choice.open(app, &store)?,
        };
        Ok(Looked { store, keeper })
    }

    /// Whether the user has chosen.
    pub(crate) fn is_chosen(&self) -> bool {
        self.backend.is_some()
    }

    fn choice(&self, app: &App, named: Option<&str>) -> anyhow::Result<BackendChoice> {
        if let Some(choice) = self.backend {
            return Ok(choice);
        }
        if let Some(name) = named {
            return Ok(BackendChoice::read(name, "pipeline's")?);
        }
        match &app.configuration()?.backend {
            Some(name) => Ok(BackendChoice::read(name, "configuration's")?),
            None => Ok(BackendChoice::Auto),
        }
    }
}

/// The first backend that works, in the order sandbox, Docker, Podman.
fn first_that_works(app: &App, store: &Store, is_weaker: bool) -> anyhow::Result<Found> {
    let lacking = auto::sandbox_lacks(store, is_weaker);
    let Some(lacking) = lacking else {
        return Ok(Found {
            keeper: Keeper::Store(store.clone()),
            notices: Vec::new(),
        });
    };
    let mut reasons = vec![format!("sandbox: {lacking}")];
    for choice in [BackendChoice::Docker, BackendChoice::Podman] {
        match choice.open(app, store) {
            Ok(keeper) => {
                let name = keeper.name();
                let notice = format!("VMs are isolated by {name}; {}", reasons.join("; "));
                return Ok(Found {
                    keeper,
                    notices: vec![notice],
                });
            }
            Err(error) => match contract(&error) {
                Some(hm_vm::Error::BackendUnavailable { reason, .. }) => {
                    reasons.push(format!("{}: {reason}", choice.name()));
                }
                _ => {
                    let told = Report::of(&error).message.unwrap_or_default();
                    reasons.push(format!("{}: {told}", choice.name()));
                }
            },
        }
    }
    let message = format!("no backend works here: {}", reasons.join("; "));
    Err(Problem::new(message)
        .hint("hmvm doctor says what this machine lacks, and how to get it")
        .into())
}
