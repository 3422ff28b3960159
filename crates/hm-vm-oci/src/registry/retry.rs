//! What failed and may go well another time.

use std::future::Future;
use std::time::Duration;

use super::answer::Failure;
use crate::OciError;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Counts failures without progress.
#[derive(Debug)]
pub(super) struct Retry {
    most: u32,
    failed: u32,
    /// Longer than that, nobody waits because the other side says so.
    longest_wait: Duration,
}

impl Retry {
    pub(super) fn new(most: u32, longest_wait: Duration) -> Self {
        Self {
            most,
            failed: 0,
            longest_wait,
        }
    }

    /// It went on.
    pub(super) fn progress(&mut self) {
        self.failed = 0;
    }

    /// Waits until it may be tried again, or gives the failure back when it may not.
    pub(super) async fn after(&mut self, failure: Failure) -> Result<(), OciError> {
        if !failure.may_pass || self.failed >= self.most {
            return Err(failure.error);
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << self.failed.min(16))
            .min(LONGEST_PAUSE);
        self.failed += 1;
        let pause = match failure.retry_after {
            Some(wanted) if wanted > self.longest_wait => return Err(failure.error),
            Some(wanted) => wanted.max(pause),
            None => pause,
        };
        tracing::debug!(error = %failure.error, "trying again in {pause:?}");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Tries until it goes well or need not be tried again.
    pub(super) async fn run<T, F>(mut self, mut work: impl FnMut() -> F) -> Result<T, OciError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        loop {
            match work().await {
                Ok(value) => return Ok(value),
                Err(failure) => self.after(failure).await?,
            }
        }
    }
}
