//! `camring sim`: serves a simulated camera until it is told to stop.

use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use secrecy::SecretString;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{Exit, Failure};
use crate::sim::script::Script;
use crate::sim::{
    AuthScheme, Chroma, Codec, Depth, Encoding, Faults, FrameRate, Freeze, ListenRefusal, Login, Markers, Pattern,
    Profile, Scan, SimConfig, SimError, SimServer, Size, StreamConfig, Switch, SwitchTo,
};

/// Holds the password when neither `--password-file` nor `--password-stdin` is given.
const PASSWORD_VARIABLE: &str = "CAMRING_SIM_PASSWORD";
/// More than any password; a larger file is some other file.
const PASSWORD_BYTES: u64 = 4096;

/// Options of `camring sim`.
#[derive(Debug, clap::Args)]
#[command(after_help = "The password comes from --password-file, --password-stdin or the variable \
    CAMRING_SIM_PASSWORD, never from the command line, where everybody on the host could read it.")]
pub struct Args {
    /// Address and port to listen on; port 0 = any free one.
    #[arg(long, default_value = "127.0.0.1:8554", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Path in the URL; repeat it for several cameras alike on one port.
    #[arg(long, default_value = "/stream", value_name = "PATH")]
    mount: Vec<String>,
    /// How the pictures are compressed; camring itself refuses theora.
    #[arg(long, value_enum, default_value_t)]
    codec: Codec,
    /// Size of the pictures; H.264 and H.265 need even numbers.
    #[arg(long, default_value = "1920x1080", value_name = "WxH")]
    size: Size,
    /// Frames per second, such as 25, 12.5, 29.97 or 30000/1001.
    #[arg(long, default_value = "25", value_name = "RATE")]
    fps: FrameRate,
    /// Time from key frame to key frame.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    gop: Duration,
    /// What the pictures show.
    #[arg(long, value_enum, default_value_t)]
    pattern: Pattern,
    /// Another number, another scene, and other random choices of a script.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Bits per second, such as 800k or 6M; by default a tenth of a bit per pixel. Not for mjpeg.
    #[arg(long, value_parser = parse_bitrate, value_name = "BITRATE")]
    bitrate: Option<u32>,
    /// What of H.264 to use; by default what is cheapest.
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// B-frames between two others, 0 to 4; h264 and h265. Each costs the receiver a frame interval.
    #[arg(long, default_value_t = 0, value_name = "N")]
    b_frames: u32,
    /// Slices in a picture, 1 to 8; h264 only.
    #[arg(long, value_name = "N")]
    slices: Option<u32>,
    /// Set RTP's marker bit on every slice instead of every picture, as some cameras do; h264 only.
    #[arg(long)]
    mark_slices: bool,
    /// Send interlaced pictures, top field first; h264 only.
    #[arg(long)]
    interlaced: bool,
    /// Colour samples: 420 halves both ways, 422 across; h264 and h265 have all, mjpeg 420 and 422.
    #[arg(long, value_enum, default_value_t)]
    chroma: Chroma,
    /// Bits of a sample; 10 is for h264 and h265.
    #[arg(long, value_enum, default_value_t)]
    depth: Depth,
    /// Change in the middle of every session, so long after its first picture: 4s:1280x720 to another size, 4s:encoder to
    /// an encoder that begins anew with other parameter sets (h264 and h265). Repeat it for more, in their order.
    #[arg(long, conflicts_with = "switch_size", value_name = "DURATION:WxH|encoder")]
    switch: Vec<Switch>,
    /// Change to this size in the middle of every session: one --switch in two options.
    #[arg(long, requires = "switch_after", value_name = "WxH")]
    switch_size: Option<Size>,
    /// How long after the first picture of a session.
    #[arg(long, requires = "switch_size", value_parser = humantime::parse_duration, value_name = "DURATION")]
    switch_after: Option<Duration>,
    /// Repeat one picture bit for bit from this time after the first picture of a session; still bits also need mjpeg.
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    freeze_after: Option<Duration>,
    /// How long the picture stands still; without it, to the end of the session.
    #[arg(long, requires = "freeze_after", value_parser = humantime::parse_duration, value_name = "DURATION")]
    freeze_for: Option<Duration>,
    /// Let happen what this fault script says (docs/sim.md); it names the only transport, tcp unless it says udp.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Write what the script does as JSON lines to this file, or to standard output (-).
    #[arg(long, requires = "script", value_name = "FILE|-")]
    events: Option<PathBuf>,
    /// Offer multicast as well, at this group; each camera takes two ports, the first an even one.
    #[arg(long, conflicts_with = "script", value_name = "ADDRESS:PORT")]
    multicast: Option<SocketAddrV4>,
    /// Ask for this user and a password.
    #[arg(long)]
    user: Option<String>,
    /// File whose first line is the password.
    #[arg(long, requires = "user", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The first line of standard input is the password.
    #[arg(long, requires = "user", conflicts_with = "password_file")]
    password_stdin: bool,
    /// How the password is asked for.
    #[arg(long, requires = "user", value_enum, default_value = "digest")]
    auth: AuthScheme,
    /// Speak TLS only (rtsps://) and prove to be a camera with this certificate and its key, both in one PEM file.
    #[arg(long, value_name = "PEM", conflicts_with = "script")]
    tls_certificate: Option<PathBuf>,
    /// Also stop when standard input ends, so that the camera does not outlive its parent.
    #[arg(long)]
    until_stdin_closes: bool,
    /// Print one JSON object instead of the URL.
    #[arg(long)]
    json: bool,
}

/// Serves until SIGINT, SIGTERM or, if so asked, the end of standard input.
///
/// # Errors
///
/// What is wrong with the options (2) or the script (78), what is missing on this host (69), or why it did not stop in time (75).
pub fn run(args: Args) -> Result<(), Failure> {
    let (json, until_stdin_closes) = (args.json, args.until_stdin_closes);
    let faults = faults(&args)?;
    let config = config(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot start the event loop")
        .map_err(Failure::from)?;
    // Signals first: one that comes while the camera starts must stop it, too.
    let end = {
        let _runtime = runtime.enter();
        End::watch(until_stdin_closes).context("cannot watch for signals").map_err(Failure::from)?
    };
    let description = Description::of(&config);
    let camera = match faults {
        None => SimServer::start(config),
        Some(faults) => SimServer::start_scripted(config, faults),
    };
    let camera = camera.map_err(failure)?;
    announce(&camera, description, json).context("cannot write to standard output").map_err(Failure::from)?;
    runtime.block_on(end.wait());
    eprintln!("camring sim: {} frames pushed, {} skipped", camera.frames_pushed(), camera.frames_skipped());
    camera.stop().map_err(failure)
}

fn config(args: Args) -> Result<SimConfig, Failure> {
    let login = match args.user {
        None => None,
        Some(user) => {
            let password = password(args.password_file.as_deref(), args.password_stdin)?;
            Some(Login { scheme: args.auth, user, password })
        }
    };
    let to_size = |(size, after)| Switch { to: SwitchTo::Size(size), after };
    let switches: Vec<Switch> =
        args.switch.into_iter().chain(args.switch_size.zip(args.switch_after).map(to_size)).collect();
    let encoding = Encoding {
        profile: args.profile,
        b_frames: args.b_frames,
        slices: args.slices,
        scan: if args.interlaced { Scan::Interlaced } else { Scan::Progressive },
        chroma: args.chroma,
        depth: args.depth,
        markers: if args.mark_slices { Markers::PerSlice } else { Markers::PerPicture },
    };
    let stream = |mount| StreamConfig {
        mount,
        encoding,
        codec: args.codec,
        size: args.size,
        rate: args.fps,
        gop: args.gop,
        pattern: args.pattern,
        seed: args.seed,
        bitrate: args.bitrate,
        switches: switches.clone(),
        freeze: args.freeze_after.map(|after| Freeze { after, lasting: args.freeze_for }),
    };
    let certificate = args.tls_certificate.as_deref().map(certificate).transpose()?;
    let streams = args.mount.into_iter().map(stream).collect();
    Ok(SimConfig { listen: args.listen, streams, login, certificate, multicast: args.multicast })
}

fn certificate(path: &Path) -> Result<gio::TlsCertificate, Failure> {
    let wrong = |error| {
        anyhow::Error::new(error)
            .context(format!("cannot use {}; expected a certificate and its private key as PEM", path.display()))
    };
    gio::TlsCertificate::from_file(path).map_err(|error| Failure::new(Exit::Usage, wrong(error)))
}

/// Reads the script and opens the event log, before anything starts.
fn faults(args: &Args) -> Result<Option<Faults>, Failure> {
    let Some(path) = &args.script else { return Ok(None) };
    let script = Script::load(path).map_err(|errors| errors.report())?;
    let events: Option<Box<dyn Write + Send>> = match args.events.as_deref() {
        None => None,
        Some(path) if path == Path::new("-") => Some(Box::new(std::io::stdout())),
        Some(path) => {
            let file = std::fs::File::create(path);
            let file = file.with_context(|| format!("cannot write the event log to {}", path.display()));
            Some(Box::new(file.map_err(|error| Failure::new(Exit::Usage, error))?))
        }
    };
    Ok(Some(Faults { script, seed: args.seed, events }))
}

fn password(file: Option<&Path>, stdin: bool) -> Result<SecretString, Failure> {
    let line = match file {
        Some(path) => std::fs::File::open(path)
            .and_then(first_line)
            .with_context(|| format!("cannot read the password from {}", path.display())),
        None if stdin => first_line(std::io::stdin()).context("cannot read the password from standard input"),
        None => std::env::var(PASSWORD_VARIABLE).map_err(|_| {
            anyhow::anyhow!("--user needs a password; give --password-file, --password-stdin or {PASSWORD_VARIABLE}")
        }),
    };
    line.map(SecretString::from).map_err(|error| Failure::new(Exit::Usage, error))
}

/// Reads byte by byte up to the end of the first line, so that what follows stays for others.
fn first_line(input: impl Read) -> std::io::Result<String> {
    let mut line = String::new();
    std::io::BufReader::with_capacity(1, input.take(PASSWORD_BYTES)).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn parse_bitrate(text: &str) -> Result<u32, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1000.0),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000.0),
        _ => (text, 1.0),
    };
    let bits = digits.parse::<f64>().ok().map(|number| number * factor);
    let in_range = bits.filter(|bits| (1.0..=f64::from(u32::MAX)).contains(bits));
    in_range.map(|bits| bits as u32).ok_or_else(|| format!("{text:?} is not a bit rate such as 800k or 6M"))
}

fn failure(error: SimError) -> Failure {
    let exit = match &error {
        SimError::Config(_) => Exit::Usage,
        SimError::Listen { refusal: ListenRefusal::NotPermitted, .. } => Exit::Permission,
        SimError::Listen { .. } | SimError::MissingElement { .. } => Exit::Unavailable,
        SimError::Stop(_) => Exit::Temporary,
        SimError::Refused(_) | SimError::Gstreamer(_) | SimError::Thread(_) | SimError::Panicked => Exit::Failure,
    };
    Failure::new(exit, error)
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Description {
    codec: &'static str,
    width: u32,
    height: u32,
    fps: f64,
    bitrate: Option<u32>,
    auth: Option<&'static str>,
    user: Option<String>,
}

#[derive(Debug, Serialize)]
struct Announcement<'a> {
    url: &'a str,
    urls: &'a [String],
    port: u16,
    pid: u32,
    run_id: u16,
    #[serde(flatten)]
    description: Description,
}

impl Description {
    fn of(config: &SimConfig) -> Self {
        let stream = &config.streams[0];
        Self {
            codec: stream.codec.name(),
            width: stream.size.width,
            height: stream.size.height,
            fps: f64::from(stream.rate.frames) / f64::from(stream.rate.seconds),
            bitrate: (stream.codec != Codec::Mjpeg).then(|| stream.bits_per_second()),
            auth: config.login.as_ref().map(|login| match login.scheme {
                AuthScheme::Basic => "basic",
                AuthScheme::Digest => "digest",
            }),
            user: config.login.as_ref().map(|login| login.user.clone()),
        }
    }
}

fn announce(camera: &SimServer, description: Description, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        let (url, urls, port, run_id) = (camera.url(), camera.urls(), camera.port(), camera.run_id());
        let line = Announcement { url, urls, port, pid: std::process::id(), run_id, description };
        serde_json::to_writer(&mut out, &line)?;
        writeln!(out)?;
    } else {
        for url in camera.urls() {
            writeln!(out, "{url}")?;
        }
    }
    out.flush()
}

/// What ends the command.
struct End {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    stdin_closed: Option<tokio::sync::oneshot::Receiver<()>>,
}

impl End {
    fn watch(until_stdin_closes: bool) -> std::io::Result<Self> {
        let stdin_closed = until_stdin_closes.then(watch_stdin).transpose()?;
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, stdin_closed })
    }

    async fn wait(mut self) {
        let stdin_closed = async {
            match self.stdin_closed {
                // An error means that the thread is gone, which is the same news.
                Some(closed) => closed.await.unwrap_or(()),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = stdin_closed => {}
        }
    }
}

/// Reads standard input to its end on a thread of its own, which dies with the process.
fn watch_stdin() -> std::io::Result<tokio::sync::oneshot::Receiver<()>> {
    let (closed, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        // An error on standard input ends the camera as its end does: nobody holds the other side.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = closed.send(());
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_rates_are_read_as_people_write_them() {
        assert_eq!(parse_bitrate("6M"), Ok(6_000_000));
        assert_eq!(parse_bitrate("1.5M"), Ok(1_500_000));
        assert_eq!(parse_bitrate("800k"), Ok(800_000));
        assert_eq!(parse_bitrate("64000"), Ok(64_000));
        for text in ["", "M", "-1", "0", "6MB", "inf", "NaN", "9999M", "é"] {
            assert!(parse_bitrate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_is_the_first_line_only() {
        assert_eq!(first_line(&b"p@ss:w/rd#%? \r\nsecond\n"[..]).expect("a line"), "p@ss:w/rd#%? ");
        assert_eq!(first_line(&b"no newline"[..]).expect("a line"), "no newline");
    }
}
