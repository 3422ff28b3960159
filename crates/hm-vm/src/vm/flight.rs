//! Single flight within one engine: of several executions of one key, one runs. Between processes,
//! [`KeyLock`](crate::key_lock::KeyLock) does the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

/// Between two looks at another process's lock: doubled after each, up to the second.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(1);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(20);

type KeyMutex = Arc<tokio::sync::Mutex<()>>;

/// The keys that executions of one engine are busy with. Each has a fair mutex: whoever holds it has the
/// turn, and gives it to the next one by being dropped, whatever the reason.
#[derive(Debug, Default)]
pub(super) struct Flights {
    keys: Arc<Mutex<HashMap<String, KeyMutex>>>,
}

/// A place in the queue of a key.
pub(super) struct Place {
    keys: Arc<Mutex<HashMap<String, KeyMutex>>>,
    key: String,
    mutex: Option<KeyMutex>,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Flights {
    /// Queues for a key.
    pub(super) fn queue(&self, key: &str) -> Place {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let mutex = Arc::clone(keys.entry(key.to_owned()).or_default());
        Place {
            keys: Arc::clone(&self.keys),
            key: key.to_owned(),
            mutex: Some(mutex),
            turn: None,
        }
    }
}

impl Place {
    /// Takes the turn if it is free. Returns whether it was.
    pub(super) fn try_take(&mut self) -> bool {
        let free = self
            .mutex
            .as_ref()
            .and_then(|mutex| Arc::clone(mutex).try_lock_owned().ok());
        self.turn = free;
        self.turn.is_some()
    }

    /// Waits for the turn. Dropped meanwhile, it leaves the queue.
    pub(super) async fn take(&mut self) {
        if let Some(mutex) = &self.mutex {
            self.turn = Some(Arc::clone(mutex).lock_owned().await);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        self.turn = None;
        self.mutex = None;
        // New places are made under the same lock: a count of one is the map's own.
        if keys
            .get(&self.key)
            .is_some_and(|mutex| Arc::strong_count(mutex) == 1)
        {
            keys.remove(&self.key);
        }
    }
}
