//! `camring probe`: what does this camera send, how well, and what should be set differently?
//!
//! # Keys of `--json`
//!
//! One object; stable: new keys may come, none is renamed or changes its unit. A value that is not known is `null`.
//!
//! | key | meaning |
//! |---|---|
//! | `url` | the address, secrets replaced |
//! | `transport`, `transports_tried` | how packets came (`tcp`, `udp`, ...); what was tried, in that order |
//! | `codec`, `profile`, `level`, `chroma`, `bit_depth` | of the stream, in words of the codec |
//! | `width`, `height`, `pixel_aspect`, `interlaced` | of the decoded pictures |
//! | `fps`, `fps_stated` | pictures a second by the camera's media clock; what the stream itself claims |
//! | `jitter_ms` | how much later or earlier than that clock says pictures arrive: from the 5th to the 95th percentile |
//! | `gop_frames`, `gop_seconds`, `keyframe_bytes` | the longest distance of two keyframes (at least the time watched, when there was one); the largest one |
//! | `b_frames` | most pictures in a row that are sent after one that is shown later |
//! | `kbit_per_s`, `packets_lost` | with RTP headers; numbers missing in the sequence |
//! | `slices`, `marks_slices` | most slices in a picture; whether each is marked as if it were a picture |
//! | `audio` | encodings of the audio streams it offers, which are left alone |
//! | `color` | object: `matrix`, `range`, `primaries`, `transfer` |
//! | `clock` | object: `reports` (whether sender reports came), `offset_ms` (camera minus this host, less the way here), `drift_ppm` (after 20 s and more) |
//! | `decoder`, `decode_ms` | who decoded; from the last packet of a picture to its pixels, median |
//! | `first_frame_ms`, `pictures`, `seconds` | from the start to the first picture; pictures and time looked at after it |
//! | `advice` | list of sentences: what to change, and where |

mod advice;
mod block;
mod facts;
mod onlooker;

use std::sync::Arc;
use std::time::Duration;

use camring_ring::Reason;

use super::output::{duration, emit, emit_json};
use super::password;
use super::progress::Progress;
use crate::assemble;
use crate::camera::{Found, Onlooker, visit_with};
use crate::clock::SystemClock;
use crate::config::url::redacted;
use crate::config::words::Word;
use crate::config::{Access, Camera, SecretStore, Transport};
use crate::exit::{Exit, Failure};
use crate::log;
use crate::pipeline::{self, Tap};
use crate::source::RetryReason;
use facts::Facts;
use onlooker::Watching;

/// Connect to a camera and say what it sends, how well it arrives, and what to change in its settings.
///
/// Watches for five seconds, or until two groups of pictures have passed (15 s at most). Takes one session of the camera;
/// a wrong password counts as a try. Ends with 69 when no picture came, 75 when the camera had no session left, 77 when it
/// refused user or password, 78 for an address that is none.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The camera's address, such as rtsp://10.0.0.21:554/stream1.
    url: String,
    /// The user to log in with.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Read the password from the first line of standard input, so that it is in no process list.
    #[arg(long, requires = "user")]
    password_stdin: bool,
    /// How packets are to travel: tcp, udp, multicast, http or auto [default: tcp, then udp when that is refused].
    #[arg(long, value_name = "WORD", value_parser = transport)]
    transport: Option<Transport>,
    /// How long to watch after the first picture, at least.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    watch: Duration,
    /// Print a camera for the configuration file instead.
    #[arg(long, conflicts_with = "json")]
    toml: bool,
    /// The camera's name in that block.
    #[arg(long, value_name = "NAME", default_value = "front", requires = "toml")]
    name: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn transport(text: &str) -> Result<Transport, String> {
    Transport::from_word(text).ok_or_else(|| "expected tcp, udp, multicast, http or auto".to_owned())
}

/// Watches the camera and prints what it sends.
///
/// # Errors
///
/// 69, 75, 77 and 78 as the text of the command says.
pub fn run(args: &Args) -> Result<(), Failure> {
    let password = if args.password_stdin { Some(password::from_stdin()?) } else { None };
    let mut camera = Camera::from_url(&args.name, &args.url, args.user.as_deref(), password).map_err(|e| e.report())?;
    let access = camera.resolve_secrets(&SecretStore::of_process()).map_err(|e| e.report())?;
    log::adopt_glib();
    let ways = match args.transport {
        Some(transport) => vec![transport],
        None => vec![Transport::Tcp, Transport::Udp],
    };
    let mut tried = Vec::new();
    let mut first_refusal = None;
    for way in ways {
        camera.transport = way;
        tried.push(way);
        match watch(args, &camera, access.clone()) {
            Ok((found, watching)) => {
                let tried: Vec<String> = tried.iter().map(|way| way.word().to_owned()).collect();
                let facts =
                    Facts::new(redacted(&args.url), &found, &watching.seen(), &watching.tap().heard(), way, tried);
                return print(args, &camera, &facts);
            }
            // Only a refused transport is worth another try.
            Err(why) if why.reason == Reason::NoVideo && first_refusal.is_none() => first_refusal = Some(why),
            Err(why) => return Err(failure(first_refusal.unwrap_or(why))),
        }
    }
    Err(failure(first_refusal.expect("the loop ends here only after a refusal")))
}

fn watch(args: &Args, camera: &Camera, access: Option<Access>) -> Result<(Found, Arc<Watching>), RetryReason> {
    pipeline::init()?;
    let tap = Arc::new(Tap::default());
    let progress = Progress::spinner("connecting");
    let watching = Arc::new(Watching::new(args.watch, tap.clone(), progress));
    let source =
        assemble::tapped_source(camera, access.clone(), tap).unwrap_or_else(|| assemble::source(camera, access));
    let onlooker: Arc<dyn Onlooker> = watching.clone();
    let found = visit_with("probe", source, &assemble::policy(camera), &SystemClock, &onlooker);
    watching.progress().done();
    Ok((found?, watching))
}

/// The exit code of a camera that gave no picture.
fn failure(why: RetryReason) -> Failure {
    let exit = match why.reason {
        Reason::Auth => Exit::Permission,
        Reason::ServerBusy => Exit::Temporary,
        Reason::Config => Exit::Config,
        Reason::Internal => Exit::Failure,
        _ => Exit::Unavailable,
    };
    Failure::message(exit, format!("{} ({})", why.message, why.reason))
}

fn print(args: &Args, camera: &Camera, facts: &Facts) -> Result<(), Failure> {
    let _ = if args.json {
        emit_json(facts)?
    } else if args.toml {
        emit(block::of(camera, facts).as_bytes())?
    } else {
        emit(facts.text().as_bytes())?
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::RetryClass;

    #[test]
    fn each_way_to_fail_has_the_exit_code_of_the_table() {
        let exit = |reason| {
            failure(RetryReason { reason, class: RetryClass::Transient, message: "it failed".into() }).exit as u8
        };
        let codes =
            [Reason::Auth, Reason::ServerBusy, Reason::Config, Reason::ConnectRefused, Reason::NotFound].map(exit);
        assert_eq!(codes, [77, 75, 78, 69, 69]);
    }
}
