//! `camring bridge`: a sacrificial read-write copy of a ring, for peers that need one.
//!
//! `--json` prints one object per segment made: `event` (`ready`), `segment`, `path`, `file_bytes`, `width`, `height`,
//! `format`, `replaced`.

use std::time::Duration;

use camring_ring::{SegmentName, mebibytes};
use serde_json::json;

use super::Global;
use super::output::{Listener, Reading, SLICE, Wait, create_failure, duration, emit_json, emit_line, read_failure};
use crate::bridge::{Bridge, BridgeError, BridgeEvent, BridgeOptions};
use crate::exit::{Exit, Failure};

/// Copy the newest frames of a ring into a read-write segment of another name.
///
/// For peers that can only open a segment read-write, such as Python's `SharedMemory(name)` or the `shared_memory`
/// crate. The segment has the ring's byte layout; a peer that damages it hurts this process alone, never the camera.
///
/// The segment is always made in /dev/shm, where `shm_open` looks for names: --shm-dir is for the source ring only. It
/// appears with the first frame. A frame larger than all before makes a larger segment under the same name: library
/// readers follow by themselves, other peers open the name again when the header says `retired`. SIGINT and SIGTERM
/// remove the segment and end with 0.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Camera, output or segment to copy from.
    ring: String,
    /// Name of the segment to make in /dev/shm.
    #[arg(long, value_name = "NAME", value_parser = segment)]
    segment: SegmentName,
    /// Mode of the segment, octal; group and others may write what they may read.
    #[arg(long, value_name = "MODE", default_value = "0660", value_parser = mode)]
    mode: u32,
    /// Frames kept.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(3..=256))]
    slots: u32,
    /// How long to wait for the source ring to appear; default: for ever.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Print one JSON object per segment made.
    #[arg(long)]
    json: bool,
    /// Whose rings.
    #[command(flatten)]
    reading: Reading,
}

fn segment(text: &str) -> Result<SegmentName, String> {
    SegmentName::new(text).map_err(|e| e.to_string())
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "expected an octal mode such as 0660".to_owned())
}

/// Copies until a signal comes.
///
/// # Errors
///
/// 66 no such ring, 73 no room, 77 not permitted, 79 the segment is in use, 1 its name is taken.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let wait = Wait::new(args.timeout).counted().interruptible()?;
    let Some(ring) = args.reading.attach(global, &args.ring, &wait)? else { return Ok(()) };
    let options = BridgeOptions { segment: args.segment.clone(), mode: args.mode, slots: args.slots };
    let mut bridge = Bridge::new(ring, options).map_err(failure)?;
    let mut listener = Listener::There;
    while !wait.is_interrupted() {
        if let Some(event) = bridge.step(SLICE).map_err(failure)?
            && listener == Listener::There
        {
            // Nobody need read this: a closed pipe ends the messages, not the copying.
            listener = say(args, &event)?;
        }
    }
    bridge.finish();
    Ok(())
}

fn say(args: &Args, event: &BridgeEvent) -> Result<Listener, Failure> {
    let (path, geometry, file_bytes, replaced) = match event {
        BridgeEvent::Ready { path, geometry, file_bytes, replaced } => (path, geometry, *file_bytes, *replaced),
        BridgeEvent::NotReplaced(why) => {
            eprintln!("camring: {why}; the smaller segment stays and gets no new frames, next try in 5 s");
            return Ok(Listener::There);
        }
    };
    let (width, height, format) = (geometry.width, geometry.height, geometry.format);
    if args.json {
        return emit_json(&json!({
            "event": "ready",
            "segment": args.segment.as_str(),
            "path": path.display().to_string(),
            "file_bytes": file_bytes,
            "width": width,
            "height": height,
            "format": format.to_string(),
            "replaced": replaced,
        }));
    }
    let verb = if replaced { "replaced" } else { "ready" };
    emit_line(&format!("{verb} {}: {width}x{height} {format}, {}", path.display(), mebibytes(file_bytes)))
}

fn failure(error: BridgeError) -> Failure {
    match error {
        BridgeError::Create(error) => create_failure(error),
        BridgeError::Read(error) => read_failure(error),
        error @ BridgeError::InUse { .. } => Failure::new(Exit::AlreadyServed, error),
        error @ BridgeError::Name(_) => Failure::new(Exit::Usage, error),
        error => Failure::new(Exit::Failure, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_and_has_no_special_bits() {
        assert_eq!((mode("0660"), mode("640")), (Ok(0o660), Ok(0o640)));
        assert!(mode("0888").is_err() && mode("4755").is_err() && mode("rw").is_err());
    }
}
