//! Each option of an execution.

use std::sync::Arc;
use std::time::Duration;

use hm_vm::{
    Action, CachingPolicy, Capabilities, Error, Event, ExecuteOptions, ExecutionResult,
    ImageSource, InjectSource, Limit, NetworkPolicy, NullSink, Phase, SnapshotId, VmConfig,
};
use hm_vm_testkit::fake::Call;

use super::support::{Bench, Events, action, cache, settle};

async fn run(bench: &Bench, cmd: &str, options: ExecuteOptions) -> ExecutionResult {
    let run = bench
        .engine
        .execute_with(action(cmd), cache("k"), &NullSink, options);
    run.await.unwrap()
}

#[tokio::test]
async fn a_config_of_its_own_counts_in_place_of_the_engines() {
    let bench = Bench::new();
    let options = || ExecuteOptions {
        config: Some(VmConfig {
            cpus: Some(1),
            ..VmConfig::default()
        }),
        ..ExecuteOptions::default()
    };
    let refused = bench
        .engine
        .execute_with(action("true"), cache("k"), &NullSink, options());
    let error = refused.await.unwrap_err();
    assert!(matches!(
        error.downcast_ref(),
        Some(Error::LimitNotEnforceable {
            limit: Limit::Cpus,
            ..
        })
    ));
    bench.backend.set_capabilities(Capabilities {
        limits: vec![Limit::Cpus],
        networks: vec![NetworkPolicy::None],
        ..Capabilities::default()
    });
    run(&bench, "true", options()).await;
}

#[tokio::test]
async fn further_injects_follow_the_first_one() {
    let bench = Bench::new();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(second.path().join("file"), "brought").unwrap();
    let options = |digest: Option<&str>| ExecuteOptions {
        injects: vec![
            (InjectSource::directory(first.path()), "/one".into()),
            (InjectSource::directory(second.path()), "/two".into()),
        ],
        inject_digests: vec![None, digest.map(str::to_owned)],
        ..ExecuteOptions::default()
    };
    let action = Action {
        inject: Some(first.path().to_owned()),
        working_dir: "/src".into(),
        ..action("test -e /two/file")
    };
    let events = Arc::new(Events::default());
    let told = ExecuteOptions {
        events: Some(events.clone()),
        ..options(None)
    };
    let run = bench
        .engine
        .execute_with(action.clone(), cache("k"), &NullSink, told);
    run.await.unwrap();
    let injects: Vec<String> = bench
        .backend
        .calls()
        .into_iter()
        .filter_map(|call| match call {
            Call::Inject { guest_path, .. } => Some(guest_path),
            _ => None,
        })
        .collect();
    assert_eq!(injects, ["/src", "/one", "/two"]);
    let begun = |event: &Event| *event == Event::Started(Phase::Inject);
    assert_eq!(events.all().iter().filter(|event| begun(event)).count(), 1);

    // The fake does not tell what it brought: nothing is refused then.
    let run = bench.engine.execute_with(
        action.clone(),
        cache("other"),
        &NullSink,
        options(Some("d")),
    );
    run.await.unwrap();
    let mut filtered = options(None);
    filtered.injects[1].0.exclude = vec!["file".into()];
    let run = bench
        .engine
        .execute_with(action, cache("third"), &NullSink, filtered);
    let error = run.await.unwrap_err();
    assert!(matches!(
        error.downcast_ref(),
        Some(Error::Unsupported { .. })
    ));
    bench.assert_clean("at the end");
}

#[tokio::test]
async fn a_refresh_runs_and_replaces() {
    let bench = Bench::new();
    let refresh = || ExecuteOptions {
        refresh: true,
        ..ExecuteOptions::default()
    };
    let first = run(&bench, "true", refresh()).await;
    let second = run(&bench, "true", refresh()).await;
    assert!(!second.cached && second.snapshot != first.snapshot);
    let hit = run(&bench, "true", ExecuteOptions::default()).await;
    assert_eq!((hit.cached, hit.snapshot), (true, second.snapshot));
    bench.assert_clean("the first one is removed");

    // It waits for its turn.
    let parked = bench.backend.failpoints().park("exec");
    let engine = bench.engine.clone();
    let leader = tokio::spawn(async move {
        let options = ExecuteOptions {
            refresh: true,
            ..ExecuteOptions::default()
        };
        engine
            .execute_with(action("true"), cache("k"), &NullSink, options)
            .await
    });
    parked.reached(1).await;
    for engine in [bench.engine.clone(), bench.second_engine()] {
        let options = refresh();
        let waiter = tokio::spawn(async move {
            engine
                .execute_with(action("true"), cache("k"), &NullSink, options)
                .await
        });
        settle().await;
        assert_eq!(parked.waiting(), 1);
        waiter.abort();
        assert!(waiter.await.unwrap_err().is_cancelled());
    }
    parked.release();
    leader.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_result_that_is_too_old_is_made_again() {
    let bench = Bench::new();
    let young = || ExecuteOptions {
        max_age: Some(Duration::from_secs(3600)),
        ..ExecuteOptions::default()
    };
    let first = run(&bench, "echo x", young()).await;
    assert!(run(&bench, "echo x", young()).await.cached);
    let raw = rusqlite::Connection::open(bench.registry_path()).unwrap();
    raw.execute_batch("UPDATE entries SET created_us = created_us - 3700000000")
        .unwrap();
    let hit = run(&bench, "echo x", ExecuteOptions::default()).await;
    assert!(hit.cached, "without a limit it counts");
    // Somebody else is making it: who waits gets that one.
    let parked = bench.backend.failpoints().park("exec");
    let mut runs = Vec::new();
    for engine in [bench.engine.clone(), bench.second_engine()] {
        let options = young();
        runs.push(tokio::spawn(async move {
            engine
                .execute_with(action("echo x"), cache("k"), &NullSink, options)
                .await
        }));
        parked.reached(1).await;
    }
    settle().await;
    parked.release();
    let mut results = Vec::new();
    for run in runs {
        results.push(run.await.unwrap().unwrap());
    }
    assert_eq!([false, true], [results[0].cached, results[1].cached]);
    assert_eq!(results[0].snapshot, results[1].snapshot);
    assert_ne!(results[0].snapshot, first.snapshot);
    // A clock that was set back makes nothing old.
    raw.execute_batch("UPDATE entries SET created_us = created_us + 7200000000")
        .unwrap();
    assert!(run(&bench, "echo x", young()).await.cached);
    bench.assert_clean("at the end");
}

#[tokio::test]
async fn a_result_of_another_parent_is_made_again_if_asked_to() {
    let bench = Bench::new();
    let mut parents = Vec::new();
    for key in ["parent 1", "parent 2"] {
        let run = bench.engine.execute(action("true"), cache(key), &NullSink);
        parents.push(run.await.unwrap().snapshot.unwrap());
    }
    let execute = async |source: ImageSource, same_parent| {
        let action = Action {
            source,
            ..action("echo x")
        };
        let options = ExecuteOptions {
            same_parent,
            ..ExecuteOptions::default()
        };
        let run = bench
            .engine
            .execute_with(action, cache("k"), &NullSink, options);
        run.await.unwrap()
    };
    let of = |parent: &SnapshotId| ImageSource::Snapshot(parent.clone());
    let entry = || bench.engine.registry().entry("k").unwrap().unwrap();
    execute(of(&parents[0]), true).await;
    assert_eq!(entry().parent.as_ref(), Some(&parents[0]));
    assert!(execute(of(&parents[0]), true).await.cached);
    assert!(execute(of(&parents[1]), false).await.cached);
    assert!(!execute(of(&parents[1]), true).await.cached);
    assert_eq!(entry().parent.as_ref(), Some(&parents[1]));
    assert!(
        !execute(ImageSource::Image("alpine".into()), true)
            .await
            .cached
    );
    assert_eq!(entry().parent, None);
    assert!(execute(of(&parents[0]), true).await.cached, "not known");
    bench.assert_clean("at the end");
}

#[tokio::test]
async fn a_hit_tells_what_it_saves() {
    let bench = Bench::new();
    let first = run(&bench, "true", ExecuteOptions::default()).await;
    assert_eq!(first.saved, None);
    let hit = run(&bench, "true", ExecuteOptions::default()).await;
    let saved = hit.saved.unwrap();
    let worked = first.phases.get(Phase::Exec).unwrap();
    assert!(
        worked <= saved + Duration::from_micros(1),
        "{worked:?} {saved:?}"
    );
    assert!(saved <= first.phases.total());
    let entry = bench.engine.registry().entry("k").unwrap().unwrap();
    assert_eq!(entry.cost, Some(saved));
}

#[tokio::test]
async fn no_snapshot_is_taken_where_none_is_wanted() {
    let bench = Bench::new();
    let options = || ExecuteOptions {
        no_snapshot: true,
        ..ExecuteOptions::default()
    };
    let uncached =
        bench
            .engine
            .execute_with(action("true"), CachingPolicy::None, &NullSink, options());
    let result = uncached.await.unwrap();
    assert_eq!((result.exit_code, result.snapshot), (0, None));
    assert_eq!(bench.backend.counts().snapshot, 0);
    let cached = run(&bench, "true", options()).await;
    assert!(cached.snapshot.is_some(), "a cached one needs it");
    bench.assert_clean("at the end");
}

#[tokio::test]
async fn what_the_backend_does_not_have_is_refused() {
    let bench = Bench::new();
    let user = ExecuteOptions {
        user: Some("nobody".into()),
        ..ExecuteOptions::default()
    };
    let mounts = ExecuteOptions {
        mounts: vec![hm_vm::Mount::Cache {
            name: "c".into(),
            target: "/c".into(),
        }],
        ..ExecuteOptions::default()
    };
    for options in [user, mounts] {
        let run = bench
            .engine
            .execute_with(action("true"), cache("k"), &NullSink, options);
        let error = run.await.unwrap_err();
        assert!(matches!(
            error.downcast_ref(),
            Some(Error::Unsupported { .. })
        ));
        bench.assert_clean("after the refusal");
    }
}

#[test]
fn options_show_no_secrets() {
    let options = ExecuteOptions {
        secret_env: vec![("TOKEN".into(), hm_vm::Secret::new(b"hunter2".to_vec()))],
        masked: vec![hm_vm::Secret::new(b"hunter2".to_vec())],
        mounts: vec![hm_vm::Mount::Secret {
            target: "/run/secrets/x".into(),
            content: hm_vm::Secret::new(b"hunter2".to_vec()),
        }],
        ..ExecuteOptions::default()
    };
    assert!(!format!("{options:?}").contains("hunter2"));
}
