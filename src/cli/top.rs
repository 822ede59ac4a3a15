//! `camring top`: all rings, live, and one of them opened: its slots, its leases, its readers.
//!
//! On a terminal a screen of its own, elsewhere the table again and again. Only looks: it is no counted reader and keeps
//! no camera awake.

mod board;
mod plain;
mod screen;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use super::Global;
use super::output::{Reading, duration};
use crate::exit::Failure;

/// Watch all rings live: state, rate, age, lag, drops, readers, processor and memory of each capture process.
///
/// Works when no daemon runs. On a terminal: arrows choose, Enter opens a ring (slots, leases, readers), Esc goes back,
/// s sorts, ? helps, q ends. Elsewhere the table is printed once per interval.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these: camera, output or segment.
    ring: Vec<String>,
    /// How often to look.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print the table so many times and end, on a terminal as well.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Whose rings.
    #[command(flatten)]
    reading: Reading,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    let sensible = Duration::from_millis(50)..=Duration::from_secs(3600);
    if sensible.contains(&interval) { Ok(interval) } else { Err("expected 50ms to 1h".into()) }
}

/// Shows the rings until it is told to stop.
///
/// # Errors
///
/// When the memory mount cannot be read, or the terminal refuses.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    if args.count.is_none() && std::io::stdout().is_terminal() {
        return screen::run(args, global);
    }
    plain::run(args, global)
}
