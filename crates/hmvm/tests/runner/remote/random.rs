//! Random pipelines: what one store has run, another has without running it, and it is the same.

use std::fmt::Write as _;

use hm_vm_testkit::require;

use super::support::Sharing;

/// How many pipelines.
const PIPELINES: u64 = 8;

/// A small generator of numbers: the same ones for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[usize::try_from(self.below(list.len() as u64)).expect("small")]
    }
}

/// A change to files that may or may not be there; none fails.
fn change(numbers: &mut Numbers) -> String {
    const FILES: [&str; 6] = ["/w/a", "/w/b", "/w/d/a", "/w/d/b", "/w/d/e/a", "/etc/x"];
    const DIRECTORIES: [&str; 4] = ["/w", "/w/d", "/w/d/e", "/var/y"];
    let (file, other) = (numbers.of(&FILES), numbers.of(&FILES));
    let directory = numbers.of(&DIRECTORIES);
    let number = numbers.below(1000);
    match numbers.below(14) {
        // A pipe has nobody at its other end.
        0..=2 => format!("[ -p {file} ] || echo {number} > {file}"),
        3 => format!("[ -p {file} ] || echo {number} >> {file}"),
        4 => format!("mkdir -p {directory}"),
        5 => format!("rm -rf {file}"),
        6 => format!("rm -rf {directory}; mkdir -p {directory}; echo {number} > {directory}/new"),
        7 => format!("ln -sfn {other} {file}"),
        8 => format!("rm -rf {other}; ln {file} {other}"),
        9 => format!("chmod {} {directory}", numbers.of(&["700", "755", "1777"])),
        10 => format!("chmod {} {file}", numbers.of(&["600", "4755", "444"])),
        11 => format!("rm -rf {file}; mkfifo {file}"),
        12 => format!("mv {file} {other}"),
        _ => format!(
            "rm -rf {file}; mkdir {file}; touch {file}/'a b' {file}/$(printf 'x%.0s' $(seq 120))"
        ),
    }
}

/// A pipeline of four to six steps; each forks from an earlier one, or boots the image.
fn pipeline(seed: u64) -> (String, usize) {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ (seed + 1));
    let steps = 4 + numbers.below(3);
    let mut file = "[pipeline]\nimage = \"busybox\"\n".to_owned();
    for step in 0..steps {
        let changes: Vec<String> = (0..1 + numbers.below(8))
            .map(|_| change(&mut numbers))
            .collect();
        writeln!(file, "[steps.s{step}]").expect("text");
        if step > 0 && numbers.below(5) > 0 {
            // Mostly the one before, so that chains are long.
            let parent = if numbers.below(3) > 0 {
                step - 1
            } else {
                numbers.below(step)
            };
            writeln!(file, "from = \"s{parent}\"").expect("text");
        }
        let script = format!(
            "mkdir -p /w/d/e /var/y\n{}\necho s{step}",
            changes.join("\n")
        );
        writeln!(
            file,
            "run = '''\n( {script} ) 2>/dev/null || true\necho s{step}; find /w | wc -l\n'''"
        )
        .expect("text");
    }
    (file, usize::try_from(steps).expect("small"))
}

#[test]
fn random_pipelines_are_the_same_on_another_store() {
    let sharing = require!(Sharing::new());
    for seed in 0..PIPELINES {
        let (file, steps) = pipeline(seed);
        let repository = format!("{}/random/{seed}", sharing.server.address());
        let one = require!(sharing.store(&file));
        let two = require!(sharing.store(&file));
        let first = one.run_shared(&repository, &[]).exits_with(0);
        let second = two.run_shared(&repository, &[]).exits_with(0);
        assert_eq!(second.outcomes().len(), steps);
        for (step, outcome) in second.outcomes() {
            assert_eq!(outcome, "cached", "{step} of\n{file}\n{}", second.stderr);
            assert_eq!(
                second.output(&step),
                first.output(&step),
                "{step} of\n{file}"
            );
            let id = first.step(&step)["snapshot"]
                .as_str()
                .expect("an id")
                .to_owned();
            assert_eq!(second.step(&step)["snapshot"], id.as_str());
            assert_eq!(two.tree(&id), one.tree(&id), "{step} of\n{file}");
        }
    }
}
