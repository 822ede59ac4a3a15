//! The `camring` binary: parse, dispatch, turn an error into an exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match camring::cli::run(camring::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.exit.into()
        }
    }
}
