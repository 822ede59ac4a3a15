//! `camring doctor`: is this host fit, and what ails each camera? A line per check, and the sentence that cures it.
//!
//! # Keys of `--json`
//!
//! One object: `ok` (nothing failed), `fails`, `warns` (how many) and `checks`, a list of objects. They are stable: new
//! checks and causes may come, none is renamed.
//!
//! | key | meaning |
//! |---|---|
//! | `check` | what was looked at: `mount`, `gstreamer`, `codecs`, `tls`, `users`, `anchors`, `limits`, `kernel`, `sockets`, `clock`, `load`, `logout`, `units`, `config`, `camera`, `ring` |
//! | `subject` | which one: the ring, the camera, the unit; empty for the host |
//! | `level` | `ok`, `warn` or `fail` |
//! | `cause` | the word for it, such as `password`, `packet_loss`, `writer_dead`; `docs/operations.md` lists them |
//! | `found`, `cure` | one sentence each; `cure` is empty where there is nothing to do |

mod host;
mod kernel;
mod look;
mod service;
mod video;

use std::path::{Path, PathBuf};

use camring_ring::{ShmDir, rings};
use serde::Serialize;

use super::Global;
use super::inspection;
use super::output::{Reading, emit, emit_json, mount_failure, use_colour};
use super::progress::Progress;
use super::visits;
use crate::config::{Config, Severity};
use crate::diagnosis::{Finding, Level};
use crate::exit::{Exit, Failure};

/// Is this host fit for its cameras, and what ails each of them? A line per check, and what to do about it.
///
/// Looks at the memory mount, GStreamer, users, limits, units, the configuration, and for three seconds at every ring.
/// Ends with 0 when nothing fails (a warning is no failure), with 1 when something does. Disturbs nothing; works when no
/// daemon runs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file [default: /etc/camring/camring.toml and /etc/camring/conf.d/*.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Connect to every camera of the configuration as well, as `camring check --connect` does. A wrong password counts
    /// as a try: cameras lock accounts.
    #[arg(long)]
    connect: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Whose rings.
    #[command(flatten)]
    reading: Reading,
}

/// One line.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    subject: String,
    #[serde(flatten)]
    finding: Finding,
}

impl Check {
    fn host(check: &'static str, finding: Finding) -> Self {
        Self { check, subject: String::new(), finding }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    fails: usize,
    warns: usize,
    checks: &'a [Check],
}

/// Looks at everything and prints what it found.
///
/// # Errors
///
/// 1 when a check failed; the lines have said which.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let progress = Progress::spinner("looking at this host");
    let mut checks = host_checks(global);
    let config = configuration(args, global, &mut checks);
    let config = config.as_ref();
    checks.extend(service::checks(config));
    checks.extend(kernel::wishes(config));
    progress.say("looking at the rings for three seconds");
    checks.extend(ring_checks(args, global)?);
    if let Some(config) = config.filter(|_| args.connect) {
        progress.say("connecting to the cameras");
        for visit in visits::all(config, |_| {})? {
            checks.push(Check { check: "camera", subject: visit.name().to_owned(), finding: visit.finding() });
        }
    }
    progress.done();
    conclude(args, &checks)
}

fn host_checks(global: &Global) -> Vec<Check> {
    let mut checks = host::checks(&global.shm_dir);
    checks.extend(kernel::checks());
    checks.extend(video::checks());
    checks
}

/// The configuration, once it is known to be right; what is wrong with it otherwise.
fn configuration(args: &Args, global: &Global, checks: &mut Vec<Check>) -> Option<Config> {
    let default = Path::new(crate::config::CONFIG_FOLDER);
    if args.config.is_none() && Config::find(None, default).is_err() && !default.join("camring.toml").exists() {
        let found = format!("no configuration in {}: cameras are given on the command line, if any", default.display());
        let cure = "write /etc/camring/camring.toml (config/minimal.toml is a start), then camring check";
        checks.push(Check::host("config", Finding::warn("no_configuration", found, cure)));
        return None;
    }
    let (config, problems) = match inspection::load(args.config.as_deref(), &global.shm_dir, false) {
        Ok((config, findings)) => (Some(config), findings),
        Err(errors) => (None, errors.problems),
    };
    let mut right = config.is_some();
    for problem in &problems {
        let place = problem.marks.first().map(|(place, _)| place.to_string()).unwrap_or_default();
        let finding = match problem.severity {
            Severity::Error => {
                right = false;
                Finding::fail("configuration", &problem.title, &problem.hint)
            }
            Severity::Warning => Finding::warn("configuration", &problem.title, &problem.hint),
            // A secret of another user's service is not to be found here, and need not be.
            Severity::Note => continue,
        };
        checks.push(Check { check: "config", subject: place, finding });
    }
    let config = config.filter(|_| right)?;
    let files: Vec<String> = config.files.iter().map(|file| file.display().to_string()).collect();
    let found = format!("{} cameras in {}", config.cameras.len(), files.join(", "));
    checks.push(Check::host("config", Finding::ok("configuration", found)));
    Some(config)
}

fn ring_checks(args: &Args, global: &Global) -> Result<Vec<Check>, Failure> {
    let names = match rings(&ShmDir::new(&global.shm_dir)) {
        Ok(names) => names,
        // The check of the mount has said so.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(mount_failure(&global.shm_dir, error)),
    };
    let found = look::at_all(&names, |name| args.reading.look(global, name));
    let of = |(name, findings): (String, Vec<Finding>)| {
        findings.into_iter().map(move |finding| Check { check: "ring", subject: name.clone(), finding })
    };
    Ok(found.into_iter().flat_map(of).collect())
}

fn conclude(args: &Args, checks: &[Check]) -> Result<(), Failure> {
    let count = |level| checks.iter().filter(|check| check.finding.level == level).count();
    let (fails, warns) = (count(Level::Fail), count(Level::Warn));
    let _ = if args.json {
        emit_json(&Report { ok: fails == 0, fails, warns, checks })?
    } else {
        emit(text(checks, use_colour()).as_bytes())?
    };
    if fails == 0 { Ok(()) } else { Err(Failure::silent(Exit::Failure)) }
}

/// `fail  ring front      the camera refuses user or password (auth)` and, below it, the cure.
fn text(checks: &[Check], colour: bool) -> String {
    let label = |check: &Check| format!("{} {}", check.check, check.subject).trim_end().to_owned();
    let width = checks.iter().map(|check| label(check).len()).max().unwrap_or(0).min(32);
    let mut out = String::new();
    for check in checks {
        let (before, after) = if colour { (paint(check.finding.level), "\x1b[0m") } else { ("", "") };
        let Check { finding: Finding { level, found, cure, .. }, .. } = check;
        out.push_str(&format!("{before}{level:<4}{after}  {:<width$}  {}\n", label(check), plain(found)));
        if !cure.is_empty() && *level != Level::Ok {
            out.push_str(&format!("      {:<width$}  -> {}\n", "", plain(cure)));
        }
    }
    let of = |level| checks.iter().filter(|check| check.finding.level == level).count();
    let (fails, warns) = (of(Level::Fail), of(Level::Warn));
    out.push_str(&format!("\n{} checks, {fails} failed, {warns} to look at\n", checks.len()));
    out
}

fn paint(level: Level) -> &'static str {
    match level {
        Level::Ok => "\x1b[32m",
        Level::Warn => "\x1b[33m",
        Level::Fail => "\x1b[31m",
    }
}

/// Texts of rings may come from another user: no control character reaches the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fine_takes_one_line_and_what_is_not_a_second_one_with_the_cure() {
        let checks = [
            Check::host("mount", Finding::ok("mount", "all is well")),
            Check {
                check: "ring",
                subject: "front".into(),
                finding: Finding::fail("password", "re\x1bfused", "correct it"),
            },
        ];
        let said = text(&checks, false);
        assert_eq!(
            said,
            "ok    mount       all is well\n\
             fail  ring front  re?fused\n\
             \x20                 -> correct it\n\
             \n2 checks, 1 failed, 0 to look at\n"
        );
    }
}
