use clap::Args;
use hm_pipeline::schema::json_schema;

use crate::output::json;

/// Print the JSON schema of the pipeline file, for editors
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  hmvm schema > hmvm.schema.json    # then, as the first line of hmvm.toml: #:schema ./hmvm.schema.json")]
pub(crate) struct Schema {}

impl Schema {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let Self {} = self;
        json::document(&json_schema())
    }
}
