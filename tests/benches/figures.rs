//! Figures of a bench: its lines, printed and as JSON in `target/bench/`, in the form that `scripts/bench_figures.py` reads.

use std::path::Path;

use serde::Serialize;

/// One line of the table.
#[derive(Serialize)]
pub struct Line {
    pub goal: &'static str,
    pub group: &'static str,
    pub what: String,
    pub unit: &'static str,
    pub ours: f64,
    /// The limit or the bare step, measured in the same run, and its name.
    pub beside: Option<f64>,
    pub beside_is: &'static str,
    pub bar: Bar,
}

/// What a line is held against.
#[derive(Serialize)]
#[serde(tag = "kind", content = "limit", rename_all = "snake_case")]
pub enum Bar {
    /// At most so many times what stands beside it.
    Times(f64),
    /// At most so much, in the line's unit.
    #[allow(dead_code)] // Each bench is a program of its own and uses its part.
    AtMost(f64),
}

/// Whether `scripts/bench --quick` wants short rounds.
pub fn is_quick() -> bool {
    std::env::var_os("CAMRING_BENCH_QUICK").is_some()
}

/// Processor time of this thread so far, milliseconds: what else the machine does counts as little as it can.
#[allow(dead_code)] // Each bench is a program of its own and uses its part.
pub fn cpu_ms() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints the lines and writes them to `target/bench/NAME.json`.
pub fn finish(name: &str, lines: &[Line]) {
    for line in lines {
        let beside = line.beside.map_or(String::new(), |beside| {
            format!("   {:.2} x {beside:.3} {} ({})", line.ours / beside, line.unit, line.beside_is)
        });
        println!("{:<3} {:<60} {:>8.3} {}{beside}", line.goal, line.what, line.ours, line.unit);
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench").join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(lines).expect("numbers and words");
    let written = std::fs::create_dir_all(file.parent().expect("a folder")).and_then(|()| std::fs::write(&file, text));
    if let Err(error) = written {
        eprintln!("cannot write {}: {error}", file.display());
    }
}
