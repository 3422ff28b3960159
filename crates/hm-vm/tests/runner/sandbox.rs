//! What the fake backend cannot do, on the sandbox.

use std::num::NonZeroU64;
use std::sync::Arc;

use hm_vm::sandbox::{SandboxBackend, SandboxOptions};
use hm_vm::store::Store;
use hm_vm::{
    Action, CachingPolicy, Error, ExecuteOptions, ExecutionResult, HmVm, ImageRegistry,
    ImageSource, InjectSource, Mount, Phase, PrivateNetworkRequest, Secret, VmBackend as _,
    VmConfig, VmHandover, VmSlot,
};
use hm_vm_testkit::images;
use hm_vm_testkit::require;
use hm_vm_testkit::roots::TestRoot;
use hm_vm_testkit::skip::Skip;

use super::support::{Lines, cache, whole_log};

struct Place {
    engine: HmVm,
    backend: SandboxBackend,
    root: TestRoot,
}

fn place() -> Result<Place, Skip> {
    images::need_busybox()?;
    let root = TestRoot::new().unwrap();
    let store = Store::open(&root.join("store")).unwrap();
    images::busybox_root(&root.join("image")).unwrap();
    store.import_image(&root.join("image"), "busybox").unwrap();
    let path = store.root().join("registry.db");
    let registry = ImageRegistry::open(&path, NonZeroU64::new(100).unwrap()).unwrap();
    let backend = SandboxBackend::open(store, SandboxOptions::default()).unwrap();
    let engine = HmVm::new(Arc::new(backend.clone()), registry, VmConfig::default());
    Ok(Place {
        engine,
        backend,
        root,
    })
}

fn action(source: &Option<ExecutionResult>, cmd: &str) -> Action {
    Action {
        source: match source {
            Some(result) => ImageSource::Snapshot(result.snapshot.clone().unwrap()),
            None => ImageSource::Image("busybox".into()),
        },
        ..super::support::action(cmd)
    }
}

impl Place {
    async fn run(
        &self,
        action: Action,
        policy: CachingPolicy,
        options: ExecuteOptions,
    ) -> (ExecutionResult, Vec<String>) {
        let lines = Lines::default();
        let run = self
            .engine
            .execute_with(action, policy, &lines, options)
            .await;
        (run.unwrap(), lines.take())
    }
}

#[tokio::test]
async fn a_secret_and_a_cache_are_seen_masked_and_kept_out_of_snapshots() {
    let place = require!(place());
    let capabilities = place.backend.capabilities();
    if !capabilities.secret_mounts || !capabilities.cache_mounts {
        Skip::new("needs mounts of secrets and caches").report();
        return;
    }
    let log = place.root.join("log");
    let options = ExecuteOptions {
        mounts: vec![
            Mount::Secret {
                target: "/run/secrets/token".into(),
                content: Secret::new(b"hunter2\n".to_vec()),
            },
            Mount::Cache {
                name: "things".into(),
                target: "/cache".into(),
            },
        ],
        log: Some(log.clone()),
        ..ExecuteOptions::default()
    };
    let cmd = "cat /run/secrets/token; echo \"as word: $(cat /run/secrets/token)\"; \
               echo x > /cache/file; echo done > /file";
    let (first, lines) = place
        .run(action(&None, cmd), cache("k"), options.clone())
        .await;
    assert_eq!(lines, ["out ***", "out as word: ***"]);
    assert_eq!(whole_log(&log)[0], "***\nas word: ***\n");
    let look = "cat /file; cat /run/secrets/token /cache/file";
    let first = Some(first);
    let (_, lines) = place
        .run(
            action(&first, look),
            CachingPolicy::None,
            ExecuteOptions::default(),
        )
        .await;
    // The two streams come in no order to each other.
    let out: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("out"))
        .collect();
    assert_eq!(out, ["out done"], "{lines:?}");
    let again = ExecuteOptions {
        log: None,
        ..options
    };
    let (_, lines) = place
        .run(action(&first, look), CachingPolicy::None, again)
        .await;
    assert_eq!(lines, ["out done", "out ***", "out x"]);
}

#[tokio::test]
async fn a_command_runs_as_its_user_on_its_network() {
    let place = require!(place());
    let capabilities = place.backend.capabilities();
    if !capabilities.users || !capabilities.many_user_ids || !capabilities.private_networks {
        Skip::new("needs users and private networks").report();
        return;
    }
    let request = PrivateNetworkRequest {
        names: vec!["db".into()],
        ..PrivateNetworkRequest::default()
    };
    let network = place.backend.private_network(&request).await.unwrap();
    let options = ExecuteOptions {
        user: Some("1234".into()),
        network: Some(network),
        ..ExecuteOptions::default()
    };
    let cmd = "id -u; grep -c db /etc/hosts";
    let (_, lines) = place.run(action(&None, cmd), cache("k"), options).await;
    assert_eq!(lines, ["out 1234", "out 1"]);
    let unknown = ExecuteOptions {
        user: Some("nobody-knows".into()),
        ..ExecuteOptions::default()
    };
    let lines = Lines::default();
    let run = place
        .engine
        .execute_with(action(&None, "true"), cache("u"), &lines, unknown);
    let error = run.await.unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(Error::InvalidInput { .. })),
        "{error:#}"
    );
}

#[tokio::test]
async fn a_chain_in_one_vm_gives_the_snapshots_of_separate_ones() {
    let place = require!(place());
    let slot = VmSlot::default();
    let both = || ExecuteOptions {
        vm: VmHandover {
            take: Some(slot.clone()),
            leave: Some(slot.clone()),
        },
        ..ExecuteOptions::default()
    };
    let mut steps = vec![None];
    for step in 0..4 {
        let cmd = format!("ls / | grep -c made; touch /made-{step}");
        let action = action(steps.last().unwrap(), &cmd);
        let (result, lines) = place.run(action, cache(&step.to_string()), both()).await;
        assert_eq!(lines, [format!("out {step}")]);
        assert_eq!(result.phases.get(Phase::Create).is_some(), step == 0);
        assert_eq!(result.phases.get(Phase::Restore), None);
        steps.push(Some(result));
    }
    drop(slot);
    for (count, step) in steps.iter().enumerate().skip(1) {
        let count_made = "ls / | grep -c made";
        let options = ExecuteOptions {
            no_snapshot: true,
            ..ExecuteOptions::default()
        };
        let (_, lines) = place
            .run(action(step, count_made), CachingPolicy::None, options)
            .await;
        assert_eq!(lines, [format!("out {count}")]);
    }
}

#[tokio::test]
async fn an_inject_that_brings_something_else_than_its_key_says_is_refused() {
    let place = require!(place());
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("file"), "old").unwrap();
    let inject = InjectSource::directory(source.path());
    let digest = place.backend.inject_digest_of(&inject).await.unwrap();
    let options = || ExecuteOptions {
        injects: vec![(inject.clone(), "/src".into())],
        inject_digests: vec![digest.clone()],
        ..ExecuteOptions::default()
    };
    let show = || action(&None, "cat /src/file");
    let (_, lines) = place.run(show(), cache("a"), options()).await;
    assert_eq!(lines, ["out old"]);
    std::fs::write(source.path().join("file"), "something newer").unwrap();
    let lines = Lines::default();
    let run = place
        .engine
        .execute_with(show(), cache("b"), &lines, options());
    let error = run.await.unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(Error::InputChanged { .. })),
        "{error:#}"
    );
    assert!(lines.take().is_empty(), "nothing ran");
}
