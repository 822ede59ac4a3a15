//! `camring up`: every camera of the configuration, each in a process of its own, below this one.

use std::io;
use std::path::PathBuf;

use tokio::runtime::Builder;

use super::Global;
use crate::config::{Config, LogFormat, report};
use crate::exit::{Exit, Failure};
use crate::log;
use crate::up::lines::{Lines, LinesEnd, Style};
use crate::up::{Orders, Outcome, Up};

/// Capture every camera of the configuration, each in a process of its own: for containers and laptops.
///
/// A process that dies is started again, alone, after 0.1 s, later up to 5 s; after exit codes 77, 78 and 79 only at a
/// reload. SIGTERM and SIGINT end all of them within 5 s, a second one at once. SIGHUP reads the configuration again in
/// each, ends those that are gone from it and begins new ones. When this process is killed, so are they. Their lines go
/// to standard error, with the camera's name in front, or as JSON when the configuration says log.format = "json".
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The cameras [default: all of the configuration].
    #[arg(value_name = "CAMERA")]
    pub cameras: Vec<String>,
    /// The configuration file, instead of /etc/camring/camring.toml and /etc/camring/conf.d/*.toml.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
///
/// 78 for a wrong configuration; the code of the last camera when all of them have ended with 77, 78 or 79.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::message(Exit::Failure, format!("cannot find this program on the disk: {error}")))?;
    let orders =
        Orders { program, config: args.config.clone(), shm_dir: global.shm_dir.clone(), only: args.cameras.clone() };
    let config = orders.read().map_err(|errors| errors.report())?;
    report::print_all(&config.warnings);
    let cameras = orders.cameras(&config);
    if cameras.is_empty() {
        let message = "there is no camera in the configuration; add a table [camera.NAME]";
        return Err(Failure::message(Exit::Config, message));
    }
    let width = cameras.iter().map(String::len).max().unwrap_or(0);
    let (lines, end) = begin_lines(&config, width)?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(Exit::Failure, anyhow::Error::new(error).context("cannot set up timers and signals"))
    })?;
    let outcome = runtime.block_on(Up::new(orders, lines.clone()).run(&cameras));
    // Children that still rest are dropped, and their lines with them.
    drop((runtime, lines));
    end.wait();
    match outcome {
        Ok(Outcome::Stopped) => Ok(()),
        Ok(Outcome::NoneLeft(code)) => Err(Failure::silent(exit_of(code))),
        Err(error) => Err(Failure::new(Exit::Failure, anyhow::Error::new(error).context("cannot listen for signals"))),
    }
}

fn begin_lines(config: &Config, width: usize) -> Result<(Lines, LinesEnd), Failure> {
    let (style, format) = match config.log.format {
        LogFormat::Json => (Style::Json, log::LogFormat::Json),
        LogFormat::Auto | LogFormat::Text => {
            (Style::Text { width, color: log::stderr_takes_color() }, log::LogFormat::Text)
        }
    };
    let (lines, end) = Lines::start(style, io::stderr()).map_err(|error| {
        Failure::new(Exit::Failure, anyhow::Error::new(error).context("cannot begin the thread that writes lines"))
    })?;
    let level = config.log.level.to_string();
    log::init_into(&level, format, lines.clone()).map_err(|error| Failure::new(Exit::Config, error))?;
    Ok((lines, end))
}

fn exit_of(code: i32) -> Exit {
    [Exit::Permission, Exit::AlreadyServed].into_iter().find(|exit| *exit as i32 == code).unwrap_or(Exit::Config)
}
