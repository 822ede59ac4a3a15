//! The command line: one file per subcommand, this one only dispatches.

pub mod check;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::exit::Failure;

/// One camera, one process, one shared-memory ring of decoded frames.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// The memory mount that holds the rings (a tmpfs).
    #[arg(long, global = true, env = "CAMRING_SHM_DIR", default_value = "/dev/shm", value_name = "DIR")]
    pub shm_dir: PathBuf,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Validate the configuration and say everything that is wrong with it.
    Check(check::Args),
}

/// Runs the chosen subcommand.
///
/// # Errors
///
/// Whatever the subcommand reports, with the exit code of the table in `exit.rs`.
pub fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Check(args) => check::run(&cli.global, &args),
    }
}
