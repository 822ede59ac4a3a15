//! The table again and again, for pipes and files.

use std::time::Instant;

use camring_ring::mebibytes;
use comfy_table::{Cell, ContentArrangement, Table};

use super::Args;
use super::board::{Board, Line};
use super::view::{COLUMNS, cells};
use crate::cli::Global;
use crate::cli::output::{Listener, Wait, emit, grade_colour, use_colour};
use crate::exit::Failure;

/// Prints until it has done so often enough, nobody listens, or a signal comes.
///
/// # Errors
///
/// As [`super::run`].
pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let wait = Wait::new(None).interruptible()?;
    let mut board = Board::new(args, global);
    for number in 1.. {
        let due = Instant::now() + args.interval;
        board.refresh()?;
        let space = if number == 1 { "" } else { "\n" };
        let text = format!("{space}{}\n", table(board.lines(), use_colour()));
        let is_last = args.count.is_some_and(|count| number >= count);
        if emit(text.as_bytes())? == Listener::Gone || is_last {
            break;
        }
        while !wait.is_interrupted() && Instant::now() < due {
            std::thread::sleep(wait.slice().min(due.saturating_duration_since(Instant::now())));
        }
        if wait.is_interrupted() {
            break;
        }
    }
    Ok(())
}

fn table(lines: &[Line], colour: bool) -> String {
    if lines.is_empty() {
        return "no rings".into();
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.force_no_tty();
    if colour {
        table.enforce_styling();
    }
    table.set_header(COLUMNS);
    for line in lines {
        let row = cells(line).into_iter().enumerate().map(|(column, text)| match column {
            1 => Cell::new(text).fg(grade_colour(line.grade())),
            _ => Cell::new(text),
        });
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Memory for people, or `-`.
pub(super) fn memory(bytes: u64) -> String {
    if bytes == 0 { "-".into() } else { mebibytes(bytes) }
}
