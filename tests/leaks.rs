//! Sessions leave nothing behind, whatever ends them: threads, descriptors, memory, objects of GStreamer.
#![cfg(feature = "sim")]

mod system;

use std::cell::Cell;
use std::time::{Duration, Instant};

use camring_ring::{Counter, Reason, Ring, State};
use rustix::process::Signal;
use system::proxy::Proxy;
use system::reader::{Reader, Way};
use system::web::WebCamera;
use system::{
    Daemon, Process, Shm, Sim, amount, camring, free_port, is_full, let_pass, measured, pause, until, until_within,
};

/// Private memory may grow by as much between the tenth cycle and the last.
const GROWTH: u64 = 8 << 20;
/// What a cycle may cost, bytes; some 50 of them are the name of an SSRC, which GLib keeps for ever with its place in a table.
const BOUND: f64 = 1024.0;
/// Cycles after which caches, pools and lazily made threads are there.
const WARM: u64 = 10;
/// A session that is on its way holds more for a moment: what is held for good is the least of so many looks, over which a
/// thread of GLib that has nothing to do, half a second after its last work, is gone.
const LOOKS: u32 = 200;
/// How often the memory is looked at in the full form, and how long that takes in all, with the start and the end, seconds.
const SAMPLES: usize = 30;
const LOOKING_S: u64 = 100;
/// Time between two tries where a process is looked at between them: twice as long as all looks and that half second.
const REST: Duration = Duration::from_secs(4);

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    threads: usize,
    fds: usize,
    rss_anon: u64,
}

impl Held {
    /// The least that was seen in a second.
    fn by(process: &Process) -> Self {
        let mut least = Self { threads: usize::MAX, fds: usize::MAX, rss_anon: u64::MAX };
        for _ in 0..LOOKS {
            let (threads, fds) = process.threads_and_fds();
            least.threads = least.threads.min(threads);
            least.fds = least.fds.min(fds);
            least.rss_anon = least.rss_anon.min(process.rss_anon());
            pause();
        }
        least
    }

    /// Fails the test unless the process comes back to what it held before.
    fn comes_back_in(self, process: &Process, what: &str) {
        let mut now = Self::by(process);
        until(&format!("{what}: at most {} threads and {} descriptors", self.threads, self.fds), || {
            now = Self::by(process);
            now.threads <= self.threads && now.fds <= self.fds
        });
        let kib = |bytes: u64| bytes / 1024;
        measured(format!(
            "{what}: threads {} -> {}, descriptors {} -> {}, RssAnon {} -> {} KiB",
            self.threads,
            now.threads,
            self.fds,
            now.fds,
            kib(self.rss_anon),
            kib(now.rss_anon)
        ));
        let grown = now.rss_anon.saturating_sub(self.rss_anon);
        assert!(grown < GROWTH, "private memory grew by {} KiB", kib(grown));
    }
}

/// A daemon for `port` that does not wait long between tries.
fn daemon(shm: &Shm, port: u16) -> Daemon {
    daemon_for(shm, &format!("rtsp://127.0.0.1:{port}/stream"))
}

fn daemon_for(shm: &Shm, url: &str) -> Daemon {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let config = format!("[camera.cam]\nurl = \"{url}\"\nreconnect.max = \"100ms\"\n");
    std::fs::write(file.path(), config).unwrap();
    let daemon = Daemon::spawn_config(shm, "cam", file.path());
    // It reads the file before it makes the ring.
    shm.attach("cam");
    daemon
}

fn reconnects(ring: &Ring) -> u64 {
    ring.status().counter(Counter::Reconnects)
}

#[test]
fn a_thousandth_reconnect_costs_what_the_first_did() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&["--size", "640x360", "--fps", "25", "--gop", "120ms"]));
    let proxy = Proxy::to(sim.port());
    let daemon = daemon(&shm, proxy.port);
    let reader = Reader::attach(&shm, "cam", Way::Next);
    reader.first("a frame", |_| true);
    until("the state is live", || reader.ring.status().state == State::Live);
    let (cycles, began) = (amount(40, 1000), Instant::now());
    let mut tenth = None;
    for cycle in 1..=cycles {
        proxy.cut();
        until("the camera is live again", || {
            reconnects(&reader.ring) == cycle && reader.ring.status().state == State::Live
        });
        if cycle == WARM {
            tenth = Some(Held::by(&daemon.process));
        }
    }
    let what = format!("{cycles} reconnects in {} s", began.elapsed().as_secs());
    tenth.unwrap().comes_back_in(&daemon.process, &what);
    assert_eq!(reconnects(&reader.ring), cycles);
    let status = reader.ring.status();
    assert!(status.reconnects.iter().all(|(reason, _)| *reason == Reason::ServerClosed), "{:?}", status.reconnects);
    let newest = reader.newest().unwrap().frame.meta;
    assert_eq!(status.writer_epoch, 1);
    reader.first("frames keep coming", |seen| seen.frame.meta.seq > newest.seq);
    reader.finish();
}

#[test]
fn a_hundredth_refused_connection_costs_what_the_tenth_did() {
    let shm = Shm::new();
    let daemon = daemon(&shm, free_port());
    let ring = shm.attach("cam");
    let tried = |tries: u64| until("more tries", || u64::from(ring.status().attempt) >= tries);
    let tries = amount(40, 250);
    tried(WARM);
    let tenth = Held::by(&daemon.process);
    tried(tries);
    assert_eq!((ring.status().state, ring.status().reason), (State::Connecting, Reason::ConnectRefused));
    tenth.comes_back_in(&daemon.process, &format!("{tries} refused connections"));
}

#[test]
fn glib_has_no_heap_of_its_own_unless_somebody_wants_it_so() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&["--size", "320x240", "--fps", "25"]));
    let has_none_anyway = gst::glib::check_version(2, 76, 0).is_none();
    for (name, said) in [("by-default", None), ("wanted", Some("none-of-its-words"))] {
        let mut command = camring();
        command.args(["run", name, "--url", &sim.url, "--shm-dir"]).arg(shm.path()).env_remove("G_SLICE");
        command.envs(said.map(|said| ("G_SLICE", said)));
        let daemon = Daemon::spawn_command(command, None);
        shm.attach(name);
        let of_process = |file: &str| std::fs::read(format!("/proc/{}/{file}", daemon.process.pid())).unwrap();
        let environment = of_process("environ");
        let variable = environment.split(|byte| *byte == 0).find(|line| line.starts_with(b"G_SLICE="));
        let variable = variable.map(|line| String::from_utf8_lossy(line).into_owned());
        let expected = said.or((!has_none_anyway).then_some("always-malloc")).map(|value| format!("G_SLICE={value}"));
        assert_eq!(variable, expected);
        assert_eq!(of_process("comm"), b"camring\n");
        assert_eq!(of_process("cmdline").split(|byte| *byte == 0).nth(1), Some(&b"run"[..]));
    }
}

#[test]
fn no_thread_of_a_session_that_is_over_waits_for_the_next_one() {
    let cycle = Cycle::of(good("threads", "tcp"), "100ms", &[]);
    let threads = || cycle.daemon.process.threads();
    cycle.reaches(2, Instant::now() + Duration::from_secs(60));
    until("a session has threads", || threads().iter().any(|name| name.ends_with(":src")));
    cycle.leave();
    // GLib kept up to eight of them for 15 s, and each try has two or three of them begin their time anew.
    let ours = ["camring", "signals", "ring-house", "reload", "gmain", "dconf worker"];
    until_within(REST, "no thread but those of the process", || {
        threads().iter().all(|name| ours.contains(&name.as_str()))
    });
}

// --- every kind of failure ---

/// A way in which sessions end, or never begin, over and over.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    scheme: &'static str,
    transport: &'static str,
    /// Fault script of the camera.
    script: &'static str,
    /// Further options of the camera.
    options: &'static [&'static str],
    /// Who ends a session.
    end: End,
    /// What the ring says at the end of some cycle.
    reason: Reason,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum End {
    /// The camera, by its script.
    Camera,
    /// We, in good order: a reload has the camera read at another of its paths.
    Reload,
    /// The same, once pictures have come in the second of its sizes.
    ReloadAfterChange,
}

/// Where a camera that is reloaded is read in turn.
const PATHS: [&str; 2] = ["/even", "/odd"];
/// The size of every camera here, and the one that some change to.
const SIZES: [(u32, u32); 2] = [(320, 240), (480, 272)];

impl Kind {
    /// So many of the wanted cycles as there is time for: all of them where a session takes a second, and of the slow ones
    /// all of 500 with `CAMRING_SOAK_LIMIT_S=3000 scripts/soak leaks`.
    fn cycles(self, wanted: usize) -> usize {
        let cycle_ms = match (self.reason, self.name) {
            // It is left alone for 5 s by design.
            (Reason::ServerBusy, _) => 5600,
            (_, "session-timeout") => 1500,
            // Two request timeouts, of which the shortest is 500 ms.
            (_, "no-answer") => 1100,
            (_, "no-tls") => 200,
            _ => 850,
        };
        let fit = if is_full() { (limit_s() - LOOKING_S) * 1000 / cycle_ms } else { 25_000 / cycle_ms };
        wanted.min(fit as usize)
    }
}

/// How long a part of the soak may take, seconds.
fn limit_s() -> u64 {
    std::env::var("CAMRING_SOAK_LIMIT_S").ok().and_then(|text| text.parse().ok()).unwrap_or(540)
}

/// From the first client on.
const fn never(name: &'static str, script: &'static str, reason: Reason) -> Kind {
    Kind { name, scheme: "rtsp", transport: "tcp", script, options: &[], end: End::Camera, reason }
}

/// A camera without a fault.
const fn good(name: &'static str, transport: &'static str) -> Kind {
    const PATHS: &[&str] = &["--mount", "/even", "--mount", "/odd"];
    Kind { transport, options: PATHS, end: End::Reload, ..never(name, "", Reason::Planned) }
}

/// Every kind of end that the simulated camera can make.
const KINDS: [Kind; 23] = [
    good("ok-tcp", "tcp"),
    good("ok-udp", "udp"),
    Kind {
        options: &["--mount", "/even", "--mount", "/odd", "--switch-size", "480x272", "--switch-after", "200ms"],
        end: End::ReloadAfterChange,
        ..good("caps-change", "tcp")
    },
    never("453", "from = \"start\"\n[[fault]]\ndo = \"status\"\ncode = 453\n", Reason::ServerBusy),
    never("503", "from = \"start\"\n[[fault]]\ndo = \"status\"\ncode = 503\n", Reason::ServerBusy),
    never(
        "session-timeout",
        "from = \"start\"\n[[fault]]\ndo = \"session-timeout\"\ntimeout = \"1s\"\n",
        Reason::ServerClosed,
    ),
    never("refused", "from = \"start\"\n[[fault]]\ndo = \"refuse\"\n", Reason::ConnectRefused),
    never("401", "from = \"start\"\n[[fault]]\ndo = \"status\"\ncode = 401\n", Reason::Auth),
    never("403", "from = \"start\"\n[[fault]]\ndo = \"status\"\ncode = 403\n", Reason::Auth),
    never("404", "from = \"start\"\n[[fault]]\ndo = \"status\"\ncode = 404\n", Reason::NotFound),
    never(
        "454",
        "from = \"start\"\n[[fault]]\ndo = \"status\"\nmethod = \"SETUP\"\ncode = 454\n",
        Reason::ServerClosed,
    ),
    never("garbage", "from = \"start\"\n[[fault]]\ndo = \"garbage\"\n", Reason::NotRtsp),
    never("no-answer", "from = \"start\"\n[[fault]]\ndo = \"no-answer\"\n", Reason::ConnectTimeout),
    never("sdp-empty", "from = \"start\"\n[[fault]]\ndo = \"sdp\"\nkind = \"empty\"\n", Reason::NoVideo),
    never("sdp-malformed", "from = \"start\"\n[[fault]]\ndo = \"sdp\"\nkind = \"malformed\"\n", Reason::NoVideo),
    never("sdp-audio", "from = \"start\"\n[[fault]]\ndo = \"sdp\"\nkind = \"audio-only\"\n", Reason::NoVideo),
    never(
        "sdp-codec",
        "from = \"start\"\n[[fault]]\ndo = \"sdp\"\nkind = \"unknown-codec\"\n",
        Reason::UnsupportedCodec,
    ),
    Kind { scheme: "rtsps", ..never("no-tls", "", Reason::Tls) },
    never(
        "cut-rst",
        "[[fault]]\nat = \"400ms\"\nrepeat = \"700ms\"\ndo = \"cut\"\nmid_packet = true\n",
        Reason::ServerClosed,
    ),
    never(
        "cut-fin",
        "[[fault]]\nat = \"400ms\"\nrepeat = \"700ms\"\ndo = \"cut\"\nby = \"fin\"\n",
        Reason::ServerClosed,
    ),
    Kind {
        transport: "udp",
        ..never(
            "cut-udp",
            "transport = \"udp\"\n[[fault]]\nat = \"400ms\"\nrepeat = \"700ms\"\ndo = \"cut\"\n",
            Reason::ServerClosed,
        )
    },
    never(
        "stall",
        "[[fault]]\nat = \"400ms\"\nfor = \"500ms\"\nrepeat = \"900ms\"\ndo = \"stall\"\n",
        Reason::NoPackets,
    ),
    never(
        "half-open",
        "[[fault]]\nat = \"400ms\"\nfor = \"500ms\"\nrepeat = \"900ms\"\ndo = \"half-open\"\n",
        Reason::NoPackets,
    ),
];

/// A camera that fails in one way, and a daemon that hardly waits between its tries.
struct Cycle {
    kind: Kind,
    ring: Ring,
    daemon: Daemon,
    sim: Sim,
    pause: String,
    /// Sessions that we have ended, and the number of the newest of them in the ring.
    ended: Cell<(usize, u32)>,
    /// Sessions begun elsewhere, while the process was looked at.
    elsewhere: Cell<usize>,
    /// Script of the camera, configuration of the daemon.
    files: [tempfile::NamedTempFile; 2],
    _shm: Shm,
}

impl Cycle {
    fn of(kind: Kind, pause: &str, environment: &[(&str, &str)]) -> Self {
        let files = [0; 2].map(|_| tempfile::NamedTempFile::with_suffix(".toml").unwrap());
        std::fs::write(files[0].path(), kind.script).unwrap();
        let mut options = vec!["--size", "320x240", "--fps", "25", "--gop", "120ms"];
        if !kind.script.is_empty() {
            options.extend(["--script", files[0].path().to_str().unwrap()]);
        }
        options.extend(kind.options);
        let (shm, sim) = (Shm::new(), Sim::spawn(&options));
        std::fs::write(files[1].path(), config(kind, &sim, pause, 0)).unwrap();
        let mut command = camring();
        command.args(["run", "cam", "--config", files[1].path().to_str().unwrap(), "--shm-dir"]).arg(shm.path());
        command.env("CAMRING_LOG", "camring=debug").envs(environment.iter().copied());
        let daemon = Daemon::spawn_command(command, None);
        let ring = shm.attach("cam");
        let (pause, ended, elsewhere) = (pause.to_owned(), Cell::default(), Cell::default());
        Self { kind, ring, daemon, sim, pause, ended, elsewhere, files, _shm: shm }
    }

    /// Sessions so far; the ring's own count ends at 255.
    fn count(&self) -> usize {
        match self.kind.end {
            End::Camera => self.begun() - self.elsewhere.get(),
            _ => self.ended.get().0,
        }
    }

    fn begun(&self) -> usize {
        self.daemon.log().matches("session begun").count()
    }

    /// Waits until there have been so many sessions, until `deadline`.
    fn reaches(&self, cycles: usize, deadline: Instant) {
        loop {
            let count = self.count();
            if count >= cycles {
                return;
            }
            assert!(Instant::now() < deadline, "{}: {count} of {cycles} cycles in time", self.kind.name);
            match self.kind.end {
                End::Camera => let_pass(Duration::from_millis(50)),
                _ => self.reload(),
            }
        }
    }

    /// Waits until there is another session and it is live, and has it end in good order.
    fn reload(&self) {
        let (count, newest) = self.ended.get();
        let changed = || {
            let seen = self.ring.peek().map(|meta| meta.source_size);
            self.kind.end == End::Reload || seen.is_ok_and(|size| size == SIZES[1])
        };
        until(&format!("{}: session {count} is live", self.kind.name), || {
            let status = self.ring.status();
            status.session_id > newest && status.state == State::Live && changed()
        });
        self.ended.set((count + 1, self.ring.status().session_id));
        self.configure(&config(self.kind, &self.sim, &self.pause, count + 1));
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.files[1].path(), text).unwrap();
        self.daemon.process.signal(Signal::HUP);
    }

    /// What the process holds between two sessions. Within one it is a megabyte or two more or less, by how far the session
    /// has come, and each thread that waits for another to begin holds a quarter of a megabyte.
    fn held(&self) -> Held {
        let begun = self.begun();
        self.leave();
        let seen = Held::by(&self.daemon.process);
        self.elsewhere.set(self.elsewhere.get() + self.begun() - begun);
        self.configure(&config(self.kind, &self.sim, &self.pause, self.count()));
        seen
    }

    /// Sends the daemon where nobody listens, and where it tries again after a rest.
    fn leave(&self) {
        let text = config(self.kind, &self.sim, &format!("{}s", REST.as_secs()), 0);
        let nobody = [("rtsps://", "rtsp://"), (&format!(":{}/", self.sim.port()), &format!(":{}/", free_port()))];
        self.configure(&nobody.iter().fold(text, |text, (from, to)| text.replace(from, to)));
        until(&format!("{}: nobody is found", self.kind.name), || {
            self.ring.status().reason == Reason::ConnectRefused && self.rests_for(REST / 2)
        });
    }

    /// Whether there is no session, and none will begin for so long.
    fn rests_for(&self, time: Duration) -> bool {
        let end_ns = camring_ring::clock::mono_ns().unsigned_abs() + time.as_nanos() as u64;
        self.ring.status().next_retry_mono_ns > end_ns
    }

    /// Fails the test unless what happens is what was to happen.
    fn assert_named(&self) {
        let name = self.kind.name;
        if self.kind.end != End::Camera {
            let reasons = self.ring.status().reconnects;
            let named = reasons.iter().all(|(reason, _)| [Reason::Planned, Reason::ConnectRefused].contains(reason));
            return assert!(named, "{name}: {reasons:?}");
        }
        until(&format!("{name} is called {}", self.kind.reason), || self.ring.status().reason == self.kind.reason);
    }
}

/// The configuration of the daemon for its session after `count` others.
fn config(kind: Kind, sim: &Sim, pause: &str, count: usize) -> String {
    let path = if kind.end == End::Camera { "/stream" } else { PATHS[count % PATHS.len()] };
    format!(
        "[camera.cam]\nurl = \"{}://127.0.0.1:{}{path}\"\ntransport = \"{}\"\nstall_after = \"500ms\"\n\
         [camera.cam.reconnect]\nfirst = \"{pause}\"\nmax = \"{pause}\"\npermanent_retry = \"{pause}..{pause}\"\n\
         auth_retry = \"{pause}..{pause}\"\nrequest_timeout = \"500ms\"\n",
        kind.scheme,
        sim.port(),
        kind.transport,
    )
}

/// Bytes per cycle: the median of the slopes between every two samples (Theil and Sen), which a few that lie apart do not
/// change.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let from = |(index, first): (usize, &(f64, f64))| {
        let first = *first;
        samples[index + 1..].iter().map(move |last| (last.1 - first.1) / (last.0 - first.0))
    };
    let mut slopes: Vec<f64> = samples.iter().enumerate().flat_map(from).collect();
    slopes.sort_by(f64::total_cmp);
    slopes[slopes.len() / 2]
}

#[test]
fn one_sample_that_lies_apart_does_not_change_a_slope() {
    let line = |count: i32| (f64::from(count), f64::from(100 + 3 * count));
    let mut samples: Vec<_> = (0..40).map(line).collect();
    assert!((slope(&samples) - 3.0).abs() < 1e-9);
    samples[39].1 += 5_000_000.0;
    samples[3].1 -= 5_000_000.0;
    assert!((slope(&samples) - 3.0).abs() < 1e-9);
}

/// Has one kind of failure happen so often, and holds the process to what it held after the first fifth.
fn costs_nothing(kind: Kind, cycles: usize) {
    let (cycle, began) = (Cycle::of(kind, "100ms", &[]), Instant::now());
    let deadline = began + Duration::from_secs(if is_full() { limit_s() - 20 } else { 120 });
    let (warm, samples) = ((cycles / 5).max(1), if is_full() { SAMPLES } else { 2 });
    cycle.reaches(warm, deadline);
    cycle.assert_named();
    let first = cycle.held();
    let samples: Vec<(f64, f64)> = (1..=samples)
        .map(|sample| {
            cycle.reaches(warm + (cycles - warm) * sample / samples, deadline);
            (cycle.count() as f64, cycle.held().rss_anon as f64)
        })
        .collect();
    let slope = slope(&samples);
    let (count, seconds) = (cycle.count(), began.elapsed().as_secs());
    let kib = samples.iter().step_by(samples.len().div_ceil(4)).map(|(_, bytes)| format!("{:.0}", bytes / 1024.0));
    let kib = kib.collect::<Vec<_>>().join(" ");
    let what = format!(
        "{}: {count} cycles in {seconds} s, {slope:.0} bytes of private memory per cycle ({kib} KiB)",
        kind.name
    );
    cycle.leave();
    first.comes_back_in(&cycle.daemon.process, &what);
    assert!(!is_full() || slope < BOUND, "{what}");
}

#[test]
fn no_kind_of_failure_costs_anything_however_often_it_happens() {
    // Under `scripts/soak` each part is one kind; the suite has a little of all of them at the same time.
    let part = std::env::var("CAMRING_SOAK_PART").ok().and_then(|part| part.parse::<usize>().ok());
    if let Some(part) = part.filter(|_| is_full()) {
        let kind = KINDS[part - 1];
        // What TLS leaves in the heap lies so mixed that two looks are up to 0.4 MB apart, with 0.1 kB more in use each time:
        // over 500 cycles that alone was 0.3 to 1.4 kB for each.
        return costs_nothing(kind, kind.cycles(if kind.name == "no-tls" { 2000 } else { 500 }));
    }
    each(|kind| costs_nothing(kind, kind.cycles(10)));
}

/// Runs `test` for each kind, a few of them at a time.
fn each(test: impl Fn(Kind) + Sync) {
    for kinds in KINDS.chunks(8) {
        std::thread::scope(|scope| kinds.iter().for_each(|kind| drop(scope.spawn(|| test(*kind)))));
    }
}

/// How many objects GStreamer's leaks tracer lists, asked now; entries of its registry are the process's, not a
/// session's, and are left out.
fn alive(cycle: &mut Cycle) -> usize {
    const END: &str = " alive objects";
    let lists = |log: &str| log.matches(END).count();
    let before = lists(&cycle.daemon.log());
    cycle.daemon.process.signal(Signal::USR1);
    let (mut log, name) = (String::new(), cycle.kind.name);
    until(&format!("{name}: the tracer answers"), || {
        let ended = cycle.daemon.process.0.try_wait().unwrap();
        assert!(ended.is_none(), "{name}: the daemon has ended with {ended:?}");
        log = cycle.daemon.log();
        lists(&log) > before
    });
    let newest = log.rsplit_once("start listing").map_or("", |(_, newest)| newest);
    let types = newest.lines().filter_map(|line| line.split_once("object-alive, type-name=(string)"));
    types.filter(|(_, rest)| !rest.split(',').next().unwrap_or("").ends_with("Factory")).count()
}

#[test]
fn no_object_of_gstreamer_outlives_its_session_whatever_ends_it() {
    let tracer = [
        ("GST_TRACERS", "leaks"),
        ("GST_LEAKS_TRACER_SIG", "1"),
        ("GST_DEBUG", "leaks:7,GST_TRACER:7"),
        ("GST_DEBUG_NO_COLOR", "1"),
    ];
    let cycles = amount(5, 50) as usize;
    // A busy camera is left alone for 5 s each time.
    let patience = Duration::from_secs(if is_full() { limit_s() } else { 240 });
    each(|kind| {
        let mut cycle = Cycle::of(kind, "400ms", &tracer);
        cycle.reaches(kind.cycles(cycles).min(cycles), Instant::now() + patience);
        cycle.assert_named();
        if kind.end != End::Camera {
            cycle.leave();
        }
        // Between two sessions only: the tracer describes objects that other threads are freeing, and crashed of it once.
        let mut seen = Vec::new();
        until_within(Duration::from_secs(120), &format!("{}: no object is alive", kind.name), || {
            if cycle.rests_for(Duration::from_millis(100)) {
                seen.push(alive(&mut cycle));
            }
            seen.last() == Some(&0)
        });
        measured(format!("{}: {seen:?} objects after {} sessions", kind.name, cycle.count()));
    });
}

#[test]
fn a_web_camera_that_cuts_over_and_over_costs_what_it_did_at_first() {
    let (shm, camera) = (Shm::new(), WebCamera::start());
    let daemon = daemon_for(&shm, &camera.url("mjpeg"));
    let reader = Reader::attach(&shm, "cam", Way::Next);
    let live = |cycle: u64| {
        until("the camera is live again", || {
            reconnects(&reader.ring) == cycle && reader.ring.status().state == State::Live
        });
    };
    reader.first("a frame", |_| true);
    live(0);
    let cycles = amount(30, 500);
    let mut tenth = None;
    for cycle in 1..=cycles {
        camera.cut();
        live(cycle);
        if cycle == WARM {
            tenth = Some(Held::by(&daemon.process));
        }
    }
    tenth.unwrap().comes_back_in(&daemon.process, &format!("{cycles} cuts of a web camera"));
    reader.finish();
}
