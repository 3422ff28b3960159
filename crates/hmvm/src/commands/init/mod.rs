//! `hmvm init`: a pipeline file to start from.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::app::App;
use crate::failure::Problem;
use crate::input::environment;
use crate::output::sanitize::sanitize_path;

const FILE: &str = "hmvm.toml";

/// Write an hmvm.toml to start from, for the kind of project that is here
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm init
  hmvm init --kind rust --print")]
pub(crate) struct Init {
    /// The project's directory
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// The kind of project [default: what its files say]
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// Print the file instead of writing it
    #[arg(long)]
    print: bool,
}

/// A kind of project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Cargo.toml
    Rust,
    /// package.json
    Node,
    /// pyproject.toml, setup.py or requirements.txt
    Python,
    /// go.mod
    Go,
    /// CMakeLists.txt, configure, meson.build or Makefile
    C,
    /// Anything else
    Other,
}

impl Kind {
    /// The files that tell kinds apart: the first one that is there decides. A makefile says least: it comes last.
    const SIGNS: [(&'static str, Self); 11] = [
        ("Cargo.toml", Self::Rust),
        ("package.json", Self::Node),
        ("pyproject.toml", Self::Python),
        ("setup.py", Self::Python),
        ("requirements.txt", Self::Python),
        ("go.mod", Self::Go),
        ("CMakeLists.txt", Self::C),
        ("configure", Self::C),
        ("meson.build", Self::C),
        ("Makefile", Self::C),
        ("makefile", Self::C),
    ];

    fn of(directory: &Path) -> Self {
        let found = Self::SIGNS
            .iter()
            .find(|(name, _)| directory.join(name).is_file());
        found.map_or(Self::Other, |(_, kind)| *kind)
    }

    fn template(self) -> &'static str {
        match self {
            Self::Rust => include_str!("templates/rust.toml"),
            Self::Node => include_str!("templates/node.toml"),
            Self::Python => include_str!("templates/python.toml"),
            Self::Go => include_str!("templates/go.toml"),
            Self::C => include_str!("templates/c.toml"),
            Self::Other => include_str!("templates/other.toml"),
        }
    }

    /// The commands of a C project, by what builds it.
    fn c_commands(directory: &Path) -> [&'static str; 3] {
        let has = |name: &str| directory.join(name).is_file();
        if has("CMakeLists.txt") {
            [
                "cmake -B build",
                "cmake --build build -j2",
                "ctest --test-dir build --output-on-failure",
            ]
        } else if has("meson.build") {
            [
                "meson setup build",
                "meson compile -C build",
                "meson test -C build",
            ]
        } else if has("configure") {
            ["./configure", "make -j2", "make check"]
        } else {
            ["make -n > /dev/null", "make -j2", "make test"]
        }
    }
}

impl Init {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<()> {
        let directory = environment::absolute(&self.directory)?;
        let kind = self.kind.unwrap_or_else(|| Kind::of(&directory));
        let text = text(kind, &directory);
        if self.print {
            return app.ui.print(text);
        }
        let path = directory.join(FILE);
        let shown = sanitize_path(&path);
        let made = OpenOptions::new().write(true).create_new(true).open(&path);
        let mut file = made.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Problem::new(format!("{shown} is there already"))
                .hint("hmvm init --print shows what it would be"),
            ErrorKind::NotFound => {
                Problem::new(format!("{} does not exist", sanitize_path(&directory)))
            }
            _ => Problem::new(format!("cannot make {shown}: {error}")),
        })?;
        file.write_all(text.as_bytes())
            .map_err(|error| Problem::new(format!("cannot write {shown}: {error}")))?;
        app.ui.say(format_args!(
            "hmvm: wrote {shown}; look it over, then: hmvm run"
        ));
        Ok(())
    }
}

fn text(kind: Kind, directory: &Path) -> String {
    let name = directory
        .file_name()
        .and_then(|name| name.to_str())
        .filter(|name| {
            name.chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        })
        .unwrap_or("ci");
    let [configure, build, test] = Kind::c_commands(directory);
    kind.template()
        .replace("@NAME@", name)
        .replace("@CONFIGURE@", configure)
        .replace("@BUILD@", build)
        .replace("@TEST@", test)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hm_pipeline::parse::{Format, read};

    #[test]
    fn every_template_is_a_pipeline() {
        let place = tempfile::tempdir().unwrap();
        for kind in Kind::value_variants() {
            let text = text(*kind, place.path());
            let pipeline = read(&text, Format::Toml, place.path())
                .unwrap_or_else(|problems| panic!("{kind:?}: {}", problems.render(FILE, &text)));
            assert!(!pipeline.steps.is_empty(), "{kind:?}");
            assert!(!text.contains('@'), "{kind:?}: {text}");
        }
    }

    #[test]
    fn the_files_of_a_project_tell_its_kind() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(Kind::of(place.path()), Kind::Other);
        // From the weakest sign to the strongest.
        for (name, kind) in Kind::SIGNS.iter().rev() {
            std::fs::write(place.path().join(name), "").unwrap();
            assert_eq!(Kind::of(place.path()), *kind, "{name}");
        }
    }
}
