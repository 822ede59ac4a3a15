//! `camring list`: the rings on this machine, one line each.
//!
//! The keys of `--json` are those of [`RingReport`](crate::report::RingReport); the output is one array.

use camring_ring::{ShmDir, rings};
use comfy_table::{Cell, ContentArrangement, Table};

use super::Global;
use super::output::{Reading, emit_json, emit_line, grade_colour, mount_failure, use_colour};
use crate::exit::Failure;
use crate::listing::{self, Line};
use crate::report::{Grade, RingReport};
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

/// Prints the list.
///
/// # Errors
///
/// When the memory mount cannot be read.
pub fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let shm = ShmDir::new(&global.shm_dir);
    let names = rings(&shm).map_err(|e| mount_failure(&global.shm_dir, e))?;
    let owner = args.reading.owner();
    let lines: Vec<Line> = names.iter().filter_map(|name| listing::line(&shm, name, owner)).collect();
    let _ = if args.json {
        emit_json(&lines)?
    } else if lines.is_empty() {
        emit_line(&format!("no rings in {}", global.shm_dir.display()))?
    } else {
        emit_line(&table(&lines, use_colour()).trim_fmt())?
    };
    Ok(())
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
            let mut cells = vec![Cell::new(name), Cell::new("unreadable").fg(grade_colour(Grade::Broken))];
            cells.extend(std::iter::repeat_with(|| Cell::new("-")).take(8));
            cells.push(Cell::new(error));
            cells
        }
    }
}

fn ring_row(report: &RingReport) -> Vec<Cell> {
    let mut cells = vec![
        Cell::new(&report.name),
        Cell::new(report.state_words()).fg(grade_colour(report.grade())),
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
