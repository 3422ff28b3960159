use clap::Args;
use clap_complete::Shell;

use crate::app::App;
use crate::output::ui::write_out;

/// Print a script that completes hmvm's options in a shell
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  hmvm completions bash > ~/.local/share/bash-completion/completions/hmvm"
)]
pub(crate) struct Completions {
    /// The shell that reads the script
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, _app: &App) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::command(), "hmvm", &mut script);
        write_out(|out| out.write_all(&script))
    }
}
