//! The fake backend is as strict as it says.

use std::sync::Mutex;
use std::time::Duration;

use hm_vm_core::{
    CancelCause, Cancellation, Error, ExecRequest, NullSink, OutputSink, SnapshotLabel, Vm,
    VmBackend, VmConfig,
};
use hm_vm_testkit::fake::{Call, FakeBackend};

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl OutputSink for Lines {
    fn on_stdout(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }

    fn on_stderr(&self, line: &str) {
        self.0.lock().unwrap().push(format!("! {line}"));
    }
}

async fn create(backend: &FakeBackend) -> Box<dyn Vm> {
    let config = VmConfig::default();
    backend.create("alpine", &config).await.unwrap()
}

async fn exec(vm: &mut Box<dyn Vm>, cmd: &str) -> (i32, Vec<String>) {
    let lines = Lines::default();
    let env = [("GREETING".to_owned(), "hello".to_owned())];
    let code = vm.exec(cmd, &env, "/tmp", &lines).await.unwrap();
    (code, lines.0.into_inner().unwrap())
}

fn strings(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|&line| line.to_owned()).collect()
}

#[tokio::test]
async fn runs_its_small_language() {
    let backend = FakeBackend::new();
    let mut vm = create(&backend).await;
    let cases: [(&str, i32, &[&str]); 9] = [
        (
            "echo $GREETING \"$USER\" 'a  b'; pwd",
            0,
            &["hello root a  b", "/tmp"],
        ),
        ("echo x > f && cat /tmp/f || echo no", 0, &["x"]),
        ("test -e nothing || exit 9; echo no", 9, &[]),
        ("echo a >&2; false; exit", 1, &["! a"]),
        ("kill -15 $$; echo no", 143, &[]),
        (
            "mkdir -p /d/e; echo 1 > /d/e/f; mv /d /g; ls /g/e; cat /g/e/f",
            0,
            &["f", "1"],
        ),
        (
            "ln -s /g/e /l; cat /l/f; readlink /l; test -L /l",
            0,
            &["1", "/g/e"],
        ),
        (
            "rm -r /g; test ! -e /g/e/f && stat -c %a /tmp",
            0,
            &["1777"],
        ),
        (
            "nonsense",
            127,
            &["! sh: nonsense: not found, or not with these arguments"],
        ),
    ];
    for (cmd, code, lines) in cases {
        assert_eq!(exec(&mut vm, cmd).await, (code, strings(lines)), "{cmd}");
    }
    vm.destroy().await.unwrap();
}

#[tokio::test]
async fn runs_callbacks_and_counts_calls() {
    let backend = FakeBackend::new();
    backend.on_exec("make all", |exec| {
        exec.out("made");
        exec.write_file("/out/a", b"1").unwrap();
        3
    });
    let mut vm = create(&backend).await;
    assert_eq!(exec(&mut vm, "make all").await, (3, strings(&["made"])));
    assert_eq!(exec(&mut vm, "cat /out/a").await.1, ["1"]);
    let label = SnapshotLabel::Cached("k".into());
    let id = vm.snapshot(&label).await.unwrap();
    assert_eq!(backend.snapshots(), [(id.clone(), label)]);
    backend.lose_snapshot(&id);
    assert!(!backend.snapshot_exists(&id).await.unwrap());
    drop(vm);
    let counts = backend.counts();
    assert_eq!((counts.create, counts.exec, counts.snapshot), (1, 2, 1));
    assert_eq!((counts.destroy, counts.dropped), (0, 1));
    assert!(matches!(&backend.calls()[0], Call::Create { image } if image == "alpine"));
}

#[tokio::test]
async fn misuse_is_recorded_and_panics_at_the_end() {
    let backend = FakeBackend::new();
    let mut vm = create(&backend).await;
    vm.destroy().await.unwrap();
    vm.destroy().await.unwrap();
    assert!(backend.take_violations().is_empty());
    assert!(vm.exec("true", &[], "/", &NullSink).await.is_err());
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(backend)));
    let message = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("exec on VM 1 after destroy"), "{message}");
}

#[tokio::test]
async fn a_vm_that_outlives_the_backend_is_misuse() {
    let backend = FakeBackend::new();
    let vm = create(&backend).await;
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(backend)));
    assert!(panic.is_err());
    drop(vm);
}

#[tokio::test]
async fn a_snapshot_that_nobody_got_is_not_kept() {
    let backend = FakeBackend::new();
    let mut vm = create(&backend).await;
    let parked = backend.failpoints().park("snapshot.done");
    let dropped = tokio::select! {
        _ = vm.snapshot(&SnapshotLabel::Ephemeral) => false,
        () = parked.reached(1) => true,
    };
    assert!(dropped);
    assert!(backend.snapshots().is_empty());
    drop(parked);
    vm.snapshot(&SnapshotLabel::Ephemeral).await.unwrap();
    assert_eq!(backend.snapshots().len(), 1);
    vm.destroy().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stops_at_once_or_after_the_grace_period() {
    let backend = FakeBackend::new();
    let vm = create(&backend).await;
    for (cmd, seconds) in [
        ("sleep 1000", 0),
        ("trap '' TERM; sleep 1000", 7),
        ("trap 'sleep 3' TERM; sleep 1000", 3),
    ] {
        let stop = Cancellation::new();
        let request = ExecRequest {
            env: &[],
            working_dir: "/",
            grace: Duration::from_secs(7),
            ..ExecRequest::new(cmd, &stop)
        };
        let started = tokio::time::Instant::now();
        let canceller = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.cancel(CancelCause::User);
        };
        let (result, ()) = tokio::join!(vm.exec_with(&request, &NullSink), canceller);
        let cause = CancelCause::User;
        assert_eq!(
            result.unwrap_err().downcast_ref(),
            Some(&Error::Cancelled { cause })
        );
        // Time is paused here: it is arithmetic, not measurement.
        assert_eq!(started.elapsed().as_secs(), 1 + seconds, "{cmd}");
    }
}

#[tokio::test]
async fn limits_and_networks_that_are_not_declared_are_refused() {
    let backend = FakeBackend::new();
    let config = VmConfig {
        pids: Some(1),
        ..VmConfig::default()
    };
    let error = backend.create("alpine", &config).await.err().unwrap();
    assert!(matches!(
        error.downcast_ref(),
        Some(Error::LimitNotEnforceable { .. })
    ));
}

#[tokio::test]
async fn inject_replaces_what_it_brought_before() {
    let backend = FakeBackend::new();
    let mut vm = create(&backend).await;
    let source = tempfile::tempdir().unwrap();
    std::fs::create_dir(source.path().join("empty")).unwrap();
    std::fs::write(source.path().join("a"), "a").unwrap();
    std::fs::write(source.path().join("b.log"), "b").unwrap();
    std::fs::write(source.path().join(".gitignore"), "*.log\n").unwrap();
    let digest = backend.inject_digest(source.path()).await.unwrap();
    vm.inject(source.path(), "/w/x").await.unwrap();
    exec(&mut vm, "echo own > /w/x/own").await;
    assert_eq!(
        exec(&mut vm, "ls /w/x").await.1,
        [".gitignore", "a", "empty", "own"]
    );
    std::fs::remove_file(source.path().join("a")).unwrap();
    assert_ne!(backend.inject_digest(source.path()).await.unwrap(), digest);
    vm.inject(source.path(), "/w/x").await.unwrap();
    assert_eq!(
        exec(&mut vm, "ls /w/x").await.1,
        [".gitignore", "empty", "own"]
    );
    vm.destroy().await.unwrap();
}
