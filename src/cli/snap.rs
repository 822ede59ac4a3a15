//! `camring snap`: one frame as a file.
//!
//! `--json` (only with a file) prints one object: `path`, `file_format`, `bytes`, `seq`, `age_ms`, `width`, `height`,
//! `format`, `state`, `reason`, `flags`.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use camring_ring::{Frame, ReadError, Ring};
use serde_json::json;

use super::Global;
use super::output::{Reading, Wait, duration, emit, emit_json, read_failure};
use crate::exit::{Exit, Failure};
use crate::report::age_ms;
use crate::snapshot::{FileFormat, Snapshot};

/// Write the newest frame to a file or to standard output.
///
/// A frame older than `--max-age` is not written: the command waits `--timeout` for a newer one, then says how old the
/// newest is and what the camera is doing, and ends with code 75. A file appears complete or not at all.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Camera, output or segment.
    ring: String,
    /// The file; `-` or nothing is standard output, which must not be a terminal.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// File format; without it the file's extension chooses, and standard output gets a JPEG.
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
    /// Oldest frame that will do, or `any`.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = max_age)]
    max_age: MaxAge,
    /// How long to wait for the ring and for a frame that is young enough.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    timeout: Duration,
    /// Quality of a JPEG, 1 to 100.
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Print a JSON object that describes what was written; needs a file.
    #[arg(long)]
    json: bool,
    /// Whose rings.
    #[command(flatten)]
    reading: Reading,
}

/// Oldest frame that will do; `None` = any.
#[derive(Clone, Copy, Debug)]
struct MaxAge(Option<Duration>);

fn max_age(text: &str) -> Result<MaxAge, String> {
    if text == "any" { Ok(MaxAge(None)) } else { duration(text).map(|limit| MaxAge(Some(limit))) }
}

/// Where the frame goes.
enum Target<'a> {
    Stdout,
    File(&'a Path),
}

/// Takes a frame and writes it.
///
/// # Errors
///
/// 66 no such ring, 75 stale or no frame in time, 76 and 77 as for every reader, 2 binary output on a terminal.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let (target, format) = destination(args)?;
    let wait = Wait::new(Some(args.timeout)).counted();
    let Some(ring) = args.reading.attach(global, &args.ring, &wait)? else { return Ok(()) };
    let mut payload = Vec::new();
    let frame = fresh_frame(&ring, args.max_age.0, &wait, &mut payload)?;
    let snapshot = Snapshot { meta: &frame.meta, payload: &payload };
    let bytes = snapshot.encode(format, args.quality).map_err(|e| Failure::new(Exit::Failure, e))?;
    let Target::File(path) = target else {
        let _ = emit(&bytes)?;
        return Ok(());
    };
    write_file(path, &bytes).map_err(|e| {
        let exit = if e.kind() == io::ErrorKind::PermissionDenied { Exit::Permission } else { Exit::Failure };
        Failure::new(exit, anyhow::Error::new(e).context(format!("cannot write {}", path.display())))
    })?;
    if args.json {
        let _ = emit_json(&describe(&ring, &frame, path, format, bytes.len()))?;
    }
    Ok(())
}

fn destination(args: &Args) -> Result<(Target<'_>, FileFormat), Failure> {
    let usage = |text: &'static str| Failure::message(Exit::Usage, text);
    match args.output.as_deref().filter(|path| *path != Path::new("-")) {
        None if io::stdout().is_terminal() => {
            Err(usage("a picture would garble the terminal; name a file with -o FILE, or redirect standard output"))
        }
        None if args.json => Err(usage("--json needs a file for the picture: add -o FILE")),
        None => Ok((Target::Stdout, args.format.unwrap_or(FileFormat::Jpeg))),
        Some(path) => {
            let format = args.format.or_else(|| FileFormat::from_path(path)).ok_or_else(|| {
                let text = format!(
                    "the name {} does not end in .jpg, .png, .npy or .raw; add --format jpeg, png, npy or raw",
                    path.display()
                );
                Failure::message(Exit::Usage, text)
            })?;
            Ok((Target::File(path), format))
        }
    }
}

/// The newest frame, once it is young enough.
fn fresh_frame(ring: &Ring, max_age: Option<Duration>, wait: &Wait, payload: &mut Vec<u8>) -> Result<Frame, Failure> {
    loop {
        let result = match max_age {
            Some(limit) => ring.latest_within(payload, limit),
            None => ring.latest(payload),
        };
        let error = match result {
            Ok(frame) => return Ok(frame),
            Err(error @ (ReadError::Stale { .. } | ReadError::NoFrame { .. } | ReadError::Overrun { .. })) => error,
            Err(error) => return Err(read_failure(error)),
        };
        if wait.is_over() {
            return Err(read_failure(error));
        }
        // A frame newer than the one refused, or the end of a slice: either way the next look decides.
        ring.wait(ring.last_seq(), Some(wait.slice()));
    }
}

fn describe(ring: &Ring, frame: &Frame, path: &Path, format: FileFormat, bytes: usize) -> serde_json::Value {
    let status = ring.status();
    json!({
        "path": path.display().to_string(),
        "file_format": format.to_string(),
        "bytes": bytes,
        "seq": frame.meta.seq.0,
        "age_ms": age_ms(&frame.meta),
        "width": frame.meta.geometry.width,
        "height": frame.meta.geometry.height,
        "format": frame.meta.geometry.format.to_string(),
        "state": status.state.to_string(),
        "reason": status.reason.to_string(),
        "flags": frame.meta.flags.words().collect::<Vec<_>>(),
    })
}

/// Writes a regular file under a temporary name beside it and renames it; anything else (a pipe, a device) directly.
fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => return std::fs::OpenOptions::new().write(true).open(path)?.write_all(bytes),
        _ => {}
    }
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let temporary = path.with_file_name(format!(".{}.camring-{}", name.to_string_lossy(), std::process::id()));
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, &path));
    if written.is_err() {
        // The first error is the one to tell; a leftover that cannot be removed either has the same cause.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("front.raw");
        write_file(&path, b"first, and longer").unwrap();
        write_file(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_keeps_being_a_link_to_the_file_that_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.raw"), folder.path().join("b.raw"));
        std::fs::write(&file, b"old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_file(&link, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        write_file(Path::new("/dev/null"), b"x").unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn the_oldest_age_is_a_duration_or_any() {
        assert_eq!(max_age("any").unwrap().0, None);
        assert_eq!(max_age("250ms").unwrap().0, Some(Duration::from_millis(250)));
        assert!(max_age("soon").is_err());
    }
}
