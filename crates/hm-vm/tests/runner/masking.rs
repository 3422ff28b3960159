//! Secrets of a command, and where they must not be seen.

use std::sync::Arc;

use hm_vm::{CachingPolicy, Error, ExecuteOptions, Mount, NullSink, Secret, Stream};

use super::support::{Bench, Bytes, Events, Lines, action, cache, whole_log};

fn secret(value: &str) -> Secret {
    Secret::new(value.as_bytes().to_vec())
}

fn with_token(value: &str) -> ExecuteOptions {
    ExecuteOptions {
        secret_env: vec![("TOKEN".into(), secret(value))],
        ..ExecuteOptions::default()
    }
}

#[tokio::test]
async fn a_secret_variable_reaches_the_command_and_nobody_else() {
    let bench = Bench::new();
    let events = Arc::new(Events::default());
    for (name, policy) in [
        ("miss", cache("k")),
        ("hit", cache("k")),
        ("uncached", CachingPolicy::None),
    ] {
        let (lines, log) = (Lines::default(), bench.path(name));
        let options = ExecuteOptions {
            events: Some(events.clone()),
            log: Some(log.clone()),
            no_snapshot: true,
            ..with_token("hunter2")
        };
        // What is written to the file system is the command's own affair.
        let cmd = "echo token $TOKEN; echo $TOKEN >&2; test $TOKEN = hunter2 && echo same";
        let action = action(cmd);
        let run = bench.engine.execute_with(action, policy, &lines, options);
        assert_eq!(run.await.unwrap().exit_code, 0);
        assert_eq!(lines.take(), ["out token ***", "err ***", "out same"]);
        assert_eq!(whole_log(&log), ["token ***\nsame\n", "***\n"]);
    }
    assert!(!format!("{:?}", events.all()).contains("hunter2"));
    let entry = bench.engine.registry().entry("k").unwrap().unwrap();
    assert!(!format!("{entry:?}").contains("hunter2"));
}

#[tokio::test]
async fn without_a_log_and_a_key_output_is_masked_as_well() {
    let bench = Bench::new();
    bench.backend.on_exec("write", |exec| {
        exec.write(Stream::Stdout, b"hun");
        exec.write(Stream::Stderr, b"ter2");
        exec.write(Stream::Stdout, b"ter2, hunt");
        0
    });
    let bytes = Bytes::default();
    let options = ExecuteOptions {
        masked: vec![secret("hunter2\n")],
        no_snapshot: true,
        ..ExecuteOptions::default()
    };
    let run = bench
        .engine
        .execute_with(action("write"), CachingPolicy::None, &bytes, options);
    run.await.unwrap();
    let of = |wanted: Stream| -> Vec<u8> {
        let all = bytes.0.lock().unwrap();
        let chunks = all.iter().filter(|(stream, _)| *stream == wanted);
        chunks.flat_map(|(_, bytes)| bytes.clone()).collect()
    };
    assert_eq!(of(Stream::Stdout), b"***, hunt");
    assert_eq!(of(Stream::Stderr), b"ter2", "the streams are apart");
}

#[tokio::test]
async fn what_cannot_be_hidden_or_passed_is_refused_by_name() {
    let bench = Bench::new();
    let short = with_token("x\n");
    let zero = with_token("hunter2\0");
    let binary = ExecuteOptions {
        secret_env: vec![("TOKEN".into(), Secret::new(vec![0xFF; 8]))],
        ..ExecuteOptions::default()
    };
    let mounted = ExecuteOptions {
        mounts: vec![Mount::Secret {
            target: "/run/secrets/TOKEN".into(),
            content: secret("x"),
        }],
        ..ExecuteOptions::default()
    };
    for options in [short, zero, binary, mounted] {
        let run = bench
            .engine
            .execute_with(action("true"), cache("k"), &NullSink, options);
        let error = run.await.unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(Error::InvalidInput { what, .. }) if what.contains("TOKEN")),
            "{error:#}"
        );
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    assert!(bench.backend.calls().is_empty());
}

#[tokio::test]
async fn an_empty_secret_is_passed_and_hides_nothing() {
    let bench = Bench::new();
    let lines = Lines::default();
    let run = bench
        .engine
        .execute_with(action("echo a$TOKEN"), cache("k"), &lines, with_token(""));
    run.await.unwrap();
    assert_eq!(lines.take(), ["out a"]);
}

#[tokio::test]
async fn a_secret_over_several_lines_is_hidden_line_by_line() {
    let bench = Bench::new();
    let lines = Lines::default();
    let key = "-----BEGIN KEY-----\nAAAABBBB\n-----END KEY-----\n";
    let run = bench.engine.execute_with(
        action("echo \"$TOKEN\"; echo AAAABBBB of KEY"),
        cache("k"),
        &lines,
        with_token(key),
    );
    run.await.unwrap();
    // The first one is found whole, with the line ends in it.
    assert_eq!(lines.take(), ["out ***", "out ", "out *** of KEY"]);
}
