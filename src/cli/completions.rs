//! `camring completions`: prints what a shell needs to complete commands and options.

use clap::CommandFactory;

use super::Cli;
use super::output::emit;
use crate::exit::Failure;

/// Print the completions of a shell.
///
/// bash: /usr/share/bash-completion/completions/camring · zsh: _camring in a folder of $fpath ·
/// fish: ~/.config/fish/completions/camring.fish
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// A shell that can complete.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// fish.
    Fish,
}

/// Runs the command.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn run(args: &Args) -> Result<(), Failure> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "camring", &mut script);
    emit(&script).map(drop)
}
