//! The manuals say what the code does: exit codes, states, reasons, sizes.

use std::path::Path;

use camring::exit::Exit;
use camring::journal::KINDS;
use camring_ring::layout::Layout;
use camring_ring::{Reason, State};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn manual() -> String {
    std::fs::read_to_string(root().join("docs/operations.md")).unwrap()
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

#[test]
fn the_manual_and_the_catalogue_name_every_kind_of_event() {
    let plain = |cell: &str| cell.trim_matches('`').to_owned();
    let documented: Vec<[String; 3]> =
        rows(&manual(), "## Journal").iter().map(|row| [plain(row[0]), plain(row[1]), plain(row[2])]).collect();
    let kinds: Vec<[String; 3]> =
        KINDS.iter().map(|kind| [kind.name, kind.id, kind.meaning].map(str::to_owned)).collect();
    assert_eq!(documented, kinds);
    let catalogue = std::fs::read_to_string(root().join("systemd/camring.catalog")).unwrap();
    let ids: Vec<&str> = catalogue.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
    assert_eq!(ids, KINDS.iter().map(|kind| kind.id).collect::<Vec<_>>());
    for (kind, entry) in KINDS.iter().zip(catalogue.split("\n-- ").skip(1)) {
        assert!(entry.contains(&format!(": {}\nDefined-By: camring\n", kind.meaning)), "{entry}");
        let (_, advice) = entry.split_once("operations.md\n\n").expect("a text");
        assert!(advice.trim().len() > 20, "{entry}");
    }
}

/// Every source file that may hold a test, as one text.
fn tests_of_the_project() -> String {
    let mut text = String::new();
    let mut folders: Vec<_> =
        ["src", "tests", "ring/src", "ring/tests", "python/tests", "capi/tests", "ring/model/src", "ring/model/tests"]
            .map(|folder| root().join(folder))
            .into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "py") {
                text += &std::fs::read_to_string(&path).unwrap();
            }
        }
    }
    text
}

#[test]
fn every_test_that_the_promises_and_the_soaks_name_exists() {
    let promises = std::fs::read_to_string(root().join("docs/promises.md")).unwrap();
    let soaks = std::fs::read_to_string(root().join("scripts/soak")).unwrap();
    let is_test_name = |word: &&str| word.matches('_').count() >= 3 && !word.contains(['-', '/', ' ', '.', '=']);
    let quoted = promises.lines().filter(|line| line.starts_with("| ")).flat_map(|line| line.split('`'));
    let listed = soaks
        .lines()
        .filter_map(|line| line.split(" | ").nth(2))
        .map(|test| test.trim().rsplit("::").next().unwrap_or_default());
    let named: Vec<&str> = quoted.chain(listed).filter(is_test_name).collect();
    assert!(named.len() > 40, "only {} tests are named", named.len());
    let code = tests_of_the_project();
    let missing: Vec<&&str> = named
        .iter()
        .filter(|name| !code.contains(&format!("fn {name}(")) && !code.contains(&format!("def {name}(")))
        .collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

/// Words that are the first string of one of these calls, in the code of a file.
fn words_after(file: &Path, openings: &[&str]) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    // Where something else than a word is the first argument, the word is somewhere else.
    let word = |rest: &str| rest.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned);
    openings.iter().flat_map(|opening| code.split(opening).skip(1).filter_map(word)).collect()
}

#[test]
fn the_manual_lists_every_cause_that_doctor_names() {
    let calls = ["Finding::ok(", "Finding::warn(", "Finding::fail(", "=> of("];
    let folder = |name: &str| std::fs::read_dir(root().join(name)).unwrap().map(|entry| entry.unwrap().path());
    let files = folder("src/cli/doctor")
        .chain(folder("src/diagnosis"))
        .chain(["src/cli/doctor.rs", "src/cli/visits.rs", "src/diagnosis.rs"].map(|name| root().join(name)));
    let mut causes: std::collections::BTreeSet<String> = files.flat_map(|file| words_after(&file, &calls)).collect();
    let table = std::fs::read_to_string(root().join("src/diagnosis/reasons.rs")).unwrap();
    causes.extend(
        table
            .split("(Reason::")
            .skip(1)
            .filter_map(|row| Some(row.split_once(", (\"")?.1.split('"').next()?.to_owned())),
    );
    assert!(causes.len() > 50, "only {} causes were found: {causes:?}", causes.len());
    let text = manual();
    let listed: Vec<&str> =
        rows(&text, "## Diagnosis: `camring doctor`").iter().flat_map(|row| row[0].split('`')).collect();
    let missing: Vec<&String> = causes.iter().filter(|cause| !listed.contains(&cause.as_str())).collect();
    assert!(missing.is_empty(), "docs/operations.md does not list {missing:?}");
}
