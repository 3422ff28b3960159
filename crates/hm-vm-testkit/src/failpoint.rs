//! Named points at which test code lets an operation fail or wait.
//!
//! ```
//! # use hm_vm_testkit::failpoint::Failpoints;
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let points = Failpoints::new();
//! points.fail_once("commit", "the disk is on fire");
//! assert!(points.reach("commit").await.is_err());
//! assert!(points.reach("commit").await.is_ok());
//! # });
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use hm_vm_core::Error;
use tokio::sync::watch;

use crate::lock::lock;

/// How an operation fails at a failpoint.
#[derive(Clone, Debug)]
pub enum Failure {
    /// With an error of the contract, which `downcast_ref` finds.
    Contract(Error),
    /// With any other error, as an internal failure of a backend would be.
    Other(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Contract(error)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::Other(message.to_owned())
    }
}

impl Failure {
    fn into_error(self) -> anyhow::Error {
        match self {
            Self::Contract(error) => error.into(),
            Self::Other(message) => anyhow::Error::msg(message),
        }
    }
}

/// What is armed at one point.
#[derive(Debug, Default)]
struct Point {
    hits: u64,
    /// Consumed front to back, one per hit. `None` lets that hit pass.
    next: VecDeque<Option<Failure>>,
    always: Option<Failure>,
    gate: Option<Arc<watch::Sender<Gate>>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Gate {
    waiting: u64,
    open: bool,
}

/// A set of failpoints. Clones share it. An unarmed point lets everything pass.
#[derive(Clone, Debug, Default)]
pub struct Failpoints {
    points: Arc<Mutex<HashMap<String, Point>>>,
}

impl Failpoints {
    /// A set in which nothing is armed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the next operation that reaches `name` fail. Further calls queue up.
    pub fn fail_once(&self, name: &str, failure: impl Into<Failure>) {
        self.with(name, |point| point.next.push_back(Some(failure.into())));
    }

    /// Lets `passes` operations pass at `name`, and the one after them fail.
    pub fn fail_after(&self, name: &str, passes: usize, failure: impl Into<Failure>) {
        let failure = failure.into();
        self.with(name, |point| {
            point.next.extend(std::iter::repeat_n(None, passes));
            point.next.push_back(Some(failure));
        });
    }

    /// Lets every operation that reaches `name` fail, until [`clear`](Self::clear).
    pub fn fail_always(&self, name: &str, failure: impl Into<Failure>) {
        self.with(name, |point| point.always = Some(failure.into()));
    }

    /// Holds every operation that reaches `name` until the returned guard is released or dropped.
    pub fn park(&self, name: &str) -> Parked {
        let gate = Arc::new(watch::Sender::new(Gate::default()));
        self.with(name, |point| point.gate = Some(Arc::clone(&gate)));
        Parked { gate }
    }

    /// Disarms `name`. Operations parked there stay so until their guard lets them go.
    pub fn clear(&self, name: &str) {
        self.with(name, |point| {
            *point = Point {
                hits: point.hits,
                ..Point::default()
            };
        });
    }

    /// How often `name` was reached.
    pub fn hits(&self, name: &str) -> u64 {
        self.lock().get(name).map_or(0, |point| point.hits)
    }

    /// Called by the code under test at the point `name`. Safe to drop while parked.
    ///
    /// # Errors
    ///
    /// The failure that is armed there.
    pub async fn reach(&self, name: &str) -> anyhow::Result<()> {
        let (gate, failure) = self.with(name, |point| {
            point.hits += 1;
            let failure = point.next.pop_front().flatten();
            (point.gate.clone(), failure.or_else(|| point.always.clone()))
        });
        if let Some(gate) = gate {
            wait_until_open(&gate).await;
        }
        failure.map_or(Ok(()), |failure| Err(failure.into_error()))
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Point) -> T) -> T {
        act(self.lock().entry(name.to_owned()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Point>> {
        lock(&self.points)
    }
}

/// Counts an operation as waiting for as long as it does, dropped futures included.
struct Waiting<'a>(&'a watch::Sender<Gate>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|gate| gate.waiting -= 1);
    }
}

async fn wait_until_open(gate: &watch::Sender<Gate>) {
    let mut receiver = gate.subscribe();
    gate.send_modify(|gate| gate.waiting += 1);
    let _waiting = Waiting(gate);
    // The sender outlives this borrow, so the wait cannot fail.
    let _ = receiver.wait_for(|gate| gate.open).await;
}

/// Operations held at a failpoint. Dropping it lets them go, and later ones pass.
#[derive(Debug)]
pub struct Parked {
    gate: Arc<watch::Sender<Gate>>,
}

impl Parked {
    /// Waits until at least `count` operations are held here at once.
    pub async fn reached(&self, count: u64) {
        let mut receiver = self.gate.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = receiver.wait_for(|gate| gate.waiting >= count).await;
    }

    /// How many operations are held here now.
    pub fn waiting(&self) -> u64 {
        self.gate.borrow().waiting
    }

    /// Lets all go, and later ones pass. A second call does nothing.
    pub fn release(&self) {
        self.gate.send_modify(|gate| gate.open = true);
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fails_the_chosen_hit_and_counts_all() {
        let points = Failpoints::new();
        points.fail_after("x", 1, "second");
        assert!(points.reach("x").await.is_ok());
        let error = points.reach("x").await.unwrap_err();
        assert_eq!(error.to_string(), "second");
        assert!(points.reach("x").await.is_ok());
        assert_eq!((points.hits("x"), points.hits("y")), (3, 0));
    }

    #[tokio::test]
    async fn contract_errors_can_be_told_apart() {
        let points = Failpoints::new();
        let full = Error::NoSpace { doing: "x".into() };
        points.fail_always("x", full.clone());
        for _ in 0..2 {
            let error = points.reach("x").await.unwrap_err();
            assert_eq!(error.downcast_ref(), Some(&full));
        }
        points.clear("x");
        assert!(points.reach("x").await.is_ok());
    }

    #[tokio::test]
    async fn parks_until_released_and_forgets_dropped_ones() {
        let points = Failpoints::new();
        let parked = points.park("x");
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                let points = points.clone();
                tokio::spawn(async move { points.reach("x").await })
            })
            .collect();
        parked.reached(2).await;
        tasks[0].abort();
        let mut tasks = tasks.into_iter();
        assert!(tasks.next().unwrap().await.unwrap_err().is_cancelled());
        assert_eq!(parked.waiting(), 1);
        drop(parked);
        assert!(tasks.next().unwrap().await.unwrap().is_ok());
        assert!(points.reach("x").await.is_ok());
    }
}
