//! `kill -9` at any moment leaves nothing that the next run does not clean up.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use hm_vm_testkit::require;

use crate::env::TestEnv;

/// How often the program is killed; fewer times when the machine is slow.
const KILLS: u32 = 300;
const ENOUGH: Duration = Duration::from_secs(60);

/// A sequence that is the same every time (xorshift), so that a failure can be seen again.
pub(crate) struct Moments(u64);

impl Moments {
    pub(crate) fn new() -> Self {
        Self(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn a_kill_at_any_moment_leaves_nothing_behind() {
    let env = require!(TestEnv::machine());
    for name in 0..50 {
        env.write(&format!("project/file{name}"), vec![b'x'; 5000]);
    }
    let base = env.result(&[
        "exec",
        "--json",
        "--",
        "mkdir /base && echo base > /base/file",
    ]);
    let base = base["snapshot"].as_str().expect("a snapshot").to_owned();
    let started = Instant::now();
    // Where the program spends its time: kills are spread over what one run takes, and beyond.
    env.hmvm([
        "exec", "--cache", "off", "--inject", "project", "--", "true",
    ])
    .success();
    let usual = u64::try_from(started.elapsed().as_micros()).expect("microseconds");
    let mut moments = Moments::new();
    let mut kills = 0;
    while kills < KILLS && started.elapsed() < ENOUGH {
        let cache = format!("key-{}", moments.below(20));
        let command = [
            "i=0; while [ $i -lt 200 ]; do echo $i > /file$i; i=$((i+1)); done",
            "sleep 1000 & setsid sleep 1000 & mkdir -p /a/b; rm -rf /a; sleep 0.01",
            "cat /base/file; head -c 3000000 /dev/zero > /big",
        ];
        let command = command[usize::try_from(moments.below(3)).expect("an index")];
        let mut arguments = vec!["exec", "-q", "--cache", &cache];
        match moments.below(3) {
            0 => arguments.extend(["--inject", "project"]),
            1 => arguments.extend(["--from", &base]),
            _ => arguments.extend(["--keep-failed"]),
        }
        arguments.extend(["--", command]);
        let mut child = env
            .command(&arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("hmvm starts");
        // A random moment, which is what is tested; nothing is waited for.
        thread::sleep(Duration::from_micros(moments.below(usual * 3 / 2)));
        child.kill().expect("a kill");
        child.wait().expect("an end");
        kills += 1;
        if kills % 50 == 0 {
            check(&env, &base);
        }
    }
    check(&env, &base);
    assert!(kills >= 100, "only {kills} kills in {ENOUGH:?}");
}

/// The next run works, and nothing is left over.
fn check(env: &TestEnv, base: &str) {
    let run = env.hmvm(["exec", "-q", "--from", base, "--", "cat", "/base/file"]);
    assert_eq!(run.success().stdout, "base\n");
    assert_eq!(env.leftovers(), serde_json::json!([]));
    // A process that is being killed may take a moment to go.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let traces = env.traces();
        if traces.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "left over: {traces:#?}");
        thread::sleep(Duration::from_millis(20));
    }
    // Whatever a key stands for is whole.
    let snapshots = env.json(["snapshot", "ls", "--json"]);
    let known: Vec<&str> = snapshots
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|snapshot| snapshot["id"].as_str())
        .collect();
    for entry in env
        .json(["cache", "ls", "--json"])
        .as_array()
        .expect("a list")
    {
        let snapshot = entry["snapshot"].as_str().expect("an id");
        assert!(known.contains(&snapshot), "{entry} points nowhere");
    }
}
