//! `camring list`: the rings on this machine, one line each.
//!
//! The keys of `--json` are those of [`RingReport`](crate::report::RingReport); the output is one array.

use camring_ring::{AttachError, RingName, ShmDir, rings};
use comfy_table::{Cell, Color, ContentArrangement, Table};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::Global;
use super::output::{Reading, emit_json, emit_line, mount_failure, use_colour};
use crate::exit::Failure;
use crate::report::{Mood, RingReport};
use camring_ring::mebibytes;

/// List the rings on this machine: state, size, frame rate, age of the newest frame, readers.
///
/// Works when no daemon runs. A ring that cannot be read is a line with its error.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
    /// Whose rings.
    #[command(flatten)]
    reading: Reading,
}

/// A line of the list.
#[derive(Debug)]
enum Line {
    Ring(Box<RingReport>),
    Unreadable(String, AttachError),
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Ring(report) => report.serialize(serializer),
            Self::Unreadable(name, error) => {
                let mut map = serializer.serialize_map(Some(RingReport::KEYS.len()))?;
                for key in RingReport::KEYS {
                    match key {
                        "name" => map.serialize_entry(key, name)?,
                        "error" => map.serialize_entry(key, &error.to_string())?,
                        _ => map.serialize_entry(key, &None::<()>)?,
                    }
                }
                map.end()
            }
        }
    }
}

/// Prints the list.
///
/// # Errors
///
/// When the memory mount cannot be read.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let names = rings(&ShmDir::new(&global.shm_dir)).map_err(|e| mount_failure(&global.shm_dir, e))?;
    let lines: Vec<Line> = names.iter().filter_map(|name| look(args, global, name)).collect();
    let _ = if args.json {
        emit_json(&lines)?
    } else if lines.is_empty() {
        emit_line(&format!("no rings in {}", global.shm_dir.display()))?
    } else {
        emit_line(&table(&lines, use_colour()).trim_fmt())?
    };
    Ok(())
}

/// `None` for a ring that went away between the listing and the look.
fn look(args: &Args, global: &Global, name: &RingName) -> Option<Line> {
    match args.reading.look(global, name.as_str()) {
        Ok(ring) => Some(Line::Ring(Box::new(RingReport::observe(&ring, name.as_str())))),
        Err(AttachError::NotFound { .. } | AttachError::Removed(_)) => None,
        Err(error) => Some(Line::Unreadable(name.to_string(), error)),
    }
}

fn table(lines: &[Line], colour: bool) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.force_no_tty();
    if colour {
        table.enforce_styling();
    }
    let heads = ["CAMERA", "STATE", "SIZE", "FMT", "SLOTS", "RING", "FPS", "AGE", "SEQ", "READERS"];
    table.set_header(heads.into_iter().chain(notes_head(lines)));
    for line in lines {
        table.add_row(row(line));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The notes have a column only when there are any, and it has no heading.
fn notes_head(lines: &[Line]) -> Option<&'static str> {
    let noted = |line: &Line| match line {
        Line::Ring(report) => !report.note().is_empty(),
        Line::Unreadable(..) => true,
    };
    lines.iter().any(noted).then_some("")
}

fn row(line: &Line) -> Vec<Cell> {
    match line {
        Line::Ring(report) => ring_row(report),
        Line::Unreadable(name, error) => {
            let mut cells = vec![Cell::new(name), Cell::new("unreadable").fg(Color::Red)];
            cells.extend(std::iter::repeat_with(|| Cell::new("-")).take(8));
            cells.push(Cell::new(error));
            cells
        }
    }
}

fn ring_row(report: &RingReport) -> Vec<Cell> {
    let mut cells = vec![
        Cell::new(&report.name),
        Cell::new(report.state_words()).fg(state_colour(report)),
        Cell::new(report.size_text()),
        Cell::new(report.format_text()),
        Cell::new(report.slots),
        Cell::new(mebibytes(report.file_bytes)),
        Cell::new(format!("{:.1}", report.fps)),
        Cell::new(report.age_text()),
        Cell::new(report.seq),
        Cell::new(report.readers),
    ];
    let note = report.note();
    if !note.is_empty() {
        cells.push(Cell::new(note));
    }
    cells
}

fn state_colour(report: &RingReport) -> Color {
    match report.mood() {
        Mood::Calm => Color::Green,
        Mood::Uneasy => Color::Yellow,
        Mood::Bad => Color::Red,
    }
}
