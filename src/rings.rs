//! The rings of one camera: made, watched over, told what the supervisor says, and changed by a reload.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use camring_ring::{
    CreateError, Housekeeping, HousekeepingEvent, Reason, RingName, Started, State, StatusHandle, Writer, WriterOptions,
};

use crate::output::{Look, Output, Shape, Shared};
use crate::publish::{Change, Changes, Publisher};

/// What a ring of a camera is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the ring is made.
    pub options: WriterOptions,
    /// What its frames are.
    pub look: Look,
}

/// One ring at work.
struct Entry {
    name: RingName,
    status: StatusHandle,
    shared: Arc<Shared>,
    /// What the supervisor said last.
    told: Option<Told>,
    /// What the ring says instead, while it takes no frames.
    refused: Option<Reason>,
    _house: Housekeeping,
}

/// A camera's state as the supervisor tells it.
#[derive(Clone, Copy)]
struct Told {
    state: State,
    reason: Reason,
    attempt: u8,
    next_retry: Option<i64>,
}

/// All rings of one camera, the main one first; shared by the supervisor's thread and the reload's.
pub struct Rings {
    camera: String,
    entries: Mutex<Vec<Entry>>,
    /// The words for decoder and codec, once they are known.
    text: Mutex<Option<(String, String)>>,
    changes: Arc<Changes>,
}

impl Rings {
    /// Makes or adopts the rings of `camera` that `plans` describe, the main one first, and the publisher into them.
    ///
    /// # Errors
    ///
    /// The first ring that cannot be had; nothing is kept of the others, and what they held stays readable.
    pub fn open(camera: &str, plans: Vec<Plan>) -> Result<(Arc<Self>, Publisher), CreateError> {
        let changes = Arc::new(Changes::default());
        let (mut entries, mut outputs) = (Vec::new(), Vec::new());
        for plan in plans {
            let (entry, output) = begin(camera, plan)?;
            entries.push(entry);
            outputs.push(output);
        }
        let publisher = Publisher::new(outputs, Arc::clone(&changes));
        let (entries, text) = (Mutex::new(entries), Mutex::default());
        let rings = Self { camera: camera.to_owned(), entries, text, changes };
        Ok((Arc::new(rings), publisher))
    }

    /// One more ring, from the next frame on.
    ///
    /// # Errors
    ///
    /// It cannot be had.
    pub fn add(&self, plan: Plan) -> Result<(), CreateError> {
        let (mut entry, output) = begin(&self.camera, plan)?;
        let mut entries = self.entries();
        if let Some(main) = entries.first() {
            let session = main.status.session();
            entry.status.set_session(session);
            entry.shared.session.store(session, Relaxed);
            entry.told = main.told;
        }
        if let Some((decoder, codec)) = &*self.text.lock().unwrap_or_else(PoisonError::into_inner) {
            entry.status.set_text(decoder, codec);
        }
        entry.tell();
        entries.push(entry);
        self.changes.push(Change::Add(Box::new(output)));
        Ok(())
    }

    /// Ends a ring: its readers are told, and its frames stay.
    pub fn remove(&self, name: &RingName) {
        let mut entries = self.entries();
        let Some(at) = entries.iter().position(|entry| entry.name == *name) else { return };
        let entry = entries.remove(at);
        drop(entries);
        self.changes.push(Change::Remove(name.clone()));
        entry.status.stopped(Reason::Operator);
    }

    /// Changes what a ring and its frames are.
    pub fn reshape(&self, name: &RingName, shape: Shape) {
        if let Some(entry) = self.entries().iter().find(|entry| entry.name == *name) {
            entry.shared.reshape(shape);
        }
    }

    /// Ends the daemon's life on every ring.
    pub fn stopped(&self, reason: Reason) {
        self.each(|status| status.stopped(reason));
    }

    /// The main ring.
    #[must_use]
    pub fn main(&self) -> Option<StatusHandle> {
        self.entries().first().map(|main| main.status.clone())
    }

    /// Does something with every ring.
    pub(crate) fn each(&self, act: impl Fn(&StatusHandle)) {
        self.entries().iter().for_each(|entry| act(&entry.status));
    }

    /// Whether anybody who counts reads any of them.
    pub(crate) fn is_attended(&self) -> bool {
        self.entries().iter().any(|entry| entry.status.is_attended())
    }

    /// Tells every ring what the camera does; one that takes no frames says that instead.
    pub(crate) fn set_state(&self, state: State, reason: Reason, attempt: u8, next_retry: Option<i64>) {
        for entry in self.entries().iter_mut() {
            entry.told = Some(Told { state, reason, attempt, next_retry });
            entry.tell();
        }
    }

    /// Names the decoder and the codec in every ring.
    pub(crate) fn set_text(&self, decoder: &str, codec: &str) {
        self.each(|status| status.set_text(decoder, codec));
        let text = Some((decoder.to_owned(), codec.to_owned()));
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// Sets the session that the next frames belong to.
    pub(crate) fn set_session(&self, session: u32) {
        for entry in self.entries().iter() {
            entry.status.set_session(session);
            entry.shared.session.store(session, Relaxed);
        }
    }

    /// Has rings that began or ceased to refuse frames say so.
    pub(crate) fn tell_refusals(&self) {
        // The supervisor asks about the main ring itself: it decides what follows from it.
        for entry in self.entries().iter_mut().skip(1) {
            if entry.refused != entry.shared.refusal() {
                entry.refused = entry.shared.refusal();
                entry.tell();
            }
        }
    }

    /// Frames published in the main ring.
    pub(crate) fn published(&self) -> u64 {
        self.entries().first().map_or(0, |main| main.shared.published.load(Relaxed))
    }

    /// Why the main ring takes no frames.
    pub(crate) fn refusal(&self) -> Option<Reason> {
        self.entries().first().and_then(|main| main.shared.refusal())
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn tell(&self) {
        let Some(Told { state, reason, attempt, next_retry }) = self.told else { return };
        match self.refused {
            Some(why) if state == State::Live => self.status.set_state(State::Error, why, 0, None),
            _ => self.status.set_state(state, reason, attempt, next_retry),
        }
    }
}

fn begin(camera: &str, plan: Plan) -> Result<(Entry, Output), CreateError> {
    let Plan { options, look } = plan;
    let name = options.ring.clone();
    let segment = options.segment.as_str().to_owned();
    let (writer, started) = Writer::start(options.clone())?;
    let status = writer.status();
    announce(&name, &segment, &status, &started);
    let (camera, ring) = (camera.to_owned(), name.to_string());
    let house = Housekeeping::spawn(status.clone(), move |event| tell(&camera, &ring, event))
        .map_err(|source| CreateError::Io { action: format!("start the housekeeping of ring {name}"), source })?;
    let shared = Arc::new(Shared::default());
    let output = Output::new(&options, writer, look, Arc::clone(&shared));
    Ok((Entry { name, status, shared, told: None, refused: None, _house: house }, output))
}

fn announce(name: &RingName, segment: &str, status: &StatusHandle, started: &Started) {
    let (camera, ring) = (name.camera(), name.as_str());
    for note in &started.notes {
        tracing::info!(camera, ring, "{note}");
    }
    if let Some(why) = &started.not_adopted {
        tracing::warn!(name: "ring_replaced", camera, ring, "the old ring is replaced: {why}");
    }
    let (adopted, seq, torn_repaired) = (started.adopted, status.newest().0, started.torn_repaired);
    tracing::info!(name: "ring_ready", camera, ring, segment, adopted, seq, torn_repaired, "the ring is ready");
}

/// What housekeeping has found, as a line of the log.
fn tell(camera: &str, ring: &str, event: HousekeepingEvent) {
    match event {
        HousekeepingEvent::Relinked(names) => {
            tracing::warn!(name: "names_restored", camera, ring, names, "somebody removed names of the ring; they are back");
        }
        HousekeepingEvent::Lost => {
            tracing::error!(name: "names_lost", camera, ring, "both names of the ring are gone; the next frame makes a new one");
        }
        HousekeepingEvent::NamesFailed(error) => tracing::error!(camera, ring, "{error}"),
        HousekeepingEvent::Unwatched(why) => {
            tracing::info!(camera, ring, "removed names of the ring come back within a second, not at once: {why}");
        }
        HousekeepingEvent::LocksSlow { locks, pause: Some(pause) } => {
            let (locks, pause_s) = (known(locks), pause.as_secs());
            tracing::warn!(
                name: "locks_slow",
                camera,
                ring,
                locks,
                pause_s,
                "readers' locks make claims slow; leases are not honoured for a while"
            );
        }
        HousekeepingEvent::LocksSlow { locks, pause: None } => {
            let locks = known(locks);
            tracing::warn!(
                name: "locks_slow",
                camera,
                ring,
                locks,
                "readers' locks make claims slow; lease policy protect honours them all the same"
            );
        }
        HousekeepingEvent::LocksFine => tracing::info!(camera, ring, "claims are quick again; leases are honoured"),
        event => tracing::info!(camera, ring, ?event, "housekeeping"),
    }
}

/// A number of locks where the kernel shows it.
fn known(locks: Option<usize>) -> String {
    locks.map_or_else(|| "unknown".to_owned(), |locks| locks.to_string())
}
