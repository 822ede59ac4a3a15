//! `camring run`: captures one camera in the foreground; what the systemd unit starts.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use camring_ring::process::exit_now;
use camring_ring::{Reason, ShmDir, StatusHandle};
use crossbeam_channel::{Receiver, bounded, select};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::assemble;
use crate::board::RingBoard;
use crate::camera::{Camera as Supervisor, Outcome, Parts, Past};
use crate::cli::Global;
use crate::cli::output::create_failure;
use crate::cli::password;
use crate::clock::SystemClock;
use crate::config::{self, Camera, Config, LoadOptions, LogFormat, LogSettings, MountRoom, SecretStore};
use crate::exit::{Exit, Failure};
use crate::health::Health;
use crate::heap;
use crate::limits;
use crate::limits::memory::{self, MemoryLimit};
use crate::log;
use crate::pipeline;
use crate::publish::Publisher;
use crate::reload::{self, Reloader};
use crate::rings::Rings;
use crate::shutdown::{self, Stop};
use crate::up::child::PARENT_VARIABLE;

/// Captures one camera in the foreground until SIGTERM or SIGINT; SIGHUP reads the configuration again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The camera: a table [camera.NAME] of the configuration, or with --url the name that its ring gets.
    #[arg(value_name = "CAMERA")]
    pub camera: String,
    /// The configuration file, instead of /etc/camring/camring.toml and /etc/camring/conf.d/*.toml.
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub config: Option<PathBuf>,
    /// Capture this address without a file; user and password apart from it.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The user to log in with.
    #[arg(long, value_name = "USER", requires = "url")]
    pub user: Option<String>,
    /// Read the password from the first line of standard input, so that it is in no process list.
    #[arg(long, requires = "user")]
    pub password_stdin: bool,
}

/// What is to be run, and how to log about it.
struct Job {
    camera: Camera,
    level: String,
    format: LogFormat,
    /// What the file says of the log; `None` for a camera that is in no file.
    log: Option<LogSettings>,
}

/// Runs the command.
///
/// # Errors
///
/// 78 for a wrong configuration, 79 when the camera is served already, 73 without room, 77 without permission.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    heap::settle()?;
    // While a plugin is loaded, GStreamer would take a crash for its own: words on standard output and `exit(255)` out of
    // a signal handler, where any thread may hold any lock, in the place of a death that the service manager can name.
    gst::segtrap_set_enabled(false);
    if let Some(parent) = std::env::var_os(PARENT_VARIABLE) {
        end_with(&parent)?;
    }
    limits::raise_open_files()?;
    let shm = ShmDir::new(&global.shm_dir);
    let job = job(args, &shm)?;
    assemble::examine(&job.camera).map_err(|errors| errors.report())?;
    let access = job.camera.resolve_secrets(&SecretStore::of_process()).map_err(|errors| errors.report())?;
    let format = match job.format {
        LogFormat::Auto => log::LogFormat::Auto,
        LogFormat::Json => log::LogFormat::Json,
        LogFormat::Text => log::LogFormat::Text,
    };
    log::init(&job.level, format).map_err(|error| Failure::new(Exit::Config, error))?;
    crate::log::adopt_glib();
    if args.url.is_some() && !args.password_stdin && access.as_ref().is_some_and(|access| access.password.is_some()) {
        tracing::warn!(
            "the password in --url can be read by everybody on this host; \
             say --user USER --password-stdin, or put the camera into a file"
        );
    }
    let (hangup, hangups) = bounded(1);
    let stop = shutdown::listen(Some(hangup), || exit_now(0)).map_err(|e| Failure::new(Exit::Failure, e))?;
    let plans = assemble::plans(&job.camera, &shm).map_err(|e| Failure::new(Exit::Config, e))?;
    memory::check(&job.camera, &plans, MemoryLimit::of_process())?;
    start_gstreamer(&stop)?;
    let (rings, publisher) = Rings::open(job.camera.name.as_str(), plans).map_err(create_failure)?;
    let reloader = job.log.map(|log| Reloader {
        file: args.config.clone(),
        shm,
        camera: job.camera.clone(),
        access: access.clone(),
        log,
        rings: Arc::clone(&rings),
    });
    let reloads = reload::spawn(reloader, hangups).map_err(|e| Failure::new(Exit::Failure, e))?;
    let source = assemble::source(&job.camera, access);
    let mut supervisor = supervise(&job.camera, source, publisher, &rings).with_reloads(reloads);
    match supervisor.run(&stop) {
        Outcome::Stopped => {
            rings.stopped(Reason::Operator);
            Ok(())
        }
        Outcome::StopOverran => {
            rings.stopped(Reason::Operator);
            exit_now(0)
        }
        Outcome::TeardownOverran => exit_now(Exit::Temporary as u8),
    }
}

/// Starts GStreamer before any session's time is counted. Whoever is asked to stop meanwhile ends at once: it cannot be
/// interrupted, and nobody has been told of this process yet.
fn start_gstreamer(stop: &Receiver<Stop>) -> Result<(), Failure> {
    let (sender, started) = bounded(1);
    thread::Builder::new()
        .name("gstreamer".into())
        // There is room for it, and whoever does not wait any more has ended the process.
        .spawn(move || drop(sender.send(pipeline::init())))
        .map_err(|error| Failure::new(Exit::Failure, error))?;
    select! {
        recv(started) -> result => result
            .map_err(|error| Failure::new(Exit::Failure, error))?
            .map_err(|why| Failure::message(Exit::Failure, why.message)),
        recv(stop) -> _ => exit_now(0),
    }
}

/// Has the kernel end this process with the one that has started it, `camring up`: nobody else would.
fn end_with(parent: &OsStr) -> Result<(), Failure> {
    let shown = parent.display();
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| {
        Failure::message(Exit::Failure, format!("cannot be told of the end of process {shown}: {error}"))
    })?;
    // It may have ended before the kernel knew whom to tell.
    let found = getppid().map(|found| found.as_raw_pid().to_string());
    if found.as_deref().map(OsStr::new) != Some(parent) {
        let message = format!(
            "process {shown} ({PARENT_VARIABLE}) has not started this one, or is gone; start camring up again, or unset the variable"
        );
        return Err(Failure::message(Exit::Failure, message));
    }
    Ok(())
}

fn supervise(
    camera: &Camera,
    source: Box<dyn crate::source::FrameSource>,
    publisher: Publisher,
    rings: &Arc<Rings>,
) -> Supervisor {
    let main = rings.main();
    Supervisor::new(Parts {
        source,
        sink: Box::new(publisher),
        board: Box::new(RingBoard::new(Arc::clone(rings))),
        clock: Arc::new(SystemClock),
        policy: assemble::policy(camera),
        health: Health::from_environment(camera.ready_timeout),
        past: if main.as_ref().is_some_and(StatusHandle::had_frames) { Past::HadFrames } else { Past::Empty },
        session_id: main.map_or(0, |main| main.session()),
        name: camera.name.as_str().to_owned(),
    })
}

/// The camera from the file, or from the command line.
fn job(args: &Args, shm: &ShmDir) -> Result<Job, Failure> {
    if let Some(url) = &args.url {
        let password = if args.password_stdin { Some(password::from_stdin()?) } else { None };
        let camera = Camera::from_url(&args.camera, url, args.user.as_deref(), password).map_err(|e| e.report())?;
        return Ok(Job { camera, level: "info".into(), format: LogFormat::Auto, log: None });
    }
    let files = Config::find(args.config.as_deref(), config::CONFIG_FOLDER.as_ref()).map_err(|e| e.report())?;
    let options = LoadOptions { mount: MountRoom::of(shm.root()) };
    let config = Config::load(&files, &options).map_err(|errors| errors.report())?;
    config::report::print_all(&config.warnings);
    let camera = config.camera(&args.camera).map_err(|errors| errors.report())?.clone();
    Ok(Job { camera, level: config.log.level.to_string(), format: config.log.format, log: Some(config.log) })
}
