use clap::{Args, ValueEnum};
use hm_pipeline::graph;
use hm_pipeline::plan::PlanOptions;

use crate::app::App;
use crate::backend::BackendArgs;
use crate::commands::plan;
use crate::commands::run::SettingArgs;
use crate::run::FileArgs;

/// Draw the steps of a pipeline and what they fork from and need
///
/// The picture goes to standard output. Colours tell what hmvm run would do with each step.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm graph > pipeline.svg
  hmvm graph --output dot | dot -Tpng > pipeline.png")]
pub(crate) struct Graph {
    /// Steps to draw, with all that they need [default: all]
    #[arg(value_name = "STEP")]
    steps: Vec<String>,
    #[command(flatten)]
    file: FileArgs,
    /// What to write
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Form::Svg)]
    output: Form,
    #[command(flatten)]
    settings: SettingArgs,
    #[command(flatten)]
    backend: BackendArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A picture that needs nothing else
    Svg,
    /// For the programs of Graphviz
    Dot,
}

impl Graph {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<()> {
        let options = PlanOptions {
            targets: self.steps.clone(),
            ..PlanOptions::default()
        };
        let plan = plan::make(
            app,
            &self.file,
            &self.settings,
            None,
            &self.backend,
            &options,
        )?
        .plan;
        app.ui.print(match self.output {
            Form::Svg => graph::svg(&plan),
            Form::Dot => graph::dot(&plan),
        })
    }
}
