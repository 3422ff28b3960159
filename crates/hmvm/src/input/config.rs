//! The user's configuration file.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use hm_pipeline::Configuration;
use hm_pipeline::parse::read_configuration;

use crate::failure::Problem;
use crate::input::environment::{ConfigPlace, Environment};
use crate::output::Ui;
use crate::output::human::plural;
use crate::output::sanitize::sanitize_path;

/// Longer files are refused.
const MAX_BYTES: u64 = 1 << 20;

/// Reads the configuration; the default where there is no file. Tells every problem of a wrong one.
pub(crate) fn load(environment: &Environment, ui: &Ui) -> anyhow::Result<Configuration> {
    let Some(place) = environment.config_place()? else {
        return Ok(Configuration::default());
    };
    let Some(text) = read(&place)? else {
        return Ok(Configuration::default());
    };
    read_configuration(&text).map_err(|problems| {
        let name = sanitize_path(&place.path);
        ui.complain(&problems.render(&name, &text));
        let count = u64::try_from(problems.problems.len()).unwrap_or(u64::MAX);
        Problem::new(format!("{name} has {}", plural(count, "problem"))).into()
    })
}

/// The text of the file; `None` where there is none, and nobody has named one.
fn read(place: &ConfigPlace) -> Result<Option<String>, Problem> {
    let shown = sanitize_path(&place.path);
    match read_text(&place.path) {
        Ok(text) if text.len() as u64 > MAX_BYTES => {
            Err(Problem::new(format!("{shown} is larger than 1 MiB"))
                .hint("a configuration is a few lines"))
        }
        Ok(text) => Ok(Some(text)),
        Err(error) => match error.kind() {
            ErrorKind::NotFound if place.is_named => {
                Err(Problem::new(format!("{shown}: there is no such file"))
                    .hint("HMVM_CONFIG names it; unset it, or make the file"))
            }
            ErrorKind::NotFound | ErrorKind::NotADirectory if !place.is_named => Ok(None),
            ErrorKind::InvalidData => Err(Problem::new(format!("{shown} is not UTF-8 text"))),
            _ => Err(Problem::new(format!("cannot read {shown}: {error}"))
                .hint("HMVM_CONFIG=FILE names another configuration")),
        },
    }
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}
