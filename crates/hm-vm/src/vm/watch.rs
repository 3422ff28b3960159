//! Telling how far a long phase is.

use std::future::Future;
use std::time::Duration;

use hm_vm_core::{Event, EventSink, Phase, Progress, ProgressState};
use tokio::time::Instant;

/// What is quicker than this is not told about.
const QUICK: Duration = Duration::from_millis(300);

/// Time between two events.
const INTERVAL: Duration = Duration::from_millis(200);

/// Does `work`, and tells how far it is while it takes long. Dropping it drops the work.
pub(super) async fn watch<T>(
    phase: Phase,
    work: impl Future<Output = T>,
    progress: &Progress,
    events: &dyn EventSink,
) -> T {
    tokio::pin!(work);
    let mut told = ProgressState::default();
    let mut next = Instant::now() + QUICK;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep_until(next) => {}
        }
        // From now on, not from when it should have been: never two at once.
        next = Instant::now() + INTERVAL;
        let state = progress.now();
        if state != told {
            told = state;
            events.on_event(&Event::Progress { phase, state });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use hm_vm_core::ProgressUnit;

    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<(u64, Option<u64>)>>);

    impl Told {
        fn all(&self) -> Vec<(u64, Option<u64>)> {
            let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            told.clone()
        }
    }

    impl EventSink for Told {
        fn on_event(&self, event: &Event) {
            let Event::Progress {
                phase: Phase::Inject,
                state,
            } = event
            else {
                panic!("{event:?}");
            };
            let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            told.push((state.done, state.total));
        }
    }

    /// Counts one file every so often.
    async fn files(progress: &Progress, count: u64, each: Duration) -> u64 {
        progress.begin(ProgressUnit::Files, Some(count));
        for _ in 0..count {
            tokio::time::sleep(each).await;
            progress.add(1);
        }
        count
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_phase_is_not_told_about() {
        let (progress, told) = (Progress::new(), Told::default());
        let work = files(&progress, 29, Duration::from_millis(10));
        assert_eq!(watch(Phase::Inject, work, &progress, &told).await, 29);
        assert_eq!(told.all(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_phase_is_told_about_five_times_a_second_while_it_moves() {
        let (progress, told) = (Progress::new(), Told::default());
        let work = async {
            files(&progress, 100, Duration::from_millis(7)).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
        };
        watch(Phase::Inject, work, &progress, &told).await;
        let total = Some(100);
        assert_eq!(told.all(), [(42, total), (71, total), (100, total)]);
    }
}
