//! The writer killed at every point of `CrashPoint`, with readers attached before, during and after.
//!
//! Each case is a story of processes: some writers before, the victim, a successor that must find everything in order,
//! and one that goes on publishing. What the victim must leave is in [`Case`]; that it was killed at its point and
//! nowhere else is seen from the signal, because nobody else sends one.

mod common;
mod holder;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use camring_ring::layout::at;
use camring_ring::{AttachOptions, Counter, CrashPoint, ReadError, Ring};
use common::{Shm, assert_untorn, until};
use holder::Holder;

/// How a point is reached, and what its victim leaves behind.
#[derive(Clone, Copy)]
struct Case {
    /// Writers that run before: where each is killed (`None`: it ends by itself) and its options.
    before: &'static [(Option<&'static str>, &'static [&'static str])],
    /// Options of the victim.
    options: &'static [&'static str],
    /// At which passage it is killed.
    passage: u32,
    /// Half-written slots repaired so far, once the successor has started.
    repaired: u64,
    /// Frames that the victim had finished and that no reader saw before the successor started.
    ahead: u64,
    /// All slots are leased, so that the victim must take one.
    leased: bool,
    /// What becomes of the numbers.
    numbers: Numbers,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Numbers {
    GoOn,
    /// The ring was removed, and nothing is left that they could go on from.
    BeginAnew,
}

/// Frames of the smallest size; nothing else happens.
const STREAM: &[&str] = &["--fps", "500", "--frames", "40"];
/// The 21st frame needs a larger generation.
const GROWING: &[&str] = &["--fps", "500", "--frames", "40", "--size", "64x48,640x480", "--per-size", "20"];
/// Another number of slots than the ring that [`A_RING`] leaves.
const OTHER_SLOTS: &[&str] = &["--fps", "500", "--frames", "40", "--slots", "5"];
const A_RING: &[(Option<&str>, &[&str])] = &[(None, STREAM)];
const A_HALF_WRITTEN_SLOT: &[(Option<&str>, &[&str])] = &[(Some("claim-unlocked:5"), STREAM)];
const A_FINISHED_FRAME: &[(Option<&str>, &[&str])] = &[(Some("publish-stamped:5"), STREAM)];
const A_TEMPORARY_LINK: &[(Option<&str>, &[&str])] = &[(None, STREAM), (Some("name-linked:1"), OTHER_SLOTS)];

const PLAIN: Case =
    Case { before: &[], options: STREAM, passage: 1, repaired: 0, ahead: 0, leased: false, numbers: Numbers::GoOn };

/// In the middle of the stream.
const FIFTH: Case = Case { passage: 5, ..PLAIN };
/// While the first frame of a larger generation is made.
const LARGER: Case = Case { options: GROWING, ..PLAIN };
/// While a ring of another configuration is replaced.
const REPLACING: Case = Case { before: A_RING, options: OTHER_SLOTS, ..PLAIN };

/// Every way in which a point can be reached; a point without one does not compile.
fn cases(point: CrashPoint) -> Vec<Case> {
    match point {
        CrashPoint::LockTaken => {
            vec![PLAIN, Case { before: A_RING, ..PLAIN }, Case { before: A_TEMPORARY_LINK, ..PLAIN }]
        }
        CrashPoint::CreateAllocated
        | CrashPoint::CreateFormatted
        | CrashPoint::AnchorNamed
        | CrashPoint::PublicNamed => {
            vec![PLAIN, Case { passage: 2, ..LARGER }, REPLACING]
        }
        // The first link becomes the anchor, the second one the public name.
        CrashPoint::NameLinked => vec![
            PLAIN,
            Case { passage: 2, ..PLAIN },
            Case { passage: 3, ..LARGER },
            Case { passage: 4, ..LARGER },
            REPLACING,
            Case { passage: 2, ..REPLACING },
        ],
        CrashPoint::AdoptLocked => vec![
            Case { before: A_HALF_WRITTEN_SLOT, repaired: 1, ..PLAIN },
            Case { before: A_FINISHED_FRAME, ahead: 1, ..PLAIN },
        ],
        // Emptied by the victim, which did not live to count it.
        CrashPoint::AdoptEmptied => vec![Case { before: A_HALF_WRITTEN_SLOT, ..PLAIN }],
        CrashPoint::AdoptHead => {
            vec![Case { before: A_HALF_WRITTEN_SLOT, ..PLAIN }, Case { before: A_FINISHED_FRAME, ..PLAIN }]
        }
        CrashPoint::AdoptCounted | CrashPoint::AdoptEntered => {
            vec![Case { before: A_HALF_WRITTEN_SLOT, repaired: 1, ..PLAIN }]
        }
        CrashPoint::ClaimLocked => vec![FIFTH, Case { passage: 21, ..LARGER }],
        CrashPoint::ClaimStamped | CrashPoint::ClaimUnlocked => {
            // In a larger generation the half-written slot is gone with its file.
            vec![Case { repaired: 1, ..FIFTH }, Case { passage: 21, ..LARGER }]
        }
        CrashPoint::ClaimRevoking => vec![Case { options: &["--fps", "200", "--slots", "3"], leased: true, ..PLAIN }],
        CrashPoint::AbandonBegun => vec![Case { options: &["--fps", "500", "--abandon", "5"], repaired: 1, ..PLAIN }],
        CrashPoint::AbandonEmptied => vec![Case { options: &["--fps", "500", "--abandon", "5"], ..PLAIN }],
        CrashPoint::PublishFilled | CrashPoint::PublishDescribed => {
            vec![Case { repaired: 1, ..FIFTH }, Case { passage: 21, ..LARGER }]
        }
        CrashPoint::PublishStamped => vec![Case { ahead: 1, ..FIFTH }, Case { passage: 21, ..LARGER }],
        CrashPoint::PublishHead => vec![FIFTH, Case { passage: 21, ..LARGER }],
        CrashPoint::PublishNotified | CrashPoint::PublishWoken => vec![FIFTH, Case { passage: 21, ..LARGER }],
        CrashPoint::GenerationCarried | CrashPoint::GenerationNamed => vec![LARGER],
        CrashPoint::RetireSuccessor | CrashPoint::RetireFlagged | CrashPoint::RetireWoken => vec![LARGER, REPLACING],
        CrashPoint::StopPid | CrashPoint::StopState => vec![PLAIN],
        CrashPoint::RemoveRetired | CrashPoint::RemovePublic => vec![REMOVED],
        CrashPoint::RemoveAnchor => vec![Case { numbers: Numbers::BeginAnew, ..REMOVED }],
    }
}

const REMOVED: Case = Case { options: &["--fps", "500", "--frames", "40", "--remove"], ..PLAIN };

/// The example writer.
struct Process(Child);

impl Process {
    fn spawn(shm: &Shm, crash_at: Option<&str>, options: &[&str]) -> Self {
        let exe = std::env::current_exe().unwrap();
        let program = exe.parent().and_then(Path::parent).unwrap().join("examples/synthetic");
        let mut command = Command::new(program);
        command.args(["cam", "--shm-dir"]).arg(shm.path()).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("CAMRING_CRASH_AT");
        if let Some(point) = crash_at {
            command.env("CAMRING_CRASH_AT", point);
        }
        Self(command.spawn().unwrap())
    }

    fn ready(&mut self) {
        let mut line = String::new();
        let output: &mut ChildStdout = self.0.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{}", self.errors());
    }

    /// Its end, which nobody here brings about.
    fn end(&mut self, what: &str) -> ExitStatus {
        let mut status = None;
        until(what, || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn killed(mut self, what: &str) {
        let status = self.end(what);
        assert_eq!(status.signal(), Some(9), "{what}: {status}: {}", self.errors());
    }

    fn errors(&mut self) -> String {
        let mut text = String::new();
        let output: &mut ChildStderr = self.0.stderr.as_mut().unwrap();
        output.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A reader that lives through the whole story.
#[derive(Clone, Copy)]
struct Onlooker<'a> {
    what: &'a str,
    numbers: Numbers,
    stop: &'a AtomicBool,
    /// The newest number it has read.
    seen: &'a AtomicU64,
}

impl Onlooker<'_> {
    /// Checks that frames are whole and in order.
    fn check(&self, last: &mut u64, resets: u64, seq: u64, pixels: &[u8]) {
        assert_untorn(seq, pixels);
        let anew = self.numbers == Numbers::BeginAnew && resets > 0;
        assert!(seq > *last || anew, "{}: frame {seq} after frame {last}", self.what);
        *last = seq;
        self.seen.store(seq, Ordering::Relaxed);
    }

    /// Passes what is bound to happen in the story.
    fn tolerate(&self, error: &ReadError) {
        match error {
            ReadError::Timeout { .. } | ReadError::NoFrame { .. } | ReadError::Overrun { .. } => {}
            ReadError::Removed { .. } if self.what.starts_with("remove-") => {}
            error => panic!("{}: {error}", self.what),
        }
    }

    fn copies(&self, options: AttachOptions) {
        let ring = Ring::attach("cam", options).unwrap();
        let (mut pixels, mut last) = (Vec::new(), 0);
        while !self.stop.load(Ordering::Relaxed) {
            match ring.next(&mut pixels, Some(Duration::from_millis(50))) {
                Ok(frame) => self.check(&mut last, ring.stats().resets, frame.meta.seq.0, &pixels),
                Err(error) => self.tolerate(&error),
            }
        }
        assert_eq!(ring.stats().resets, u64::from(self.numbers == Numbers::BeginAnew && ring.stats().resets > 0));
    }
}

impl Onlooker<'_> {
    /// As [`Onlooker::copies`], in place: what a lease shows and ends valid is one whole frame.
    fn leases(&self, options: AttachOptions) {
        let ring = Ring::attach("cam", options).unwrap();
        let (mut pixels, mut last) = (Vec::new(), 0);
        while !self.stop.load(Ordering::Relaxed) {
            match ring.lease_next(Some(Duration::from_millis(50))) {
                Ok(lease) => {
                    let seq = lease.frame().meta.seq.0;
                    pixels.resize(lease.len(), 0);
                    match lease.copy_to(&mut pixels).and_then(|()| lease.release()) {
                        Ok(()) => self.check(&mut last, ring.stats().resets, seq, &pixels),
                        Err(ReadError::Revoked { .. }) => {}
                        Err(error) => panic!("{}: {error}", self.what),
                    }
                }
                Err(error) => self.tolerate(&error),
            }
        }
    }
}

/// The newest frame, read by somebody who has just come; 0 when there is none or no ring.
fn newest(shm: &Shm) -> u64 {
    attach_now(shm).map_or(0, |ring| newest_of(&ring))
}

/// The number after which the ring goes on: its newest frame's, or its predecessor's if it has none yet.
fn position(shm: &Shm) -> Option<u64> {
    attach_now(shm).map(|ring| newest_of(&ring).max(ring.layout().base_seq))
}

fn attach_now(shm: &Shm) -> Option<Ring> {
    let mut options = shm.attach_options();
    options.timeout = Some(Duration::ZERO);
    Ring::attach("cam", options).ok()
}

fn newest_of(ring: &Ring) -> u64 {
    let mut pixels = Vec::new();
    match ring.latest(&mut pixels) {
        Ok(frame) => {
            assert_untorn(frame.meta.seq.0, &pixels);
            frame.meta.seq.0
        }
        Err(ReadError::NoFrame { .. }) => 0,
        Err(error) => panic!("{error}"),
    }
}

/// Has the victim killed; returns whoever held leases meanwhile.
fn kill_victim(shm: &Shm, point: &str, case: &Case, what: &str) -> Option<Holder> {
    let mut victim = Process::spawn(shm, Some(point), case.options);
    let holder = case.leased.then(|| {
        victim.ready();
        let ring = Ring::attach("cam", shm.attach_options()).unwrap();
        until("there are frames", || ring.peek().is_ok());
        let mut holder = Holder::new(&shm.path().join("camring.cam"));
        holder.say("hold", ring.layout().lease_lock_base, u64::from(ring.layout().slot_count), 1);
        holder
    });
    victim.killed(what);
    holder
}

/// Slots whose stamp is odd, as another process sees them.
fn half_written(shm: &Shm) -> Vec<u64> {
    let file = std::fs::File::open(shm.path().join("camring.cam")).unwrap();
    let word = |offset: u64, bytes: &mut [u8]| file.read_exact_at(bytes, offset).unwrap();
    let mut count = [0; 4];
    word(at::SLOT_COUNT, &mut count);
    let odd = |slot: &u64| {
        let mut stamp = [0; 8];
        word(4096 + slot * 256, &mut stamp);
        stamp[0] & 1 == 1
    };
    (0..u64::from(u32::from_le_bytes(count))).filter(odd).collect()
}

/// What a successor finds and repairs, before it publishes anything.
fn succeed(shm: &Shm, case: &Case, left: u64, what: &str) {
    let mut successor = Process::spawn(shm, None, &["--frames", "0"]);
    successor.ready();
    assert_eq!(shm.files(), ["camring.cam", "camring.d/.lock-cam", "camring.d/cam"], "{what}: leftovers");
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let status = ring.status();
    assert_eq!(status.counter(Counter::TornRepaired), case.repaired, "{what}: repaired");
    assert_eq!(half_written(shm), [0; 0], "{what}: slots that stay half-written");
    let found = newest(shm);
    // A generation made anew begins without a frame; its numbers go on all the same.
    if found > 0 || left == 0 {
        assert_eq!(found, left + case.ahead, "{what}: the newest frame");
    } else {
        let expected = if case.numbers == Numbers::GoOn { left } else { 0 };
        assert_eq!(ring.layout().base_seq, expected, "{what}: where the numbers go on");
    }
    drop(successor.0.stdin.take());
    assert!(successor.end("the successor has ended").success(), "{what}: {}", successor.errors());
}

fn play(point: CrashPoint, case: &Case) {
    let word = format!("{}:{}", point.word(), case.passage);
    let what = format!("{word} of {}", case.options.join(" "));
    let shm = Shm::new();
    for (crash_at, options) in case.before {
        let mut writer = Process::spawn(&shm, *crash_at, options);
        let status = writer.end("a writer before has ended");
        assert_eq!(status.signal(), crash_at.map(|_| 9), "{what}: before: {}", writer.errors());
    }
    let (stop, seen, leased) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let onlooker = Onlooker { what: &what, numbers: case.numbers, stop: &stop, seen: &seen };
    let leaser = Onlooker { seen: &leased, ..onlooker };
    std::thread::scope(|scope| {
        // Also when this thread panics: the readers must not wait for ever.
        let _ends = Stops(&stop);
        scope.spawn(|| onlooker.copies(shm.attach_options()));
        scope.spawn(|| leaser.leases(shm.attach_options()));
        let before = newest(&shm);
        let holder = kill_victim(&shm, &word, case, &what);
        let left = left_behind(&shm, &what, before, seen.load(Ordering::Relaxed).max(leased.load(Ordering::Relaxed)));
        succeed(&shm, case, left, &what);
        drop(holder);
        let mut heir = Process::spawn(&shm, None, &["--fps", "500"]);
        heir.ready();
        let goal = if case.numbers == Numbers::GoOn { left + case.ahead + 5 } else { 5 };
        for seen in [&seen, &leased] {
            let goes_on = || (goal..goal + 20_000).contains(&seen.load(Ordering::Relaxed));
            until(&format!("{what}: the readers go on"), goes_on);
        }
    });
    assert_eq!(shm.files(), ["camring.cam", "camring.d/.lock-cam", "camring.d/cam"], "{what}");
}

/// Where the ring stands after the victim's death: nothing that anybody has read is gone.
fn left_behind(shm: &Shm, what: &str, before: u64, seen: u64) -> u64 {
    if what.starts_with("remove-") {
        return 40;
    }
    let left = position(shm).unwrap_or(0);
    assert!(left >= before, "{what}: the ring stands at {left} after {before}");
    assert!(left >= seen, "{what}: frame {seen} was read and the ring stands at {left}");
    left
}

/// Raises the flag when dropped.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Plays the stories of every n-th point; two tests share the points, because the machine has two processors.
fn play_half(half: usize) {
    for point in CrashPoint::ALL.iter().skip(half).step_by(2) {
        let cases = cases(*point);
        assert!(!cases.is_empty(), "{point:?} is never reached");
        for case in cases {
            play(*point, &case);
        }
    }
}

#[test]
fn a_writer_killed_at_any_point_leaves_a_ring_that_goes_on_1() {
    play_half(0);
}

#[test]
fn a_writer_killed_at_any_point_leaves_a_ring_that_goes_on_2() {
    play_half(1);
}

#[test]
fn a_crash_point_that_does_not_exist_is_an_error_with_those_that_do() {
    let shm = Shm::new();
    for bad in ["publish", "publish-head:0", "publish-head:x", ""] {
        let mut writer = Process::spawn(&shm, Some(bad), STREAM);
        assert_eq!(writer.end("the writer has refused").code(), Some(1));
        let words: Vec<&str> = CrashPoint::ALL.iter().map(|point| point.word()).collect();
        let expected = format!(
            "synthetic: CAMRING_CRASH_AT=\"{bad}\" names no crash point; expected WORD or WORD:N (N from 1) with one of \
             {}; unset it unless this is a test\n",
            words.join(", ")
        );
        assert_eq!(writer.errors(), expected);
    }
    assert_eq!(shm.files(), [""; 0]);
}

#[test]
fn a_point_that_is_never_passed_harms_nobody() {
    let shm = Shm::new();
    let mut writer = Process::spawn(&shm, Some("publish-head:41"), STREAM);
    assert!(writer.end("all frames are published").success());
    assert_eq!(newest(&shm), 40);
}
