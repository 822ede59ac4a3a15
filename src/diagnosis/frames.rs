//! What counters and the metadata of frames tell: loss, overload, late pictures, wrong clocks, changing sizes.

use camring_ring::{FrameFlags, FrameMeta, Reason, State};

use super::{Finding, Looks};
use crate::report::{RingReport, Span};

/// Lost packets of all, in parts per thousand, that are worth a word although none is lost now.
const LOSS_PER_MILLE: u64 = 1;
/// Frames that must be seen before their times mean anything.
const ENOUGH: usize = 5;
/// A picture that leaves the decoder so many frame intervals after its last packet is late on purpose.
const LATE_PICTURES: f64 = 0.7;
/// Above this it has waited for more than one other picture.
const ONE_PICTURE: f64 = 1.35;
/// A stream that comes slower than this part of its own pace is short of bandwidth.
const SLOW_PACE: f64 = 0.85;
/// Over so long must its pace have been seen, ns.
const PACE_SPAN_NS: i64 = 700_000_000;
/// A camera clock that wanders by more than this between two looks jumps, ns.
const CLOCK_JUMP_NS: u64 = 1_000_000_000;

/// What the counters say.
pub(super) fn of_counters(looks: &Looks) -> Vec<Finding> {
    [loss(looks), overload(looks), leases(looks), sizes(looks), decode_errors(looks)].into_iter().flatten().collect()
}

fn loss(looks: &Looks) -> Option<Finding> {
    if looks.now.reason == Reason::LossGate && looks.now.state == State::Degraded {
        // The state has said it.
        return None;
    }
    let (lost, packets) = (looks.count("packets_lost"), looks.count("packets"));
    let now = looks.grown("packets_lost");
    let worth = now > 0 || lost * 1000 > packets.max(1) * LOSS_PER_MILLE;
    worth.then(|| {
        let gated = looks.count("dropped_gate");
        let since = if now > 0 { format!(", {now} of them while we looked") } else { String::new() };
        Finding::warn(
            "packet_loss",
            format!("{lost} of {} packets were lost{since}; {gated} pictures were withheld because of that", packets + lost),
            "transport = \"tcp\"; a better network path to the camera; with TCP the camera itself drops them: lower its bit rate",
        )
    })
}

fn overload(looks: &Looks) -> Option<Finding> {
    let late = looks.grown("dropped_leaky") + looks.grown("dropped_overload");
    let by_state = looks.now.reason == Reason::Lag && looks.now.state == State::Degraded;
    // What finds no room in the ring is no fault of the decoder.
    (late > 0 && !by_state && looks.is_live()).then(|| {
        Finding::warn(
            "decoder_slow",
            format!("{late} pictures were dropped while we looked because decoding or conversion is too slow for this stream"),
            "take the camera's sub-stream or a lower rate; decode.threads; a hardware decoder; fewer cameras on this host",
        )
    })
}

fn leases(looks: &Looks) -> Option<Finding> {
    let (revoked, full, slow) =
        (looks.grown("leases_revoked"), looks.grown("dropped_no_slot"), looks.grown("lease_lock_slow"));
    if full > 0 {
        return Some(Finding::warn(
            "slots_full",
            format!("{full} frames were dropped while we looked because readers hold every slot"),
            "find the reader with camring top (Enter); raise slots, or lease_policy = \"fresh\"",
        ));
    }
    if slow > 0 {
        return Some(Finding::warn(
            "locks_slow",
            "a reader holds so many locks that the camera's own lock calls are slow",
            "find it: grep OFDLCK /proc/locks; camring top (Enter)",
        ));
    }
    (revoked > 0).then(|| {
        Finding::warn(
            "leases_revoked",
            format!(
                "{revoked} leases were revoked while we looked: readers hold frames for longer than the ring keeps them"
            ),
            "raise slots, or hold leases for less time; camring top (Enter) shows who",
        )
    })
}

fn sizes(looks: &Looks) -> Option<Finding> {
    let RingReport { geometry_epoch, .. } = looks.now;
    let changed = looks.frames.iter().any(|frame| {
        frame.flags.contains(FrameFlags::GEOMETRY_CHANGED)
            && frame.seq.0 > 1
            && !frame.flags.contains(FrameFlags::AFTER_RESTART)
    });
    (geometry_epoch > 1 || changed).then(|| {
        Finding::warn(
            "size_changes",
            format!(
                "the camera has changed the size of its pictures: {} so far, {} now",
                geometry_epoch.max(2),
                looks.now.size_text()
            ),
            "fix the resolution in the camera (automatic or corridor modes off); max_size keeps the ring at one size",
        )
    })
}

fn decode_errors(looks: &Looks) -> Option<Finding> {
    let errors = looks.grown("decode_errors");
    (errors > 0).then(|| {
        let found = format!("the decoder complained {errors} times while we looked");
        Finding::warn("decoder_error", found, "decode.device = \"software\"; camring probe shows what the camera sends")
    })
}

/// What the metadata of the frames say.
pub(super) fn of_frames(looks: &Looks) -> Vec<Finding> {
    let Some(newest) = looks.frames.last() else { return Vec::new() };
    let session: Vec<&FrameMeta> = looks.frames.iter().filter(|frame| frame.session_id == newest.session_id).collect();
    let delivers = looks.is_live() && looks.now.writer_alive;
    let narrow = bandwidth(&session).filter(|_| delivers);
    let clock = clock(&session, narrow.is_some());
    let delay = if delivers { delay(looks, &session) } else { None };
    [interlaced(newest), clock, narrow, delay].into_iter().flatten().collect()
}

fn interlaced(newest: &FrameMeta) -> Option<Finding> {
    newest.flags.contains(FrameFlags::INTERLACED).then(|| {
        Finding::warn(
            "interlaced",
            "the camera sends interlaced pictures: moving edges have combs",
            "deinterlace = \"linear\" for this camera, or progressive pictures in the camera",
        )
    })
}

/// The camera's own clock against ours; `late` when pictures are older than they should be, which is none of its faults.
fn clock(session: &[&FrameMeta], late: bool) -> Option<Finding> {
    let known = || session.iter().filter_map(|frame| Some((frame, frame.source_unix_ns?)));
    let jumps = known().zip(known().skip(1)).map(|((a, at), (b, bt))| {
        // Against the camera's own media clock, so that a slow network is no jump.
        (bt.saturating_sub(at)).saturating_sub(media_ns(a, b)).unsigned_abs()
    });
    if let Some(jump) = jumps.max().filter(|jump| *jump > CLOCK_JUMP_NS) {
        let by = Span(jump as f64 / 1e6);
        return Some(Finding::warn(
            "camera_clock",
            format!("the camera's clock jumps: by {by} while we looked"),
            "give the camera a time server (NTP); ages do not depend on its clock",
        ));
    }
    let untrusted = session.iter().any(|frame| frame.flags.contains(FrameFlags::UNTRUSTED_TIME));
    let (frame, source) = known().next_back()?;
    let offset = source.saturating_sub(frame.arrival_real_ns);
    (untrusted && !(late && offset < 0)).then(|| {
        let (off, side) = (Span(offset.unsigned_abs() as f64 / 1e6), if offset > 0 { "ahead of" } else { "behind" });
        Finding::warn(
            "camera_clock",
            format!("the camera's clock is {off} {side} ours; its times are marked as untrusted"),
            "give the camera a time server (NTP) and the right time zone; ages do not depend on its clock",
        )
    })
}

/// From one picture to another on the camera's media clock, ns.
fn media_ns(from: &FrameMeta, to: &FrameMeta) -> i64 {
    i64::from(to.rtp_timestamp.wrapping_sub(from.rtp_timestamp).cast_signed()) * 100_000 / 9
}

/// Whether pictures come more slowly than the camera takes them.
fn bandwidth(session: &[&FrameMeta]) -> Option<Finding> {
    let (first, last) = (session.first()?, session.last()?);
    let taken_ns = media_ns(first, last);
    let came_ns = last.arrival_mono_ns - first.arrival_mono_ns;
    if session.len() < 3 || taken_ns <= 0 || came_ns < PACE_SPAN_NS {
        return None;
    }
    let pace = taken_ns as f64 / came_ns as f64;
    (pace < SLOW_PACE).then(|| {
        Finding::warn(
            "bandwidth",
            format!("pictures arrive at {:.0} % of the pace at which the camera takes them, and get older and older: its uplink is too narrow for the stream", pace * 100.0),
            "lower the bit rate or take the sub-stream; look at Wi-Fi, mobile uplink, and at 10 Mbit/s or half duplex on the switch port",
        )
    })
}

/// Whether pictures leave the decoder a picture or more after their last packet.
fn delay(looks: &Looks, session: &[&FrameMeta]) -> Option<Finding> {
    let interval_ns = (looks.now.fps > 0.0).then(|| 1e9 / looks.now.fps)?;
    let mut lags: Vec<u64> = session.iter().map(|frame| frame.lag_ns).collect();
    lags.sort_unstable();
    let at = |percent: usize| lags.get(lags.len() * percent / 100).map(|ns| *ns as f64 / interval_ns);
    let (low, median, high) = (at(10)?, at(50)?, at(90)?);
    if session.len() < ENOUGH || median < LATE_PICTURES {
        return None;
    }
    let each = Span(median * interval_ns / 1e6);
    // Waiting for the next picture costs each one the same; pictures out of order wait differently long.
    if low > LATE_PICTURES && high < ONE_PICTURE {
        return Some(Finding::warn(
            "marker_per_slice",
            format!(
                "each picture leaves the decoder {each}, one frame interval, after its last packet: the camera ends every slice as if it were a picture, so that only the next one shows its end (or access_units = \"parse\" asks for that)"
            ),
            "one slice per picture in the camera if it has such a setting; camring probe URL tells whether it is that",
        ));
    }
    Some(Finding::warn(
        "b_frames",
        format!(
            "pictures leave the decoder {each} ({median:.1} frame intervals) after their last packet: the stream has B-frames, or the decoder works on several pictures at once"
        ),
        "switch B-frames off in the camera (profile baseline, or B-frames 0); camring probe URL tells which",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{causes, healthy};
    use super::*;

    #[test]
    fn a_counter_that_grows_is_named_and_one_that_grew_long_ago_is_not() {
        for (counter, cause) in [
            ("packets_lost", "packet_loss"),
            ("dropped_leaky", "decoder_slow"),
            ("dropped_overload", "decoder_slow"),
            ("dropped_no_slot", "slots_full"),
            ("leases_revoked", "leases_revoked"),
            ("lease_lock_slow", "locks_slow"),
            ("decode_errors", "decoder_error"),
        ] {
            let mut looks = healthy();
            looks.now.counters.insert("packets", 100_000);
            looks.now.counters.insert(counter, 7);
            assert_eq!(causes(&looks), [cause]);
            looks.before.counters.insert(counter, 7);
            assert_eq!(causes(&looks), ["fine"], "{counter}");
        }
    }

    #[test]
    fn a_stream_slower_than_its_own_clock_is_short_of_bandwidth() {
        let mut looks = healthy();
        for frame in &mut looks.frames {
            frame.arrival_mono_ns *= 2;
        }
        assert_eq!(causes(&looks), ["bandwidth"]);
    }

    #[test]
    fn a_clock_that_is_off_is_told_from_one_that_jumps() {
        let mut looks = healthy();
        for frame in &mut looks.frames {
            frame.source_unix_ns = frame.source_unix_ns.map(|at| at + 86_400_000_000_000 * 400);
            frame.flags = frame.flags.with(FrameFlags::UNTRUSTED_TIME);
        }
        let found = super::super::diagnose(&looks).remove(0);
        assert!(found.cause == "camera_clock" && found.found.contains("399 d ahead of ours"), "{found:?}");
        looks.frames[19].source_unix_ns = Some(0);
        assert!(super::super::diagnose(&looks)[0].found.contains("jumps"));
    }

    #[test]
    fn late_pictures_are_b_frames_or_slices_by_how_evenly_late_they_are() {
        let mut looks = healthy();
        looks.frames.iter_mut().for_each(|frame| frame.lag_ns = 99_000_000 + frame.seq.0 * 100_000);
        assert_eq!(causes(&looks), ["marker_per_slice"]);
        looks.frames.iter_mut().for_each(|frame| frame.lag_ns = [100, 200, 400][frame.seq.0 as usize % 3] * 1_000_000);
        assert_eq!(causes(&looks), ["b_frames"]);
        looks.frames.iter_mut().step_by(5).for_each(|frame| frame.lag_ns = 1_000_000);
        looks.frames.iter_mut().for_each(|frame| frame.lag_ns /= 10);
        assert_eq!(causes(&looks), ["fine"]);
    }

    #[test]
    fn pictures_that_are_late_by_the_network_are_no_fault_of_the_cameras_clock() {
        let mut looks = healthy();
        for frame in &mut looks.frames {
            (frame.arrival_mono_ns, frame.arrival_real_ns) =
                (frame.arrival_mono_ns * 3, frame.arrival_real_ns + frame.arrival_mono_ns * 2 + 9_000_000_000);
            frame.flags = FrameFlags::UNTRUSTED_TIME;
        }
        assert_eq!(causes(&looks), ["bandwidth"]);
    }

    #[test]
    fn interlaced_pictures_and_changing_sizes_are_said() {
        let mut looks = healthy();
        looks.frames[19].flags = FrameFlags::INTERLACED;
        assert_eq!(causes(&looks), ["interlaced"]);
        looks = healthy();
        looks.now.geometry_epoch = 3;
        assert_eq!(causes(&looks), ["size_changes"]);
    }
}
