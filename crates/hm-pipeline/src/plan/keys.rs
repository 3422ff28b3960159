//! The keys that results are cached under.
//!
//! | enters a step's key | does not, and why |
//! |---|---|
//! | digest of the image, or key of the parent | image name: a tag moves |
//! | the command, the shell, the working directory, the user | limits, timeout, retries: they decide whether it succeeds, not what it makes |
//! | environment of the pipeline and the step | the host's environment |
//! | digests of the injects, with their targets; of the extra inputs | outputs and condition: they change nothing inside |
//! | names and forms of secrets | their values: a key is no secret |
//! | definitions of the services, with the digest or key of what they start from | caches: they only save time, as the file promises |
//! | network policy, platform, backend | |

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use hm_vm_core::{InjectSource, KeyBase, KeyComponents};
use serde::Serialize;

use super::digests::{Digests, Wanted};
use super::inputs::PlanInputs;
use super::model::{PlannedInject, RunReason};
use crate::pipeline::{
    CacheMode, Pipeline, ReadyCheck, SecretForm, SecretUse, Service, Step, StepBase, StepId,
};

/// A step's key, or why it has none.
#[derive(Clone, Debug)]
pub(super) enum StepKey {
    /// Its key, and what it derives from.
    Known(String, Option<Box<KeyComponents>>),
    /// The step is not cached, for this reason.
    None(RunReason),
}

impl StepKey {
    /// The key.
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::Known(key, _) => Some(key),
            Self::None(_) => None,
        }
    }
}

/// Derives keys. What is needed for it has been asked for.
pub(super) struct Derivation<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) inputs: &'a dyn PlanInputs,
    pub(super) platform: String,
    pub(super) digests: Digests<'a>,
}

/// Names all that must be digested for the keys of these steps, which are in order.
pub(super) fn wanted<'a>(
    pipeline: &'a Pipeline,
    active: &[StepId],
    injects: &'a [Vec<PlannedInject>],
    extra_inputs: &'a [Option<InjectSource>],
) -> Wanted<'a> {
    let mut cached = vec![true; pipeline.steps.len()];
    let mut wanted = Wanted::default();
    for id in active {
        let step = pipeline.step(*id);
        cached[id.0] =
            step.cache.mode != CacheMode::Off && step.sources().all(|source| cached[source.0]);
        if !cached[id.0] || step.cache.mode != CacheMode::Auto {
            continue;
        }
        let services = step.services.iter().map(|service| &service.base);
        for base in std::iter::once(&step.base).chain(services) {
            if let StepBase::Image(image) = base {
                wanted.image(image, &step.name);
            }
        }
        let sources = injects[id.0].iter().map(|inject| &inject.source);
        for source in sources.chain(&extra_inputs[id.0]) {
            wanted.source(source, &step.name);
        }
    }
    wanted
}

/// The host files that a step depends on beside its injects.
pub(super) fn extra_inputs(pipeline: &Pipeline, step: &Step) -> Option<InjectSource> {
    (!step.cache.inputs.is_empty()).then(|| InjectSource {
        directory: pipeline.directory.clone(),
        include: step.cache.inputs.clone(),
        exclude: Vec::new(),
        ignore_files: false,
    })
}

impl Derivation<'_> {
    /// The key of a step. `keys` has those of the steps before it.
    pub(super) fn key(
        &self,
        id: StepId,
        keys: &[StepKey],
        injects: &[PlannedInject],
        extra_inputs: Option<&InjectSource>,
    ) -> Result<StepKey> {
        let step = self.pipeline.step(id);
        if step.cache.mode == CacheMode::Off {
            return Ok(StepKey::None(RunReason::CacheOff));
        }
        if let Some(source) = step.sources().find(|id| keys[id.0].key().is_none()) {
            return Ok(StepKey::None(RunReason::ParentUncached(source)));
        }
        if let CacheMode::Key(key) = &step.cache.mode {
            return Ok(StepKey::Known(key.clone(), None));
        }
        Ok(match self.components(step, keys, injects, extra_inputs)? {
            Some(components) => StepKey::Known(components.key().into(), Some(Box::new(components))),
            None => StepKey::None(RunReason::NoDigest),
        })
    }

    /// What a step's key derives from. `None` where a digest is not known.
    fn components(
        &self,
        step: &Step,
        keys: &[StepKey],
        injects: &[PlannedInject],
        extra_inputs: Option<&InjectSource>,
    ) -> Result<Option<KeyComponents>> {
        let Some(base) = self.base(&step.base, keys) else {
            return Ok(None);
        };
        let mut components = KeyComponents {
            base,
            cmd: step.run.clone(),
            env: step.env.clone(),
            working_dir: step.working_dir.clone(),
            inject: None,
            user: step.user.clone(),
            network: step.network,
            platform: self.platform.clone(),
            extra: BTreeMap::from([("backend".to_owned(), self.inputs.backend().to_owned())]),
        };
        let extra = &mut components.extra;
        for inject in injects {
            let Some(digest) = self.digests.source(&inject.source).cloned() else {
                return Ok(None);
            };
            if inject.target == step.working_dir {
                components.inject = Some(digest);
            } else {
                extra.insert(format!("inject:{}", inject.target), digest);
            }
        }
        if let Some(source) = extra_inputs {
            let Some(digest) = self.digests.source(source).cloned() else {
                return Ok(None);
            };
            extra.insert(format!("input:{}", source.include.join(" ")), digest);
        }
        let shell = step.shell.iter();
        extra.extend(shell.map(|shell| ("shell".to_owned(), shell.clone())));
        extra.extend(step.secrets.iter().map(secret));
        for service in &step.services {
            let Some(base) = self.base(&service.base, keys) else {
                return Ok(None);
            };
            let text = definition(service, &base)
                .with_context(|| format!("service {:?} of step {:?}", service.name, step.name))?;
            extra.insert(format!("service:{}", service.name), text);
        }
        Ok(Some(components))
    }

    fn base(&self, base: &StepBase, keys: &[StepKey]) -> Option<KeyBase> {
        Some(match base {
            StepBase::Image(image) => KeyBase::ImageDigest(self.digests.image(image)?.clone()),
            StepBase::Step(id) => KeyBase::ParentKey(keys[id.0].key()?.to_owned()),
        })
    }
}

fn secret(secret: &SecretUse) -> (String, String) {
    let form = match &secret.form {
        SecretForm::File(path) => format!("file {path}"),
        SecretForm::Variable(name) => format!("variable {name}"),
    };
    (format!("secret:{}", secret.name), form)
}

/// What a service is, as a text.
fn definition(service: &Service, base: &KeyBase) -> Result<String> {
    /// In this order; a field that is absent is left out.
    #[derive(Serialize)]
    struct Definition<'a> {
        base: &'a KeyBase,
        run: &'a str,
        env: &'a BTreeMap<String, String>,
        working_dir: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ready: Option<String>,
    }
    let ready = service.ready.as_ref().map(|ready| match &ready.check {
        ReadyCheck::Port(port) => format!("port {port}"),
        ReadyCheck::Command(command) => format!("command {command}"),
        ReadyCheck::Line(line) => format!("line {line}"),
    });
    Ok(serde_json::to_string(&Definition {
        base,
        run: &service.run,
        env: &service.env,
        working_dir: &service.working_dir,
        user: service.user.as_deref(),
        ready,
    })?)
}
