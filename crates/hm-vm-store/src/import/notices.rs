//! What an import could not keep, gathered so that each kind is told once.

use std::collections::BTreeMap;

use crate::beneath::as_path;

/// Something that was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lost {
    Owner,
    UnknownOwner,
    Device,
    Whiteout,
    Socket,
    LinkToOmitted,
    Xattr,
    OtherKind,
    OtherMount,
    Excluded,
}

impl Lost {
    fn text(self) -> &'static str {
        match self {
            Self::Owner => "owners were flattened: entries given to root (and set-id bits removed)",
            Self::UnknownOwner => "owners unknown here, entries given to root",
            Self::Device => "device nodes left out",
            Self::Whiteout => "character devices 0/0 (overlay whiteouts) left out",
            Self::Socket => "sockets left out",
            Self::LinkToOmitted => "hard links to something that was left out, left out",
            Self::Xattr => "extended attributes not kept",
            Self::OtherKind => "entries of an unknown kind left out",
            Self::OtherMount => "mount points left empty or out",
            Self::Excluded => "directories left out as asked",
        }
    }
}

/// Counts of what was lost, each with the first path.
#[derive(Debug, Default)]
pub(super) struct Notices {
    lost: BTreeMap<Lost, (u64, Vec<u8>)>,
    other: Vec<String>,
}

impl Notices {
    pub(super) fn lost(&mut self, what: Lost, path: &[u8]) {
        let (count, _) = self
            .lost
            .entry(what)
            .or_insert_with(|| (0, path.to_owned()));
        *count += 1;
    }

    pub(super) fn say(&mut self, notice: impl Into<String>) {
        self.other.push(notice.into());
    }

    pub(super) fn into_texts(self) -> Vec<String> {
        let lost = self.lost.into_iter().map(|(what, (count, first))| {
            let first = as_path(&first).display();
            format!("{}: {count} (first: {first})", what.text())
        });
        lost.chain(self.other).collect()
    }
}
