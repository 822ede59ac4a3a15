//! The manuals say what the code does: exit codes, states, reasons, sizes.

use std::path::Path;

use camring::exit::Exit;
use camring_ring::layout::Layout;
use camring_ring::{Reason, State};

fn manual() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap()
}

/// Rows of the first table under a heading, without its two head lines.
fn rows<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let table = rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    table.skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

fn first_words(text: &str, heading: &str) -> Vec<String> {
    rows(text, heading).iter().map(|row| row[0].trim_matches('`').to_owned()).collect()
}

/// Every exit code; the match makes a new one a compile error here.
fn exit_codes() -> Vec<u8> {
    use Exit::{AlreadyServed, Config, Failure, Layout, NoRing, NoRoom, Permission, Temporary, Unavailable, Usage};
    let all = [Failure, Usage, NoRing, Unavailable, NoRoom, Temporary, Layout, Permission, Config, AlreadyServed];
    for exit in all {
        match exit {
            Failure | Usage | NoRing | Unavailable | NoRoom | Temporary | Layout | Permission | Config
            | AlreadyServed => {}
        }
    }
    std::iter::once(0).chain(all.map(|exit| exit as u8)).collect()
}

#[test]
fn the_manual_lists_every_exit_code() {
    let documented: Vec<u8> =
        rows(&manual(), "## Exit codes").iter().map(|row| row[0].parse().expect("a number")).collect();
    assert_eq!(documented, exit_codes());
}

#[test]
fn the_manual_says_what_to_do_in_every_state_and_for_every_reason() {
    let states: Vec<String> = State::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(first_words(&manual(), "## States"), states);
    let reasons: Vec<String> = Reason::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(first_words(&manual(), "## Reasons"), reasons);
}

#[test]
fn the_manual_states_the_memory_that_rings_take() {
    let mebibytes = |bytes: u64, digits: usize| format!("{:.digits$} MiB", bytes as f64 / 1_048_576.0);
    let text = manual();
    let table = rows(&text, "## Memory");
    assert!(table.len() >= 5, "a table of sizes");
    for row in table {
        let (width, height) = row[0].split_once('x').expect("a size");
        let bytes = width.parse::<u64>().unwrap() * height.parse::<u64>().unwrap() * 3;
        let (three, eight) = (Layout::plan(3, bytes).unwrap(), Layout::plan(8, bytes).unwrap());
        let counted = [mebibytes(eight.slot_stride, 2), mebibytes(three.file_bytes, 1), mebibytes(eight.file_bytes, 1)];
        assert_eq!(row[1..], counted, "{}", row[0]);
    }
    let waiting_room = Layout::plan(8, 65_536).unwrap().file_bytes / 1024;
    assert!(text.contains(&format!("takes {waiting_room} KiB")), "the waiting room takes {waiting_room} KiB");
}
