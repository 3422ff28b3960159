//! Stored output, and its replay on a hit.

use std::sync::Arc;

use hm_vm::{Action, CachingPolicy, ExecuteOptions, NullSink, Stream};

use super::support::{Bench, Bytes, Events, Lines, action, cache};

/// Runs a command that writes `chunks`, twice; returns what the miss and the hit delivered.
async fn twice(bench: &Bench, chunks: Vec<(Stream, Vec<u8>)>) -> [Vec<String>; 2] {
    bench.backend.on_exec("write", move |exec| {
        for (stream, bytes) in &chunks {
            exec.write(*stream, bytes);
        }
        0
    });
    let lines = Lines::default();
    let miss = bench
        .engine
        .execute(action("write"), cache("k"), &lines)
        .await
        .unwrap();
    let first = lines.take();
    let hit = bench
        .engine
        .execute(action("write"), cache("k"), &lines)
        .await
        .unwrap();
    assert_eq!((miss.cached, hit.cached), (false, true));
    [first, lines.take()]
}

#[tokio::test]
async fn a_hit_delivers_the_same_lines_in_the_same_order() {
    let bench = Bench::new();
    let chunks = vec![
        (Stream::Stdout, b"one\ntw".to_vec()),
        (Stream::Stderr, b"warning: \xc3".to_vec()),
        (Stream::Stdout, b"o\n\n".to_vec()),
        (Stream::Stderr, b"\xa4\xff\nlast".to_vec()),
    ];
    let [miss, hit] = twice(&bench, chunks).await;
    let expected = [
        "out one",
        "out two",
        "out ",
        "err warning: ä\u{fffd}",
        "err last",
    ];
    assert_eq!(miss, expected);
    assert_eq!(hit, expected);
}

#[tokio::test]
async fn bytes_are_kept_exactly() {
    let bench = Bench::new();
    let all: Vec<u8> = (0..=255).collect();
    let written = all.clone();
    bench.backend.on_exec("write", move |exec| {
        exec.write(Stream::Stdout, &written);
        exec.write(Stream::Stderr, b"\r\n\0");
        0
    });
    for _ in 0..2 {
        let bytes = Bytes::default();
        bench
            .engine
            .execute(action("write"), cache("k"), &bytes)
            .await
            .unwrap();
        let got = bytes.0.into_inner().unwrap();
        assert_eq!(
            got,
            [
                (Stream::Stdout, all.clone()),
                (Stream::Stderr, b"\r\n\0".to_vec())
            ]
        );
    }
    assert_eq!(
        bench
            .engine
            .registry()
            .entry("k")
            .unwrap()
            .unwrap()
            .output_bytes,
        259
    );
}

#[tokio::test]
async fn a_large_output_is_replayed_whole() {
    let bench = Bench::new();
    let chunk: Vec<u8> = (0..100_000_u32)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .collect();
    let chunks = vec![(Stream::Stdout, chunk.clone()), (Stream::Stderr, chunk)];
    let [miss, hit] = twice(&bench, chunks).await;
    assert_eq!(miss.len(), 200_000);
    assert!(miss == hit);
}

#[tokio::test]
async fn without_output_there_is_no_file() {
    let bench = Bench::new();
    let [miss, hit] = twice(&bench, vec![]).await;
    assert!(miss.is_empty() && hit.is_empty());
    assert!(bench.files("logs").is_empty());
}

#[tokio::test]
async fn nothing_is_stored_of_failed_and_uncached_commands() {
    let bench = Bench::new();
    let failing = action("echo x; exit 1");
    bench
        .engine
        .execute(failing, cache("k"), &NullSink)
        .await
        .unwrap();
    let run = bench
        .engine
        .execute(action("echo x"), CachingPolicy::None, &NullSink);
    let ephemeral = run.await.unwrap().snapshot.unwrap();
    bench.engine.remove_snapshot(&ephemeral).await.unwrap();
    assert!(bench.files("logs").is_empty());
    bench.assert_clean("after both");
}

#[tokio::test]
async fn logs_go_with_their_entries() {
    let bench = Bench::with_capacity(1);
    for (key, cmd) in [("a", "echo a"), ("b", "echo b")] {
        bench
            .engine
            .execute(action(cmd), cache(key), &NullSink)
            .await
            .unwrap();
        assert_eq!(bench.files("logs").len(), 1);
    }
    bench
        .engine
        .registry()
        .put("b", &hm_vm::SnapshotId::new("other"));
    assert!(bench.files("logs").is_empty());
    let lines = Lines::default();
    bench
        .engine
        .execute(action("echo c"), cache("c"), &lines)
        .await
        .unwrap();
    bench.engine.registry().invalidate("c");
    assert!(bench.files("logs").is_empty());
}

#[tokio::test]
async fn a_missing_or_damaged_log_is_a_notice() {
    let long: String = (0..20_000)
        .map(|number| format!("echo {number};"))
        .collect();
    for damage in [0, 1, 2, 3] {
        let bench = Bench::new();
        bench
            .engine
            .execute(action(&long), cache("k"), &NullSink)
            .await
            .unwrap();
        let mut dir = bench.registry_path().into_os_string();
        dir.push(".logs");
        let log = std::path::Path::new(&dir).join(&bench.files("logs")[0]);
        let mut bytes = std::fs::read(&log).unwrap();
        let half = bytes.len() / 2;
        match damage {
            0 => std::fs::remove_file(&log).unwrap(),
            1 => std::fs::write(&log, "something else").unwrap(),
            2 => std::fs::write(&log, &bytes[..half]).unwrap(),
            _ => {
                bytes[half] ^= 0x55;
                std::fs::write(&log, &bytes).unwrap();
            }
        }
        let events = Arc::new(Events::default());
        let options = ExecuteOptions {
            events: Some(events.clone()),
            ..ExecuteOptions::default()
        };
        let run = bench
            .engine
            .execute_with(action(&long), cache("k"), &NullSink, options);
        assert!(run.await.unwrap().cached, "{damage}");
        assert_eq!(
            events.notices().len(),
            1,
            "{damage}: {:?}",
            events.notices()
        );
    }
}

#[tokio::test]
async fn output_that_cannot_be_stored_is_a_notice_and_the_command_goes_on() {
    let bench = Bench::new();
    let mut dir = bench.registry_path().into_os_string();
    dir.push(".logs");
    std::fs::write(&dir, "in the way").unwrap();
    let (events, lines) = (Arc::new(Events::default()), Lines::default());
    for cached in [false, true] {
        let options = ExecuteOptions {
            events: Some(events.clone()),
            ..ExecuteOptions::default()
        };
        let run = bench
            .engine
            .execute_with(action("echo x"), cache("k"), &lines, options);
        assert_eq!(run.await.unwrap().cached, cached);
    }
    assert_eq!(lines.take(), ["out x"]);
    assert_eq!(events.notices().len(), 2, "{:?}", events.notices());
}

#[tokio::test(start_paused = true)]
async fn what_a_stopped_command_wrote_arrives() {
    let bench = Bench::new();
    bench.backend.on_exec("partial", |exec| {
        exec.write(Stream::Stdout, b"no line end");
        0
    });
    let parked = bench.backend.failpoints().park("exec.done");
    let slow = Action {
        timeout: Some(std::time::Duration::from_secs(1)),
        ..action("partial")
    };
    let lines = Lines::default();
    bench
        .engine
        .execute(slow, cache("k"), &lines)
        .await
        .unwrap_err();
    drop(parked);
    assert_eq!(lines.take(), ["out no line end"]);
    bench.assert_clean("after the timeout");
}
