//! The command line: one file per subcommand, this one only dispatches.

mod bench;
mod bridge;
mod check;
mod completions;
#[cfg(feature = "sim")]
mod demo;
mod doctor;
mod inspection;
mod latency;
mod list;
mod man;
mod output;
mod password;
mod probe;
mod progress;
mod rm;
mod run;
mod schema;
mod serve;
mod show;
#[cfg(feature = "sim")]
mod sim;
mod snap;
mod top;
mod up;
mod visits;
mod wait;
mod watch;

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

/// The subcommands; a variant without a text has that of its `Args`, which may be longer than a line.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum Command {
    Bench(bench::Args),
    Bridge(bridge::Args),
    Check(check::Args),
    Completions(completions::Args),
    /// Show the whole path on the embedded camera: RTSP, capture, ring, readers; exit 0 when all is right.
    #[cfg(feature = "sim")]
    Demo(demo::Args),
    Doctor(doctor::Args),
    List(list::Args),
    Man(man::Args),
    Probe(probe::Args),
    Rm(rm::Args),
    /// Capture one camera in the foreground.
    Run(run::Args),
    Schema(schema::Args),
    Serve(serve::Args),
    Show(show::Args),
    /// Simulate a camera: an RTSP server whose every picture carries a machine-readable stamp.
    #[cfg(feature = "sim")]
    Sim(Box<sim::Args>),
    Snap(snap::Args),
    Top(top::Args),
    Up(up::Args),
    Wait(wait::Args),
    Watch(watch::Args),
}

/// Runs the chosen subcommand.
///
/// # Errors
///
/// Whatever the subcommand reports, with the exit code of the table in `exit.rs`.
pub fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Bench(args) => bench::run(&args, &cli.global),
        Command::Bridge(args) => bridge::run(&args, &cli.global),
        Command::Check(args) => check::run(&cli.global, &args),
        Command::Completions(args) => completions::run(&args),
        #[cfg(feature = "sim")]
        Command::Demo(args) => demo::run(&args, &cli.global),
        Command::Doctor(args) => doctor::run(&args, &cli.global),
        Command::List(args) => list::run(&args, &cli.global),
        Command::Man(args) => man::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Rm(args) => rm::run(&args, &cli.global),
        Command::Run(args) => run::run(&args, &cli.global),
        Command::Schema(args) => schema::run(&args),
        Command::Serve(args) => serve::run(&args, &cli.global),
        Command::Show(args) => show::run(&args, &cli.global),
        #[cfg(feature = "sim")]
        Command::Sim(args) => sim::run(*args),
        Command::Snap(args) => snap::run(&args, &cli.global),
        Command::Top(args) => top::run(&args, &cli.global),
        Command::Up(args) => up::run(&args, &cli.global),
        Command::Wait(args) => wait::run(&args, &cli.global),
        Command::Watch(args) => watch::run(&args, &cli.global),
    }
}
