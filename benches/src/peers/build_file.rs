//! What builders of images are given to do.

use std::path::Path;

use anyhow::Context as _;

/// Steps of the chain.
pub(crate) const STEPS: usize = 10;

/// Writes a build context of a chain of `echo` steps on this image.
pub(super) fn write_chain(context: &Path, image: &str) -> anyhow::Result<()> {
    let steps: String = (1..=STEPS)
        .map(|step| format!("RUN echo {step}\n"))
        .collect();
    write(context, image, &steps)
}

/// Writes instructions that bring the whole context in, and run one step.
pub(super) fn write_copy(context: &Path, image: &str) -> anyhow::Result<()> {
    write(context, image, "COPY . /src\nRUN true\n")
}

fn write(context: &Path, image: &str, instructions: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(context).with_context(|| format!("creating {}", context.display()))?;
    let file = context.join("Dockerfile");
    std::fs::write(&file, format!("FROM {image}\n{instructions}"))
        .with_context(|| format!("writing {}", file.display()))
}
