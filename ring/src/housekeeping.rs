//! The writer's second thread: heartbeat, names, process figures, late wake-ups. Never touches a frame.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::attach::count_locks;
use crate::clock::mono_ns;
use crate::guard::Verdict;
use crate::layout::LeasePolicy;
use crate::lock::{LockKind, try_lock};
use crate::process::ProcessStats;
use crate::status::StatusHandle;
use crate::watch::{Bell, LinkWatch, Pace, wait};

/// Time between two heartbeats; readers take twice as much for a sign of trouble.
const HEARTBEAT_NS: i64 = 200_000_000;
/// Heartbeats between two looks at names and process figures.
const BEATS_PER_LOOK: u32 = 5;

/// Something an operator may want in the log.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HousekeepingEvent {
    /// Somebody removed so many names of the ring; they are back. Told once per burst: the counter `relinked` has the rest.
    Relinked(u32),
    /// Both names are gone; the next frame makes a new generation.
    Lost,
    /// The names cannot be kept; said once per cause.
    NamesFailed(String),
    /// The system tells nothing of removed names (why); they are looked at each second instead.
    Unwatched(String),
    /// Readers hold so many locks that asking about leases takes too long.
    LocksSlow {
        /// Locks of the ring's file in the kernel's table; `None` where it does not show them.
        locks: Option<usize>,
        /// For so long leases are not honoured; `None` under the policy `protect`, which honours them all the same.
        pause: Option<Duration>,
    },
    /// Asking about leases is quick again, and they are honoured.
    LocksFine,
}

/// Runs until dropped.
#[derive(Debug)]
pub struct Housekeeping {
    stop: Arc<AtomicBool>,
    status: StatusHandle,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeping {
    /// Starts the thread for one ring.
    ///
    /// # Errors
    ///
    /// When the system gives no thread or no descriptor.
    pub fn spawn(status: StatusHandle, report: impl Fn(HousekeepingEvent) + Send + 'static) -> std::io::Result<Self> {
        if status.shared.bell.get().is_none() {
            // A second thread for the same ring shares the bell; each wakes up by itself every 200 ms.
            let _ = status.shared.bell.set(Bell::new()?);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let house = House::new(status.clone(), report, Arc::clone(&stop));
        let thread = thread::Builder::new().name("ring-house".into()).spawn(move || house.run())?;
        Ok(Self { stop, status, thread: Some(thread) })
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        if !self.status.shared.origin.is_here() {
            // The thread is not in this forked child: joining it would wait for ever.
            std::mem::forget(self.thread.take());
            return;
        }
        self.stop.store(true, Ordering::Relaxed);
        self.status.shared.wake_housekeeping();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by the panic hook; there is nothing left to do about it here.
            drop(thread.join());
        }
    }
}

/// The thread's own things.
struct House<R> {
    status: StatusHandle,
    report: R,
    stop: Arc<AtomicBool>,
    /// `None` where the system gives no watch, and for a ring whose names are not ours.
    links: Option<LinkWatch>,
    pace: Pace,
    /// The names are to be looked at as soon as the pace allows it.
    stirred: bool,
    last_problem: Option<String>,
}

impl<R: Fn(HousekeepingEvent)> House<R> {
    fn new(status: StatusHandle, report: R, stop: Arc<AtomicBool>) -> Self {
        let mut house =
            Self { status, report, stop, links: None, pace: Pace::default(), stirred: true, last_problem: None };
        if house.status.shared.names().paths.is_some() {
            match LinkWatch::new() {
                Ok(links) => house.links = Some(links),
                Err(error) => house.unwatched(error),
            }
        }
        house
    }

    fn run(mut self) {
        let mut beat = 0u32;
        let mut next_beat = mono_ns();
        while !self.stop.load(Ordering::Relaxed) {
            self.status.wake_rest();
            self.tell_of_locks();
            self.watch_links();
            let now = mono_ns();
            if now >= next_beat {
                next_beat = now + HEARTBEAT_NS;
                self.status.heartbeat();
                if beat.is_multiple_of(BEATS_PER_LOOK) {
                    self.status.process_stats(ProcessStats::read());
                    hold_alive(&self.status);
                    self.stirred = true;
                }
                beat = beat.wrapping_add(1);
            }
            if self.stirred && now >= self.pace.not_before_ns() {
                self.stirred = false;
                self.look_at_names();
            }
            self.sleep(next_beat);
        }
    }

    /// Sleeps until there is something to do. Once the names are to be looked at, further changes are not listened to.
    fn sleep(&mut self, next_beat: i64) {
        let next = if self.stirred { next_beat.min(self.pace.not_before_ns()) } else { next_beat };
        let limit = Duration::from_nanos((next - mono_ns()).max(0).cast_unsigned());
        let shared = Arc::clone(&self.status.shared);
        let bell = shared.bell.get().expect("spawn has set it");
        let links = self.links.as_ref().filter(|_| !self.stirred);
        self.stirred |= wait(bell, links, limit);
    }

    /// Watches the links of the current generation's file.
    fn watch_links(&mut self) {
        let Some(links) = &mut self.links else { return };
        let live = Arc::clone(&self.status.shared.names().live);
        match links.arm(&live.segment) {
            // What happened before the watch was there is seen by looking.
            Ok(new) => self.stirred |= new,
            Err(error) => {
                self.links = None;
                self.unwatched(error);
            }
        }
    }

    fn unwatched(&self, error: rustix::io::Errno) {
        (self.report)(HousekeepingEvent::Unwatched(error.to_string()));
    }

    fn look_at_names(&mut self) {
        let result = self.status.settle_names();
        let now = mono_ns();
        self.pace.looked(now);
        let problem = match result {
            Ok(settled) if settled.lost => Some((HousekeepingEvent::Lost, "lost".to_owned())),
            Ok(settled) => {
                if settled.relinked > 0 && self.pace.repaired(now) {
                    (self.report)(HousekeepingEvent::Relinked(settled.relinked));
                }
                if settled.no_public_name {
                    self.pace.refused(now);
                }
                None
            }
            Err(error) => {
                self.pace.refused(now);
                let text = error.to_string();
                Some((HousekeepingEvent::NamesFailed(text.clone()), text))
            }
        };
        match problem {
            Some((event, text)) if self.last_problem.as_ref() != Some(&text) => {
                (self.report)(event);
                self.last_problem = Some(text);
            }
            Some(_) => {}
            None => self.last_problem = None,
        }
    }

    /// Passes on what the publishing thread has found, with what it must not stop to find out.
    fn tell_of_locks(&self) {
        let event = match self.status.shared.heard_of_locks() {
            Some(Verdict::Tripped(pause_ns)) => {
                let live = Arc::clone(&self.status.shared.names().live);
                let honoured = live.segment.layout.lease_policy == LeasePolicy::Protect as u32;
                let pause = Duration::from_nanos(pause_ns.max(0).cast_unsigned());
                HousekeepingEvent::LocksSlow {
                    locks: count_locks(&live.segment),
                    pause: if honoured { None } else { Some(pause) },
                }
            }
            Some(_) => HousekeepingEvent::LocksFine,
            None => return,
        };
        (self.report)(event);
    }
}

/// Takes the alive byte again: a reader may have squatted on it when the ring was adopted.
fn hold_alive(status: &StatusHandle) {
    let names = status.shared.names();
    let segment = &names.live.segment;
    // A conflict is tried again in a second, and the heartbeat tells readers meanwhile.
    let _ = try_lock(segment.fd.as_fd(), LockKind::Exclusive, segment.layout.alive_lock_off, 1);
}
