//! What is on the machine at one moment: every ring, every camera of the configuration, the memory mount; and the
//! thread that looks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use camring_ring::clock::mono_ns;
use camring_ring::frame::{FrameMeta, State};
use camring_ring::{
    AttachError, Liveness, OwnerPolicy, Ring, RingName, ShmDir, Status, free_bytes, rings, total_bytes,
};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde_json::{Value as Json, json};
use tokio::sync::watch;

use crate::listing;
use crate::report::{Grade, RingReport, milliseconds, start};

/// Time between two looks that nobody has asked for.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A scene that was begun so long before it is asked for is new enough; bounds what a crowd of askers costs.
const NEW_ENOUGH: Duration = Duration::from_millis(100);
/// For a scene that was asked for. A look takes under a millisecond for each ring.
const PATIENCE: Duration = Duration::from_secs(3);
/// Without a scene for so long, the process is not well.
const UNWELL_AFTER: Duration = Duration::from_secs(10);

/// What was seen in one look.
#[derive(Debug)]
pub struct Scene {
    /// When the look began.
    pub begun: Instant,
    /// The rings and the cameras without one, by name.
    pub entries: Vec<Entry>,
    /// The memory mount.
    pub mount: Mount,
    /// Why the mount could not be read at all.
    pub fault: Option<String>,
}

/// The memory mount: where it is, and its bytes, as far as the kernel tells them.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Mount {
    pub path: PathBuf,
    pub size_bytes: Option<u64>,
    pub free_bytes: Option<u64>,
}

/// One name and what was found behind it.
#[derive(Debug)]
pub struct Entry {
    /// The ring's name, which is the camera's for its main ring.
    pub name: String,
    /// What was found.
    pub found: Found,
}

/// What was found behind a name.
#[derive(Debug)]
pub enum Found {
    /// A ring.
    Ring(Box<Sight>),
    /// A ring that cannot be read, and why.
    Unreadable(String),
    /// A camera of the configuration, or an output of one, that has no ring.
    Absent,
}

/// A ring as it was seen.
#[derive(Debug)]
pub struct Sight {
    /// What `camring list` says.
    pub report: RingReport,
    /// The rest of its header.
    pub status: Status,
    /// From the arrival of the newest frame's last packet to its publication, milliseconds.
    pub latency_ms: Option<f64>,
    /// How far the camera's clock was behind this machine's when the newest frame arrived (its way here included), ns.
    pub clock_behind_ns: Option<i64>,
    /// Since the daemon's last sign of life, ns.
    pub heartbeat_age_ns: Option<i64>,
}

impl Sight {
    fn of(ring: &Ring, name: &str) -> Self {
        let status = ring.status();
        let newest = ring.peek().ok();
        let beat = status.heartbeat_mono_ns.cast_signed();
        Self {
            report: RingReport::new(ring, name, &status),
            latency_ms: newest.as_ref().map(|meta| milliseconds(meta.publish_mono_ns - meta.arrival_mono_ns)),
            clock_behind_ns: newest.as_ref().and_then(clock_behind_ns),
            heartbeat_age_ns: (beat > 0).then(|| (mono_ns() - beat).max(0)),
            status,
        }
    }
}

fn clock_behind_ns(meta: &FrameMeta) -> Option<i64> {
    meta.source_unix_ns.map(|source| meta.arrival_real_ns.saturating_sub(source))
}

impl Entry {
    /// One word for metrics: the daemon's state, `dead` or `hung` when the daemon is, `absent` or `unreadable`.
    #[must_use]
    pub fn condition(&self) -> String {
        match &self.found {
            Found::Absent => "absent".to_owned(),
            Found::Unreadable(_) => "unreadable".to_owned(),
            Found::Ring(sight) => match (sight.report.state, sight.report.liveness) {
                (State::Stopped, _) | (_, Liveness::Alive) => sight.report.state.to_string(),
                (_, Liveness::Gone) => "dead".to_owned(),
                (_, Liveness::Hung) => "hung".to_owned(),
            },
        }
    }

    /// How much a person should care.
    #[must_use]
    pub fn grade(&self) -> Grade {
        match &self.found {
            Found::Ring(sight) => sight.report.grade(),
            Found::Unreadable(_) | Found::Absent => Grade::Broken,
        }
    }

    /// The state in the words of `camring list`.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.found {
            Found::Ring(sight) => sight.report.state_words(),
            Found::Unreadable(_) => "unreadable".to_owned(),
            Found::Absent => "absent".to_owned(),
        }
    }

    /// Why, what comes next, and what to do; empty when there is nothing to say.
    #[must_use]
    pub fn note(&self) -> String {
        match &self.found {
            Found::Absent => format!("configured, but there is no ring: {}", start(&self.name)),
            Found::Unreadable(error) => error.clone(),
            Found::Ring(sight) => sight.report.note(),
        }
    }

    /// The daemon's reason, or why the ring cannot be read.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match &self.found {
            Found::Ring(sight) => Some(sight.report.reason.to_string()),
            Found::Unreadable(error) => Some(error.clone()),
            Found::Absent => None,
        }
    }

    /// What the page and `/events` say of it: `name`, `grade`, `condition`, `words`, `note`, and of a ring `fps`,
    /// `age_ms`, `latency_ms`, `readers`, `width`, `height`, `format`, `seq`.
    #[must_use]
    pub fn json(&self) -> Json {
        let mut object = json!({
            "name": self.name,
            "grade": self.grade().word(),
            "condition": self.condition(),
            "words": self.words(),
            "note": self.note(),
        });
        if let Found::Ring(sight) = &self.found {
            let report = &sight.report;
            object["fps"] = json!(report.fps);
            object["age_ms"] = json!(report.age_ms);
            object["latency_ms"] = json!(sight.latency_ms);
            object["readers"] = json!(report.readers);
            object["width"] = json!(report.width);
            object["height"] = json!(report.height);
            object["format"] = json!(report.format.map(|format| format.to_string()));
            object["seq"] = json!(report.seq);
        }
        object
    }
}

impl Scene {
    /// The entry of this name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// How many entries are of a grade.
    #[must_use]
    pub fn count(&self, grade: Grade) -> usize {
        self.entries.iter().filter(|entry| entry.grade() == grade).count()
    }

    fn take(shm: &ShmDir, owner: OwnerPolicy, cameras: &BTreeSet<String>) -> Self {
        let begun = Instant::now();
        let (names, fault) = match rings(shm) {
            Ok(names) => (names, None),
            Err(error) => {
                let mount = shm.root().display();
                (Vec::new(), Some(format!("cannot read the memory mount {mount}: {error}; give another --shm-dir")))
            }
        };
        let seen = names.iter().filter_map(|name| Some((name.to_string(), look(shm, name, owner)?)));
        let mut entries: BTreeMap<String, Found> = seen.collect();
        for camera in cameras {
            entries.entry(camera.clone()).or_insert(Found::Absent);
        }
        let mount = Mount {
            path: shm.root().to_owned(),
            size_bytes: total_bytes(shm.root()),
            free_bytes: free_bytes(shm.root()),
        };
        let entries = entries.into_iter().map(|(name, found)| Entry { name, found }).collect();
        Self { begun, entries, mount, fault }
    }
}

/// `None` for a ring that went away between the listing and the look.
fn look(shm: &ShmDir, name: &RingName, owner: OwnerPolicy) -> Option<Found> {
    match listing::look(shm, name.as_str(), owner) {
        Ok(ring) => Some(Found::Ring(Box::new(Sight::of(&ring, name.as_str())))),
        Err(AttachError::NotFound { .. } | AttachError::Removed(_)) => None,
        Err(error) => Some(Found::Unreadable(error.to_string())),
    }
}

/// The thread that looks, and what it saw last. The thread ends with the last clone.
#[derive(Clone, Debug)]
pub struct Watcher {
    scenes: watch::Receiver<Arc<Scene>>,
    nudge: Sender<()>,
    cameras: Arc<Mutex<BTreeSet<String>>>,
}

impl Watcher {
    /// Looks once, then starts the thread; `cameras` are the rings that the configuration names.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn start(shm: ShmDir, owner: OwnerPolicy, cameras: BTreeSet<String>) -> io::Result<Self> {
        let (sender, scenes) = watch::channel(Arc::new(Scene::take(&shm, owner, &cameras)));
        // One request is as good as many: whoever finds it full is served by the one that is waiting.
        let (nudge, nudges) = bounded(1);
        let cameras = Arc::new(Mutex::new(cameras));
        let theirs = Arc::clone(&cameras);
        std::thread::Builder::new()
            .name("watcher".into())
            .spawn(move || watch(&shm, owner, &theirs, &nudges, &sender))?;
        Ok(Self { scenes, nudge, cameras })
    }

    /// The rings that the configuration names, from now on.
    pub fn set_cameras(&self, cameras: BTreeSet<String>) {
        *self.cameras.lock().unwrap_or_else(PoisonError::into_inner) = cameras;
    }

    /// The last scene, at most [`LOOK_EVERY`] and a look old while the process is well.
    #[must_use]
    pub fn last(&self) -> Arc<Scene> {
        Arc::clone(&self.scenes.borrow())
    }

    /// A scene as of now; `None` when there is none in time, which a stuck kernel or a starved process explains.
    pub async fn fresh(&self) -> Option<Arc<Scene>> {
        let asked = Instant::now();
        let is_new = |scene: &Arc<Scene>| scene.begun + NEW_ENOUGH >= asked;
        let mut scenes = self.scenes.clone();
        if !is_new(&scenes.borrow_and_update()) {
            // Full: somebody else's request is waiting and will do.
            let _ = self.nudge.try_send(());
        }
        let scene = tokio::time::timeout(PATIENCE, scenes.wait_for(is_new)).await;
        scene.ok()?.ok().map(|scene| Arc::clone(&scene))
    }

    /// Every scene from now on; whoever is slow misses some.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Scene>> {
        self.scenes.clone()
    }

    /// Whether scenes still come.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.scenes.borrow().begun.elapsed() < UNWELL_AFTER
    }
}

fn watch(
    shm: &ShmDir,
    owner: OwnerPolicy,
    cameras: &Mutex<BTreeSet<String>>,
    nudges: &Receiver<()>,
    scenes: &watch::Sender<Arc<Scene>>,
) {
    while nudges.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Disconnected) {
        let cameras = cameras.lock().unwrap_or_else(PoisonError::into_inner).clone();
        scenes.send_replace(Arc::new(Scene::take(shm, owner, &cameras)));
    }
}

#[cfg(test)]
mod tests {
    use camring_ring::{Reason, Writer, WriterOptions};

    use super::*;

    #[test]
    fn a_camera_without_a_ring_is_absent_and_a_dead_daemons_last_word_is_not_taken_for_its_state() {
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder on the memory mount");
        let shm = ShmDir::new(folder.path());
        let mut options = WriterOptions::new(RingName::new("front").expect("a name"));
        options.shm = shm.clone();
        let (writer, _) = Writer::start(options).expect("a new ring");
        writer.status().set_state(State::Live, Reason::None, 0, None);
        let cameras = BTreeSet::from(["back".to_owned(), "front".to_owned()]);
        drop(writer);
        let scene = Scene::take(&shm, OwnerPolicy::Usual, &cameras);
        let names: Vec<&str> = scene.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["back", "front"]);
        let (back, front) = (scene.entry("back").unwrap(), scene.entry("front").unwrap());
        assert_eq!((back.condition().as_str(), back.grade()), ("absent", Grade::Broken));
        assert_eq!(back.note(), "configured, but there is no ring: start camring@back");
        // Dropped without a word, as a crash leaves it.
        assert_eq!((front.condition().as_str(), front.grade()), ("dead", Grade::Broken));
    }

    #[test]
    fn a_mount_that_cannot_be_read_is_a_fault_and_every_camera_is_absent() {
        let scene = Scene::take(&ShmDir::new("/nowhere"), OwnerPolicy::Usual, &BTreeSet::from(["a".to_owned()]));
        assert!(scene.fault.as_ref().is_some_and(|fault| fault.contains("/nowhere")), "{:?}", scene.fault);
        assert_eq!((scene.entries.len(), scene.count(Grade::Broken), scene.mount.size_bytes), (1, 1, None));
    }
}
