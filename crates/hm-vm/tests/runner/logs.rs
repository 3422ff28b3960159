//! Logs of the caller's own, and reading them.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hm_vm::output::{LogNext, LogReader};
use hm_vm::{
    CachingPolicy, CancelCause, Cancellation, ExecuteOptions, ExecutionResult, NullSink, Stream,
};
use proptest::prelude::*;

use super::support::{Bench, Events, Lines, action, cache, read_log, settle, whole_log};

fn with_log(path: &Path) -> ExecuteOptions {
    ExecuteOptions {
        log: Some(path.to_owned()),
        ..ExecuteOptions::default()
    }
}

async fn run(bench: &Bench, cmd: &str, policy: CachingPolicy, log: &Path) -> ExecutionResult {
    bench
        .engine
        .execute_with(action(cmd), policy, &NullSink, with_log(log))
        .await
        .unwrap()
}

/// The one log that the registry stores.
fn stored(bench: &Bench) -> PathBuf {
    let mut path = bench.registry_path().into_os_string();
    path.push(".logs");
    let names = bench.files("logs");
    assert_eq!(names.len(), 1);
    Path::new(&path).join(&names[0])
}

fn inode(path: &Path) -> u64 {
    path.metadata().unwrap().ino()
}

#[tokio::test]
async fn a_log_is_the_stored_one_under_a_second_name() {
    let bench = Bench::new();
    let logs = ["miss", "hit"].map(|name| bench.path(name));
    let before = SystemTime::now() - Duration::from_millis(1);
    for (log, cached) in logs.iter().zip([false, true]) {
        let result = run(&bench, "echo x; echo y >&2", cache("k"), log).await;
        assert_eq!(result.cached, cached);
        assert_eq!(whole_log(log), ["x\n", "y\n"]);
        assert_eq!(inode(log), inode(&stored(&bench)));
    }
    let mut reader = LogReader::open(&logs[1]).unwrap();
    assert!((before..=SystemTime::now()).contains(&reader.started()));
    let LogNext::Chunk(chunk) = reader.next().unwrap() else {
        panic!("a chunk comes first");
    };
    assert!(chunk.at < before.elapsed().unwrap());
    bench.engine.registry().invalidate("k");
    assert!(bench.files("logs").is_empty());
    assert_eq!(whole_log(&logs[0]), ["x\n", "y\n"], "it is the caller's");
}

#[tokio::test]
async fn failed_uncached_and_stopped_commands_have_a_whole_log() {
    let bench = Bench::new();
    let (failed, uncached) = (bench.path("failed"), bench.path("uncached"));
    run(&bench, "echo x; exit 1", cache("k"), &failed).await;
    let result = run(&bench, "echo x", CachingPolicy::None, &uncached).await;
    bench
        .engine
        .remove_snapshot(&result.snapshot.unwrap())
        .await
        .unwrap();
    for log in [failed, uncached] {
        assert_eq!(whole_log(&log), ["x\n", ""]);
    }
    let parked = bench.backend.failpoints().park("exec.done");
    let cancel = Cancellation::new();
    let (engine, log) = (bench.engine.clone(), bench.path("cancelled"));
    let options = ExecuteOptions {
        cancel: Some(cancel.clone()),
        ..with_log(&log)
    };
    let stopped = tokio::spawn(async move {
        engine
            .execute_with(action("echo x"), cache("k"), &NullSink, options)
            .await
    });
    parked.reached(1).await;
    cancel.cancel(CancelCause::User);
    assert!(stopped.await.unwrap().is_err());
    assert_eq!(whole_log(&log), ["x\n", ""]);

    let (engine, log) = (bench.engine.clone(), bench.path("dropped"));
    let options = with_log(&log);
    let dropped = tokio::spawn(async move {
        engine
            .execute_with(action("echo x"), cache("k"), &NullSink, options)
            .await
    });
    parked.reached(1).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    settle().await;
    assert_eq!(whole_log(&log), ["x\n", ""]);
    bench.assert_clean("at the end");
}

#[tokio::test]
async fn a_silent_command_has_no_log_and_one_that_cannot_be_made_is_a_notice() {
    let bench = Bench::new();
    let log = bench.path("log");
    for _ in 0..2 {
        run(&bench, "true", cache("silent"), &log).await;
        assert!(!log.exists());
    }
    std::fs::write(&log, "in the way").unwrap();
    for (round, cached) in [false, true].into_iter().enumerate() {
        let events = Arc::new(Events::default());
        let options = ExecuteOptions {
            events: Some(events.clone()),
            ..with_log(&log)
        };
        let result = bench
            .engine
            .execute_with(action("echo x"), cache("k"), &NullSink, options)
            .await
            .unwrap();
        assert_eq!(result.cached, cached);
        let notices = events.notices();
        assert_eq!(notices.len(), 1, "{round}: {notices:?}");
        assert!(notices[0].contains("log"), "{notices:?}");
    }
    assert_eq!(std::fs::read(&log).unwrap(), b"in the way");
    let missing = bench.path("missing/log");
    assert!(run(&bench, "echo x", cache("k"), &missing).await.cached);
    assert_eq!(bench.files("logs").len(), 1, "it is stored nevertheless");
}

#[tokio::test]
async fn where_a_link_is_refused_there_is_a_copy() {
    let bench = Bench::new();
    let shm = Path::new("/dev/shm");
    let other = tempfile::tempdir_in(shm).unwrap();
    if other.path().metadata().unwrap().dev() == bench.path("").metadata().unwrap().dev() {
        hm_vm_testkit::skip::Skip::new("needs a second file system at /dev/shm").report();
        return;
    }
    let failed = other.path().join("failed");
    run(&bench, "echo x; exit 1", cache("k"), &failed).await;
    assert_eq!(whole_log(&failed), ["x\n", ""]);
    for (name, cached) in [("miss", false), ("hit", true)] {
        let log = other.path().join(name);
        let result = run(&bench, "echo x; echo y >&2", cache("k"), &log).await;
        assert_eq!(result.cached, cached);
        assert_eq!(whole_log(&log), ["x\n", "y\n"]);
    }
    assert_eq!(whole_log(&stored(&bench)), ["x\n", "y\n"]);
    let lines = Lines::default();
    let replay = bench
        .engine
        .execute(action("echo x; echo y >&2"), cache("k"), &lines);
    assert!(replay.await.unwrap().cached);
    assert_eq!(lines.take(), ["out x", "err y"]);
    let names = std::fs::read_dir(other.path()).unwrap().count();
    assert_eq!(names, 3, "nothing temporary is left");
    bench.assert_clean("at the end");
}

#[tokio::test(start_paused = true)]
async fn a_log_can_be_read_while_it_is_written() {
    let bench = Bench::new();
    bench.backend.on_exec("talk", |exec| {
        exec.write(Stream::Stdout, b"first, no line end");
        0
    });
    let parked = bench.backend.failpoints().park("exec.done");
    let (engine, log) = (bench.engine.clone(), bench.path("log"));
    let options = with_log(&log);
    let talk = tokio::spawn(async move {
        engine
            .execute_with(action("talk"), cache("k"), &NullSink, options)
            .await
    });
    parked.reached(1).await;
    let mut reader = LogReader::open(&log).unwrap();
    assert!(reader.writer_is_alive());
    assert_eq!(reader.next().unwrap(), LogNext::Pending, "not flushed yet");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (streams, next) = read_log(&mut reader);
    assert_eq!(streams[0], b"first, no line end");
    assert_eq!(next, LogNext::Pending);
    for _ in 0..100 {
        // Asking often breaks nothing.
        assert_eq!(reader.next().unwrap(), LogNext::Pending);
    }
    assert!(reader.writer_is_alive() && !reader.complete());
    parked.release();
    talk.await.unwrap().unwrap();
    assert_eq!(reader.next().unwrap(), LogNext::End);
    assert_eq!(reader.next().unwrap(), LogNext::End);
    assert!(reader.complete() && !reader.writer_is_alive());
}

/// A log as the first version wrote it.
fn version_1(records: &[(u8, &[u8])]) -> Vec<u8> {
    let mut log = b"hm-vm log 1\n\x03\0\0\0key".to_vec();
    let mut encoder = zstd::Encoder::new(&mut log, 1).unwrap();
    encoder.include_checksum(true).unwrap();
    let mut total = 0;
    for (tag, bytes) in records {
        let length = u32::try_from(bytes.len()).unwrap();
        encoder.write_all(&[*tag]).unwrap();
        encoder.write_all(&length.to_le_bytes()).unwrap();
        encoder.write_all(bytes).unwrap();
        total += u64::from(length);
    }
    encoder.write_all(&[0]).unwrap();
    encoder.write_all(&total.to_le_bytes()).unwrap();
    encoder.finish().unwrap();
    log
}

#[tokio::test]
async fn logs_of_the_first_version_are_read_and_replayed() {
    let bench = Bench::new();
    run(&bench, "echo new", cache("k"), &bench.path("new")).await;
    std::fs::write(stored(&bench), version_1(&[(1, b"old\n"), (2, b"also\n")])).unwrap();
    let (lines, log) = (Lines::default(), bench.path("old"));
    let hit = bench
        .engine
        .execute_with(action("echo new"), cache("k"), &lines, with_log(&log));
    assert!(hit.await.unwrap().cached);
    assert_eq!(lines.take(), ["out old", "err also"]);
    assert_eq!(whole_log(&log), ["old\n", "also\n"]);
    let LogNext::Chunk(chunk) = LogReader::open(&log).unwrap().next().unwrap() else {
        panic!("a chunk comes first");
    };
    assert_eq!(chunk.at, Duration::ZERO);
}

#[tokio::test]
async fn a_long_record_comes_in_pieces() {
    let bench = Bench::new();
    let long = vec![b'x'; 1 << 20];
    let written = long.clone();
    bench.backend.on_exec("long", move |exec| {
        exec.write(Stream::Stderr, &written);
        0
    });
    let log = bench.path("log");
    run(&bench, "long", cache("k"), &log).await;
    let mut reader = LogReader::open(&log).unwrap();
    let mut bytes = Vec::new();
    while let LogNext::Chunk(chunk) = reader.next().unwrap() {
        assert!(chunk.bytes.len() <= 64 << 10);
        bytes.extend(chunk.bytes);
    }
    assert!(bytes == long);
}

#[test]
fn what_a_hostile_file_says_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let no_log = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        LogReader::open(&path).unwrap_err();
    };
    no_log(b"");
    no_log(b"something else that is long enough to be a header");
    no_log(b"hm-vm log 3\n\x03\0\0\0key");
    no_log(b"hm-vm log 2\n\xff\xff\xff\xffkey");
    no_log(b"hm-vm log 2\n\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
    let fails = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let mut reader = LogReader::open(&path).unwrap();
        for _ in 0..10 {
            match reader.next() {
                Ok(LogNext::Chunk(_)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(_) => return,
            }
        }
        panic!("no end to it");
    };
    fails(&version_1(&[(7, b"unknown tag")]));
    fails(&version_1(&[(1, b"")]));
    let mut trailing = version_1(&[(1, b"x")]);
    trailing.push(0);
    fails(&trailing);
    // A frame that asks for a window of 2 GiB.
    let mut window = version_1(&[])[..19].to_vec();
    window.extend(b"\x28\xb5\x2f\xfd\x00\xa8");
    window.extend([0; 64]);
    fails(&window);
    // A length that is longer than the rest.
    let mut log = b"hm-vm log 1\n\0\0\0\0".to_vec();
    log.extend(zstd::encode_all(&b"\x01\xff\xff\xff\xffshort"[..], 1).unwrap());
    fails(&log);
}

proptest! {
    #[test]
    fn a_damaged_log_is_not_complete(
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
        cut in any::<bool>(),
    ) {
        let text: Vec<u8> = (0..2000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let mut log = version_1(&[(1, &text), (2, b"err"), (1, &text)]);
        let start = log.iter().position(|byte| *byte == 0x28).unwrap();
        let place = start + at.index(log.len() - start);
        if cut {
            log.truncate(place);
        } else {
            log[place] ^= 1 << bit;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, &log).unwrap();
        let mut reader = LogReader::open(&path).unwrap();
        let mut streams = [Vec::new(), Vec::new()];
        loop {
            match reader.next() {
                Ok(LogNext::Chunk(chunk)) => streams[chunk.stream as usize].extend(chunk.bytes),
                Ok(LogNext::Pending) | Err(_) => {
                    prop_assert!(!reader.complete());
                    break;
                }
                Ok(LogNext::End) => {
                    // Not every bit matters: some change the size of the window alone.
                    prop_assert!(streams == [[&text[..], &text[..]].concat(), b"err".to_vec()]);
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn an_execution_dropped_anywhere_leaves_a_whole_log_or_none() {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};
    for polls in 0.. {
        let bench = Bench::new();
        let log = bench.path("log");
        let done = {
            let (action, options) = (action("echo x; echo y >&2"), with_log(&log));
            let execution = bench
                .engine
                .execute_with(action, cache("k"), &NullSink, options);
            let mut execution = pin!(execution);
            (0..polls).any(|_| {
                execution
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_ready()
            })
        };
        settle().await;
        bench.assert_clean(&format!("dropped after {polls} polls"));
        if log.exists() {
            assert!(whole_log(&log)[0].len() <= 2);
        }
        if done {
            assert_eq!(whole_log(&log), ["x\n", "y\n"]);
            return;
        }
    }
}
