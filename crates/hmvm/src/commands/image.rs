use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use hm_vm::Progress;
use hm_vm::store::ImageInfo;
use serde_json::{Value, json};

use crate::app::App;
use crate::failure::{Problem, hinted};
use crate::input::environment;
use crate::names;
use crate::output::sanitize::sanitize;
use crate::output::{Table, bar, human, json};

const SOURCE_HINT: &str = "hmvm image import PATH NAME takes a directory with a root file system, or a tar archive of one";

/// Make, list and remove images
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  hmvm image import rootfs.tar.zst debian\n  hmvm exec --image debian -- cat /etc/os-release"
)]
pub(crate) struct Image {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Import(Import),
    Ls(Ls),
    Inspect(Inspect),
    Rm(Rm),
}

impl Image {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<()> {
        match &self.command {
            Command::Import(import) => import.run(app),
            Command::Ls(ls) => ls.run(app),
            Command::Inspect(inspect) => inspect.run(app),
            Command::Rm(rm) => rm.run(app),
        }
    }
}

/// Make an image of a root file system: a directory or a tar archive (.gz, .zst, .xz)
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  debootstrap bookworm ./root && hmvm image import ./root debian
  hmvm image import rootfs.tar.xz alpine")]
struct Import {
    /// The directory or the archive
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Name of the image; one that has this name already is replaced
    #[arg(value_name = "NAME")]
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Import {
    fn run(&self, app: &App) -> anyhow::Result<()> {
        let path = environment::absolute(&self.path)?;
        if let Err(error) = std::fs::metadata(&path) {
            let message = format!("{}: {error}", self.path.display());
            return Err(Problem::new(message).hint(SOURCE_HINT).into());
        }
        let store = app.store()?;
        let counted = Progress::new();
        let import = || store.import_image_watched(&path, &self.name, &counted);
        let info =
            bar::during(&app.ui, &counted, import).map_err(|error| hinted(error, SOURCE_HINT))?;
        for notice in &info.notices {
            app.ui.notice(&sanitize(notice));
        }
        if self.json {
            return json::document(&to_json(&info));
        }
        app.ui.say(format_args!(
            "hmvm: image {} has {} in {}",
            sanitize(&info.name),
            human::size(info.bytes),
            human::plural(info.entries, "entry|entries"),
        ));
        Ok(())
    }
}

/// List the images
#[derive(Args, Debug)]
#[command(visible_alias = "list", after_help = "Example:\n  hmvm image ls")]
struct Ls {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Ls {
    fn run(&self, app: &App) -> anyhow::Result<()> {
        let store = app.store()?;
        // This machine's own image comes to be when it is first asked for.
        store.image("host")?;
        let mut images = store.images()?;
        images.sort_by(|a, b| a.name.cmp(&b.name));
        if self.json {
            let list: Vec<Value> = images.iter().map(to_json).collect();
            return json::document(&list);
        }
        let now = SystemTime::now();
        let titles = ["NAME", "DIGEST", ">SIZE", ">ENTRIES", "CREATED"];
        let mut table = Table::new(&titles, app.ui.out_style());
        for info in &images {
            table.row(vec![
                sanitize(&info.name).into_owned(),
                names::short(&info.digest).to_owned(),
                human::size(info.bytes),
                info.entries.to_string(),
                human::ago(now, info.created),
            ]);
        }
        app.ui.print(table)
    }
}

/// Tell all that is known of an image
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm image inspect host")]
struct Inspect {
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    fn run(&self, app: &App) -> anyhow::Result<()> {
        let found = app.store()?.image(&self.name)?;
        let info = found.ok_or_else(|| not_found(&self.name))?;
        if self.json {
            return json::document(&to_json(&info));
        }
        let fields = [
            ("name", sanitize(&info.name).into_owned()),
            ("digest", info.digest.clone()),
            ("created", human::timestamp(info.created)),
            ("size", human::size(info.bytes)),
            ("entries", info.entries.to_string()),
        ];
        let style = app.ui.out_style();
        for (name, value) in fields {
            app.ui.data(format_args!(
                "{} {value}",
                style.bold(&format!("{name:<8}"))
            ))?;
        }
        for notice in &info.notices {
            app.ui.notice(&sanitize(notice));
        }
        Ok(())
    }
}

/// Remove images; snapshots that began with them stay whole
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm image rm debian")]
struct Rm {
    /// Their names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

impl Rm {
    fn run(&self, app: &App) -> anyhow::Result<()> {
        let store = app.store()?;
        for name in &self.names {
            if name == "host" {
                return Err(Problem::new("image \"host\" cannot be removed")
                    .hint("it is this machine's own root file system, and takes no space")
                    .into());
            }
            if store.image(name)?.is_none() {
                return Err(not_found(name));
            }
        }
        for name in &self.names {
            store.remove_image(name)?;
        }
        let count = human::plural(self.names.len() as u64, "image");
        app.ui.say(format_args!("hmvm: removed {count}"));
        Ok(())
    }
}

fn not_found(name: &str) -> anyhow::Error {
    hm_vm::Error::ImageNotFound {
        image: name.to_owned(),
    }
    .into()
}

fn to_json(info: &ImageInfo) -> Value {
    json!({
        "name": info.name,
        "digest": info.digest,
        "created": json::time(info.created),
        "bytes": info.bytes,
        "entries": info.entries,
        "notices": info.notices,
    })
}
