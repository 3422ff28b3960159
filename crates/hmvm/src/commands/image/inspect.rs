use std::time::SystemTime;

use clap::Args;

use super::{not_found, to_json};
use crate::app::App;
use crate::output::sanitize::sanitize;
use crate::output::{human, json};

/// Tell all that is known of an image
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm image inspect host")]
pub(super) struct Inspect {
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let found = app.store()?.image(&self.name)?;
        let info = found.ok_or_else(|| not_found(&self.name))?;
        if self.json {
            return json::document(&to_json(&info));
        }
        let clean = |text: &str| sanitize(text).into_owned();
        let mut fields = vec![
            ("name", clean(&info.name)),
            ("digest", info.digest.clone()),
            ("created", human::timestamp(info.created)),
        ];
        let reference = info.reference.as_deref().map(clean);
        fields.extend(reference.map(|text| ("reference", text)));
        let manifest = info.manifest.map(|digest| digest.to_string());
        fields.extend(manifest.map(|text| ("manifest", text)));
        let checked = info.checked.map(|time| {
            let ago = human::ago(SystemTime::now(), time);
            format!("{} ({ago})", human::timestamp(time))
        });
        fields.extend(checked.map(|text| ("asked", text)));
        let platform = info.platform.as_ref().map(ToString::to_string);
        fields.extend(platform.map(|text| ("platform", clean(&text))));
        fields.push(("size", human::size(info.bytes)));
        fields.push(("entries", info.entries.to_string()));
        let defaults = &info.defaults;
        fields.extend(defaults.user.as_deref().map(|user| ("user", clean(user))));
        let workdir = defaults.working_dir.as_deref();
        fields.extend(workdir.map(|path| ("workdir", clean(path))));
        for (name, value) in &defaults.env {
            fields.push(("env", clean(&format!("{name}={value}"))));
        }
        let style = app.ui.out_style();
        for (name, value) in fields {
            let name = style.bold(&format!("{name:<9}"));
            app.ui.data(format_args!("{name} {value}"))?;
        }
        for notice in &info.notices {
            app.ui.notice(&sanitize(notice));
        }
        Ok(())
    }
}
