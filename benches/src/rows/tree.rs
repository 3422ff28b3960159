//! Trees of source files to inject.

use std::path::Path;

use anyhow::Context as _;

/// Writes 10,000 files of a kilobyte in 100 folders. Different seeds give different contents.
pub(super) fn write(folder: &Path, seed: u128) -> anyhow::Result<()> {
    for outer in 0..100 {
        let inner = folder.join(format!("module{outer}"));
        std::fs::create_dir_all(&inner).with_context(|| format!("creating {}", inner.display()))?;
        for file in 0..100 {
            let path = inner.join(format!("source{file}.c"));
            let line = format!("/* {seed} {outer} {file} */ int value;\n");
            let text = line.repeat(1000 / line.len() + 1);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}
