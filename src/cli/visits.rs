//! A visit to every camera of the configuration, several at a time, each with a deadline: `check --connect`, `doctor --connect`.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use camring_ring::Reason;
use crossbeam_channel::bounded;
use serde_json::{Value as Json, json};

use crate::assemble;
use crate::camera::{Found, visit};
use crate::clock::SystemClock;
use crate::config::{Camera, Config, SecretStore};
use crate::diagnosis::Finding;
use crate::exit::{Exit, Failure};
use crate::log;
use crate::pipeline;
use crate::source::{RetryClass, RetryReason};

/// Cameras that are visited at the same time: each costs a connection and a decoder.
const AT_ONCE: usize = 8;

/// How a visit went.
pub(super) struct Visit {
    name: String,
    outcome: Result<Found, RetryReason>,
}

/// Visits every camera; `tell` hears of each as soon as it is over. In the order of the configuration.
///
/// # Errors
///
/// The system gives no thread.
pub(super) fn all(config: &Config, mut tell: impl FnMut(&Visit)) -> Result<Vec<Visit>, Failure> {
    log::adopt_glib();
    let cameras: Vec<&Camera> = config.cameras.values().collect();
    let next = AtomicUsize::new(0);
    let mut visits: Vec<Option<Visit>> = cameras.iter().map(|_| None).collect();
    thread::scope(|scope| {
        let (done, over) = bounded(cameras.len());
        for number in 0..cameras.len().min(AT_ONCE) {
            let (done, cameras, next) = (done.clone(), &cameras, &next);
            let work = move || {
                while let Some(camera) = Some(next.fetch_add(1, Relaxed)).filter(|place| *place < cameras.len()) {
                    // There is room for all, and the receiver outlives this thread.
                    drop(done.send((camera, one(cameras[camera]))));
                }
            };
            let spawned = thread::Builder::new().name(format!("visit-{number}")).spawn_scoped(scope, work);
            spawned.map_err(|error| Failure::new(Exit::Failure, error))?;
        }
        drop(done);
        for (place, visit) in over {
            tell(&visit);
            visits[place] = Some(visit);
        }
        Ok::<(), Failure>(())
    })?;
    Ok(visits.into_iter().flatten().collect())
}

fn one(camera: &Camera) -> Visit {
    let name = camera.name.to_string();
    let outcome = match camera.resolve_secrets(&SecretStore::of_process()) {
        Ok(access) => pipeline::init()
            .and_then(|()| visit(&name, assemble::source(camera, access), &assemble::policy(camera), &SystemClock)),
        Err(errors) => {
            let sentences: Vec<String> =
                errors.problems.iter().map(|problem| format!("{}; {}", problem.title, problem.hint)).collect();
            let message = sentences.join("; ");
            Err(RetryReason { reason: Reason::Config, class: RetryClass::Permanent, message })
        }
    };
    Visit { name, outcome }
}

impl Visit {
    pub(super) fn is_fine(&self) -> bool {
        self.outcome.is_ok()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// As a line of `doctor`: the sentence of a failed visit says what to do.
    pub(super) fn finding(&self) -> Finding {
        match &self.outcome {
            Ok(found) => {
                let Found { codec, decoder, width, height, .. } = found;
                Finding::ok("visit", format!("sends {codec} {width}x{height}, decoded by {decoder}"))
            }
            Err(why) => {
                // Every sentence of a visit ends in what to do, behind its last semicolon or question.
                let (found, cure) = why.message.split_once("; ").unwrap_or((&why.message, ""));
                let cure = if cure.is_empty() {
                    "camring check --connect; the table of reasons in docs/operations.md"
                } else {
                    cure
                };
                Finding::fail(why.reason.word().unwrap_or("unknown"), format!("{found} ({})", why.reason), cure)
            }
        }
    }

    /// One line: name, `live` or the reason, and what was found or what to do.
    pub(super) fn line(&self, name_width: usize) -> String {
        let (word, rest) = match &self.outcome {
            Ok(found) => {
                let Found { codec, decoder, width, height, fps, first_frame } = found;
                let fps = fps.map_or_else(|| "rate unknown".to_owned(), |fps| format!("{fps:.1} fps"));
                let rest = format!(
                    "{codec} {width}x{height}, {fps}, {decoder}, first frame after {} ms",
                    first_frame.as_millis()
                );
                ("live".to_owned(), rest)
            }
            Err(why) => (why.reason.to_string(), why.message.clone()),
        };
        format!("{:name_width$}  {word:16}  {rest}\n", self.name)
    }

    /// `camera`, `ok`, `state`, `reason`, `message`, `codec`, `decoder`, `width`, `height`, `fps`, `first_frame_ms`;
    /// null where there is nothing to say.
    pub(super) fn json(&self) -> Json {
        let found = self.outcome.as_ref().ok();
        let why = self.outcome.as_ref().err();
        json!({
            "camera": self.name,
            "ok": self.is_fine(),
            "state": if self.is_fine() { "live" } else { "failed" },
            "reason": why.map(|why| why.reason.to_string()),
            "message": why.map(|why| &why.message),
            "codec": found.map(|found| &found.codec),
            "decoder": found.map(|found| &found.decoder),
            "width": found.map(|found| found.width),
            "height": found.map(|found| found.height),
            "fps": found.and_then(|found| found.fps).map(|fps| (fps * 100.0).round() / 100.0),
            "first_frame_ms": found.map(|found| u64::try_from(found.first_frame.as_millis()).unwrap_or(u64::MAX)),
        })
    }
}
