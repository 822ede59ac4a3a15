//! One child: the process of one camera, started again when it dies, until it is told to end.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child as Process, ChildStderr, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::lines::Lines;
use crate::exit::Exit;

/// As in the unit: a person must act first.
const FINAL: [Exit; 3] = [Exit::Permission, Exit::Config, Exit::AlreadyServed];
/// Pause before the first start after a death; later ones double.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A process that has lived so long begins anew with [`PAUSE_FIRST`].
const SETTLED: Duration = Duration::from_secs(10);
/// How long a child may take to end after SIGTERM; a daemon takes 2 s at most.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How long the last lines of a child may take after its end.
const LAST_LINES: Duration = Duration::from_secs(1);
/// A longer line is written in parts.
const LINE_MAX: usize = 16 << 10;
/// What would make a child speak to this process's service manager, or take its journal for its own.
const OF_THE_MANAGER: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"];

/// Tells `camring run` the number of the process that has started it, with which it is to end. In the environment and not
/// on the command line, where people would take it for theirs.
pub const PARENT_VARIABLE: &str = "CAMRING_PARENT";

/// How far the end has been asked for.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Ask {
    /// Not at all.
    #[default]
    Run,
    /// In order, within [`STOP_WITHIN`].
    Stop,
    /// At once.
    Now,
}

/// What a child is asked for; only the newest counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Whether to end.
    pub ask: Ask,
    /// Grows with each reload.
    pub reloads: u64,
}

/// What a child tells.
#[derive(Clone, Copy, Debug)]
pub enum News {
    /// It has ended with this code and is not started again before a reload.
    Final(i32),
    /// It is started again.
    Again,
    /// It is over and freed.
    Over,
}

/// How the process of a camera is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The camera.
    pub camera: String,
    /// Which of the children it is, for its colour.
    pub number: usize,
}

/// The process of one camera, over and over.
pub struct Child {
    /// How it is started.
    pub launch: Launch,
    /// Where its lines go.
    pub lines: Lines,
    /// What is asked of it.
    pub wishes: watch::Receiver<Wish>,
    /// Where it tells what becomes of it, with its identity.
    pub news: mpsc::Sender<(u64, News)>,
    /// Its identity.
    pub id: u64,
}

/// Why a process is no more.
enum End {
    Asked,
    Died(io::Result<ExitStatus>),
}

impl Child {
    /// Keeps the process alive until the end is asked for.
    pub async fn tend(mut self) {
        let mut pause = PAUSE_FIRST;
        while self.wish().ask == Ask::Run {
            let begun = Instant::now();
            let end = match self.start() {
                Ok((process, relay)) => {
                    let end = self.attend(process).await;
                    // Its descriptors are closed: what it has written is read in no time.
                    let _ = timeout(LAST_LINES, relay).await;
                    end
                }
                Err(error) => End::Died(Err(error)),
            };
            let End::Died(status) = end else { break };
            if begun.elapsed() >= SETTLED {
                pause = PAUSE_FIRST;
            }
            if let Some(code) = final_code(&status) {
                self.rest(code).await;
                pause = PAUSE_FIRST;
                continue;
            }
            self.tell_death(&status, pause);
            self.pass(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.tell(News::Over).await;
    }

    fn wish(&self) -> Wish {
        *self.wishes.borrow()
    }

    /// Waits for another wish than the one that is known; without anybody who could have one, the end is asked for.
    async fn changed(&mut self) -> Wish {
        match self.wishes.changed().await {
            Ok(()) => *self.wishes.borrow_and_update(),
            Err(_) => Wish { ask: Ask::Stop, ..self.wish() },
        }
    }

    async fn tell(&self, news: News) {
        // Nobody listens when everything is over.
        let _ = self.news.send((self.id, news)).await;
    }

    fn tell_death(&self, status: &io::Result<ExitStatus>, pause: Duration) {
        let (camera, pause) = (self.launch.camera.as_str(), humantime::format_duration(pause));
        match status {
            Ok(status) => tracing::warn!(camera, "its process has ended ({status}); starting another one in {pause}"),
            Err(error) => {
                tracing::error!(camera, "its process cannot be started or watched: {error}; next try in {pause}");
            }
        }
    }

    fn start(&self) -> io::Result<(Process, JoinHandle<()>)> {
        let mut command = Command::new(&self.launch.program);
        command.args(&self.launch.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for name in OF_THE_MANAGER {
            command.env_remove(name);
        }
        command.env(PARENT_VARIABLE, std::process::id().to_string());
        // A group of its own: the terminal's Ctrl-C is for this process, which passes it on once.
        let mut process = command.process_group(0).kill_on_drop(true).spawn()?;
        let stderr = process.stderr.take().ok_or_else(|| io::Error::other("it has no standard error"))?;
        let (lines, camera, number) = (self.lines.clone(), self.launch.camera.clone(), self.launch.number);
        Ok((process, tokio::spawn(async move { relay(stderr, &lines, &camera, number).await })))
    }

    /// Follows a process until its end.
    async fn attend(&mut self, mut process: Process) -> End {
        let mut reloads = self.wish().reloads;
        loop {
            tokio::select! {
                status = process.wait() => return End::Died(status),
                wish = self.changed() => {
                    if wish.ask != Ask::Run {
                        self.stop(process).await;
                        return End::Asked;
                    }
                    if wish.reloads != reloads {
                        reloads = wish.reloads;
                        send(&process, Signal::HUP);
                    }
                }
            }
        }
    }

    /// Ends a process in order, and by force when it takes too long or everything is to end at once.
    async fn stop(&mut self, mut process: Process) {
        send(&process, Signal::TERM);
        let limit = sleep(STOP_WITHIN);
        tokio::pin!(limit);
        while self.wish().ask != Ask::Now {
            tokio::select! {
                _ = process.wait() => return,
                () = &mut limit => {
                    let camera = self.launch.camera.as_str();
                    let limit = humantime::format_duration(STOP_WITHIN);
                    tracing::error!(camera, "its process has not ended within {limit}; it is killed");
                    break;
                }
                _ = self.changed(), if self.wishes.has_changed().is_ok() => {}
            }
        }
        if let Err(error) = process.kill().await {
            tracing::error!(camera = self.launch.camera.as_str(), %error, "its process cannot be killed");
        }
    }

    /// Says that a person must act, and waits until somebody has.
    async fn rest(&mut self, code: i32) {
        let camera = self.launch.camera.as_str();
        tracing::error!(camera, code, "its process has ended with {code}, which only a change cures; reload after it");
        self.tell(News::Final(code)).await;
        let reloads = self.wish().reloads;
        let mut wish = self.wish();
        while wish.ask == Ask::Run && wish.reloads == reloads {
            wish = self.changed().await;
        }
        if wish.ask == Ask::Run {
            self.tell(News::Again).await;
        }
    }

    /// Lets the pause before the next start pass; a reload or the end cuts it short.
    async fn pass(&mut self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            _ = self.changed() => {}
        }
    }
}

fn final_code(status: &io::Result<ExitStatus>) -> Option<i32> {
    let code = status.as_ref().ok()?.code()?;
    FINAL.iter().any(|exit| i32::from(*exit as u8) == code).then_some(code)
}

/// Sends a signal to a process that has not been waited for, so that its number is its own.
fn send(process: &Process, signal: Signal) {
    let pid = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
        tracing::error!(%error, "a child does not take {signal:?}");
    }
}

/// Hands on what a child writes, line by line, until it closes its end.
async fn relay(stderr: ChildStderr, lines: &Lines, camera: &str, number: usize) {
    let mut reader = BufReader::with_capacity(LINE_MAX, stderr);
    let mut line = Vec::new();
    loop {
        let (used, complete) = match reader.fill_buf().await {
            // The end, or a pipe that broke: both are the end of its lines.
            Err(_) | Ok([]) => break,
            Ok(bytes) => {
                let end = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
                let used = end.unwrap_or(bytes.len()).min(LINE_MAX - line.len());
                line.extend_from_slice(&bytes[..used]);
                (used, line.ends_with(b"\n") || line.len() >= LINE_MAX)
            }
        };
        reader.consume(used);
        if complete {
            lines.say(camera, number, &line);
            line.clear();
        }
    }
    if !line.is_empty() {
        lines.say(camera, number, &line);
    }
}
