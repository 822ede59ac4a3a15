//! Figures: medians, high percentiles, and the table with each bar beside what was measured.

use std::fmt::Write as _;
use std::path::Path;

/// The value below which `percent` of the samples lie.
pub fn percentile(samples: &[f64], percent: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() as f64 * percent / 100.0) as usize;
    sorted[index.min(sorted.len() - 1)]
}

pub fn median(samples: &[f64]) -> f64 {
    percentile(samples, 50.0)
}

/// One line of the table.
pub struct Line {
    pub what: String,
    pub ours: f64,
    pub unit: &'static str,
    /// The limit or peer measured in the same run, with its name.
    pub beside: Option<(f64, &'static str)>,
    pub bar: Bar,
}

/// What a line is held against.
pub enum Bar {
    /// At most so much, in the line's unit.
    AtMost(f64),
    /// At most so many times what stands beside it.
    Times(f64),
    /// Shown only.
    None,
}

impl Line {
    fn ratio(&self) -> Option<f64> {
        self.beside.map(|(beside, _)| self.ours / beside)
    }

    pub fn is_met(&self) -> bool {
        match self.bar {
            Bar::AtMost(limit) => self.ours <= limit,
            Bar::Times(limit) => self.ratio().is_some_and(|ratio| ratio <= limit),
            Bar::None => true,
        }
    }

    fn bar_words(&self) -> String {
        match self.bar {
            Bar::AtMost(limit) => format!("<= {limit} {}", self.unit),
            Bar::Times(limit) => format!("<= {limit} x"),
            Bar::None => String::new(),
        }
    }
}

/// Prints the table; says how many bars were missed.
pub fn print(lines: &[Line]) -> usize {
    println!("{:<62} {:>10}  {:<24} {:>7}  {:<12} met", "what", "ours", "beside", "ratio", "bar");
    for line in lines {
        let beside = line.beside.map_or(String::new(), |(value, name)| format!("{value:.2} {name}"));
        let ratio = line.ratio().map_or(String::new(), |ratio| format!("{ratio:.2} x"));
        let met = match (&line.bar, line.is_met()) {
            (Bar::None, _) => "",
            (_, true) => "yes",
            (_, false) => "NO",
        };
        let ours = format!("{:.2} {}", line.ours, line.unit);
        println!("{:<62} {ours:>10}  {beside:<24} {ratio:>7}  {:<12} {met}", line.what, line.bar_words());
    }
    lines.iter().filter(|line| !line.is_met()).count()
}

/// Writes the lines as JSON.
pub fn save(path: &Path, lines: &[Line]) -> std::io::Result<()> {
    let mut text = String::from("[\n");
    for (index, line) in lines.iter().enumerate() {
        let (beside, name) = line.beside.map_or((String::from("null"), ""), |(value, name)| (value.to_string(), name));
        let comma = if index + 1 == lines.len() { "" } else { "," };
        // The words are this program's own: nothing in them needs escaping.
        writeln!(
            text,
            "  {{\"what\": \"{}\", \"ours\": {}, \"unit\": \"{}\", \"beside\": {beside}, \"beside_is\": \"{name}\", \
             \"bar\": \"{}\", \"met\": {}}}{comma}",
            line.what,
            line.ours,
            line.unit,
            line.bar_words(),
            line.is_met()
        )
        .expect("writing to a string");
    }
    text.push_str("]\n");
    std::fs::create_dir_all(path.parent().expect("a file in a folder"))?;
    std::fs::write(path, text)
}
