//! `camring serve`: metrics, health, live pictures and one page about all rings.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use camring_ring::ShmDir;
use secrecy::{ExposeSecret, SecretString};

use super::Global;
use super::output::Reading;
use crate::config::secret::{SecretFault, read_file};
use crate::config::{self, CONFIG_FOLDER, Config, ConfigErrors, LoadOptions, LogFormat, Problem, SecretStore};
use crate::exit::{Exit, Failure};
use crate::limits;
use crate::log;
use crate::serve::access::TOKEN_MIN;
use crate::serve::{Options, ServeError, Service};

/// Serve metrics, health, live pictures and one page about all rings over HTTP.
///
/// Reads the rings like any other reader and works when no daemon runs. Addresses: / (the page), /metrics (Prometheus),
/// /healthz, /readyz, /api/rings, /api/rings/NAME, /rings/NAME/snapshot.jpg, /rings/NAME/stream.mjpg, /events. SIGHUP
/// reads the names of the cameras from the configuration again; SIGTERM ends it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen, instead of `[serve] listen`; port 0 takes a free one. An address that others can reach needs a
    /// token.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// A file (mode 0600 or 0640) with the token that every request must know, instead of `[serve] token`.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The configuration file, instead of /etc/camring/camring.toml and /etc/camring/conf.d/*.toml, which need not be
    /// there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Whose rings.
    #[command(flatten)]
    reading: Reading,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
///
/// 78 for a wrong configuration, a token that is missing or unusable; 77 and 69 when the address cannot be had.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    limits::raise_open_files()?;
    let config = load(args.config.as_deref())?;
    config::report::print_all(&config.warnings);
    let format = match config.log.format {
        LogFormat::Auto => log::LogFormat::Auto,
        LogFormat::Json => log::LogFormat::Json,
        LogFormat::Text => log::LogFormat::Text,
    };
    log::init(&config.log.level.to_string(), format).map_err(|error| Failure::new(Exit::Config, error))?;
    let address = args.listen.unwrap_or(config.serve.listen);
    let token = token(args, &config)?;
    if token.is_none() && !address.ip().is_loopback() {
        return Err(Failure::message(Exit::Config, without_token(address)));
    }
    let options = Options {
        shm: ShmDir::new(&global.shm_dir),
        owner: args.reading.owner(),
        preview: config.serve.preview,
        token,
        cameras: names(&config),
    };
    let service = Service::bind(address, options).map_err(failure)?;
    tracing::info!(address = %service.address(), "listening; open http://{}/", service.address());
    service.run(|| again(args.config.as_deref())).map_err(failure)
}

/// The configuration; the defaults when none was named and the usual place has none.
fn load(chosen: Option<&Path>) -> Result<Config, Failure> {
    read(chosen).map_err(|errors| errors.report())
}

fn read(chosen: Option<&Path>) -> Result<Config, ConfigErrors> {
    let folder = Path::new(CONFIG_FOLDER);
    // What cannot be examined is there: reading it says why it cannot be read.
    let is_there = |part: &str| folder.join(part).try_exists().unwrap_or(true);
    if chosen.is_none() && !is_there("camring.toml") && !is_there("conf.d") {
        return Config::from_files(&[], &LoadOptions::default());
    }
    Config::load(&Config::find(chosen, folder)?, &LoadOptions::default())
}

/// The names of a configuration that is read again; `None` when it is invalid, which changes nothing.
fn again(chosen: Option<&Path>) -> Option<BTreeSet<String>> {
    match read(chosen) {
        Ok(config) => {
            tracing::info!(cameras = config.cameras.len(), "the names of the cameras were read again");
            Some(names(&config))
        }
        Err(errors) => {
            let first = errors.problems.first().map(|problem| problem.title.clone()).unwrap_or_default();
            tracing::warn!("the names of the cameras stay as they were: {first}; `camring check` says where");
            None
        }
    }
}

/// Every ring that the configuration will have.
fn names(config: &Config) -> BTreeSet<String> {
    let of_camera = |camera: &config::Camera| {
        let outputs = camera.outputs.iter().map(|output| format!("{}.{}", camera.name, output.name));
        std::iter::once(camera.name.to_string()).chain(outputs).collect::<Vec<_>>()
    };
    config.cameras.values().flat_map(of_camera).collect()
}

fn token(args: &Args, config: &Config) -> Result<Option<SecretString>, Failure> {
    let fault = |fault: SecretFault| ConfigErrors::from(Problem::error(fault.what, fault.hint)).report();
    let token = match (&args.token_file, &config.serve.token) {
        (Some(file), _) => read_file(file).map_err(fault)?,
        (None, Some(template)) => template.fill(&SecretStore::of_process(), str::to_owned).map_err(fault)?,
        (None, None) => return Ok(None),
    };
    let text = token.expose_secret();
    if text.len() < TOKEN_MIN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::message(
            Exit::Config,
            format!(
                "the token of camring serve has {} characters, expected at least {TOKEN_MIN}, none of them a space or \
                 beyond ASCII; make one with: head -c 24 /dev/urandom | base64",
                text.chars().count()
            ),
        ));
    }
    Ok(Some(token))
}

fn without_token(address: SocketAddr) -> String {
    format!(
        "will not listen on {address} without a token: whoever reaches it would see the cameras; listen on 127.0.0.1, or \
         write [serve] token = \"${{serve_token}}\", or name a file with --token-file; make a token with: \
         head -c 24 /dev/urandom | base64"
    )
}

fn failure(error: ServeError) -> Failure {
    let exit = match &error {
        ServeError::Listen { source, .. } => match source.kind() {
            ErrorKind::PermissionDenied => Exit::Permission,
            _ => Exit::Unavailable,
        },
        ServeError::System { .. } => Exit::Failure,
    };
    Failure::new(exit, error)
}
