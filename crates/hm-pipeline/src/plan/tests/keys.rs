//! What enters a key.

use std::time::Duration;

use hm_vm_core::{KeyBase, NetworkPolicy};

use super::fake::World;
use crate::pipeline::{
    CacheDirectory, CacheSharing, Pipeline, Ready, ReadyCheck, SecretForm, SecretSource, SecretUse,
    Service, Step, StepBase, StepLimits,
};
use crate::testing::{pipeline, step};

fn service() -> Service {
    Service {
        name: "db".into(),
        base: StepBase::Image("redis".into()),
        run: "redis-server".into(),
        env: Default::default(),
        working_dir: "/".into(),
        user: None,
        limits: StepLimits::default(),
        ready: Some(Ready {
            check: ReadyCheck::Port(6379),
            timeout: Duration::from_secs(30),
        }),
    }
}

fn secret() -> SecretUse {
    SecretUse {
        name: "TOKEN".into(),
        source: SecretSource::Variable("TOKEN".into()),
        form: SecretForm::Variable("TOKEN".into()),
    }
}

async fn keys(pipeline: &Pipeline) -> Vec<String> {
    let plan = World::default().plain(pipeline).await;
    plan.steps
        .into_iter()
        .map(|step| step.key.unwrap())
        .collect()
}

/// Keys of `a`, and of `b` that forks from it, after `a` was changed.
async fn changed(change: impl Fn(&mut Step)) -> Vec<String> {
    let mut pipeline = pipeline(vec![step("a"), step("b").forking(0)]);
    pipeline.directory = "/".into();
    change(&mut pipeline.steps[0]);
    keys(&pipeline).await
}

#[tokio::test]
async fn what_decides_the_result_changes_the_key_and_those_of_the_children() {
    let changes: [fn(&mut Step); 12] = [
        |step| step.run.push(' '),
        |step| step.base = StepBase::Image("debian".into()),
        |step| drop(step.env.insert("A".into(), "1".into())),
        |step| step.working_dir = "/src".into(),
        |step| step.user = Some("nobody".into()),
        |step| step.network = NetworkPolicy::Outbound,
        |step| step.shell = Some("bash -e".into()),
        |step| step.cache.inputs.push("*.lock".into()),
        |step| step.secrets.push(secret()),
        |step| step.services.push(service()),
        |step| {
            step.services.push(service());
            step.services[0].base = StepBase::Image("valkey".into());
        },
        |step| {
            step.services.push(service());
            step.services[0].run.push(' ');
        },
    ];
    let mut seen = changed(|_| {}).await;
    for (number, change) in changes.into_iter().enumerate() {
        for key in changed(change).await {
            assert!(!seen.contains(&key), "change {number} has a key of another");
            seen.push(key);
        }
    }
}

#[tokio::test]
async fn what_does_not_decide_it_changes_nothing() {
    let changes: [fn(&mut Step); 8] = [
        |step| step.name = "z".into(),
        |step| step.timeout = Some(Duration::from_secs(1)),
        |step| step.retries = 3,
        |step| step.limits.cpus = Some(1),
        |step| step.allow_failure = true,
        |step| step.cache.ttl = Some(Duration::from_secs(1)),
        |step| {
            step.caches.push(CacheDirectory {
                name: "c".into(),
                target: "/c".into(),
                sharing: CacheSharing::Shared,
            });
        },
        |step| {
            step.outputs.push(crate::pipeline::Outputs {
                pattern: "app".into(),
                to: "".into(),
            });
        },
    ];
    let before = changed(|_| {}).await;
    for change in changes {
        assert_eq!(changed(change).await, before);
    }
}

#[tokio::test]
async fn what_only_decides_when_a_service_is_ready_changes_nothing() {
    let served = |seconds| {
        changed(move |step| {
            step.services.push(service());
            step.services[0].limits.pids = Some(9);
            step.services[0].ready.as_mut().unwrap().timeout = Duration::from_secs(seconds);
        })
    };
    assert_eq!(served(1).await, served(2).await);
}

#[tokio::test]
async fn the_components_say_what_the_key_derives_from() {
    let mut pipeline = pipeline(vec![step("a"), step("b").forking(0)]);
    let second = &mut pipeline.steps[1];
    second.shell = Some("bash".into());
    second.secrets.push(secret());
    second.services.push(service());
    second.cache.inputs = vec!["/Cargo.lock".into(), "*.toml".into()];
    let plan = World::default().plain(&pipeline).await;
    let first = plan.steps[0].components.as_ref().unwrap();
    assert_eq!(first.base, KeyBase::ImageDigest("digest of host".into()));
    assert_eq!(
        first.extra.iter().collect::<Vec<_>>(),
        [(&"backend".to_owned(), &"fake".to_owned())]
    );
    let components = plan.steps[1].components.as_ref().unwrap();
    assert_eq!(
        components.base,
        KeyBase::ParentKey(plan.steps[0].key.clone().unwrap())
    );
    assert_eq!(
        components.key().as_str(),
        plan.steps[1].key.as_ref().unwrap()
    );
    let extra = &components.extra;
    assert_eq!(extra["shell"], "bash");
    assert_eq!(extra["secret:TOKEN"], "variable TOKEN");
    assert!(extra.contains_key("input:/Cargo.lock *.toml"));
    assert_eq!(
        extra["service:db"],
        r#"{"base":{"image_digest":"digest of redis"},"run":"redis-server","env":{},"working_dir":"/","ready":"port 6379"}"#
    );
}
