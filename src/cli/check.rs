//! `camring check`: validates the configuration, and visits the cameras when asked to.

mod connect;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::Global;
use crate::assemble;
use crate::config::report::print_all;
use crate::config::url::redacted;
use crate::config::{
    CONFIG_FOLDER, Camera, Config, ConfigErrors, LoadOptions, MountRoom, Problem, SecretStore, Severity, effective,
};
use crate::exit::{Exit, Failure};
use connect::Visit;

/// Validate the configuration and say everything that is wrong with it; with --connect, see what each camera sends.
///
/// Ends with 0 when all is right, 78 when the configuration is wrong, 69 when a camera gave no picture.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The file to check [default: /etc/camring/camring.toml and /etc/camring/conf.d/*.toml].
    pub file: Option<PathBuf>,
    /// Print every setting of every camera and where it comes from.
    #[arg(long)]
    pub effective: bool,
    /// Connect to every camera, wait for pictures, and print what it sends or why it does not, and what to do. Eight
    /// cameras at a time, each within its own timeouts. A wrong password counts as a try: cameras lock accounts.
    #[arg(long)]
    pub connect: bool,
    /// Treat secrets that cannot be found as errors, not as notes.
    #[arg(long)]
    pub secrets: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Checks the configuration; warnings and notes do not fail it.
///
/// # Errors
///
/// [`Exit::Config`] when anything is wrong, [`Exit::Unavailable`] when a camera gave no picture; every mistake has been
/// printed then.
pub fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    match load(args, &global.shm_dir) {
        Ok((config, findings)) => finish(args, Some(&config), &findings),
        Err(errors) => finish(args, None, &errors.problems),
    }
}

fn load(args: &Args, mount: &Path) -> Result<(Config, Vec<Problem>), ConfigErrors> {
    let paths = Config::find(args.file.as_deref(), Path::new(CONFIG_FOLDER))?;
    let options = LoadOptions { mount: MountRoom::of(mount) };
    let config = Config::load(&paths, &options)?;
    let mut findings = config.warnings.clone();
    if options.mount.is_none() {
        let title = format!("{} cannot be examined, so no ring was measured against it", mount.display());
        let hint = "name the memory mount with --shm-dir or CAMRING_SHM_DIR";
        findings.push(Problem::error(title, hint).as_severity(Severity::Warning));
    }
    if config.cameras.is_empty() {
        let problem = Problem::error("there is no camera in the configuration", "add a table [camera.NAME]");
        findings.push(problem.as_severity(Severity::Warning));
    }
    let store = SecretStore::of_process();
    let severity = if args.secrets { Severity::Error } else { Severity::Note };
    for camera in config.cameras.values() {
        findings.extend(missing_files(camera));
        findings.extend(assemble::examine(camera).err().into_iter().flat_map(|errors| errors.problems));
        if let Err(errors) = camera.resolve_secrets(&store) {
            findings.extend(errors.problems.into_iter().map(|problem| problem.as_severity(severity)));
        }
    }
    Ok((config, ConfigErrors::new(findings).problems))
}

/// Warnings about files that a camera will want; password files are secrets and are looked at as such.
fn missing_files(camera: &Camera) -> Vec<Problem> {
    let missing = |setting: &crate::config::Setting| {
        let is_there = |path: &Path| if setting.key.path == "device" { path.exists() } else { path.is_file() };
        let path = setting.path().filter(|path| setting.key.path != "password_file" && !is_there(path))?;
        if setting.key.path == "device" {
            let title = format!("{} is not there", path.display());
            let problem = Problem::error(title, "plug the camera in, or correct the path; v4l2-ctl --list-devices");
            return Some(problem.at(setting.origin.place(), "device").as_severity(Severity::Warning));
        }
        let title = format!("{} is no file on this machine", redacted(&path.display().to_string()));
        let problem = Problem::error(title, "put it there, or correct the path");
        Some(problem.at(setting.origin.place(), setting.key.path).as_severity(Severity::Warning))
    };
    camera.settings.iter().filter_map(missing).collect()
}

fn finish(args: &Args, config: Option<&Config>, findings: &[Problem]) -> Result<(), Failure> {
    let errors = findings.iter().filter(|problem| problem.severity == Severity::Error).count();
    let fine = config.filter(|_| errors == 0);
    if !args.json {
        print_all(findings);
    }
    let visits = match fine {
        Some(config) if args.connect => Some(visit(config, args.json)?),
        _ => None,
    };
    if args.json {
        print(&format!("{:#}\n", report(args, config, findings, visits.as_deref())))?;
    }
    let Some(config) = fine else {
        if !args.json {
            eprintln!("\ncamring: {errors} {}", if errors == 1 { "error" } else { "errors" });
        }
        return Err(Failure::silent(Exit::Config));
    };
    if !args.json && args.effective {
        print(&effective::text(config))?;
    }
    let Some(visits) = visits else {
        return if args.json || args.effective { Ok(()) } else { print(&summary(config)) };
    };
    match visits.iter().filter(|visit| !visit.is_fine()).count() {
        0 => Ok(()),
        _ if args.json => Err(Failure::silent(Exit::Unavailable)),
        failed => Err(Failure::message(
            Exit::Unavailable,
            format!("{failed} of {} cameras gave no picture; what to do is said beside each", visits.len()),
        )),
    }
}

/// Visits the cameras, and prints a line for each as it comes.
fn visit(config: &Config, json: bool) -> Result<Vec<Visit>, Failure> {
    let width = config.cameras.keys().map(|name| name.as_str().len()).max().unwrap_or(0);
    let mut printed = Ok(());
    let visits = connect::all(config, |visit| {
        if !json && printed.is_ok() {
            printed = print(&visit.line(width));
        }
    })?;
    printed.map(|()| visits)
}

fn summary(config: &Config) -> String {
    let cameras: Vec<&str> = config.cameras.keys().map(crate::config::CameraName::as_str).collect();
    let files: Vec<String> = config.files.iter().map(|file| file.display().to_string()).collect();
    let noun = if cameras.len() == 1 { "camera" } else { "cameras" };
    let names = if cameras.is_empty() { String::new() } else { format!(" ({})", cameras.join(", ")) };
    format!("ok: {} {noun}{names} in {}\n", cameras.len(), files.join(", "))
}

/// `ok`, `files`, `cameras`, `errors`, `warnings`, `notes`, with `--effective` also `effective`, with `--connect` also
/// `connect`, a list of what [`Visit::json`] says; `ok` is about all of it.
fn report(args: &Args, config: Option<&Config>, findings: &[Problem], visits: Option<&[Visit]>) -> Json {
    let ok = config.is_some()
        && findings.iter().all(|problem| problem.severity != Severity::Error)
        && visits.is_none_or(|visits| visits.iter().all(Visit::is_fine));
    let of = |severity: Severity| -> Vec<Json> {
        findings.iter().filter(|problem| problem.severity == severity).map(effective::problem_json).collect()
    };
    let cameras: Vec<String> =
        config.iter().flat_map(|config| config.cameras.keys()).map(ToString::to_string).collect();
    let files: Vec<String> =
        config.iter().flat_map(|config| &config.files).map(|file| file.display().to_string()).collect();
    let mut report = json!({
        "ok": ok,
        "files": files,
        "cameras": cameras,
        "errors": of(Severity::Error),
        "warnings": of(Severity::Warning),
        "notes": of(Severity::Note),
    });
    if args.effective
        && let Some(config) = config
    {
        report["effective"] = effective::json(config);
    }
    if let Some(visits) = visits {
        report["connect"] = visits.iter().map(Visit::json).collect();
    }
    report
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::from(anyhow::Error::new(error).context("cannot write to standard output")))
}
