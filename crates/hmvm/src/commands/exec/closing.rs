//! The one line that ends an execution.

use hm_vm::ExecutionResult;

use crate::names;
use crate::output::{Style, human};

/// Snapshot, cached or ran, and the time by phase.
pub(super) fn line(result: &ExecutionResult, style: Style) -> String {
    let state = match (&result.snapshot, &result.kept) {
        (Some(snapshot), _) => format!("snapshot {}", style.bold(names::short(snapshot))),
        (None, Some(kept)) => format!(
            "exit code {}, state kept as {}",
            result.exit_code,
            style.bold(names::short(kept))
        ),
        (None, None) => format!("exit code {}, no snapshot", result.exit_code),
    };
    let total = human::duration(result.phases.total());
    let how = match (result.cached, result.remote) {
        (true, Some(remote)) => {
            let bytes = human::size(remote.bytes);
            style.green(&format!("cached, from the shared cache ({bytes}), {total}"))
        }
        (true, None) => style.green(&format!("cached, {total}")),
        (false, _) => format!("ran in {total}"),
    };
    let phases: Vec<String> = result
        .phases
        .iter()
        .map(|(phase, took)| format!("{} {}", phase.name(), human::duration(took)))
        .collect();
    let phases = style.dim(&format!("({})", phases.join(", ")));
    format!("hmvm: {state}, {how} {phases}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hm_vm::{Phase, RemoteHit, SnapshotId};
    use std::time::Duration;

    #[test]
    fn the_line_tells_what_became_of_the_command() {
        let mut result = ExecutionResult::default();
        result.phases.push(Phase::Lookup, Duration::from_micros(80));
        result.snapshot = Some(SnapshotId::new("0123456789abcdef"));
        result.cached = true;
        assert_eq!(
            line(&result, Style::plain()),
            "hmvm: snapshot 0123456789ab, cached, 80 µs (lookup 80 µs)"
        );
        result.remote = Some(RemoteHit { bytes: 2048 });
        assert_eq!(
            line(&result, Style::plain()),
            "hmvm: snapshot 0123456789ab, cached, from the shared cache (2 KiB), 80 µs (lookup 80 µs)"
        );
        result.snapshot = None;
        result.cached = false;
        result.exit_code = 3;
        assert_eq!(
            line(&result, Style::plain()),
            "hmvm: exit code 3, no snapshot, ran in 80 µs (lookup 80 µs)"
        );
        result.kept = Some(SnapshotId::new("abc"));
        assert!(line(&result, Style::plain()).contains("exit code 3, state kept as abc"));
    }
}
