//! A histogram of latencies of bounded size, for people and as JSON: what `camring watch --latency` collects.

use serde::Serialize;

/// Finest time told apart, ms.
const FIRST_MS: f64 = 0.01;
/// Each class is so many times the one before: percentiles are exact to a twentieth.
const STEP: f64 = 1.05;
/// Up to more than a minute.
const CLASSES: usize = 330;
/// Upper ends of the lines that people see, ms.
const LINES_MS: [f64; 15] = [0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 40.0, 60.0, 100.0, 200.0, 500.0, 1000.0];
const BAR: usize = 40;

/// From when a frame's latency counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The time that the simulated camera paints into the picture, before its encoder.
    Painted,
    /// The arrival of the frame's last packet: what came before it nobody here can know.
    Arrival,
}

/// Times of any number of frames.
#[derive(Debug)]
pub struct Latencies {
    basis: Option<Basis>,
    classes: Vec<u64>,
    count: u64,
    unreadable: u64,
    skipped: u64,
    max_ms: f64,
}

/// What `--json` prints at the end.
#[derive(Debug, Serialize)]
struct Report<'a> {
    event: &'static str,
    ring: &'a str,
    basis: Option<Basis>,
    frames: u64,
    skipped: u64,
    unreadable: u64,
    p50_ms: Option<f64>,
    p90_ms: Option<f64>,
    p99_ms: Option<f64>,
    max_ms: Option<f64>,
    buckets: Vec<Bucket>,
}

/// Frames above the bucket before and at most `le_ms`; the last one has no end.
#[derive(Debug, Serialize)]
struct Bucket {
    le_ms: Option<f64>,
    count: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { basis: None, classes: vec![0; CLASSES], count: 0, unreadable: 0, skipped: 0, max_ms: 0.0 }
    }
}

impl Latencies {
    /// Whether the pixels of the next frame are wanted: for the painted time, and to find out whether there is one.
    #[must_use]
    pub fn wants_pixels(&self) -> bool {
        self.basis != Some(Basis::Arrival)
    }

    /// Adds a frame: `painted_ms` where a time is painted into it, else what passed since its arrival. The first frame
    /// decides which of them all are measured by.
    pub fn add(&mut self, painted_ms: Option<f64>, since_arrival_ms: f64, skipped: u64) {
        let first = if painted_ms.is_some() { Basis::Painted } else { Basis::Arrival };
        self.skipped += skipped;
        let value = match *self.basis.get_or_insert(first) {
            Basis::Painted => painted_ms,
            Basis::Arrival => Some(since_arrival_ms),
        };
        let Some(ms) = value else {
            self.unreadable += 1;
            return;
        };
        self.count += 1;
        self.max_ms = self.max_ms.max(ms);
        self.classes[class_of(ms)] += 1;
    }

    /// The middle of the class below which `percent` of the frames lie.
    fn percentile(&self, percent: u64) -> Option<f64> {
        let wanted = self.count * percent / 100;
        let mut below = 0;
        let class = self.classes.iter().position(|count| {
            below += count;
            below > wanted
        })?;
        Some((FIRST_MS * STEP.powf(class as f64 - 0.5)).min(self.max_ms))
    }

    fn buckets(&self) -> Vec<Bucket> {
        let ends = LINES_MS.iter().copied().map(Some).chain([None]);
        let mut from = 0;
        let bucket = |end: Option<f64>| {
            let to = end.map_or(CLASSES, |ms| class_of(ms) + 1);
            let count = self.classes[from..to].iter().sum();
            from = to;
            Bucket { le_ms: end, count }
        };
        ends.map(bucket).collect()
    }

    /// One object.
    #[must_use]
    pub fn json(&self, ring: &str) -> impl Serialize {
        Report {
            event: "latency",
            ring,
            basis: self.basis,
            frames: self.count,
            skipped: self.skipped,
            unreadable: self.unreadable,
            p50_ms: self.percentile(50),
            p90_ms: self.percentile(90),
            p99_ms: self.percentile(99),
            max_ms: (self.count > 0).then_some(self.max_ms),
            buckets: self.buckets(),
        }
    }

    /// Some lines for people.
    #[must_use]
    pub fn text(&self, ring: &str) -> String {
        let Some(basis) = self.basis else { return format!("{ring}: no frame came") };
        let from = match basis {
            Basis::Painted => "painted by the camera, before its encoder",
            Basis::Arrival => "arrival of the last packet (no time is painted into the picture)",
        };
        let figure = |percent| self.percentile(percent).map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
        let mut lines =
            vec![format!("{ring}: {} frames, {} skipped; from {from} to this reader", self.count, self.skipped)];
        let buckets = self.buckets();
        let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(0).max(1);
        let shown = |bucket: &Bucket| bucket.count > 0;
        let first = buckets.iter().position(shown).unwrap_or(0);
        let last = buckets.iter().rposition(shown).unwrap_or(0);
        for bucket in &buckets[first..=last] {
            let end = bucket.le_ms.map_or("above".to_owned(), |ms| format!("<= {ms} ms"));
            let length = (bucket.count * BAR as u64).div_ceil(most) as usize;
            lines.push(format!("{end:>11} {:>8}  {}", bucket.count, "#".repeat(length)).trim_end().to_owned());
        }
        let max = self.max_ms;
        lines.push(format!("median {}, 90 % {}, 99 % {}, worst {max:.1} ms", figure(50), figure(90), figure(99)));
        if self.unreadable > 0 {
            lines.push(format!("{} frames had no readable time", self.unreadable));
        }
        lines.join("\n")
    }
}

/// The class of a time; a clock that cannot be compared gives the first or the last.
fn class_of(ms: f64) -> usize {
    if ms <= FIRST_MS {
        return 0;
    }
    // Saturates: beyond the last class is the last class.
    ((ms / FIRST_MS).ln() / STEP.ln()).ceil().min((CLASSES - 1) as f64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>) -> Latencies {
        let mut latencies = Latencies::default();
        values.into_iter().for_each(|ms| latencies.add(Some(ms), 0.0, 0));
        latencies
    }

    #[test]
    fn percentiles_are_exact_to_a_twentieth() {
        let latencies = of((1..=1000).map(f64::from));
        for (percent, exact) in [(50, 500.0), (90, 900.0), (99, 990.0)] {
            let found = latencies.percentile(percent).unwrap();
            assert!((found / exact - 1.0).abs() < 0.05, "{percent} %: {found}");
        }
    }

    #[test]
    fn every_frame_is_in_one_bucket() {
        let latencies = of([0.0, 0.4, 0.6, 39.0, 41.0, 5000.0, 1e9]);
        let counts: Vec<u64> = latencies.buckets().iter().map(|bucket| bucket.count).collect();
        assert_eq!(counts.iter().sum::<u64>(), 7);
        assert_eq!((counts[0], counts[1], counts[9], counts[10], counts[15]), (2, 1, 1, 1, 2));
    }

    #[test]
    fn the_first_frame_decides_what_is_measured() {
        let mut painted = of([3.0]);
        painted.add(None, 9.0, 2);
        assert_eq!(
            (painted.basis, painted.count, painted.unreadable, painted.skipped),
            (Some(Basis::Painted), 1, 1, 2)
        );
        let mut arrival = Latencies::default();
        assert!(arrival.wants_pixels());
        arrival.add(None, 9.0, 0);
        assert!(!arrival.wants_pixels());
        assert_eq!((arrival.basis, arrival.count, arrival.max_ms), (Some(Basis::Arrival), 1, 9.0));
    }

    #[test]
    fn the_text_has_a_bar_per_bucket_and_the_percentiles() {
        let text = of([4.0, 4.0, 6.0, 300.0]).text("front");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("front: 4 frames, 0 skipped; from painted"), "{text}");
        assert_eq!(lines[1].trim(), format!("<= 5 ms        2  {}", "#".repeat(40)), "{text}");
        assert!(lines.last().unwrap().contains("worst 300.0 ms"), "{text}");
        assert_eq!(Latencies::default().text("front"), "front: no frame came");
    }
}
