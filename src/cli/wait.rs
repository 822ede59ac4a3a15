//! `camring wait`: ends with 0 once a fresh frame is there; for scripts and health checks.
//!
//! `--json` prints one object: `ring`, `fresh` (true or false), `seq`, `age_ms`, `state`, `reason`, `writer_alive`,
//! `waited_ms`; `seq` is 0 and `age_ms` null before the first frame. A ring that is not there has no object.

use std::time::Duration;

use camring_ring::{Liveness, ReadError, Reason, Ring, Sequence, Status, age_ns};
use serde_json::json;

use super::Global;
use super::output::{Reading, Wait, duration, emit_json, emit_line, read_failure};
use crate::exit::{Exit, Failure};
use crate::report::{Span, milliseconds, start};

/// Wait until a fresh frame is there.
///
/// Exit codes: 0 a frame newer than `--fresh` is there; 75 none came in time (the text says what the camera is doing);
/// 66 the ring did not appear in time; 76 and 77 the ring cannot be read by this program or this user.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Camera, output or segment.
    ring: String,
    /// Oldest age that counts as fresh.
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration)]
    fresh: Duration,
    /// How long to wait for the ring and the frame.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Whose rings.
    #[command(flatten)]
    reading: Reading,
}

/// The newest frame as far as waiting is concerned.
struct Newest {
    seq: u64,
    age_ns: i64,
}

/// Waits and says what it found.
///
/// # Errors
///
/// 66 and 75 as above.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    // Somebody asks for a fresh frame: a parked camera is to wake up for it.
    let wait = Wait::new(Some(args.timeout)).counted();
    let Some(ring) = args.reading.attach(global, &args.ring, &wait)? else { return Ok(()) };
    loop {
        let newest = newest(&ring)?;
        let fresh = newest.as_ref().is_some_and(|newest| is_fresh(newest.age_ns, args.fresh));
        if fresh || wait.is_over() {
            return report(args, &ring, &wait, newest, fresh);
        }
        ring.wait(Sequence(newest.map_or(0, |newest| newest.seq)), Some(wait.slice()));
    }
}

fn newest(ring: &Ring) -> Result<Option<Newest>, Failure> {
    match ring.peek() {
        Ok(meta) => Ok(Some(Newest { seq: meta.seq.0, age_ns: age_ns(&meta) })),
        Err(ReadError::NoFrame { .. } | ReadError::Overrun { .. }) => Ok(None),
        Err(error) => Err(read_failure(error)),
    }
}

/// A negative age comes from a clock that cannot be compared and is never fresh.
fn is_fresh(age_ns: i64, limit: Duration) -> bool {
    u128::try_from(age_ns).is_ok_and(|age| age <= limit.as_nanos())
}

fn report(args: &Args, ring: &Ring, wait: &Wait, newest: Option<Newest>, fresh: bool) -> Result<(), Failure> {
    let status = ring.status();
    let writer_alive = ring.liveness() != Liveness::Gone;
    let age_ms = newest.as_ref().map(|newest| milliseconds(newest.age_ns));
    let seq = newest.as_ref().map_or(0, |newest| newest.seq);
    if args.json {
        let _ = emit_json(&json!({
            "ring": args.ring,
            "fresh": fresh,
            "seq": seq,
            "age_ms": age_ms,
            "state": status.state.to_string(),
            "reason": status.reason.to_string(),
            "writer_alive": writer_alive,
            "waited_ms": wait.waited_ms(),
        }))?;
    }
    if !fresh {
        return Err(refused(args, wait, &status, writer_alive, age_ms));
    }
    if !args.json {
        let age = Span(age_ms.unwrap_or_default());
        let _ = emit_line(&format!("{} is {}: frame {seq} is {age} old", args.ring, status.state))?;
    }
    Ok(())
}

fn refused(args: &Args, wait: &Wait, status: &Status, writer_alive: bool, age_ms: Option<f64>) -> Failure {
    let (ring, state, reason) = (&args.ring, status.state, status.reason);
    let why = if reason == Reason::None { String::new() } else { format!(" ({reason})") };
    let found = match age_ms {
        Some(age) => format!("the newest frame of ring \"{ring}\" is {} old", Span(age)),
        None => format!("ring \"{ring}\" has no frame yet"),
    };
    let dead = if writer_alive { String::new() } else { format!(" and its daemon is not running; {}", start(ring)) };
    let limit = Span(args.fresh.as_secs_f64() * 1000.0);
    let waited = Span(wait.waited_ms() as f64);
    let text = format!("{found} after waiting {waited}, expected at most {limit}; its camera is {state}{why}{dead}");
    Failure::message(Exit::Temporary, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_means_at_most_the_limit_and_never_from_the_future() {
        let limit = Duration::from_millis(500);
        assert!(is_fresh(0, limit) && is_fresh(500_000_000, limit));
        assert!(!is_fresh(500_000_001, limit) && !is_fresh(-1, limit));
    }
}
