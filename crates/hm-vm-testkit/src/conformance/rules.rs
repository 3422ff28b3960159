//! The rules of [`hm_vm_core::backend`] by number, in short.

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number: `B1`, `V13`.
    pub number: &'static str,
    /// Its essence. The full text stands in [`hm_vm_core::backend`].
    pub text: &'static str,
}

const fn rule(number: &'static str, text: &'static str) -> Rule {
    Rule { number, text }
}

/// All rules, in order.
pub const RULES: &[Rule] = &[
    rule(
        "B1",
        "an image or snapshot that does not exist is told apart, and nothing is left behind",
    ),
    rule(
        "B2",
        "VMs do not see each other's files, processes or later changes",
    ),
    rule(
        "B3",
        "snapshot_exists tells what restore would find; unknown and malformed ids are false",
    ),
    rule("B4", "remove_snapshot of what does not exist succeeds"),
    rule("B5", "removing a snapshot leaves its forks whole"),
    rule(
        "B6",
        "what is not declared is refused before anything runs; what is declared holds",
    ),
    rule(
        "B7",
        "dropping the future of any method leaves nothing behind",
    ),
    rule("B8", "many VMs at once do not disturb each other"),
    rule(
        "V1",
        "exec returns the command's own exit code, 128 + N for a signal, 127 without a shell",
    ),
    rule("V2", "when exec is over, nothing that it started is alive"),
    rule(
        "V3",
        "all output arrives before exec returns, in order, exact, in bounded memory",
    ),
    rule(
        "V4",
        "standard input at its end, own session, declared environment over the default one, nothing of the host's",
    ),
    rule(
        "V5",
        "a command line and environment of a mebibyte arrive whole",
    ),
    rule(
        "V6",
        "a working directory that does not exist, or is relative, is InvalidInput, and nothing runs",
    ),
    rule("V7", "files written by one exec are there in the next"),
    rule(
        "V8",
        "inject copies the contents of the directory faithfully, and removes what an earlier inject brought",
    ),
    rule(
        "V9",
        "snapshot keeps all files; the VM goes on; a further snapshot is a new one",
    ),
    rule(
        "V10",
        "a snapshot keeps modes, links, fifos, holes, attributes, odd names, deletions",
    ),
    rule(
        "V11",
        "a chain of a thousand snapshots can be made and restored",
    ),
    rule(
        "V12",
        "destroy and drop free everything; a second destroy succeeds; other calls fail",
    ),
    rule(
        "V13",
        "a stopped command gets SIGTERM, then SIGKILL; the error tells the cause; the VM remains usable",
    ),
    rule(
        "V14",
        "a command runs as the user that is asked for; an unknown one is InvalidInput, and nothing runs",
    ),
    rule(
        "V15",
        "a cache is there for the next VM that mounts it, and in no snapshot",
    ),
    rule(
        "V16",
        "a secret is readable for the command, and in no snapshot",
    ),
    rule(
        "V17",
        "inject_from brings what the patterns say, and its digest changes with that alone",
    ),
    rule(
        "V18",
        "copy_outputs brings what the patterns name, and never writes outside of its destination",
    ),
    rule(
        "V19",
        "commands on one private network reach each other, and nobody else's VM reaches them",
    ),
    rule(
        "V20",
        "environment, user and directory that an image names are those of a command which names none",
    ),
];

/// Texts of these rules, for a failure message.
pub(super) fn texts(numbers: &[&str]) -> String {
    RULES
        .iter()
        .filter(|rule| numbers.contains(&rule.number))
        .map(|rule| format!("\n  {}: {}", rule.number, rule.text))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::CHECKS;

    #[test]
    fn the_table_has_the_rules_of_the_contract() {
        let contract = include_str!("../../../hm-vm-core/src/backend.rs");
        let documented: Vec<&str> = contract
            .lines()
            .filter_map(|line| line.strip_prefix("//! * **")?.split_once("**"))
            .map(|(number, _)| number)
            .collect();
        let here: Vec<&str> = RULES.iter().map(|rule| rule.number).collect();
        assert_eq!(here, documented);
    }

    #[test]
    fn every_rule_has_a_check_and_every_check_a_rule() {
        for rule in RULES {
            let cited = CHECKS
                .iter()
                .any(|check| check.rules.contains(&rule.number));
            assert!(cited, "{} has no check", rule.number);
        }
        for check in CHECKS {
            assert!(!check.rules.is_empty(), "{} cites no rule", check.name);
            for number in check.rules {
                assert!(RULES.iter().any(|rule| rule.number == *number), "{number}");
            }
        }
    }
}
