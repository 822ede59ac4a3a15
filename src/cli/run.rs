//! `camring run`: captures one camera in the foreground; what the systemd unit starts.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use camring_ring::process::exit_now;
use camring_ring::{Housekeeping, HousekeepingEvent, Reason, ShmDir, Started, StatusHandle, Writer};
use crossbeam_channel::bounded;
use secrecy::SecretString;

use crate::assemble;
use crate::board::RingBoard;
use crate::camera::{Camera as Supervisor, Outcome, Parts, Past};
use crate::cli::Global;
use crate::cli::output::create_failure;
use crate::clock::SystemClock;
use crate::config::{self, Camera, Config, LoadOptions, LogFormat, LogSettings, MountRoom, SecretStore};
use crate::exit::{Exit, Failure};
use crate::health::Health;
use crate::limits;
use crate::log;
use crate::publish::{Publisher, Shared};
use crate::reload::{self, Reloader};
use crate::shutdown;

/// Longest password read from standard input, bytes.
const PASSWORD_MAX: u64 = 4096;

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
    let options = assemble::writer_options(&job.camera, &shm).map_err(|e| Failure::new(Exit::Config, e))?;
    let (writer, started) = Writer::start(options).map_err(create_failure)?;
    let status = writer.status();
    announce(&job.camera, &status, &started);
    let _house = keep_house(&job.camera, status.clone())?;
    let shared = Arc::new(Shared::default());
    let reloader = job.log.map(|log| Reloader {
        file: args.config.clone(),
        shm,
        camera: job.camera.clone(),
        access: access.clone(),
        log,
        shared: Arc::clone(&shared),
    });
    let reloads = reload::spawn(reloader, hangups).map_err(|e| Failure::new(Exit::Failure, e))?;
    let source = assemble::source(&job.camera, access);
    let mut supervisor = supervise(&job.camera, source, writer, &status, shared).with_reloads(reloads);
    match supervisor.run(&stop) {
        Outcome::Stopped => {
            status.stopped(Reason::Operator);
            Ok(())
        }
        Outcome::StopOverran => {
            status.stopped(Reason::Operator);
            exit_now(0)
        }
        Outcome::TeardownOverran => exit_now(Exit::Temporary as u8),
    }
}

fn supervise(
    camera: &Camera,
    source: Box<dyn crate::source::FrameSource>,
    writer: Writer,
    status: &StatusHandle,
    shared: Arc<Shared>,
) -> Supervisor {
    let name = camera.name.as_str().to_owned();
    Supervisor::new(Parts {
        source,
        sink: Box::new(Publisher::new(name.clone(), writer, assemble::limit(camera), Arc::clone(&shared))),
        board: Box::new(RingBoard::new(status.clone(), shared)),
        clock: Arc::new(SystemClock),
        policy: assemble::policy(camera),
        health: Health::from_environment(camera.ready_timeout),
        past: if status.had_frames() { Past::HadFrames } else { Past::Empty },
        session_id: status.session(),
        name,
    })
}

/// The camera from the file, or from the command line.
fn job(args: &Args, shm: &ShmDir) -> Result<Job, Failure> {
    if let Some(url) = &args.url {
        let password = if args.password_stdin { Some(read_password()?) } else { None };
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

fn read_password() -> Result<SecretString, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .take(PASSWORD_MAX)
        .read_to_string(&mut text)
        .map_err(|e| Failure::message(Exit::Usage, format!("cannot read the password from standard input: {e}")))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        let message = "standard input holds no password; expected it as the first line (--password-stdin)";
        return Err(Failure::message(Exit::Usage, message));
    }
    Ok(SecretString::from(line))
}

fn announce(camera: &Camera, status: &StatusHandle, started: &Started) {
    let name = camera.name.as_str();
    for note in &started.notes {
        tracing::info!(camera = name, "{note}");
    }
    if let Some(why) = &started.not_adopted {
        tracing::warn!(camera = name, "the old ring is replaced: {why}");
    }
    let (adopted, seq, torn_repaired) = (started.adopted, status.newest().0, started.torn_repaired);
    tracing::info!(camera = name, segment = camera.segment, adopted, seq, torn_repaired, "the ring is ready");
}

fn keep_house(camera: &Camera, status: StatusHandle) -> Result<Housekeeping, Failure> {
    let name = camera.name.as_str().to_owned();
    Housekeeping::spawn(status, move |event| tell(&name, event)).map_err(|e| Failure::new(Exit::Failure, e))
}

/// What housekeeping has found, as a line of the log.
fn tell(camera: &str, event: HousekeepingEvent) {
    match event {
        HousekeepingEvent::Relinked(names) => {
            tracing::warn!(camera, names, "somebody removed names of the ring; they are back");
        }
        HousekeepingEvent::Lost => {
            tracing::error!(camera, "both names of the ring are gone; the next frame makes a new one");
        }
        HousekeepingEvent::NamesFailed(error) => tracing::error!(camera, "{error}"),
        HousekeepingEvent::Unwatched(why) => {
            tracing::info!(camera, "removed names of the ring come back within a second, not at once: {why}");
        }
        HousekeepingEvent::LocksSlow { locks, pause: Some(pause) } => {
            let (locks, pause_s) = (known(locks), pause.as_secs());
            tracing::warn!(
                camera,
                locks,
                pause_s,
                "readers' locks make claims slow; leases are not honoured for a while"
            );
        }
        HousekeepingEvent::LocksSlow { locks, pause: None } => {
            let locks = known(locks);
            tracing::warn!(
                camera,
                locks,
                "readers' locks make claims slow; lease policy protect honours them all the same"
            );
        }
        HousekeepingEvent::LocksFine => tracing::info!(camera, "claims are quick again; leases are honoured"),
        event => tracing::info!(camera, ?event, "housekeeping"),
    }
}

/// A number of locks where the kernel shows it.
fn known(locks: Option<usize>) -> String {
    locks.map_or_else(|| "unknown".to_owned(), |locks| locks.to_string())
}
