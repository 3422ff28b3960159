//! Inheritance along `from`, and defaults.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use super::expand::Expanded;
use super::forms::Line;
use super::link::Links;
use super::model::{PipelineTable, ReadyTable, ServiceTable, StepTable};
use super::names::VariableName;
use super::parts;
use super::reader::Reader;
use super::unions::EnvValue;
use super::values::{As, Map, Must, Text};
use crate::pipeline::{
    CacheRule, Inject, Pipeline, Ready, ReadyCheck, Service, Step, StepBase, StepId, StepLimits,
};

/// Image of a step where the file names none.
pub(crate) const DEFAULT_IMAGE: &str = "host";

/// How long a service may take to be ready where the file does not say it.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// What a step hands on to those that fork from it. Absent is what nobody chose.
#[derive(Clone, Debug, Default)]
struct Inherited {
    working_dir: Option<String>,
    user: Option<String>,
    shell: Option<String>,
}

/// What holds for all steps.
struct Common<'a> {
    directory: &'a Path,
    image: String,
    env: BTreeMap<String, String>,
}

/// Makes the pipeline. Steps that could not be read are left out, which is noted already.
pub(crate) fn build(
    table: Option<PipelineTable>,
    expanded: Vec<Expanded>,
    links: &[Links],
    directory: &Path,
    reader: &mut Reader<'_>,
) -> Option<Pipeline> {
    let mut table = table;
    let mut take = |pick: fn(&mut PipelineTable) -> Option<As<Line>>| {
        table.as_mut().and_then(pick).map(|text| text.value)
    };
    let name = take(|table| table.name.take()).unwrap_or_else(|| directory_name(directory));
    let image = take(|table| table.image.take()).unwrap_or_else(|| DEFAULT_IMAGE.to_owned());
    let backend = take(|table| table.backend.take());
    let common = Common {
        directory,
        image,
        env: environment(table.as_mut().and_then(|table| table.env.take())),
    };
    let inherited = inherit(&expanded, links);
    let mut steps = Vec::with_capacity(expanded.len());
    for (index, step) in expanded.into_iter().enumerate() {
        let built = build_step(step, &links[index], &inherited, index, &common, reader);
        steps.extend(built);
    }
    let table = table.as_ref();
    Some(Pipeline {
        name,
        directory: directory.to_owned(),
        backend,
        timeout: table
            .and_then(|table| table.timeout.as_ref())
            .map(|time| time.value),
        parallelism: table
            .and_then(|table| table.parallelism)
            .and_then(|count| usize::try_from(count.0).ok())
            .and_then(NonZeroUsize::new),
        changed_since: table
            .and_then(|table| table.changed_since.as_ref())
            .map(|revision| revision.value.clone()),
        remote_cache: table
            .and_then(|table| table.remote_cache.as_ref())
            .map(super::registries::remote_cache),
        steps,
    })
}

/// Name of a pipeline that has none.
pub(crate) fn directory_name(directory: &Path) -> String {
    directory.file_name().map_or_else(
        || "pipeline".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// What each step hands on. Ends where there are cycles too, which are problems noted already.
fn inherit(steps: &[Expanded], links: &[Links]) -> Vec<Inherited> {
    let mut known: Vec<Option<Inherited>> = vec![None; steps.len()];
    for index in 0..steps.len() {
        // The chain up to what is known; chains may be longer than the stack is deep.
        let mut chain = vec![index];
        let mut inherited = Inherited::default();
        while let Some(&last) = chain.last() {
            if let Some(found) = &known[last] {
                inherited = found.clone();
                chain.pop();
                break;
            }
            match links[last].from {
                Some(arrow) if chain.len() <= steps.len() => chain.push(arrow.to),
                _ => break,
            }
        }
        for at in chain.into_iter().rev() {
            if let Some(table) = &steps[at].table {
                let own = |text: &Option<As<Line>>| text.as_ref().map(|text| text.value.clone());
                let chosen = table.workdir.as_ref().map(|path| path.value.clone());
                let default = || parts::injects_untargeted(table).then(|| "/src".to_owned());
                inherited = Inherited {
                    working_dir: chosen.or(inherited.working_dir).or_else(default),
                    user: own(&table.user).or(inherited.user),
                    shell: own(&table.shell).or(inherited.shell),
                };
            }
            known[at] = Some(inherited.clone());
        }
    }
    known.into_iter().map(Option::unwrap_or_default).collect()
}

fn build_step(
    step: Expanded,
    links: &Links,
    inherited: &[Inherited],
    index: usize,
    common: &Common<'_>,
    reader: &mut Reader<'_>,
) -> Option<Step> {
    let mut table = step.table?;
    let own = inherited[index].clone();
    let working_dir = own.working_dir.unwrap_or_default();
    let base = step_base(&table, links, common, reader);
    let from = links.from.map(|arrow| arrow.to);
    let needs = links.needs.iter().map(|arrow| arrow.to);
    let needs = needs.filter(|to| Some(*to) != from).map(StepId).collect();
    let injects: Vec<Inject> = parts::injects(table.inject.take(), &working_dir, reader);
    let cache: CacheRule = parts::cache_rule(table.cache.take(), reader);
    let outputs = parts::outputs(table.outputs.take(), common.directory, reader);
    let caches = parts::caches(table.caches.take());
    let mut env = common.env.clone();
    env.extend(environment(table.env.take()));
    let secrets = parts::secrets(table.secrets.take(), &env, reader);
    parts::check_targets(&injects, &caches, &secrets, reader);
    let mut services = Vec::new();
    for ((name, service), from) in table
        .services
        .take()
        .map_or_else(Vec::new, |map| map.entries)
        .into_iter()
        .zip(&links.services)
    {
        let from = from.map(|arrow| arrow.to);
        services.extend(build_service(
            name, service, from, inherited, common, reader,
        ));
    }
    debug_assert!(table.matrix.is_none(), "a step has its matrix behind it");
    Some(Step {
        name: step.name,
        group: step.group,
        run: table.run.0?.value,
        shell: own.shell,
        base,
        needs,
        injects,
        working_dir,
        env,
        user: own.user,
        timeout: table.timeout.map(|time| time.value),
        retries: table.retries.map_or(0, |count| clamp(count.0)),
        limits: StepLimits {
            cpus: table.cpus.map(|count| clamp(count.0)),
            memory_mib: table.memory.map(|size| size.value),
            disk_gib: table.disk.map(|size| size.value),
            pids: table.pids.map(|count| clamp(count.0)),
        },
        network: table
            .network
            .map_or_else(Default::default, |network| network.value),
        cache,
        condition: table.r#if.map(|condition| condition.value),
        outputs,
        caches: caches.into_iter().map(|(_, cache)| cache).collect(),
        secrets: secrets.into_iter().map(|(_, secret)| secret).collect(),
        allow_failure: table.allow_failure.is_some_and(|value| value.0),
        services,
    })
}

/// Counts are in bounds that fit.
fn clamp(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn step_base(
    table: &StepTable,
    links: &Links,
    common: &Common<'_>,
    reader: &mut Reader<'_>,
) -> StepBase {
    base(
        table.from.as_ref(),
        table.image.as_ref(),
        links.from.map(|arrow| arrow.to),
        common,
        reader,
    )
}

fn base(
    from: Option<&Text>,
    image: Option<&As<Line>>,
    step: Option<usize>,
    common: &Common<'_>,
    reader: &mut Reader<'_>,
) -> StepBase {
    if let (Some(_), Some(image)) = (from, image) {
        reader.report(
            image.span,
            "`image` and `from` exclude each other",
            "remove one of them: a step starts either from an image or from another step",
        );
    }
    match (step, image) {
        (Some(step), _) => StepBase::Step(StepId(step)),
        (None, Some(image)) => StepBase::Image(image.value.clone()),
        (None, None) => StepBase::Image(common.image.clone()),
    }
}

fn environment(table: Option<Map<VariableName, EnvValue>>) -> BTreeMap<String, String> {
    let entries = table.map_or_else(Vec::new, |map| map.entries);
    entries
        .into_iter()
        .map(|(name, value)| (name.text, value.0))
        .collect()
}

fn build_service(
    name: Text,
    table: ServiceTable,
    from: Option<usize>,
    inherited: &[Inherited],
    common: &Common<'_>,
    reader: &mut Reader<'_>,
) -> Option<Service> {
    let base = base(
        table.from.as_ref(),
        table.image.as_ref(),
        from,
        common,
        reader,
    );
    let parent = from.map(|from| inherited[from].clone()).unwrap_or_default();
    let mut env = common.env.clone();
    env.extend(environment(table.env));
    let workdir = table.workdir.map(|path| path.value);
    let user = table.user.map(|user| user.value);
    let ready = match table.ready {
        Some(ready) => Some(read_ready(ready, &name, reader)?),
        None => None,
    };
    Some(Service {
        name: name.text,
        base,
        run: table.run.0?.value,
        env,
        working_dir: workdir.or(parent.working_dir).unwrap_or_default(),
        user: user.or(parent.user),
        limits: StepLimits {
            cpus: table.cpus.map(|count| clamp(count.0)),
            memory_mib: table.memory.map(|size| size.value),
            disk_gib: table.disk.map(|size| size.value),
            pids: table.pids.map(|count| clamp(count.0)),
        },
        ready,
    })
}

fn read_ready(table: ReadyTable, name: &Text, reader: &mut Reader<'_>) -> Option<Ready> {
    let given = [
        table.port.is_some(),
        table.run.is_some(),
        table.line.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() != 1 {
        reader.report(
            name.span,
            format!("`ready` of `{}` needs one of port, run and line", name.text),
            "write for example: ready = { port = 5432 }",
        );
        return None;
    }
    let port = table
        .port
        .and_then(|Must(port)| u16::try_from(port?.0).ok());
    let command = table.run.and_then(|Must(run)| Some(run?.value));
    let line = table.line.and_then(|Must(line)| Some(line?.value));
    let check = port
        .map(ReadyCheck::Port)
        .or(command.map(ReadyCheck::Command))
        .or(line.map(ReadyCheck::Line))?;
    Some(Ready {
        check,
        timeout: table.timeout.map_or(READY_TIMEOUT, |time| time.value),
    })
}
