//! From what was heard and seen of a stream to its facts, and those in words.

use camring_ring::Color;
use serde::Serialize;

use super::advice;
use super::onlooker::Seen;
use crate::camera::Found;
use crate::config::Transport;
use crate::config::words::Word;
use crate::pipeline::{Arrived, Heard};

/// Over so long a clock must have been watched before its drift means anything, ns.
const DRIFT_SPAN_NS: i64 = 20_000_000_000;

/// Everything that is said of a camera; the keys are described in `probe.rs`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Facts {
    pub url: String,
    pub transport: String,
    pub transports_tried: Vec<String>,
    pub codec: String,
    pub profile: Option<String>,
    pub level: Option<String>,
    pub chroma: Option<String>,
    pub bit_depth: Option<u32>,
    pub width: u32,
    pub height: u32,
    pub pixel_aspect: Option<String>,
    pub interlaced: bool,
    pub fps: Option<f64>,
    pub fps_stated: Option<f64>,
    pub jitter_ms: Option<f64>,
    pub gop_frames: Option<u32>,
    pub gop_seconds: Option<f64>,
    pub keyframe_bytes: Option<u32>,
    pub b_frames: Option<u32>,
    pub kbit_per_s: Option<f64>,
    pub packets_lost: Option<u64>,
    pub slices: Option<u32>,
    pub marks_slices: bool,
    pub audio: Vec<String>,
    pub color: ColorWords,
    pub clock: Clock,
    pub decoder: String,
    pub decode_ms: Option<f64>,
    pub first_frame_ms: u64,
    pub pictures: usize,
    pub seconds: f64,
    pub advice: Vec<String>,
}

/// A colour description in words.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ColorWords {
    pub matrix: String,
    pub range: String,
    pub primaries: String,
    pub transfer: String,
}

/// The camera's clock against ours.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Clock {
    pub reports: bool,
    pub offset_ms: Option<f64>,
    pub drift_ppm: Option<f64>,
}

impl Facts {
    pub(super) fn new(
        url: String,
        found: &Found,
        seen: &[Seen],
        heard: &Heard,
        asked: Transport,
        tried: Vec<String>,
    ) -> Self {
        let caps = |name: &str| heard.caps.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let pictures = &heard.pictures;
        let fps = rate(pictures).or(found.fps);
        let gop = longest_group(heard);
        let newest = seen.last().copied().unwrap_or_default();
        let span_ns = seen.first().map_or(0, |first| newest.arrival_mono_ns - first.arrival_mono_ns);
        let mut facts = Self {
            url,
            transport: way(asked, heard.datagrams).to_owned(),
            transports_tried: tried,
            codec: found.codec.clone(),
            profile: caps("profile"),
            level: caps("level"),
            chroma: caps("chroma-format"),
            bit_depth: caps("bit-depth-luma").and_then(|bits| bits.parse().ok()),
            width: found.width,
            height: found.height,
            pixel_aspect: (newest.pixel_aspect.0 > 0)
                .then(|| format!("{}:{}", newest.pixel_aspect.0, newest.pixel_aspect.1)),
            interlaced: seen.iter().any(|picture| picture.interlaced),
            fps: fps.map(hundredths),
            fps_stated: caps("framerate").and_then(|text| fraction(&text)),
            jitter_ms: jitter_ms(pictures).map(hundredths),
            gop_frames: gop,
            gop_seconds: gop.zip(fps).map(|(frames, fps)| hundredths(f64::from(frames) / fps)),
            keyframe_bytes: heard.units.iter().filter(|unit| unit.keyframe).map(|unit| unit.bytes).max(),
            b_frames: (pictures.len() > 2).then(|| reordered(pictures)),
            kbit_per_s: kilobits(pictures, fps).map(f64::round),
            packets_lost: (!pictures.is_empty()).then_some(heard.lost),
            slices: pictures.iter().map(|picture| picture.slices).max().filter(|slices| *slices > 0),
            marks_slices: heard.marks_slices || marks(pictures),
            audio: heard.audio.clone(),
            color: words(newest.color),
            clock: clock(seen),
            decoder: found.decoder.clone(),
            decode_ms: decode_ms(seen).map(hundredths),
            first_frame_ms: u64::try_from(found.first_frame.as_millis()).unwrap_or(u64::MAX),
            pictures: seen.len(),
            seconds: hundredths(span_ns as f64 / 1e9),
            advice: Vec::new(),
        };
        facts.advice = advice::of(&facts);
        facts
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |label: &str, text: String| out.push_str(&format!("{label:<11}{text}\n"));
        let or = |value: Option<String>| value.unwrap_or_else(|| "not known".into());
        line("camera", format!("{} over {}", self.url, self.transport));
        let kind: Vec<String> = [
            self.profile.as_ref().map(|profile| format!("profile {profile}")),
            self.level.as_ref().map(|level| format!("level {level}")),
            self.chroma.clone(),
            self.bit_depth.map(|bits| format!("{bits} bits")),
            self.interlaced.then(|| "interlaced".to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect();
        line(
            "stream",
            format!("{} {}x{} {}", self.codec, self.width, self.height, kind.join(", ")).trim_end().to_owned(),
        );
        let stated = self.fps_stated.map(|fps| format!(" (it says {fps})")).unwrap_or_default();
        let jitter = self.jitter_ms.map(|ms| format!(", arriving within {ms} ms of their time")).unwrap_or_default();
        line("rate", format!("{} fps{stated}{jitter}", or(self.fps.map(|fps| fps.to_string()))));
        let gop = self
            .gop_frames
            .zip(self.gop_seconds)
            .map(|(frames, s)| format!("a keyframe every {frames} pictures ({s} s)"));
        let b = self
            .b_frames
            .map(|count| if count == 0 { ", no B-frames".into() } else { format!(", {count} B-frames in a row") });
        line("pictures", format!("{}{}", or(gop), b.unwrap_or_default()));
        let lost = self.packets_lost.map(|lost| format!(", {lost} packets lost")).unwrap_or_default();
        line("bit rate", format!("{} kbit/s{lost}", or(self.kbit_per_s.map(|rate| rate.to_string()))));
        if let Some(slices) = self.slices {
            let marked = if self.marks_slices { ", each marked as if it were a picture" } else { "" };
            line("slices", format!("{slices} a picture{marked}"));
        }
        line(
            "colour",
            format!(
                "{} {}, primaries {}, transfer {}",
                self.color.matrix, self.color.range, self.color.primaries, self.color.transfer
            ),
        );
        line(
            "audio",
            if self.audio.is_empty() { "none".into() } else { format!("{} (left alone)", self.audio.join(", ")) },
        );
        line("clock", self.clock.text());
        let ms = self.decode_ms.map(|ms| format!(", {ms} ms a picture")).unwrap_or_default();
        line("decoder", format!("{}{ms}, first picture after {} ms", self.decoder, self.first_frame_ms));
        line("watched", format!("{} pictures in {} s", self.pictures, self.seconds));
        for advice in &self.advice {
            line("advice", advice.clone());
        }
        out.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
    }
}

impl Clock {
    fn text(&self) -> String {
        let Some(offset) = self.offset_ms else {
            return "no sender reports: capture times of this camera are not known".into();
        };
        let side = if offset < 0.0 { "behind" } else { "ahead of" };
        let drift = self.drift_ppm.map(|ppm| format!(", drifting by {ppm} ppm")).unwrap_or_default();
        format!("sender reports, {} ms {side} this host{drift}", offset.abs())
    }
}

fn way(asked: Transport, datagrams: Option<bool>) -> &'static str {
    match (asked, datagrams) {
        (Transport::Auto, Some(true)) => "udp",
        (Transport::Auto, _) => "tcp",
        (asked, _) => asked.word(),
    }
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn fraction(text: &str) -> Option<f64> {
    let (frames, seconds) = text.split_once('/')?;
    let (frames, seconds): (f64, f64) = (frames.trim().parse().ok()?, seconds.trim().parse().ok()?);
    (frames > 0.0 && seconds > 0.0).then(|| hundredths(frames / seconds))
}

/// Times of pictures on the camera's media clock, seconds since the first one.
fn media_times(pictures: &[Arrived]) -> Vec<f64> {
    let Some(first) = pictures.first() else { return Vec::new() };
    let since = |picture: &Arrived| picture.rtp_timestamp.wrapping_sub(first.rtp_timestamp).cast_signed();
    pictures.iter().map(|picture| f64::from(since(picture)) / 90_000.0).collect()
}

fn span(times: &[f64]) -> f64 {
    let least = times.iter().copied().fold(f64::INFINITY, f64::min);
    times.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least
}

fn rate(pictures: &[Arrived]) -> Option<f64> {
    let times = media_times(pictures);
    let span = span(&times);
    (times.len() > 1 && span > 0.0).then(|| (times.len() - 1) as f64 / span)
}

/// Most pictures in a row that are older than one before them.
fn reordered(pictures: &[Arrived]) -> u32 {
    let (mut newest, mut run, mut longest) = (f64::NEG_INFINITY, 0, 0);
    for time in media_times(pictures) {
        run = if time < newest { run + 1 } else { 0 };
        newest = newest.max(time);
        longest = longest.max(run);
    }
    longest
}

/// From the 5th to the 95th percentile of arrival against the media clock.
fn jitter_ms(pictures: &[Arrived]) -> Option<f64> {
    let first = pictures.first()?;
    let mut newest = f64::NEG_INFINITY;
    let mut delays: Vec<f64> = media_times(pictures)
        .into_iter()
        .zip(pictures)
        .filter_map(|(time, picture)| {
            // What is sent out of order arrives late on purpose.
            let in_order = time > newest;
            newest = newest.max(time);
            in_order.then(|| (picture.arrival_ns - first.arrival_ns) as f64 / 1e6 - time * 1000.0)
        })
        // The start comes in a burst.
        .skip(5)
        .collect();
    delays.sort_unstable_by(f64::total_cmp);
    let at = |percent: usize| delays.get(delays.len() * percent / 100).copied();
    Some(at(95)? - at(5)?)
}

fn kilobits(pictures: &[Arrived], fps: Option<f64>) -> Option<f64> {
    let bytes: u64 = pictures.iter().map(|picture| u64::from(picture.bytes)).sum();
    fps.filter(|_| !pictures.is_empty()).map(|fps| bytes as f64 * 8.0 / 1000.0 / (pictures.len() as f64 / fps))
}

fn marks(pictures: &[Arrived]) -> bool {
    let sliced = pictures.iter().filter(|picture| picture.slices > 1);
    let (all, marked) =
        sliced.fold((0, 0), |(all, marked), picture| (all + 1, marked + u32::from(picture.markers > 1)));
    all > 2 && marked * 2 > all
}

/// The longest distance of two keyframes; the time watched when there was but one.
fn longest_group(heard: &Heard) -> Option<u32> {
    let places: Vec<usize> =
        heard.units.iter().enumerate().filter(|(_, unit)| unit.keyframe).map(|(place, _)| place).collect();
    let distances = places.windows(2).map(|pair| pair[1] - pair[0]).max();
    let open = places.first().map(|first| heard.units.len() - first);
    distances.or(open).and_then(|frames| u32::try_from(frames).ok())
}

fn decode_ms(seen: &[Seen]) -> Option<f64> {
    let mut times: Vec<i64> = seen.iter().map(|picture| picture.decoded_mono_ns - picture.arrival_mono_ns).collect();
    times.sort_unstable();
    times.get(times.len() / 2).map(|ns| *ns as f64 / 1e6)
}

fn clock(seen: &[Seen]) -> Clock {
    let offsets: Vec<(f64, f64)> = seen
        .iter()
        .filter_map(|picture| {
            let source = picture.source_unix_ns?;
            Some((picture.arrival_mono_ns as f64 / 1e9, source.saturating_sub(picture.arrival_real_ns) as f64 / 1e6))
        })
        .collect();
    if offsets.is_empty() {
        return Clock::default();
    }
    let mut sorted: Vec<f64> = offsets.iter().map(|(_, offset)| *offset).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let long = seen
        .last()
        .zip(seen.first())
        .is_some_and(|(last, first)| last.arrival_mono_ns - first.arrival_mono_ns >= DRIFT_SPAN_NS);
    Clock {
        reports: true,
        offset_ms: Some(hundredths(sorted[sorted.len() / 2])),
        drift_ppm: long.then(|| (slope(&offsets) * 1000.0).round()),
    }
}

/// Milliseconds a second, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (mean_x, mean_y) =
        (points.iter().map(|(x, _)| x).sum::<f64>() / count, points.iter().map(|(_, y)| y).sum::<f64>() / count);
    let (over, under) = points
        .iter()
        .fold((0.0, 0.0), |(over, under), (x, y)| (over + (x - mean_x) * (y - mean_y), under + (x - mean_x).powi(2)));
    if under > 0.0 { over / under } else { 0.0 }
}

/// Words for the code points of ITU-T H.273.
fn words(color: Color) -> ColorWords {
    let name = |code: u8| match code {
        0 => "rgb",
        1 => "bt709",
        5 => "bt470bg",
        6 => "bt601",
        8 => "linear",
        9 | 10 | 14 => "bt2020",
        13 => "srgb",
        16 => "pq",
        18 => "hlg",
        _ => "unspecified",
    };
    ColorWords {
        matrix: name(color.matrix).into(),
        range: if color.full_range == 1 { "full" } else { "limited" }.into(),
        primaries: name(color.primaries).into(),
        transfer: name(color.transfer).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures of 25 a second, in this order of display, each 4000 bytes.
    fn pictures(order: &[u32]) -> Vec<Arrived> {
        let arrived = |(place, shown): (usize, &u32)| Arrived {
            rtp_timestamp: u32::MAX.wrapping_sub(9000).wrapping_add(shown * 3600),
            arrival_ns: place as i64 * 40_000_000,
            bytes: 4000,
            markers: 1,
            slices: 1,
        };
        order.iter().enumerate().map(arrived).collect()
    }

    #[test]
    fn rate_bit_rate_and_order_come_from_the_media_clock_across_its_wrap() {
        let plain = pictures(&(0..50).collect::<Vec<_>>());
        assert_eq!(rate(&plain).map(hundredths), Some(25.0));
        assert_eq!(kilobits(&plain, Some(25.0)), Some(800.0));
        assert_eq!((reordered(&plain), jitter_ms(&plain).map(hundredths)), (0, Some(0.0)));
        assert_eq!(reordered(&pictures(&[0, 3, 1, 2, 6, 4, 5, 9, 7, 8])), 2);
        assert_eq!((rate(&[]), jitter_ms(&[])), (None, None));
    }

    #[test]
    fn a_group_is_the_longest_distance_of_keyframes_or_what_was_watched_of_the_first() {
        let heard = |keys: &[usize], count: usize| {
            let unit = |place| crate::pipeline::Unit { keyframe: keys.contains(&place), bytes: 1 };
            let mut heard = Heard::default();
            heard.units.extend((0..count).map(unit));
            longest_group(&heard)
        };
        assert_eq!(heard(&[0, 12, 24], 30), Some(12));
        assert_eq!(heard(&[2], 100), Some(98));
        assert_eq!(heard(&[], 100), None);
    }

    #[test]
    fn a_clock_has_an_offset_at_once_and_a_drift_after_20_s() {
        let seen = |seconds: i64| -> Vec<Seen> {
            (0..seconds * 5)
                .map(|number| Seen {
                    arrival_mono_ns: number * 200_000_000,
                    arrival_real_ns: number * 200_000_000,
                    // A second ahead, and 100 ppm too fast.
                    source_unix_ns: Some(1_000_000_000 + number * 200_020_000),
                    ..Seen::default()
                })
                .collect()
        };
        let short = clock(&seen(5));
        assert!(short.reports && short.drift_ppm.is_none(), "{short:?}");
        assert!((1000.0..1001.0).contains(&short.offset_ms.unwrap()), "{short:?}");
        assert_eq!(clock(&seen(30)).drift_ppm, Some(100.0));
        assert!(!clock(&[Seen::default()]).reports);
    }
}
