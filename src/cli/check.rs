//! `camring check`: validates the configuration, and visits the cameras when asked to.

use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::Global;
use super::inspection;
use super::progress::Progress;
use super::visits::{self, Visit};
use crate::config::report::print_all;
use crate::config::{Config, Problem, Severity, effective};
use crate::exit::{Exit, Failure};

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
    match inspection::load(args.file.as_deref(), &global.shm_dir, args.secrets) {
        Ok((config, findings)) => finish(args, Some(&config), &findings),
        Err(errors) => finish(args, None, &errors.problems),
    }
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
    let progress = Progress::bar("visiting the cameras", config.cameras.len() as u64);
    let visits = visits::all(config, |visit| {
        progress.step();
        if !json && printed.is_ok() {
            printed = progress.beside(|| print(&visit.line(width)));
        }
    })?;
    progress.done();
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
