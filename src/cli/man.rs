//! `camring man`: writes the manual pages.

use std::path::PathBuf;

use clap::CommandFactory;

use super::Cli;
use crate::exit::{Exit, Failure};

/// Write a manual page for camring and for each of its commands (section 1) into a folder.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder; it is made when it is not there.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// Runs the command.
///
/// # Errors
///
/// The folder or a file cannot be written.
pub fn run(args: &Args) -> Result<(), Failure> {
    let write = || {
        std::fs::create_dir_all(&args.folder)?;
        clap_mangen::generate_to(Cli::command(), &args.folder)
    };
    write().map_err(|error| {
        let text =
            format!("cannot write manual pages into {}; name a folder that can be written", args.folder.display());
        Failure::new(Exit::Failure, anyhow::Error::new(error).context(text))
    })
}
