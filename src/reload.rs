//! The reload: SIGHUP has the configuration read again, the difference told, and what changes handed to whom it concerns.
//!
//! ```text
//! SIGHUP -> read, check, resolve secrets --(wrong: say why, change nothing)
//!              |
//!              v  key by key, against what is in effect
//!        in place        limits of the supervisor           -> camera.rs
//!        next frame      rate, region, fit of an output     -> output.rs
//!        new session     address, transport, decoder, ...   -> camera.rs, with another source
//!        new generation  slots, sizes, rights of the ring   -> output.rs, with the next frame
//! ```
//!
//! A thread of its own reads the files: neither frames nor the supervisor wait for a disk.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use camring_ring::ShmDir;
use crossbeam_channel::{Receiver, Sender, bounded};
use secrecy::{ExposeSecret, SecretString};

use crate::assemble;
use crate::camera::{Reload, Renewal};
use crate::config::{
    self, Access, Camera, Config, ConfigErrors, LoadOptions, LogSettings, MountRoom, Problem, SecretStore, Setting,
};
use crate::output::Shape;
use crate::rings::{Plan, Rings};

/// How long the supervisor may take until it hears of a reload; it is busy for no longer than a teardown.
const HEARD_WITHIN: Duration = Duration::from_secs(30);

/// What a changed key asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Effect {
    /// The supervisor goes by it from now on.
    InPlace,
    /// The session with the camera is ended in order and another one begun.
    Session,
    /// The next frame is as the key says.
    Frames,
    /// The ring is made anew with the next frame; readers follow by themselves.
    Generation,
}

impl Effect {
    /// What a change of the key at `path` asks for.
    fn of(path: &str) -> Self {
        match path {
            "ready_timeout"
            | "stall_after"
            | "frozen_after"
            | "idle"
            | "reconnect.first"
            | "reconnect.max"
            | "reconnect.connect_timeout"
            | "reconnect.permanent_retry"
            | "reconnect.auth_retry" => Self::InPlace,
            "slots" | "max_size" | "format" | "stale_after" => Self::Generation,
            "max_fps" => Self::Frames,
            path if path.starts_with("ring.") => Self::Generation,
            _ => Self::Session,
        }
    }

    /// What a change of an output's key asks for.
    fn of_output(path: &str) -> Self {
        match path {
            // The ring of one fixed size is as large as that.
            "slots" | "ring.lease_policy" | "size" | "format" => Self::Generation,
            _ => Self::Frames,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::InPlace => "in place",
            Self::Session => "in a new session",
            Self::Frames => "with the next frame",
            Self::Generation => "in a new generation of the ring",
        }
    }
}

/// One key that is not what it was.
#[derive(Debug, Eq, PartialEq)]
struct Change {
    path: &'static str,
    /// As printed, without secrets; `None` = not set.
    from: Option<String>,
    to: Option<String>,
}

/// What is in effect, and where to look for something newer.
pub struct Reloader {
    /// The file that the command line names; `None` = the usual ones.
    pub file: Option<PathBuf>,
    /// The memory mount.
    pub shm: ShmDir,
    /// The camera as it runs.
    pub camera: Camera,
    /// Its secrets, as they are used.
    pub access: Option<Access>,
    /// How is logged.
    pub log: LogSettings,
    /// Its rings.
    pub rings: Arc<Rings>,
}

/// Answers each request down `hangups` on a thread of its own; without a `reloader`, for a camera that is in no file,
/// with a line of the log.
///
/// # Errors
///
/// The system gives no thread.
pub fn spawn(mut reloader: Option<Reloader>, hangups: Receiver<()>) -> io::Result<Receiver<Reload>> {
    let (sender, reloads) = bounded(1);
    let answer = move || match &mut reloader {
        Some(reloader) => reloader.reload(),
        None => {
            tracing::warn!("SIGHUP: this camera is in no file (--url), so there is nothing to read again");
            Reload::Kept
        }
    };
    thread::Builder::new().name("reload".into()).spawn(move || serve(&hangups, &sender, answer))?;
    Ok(reloads)
}

fn serve(hangups: &Receiver<()>, reloads: &Sender<Reload>, mut answer: impl FnMut() -> Reload) {
    while hangups.recv().is_ok() {
        if let Err(error) = reloads.send_timeout(answer(), HEARD_WITHIN) {
            // A supervisor that has returned needs no message; one that hangs is the watchdog's business.
            tracing::error!(%error, "the supervisor does not take the reload; restart the unit");
            return;
        }
    }
}

impl Reloader {
    /// Reads the configuration again and says what follows from it.
    fn reload(&mut self) -> Reload {
        match self.read() {
            Ok((camera, access, log)) => self.take_over(camera, access, log),
            Err(errors) => {
                let name = self.camera.name.as_str();
                for problem in &errors.problems {
                    tracing::error!(name: "reload_refused", camera = name, "the configuration is not taken over: {}", line(problem));
                }
                Reload::Kept
            }
        }
    }

    fn read(&self) -> Result<(Camera, Option<Access>, LogSettings), ConfigErrors> {
        let files = Config::find(self.file.as_deref(), config::CONFIG_FOLDER.as_ref())?;
        let config = Config::load(&files, &LoadOptions { mount: MountRoom::of(self.shm.root()) })?;
        let camera = config.camera(self.camera.name.as_str())?.clone();
        assemble::examine(&camera)?;
        let access = camera.resolve_secrets(&SecretStore::of_process())?;
        if camera.segment != self.camera.segment {
            let title = format!(
                "segment = {:?} cannot replace {:?} while the camera runs",
                camera.segment, self.camera.segment
            );
            let hint = format!("restart camring@{}", camera.name);
            return Err(Problem::error(title, hint).at(camera.place_of("segment"), "another name").into());
        }
        for output in &camera.outputs {
            let before = self.camera.outputs.iter().find(|before| before.name == output.name);
            if let Some(before) = before.filter(|before| before.segment != output.segment) {
                let (name, old, new) = (&output.name, &before.segment, &output.segment);
                let title =
                    format!("segment = {new:?} of the output {name} cannot replace {old:?} while the camera runs");
                let hint = format!("restart camring@{}, or give the output another name", camera.name);
                return Err(Problem::error(title, hint).at(camera.place.as_ref(), "in this camera").into());
            }
        }
        for warning in &config.warnings {
            tracing::warn!(camera = camera.name.as_str(), "{}", line(warning));
        }
        Ok((camera, access, config.log))
    }

    fn take_over(&mut self, mut camera: Camera, access: Option<Access>, log: LogSettings) -> Reload {
        let name = camera.name.as_str().to_owned();
        if self.log != log {
            tracing::info!(camera = name, "the settings of [log] have changed; they take effect at the next start");
            self.log = log;
        }
        let changes =
            changes(&self.camera.settings, &camera.settings, secrets_differ(self.access.as_ref(), access.as_ref()));
        let outputs = self.take_over_outputs(&mut camera, &changes);
        if changes.is_empty() && !outputs {
            tracing::info!(camera = name, "the configuration was read again: nothing has changed for this camera");
            self.camera = camera;
            return Reload::Kept;
        }
        tell(&name, "", &changes, Effect::of);
        let any = |effect| changes.iter().any(|change| Effect::of(change.path) == effect);
        if any(Effect::Generation) || any(Effect::Frames) {
            match assemble::writer_options(&camera, &self.shm) {
                Ok(options) => {
                    let name = options.ring.clone();
                    let options = any(Effect::Generation).then_some(options);
                    self.rings.reshape(&name, Shape { options, look: assemble::look(&camera) });
                }
                Err(error) => {
                    tracing::error!(name: "reload_refused", camera = name, "the configuration is not taken over: {error}");
                    return Reload::Kept;
                }
            }
        }
        let source = any(Effect::Session).then(|| assemble::source(&camera, access.clone()));
        let (policy, ready_timeout) = (assemble::policy(&camera), camera.ready_timeout);
        (self.camera, self.access) = (camera, access);
        Reload::Renewed(Box::new(Renewal { policy, ready_timeout, source }))
    }

    /// Ends the outputs that are gone, changes those that differ, adds the new ones; whether there were any. One that cannot
    /// be had is taken out of `camera`, so that the next reload tries it again.
    fn take_over_outputs(&self, camera: &mut Camera, of_camera: &[Change]) -> bool {
        let name = camera.name.as_str().to_owned();
        let mut any = false;
        for gone in &self.camera.outputs {
            if !camera.outputs.iter().any(|output| output.name == gone.name) {
                any = true;
                tracing::info!(camera = name, output = gone.name.as_str(), "the output is gone; its ring is stopped");
                if let Ok(plan) = assemble::output_plan(&self.camera, gone, &self.shm) {
                    self.rings.remove(&plan.options.ring);
                }
            }
        }
        // Keys of the camera that its outputs' rings go by.
        let inherited = of_camera.iter().any(|change| change.path == "stale_after" || change.path.starts_with("ring."));
        let mut outputs = std::mem::take(&mut camera.outputs);
        outputs.retain(|output| {
            let plan = match assemble::output_plan(camera, output, &self.shm) {
                Ok(plan) => plan,
                Err(error) => {
                    tracing::error!(
                        name: "reload_refused",
                        camera = name,
                        output = output.name.as_str(),
                        "the output is not taken over: {error}"
                    );
                    return false;
                }
            };
            let Some(before) = self.camera.outputs.iter().find(|before| before.name == output.name) else {
                any = true;
                return self.add(&name, output.name.as_str(), plan);
            };
            let changes = changes(&before.settings, &output.settings, false);
            any |= !changes.is_empty();
            tell(&name, output.name.as_str(), &changes, Effect::of_output);
            if !changes.is_empty() || inherited {
                let anew =
                    inherited || changes.iter().any(|change| Effect::of_output(change.path) == Effect::Generation);
                let Plan { options, look } = plan;
                let ring = options.ring.clone();
                self.rings.reshape(&ring, Shape { options: anew.then_some(options), look });
            }
            true
        });
        camera.outputs = outputs;
        any
    }

    fn add(&self, camera: &str, output: &str, plan: Plan) -> bool {
        match self.rings.add(plan) {
            Ok(()) => {
                tracing::info!(camera, output, "there is a new output; its ring begins with the next frame");
                true
            }
            Err(error) => {
                tracing::error!(camera, output, "the output cannot be had; reload to try again: {error}");
                false
            }
        }
    }
}

/// One line of the log for each change.
fn tell(camera: &str, output: &str, changes: &[Change], effect: fn(&str) -> Effect) {
    for Change { path, from, to } in changes {
        let (from, to, effect) = (shown(from.as_ref()), shown(to.as_ref()), effect(path).words());
        if output.is_empty() {
            tracing::info!(name: "key_changed", camera, key = path, from, to, "{path} has changed; it takes effect {effect}");
        } else {
            tracing::info!(
                name: "key_changed",
                camera,
                output,
                key = path,
                from,
                to,
                "{path} of output {output} has changed; it takes effect {effect}"
            );
        }
    }
}

/// Every key whose value differs, in the order of the documentation; `secrets` when what `${NAME}` or a file stands for
/// has changed, which no key may show.
fn changes(before: &[Setting], after: &[Setting], secrets: bool) -> Vec<Change> {
    let by_path = |settings: &[Setting]| -> BTreeMap<&'static str, Setting> {
        settings.iter().map(|setting| (setting.key.path, setting.clone())).collect()
    };
    let (old, new) = (by_path(before), by_path(after));
    let mut paths: Vec<&'static str> = after.iter().chain(before).map(|setting| setting.key.path).collect();
    let mut seen = std::collections::BTreeSet::new();
    paths.retain(|path| seen.insert(*path));
    let text = |setting: Option<&Setting>| setting.map(|setting| setting.value.to_string());
    let differs =
        |path: &&str| old.get(*path).map(|setting| &setting.value) != new.get(*path).map(|setting| &setting.value);
    let mut changes: Vec<Change> = paths
        .into_iter()
        .filter(differs)
        .map(|path| Change { path, from: text(old.get(path)), to: text(new.get(path)) })
        .collect();
    let told = ["url", "user", "password", "password_file"];
    if secrets && !changes.iter().any(|change| told.contains(&change.path)) {
        let masked = || Some("***".to_owned());
        changes.push(Change { path: "password", from: masked(), to: masked() });
    }
    changes
}

/// A value for the log.
fn shown(value: Option<&String>) -> &str {
    value.map_or("(not set)", String::as_str)
}

/// Whether the camera would be addressed or logged in to differently.
fn secrets_differ(before: Option<&Access>, after: Option<&Access>) -> bool {
    let exposed = |access: &Access| {
        let password = access.password.as_ref().map(|password: &SecretString| password.expose_secret().to_owned());
        (access.url.expose(), access.user.clone(), password)
    };
    before.map(exposed) != after.map(exposed)
}

/// A problem in one line: `FILE:LINE:COLUMN: what; what to do`.
pub(crate) fn line(problem: &Problem) -> String {
    let place = problem.marks.first().map(|(place, _)| {
        let (line, column) = place.line_column();
        format!("{}:{line}:{column}: ", place.file.path.display())
    });
    format!("{}{}; {}", place.unwrap_or_default(), problem.title, problem.hint)
}

#[cfg(test)]
mod tests {
    use crate::config::SourceFile;

    use super::*;

    fn settings(text: &str) -> Vec<Setting> {
        let file = SourceFile::new("camring.toml".into(), format!("[camera.a]\n{text}"));
        let config = Config::from_files(&[file], &LoadOptions::default()).unwrap_or_else(|errors| panic!("{errors}"));
        config.camera("a").expect("it is there").settings.clone()
    }

    fn paths(before: &str, after: &str) -> Vec<&'static str> {
        changes(&settings(before), &settings(after), false).iter().map(|change| change.path).collect()
    }

    #[test]
    fn only_what_means_something_else_has_changed() {
        let url = "url = \"rtsp://h/x\"\n";
        assert!(paths(url, url).is_empty());
        assert!(paths(url, &format!("{url}slots = 8\n")).is_empty(), "the default, written out");
        assert_eq!(paths(url, "url = \"rtsp://h/y\"\nslots = 9\nidle = \"park\"\n"), ["slots", "idle", "url"]);
        assert_eq!(paths(url, &format!("{url}user = \"u\"\npassword = \"p\"\n")), ["user", "password"]);
    }

    #[test]
    fn secrets_are_told_apart_and_not_shown() {
        let with =
            |password: &str| settings(&format!("url = \"rtsp://h/x\"\nuser = \"u\"\npassword = \"{password}\"\n"));
        let changed = changes(&with("s3cret-one"), &with("s3cret-two"), true);
        assert_eq!(changed.len(), 1);
        assert!(!format!("{changed:?}").contains("s3cret"), "{changed:?}");
        let behind_a_name = changes(&with("${a_pw}"), &with("${a_pw}"), true);
        assert_eq!(behind_a_name, [Change { path: "password", from: Some("***".into()), to: Some("***".into()) }]);
        let unchanged = changes(&with("${a_pw}"), &with("${a_pw}"), false);
        assert!(unchanged.is_empty(), "{unchanged:?}");
    }

    #[test]
    fn each_key_takes_effect_where_it_is_used() {
        let effects =
            ["stall_after", "ring.mode", "slots", "url", "decode.device", "reconnect.request_timeout", "tls.ca"];
        let expected = [
            Effect::InPlace,
            Effect::Generation,
            Effect::Generation,
            Effect::Session,
            Effect::Session,
            Effect::Session,
            Effect::Session,
        ];
        assert_eq!(effects.map(Effect::of), expected);
    }
}
