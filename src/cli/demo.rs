//! `camring demo`: the whole path on the embedded camera, checked by what is painted in the pictures.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use camring_ring::{AttachOptions, Liveness, ReadError, Ring, RingName, ShmDir, Status};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::Value;

use crate::cli::Global;
use crate::cli::progress::Progress;
use crate::exit::{Exit, Failure};
use crate::sim::tally::{Report, Tally};
use crate::sim::{Codec, FrameRate, SimConfig, SimServer, Size, StreamConfig};

/// Longest wait for the first frame: starting GStreamer on a cold machine, the connect, a keyframe.
const FIRST_FRAME: Duration = Duration::from_secs(30);
/// Longest wait for the capture process to end in order.
const STOP: Duration = Duration::from_secs(5);
/// What a reader of its own may take longer than the time it was given.
const READER_SLACK: Duration = Duration::from_secs(60);

/// Shows the whole path on the embedded camera and checks every frame by what is painted in it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long to read after the first frame.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Print one JSON object on standard output and nothing else there.
    #[arg(long)]
    json: bool,
    /// Size of the pictures.
    #[arg(long, default_value = "1920x1080", value_name = "WxH")]
    size: Size,
    /// How the camera compresses them.
    #[arg(long, value_enum, default_value_t)]
    codec: Codec,
    /// Frames per second.
    #[arg(long, default_value = "25", value_name = "RATE")]
    fps: FrameRate,
    /// Let this program read too: it gets RING and SECONDS as arguments and CAMRING_SHM_DIR in its environment, and
    /// prints one JSON object with `ok`.
    #[arg(long, value_name = "COMMAND")]
    reader: Option<String>,
}

/// What `--json` prints: the figures of the chosen reader, then those of the built-in one and of the capture process.
#[derive(Serialize)]
struct Outcome {
    #[serde(flatten)]
    main: Value,
    /// The reader in this process.
    builtin: Report,
    capture: Capture,
}

/// The capture process.
#[derive(Serialize)]
struct Capture {
    /// CPU time per second of reading, in percent of one core.
    cpu_percent: f64,
    /// Private memory besides the ring, bytes.
    rss_anon_bytes: u64,
    decoder: String,
    writer_epoch: u32,
}

/// The capture process; killed when dropped.
struct CaptureProcess(Child);

impl CaptureProcess {
    fn spawn(ring: &RingName, url: &str, global: &Global) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let child = Command::new(program)
            .args(["run", ring.as_str(), "--url", url, "--shm-dir"])
            .arg(&global.shm_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the capture process")?;
        Ok(Self(child))
    }

    /// SIGTERM, and SIGKILL when that does not help in time.
    fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        kill_process(Pid::from_child(&self.0), Signal::TERM).context("cannot stop the capture process")?;
        wait_for(&mut self.0, STOP)?
            .ok_or_else(|| anyhow!("the capture process did not end within {} s of SIGTERM", STOP.as_secs()))
    }
}

impl Drop for CaptureProcess {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // It is being thrown away: there is nobody left to tell when this fails.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// The exit status of a child; `None` when it still runs after `limit`.
fn wait_for(child: &mut Child, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child process")? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs the command.
///
/// # Errors
///
/// 69 when no frame came, 1 when one was wrong.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let shm = ShmDir::new(&global.shm_dir);
    let name = format!("demo-{}", std::process::id());
    let ring = RingName::new(name).map_err(|e| Failure::new(Exit::Failure, e))?;
    let stream = StreamConfig { codec: args.codec, size: args.size, rate: args.fps, ..StreamConfig::default() };
    let server = SimServer::start(SimConfig::with_stream(stream)).map_err(|e| Failure::new(Exit::Unavailable, e))?;
    eprintln!("camera   {} ({} {} at {} fps)", server.url(), args.codec.name(), args.size, args.fps);
    let mut capture = CaptureProcess::spawn(&ring, server.url(), global)?;
    eprintln!("capture  process {}: camring run {ring} --url {}", capture.0.id(), server.url());
    let outcome = read(args, global, &ring, &shm);
    let stopped = capture.stop();
    drop(capture);
    let removed = camring_ring::remove(&shm, &ring);
    let outcome = outcome?;
    stopped?;
    removed.map_err(|e| Failure::new(Exit::Failure, e))?;
    server.stop().map_err(|e| Failure::new(Exit::Failure, e))?;
    conclude(args, &outcome)
}

fn read(args: &Args, global: &Global, ring: &RingName, shm: &ShmDir) -> Result<Outcome, Failure> {
    let options = AttachOptions { shm: shm.clone(), timeout: Some(FIRST_FRAME), ..AttachOptions::default() };
    let reader = Ring::attach(ring.as_str(), options).map_err(|e| Failure::new(Exit::Unavailable, e))?;
    let mut pixels = Vec::new();
    let progress = Progress::spinner("waiting for the first frame");
    reader.next(&mut pixels, Some(FIRST_FRAME)).map_err(|e| Failure::new(Exit::Unavailable, e))?;
    progress.done();
    let worker = args.reader.as_ref().map(|command| spawn_reader(command, ring, args, global)).transpose()?;
    let before = reader.status();
    let began = Instant::now();
    let tally = tally(&reader, Duration::from_secs(args.seconds), worker.is_none())?;
    let capture = figures(&before, &reader.status(), began.elapsed());
    let builtin = tally.report();
    let main = match worker {
        Some(child) => report_of(child)?,
        None => serde_json::to_value(&builtin).context("cannot write the report")?,
    };
    Ok(Outcome { main, builtin, capture })
}

/// Reads every frame for `time`; says what it sees once a second when `aloud`.
fn tally(reader: &Ring, time: Duration, aloud: bool) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let mut pixels = Vec::new();
    let until = Instant::now() + time;
    let mut next_line = Instant::now();
    while Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now());
        match reader.next(&mut pixels, Some(left)) {
            Ok(frame) => tally.add(&frame, &pixels),
            Err(ReadError::Timeout { .. }) => break,
            Err(error) => return Err(Failure::new(Exit::Failure, error)),
        }
        if aloud && Instant::now() >= next_line {
            eprintln!("reader   {}", tally.line());
            next_line += Duration::from_secs(1);
        }
    }
    match reader.liveness() {
        Liveness::Gone => Err(Failure::message(Exit::Unavailable, "the capture process is gone; see its log above")),
        _ => Ok(tally),
    }
}

fn figures(before: &Status, after: &Status, time: Duration) -> Capture {
    let cpu = |status: &Status| status.process.cpu_user_ns + status.process.cpu_sys_ns;
    let spent = cpu(after).saturating_sub(cpu(before)) as f64 / time.as_nanos().max(1) as f64;
    Capture {
        cpu_percent: (spent * 1000.0).round() / 10.0,
        rss_anon_bytes: after.process.rss_anon_bytes,
        decoder: after.decoder.clone(),
        writer_epoch: after.writer_epoch,
    }
}

fn spawn_reader(command: &str, ring: &RingName, args: &Args, global: &Global) -> anyhow::Result<Child> {
    let mut words = command.split_ascii_whitespace();
    let program = words.next().context("--reader is empty; expected a program and its arguments")?;
    eprintln!("reader   {command} {ring} {}", args.seconds);
    Command::new(program)
        .args(words)
        .arg(ring.as_str())
        .arg(args.seconds.to_string())
        .env("CAMRING_SHM_DIR", &global.shm_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start the reader {program}"))
}

/// The one JSON object that a reader prints.
fn report_of(mut child: Child) -> anyhow::Result<Value> {
    let Some(status) = wait_for(&mut child, READER_SLACK)? else {
        child.kill().context("cannot end the reader")?;
        child.wait().context("cannot wait for the reader")?;
        return Err(anyhow!("the reader did not end within {} s of its time", READER_SLACK.as_secs()));
    };
    let output = child.wait_with_output().context("cannot read what the reader printed")?.stdout;
    let text = String::from_utf8_lossy(&output);
    serde_json::from_str(text.trim())
        .with_context(|| format!("the reader ended with {status} and printed {text:?}, expected one JSON object"))
}

fn conclude(args: &Args, outcome: &Outcome) -> Result<(), Failure> {
    let value = serde_json::to_value(outcome).context("cannot write the report")?;
    let mut ok = outcome.builtin.ok && value["ok"].as_bool() == Some(true);
    ok &= value["frames_read"].as_u64().is_some_and(|frames| frames > 0);
    let mut value = value;
    value["ok"] = ok.into();
    if args.json {
        println!("{value}");
    } else {
        println!("{}", summary(&value, ok));
    }
    if ok {
        Ok(())
    } else {
        Err(Failure::message(Exit::Failure, "a reader saw something wrong; see the figures above"))
    }
}

fn summary(value: &Value, ok: bool) -> String {
    let figure = |key: &str| value[key].as_f64().map_or("-".into(), |number| format!("{number:.1}"));
    format!(
        "{}: {} frames of {}x{} read, {} skipped, {} torn, {} regressions; age {} ms, latency {} ms (medians); \
         capture used {:.1} % of a core with {}",
        if ok { "all right" } else { "NOT all right" },
        value["frames_read"],
        value["width"],
        value["height"],
        value["skipped"],
        value["torn"],
        value["seq_regressions"],
        figure("age_ms_p50"),
        figure("latency_ms_p50"),
        value["capture"]["cpu_percent"].as_f64().unwrap_or(0.0),
        value["capture"]["decoder"].as_str().unwrap_or("-"),
    )
}
