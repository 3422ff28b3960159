//! Which processes use the store: for others that keep things per session.

use crate::session::is_alive;
use crate::store::Store;

impl Store {
    /// A path for a file of the caller's, which nothing else uses. What is still there when this process is gone
    /// is removed by the next one.
    pub fn temporary_file(&self) -> std::path::PathBuf {
        let core = self.core();
        core.layout.new_tmp(core.session.id)
    }

    /// The number of this process's use of the store. No other use of it ever has the same one.
    pub fn session(&self) -> i64 {
        self.core().session.id
    }

    /// Whether the process of a session is alive. `false` for a session that never was.
    pub fn session_is_alive(&self, session: i64) -> bool {
        session == self.session() || is_alive(&self.core().layout, session)
    }
}
