//! The text of `/metrics`: Prometheus exposition format 0.0.4.
//!
//! Written by hand: the library of the OpenMetrics project writes another format, whose TYPE lines lack `_total`, and
//! both libraries keep values of their own, where ours are read from the rings at each scrape.

use std::fmt::{self, Write};

use camring_ring::layout::BUCKET_FIRST_NS;
use camring_ring::{Counter, Histogram, Liveness, Reason, State};

use super::scene::{Entry, Found, Scene, Sight};

/// The media type of the text.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What one word of `camring_state` can be besides the states of the glossary.
pub const DERIVED_STATES: [&str; 4] = ["dead", "hung", "absent", "unreadable"];

/// Counters with a reason: the label of each.
const DROPPED: [(Counter, &str); 6] = [
    (Counter::DroppedNoSlot, "no_slot"),
    (Counter::DroppedLeaky, "leaky"),
    (Counter::DroppedGate, "gate"),
    (Counter::DroppedRate, "rate"),
    (Counter::DroppedOverload, "overload"),
    (Counter::DroppedCorrupt, "corrupt"),
];

/// Counters that are metrics of their own.
const COUNTERS: [(&str, &str, Counter); 7] = [
    ("camring_frames_published_total", "Frames published in this ring.", Counter::Published),
    ("camring_bytes_published_total", "Payload bytes published in this ring.", Counter::Bytes),
    ("camring_packets_total", "Media packets that arrived from the camera.", Counter::Packets),
    ("camring_packets_lost_total", "Media packets known to be lost on the way.", Counter::PacketsLost),
    ("camring_decode_errors_total", "Errors and warnings of the decoder.", Counter::DecodeErrors),
    ("camring_leases_revoked_total", "Leased slots taken back from slow readers.", Counter::LeasesRevoked),
    ("camring_names_relinked_total", "Names of the ring put back after somebody removed them.", Counter::Relinked),
];

/// What this process says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clients {
    /// Open MJPEG streams.
    pub streams: usize,
    /// Open event streams.
    pub events: usize,
}

/// The whole text for one scene.
#[must_use]
pub fn exposition(scene: &Scene, clients: Clients) -> String {
    let mut text = Text::default();
    states(&mut text, scene);
    reasons(&mut text, scene);
    ages(&mut text, scene);
    counters(&mut text, scene);
    histograms(&mut text, scene);
    shapes(&mut text, scene);
    processes(&mut text, scene);
    host(&mut text, scene, clients);
    text.0
}

fn states(text: &mut Text, scene: &Scene) {
    text.family(
        "camring_state",
        "gauge",
        "1 for the state the camera is in, 0 for every other; dead, hung: its daemon.",
    );
    for entry in &scene.entries {
        let condition = entry.condition();
        let known = State::ALL.iter().filter_map(|state| state.word()).chain(DERIVED_STATES);
        for word in known {
            let labels = [("camera", entry.name.as_str()), ("state", word)];
            text.sample("camring_state", &labels, Number::Whole(u64::from(word == condition)));
        }
    }
}

/// Why a camera is in its state; no sample when there is nothing to say.
fn reasons(text: &mut Text, scene: &Scene) {
    text.family("camring_reason", "gauge", "1 for the reason that the daemon gives for the state; absent without one.");
    for (camera, sight) in sights(scene).filter(|(_, sight)| sight.report.reason != Reason::None) {
        let reason = sight.report.reason.to_string();
        text.sample("camring_reason", &[("camera", camera), ("reason", &reason)], Number::Whole(1));
    }
}

fn ages(text: &mut Text, scene: &Scene) {
    text.family("camring_frame_age_seconds", "gauge", "Age of the newest frame; +Inf without one.");
    for entry in &scene.entries {
        let age = sight(entry).and_then(|sight| sight.report.age_ms).map_or(f64::INFINITY, |ms| ms / 1e3);
        text.sample("camring_frame_age_seconds", &[("camera", &entry.name)], Number::Real(age));
    }
    text.gauge("camring_stale", "1 when the newest frame is older than stale_after.", scene, |sight| {
        Some(Number::Whole(u64::from(sight.report.stale)))
    });
    text.gauge("camring_heartbeat_age_seconds", "Since the daemon's last sign of life.", scene, |sight| {
        sight.heartbeat_age_ns.map(seconds)
    });
    text.gauge(
        "camring_frame_latency_seconds",
        "Of the newest frame, from the arrival of its last packet to its publication.",
        scene,
        |sight| sight.latency_ms.map(|ms| Number::Real(ms / 1e3)),
    );
    text.gauge(
        "camring_clock_behind_seconds",
        "How far the camera's clock was behind this machine's at the newest frame; absent when the camera tells no time.",
        scene,
        |sight| sight.clock_behind_ns.map(seconds),
    );
    text.gauge("camring_frames_per_second", "Moving average; 0 when frames have stopped.", scene, |sight| {
        Some(Number::Real(sight.report.fps))
    });
}

fn counters(text: &mut Text, scene: &Scene) {
    for (name, help, counter) in COUNTERS {
        text.family(name, "counter", help);
        for (camera, sight) in sights(scene) {
            text.sample(name, &[("camera", camera)], Number::Whole(sight.status.counter(counter)));
        }
    }
    text.family(
        "camring_frames_dropped_total",
        "counter",
        "Pictures that did not become frames of this ring, by cause.",
    );
    for (camera, sight) in sights(scene) {
        for (counter, reason) in DROPPED {
            let labels = [("camera", camera), ("reason", reason)];
            text.sample("camring_frames_dropped_total", &labels, Number::Whole(sight.status.counter(counter)));
        }
    }
    text.family("camring_reconnects_total", "counter", "Sessions with the camera that ended, by reason.");
    for (camera, sight) in sights(scene) {
        for (reason, count) in &sight.status.reconnects {
            let reason = reason.to_string();
            let labels = [("camera", camera), ("reason", reason.as_str())];
            text.sample("camring_reconnects_total", &labels, Number::Whole(*count));
        }
    }
}

fn histograms(text: &mut Text, scene: &Scene) {
    let name = "camring_decode_to_publish_seconds";
    text.family(name, "histogram", "From the decoder's delivery to publication.");
    for (camera, sight) in sights(scene) {
        text.histogram(name, camera, &sight.status.decode_to_publish);
    }
    let name = "camring_frame_interval_seconds";
    text.family(name, "histogram", "Between two frames.");
    for (camera, sight) in sights(scene) {
        text.histogram(name, camera, &sight.status.frame_interval);
    }
}

fn shapes(text: &mut Text, scene: &Scene) {
    text.gauge("camring_ring_bytes", "Memory that the ring takes.", scene, |sight| {
        Some(Number::Whole(sight.report.file_bytes))
    });
    text.gauge("camring_ring_slots", "Frames that the ring keeps.", scene, |sight| {
        Some(Number::Whole(u64::from(sight.report.slots)))
    });
    text.gauge("camring_readers", "Handles of library readers.", scene, |sight| {
        Some(Number::Whole(sight.report.readers as u64))
    });
    text.gauge("camring_writer_epoch", "Daemons that have owned this generation.", scene, |sight| {
        Some(Number::Whole(u64::from(sight.report.writer_epoch)))
    });
    text.family("camring_generation_info", "gauge", "What the ring holds and from where; always 1.");
    for (camera, sight) in sights(scene) {
        let report = &sight.report;
        let (format, size) = (report.format_text(), report.size_text());
        let labels: [(&str, &str); 6] = [
            ("camera", camera),
            ("generation", &report.generation),
            ("size", &size),
            ("format", &format),
            ("codec", &report.codec),
            ("decoder", &report.decoder),
        ];
        text.sample("camring_generation_info", &labels, Number::Whole(1));
    }
}

/// Of the capture processes: the curves that show a leak. One for each camera, not for its outputs; none for the dead.
fn processes(text: &mut Text, scene: &Scene) {
    let alive = |sight: &Sight| sight.report.liveness != Liveness::Gone && !sight.report.name.contains('.');
    let mut gauge = |name: &str, help: &str, value: fn(&Sight) -> u64| {
        text.gauge(name, help, scene, |sight| alive(sight).then(|| Number::Whole(value(sight))));
    };
    gauge("camring_process_resident_memory_bytes", "Resident memory of the capture process.", |sight| {
        sight.status.process.rss_bytes
    });
    gauge("camring_process_private_memory_bytes", "Private resident memory: without the rings.", |sight| {
        sight.status.process.rss_anon_bytes
    });
    gauge("camring_process_threads", "Threads of the capture process.", |sight| sight.status.process.threads.into());
    gauge("camring_process_open_fds", "Open descriptors of the capture process.", |sight| {
        sight.status.process.open_fds.into()
    });
    let name = "camring_process_cpu_seconds_total";
    text.family(name, "counter", "Processor time of the capture process, user and system.");
    for (camera, sight) in sights(scene).filter(|(_, sight)| alive(sight)) {
        let spent = sight.status.process.cpu_user_ns.saturating_add(sight.status.process.cpu_sys_ns);
        text.sample(name, &[("camera", camera)], seconds(spent.cast_signed()));
    }
}

fn host(text: &mut Text, scene: &Scene, clients: Clients) {
    let mount = scene.mount.path.display().to_string();
    let sizes = [
        ("camring_mount_size_bytes", "Size of the memory mount.", scene.mount.size_bytes),
        ("camring_mount_free_bytes", "Free bytes of the memory mount.", scene.mount.free_bytes),
    ];
    for (name, help, bytes) in sizes {
        text.family(name, "gauge", help);
        if let Some(bytes) = bytes {
            text.sample(name, &[("mount", &mount)], Number::Whole(bytes));
        }
    }
    text.family("camring_mount_readable", "gauge", "0 when the memory mount cannot be read at all.");
    let readable = Number::Whole(u64::from(scene.fault.is_none()));
    text.sample("camring_mount_readable", &[("mount", &mount)], readable);
    text.family("camring_serve_clients", "gauge", "Connections of this process that stay open, by kind.");
    for (kind, count) in [("stream", clients.streams), ("events", clients.events)] {
        text.sample("camring_serve_clients", &[("kind", kind)], Number::Whole(count as u64));
    }
    text.family("camring_build_info", "gauge", "Version of this process; always 1.");
    text.sample("camring_build_info", &[("version", env!("CARGO_PKG_VERSION"))], Number::Whole(1));
}

fn sight(entry: &Entry) -> Option<&Sight> {
    match &entry.found {
        Found::Ring(sight) => Some(sight),
        Found::Unreadable(_) | Found::Absent => None,
    }
}

fn sights(scene: &Scene) -> impl Iterator<Item = (&str, &Sight)> {
    scene.entries.iter().filter_map(|entry| Some((entry.name.as_str(), sight(entry)?)))
}

fn seconds(ns: i64) -> Number {
    Number::Real(ns as f64 / 1e9)
}

/// A value of a sample.
#[derive(Clone, Copy, Debug)]
enum Number {
    Whole(u64),
    Real(f64),
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => write!(f, "{number}"),
            Self::Real(number) if *number == f64::INFINITY => f.write_str("+Inf"),
            // To the microsecond: what is further behind the point is the noise of a division.
            Self::Real(number) => write!(f, "{}", (number * 1e6).round() / 1e6),
        }
    }
}

#[derive(Default)]
struct Text(String);

const STRING: &str = "writing to a string cannot fail";

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect(STRING);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: Number) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            write!(self.0, "{open}{label}=\"{}\"", escaped(text)).expect(STRING);
        }
        writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" }).expect(STRING);
    }

    /// A gauge for every ring that has a value.
    fn gauge(&mut self, name: &str, help: &str, scene: &Scene, value: impl Fn(&Sight) -> Option<Number>) {
        self.family(name, "gauge", help);
        for (camera, sight) in sights(scene) {
            if let Some(value) = value(sight) {
                self.sample(name, &[("camera", camera)], value);
            }
        }
    }

    /// The count is that of the buckets, so that the two agree whenever the daemon was in between.
    fn histogram(&mut self, name: &str, camera: &str, histogram: &Histogram) {
        let mut below = 0;
        let last = histogram.buckets.len() - 1;
        for (index, count) in histogram.buckets.iter().enumerate() {
            below += count;
            let bound = match index {
                index if index == last => "+Inf".to_owned(),
                index => ((BUCKET_FIRST_NS << index) as f64 / 1e9).to_string(),
            };
            self.sample(&format!("{name}_bucket"), &[("camera", camera), ("le", &bound)], Number::Whole(below));
        }
        self.sample(&format!("{name}_sum"), &[("camera", camera)], seconds(histogram.sum_ns.cast_signed()));
        self.sample(&format!("{name}_count"), &[("camera", camera)], Number::Whole(below));
    }
}

/// A label's value as the format wants it; other control characters, which no tool shows, become `?`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            letter if letter.is_control() => out.push('?'),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_infinity_has_the_formats_word() {
        let mut text = Text::default();
        text.sample("a", &[("b", "x\"\\\n\u{7}y"), ("c", "")], Number::Real(f64::INFINITY));
        text.sample("d", &[], Number::Whole(u64::MAX));
        assert_eq!(text.0, "a{b=\"x\\\"\\\\\\n?y\",c=\"\"} +Inf\nd 18446744073709551615\n");
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_the_count() {
        let mut histogram = Histogram { sum_ns: 1_500_000_000, count: 9, ..Histogram::default() };
        (histogram.buckets[0], histogram.buckets[2], histogram.buckets[15]) = (3, 2, 1);
        let mut text = Text::default();
        text.histogram("h", "front", &histogram);
        let lines: Vec<&str> = text.0.lines().collect();
        assert_eq!(lines[0], "h_bucket{camera=\"front\",le=\"0.000064\"} 3");
        assert_eq!(lines[2], "h_bucket{camera=\"front\",le=\"0.000256\"} 5");
        assert_eq!(
            lines[15..],
            ["h_bucket{camera=\"front\",le=\"+Inf\"} 6", "h_sum{camera=\"front\"} 1.5", "h_count{camera=\"front\"} 6"]
        );
    }
}
