//! include/camring.h is what src/ says, and its numbers are those of camring-ring.

use std::path::{Path, PathBuf};

use camring_ring::{Fit, FrameFlags, PixelFormat, Reason, State, TimeSource};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn committed() -> PathBuf {
    root().join("include/camring.h")
}

fn header() -> String {
    std::fs::read_to_string(committed()).expect("include/camring.h")
}

/// The order of the header: numbers first, then what uses them.
const SOURCES: [&str; 7] = ["error", "words", "wait", "options", "frame", "info", "api"];

fn generated() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml");
    let builder = SOURCES.iter().fold(cbindgen::Builder::new().with_config(config), |builder, name| {
        builder.with_src(root().join(format!("src/{name}.rs")))
    });
    let bindings = builder.with_src(root().join("src/handles.rs")).generate().expect("the sources can be read");
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).expect("UTF-8")
}

#[test]
fn the_committed_header_is_the_one_that_the_sources_make() {
    let wanted = generated();
    if std::env::var_os("CAMRING_BLESS").is_some() {
        std::fs::write(committed(), &wanted).unwrap();
    }
    assert!(
        header() == wanted,
        "include/camring.h is not what src/ makes; look at the change that \
         `CAMRING_BLESS=1 cargo test --release -p camring-capi --test header` makes, and commit it"
    );
}

/// The numbers of one enum of the header, in its order.
fn numbers(name: &str) -> Vec<(String, i64)> {
    let text = header();
    let (_, rest) = text.split_once(&format!("\nenum {name} {{\n")).unwrap_or_else(|| panic!("no enum {name}"));
    let (body, _) = rest.split_once("\n};").expect("its end");
    let lines = body.lines().map(str::trim).filter_map(|line| line.strip_suffix(','));
    let pairs = lines.filter_map(|line| line.split_once(" = "));
    pairs.map(|(word, number)| (word.to_owned(), parse(number))).collect()
}

fn parse(number: &str) -> i64 {
    match number.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).unwrap(),
        None => number.parse().unwrap_or_else(|_| panic!("{number} is no number")),
    }
}

/// What the header calls the words of camring-ring.
fn wanted<'a>(prefix: &str, words: impl Iterator<Item = (&'a str, i64)>) -> Vec<(String, i64)> {
    words.map(|(word, code)| (format!("{prefix}_{}", word.to_uppercase().replace('-', "_")), code)).collect()
}

macro_rules! words_of {
    ($enum:ident) => {
        $enum::ALL.iter().map(|value| (value.word().expect("a known value has a word"), i64::from(value.code())))
    };
}

#[test]
fn the_headers_numbers_are_those_of_the_layout() {
    assert_eq!(numbers("camring_pixfmt"), wanted("CAMRING_PIXFMT", words_of!(PixelFormat)));
    assert_eq!(numbers("camring_state"), wanted("CAMRING_STATE", words_of!(State)));
    assert_eq!(numbers("camring_reason"), wanted("CAMRING_REASON", words_of!(Reason)));
    assert_eq!(numbers("camring_time_source"), wanted("CAMRING_TIME_SOURCE", words_of!(TimeSource)));
    assert_eq!(numbers("camring_fit"), wanted("CAMRING_FIT", words_of!(Fit)));
    let flags = FrameFlags::WORDS.iter().enumerate().map(|(bit, word)| (*word, 1 << bit));
    assert_eq!(numbers("camring_flag"), wanted("CAMRING_FLAG", flags));
}

#[test]
fn there_are_at_most_a_dozen_functions() {
    let text = header();
    let mut names: Vec<&str> = text
        .lines()
        // What is written out in the header is no function of the library.
        .filter(|line| !line.starts_with([' ', '*', '/']) && !line.starts_with("static inline"))
        .filter_map(|line| line.split_once('(').map(|(before, _)| before))
        .filter_map(|before| before.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("camring_"))
        .collect();
    names.dedup();
    let wanted = "abi_version attach detach info latest next lease valid release wait wait_any strerror";
    assert_eq!(names.join(" ").replace("camring_", ""), wanted);
}
