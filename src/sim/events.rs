//! The event log of a fault script: what was planned and what was measured, one JSON object per line.
//!
//! Everything but `measured` depends on the script and the seed alone, so that two runs compare equal without it.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::script::{Action, Edge, Ending, Planned, Reports, Script};

/// Writes events until the output cannot take them; then says so once.
pub(super) struct EventLog {
    out: Option<Box<dyn Write + Send>>,
    next: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    event: u64,
    planned_ms: u64,
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurrence: Option<u64>,
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    parameters: &'a Map<String, Value>,
    measured: &'a Map<String, Value>,
}

/// What was measured when a step was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Since the script's origin.
    pub at: Duration,
    /// Connections at that time.
    pub connections: usize,
    /// At the end of a fault: what it looked at and what it changed.
    pub counts: Option<(u64, u64)>,
}

impl EventLog {
    pub(super) fn new(out: Option<Box<dyn Write + Send>>) -> Self {
        Self { out, next: 0 }
    }

    /// The script begins.
    pub(super) fn begin(&mut self, script: &Script, seed: u64) {
        let parameters = object(
            json!({ "from": script.origin.word(), "transport": format!("{:?}", script.transport).to_lowercase(), "seed": seed, "faults": script.faults.len() }),
        );
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let measured = object(json!({ "unix_ms": millis(unix) }));
        self.write(|event| Line {
            event,
            planned_ms: 0,
            what: "script",
            fault: None,
            occurrence: None,
            action: None,
            parameters: &parameters,
            measured: &measured,
        });
    }

    /// A step of the script was taken.
    pub(super) fn step(&mut self, step: &Planned, measured: Measured) {
        let parameters = match step.edge {
            Edge::Begin => parameters(step),
            Edge::End => Map::new(),
        };
        let mut found = object(json!({ "at_ms": millis(measured.at), "connections": measured.connections }));
        if let Some((seen, changed)) = measured.counts {
            found.insert("seen".to_owned(), seen.into());
            found.insert("changed".to_owned(), changed.into());
        }
        self.write(|event| Line {
            event,
            planned_ms: millis(step.at),
            what: match step.edge {
                Edge::Begin => "begin",
                Edge::End => "end",
            },
            fault: Some(step.fault),
            occurrence: Some(step.occurrence),
            action: Some(step.action.word()),
            parameters: &parameters,
            measured: &found,
        });
    }

    fn write<'a>(&mut self, line: impl FnOnce(u64) -> Line<'a>) {
        let line = line(self.next);
        self.next += 1;
        let Some(out) = &mut self.out else { return };
        let written = serde_json::to_writer(&mut *out, &line)
            .map_err(std::io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush());
        if let Err(error) = written {
            tracing::error!(%error, "the event log cannot be written; the script goes on without it");
            self.out = None;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// What the fault was asked for, and the choices that the seed has made for it.
fn parameters(step: &Planned) -> Map<String, Value> {
    let mut all = of_action(step);
    if let Some(lasts) = step.lasts {
        all.insert("for_ms".to_owned(), millis(lasts).into());
    }
    all
}

fn of_action(step: &Planned) -> Map<String, Value> {
    let chosen = |percent: u8| json!({ "percent": percent, "first": step.chance.first_hits(percent) });
    object(match step.action {
        Action::Refuse(connections) => json!({ "connections": format!("{connections:?}").to_lowercase() }),
        Action::Cut { by, mid_packet } => {
            json!({ "by": if by == Ending::Fin { "fin" } else { "rst" }, "mid_packet": mid_packet })
        }
        Action::Slow { method, delay } => json!({ "method": method, "delay_ms": millis(delay) }),
        Action::NoAnswer { method } => json!({ "method": method }),
        Action::Status { method, code, retry_after } => {
            json!({ "method": method, "code": code, "retry_after_s": retry_after.as_secs() })
        }
        Action::Sdp(fault) => json!({ "kind": format!("{fault:?}") }),
        Action::Sessions { max, code } => json!({ "max": max, "code": code }),
        Action::SessionTimeout { timeout, kept } => {
            json!({ "timeout_ms": millis(timeout), "kept_by": if kept { "requests" } else { "nothing" } })
        }
        Action::Reports { reports: Reports::None, .. } => json!({ "clock": "none" }),
        Action::Reports { reports, seconds } => {
            json!({ "clock": format!("{reports:?}").to_lowercase(), "seconds": seconds })
        }
        Action::Loss { percent } | Action::Duplicate { percent } => chosen(percent),
        Action::Reorder { percent, by } => {
            let mut all = object(chosen(percent));
            all.insert("by".to_owned(), by.into());
            Value::Object(all)
        }
        Action::Delay { delay, jitter } => json!({ "delay_ms": millis(delay), "jitter_ms": millis(jitter) }),
        Action::Bandwidth { kbit } => json!({ "kbit": kbit }),
        Action::Stall | Action::HalfOpen | Action::Garbage | Action::Marker | Action::Picture(_) => json!({}),
    })
}
