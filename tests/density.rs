//! Many cameras on one host: all of them are live soon, each gets its frames, and under overload they share.
#![cfg(feature = "sim")]

mod system;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use camring_ring::{Counter, FrameFlags, State};
use system::reader::{Reader, Seen, Way};
use system::{Daemon, Shm, Sim, amount, is_full, let_pass, measured, until};

const CAMERAS: usize = 8;

/// Cameras, each with a daemon and a reader, and all of them live.
struct Host {
    shm: Shm,
    _sim: Sim,
    daemons: Vec<Daemon>,
    readers: Vec<Reader>,
    /// From the first daemon's start to the last one's first frame.
    up: Duration,
    _turn: MutexGuard<'static, ()>,
}

/// One host at a time: one of them is to want more than the machine has, and another one is to lose nothing.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one camera did in a time.
#[derive(Clone, Copy, Debug)]
struct Share {
    published: u64,
    cpu_ms: u64,
}

impl Host {
    /// `paths` different streams of one simulated camera, shared out among eight daemons.
    fn start(paths: usize, options: &[&str]) -> Self {
        let turn = alone();
        let mounts: Vec<String> = (0..paths).map(|path| format!("/stream{path}")).collect();
        let mounts = mounts.iter().flat_map(|mount| ["--mount", mount.as_str()]);
        let options: Vec<&str> = mounts.chain(options.iter().copied()).collect();
        let sim = Sim::spawn(&options);
        let (shm, began) = (Shm::new(), Instant::now());
        let url = |camera: usize| format!("rtsp://127.0.0.1:{}/stream{}", sim.port(), camera % paths);
        let daemons = (0..CAMERAS).map(|camera| Daemon::spawn(&shm, &name(camera), &url(camera))).collect();
        let readers: Vec<Reader> = (0..CAMERAS).map(|camera| Reader::attach(&shm, &name(camera), Way::Next)).collect();
        until("every camera has a frame", || readers.iter().all(|reader| reader.newest().is_some()));
        let up = began.elapsed();
        Self { shm, _sim: sim, daemons, readers, up, _turn: turn }
    }

    fn published(&self, camera: usize) -> u64 {
        self.readers[camera].ring.status().counter(Counter::Published)
    }

    /// What each camera does in `time`.
    fn shares(&self, time: Duration) -> Vec<Share> {
        let now = |camera: usize| (self.published(camera), self.daemons[camera].process.cpu_ms());
        let before: Vec<_> = (0..CAMERAS).map(now).collect();
        let_pass(time);
        let share = |(camera, (published, cpu_ms)): (usize, &(u64, u64))| {
            let after = now(camera);
            Share { published: after.0 - published, cpu_ms: after.1 - cpu_ms }
        };
        before.iter().enumerate().map(share).collect()
    }

    fn is_live(&self, camera: usize) -> bool {
        self.readers[camera].ring.status().state == State::Live
    }
}

fn name(camera: usize) -> String {
    format!("cam{camera}")
}

/// The least and the most of something.
fn range<T: Ord + Copy>(values: impl Iterator<Item = T>) -> (T, T) {
    let values: Vec<T> = values.collect();
    (*values.iter().min().unwrap(), *values.iter().max().unwrap())
}

/// What came after the start: from the first keyframe on whose packets arrived when every camera was live. Eight processes
/// that begin at once may want more than the machine has; what that cost is made up for by then.
fn after_start(seen: &[Seen], live_ns: i64) -> &[Seen] {
    let is_settled = |seen: &Seen| {
        seen.frame.meta.arrival_mono_ns >= live_ns && seen.frame.meta.flags.contains(FrameFlags::KEYFRAME)
    };
    seen.iter().position(is_settled).map_or(&[], |first| &seen[first + 1..])
}

#[test]
fn eight_cameras_on_one_host_are_all_live_and_none_loses_a_frame() {
    let host = Host::start(CAMERAS, &["--size", "1280x720", "--fps", "5"]);
    until("every camera is live", || (0..CAMERAS).all(|camera| host.is_live(camera)));
    let live_ns = camring_ring::clock::mono_ns();
    let seconds = amount(5, 240);
    let shares = host.shares(Duration::from_secs(seconds));
    let memory = range(host.daemons.iter().map(|daemon| daemon.process.rss_anon() / 1024));
    let ring = host.readers[0].ring.layout().file_bytes >> 20;
    let (least, most) = range(shares.iter().map(|share| share.published));
    let cpu: u64 = shares.iter().map(|share| share.cpu_ms).sum();
    measured(format!(
        "8 x 720p5 for {seconds} s: all up after {:.1} s; {least} to {most} frames each; {:.1} ms of processor time per frame; private memory {} to {} KiB, ring {ring} MiB each",
        host.up.as_secs_f64(),
        cpu as f64 / shares.iter().map(|share| share.published).sum::<u64>() as f64,
        memory.0,
        memory.1
    ));
    // Three times what it is: a picture too many, held somewhere, does not show, a queue of them does.
    assert!(memory.1 < 64 << 10, "{} KiB of private memory in one daemon", memory.1);
    for (camera, reader) in host.readers.into_iter().enumerate() {
        let seen = reader.finish();
        assert!(seen.len() as u64 >= seconds, "camera {camera}: {} frames in {seconds} s", seen.len());
        for pair in seen.windows(2) {
            let painted = pair[1].stamp.number - pair[0].stamp.number;
            let numbers = pair[1].frame.meta.seq.0 - pair[0].frame.meta.seq.0;
            // More only where the simulated camera itself skipped a picture.
            assert!(u64::from(painted) >= numbers, "camera {camera} shows a picture twice: {pair:?}");
        }
        let after = after_start(&seen, live_ns);
        assert!(after.len() as u64 >= seconds, "camera {camera}: {} frames in {seconds} s", after.len());
        let dropped = after.iter().map(|seen| seen.frame.meta.gap).sum::<u32>();
        assert_eq!(dropped, 0, "camera {camera}: the daemon left pictures out");
    }
    drop(host.shm);
}

#[test]
fn cameras_that_want_more_than_the_machine_has_share_it_and_stay_fresh() {
    // Eight decoders of 1080p60 want three times what two processors have.
    let host = Host::start(1, &["--size", "1920x1080", "--fps", "60"]);
    let seconds = amount(6, 120);
    let before: Vec<u64> = (0..CAMERAS).map(|camera| host.published(camera)).collect();
    let shares = host.shares(Duration::from_secs(seconds));
    // Beside other work a machine may need longer than that for a group of pictures of each.
    until("each camera gets something beside the others", || {
        (0..CAMERAS).all(|camera| host.published(camera) > before[camera])
    });
    let (least, most) = range(shares.iter().map(|share| share.published));
    let mut lags: Vec<u64> = Vec::new();
    for reader in host.readers {
        lags.extend(reader.finish().iter().map(|seen| seen.frame.meta.lag_ns / 1_000_000));
    }
    lags.sort_unstable();
    measured(format!(
        "8 x 1080p60 for {seconds} s: {least} to {most} frames each; lag {} ms (median), {} ms at worst",
        lags[lags.len() / 2],
        lags[lags.len() - 1]
    ));
    // Whoever falls behind waits for its next keyframe: within some seconds that is luck, over many of them it evens out.
    assert!(!is_full() || most <= 2 * least, "two minutes were not shared: {shares:?}");
    drop(host.shm);
}
