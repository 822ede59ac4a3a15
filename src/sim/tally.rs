//! The tally of a reader of the simulated camera: what it has seen, and whether all of it was right.

use camring_ring::clock::mono_ns;
use camring_ring::{Frame, age_ns};
use serde::Serialize;

use super::stamp::{self, Stamp, StampError};

/// Counts and times of the frames that one reader has read and checked.
#[derive(Debug, Default)]
pub struct Tally {
    frames_read: u64,
    torn: u64,
    unreadable: u64,
    seq_regressions: u64,
    painted_regressions: u64,
    skipped: u64,
    size: (u32, u32),
    last_seq: u64,
    last_painted: Option<Stamp>,
    ages_ms: Vec<f64>,
    latencies_ms: Vec<f64>,
}

/// What a tally comes to; the object that `demo --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Frames came, and every one was whole, newer than the one before, and carried a newer painted number.
    pub ok: bool,
    /// Frames read.
    pub frames_read: u64,
    /// Frames whose upper and lower stamps differ.
    pub torn: u64,
    /// Frames without a readable stamp.
    pub unreadable: u64,
    /// Frames whose sequence was not above that of the frame before.
    pub seq_regressions: u64,
    /// Frames whose painted number was not above that of the frame before.
    pub painted_regressions: u64,
    /// Frames published and not read.
    pub skipped: u64,
    /// Width, pixels.
    pub width: u32,
    /// Height, pixels.
    pub height: u32,
    /// From the arrival of a frame's last packet to this reader, median, ms.
    pub age_ms_p50: Option<f64>,
    /// The same, 99th percentile.
    pub age_ms_p99: Option<f64>,
    /// From the painted time (the picture is handed to the encoder) to this reader, median, ms.
    pub latency_ms_p50: Option<f64>,
    /// The same, 99th percentile.
    pub latency_ms_p99: Option<f64>,
}

impl Tally {
    /// Checks and counts one frame.
    pub fn add(&mut self, frame: &Frame, pixels: &[u8]) {
        let geometry = &frame.meta.geometry;
        let now_ns = mono_ns();
        self.frames_read += 1;
        self.skipped += frame.skipped;
        self.size = (geometry.width, geometry.height);
        self.ages_ms.push(age_ns(&frame.meta) as f64 / 1e6);
        self.seq_regressions += u64::from(frame.meta.seq.0 <= self.last_seq);
        self.last_seq = frame.meta.seq.0;
        match stamp::read_bgr(pixels, geometry.plane_strides[0] as usize, geometry.width, geometry.height) {
            Ok(stamp) => self.painted(stamp, now_ns),
            Err(StampError::Torn { .. }) => self.torn += 1,
            Err(_) => self.unreadable += 1,
        }
    }

    fn painted(&mut self, stamp: Stamp, now_ns: i64) {
        let same_run = self.last_painted.is_some_and(|last| last.run_id == stamp.run_id);
        let newer = self.last_painted.is_none_or(|last| stamp.number > last.number);
        self.painted_regressions += u64::from(same_run && !newer);
        self.latencies_ms.push((now_ns / 1000 - stamp.mono_us.cast_signed()) as f64 / 1e3);
        self.last_painted = Some(stamp);
    }

    /// Frames counted so far.
    #[must_use]
    pub fn frames_read(&self) -> u64 {
        self.frames_read
    }

    /// A line for people: the newest frame, its age and latency.
    #[must_use]
    pub fn line(&self) -> String {
        let last = |values: &[f64]| values.last().map_or("-".into(), |value| format!("{value:.1} ms"));
        let painted = self.last_painted.map_or("-".into(), |stamp| stamp.number.to_string());
        let (age, latency) = (last(&self.ages_ms), last(&self.latencies_ms));
        format!("frame {:>6}  painted {painted:>6}  age {age:>8}  latency {latency:>8}", self.last_seq)
    }

    /// What it comes to.
    #[must_use]
    pub fn report(&self) -> Report {
        let faults = self.torn + self.unreadable + self.seq_regressions + self.painted_regressions;
        Report {
            ok: self.frames_read > 0 && faults == 0,
            frames_read: self.frames_read,
            torn: self.torn,
            unreadable: self.unreadable,
            seq_regressions: self.seq_regressions,
            painted_regressions: self.painted_regressions,
            skipped: self.skipped,
            width: self.size.0,
            height: self.size.1,
            age_ms_p50: percentile(&self.ages_ms, 50),
            age_ms_p99: percentile(&self.ages_ms, 99),
            latency_ms_p50: percentile(&self.latencies_ms, 50),
            latency_ms_p99: percentile(&self.latencies_ms, 99),
        }
    }
}

/// The value that `percent` of the values do not exceed (nearest rank), rounded to 1 us; `None` without values.
fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map(|value| (value * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (Some(50.0), Some(99.0)));
        assert_eq!((percentile(&[7.0], 50), percentile(&[], 50)), (Some(7.0), None));
    }

    #[test]
    fn a_tally_without_frames_is_not_all_right() {
        assert!(!Tally::default().report().ok);
    }
}
