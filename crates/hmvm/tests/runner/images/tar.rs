//! Tars as nobody writes them by accident.

/// The bytes of a tar, entry by entry.
#[derive(Debug, Default)]
pub(super) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// A regular file.
    pub(super) fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(b'0', name, "", 0o644, content, content.len())
    }

    /// A directory.
    pub(super) fn directory(self, name: &str, mode: u32) -> Self {
        self.entry(b'5', name, "", mode, b"", 0)
    }

    /// A symbolic link.
    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, 0o777, b"", 0)
    }

    /// A hard link.
    pub(super) fn link(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, 0o644, b"", 0)
    }

    /// A regular file that claims another size than it has.
    pub(super) fn liar(self, name: &str, content: &[u8], claimed: usize) -> Self {
        self.entry(b'0', name, "", 0o644, content, claimed)
    }

    /// Any entry: kind as in the header, and a size that is claimed.
    pub(super) fn entry(
        mut self,
        kind: u8,
        name: &str,
        target: &str,
        mode: u32,
        content: &[u8],
        size: usize,
    ) -> Self {
        let mut head = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}\0").as_bytes());
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{size:011o}\0").as_bytes());
        put(136, b"14000000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, target.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(head);
        self.bytes.extend(content);
        let whole = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(whole, 0);
        self
    }

    /// The bytes, with the end that a tar has.
    pub(super) fn bytes(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }
}
