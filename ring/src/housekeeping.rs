//! The writer's second thread: heartbeat, names, process figures, late wake-ups. Never touches a frame.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::lock::{LockKind, try_lock};
use crate::process::ProcessStats;
use crate::status::StatusHandle;

/// Time between two heartbeats; readers take twice as much for a sign of trouble.
const HEARTBEAT: Duration = Duration::from_millis(200);
/// Heartbeats between two looks at names and process figures.
const BEATS_PER_LOOK: u32 = 5;

/// Something an operator may want in the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HousekeepingEvent {
    /// Somebody removed names of the ring; they are back.
    Relinked(u32),
    /// Both names are gone; the next frame makes a new generation.
    Lost,
    /// The names cannot be kept; said once per cause.
    NamesFailed(String),
}

/// Runs until dropped.
#[derive(Debug)]
pub struct Housekeeping {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeping {
    /// Starts the thread for one ring.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn spawn(status: StatusHandle, report: impl Fn(HousekeepingEvent) + Send + 'static) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let shared = Arc::clone(&status.shared);
        let thread = thread::Builder::new().name("ring-house".into()).spawn(move || run(&status, &report, &stopped))?;
        // A second thread for the same ring would find this one here; each wakes up by itself every 200 ms.
        let _ = shared.housekeeper.set(thread.thread().clone());
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the thread has been printed by the panic hook; there is nothing left to do about it here.
            drop(thread.join());
        }
    }
}

fn run(status: &StatusHandle, report: &impl Fn(HousekeepingEvent), stop: &AtomicBool) {
    let mut beat = 0u32;
    let mut last_problem = None;
    let mut next_beat = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        status.wake_rest();
        let left = next_beat.saturating_duration_since(Instant::now());
        if left > Duration::ZERO {
            thread::park_timeout(left);
            continue;
        }
        next_beat = Instant::now() + HEARTBEAT;
        status.heartbeat();
        if beat.is_multiple_of(BEATS_PER_LOOK) {
            status.process_stats(ProcessStats::read());
            hold_alive(status);
            look_at_names(status, report, &mut last_problem);
        }
        beat = beat.wrapping_add(1);
    }
}

/// Takes the alive byte again: a reader may have squatted on it when the ring was adopted.
fn hold_alive(status: &StatusHandle) {
    let names = status.shared.names();
    let segment = &names.live.segment;
    // A conflict is tried again in a second, and the heartbeat tells readers meanwhile.
    let _ = try_lock(segment.fd.as_fd(), LockKind::Exclusive, segment.layout.alive_lock_off, 1);
}

fn look_at_names(status: &StatusHandle, report: &impl Fn(HousekeepingEvent), last_problem: &mut Option<String>) {
    let problem = match status.settle_names() {
        Ok(settled) if settled.lost => Some((HousekeepingEvent::Lost, "lost".to_owned())),
        Ok(settled) => {
            if settled.relinked > 0 {
                report(HousekeepingEvent::Relinked(settled.relinked));
            }
            None
        }
        Err(error) => {
            let text = error.to_string();
            Some((HousekeepingEvent::NamesFailed(text.clone()), text))
        }
    };
    match problem {
        Some((event, text)) if last_problem.as_ref() != Some(&text) => {
            report(event);
            *last_problem = Some(text);
        }
        Some(_) => {}
        None => *last_problem = None,
    }
}
