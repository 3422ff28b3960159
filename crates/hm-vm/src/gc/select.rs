//! Which snapshots to remove: a pure function of what there is.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use hm_vm_core::SnapshotId;

/// What to collect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcPolicy {
    /// Bytes that all snapshots together may take. `None` is no limit.
    pub max_bytes: Option<u64>,
    /// Snapshots under a key that may exist. `None` is no limit.
    pub max_entries: Option<u64>,
    /// Time since its last use after which a snapshot under a key goes. `None` is no limit.
    pub max_age: Option<Duration>,
    /// Bytes of snapshots that are kept in any case, whatever the limits say.
    pub floor_bytes: u64,
    /// Number of snapshots under a key that is kept in any case.
    pub floor_entries: u64,
    /// Age at which a snapshot that no key holds goes. One day.
    pub unowned_age: Duration,
    /// What was used, or made, more recently than this counts as in use. Ten minutes.
    pub spare_recent: Duration,
    /// Only tell what would be removed.
    pub dry_run: bool,
}

impl Default for GcPolicy {
    fn default() -> Self {
        Self {
            max_bytes: None,
            max_entries: None,
            max_age: None,
            floor_bytes: 0,
            floor_entries: 0,
            unowned_age: Duration::from_secs(24 * 60 * 60),
            spare_recent: Duration::from_secs(10 * 60),
            dry_run: false,
        }
    }
}

/// A snapshot that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub snapshot: SnapshotId,
    /// What it was forked from.
    pub parent: Option<SnapshotId>,
    /// Bytes that its own command added.
    pub bytes: u64,
    /// When it was last looked up or forked, or made.
    pub last_used: SystemTime,
    /// Whether a key holds it.
    pub owned: bool,
    /// Whether one of its keys is pinned.
    pub pinned: bool,
}

/// Why a snapshot is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No key holds it, and it is old.
    Unowned,
    /// It was not used for longer than the age limit.
    Age,
    /// All snapshots together take more than the budget.
    Bytes,
    /// There are more than the limit.
    Entries,
    /// An entry's snapshot is gone already: only the entry is removed.
    Lost,
}

impl Reason {
    /// In one word, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unowned => "unowned",
            Self::Age => "age",
            Self::Bytes => "bytes",
            Self::Entries => "entries",
            Self::Lost => "lost",
        }
    }

    /// In words, for reports.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Unowned => "no key holds it",
            Self::Age => "not used for long",
            Self::Bytes => "over the byte budget",
            Self::Entries => "over the number of entries",
            Self::Lost => "its snapshot is gone",
        }
    }
}

/// One removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What to remove.
    pub snapshot: SnapshotId,
    /// Bytes that this frees.
    pub bytes: u64,
    /// Why.
    pub reason: Reason,
}

/// Chooses what to remove, in the order of removal. Takes `n log n` steps.
///
/// A leaf is a snapshot without living children among the candidates. Only leaves are taken, so a
/// snapshot whose descendant is kept is kept as well.
pub fn select(candidates: &[Candidate], policy: &GcPolicy, now: SystemTime) -> Vec<Choice> {
    let mut selection = Selection::new(candidates, policy, now);
    selection.take_while(Reason::Unowned, |selection, candidate| {
        !candidate.owned && selection.age(candidate) >= policy.unowned_age
    });
    if let Some(limit) = policy.max_age {
        selection.take_while(Reason::Age, |selection, candidate| {
            candidate.owned && selection.age(candidate) >= limit && selection.above_floor(candidate)
        });
    }
    if let Some(limit) = policy.max_bytes {
        selection.take_while(Reason::Bytes, |selection, candidate| {
            candidate.owned && selection.bytes > limit && selection.above_floor(candidate)
        });
    }
    if let Some(limit) = policy.max_entries {
        selection.take_while(Reason::Entries, |selection, candidate| {
            candidate.owned && selection.entries > limit && selection.above_floor(candidate)
        });
    }
    selection.choices
}

struct Selection<'a> {
    candidates: &'a [Candidate],
    policy: &'a GcPolicy,
    now: SystemTime,
    /// Where the parent of each candidate is among them.
    parents: Vec<Option<usize>>,
    /// Living children of each.
    children: Vec<usize>,
    /// Least recently used first.
    leaves: BTreeSet<(SystemTime, usize)>,
    bytes: u64,
    entries: u64,
    choices: Vec<Choice>,
}

impl<'a> Selection<'a> {
    fn new(candidates: &'a [Candidate], policy: &'a GcPolicy, now: SystemTime) -> Self {
        let places: HashMap<&SnapshotId, usize> = candidates
            .iter()
            .enumerate()
            .map(|(place, candidate)| (&candidate.snapshot, place))
            .collect();
        let parents: Vec<Option<usize>> = candidates
            .iter()
            .map(|candidate| places.get(candidate.parent.as_ref()?).copied())
            .collect();
        let mut children = vec![0; candidates.len()];
        for parent in parents.iter().flatten() {
            children[*parent] += 1;
        }
        let leaves = (0..candidates.len())
            .filter(|&place| children[place] == 0)
            .map(|place| (candidates[place].last_used, place))
            .collect();
        Self {
            candidates,
            policy,
            now,
            parents,
            children,
            leaves,
            bytes: candidates.iter().map(|candidate| candidate.bytes).sum(),
            entries: candidates.iter().map(|c| u64::from(c.owned)).sum(),
            choices: Vec::new(),
        }
    }

    /// Removes leaves that `wanted` agrees to, and what becomes a leaf by that.
    fn take_while(&mut self, reason: Reason, wanted: impl Fn(&Self, &Candidate) -> bool) {
        let mut waiting = self.leaves.clone();
        while let Some((_, place)) = waiting.pop_first() {
            let candidate = &self.candidates[place];
            let spared = candidate.pinned || self.age(candidate) < self.policy.spare_recent;
            if spared || !wanted(self, candidate) {
                continue;
            }
            if let Some(parent) = self.remove(place, reason) {
                waiting.insert((self.candidates[parent].last_used, parent));
            }
        }
    }

    /// Removes a leaf, and returns its parent if that is one now.
    fn remove(&mut self, place: usize, reason: Reason) -> Option<usize> {
        let candidate = &self.candidates[place];
        self.leaves.remove(&(candidate.last_used, place));
        self.bytes -= candidate.bytes;
        self.entries -= u64::from(candidate.owned);
        self.choices.push(Choice {
            snapshot: candidate.snapshot.clone(),
            bytes: candidate.bytes,
            reason,
        });
        let parent = self.parents[place]?;
        self.children[parent] -= 1;
        if self.children[parent] > 0 {
            return None;
        }
        self.leaves
            .insert((self.candidates[parent].last_used, parent));
        Some(parent)
    }

    /// Whether enough would be left without this one.
    fn above_floor(&self, candidate: &Candidate) -> bool {
        self.bytes - candidate.bytes >= self.policy.floor_bytes
            && self.entries > self.policy.floor_entries
    }

    /// A time in the future, after the clock was set back, counts as now.
    fn age(&self, candidate: &Candidate) -> Duration {
        self.now
            .duration_since(candidate.last_used)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + HOUR * 10_000
    }

    /// `name` of `bytes`, last used `hours` ago, forked from `parent`.
    fn owned(name: &str, parent: Option<&str>, bytes: u64, hours: u32) -> Candidate {
        Candidate {
            snapshot: SnapshotId::new(name),
            parent: parent.map(SnapshotId::new),
            bytes,
            last_used: now() - HOUR * hours,
            owned: true,
            pinned: false,
        }
    }

    fn chosen(candidates: &[Candidate], policy: &GcPolicy) -> Vec<(String, Reason)> {
        select(candidates, policy, now())
            .into_iter()
            .map(|choice| (choice.snapshot.to_string(), choice.reason))
            .collect()
    }

    fn to_bytes(limit: u64) -> GcPolicy {
        GcPolicy {
            max_bytes: Some(limit),
            ..GcPolicy::default()
        }
    }

    /// base ── build ── test (recent)
    ///      └─ lint (old)
    fn family() -> [Candidate; 4] {
        [
            owned("base", None, 100, 50),
            owned("build", Some("base"), 50, 40),
            owned("test", Some("build"), 10, 1),
            owned("lint", Some("base"), 20, 30),
        ]
    }

    #[test]
    fn without_limits_nothing_goes() {
        assert_eq!(chosen(&family(), &GcPolicy::default()), []);
    }

    #[test]
    fn leaves_go_before_their_parents_though_those_are_older() {
        let names = |limit| -> Vec<String> {
            let choices = chosen(&family(), &to_bytes(limit));
            choices.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(180), [""; 0]);
        assert_eq!(names(179), ["lint"]);
        assert_eq!(names(160), ["lint"]);
        assert_eq!(names(150), ["lint", "test"]);
        assert_eq!(names(0), ["lint", "test", "build", "base"]);
    }

    #[test]
    fn pinned_and_recent_ones_stay_with_their_ancestors() {
        let mut family = family();
        family[2].pinned = true;
        let gone = chosen(&family, &to_bytes(0));
        assert_eq!(gone, [("lint".to_owned(), Reason::Bytes)]);
        family[2].pinned = false;
        family[2].last_used = now() - Duration::from_secs(60);
        assert_eq!(chosen(&family, &to_bytes(0)), gone);
        family[2].last_used = now() + HOUR;
        assert_eq!(chosen(&family, &to_bytes(0)), gone, "a clock set back");
    }

    #[test]
    fn the_floor_holds_against_every_limit() {
        for limit in [
            to_bytes(0),
            GcPolicy {
                max_age: Some(Duration::ZERO),
                ..GcPolicy::default()
            },
            GcPolicy {
                max_entries: Some(0),
                ..GcPolicy::default()
            },
        ] {
            let by_bytes = GcPolicy {
                floor_bytes: 150,
                ..limit.clone()
            };
            assert_eq!(chosen(&family(), &by_bytes).len(), 2, "{limit:?}");
            let by_entries = GcPolicy {
                floor_entries: 3,
                ..limit.clone()
            };
            assert_eq!(chosen(&family(), &by_entries).len(), 1, "{limit:?}");
            assert_eq!(chosen(&family(), &limit).len(), 4, "{limit:?}");
        }
    }

    #[test]
    fn age_takes_only_what_is_old_enough() {
        let policy = GcPolicy {
            max_age: Some(HOUR * 20),
            ..GcPolicy::default()
        };
        // `base` and `build` are old, but `test` needs them.
        assert_eq!(
            chosen(&family(), &policy),
            [("lint".to_owned(), Reason::Age)]
        );
    }

    #[test]
    fn what_no_key_holds_goes_at_its_age() {
        let mut family = family();
        for candidate in &mut family {
            candidate.owned = false;
        }
        let unowned = |name: &str| (name.to_owned(), Reason::Unowned);
        assert_eq!(chosen(&family, &GcPolicy::default()), [unowned("lint")]);
        family[2].last_used = now() - HOUR * 24;
        let all = ["lint", "test", "build", "base"].map(unowned);
        assert_eq!(chosen(&family, &GcPolicy::default()), all);
    }

    #[test]
    fn a_loop_in_the_lineage_is_left_alone() {
        let looped = [
            owned("a", Some("b"), 1, 50),
            owned("b", Some("a"), 1, 50),
            owned("c", Some("c"), 1, 50),
        ];
        assert_eq!(chosen(&looped, &to_bytes(0)), []);
    }

    proptest! {
        #[test]
        fn rules_hold_for_any_family(
            shape in proptest::collection::vec((0usize..20, 0u64..100, 0u32..100, any::<bool>(), 0..8u8), 0..20),
            max_bytes in proptest::option::of(0u64..1000),
            max_entries in proptest::option::of(0u64..20),
            max_hours in proptest::option::of(0u32..100),
            floor_bytes in 0u64..500,
        ) {
            let candidates: Vec<Candidate> = shape.iter().enumerate().map(|(place, shape)| {
                let (parent, bytes, hours, owned_by_key, pin) = *shape;
                // Parents come earlier, so that there is no loop.
                let parent = (parent < place).then(|| parent.to_string());
                let mut candidate = owned(&place.to_string(), parent.as_deref(), bytes, hours);
                candidate.owned = owned_by_key;
                candidate.pinned = owned_by_key && pin == 0;
                candidate
            }).collect();
            let policy = GcPolicy {
                max_bytes,
                max_entries,
                max_age: max_hours.map(|hours| HOUR * hours),
                floor_bytes,
                ..GcPolicy::default()
            };
            let choices = select(&candidates, &policy, now());
            let find = |id: &SnapshotId| candidates.iter().find(|c| c.snapshot == *id).unwrap();
            let mut gone = std::collections::HashSet::new();
            let mut left: u64 = candidates.iter().map(|c| c.bytes).sum();
            for choice in &choices {
                let candidate = find(&choice.snapshot);
                prop_assert!(!candidate.pinned);
                prop_assert!(now().duration_since(candidate.last_used).unwrap() >= policy.spare_recent);
                prop_assert_eq!(candidate.owned, choice.reason != Reason::Unowned);
                let children = candidates.iter().filter(|c| c.parent.as_ref() == Some(&choice.snapshot));
                for child in children {
                    prop_assert!(gone.contains(&child.snapshot), "a parent went before its child");
                }
                prop_assert!(gone.insert(choice.snapshot.clone()), "taken twice");
                left -= choice.bytes;
                prop_assert!(choice.reason == Reason::Unowned || left >= floor_bytes);
            }
        }
    }
}
