//! What to change in a camera's settings, in sentences, by what its stream was seen to be.

use super::facts::Facts;

/// A keyframe that comes less often than this is waited for too long.
const GOP_SECONDS: f64 = 4.0;
/// More pixels a second than this are decoded for nothing when a model looks at 640 columns.
const PIXELS_PER_SECOND: f64 = 1920.0 * 1080.0 * 12.0;
/// Models are seldom fed more often.
const RATE: f64 = 15.5;
/// More than this fills a switch port of 100 Mbit/s with a dozen cameras, kbit/s.
const KILOBITS: f64 = 8000.0;
/// Arrival that varies by more than this is a network to look at, ms.
const JITTER_MS: f64 = 80.0;
/// A camera clock further off is of no use for events of several cameras, ms.
const CLOCK_MS: f64 = 1000.0;

/// The sentences, the most useful first.
pub(super) fn of(facts: &Facts) -> Vec<String> {
    [b_frames(facts), gop(facts), size(facts), codec(facts), rate(facts), slices(facts)]
        .into_iter()
        .chain([interlaced(facts), bits(facts), loss(facts), jitter(facts), clock(facts), samples(facts)])
        .flatten()
        .collect()
}

fn b_frames(facts: &Facts) -> Option<String> {
    let count = facts.b_frames.filter(|count| *count > 0)?;
    let delay = facts.fps.map(|fps| format!(" (here {:.0} ms)", f64::from(count) * 1000.0 / fps)).unwrap_or_default();
    Some(format!(
        "switch B-frames off in the camera (profile baseline, or B-frames 0): each delays every picture by a frame interval{delay}"
    ))
}

fn gop(facts: &Facts) -> Option<String> {
    let seconds = facts.gop_seconds.filter(|seconds| *seconds > GOP_SECONDS)?;
    Some(format!(
        "set the keyframe interval (GOP, I-frame interval) to 1 or 2 s, now {seconds:.1} s: for so long nothing is shown after a connect or a loss"
    ))
}

fn size(facts: &Facts) -> Option<String> {
    let pixels = f64::from(facts.width) * f64::from(facts.height) * facts.fps.unwrap_or(25.0);
    (pixels > PIXELS_PER_SECOND).then(|| {
        format!(
            "for inference take the sub-stream (often another path, such as /stream2): models look at about 640 columns, and {}x{} at {:.0} fps costs a processor most of its time",
            facts.width,
            facts.height,
            facts.fps.unwrap_or(25.0)
        )
    })
}

fn codec(facts: &Facts) -> Option<String> {
    (facts.codec == "h265" && facts.decoder.starts_with("avdec")).then(|| {
        "without a hardware decoder choose H.264 in the camera: H.265 costs a processor about twice as much".to_owned()
    })
}

fn rate(facts: &Facts) -> Option<String> {
    let fps = facts.fps.filter(|fps| *fps > RATE)?;
    Some(format!(
        "{fps:.0} fps is more than most models use: a lower rate in the camera saves decoding, max_fps in camring does not"
    ))
}

fn slices(facts: &Facts) -> Option<String> {
    facts.marks_slices.then(|| {
        "it marks every slice as if it were a picture: one slice per picture in the camera, or access_units = \"parse\", which costs a frame interval of delay".to_owned()
    })
}

fn interlaced(facts: &Facts) -> Option<String> {
    facts.interlaced.then(|| "choose progressive pictures in the camera, or deinterlace = \"linear\"".to_owned())
}

fn bits(facts: &Facts) -> Option<String> {
    let rate = facts.kbit_per_s.filter(|rate| *rate > KILOBITS)?;
    Some(format!(
        "{:.0} Mbit/s is a lot: check that every switch port on the way has 1 Gbit/s, or lower the bit rate",
        rate / 1000.0
    ))
}

fn loss(facts: &Facts) -> Option<String> {
    let lost = facts.packets_lost.filter(|lost| *lost > 0)?;
    let cure = match facts.transport.as_str() {
        "udp" | "multicast" => "take transport = \"tcp\", or look at the network",
        _ => "with TCP it is the camera that drops them: lower its bit rate, or close other viewers",
    };
    Some(format!("{lost} packets were lost: {cure}"))
}

fn jitter(facts: &Facts) -> Option<String> {
    let jitter = facts.jitter_ms.filter(|jitter| *jitter > JITTER_MS)?;
    Some(format!(
        "pictures arrive unevenly, within {jitter:.0} ms: Wi-Fi, a busy switch, or a camera that is overloaded"
    ))
}

fn clock(facts: &Facts) -> Option<String> {
    let Some(offset) = facts.clock.offset_ms else {
        return Some("it sends no RTCP sender reports (yet): the time at which pictures were taken is not known, only when they arrived".to_owned());
    };
    (offset.abs() > CLOCK_MS).then(|| {
        "give the camera a time server (NTP): its clock is wrong, and its times are marked as untrusted".to_owned()
    })
}

fn samples(facts: &Facts) -> Option<String> {
    let rich =
        facts.bit_depth.is_some_and(|bits| bits > 8) || facts.chroma.as_deref().is_some_and(|chroma| chroma != "4:2:0");
    rich.then(|| {
        "8 bits and 4:2:0 are enough for models and cheaper to decode; many hardware decoders take nothing else"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::probe::facts::Clock;

    fn modest() -> Facts {
        Facts {
            codec: "h264".into(),
            decoder: "avdec_h264".into(),
            transport: "tcp".into(),
            width: 640,
            height: 360,
            fps: Some(10.0),
            gop_seconds: Some(1.0),
            b_frames: Some(0),
            kbit_per_s: Some(400.0),
            jitter_ms: Some(3.0),
            packets_lost: Some(0),
            clock: Clock { reports: true, offset_ms: Some(-3.0), drift_ppm: None },
            ..Facts::default()
        }
    }

    #[test]
    fn a_sensible_sub_stream_needs_no_advice() {
        assert_eq!(of(&modest()), Vec::<String>::new());
    }

    #[test]
    fn each_setting_that_costs_something_is_named() {
        type Change = fn(&mut Facts);
        let cases: [(Change, &str); 12] = [
            (
                |facts| facts.b_frames = Some(2),
                "B-frames off in the camera (profile baseline, or B-frames 0): each delays every picture by a frame interval (here 200 ms)",
            ),
            (|facts| facts.gop_seconds = Some(10.0), "now 10.0 s"),
            (|facts| (facts.width, facts.height, facts.fps) = (3840, 2160, Some(15.0)), "take the sub-stream"),
            (|facts| facts.codec = "h265".into(), "choose H.264"),
            (|facts| facts.fps = Some(30.0), "30 fps is more than most models use"),
            (|facts| facts.marks_slices = true, "access_units = \"parse\""),
            (|facts| facts.interlaced = true, "deinterlace"),
            (|facts| facts.kbit_per_s = Some(16_000.0), "16 Mbit/s"),
            (|facts| facts.packets_lost = Some(4), "4 packets were lost"),
            (|facts| facts.jitter_ms = Some(300.0), "within 300 ms"),
            (|facts| facts.clock = Clock::default(), "no RTCP sender reports"),
            (|facts| facts.bit_depth = Some(10), "8 bits and 4:2:0"),
        ];
        for (change, words) in cases {
            let mut facts = modest();
            change(&mut facts);
            let advice = of(&facts);
            assert!(advice.len() == 1 && advice[0].contains(words), "{words}: {advice:?}");
        }
    }
}
