//! docs/segment.md as the tests read it: headings, tables, fields by name.
#![allow(dead_code)]

use std::collections::BTreeMap;

/// The normative text.
pub fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/segment.md");
    std::fs::read_to_string(path).expect("the normative text is in docs/")
}

/// The part of the document under a heading, up to the next heading of the same or a higher level.
pub fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let level = heading.bytes().take_while(|byte| *byte == b'#').count();
    let start = text.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}")) + 1;
    let body = &text[start + heading.len()..];
    let mut end = 0;
    for line in body.split_inclusive('\n') {
        let hashes = line.bytes().take_while(|byte| *byte == b'#').count();
        if (1..=level).contains(&hashes) && line.as_bytes().get(hashes) == Some(&b' ') {
            break;
        }
        end += line.len();
    }
    &body[..end]
}

/// Cells of every table row that begins with a number.
pub fn rows(text: &str) -> impl Iterator<Item = (u64, Vec<&str>)> {
    text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").map(|cell| cell.trim_end_matches(" |")).collect();
        let first = cells.first()?;
        let number = match first.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok()?,
            None => first.parse().ok()?,
        };
        Some((number, cells))
    })
}

/// A type as the document writes it: `u32`, `u8[64]`, `histogram`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kind {
    pub base: String,
    pub count: u64,
}

impl Kind {
    pub fn parse(word: &str) -> Self {
        let (base, count) = match word.split_once('[') {
            Some((base, rest)) => (base, rest.trim_end_matches(']').parse().expect("a count")),
            None => (word, 1),
        };
        Self { base: base.to_owned(), count }
    }

    /// Bytes of one element.
    pub fn width(&self) -> u64 {
        match self.base.as_str() {
            "u8" => 1,
            "u16" => 2,
            "u32" | "f32" => 4,
            "u64" | "i64" => 8,
            "histogram" => 18 * 8,
            other => panic!("unknown type {other}"),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.width() * self.count
    }
}

/// A field of a table: where it is and what it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Field {
    pub offset: u64,
    pub kind: Kind,
}

/// The fields that the tables under a heading define, by name.
pub fn fields(text: &str, heading: &str) -> BTreeMap<String, Field> {
    let named = rows(section(text, heading)).filter(|(_, cells)| cells[2].starts_with('`'));
    let field = |(offset, cells): (u64, Vec<&str>)| {
        (cells[2].trim_matches('`').to_owned(), Field { offset, kind: Kind::parse(cells[1]) })
    };
    named.map(field).collect()
}

/// Number and word of every row of the table under a heading that has the column.
pub fn words(text: &str, heading: &str, column: &str) -> Vec<(u64, String)> {
    let body = section(text, heading);
    let table = &body[body.find(&format!("| {column} |")).expect("a table")..];
    let table = &table[..table.find("\n\n").unwrap_or(table.len())];
    rows(table).map(|(number, cells)| (number, cells[1].trim_matches('`').to_owned())).collect()
}
