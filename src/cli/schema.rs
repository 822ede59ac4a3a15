//! `camring schema`: prints the JSON schema of the configuration.

use super::output::emit_line;
use crate::config::schema::schema;
use crate::exit::{Exit, Failure};

/// Print the JSON schema of the configuration, with which editors complete and check its keys.
///
/// Where the file begins with `#:schema /usr/share/camring/camring.schema.json`, editors with a TOML language server
/// (Even Better TOML, taplo) find it by themselves. It knows keys, types and words; `camring check` knows the rest.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn run(_: &Args) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&schema()).map_err(|error| Failure::new(Exit::Failure, error))?;
    emit_line(&text).map(drop)
}
