//! A stage for the supervisor: scripted sessions, a recording board, a clock whose sleeper can be awaited.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use camring::camera::{Board, Camera, Counts, Once, Outcome, Parts, Past, Policy, Reload, Renewal};
use camring::clock::{Clock, Mono, TestClock};
use camring::health::Health;
use camring::shutdown::Stop;
use camring::source::{
    Fallback, FrameRef, FrameSink, FrameSource, FrameTiming, Loan, PlaneMut, Progress, Rect, RetryClass, RetryReason,
    Session, SourceEvent, SourceLayout,
};
use camring_ring::frame::{Color, FrameFlags, PixelFormat, Reason, State};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

/// Longest that a test waits for something that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn reason(reason: Reason, class: RetryClass) -> RetryReason {
    RetryReason { reason, class, message: format!("scripted {reason}") }
}

/// A value that tests wait for.
#[derive(Default)]
pub struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.value.lock().unwrap());
        self.changed.notify_all();
        result
    }

    pub fn until(&self, what: &str, mut holds: impl FnMut(&T) -> bool) {
        let value = self.value.lock().unwrap();
        let (_value, timeout) = self.changed.wait_timeout_while(value, PATIENCE, |value| !holds(value)).unwrap();
        assert!(!timeout.timed_out(), "in vain waited for: {what}");
    }
}

/// A clock that knows until when its sleeper sleeps.
pub struct StageClock {
    pub hands: Arc<TestClock>,
    sleeping_until: Watched<Mono>,
}

impl Clock for StageClock {
    fn now(&self) -> Mono {
        self.hands.now()
    }

    fn alarm(&self, moment: Mono) -> Receiver<Instant> {
        let alarm = self.hands.alarm(moment);
        self.sleeping_until.change(|until| *until = moment);
        alarm
    }
}

impl StageClock {
    /// Waits until the supervisor has done all that is to be done by now and sleeps.
    fn settled(&self) {
        self.sleeping_until.until("the supervisor to sleep", |until| *until > self.hands.now());
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    pub state: State,
    pub reason: Reason,
    pub attempt: u8,
    pub retry_in: Option<Duration>,
}

#[derive(Default)]
pub struct Seen {
    pub shown: Vec<Shown>,
    pub text: Vec<(String, String)>,
    pub reconnects: HashMap<Reason, u32>,
    pub sessions: Vec<u32>,
    pub counts: Counts,
}

impl Seen {
    pub fn now(&self) -> Shown {
        *self.shown.last().expect("the board shows something from the start")
    }
}

struct StageBoard {
    seen: Arc<Watched<Seen>>,
    published: Arc<AtomicU64>,
    refusal: Arc<Mutex<Option<Reason>>>,
    attended: Arc<AtomicBool>,
    clock: Arc<StageClock>,
}

impl Board for StageBoard {
    fn set_state(&mut self, state: State, reason: Reason, attempt: u8, next_retry: Option<i64>) {
        let retry_in = next_retry.map(|ns| Mono(ns).since(self.clock.now()));
        self.seen.change(|seen| seen.shown.push(Shown { state, reason, attempt, retry_in }));
    }
    fn set_text(&mut self, codec: &str, decoder: &str) {
        self.seen.change(|seen| seen.text.push((codec.into(), decoder.into())));
    }
    fn reconnected(&mut self, reason: Reason) {
        self.seen.change(|seen| *seen.reconnects.entry(reason).or_default() += 1);
    }
    fn session(&mut self, id: u32) {
        self.seen.change(|seen| seen.sessions.push(id));
    }
    fn counted(&mut self, counts: &Counts) {
        self.seen.change(|seen| {
            let sum = &mut seen.counts;
            sum.packets += counts.packets;
            sum.packets_lost += counts.packets_lost;
            sum.decoded += counts.decoded;
            sum.dropped_gate += counts.dropped_gate;
            sum.dropped_leaky += counts.dropped_leaky;
            sum.decode_errors += counts.decode_errors;
        });
    }
    fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }
    fn attended(&self) -> bool {
        self.attended.load(Ordering::Relaxed)
    }
    fn refusal(&self) -> Option<Reason> {
        *self.refusal.lock().expect("no test panics while it holds the lock")
    }
}

/// A published picture: its session, and when it arrived.
pub type Picture = (u32, Mono);

struct StageSink {
    published: Arc<AtomicU64>,
    pictures: Arc<Mutex<Vec<Picture>>>,
    session: u32,
    settled: Arc<AtomicU64>,
}

impl FrameSink for StageSink {
    fn frame(&mut self, frame: &FrameRef<'_>) {
        self.pictures.lock().unwrap().push((self.session, Mono(frame.timing.arrival_mono_ns)));
        self.published.fetch_add(1, Ordering::Relaxed);
    }
    fn session(&mut self, number: u32) {
        self.session = number;
    }
    fn settle(&mut self) {
        self.settled.fetch_add(1, Ordering::Relaxed);
    }
}

struct NoFallback;

impl Fallback for NoFallback {
    fn convert_into(&self, format: PixelFormat, _: Rect, _: (u32, u32), _: &mut [PlaneMut<'_>]) -> Result<(), String> {
        Err(format!("no {format} on this stage"))
    }
}

/// How the source behaves in the next session; the usual one when none is given.
pub enum Script {
    /// Begins and ends at once.
    Usual,
    /// `start` fails.
    Fail(RetryReason),
    /// `start` does not return before the other end is dropped.
    HangInStart(Receiver<()>),
    /// `stop` does not return before the other end is dropped.
    HangInStop(Receiver<()>),
    /// `start` panics.
    Panic,
    /// A streaming thread keeps the sink when the session has ended.
    KeepSink,
    /// `stop` sends so many events before it returns.
    ChatterInStop(usize),
}

pub struct Actor {
    pub events: Sender<SourceEvent>,
    pub progress: Arc<Progress>,
    sink: HeldSink,
    clock: Arc<StageClock>,
}

impl Actor {
    pub fn say(&self, event: SourceEvent) {
        self.events.send(event).unwrap();
    }

    pub fn packet(&self) {
        self.progress.packets.fetch_add(1, Ordering::Relaxed);
        self.progress.last_packet_mono_ns.store(self.clock.now().0, Ordering::Relaxed);
    }

    pub fn decode(&self) {
        self.progress.decoded.fetch_add(1, Ordering::Relaxed);
        self.progress.last_decoded_mono_ns.store(self.clock.now().0, Ordering::Relaxed);
    }

    /// A packet that becomes a published frame; of a session that was stopped meanwhile nothing becomes any.
    pub fn frame(&self) {
        self.packet();
        self.decode();
        let now = self.clock.now();
        let mut sink = self.sink.lock().unwrap();
        let Some(sink) = sink.as_mut() else { return };
        sink.frame(&FrameRef {
            width: 2,
            height: 2,
            layout: SourceLayout::Other,
            planes: &[],
            color: Color::default(),
            pixel_aspect: (1, 1),
            timing: FrameTiming { pts_ns: now.0, arrival_mono_ns: now.0, ..FrameTiming::default() },
            flags: FrameFlags::default(),
            lost_before: 0,
            fallback: &NoFallback,
        });
    }

    /// The streaming thread lets go of the sink.
    pub fn drop_sink(&self) {
        drop(self.sink.lock().unwrap().take());
    }

    pub fn end(&self, reason: Reason, class: RetryClass) {
        self.say(SourceEvent::Ended(self::reason(reason, class)));
    }
}

/// Counts the threads that ran a session and have not ended.
struct ThreadCount(Arc<AtomicUsize>);

impl Drop for ThreadCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

thread_local! {
    static THREAD: std::cell::RefCell<Option<ThreadCount>> = const { std::cell::RefCell::new(None) };
}

/// The sink as a streaming thread holds it.
type HeldSink = Arc<Mutex<Option<Loan<Box<dyn FrameSink>>>>>;

#[derive(Clone)]
struct StageSource {
    /// Whether there may be two sessions at a time.
    twins: bool,
    scripts: Receiver<Script>,
    actors: Sender<Actor>,
    clock: Arc<StageClock>,
    threads: Arc<AtomicUsize>,
}

impl FrameSource for StageSource {
    fn start(
        &mut self,
        sink: Loan<Box<dyn FrameSink>>,
        events: Sender<SourceEvent>,
        progress: Arc<Progress>,
    ) -> Result<Box<dyn Session>, RetryReason> {
        self.threads.fetch_add(1, Ordering::SeqCst);
        THREAD.with(|thread| *thread.borrow_mut() = Some(ThreadCount(self.threads.clone())));
        let script = self.scripts.try_recv().unwrap_or(Script::Usual);
        let held = Arc::new(Mutex::new(Some(sink)));
        let actor = Actor { events: events.clone(), progress, sink: held.clone(), clock: self.clock.clone() };
        self.actors.send(actor).unwrap();
        match script {
            Script::Fail(why) => {
                drop(held.lock().unwrap().take());
                return Err(why);
            }
            Script::Panic => {
                drop(held.lock().unwrap().take());
                panic!("scripted panic");
            }
            Script::HangInStart(ref released) => drop(released.recv()),
            _ => {}
        }
        Ok(Box::new(StageSession { script, sink: held, events }))
    }

    fn twin(&self) -> Option<Box<dyn FrameSource>> {
        self.twins.then(|| Box::new(self.clone()) as Box<dyn FrameSource>)
    }
}

struct StageSession {
    script: Script,
    sink: HeldSink,
    events: Sender<SourceEvent>,
}

impl Session for StageSession {
    fn stop(self: Box<Self>) {
        match &self.script {
            Script::HangInStop(released) => drop(released.recv()),
            Script::ChatterInStop(count) => {
                (0..*count).for_each(|n| self.events.send(SourceEvent::Notice(format!("word {n}"))).unwrap());
            }
            Script::KeepSink => return,
            _ => {}
        }
        drop(self.sink.lock().unwrap().take());
    }
}

/// What all supervisors of this process have logged, as JSON lines.
///
/// One log from before the first line on: a log per thread would race with the other tests' first lines for whether
/// a line is of interest to anybody.
static LOG: LazyLock<Book> = LazyLock::new(|| {
    let book = Book::default();
    let writer = book.clone();
    let json = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone());
    json.try_init().expect("no other log is set up in this process");
    book
});

#[derive(Clone, Default)]
struct Book(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Book {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The lines that were logged for one camera.
pub fn logged(camera: &str) -> Vec<serde_json::Value> {
    let text = String::from_utf8(LOG.0.lock().unwrap().clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["camera"] == camera).collect()
}

pub struct Setup {
    pub policy: Policy,
    pub past: Past,
    pub session_id: u32,
    pub health: Health,
    pub random: f64,
    pub name: &'static str,
    pub twins: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            past: Past::Empty,
            session_id: 0,
            health: Health::silent(),
            random: 0.0,
            name: "yard",
            twins: false,
        }
    }
}

fn played(mut camera: Camera, run: impl FnOnce(&mut Camera) -> Outcome) -> Result<Outcome, String> {
    let result = catch_unwind(AssertUnwindSafe(|| run(&mut camera)));
    result.map_err(|_| "the supervisor panicked".to_owned())
}

/// A supervisor at work.
pub struct Stage {
    pub clock: Arc<StageClock>,
    pub seen: Arc<Watched<Seen>>,
    pub published: Arc<AtomicU64>,
    pub pictures: Arc<Mutex<Vec<Picture>>>,
    /// How often the sink was asked to make changes.
    pub settled: Arc<AtomicU64>,
    /// Why the ring takes no frames.
    pub refusal: Arc<Mutex<Option<Reason>>>,
    /// Whether a reader is attached.
    pub attended: Arc<AtomicBool>,
    pub stop: Option<Sender<Stop>>,
    pub reload: Sender<Reload>,
    pub threads: Arc<AtomicUsize>,
    twins: bool,
    scripts: Sender<Script>,
    actors: Receiver<Actor>,
    actor_sender: Sender<Actor>,
    outcome: Receiver<Result<Outcome, String>>,
    thread: Option<JoinHandle<()>>,
}

impl Stage {
    pub fn new() -> Self {
        Self::with(Setup::default(), [])
    }

    pub fn scripted(scripts: impl IntoIterator<Item = Script>) -> Self {
        Self::with(Setup::default(), scripts)
    }

    pub fn with(setup: Setup, scripts: impl IntoIterator<Item = Script>) -> Self {
        Self::play(setup, scripts, |camera, stop| camera.run(stop))
    }

    /// One session only; its outcome is `Stopped` when it failed and was freed.
    pub fn once(scripts: impl IntoIterator<Item = Script>) -> Self {
        Self::play(Setup::default(), scripts, |camera, stop| match camera.run_once(stop) {
            Once::Failed(_) => Outcome::Stopped,
            Once::Over(outcome) => outcome,
        })
    }

    /// Sets the stage; long because each prop is made and handed out here.
    fn play(
        setup: Setup,
        scripts: impl IntoIterator<Item = Script>,
        run: impl FnOnce(&mut Camera, &Receiver<Stop>) -> Outcome + Send + 'static,
    ) -> Self {
        LazyLock::force(&LOG);
        let clock = Arc::new(StageClock { hands: TestClock::new(), sleeping_until: Watched::default() });
        let (script_sender, script_receiver) = unbounded();
        scripts.into_iter().for_each(|script| script_sender.send(script).unwrap());
        let (actor_sender, actors) = unbounded();
        let (stop, stopped) = bounded(2);
        let (reload, reloads) = bounded(1);
        let (outcome_sender, outcome) = bounded(1);
        let seen = Arc::new(Watched::<Seen>::default());
        let (published, threads) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let (pictures, settled) = (Arc::<Mutex<Vec<Picture>>>::default(), Arc::new(AtomicU64::new(0)));
        let (refusal, attended) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(true)));
        let parts = Parts {
            name: setup.name.into(),
            source: Box::new(StageSource {
                twins: setup.twins,
                scripts: script_receiver,
                actors: actor_sender.clone(),
                clock: clock.clone(),
                threads: threads.clone(),
            }),
            sink: Box::new(StageSink {
                published: published.clone(),
                pictures: pictures.clone(),
                session: 0,
                settled: settled.clone(),
            }),
            board: Box::new(StageBoard {
                seen: seen.clone(),
                published: published.clone(),
                refusal: refusal.clone(),
                attended: attended.clone(),
                clock: clock.clone(),
            }),
            clock: clock.clone(),
            policy: setup.policy,
            health: setup.health,
            past: setup.past,
            session_id: setup.session_id,
        };
        let random = setup.random;
        let thread = thread::spawn(move || {
            let camera = Camera::new(parts).with_random(move || random).with_reloads(reloads);
            // A test that does not ask for the outcome is over already.
            drop(outcome_sender.try_send(played(camera, |camera| run(camera, &stopped))));
        });
        Self {
            clock,
            seen,
            published,
            pictures,
            settled,
            refusal,
            attended,
            stop: Some(stop),
            reload,
            threads,
            twins: setup.twins,
            scripts: script_sender,
            actors,
            actor_sender,
            outcome,
            thread: Some(thread),
        }
    }

    /// A reload with this policy, and with another source that plays `scripts` if there are any.
    pub fn renew(&self, policy: Policy, scripts: Option<Vec<Script>>) {
        let twins = self.twins;
        let source = scripts.map(|scripts| {
            let (sender, scripts_to_play) = unbounded();
            scripts.into_iter().for_each(|script| sender.send(script).unwrap());
            let (actors, clock, threads) = (self.actor_sender.clone(), self.clock.clone(), self.threads.clone());
            Box::new(StageSource { twins, scripts: scripts_to_play, actors, clock, threads }) as Box<dyn FrameSource>
        });
        self.reload.send(Reload::Renewed(Box::new(Renewal { policy, ready_timeout: secs(20), source }))).unwrap();
    }

    pub fn script(&self, script: Script) {
        self.scripts.send(script).unwrap();
    }

    /// The next session, once it has begun.
    pub fn actor(&self) -> Actor {
        self.actors.recv_timeout(PATIENCE).expect("the supervisor begins another session")
    }

    /// Whether no further session has begun.
    pub fn is_idle(&self) -> bool {
        self.actors.is_empty()
    }

    /// Moves the time on and waits until the supervisor has judged it.
    pub fn pass(&self, time: Duration) {
        self.clock.hands.advance(time);
        self.clock.settled();
    }

    /// Moves the time on without waiting.
    pub fn advance(&self, time: Duration) {
        self.clock.hands.advance(time);
    }

    pub fn now(&self) -> Shown {
        self.seen.change(|seen| seen.now())
    }

    pub fn history(&self) -> Vec<State> {
        self.seen.change(|seen| {
            let mut states: Vec<_> = seen.shown.iter().map(|shown| shown.state).collect();
            states.dedup();
            states
        })
    }

    pub fn until(&self, state: State, reason: Reason) {
        let what = format!("{state} because of {reason}");
        self.seen
            .until(&what, |seen| seen.shown.last().is_some_and(|shown| (shown.state, shown.reason) == (state, reason)));
    }

    /// The present back-off, once the supervisor is in one because of `reason`.
    pub fn backoff(&self, reason: Reason) -> Duration {
        self.seen.until(&format!("a back-off because of {reason}"), |seen| {
            seen.shown.last().is_some_and(|shown| shown.reason == reason && shown.retry_in.is_some())
        });
        self.now().retry_in.expect("awaited just now")
    }

    /// A session with its first frame published and the state `live`.
    pub fn live(&self) -> Actor {
        let actor = self.actor();
        actor.say(SourceEvent::FirstPacket);
        actor.frame();
        self.advance(ms(20));
        self.until_live();
        actor
    }

    fn until_live(&self) {
        self.until(State::Live, Reason::None);
    }

    /// `count` frames `step` apart, judged one by one.
    pub fn stream(&self, actor: &Actor, count: u64, step: Duration) {
        for _ in 0..count {
            self.pass(step);
            actor.frame();
        }
    }

    pub fn stop(&self) {
        self.stop.as_ref().expect("the channel is open").send(Stop::Orderly).unwrap();
    }

    pub fn outcome(&mut self) -> Outcome {
        let outcome = self.outcome.recv_timeout(PATIENCE).expect("the supervisor returns");
        self.thread.take().expect("asked once").join().unwrap();
        outcome.unwrap()
    }

    pub fn is_running(&self) -> bool {
        self.outcome.is_empty()
    }
}
