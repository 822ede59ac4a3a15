//! The conformance vectors of docs/vectors/, read by a C program: every case gives exactly what it says.

mod common;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use camring_ring::{Fit, FrameFlags, PixelFormat, TimeSource};
use common::{command, mount, program, root, run};
use serde_json::Value;

/// What the vectors ask and the C library does not tell: other calls, and numbers of the daemon's own.
const NOT_IN_C: [&str; 6] = ["config.builder", "status.bytes", "status.lag_ns_max", "status.packets", "at", "held"];

/// Makes the file of a case where `attach` looks for it.
fn make(case: &Value, shm: &Path) {
    let mut bytes = vec![0u8; usize::try_from(case["file_bytes"].as_u64().unwrap()).unwrap()];
    for chunk in case["chunks"].as_array().unwrap() {
        let (offset, hex) = (chunk[0].as_u64().unwrap() as usize, chunk[1].as_str().unwrap());
        for (index, pair) in hex.as_bytes().chunks(2).enumerate() {
            bytes[offset + index] = u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        }
    }
    fs::write(shm.join("camring.yard"), bytes).unwrap();
}

/// What the C program says of a case.
fn told(case: &Value) -> HashMap<String, String> {
    let shm = mount();
    make(case, shm.path());
    let out = run(&mut command(&program("tests/programs/vectors.c"), shm.path()));
    let pairs = out.lines().map(|line| line.split_once('=').unwrap_or_else(|| panic!("{line:?}")));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// The numbers of camring.h for the words of the vectors.
fn code(word: &str) -> &'static str {
    match word {
        "ok" => "0",
        "not_ready" | "layout_mismatch" => "-7",
        "superseded" => "-8",
        "removed" => "-9",
        "no_frame" => "-11",
        "overrun" => "-13",
        "unknown_format" => "-15",
        "corrupt" => "-16",
        "lease_unavailable" => "-18",
        other => panic!("the vectors have the new word {other}"),
    }
}

/// A field as the C program prints it.
fn printed(field: &str, value: &Value) -> String {
    let number = |found: Option<u64>| found.unwrap_or_else(|| panic!("{field}: {value} is no known word")).to_string();
    match (field, value) {
        ("latest.pixfmt" | "latest.source_pixfmt", Value::String(word)) => {
            number(PixelFormat::from_word(word).map(|format| u64::from(format.code())))
        }
        ("latest.time_source", Value::String(word)) => number(TimeSource::from_word(word).map(|s| u64::from(s.code()))),
        ("latest.fit", Value::String(word)) => number(Fit::from_word(word).map(|fit| u64::from(fit.code()))),
        (_, Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    }
}

/// What one case asks that is not as it should be.
struct Judge {
    told: HashMap<String, String>,
    wrong: Vec<String>,
    asked: BTreeSet<String>,
}

impl Judge {
    fn same(&mut self, key: &str, expected: &str) {
        self.asked.insert(key.to_owned());
        let found = self.told.get(key).map_or("nothing", String::as_str);
        if found != expected {
            self.wrong.push(format!("{key} is {found}, expected {expected}"));
        }
    }

    fn contains(&mut self, key: &str, words: &Value) {
        let found = self.told.get(key).cloned().unwrap_or_default();
        let words = words.as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str);
        self.wrong
            .extend(words.filter(|word| !found.contains(word)).map(|word| format!("{key} {found:?} lacks {word}")));
    }

    fn read(&mut self, call: &str, expect: &Value) {
        if let Some(word) = expect.as_str().or_else(|| expect["error"].as_str()) {
            self.same(call, code(word));
            self.contains(&format!("{call}.text"), &expect["text"]);
            let details = [&expect["state"], &expect["reason"]].into_iter().filter(|word| word.is_string());
            self.contains(&format!("{call}.text"), &Value::Array(details.cloned().collect()));
            return;
        }
        self.same(call, "0");
        self.same(&format!("{call}.whole"), "1");
        for (key, value) in expect.as_object().expect("fields") {
            match key.as_str() {
                "planes" => self.planes(value.as_array().expect("planes")),
                "flags" => self.flags(value.as_array().expect("flags")),
                key => self.same(&format!("{call}.{key}"), &printed(&format!("{call}.{key}"), value)),
            }
        }
    }

    fn planes(&mut self, planes: &[Value]) {
        for (index, plane) in planes.iter().enumerate() {
            let row = plane["last_row"].as_str().expect("hex digits");
            self.same(&format!("latest.planes.{index}"), &format!("{} x {} {row}", plane["row_bytes"], plane["rows"]));
        }
    }

    /// Unknown bits may be set besides.
    fn flags(&mut self, words: &[Value]) {
        let found: u32 = self.told["latest.flags"].parse().unwrap();
        let known: Vec<&str> = FrameFlags(found).words().collect();
        let expected: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        if known != expected {
            self.wrong.push(format!("latest.flags are {known:?}, expected {expected:?}"));
        }
    }

    fn fields(&mut self, section: &str, expect: &Value) {
        for (key, value) in expect.as_object().into_iter().flatten() {
            let field = format!("{section}.{key}");
            if !NOT_IN_C.contains(&field.as_str()) {
                self.same(&field, &printed(&field, value));
            }
        }
    }
}

fn judge(case: &Value, asked: &mut BTreeSet<String>) -> Vec<String> {
    let mut judge = Judge { told: told(case), wrong: Vec::new(), asked: BTreeSet::new() };
    for (key, expect) in case["expect"].as_object().expect("expectations") {
        match key.as_str() {
            "attach" => judge.same("attach", code(expect.as_str().expect("a word"))),
            "text" => judge.contains("attach.text", expect),
            "latest" | "lease" => judge.read(key, expect),
            "status" | "config" => judge.fields(key, expect),
            other => assert!(NOT_IN_C.contains(&other), "the vectors ask for the new thing {other}"),
        }
    }
    if judge.told["attach"] == "0" {
        judge.same("daemon", "0");
    }
    asked.append(&mut judge.asked);
    judge.wrong
}

#[test]
fn c_reads_every_conformance_vector_as_it_says() {
    let mut asked = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(root().join("../docs/vectors")).expect("the vectors") {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        count += 1;
        let case: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        wrong.extend(judge(&case, &mut asked).into_iter().map(|what| format!("{}: {what}", path.display())));
    }
    assert!(wrong.is_empty(), "{} differences in {count} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 60 && asked.len() >= 60, "{count} cases asked for {} things", asked.len());
    println!("{count} cases, {} different fields", asked.len());
}
