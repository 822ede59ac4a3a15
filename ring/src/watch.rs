//! What housekeeping waits for: the bell, a change of the ring's links, and the pace at which names are put back.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

use crate::segment::Segment;

/// Wakes housekeeping from any thread.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> Result<Self, Errno> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Self)
    }

    /// Never waits: a counter that is full has long been heard.
    pub(crate) fn ring(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn hear(&self) {
        // Another thread of housekeeping may have been faster.
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

/// Tells when a link of the ring's file has come or gone, whatever its name and folder.
#[derive(Debug)]
pub(crate) struct LinkWatch {
    inotify: OwnedFd,
    /// The file watched and its watch.
    armed: Option<((u64, u64), i32)>,
}

impl LinkWatch {
    pub(crate) fn new() -> Result<Self, Errno> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        Ok(Self { inotify, armed: None })
    }

    /// Watches this file and no other; returns whether it is a new one.
    pub(crate) fn arm(&mut self, segment: &Segment) -> Result<bool, Errno> {
        if self.armed.is_some_and(|(identity, _)| identity == segment.identity) {
            return Ok(false);
        }
        if let Some((_, watch)) = self.armed.take() {
            // The kernel has removed it already if the old file is gone.
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
        // Through the descriptor: this is the file itself, whatever its names lead to by now.
        let file = format!("/proc/self/fd/{}", segment.fd.as_fd().as_raw_fd());
        let watch = inotify::add_watch(&self.inotify, file, inotify::WatchFlags::ATTRIB)?;
        self.armed = Some((segment.identity, watch));
        Ok(true)
    }

    /// Takes every event there is; what they say does not matter, the names are looked at.
    fn drain(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        while events.next().is_ok() {}
    }
}

/// Sleeps until the bell rings, a link changes (`links` given) or `limit` is over; returns whether a link changed.
pub(crate) fn wait(bell: &Bell, links: Option<&LinkWatch>, limit: Duration) -> bool {
    let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: i64::from(limit.subsec_nanos()) };
    let inotify: BorrowedFd<'_> = links.map_or(bell.0.as_fd(), |links| links.inotify.as_fd());
    let mut fds =
        [PollFd::from_borrowed_fd(bell.0.as_fd(), PollFlags::IN), PollFd::from_borrowed_fd(inotify, PollFlags::IN)];
    let fds = if links.is_some() { &mut fds[..] } else { &mut fds[..1] };
    if poll(fds, Some(&limit)).is_err() {
        // A signal, or no memory for the call: the caller looks at the clock and comes again.
        return false;
    }
    let [rang, changed] = [0, 1].map(|place| fds.get(place).is_some_and(|fd| !fd.revents().is_empty()));
    if rang {
        bell.hear();
    }
    if let Some(links) = links.filter(|_| changed) {
        links.drain();
    }
    changed
}

/// Least time between two looks at the names.
const LOOK_NS: i64 = 1_000_000;
/// Least time between two looks while a name cannot be made: trying changes the number of links, and we would wake
/// ourselves up.
const REFUSED_NS: i64 = 1_000_000_000;
/// Least time between two repairs, and what it doubles up to while somebody keeps removing names.
const REPAIR_FIRST_NS: i64 = 100_000_000;
const REPAIR_MAX_NS: i64 = 10_000_000_000;
/// A repair so many pauses after the last one, or a second, has nothing to do with it.
const CALM_PAUSES: i64 = 4;
const CALM_MIN_NS: i64 = 1_000_000_000;
/// Repairs closer together than this are one burst, which the log hears of once.
const BURST_NS: i64 = 60_000_000_000;

/// How soon the names may be looked at again, so that whoever removes them in a loop gets no more than a little work
/// out of us. All times are ns of one clock.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    not_before_ns: i64,
    pause_ns: i64,
    last_repair_ns: Option<i64>,
}

impl Pace {
    /// When the next look is due at the earliest.
    pub(crate) fn not_before_ns(&self) -> i64 {
        self.not_before_ns
    }

    /// Notes a look that had nothing to repair.
    pub(crate) fn looked(&mut self, now_ns: i64) {
        self.not_before_ns = now_ns + LOOK_NS;
    }

    /// Notes a look that could not make a name.
    pub(crate) fn refused(&mut self, now_ns: i64) {
        self.not_before_ns = now_ns + REFUSED_NS;
    }

    /// Notes a look that put names back; returns whether it was the first one of a burst.
    pub(crate) fn repaired(&mut self, now_ns: i64) -> bool {
        let since = self.last_repair_ns.map(|last| now_ns - last);
        let calm = (self.pause_ns * CALM_PAUSES).max(CALM_MIN_NS);
        self.pause_ns = match since {
            Some(since) if since < calm => (self.pause_ns * 2).min(REPAIR_MAX_NS),
            _ => REPAIR_FIRST_NS,
        };
        self.not_before_ns = now_ns + self.pause_ns;
        self.last_repair_ns = Some(now_ns);
        since.is_none_or(|since| since >= BURST_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn names_that_are_removed_again_and_again_come_back_ever_more_slowly() {
        let mut pace = Pace::default();
        let mut now = MS;
        for expected in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            pace.repaired(now);
            assert_eq!(pace.not_before_ns(), now + expected * MS);
            now = pace.not_before_ns();
        }
    }

    #[test]
    fn after_a_calm_time_a_name_comes_back_at_once_again() {
        let mut pace = Pace::default();
        for now in [0, 100, 300] {
            pace.repaired(now * MS);
        }
        assert_eq!(pace.not_before_ns(), 700 * MS);
        pace.repaired((300 + 1600) * MS);
        assert_eq!(pace.not_before_ns(), 2000 * MS);
        pace.repaired(2899 * MS);
        assert_eq!(pace.not_before_ns(), 3099 * MS, "a second has not passed");
    }

    #[test]
    fn a_burst_is_told_once_and_ends_after_a_minute() {
        let mut pace = Pace::default();
        let told: Vec<bool> = [0, 100, 5_000, 64_999, 124_998, 184_998].map(|now| pace.repaired(now * MS)).to_vec();
        assert_eq!(told, [true, false, false, false, false, true]);
    }

    #[test]
    fn looks_that_find_nothing_to_do_are_a_millisecond_apart() {
        let mut pace = Pace::default();
        pace.looked(5 * MS);
        assert_eq!(pace.not_before_ns(), 6 * MS);
        pace.refused(5 * MS);
        assert_eq!(pace.not_before_ns(), 1005 * MS, "and a second when a name cannot be made");
    }

    #[test]
    fn the_bell_and_a_removed_link_end_the_wait() {
        let bell = Bell::new().unwrap();
        bell.ring();
        assert!(!wait(&bell, None, Duration::from_secs(60)), "the bell is no change of a link");
        let dir = std::env::temp_dir().join(format!("camring-watch-{:016x}", crate::process::random_u64()));
        std::fs::write(&dir, b"").unwrap();
        let links = LinkWatch::new().unwrap();
        inotify::add_watch(&links.inotify, &dir, inotify::WatchFlags::ATTRIB).unwrap();
        assert!(!wait(&bell, Some(&links), Duration::from_millis(1)), "nothing has changed, and the bell was heard");
        let file = std::fs::File::open(&dir).unwrap();
        std::fs::remove_file(&dir).unwrap();
        assert!(wait(&bell, Some(&links), Duration::from_secs(60)));
        assert!(!wait(&bell, Some(&links), Duration::from_millis(1)), "events are taken");
        drop(file);
    }
}
