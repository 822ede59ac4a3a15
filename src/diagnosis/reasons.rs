//! What the daemon's own word for its state means to an operator, and what to do about it.

use camring_ring::{Reason, State};

use super::{Finding, Level, Looks};
use crate::report::Span;

/// What one reason means.
struct Meaning {
    cause: &'static str,
    found: &'static str,
    cure: &'static str,
}

/// What ails a camera whose daemon is there and which is not simply live.
pub(super) fn of_state(looks: &Looks) -> Option<Finding> {
    let report = &looks.now;
    let calm = matches!(report.state, State::Live | State::Parked | State::Stopped);
    if calm {
        return None;
    }
    let Some(meaning) = meaning(looks) else {
        // Nothing is wrong yet: it has begun a moment ago.
        let young = report.state_age_ms < 10_000.0;
        let (state, since) = (report.state, Span(report.state_age_ms));
        return (!young).then(|| {
            let found = format!("{state} for {since} without a reason");
            Finding::warn("slow_start", found, format!("journalctl -u camring@{}", super::camera(report)))
        });
    };
    let level = if report.state == State::Degraded { Level::Warn } else { Level::Fail };
    let Meaning { cause, found, cure } = meaning;
    let mut found = format!("{}: {found}", report.state_words());
    let note = report.note();
    if !note.is_empty() {
        found.push_str(&format!(" ({note})"));
    }
    Some(Finding { level, cause, found, cure: cure.to_owned() })
}

/// The cause behind a reason; what happened before tells some apart.
fn meaning(looks: &Looks) -> Option<Meaning> {
    let had_frames = looks.now.seq > 0;
    let went_silent = looks.ended(Reason::NoPackets) > 0;
    let of = |cause, found, cure| Some(Meaning { cause, found, cure });
    match looks.now.reason {
        Reason::ConnectTimeout if had_frames && went_silent => of(
            "half_open",
            "packets stopped without a goodbye, and the camera has answered no connection since: its cable, power or network is gone, or its firmware hangs",
            "ping the camera; look at its cable, switch port and power; restart it. camring is back by itself when it answers",
        ),
        Reason::ConnectTimeout => of(
            "no_answer",
            "the camera does not answer in time: a wrong address, a firewall that drops, or a camera that is off or overloaded",
            "check the address in url, ping it, open its port (554) in the firewall; a slow camera: raise reconnect.request_timeout and connect_timeout",
        ),
        Reason::NoPackets if had_frames => of(
            "stalled",
            "connected, and the camera has stopped sending without a word: firmware that hangs, a pulled cable, or a box in between that forgot the connection",
            "nothing if it passes; restart the camera if it comes back; with UDP open the ports from the camera to this host",
        ),
        Reason::NoPackets => of(
            "udp_blocked",
            "the camera agrees to send and no packet arrives: with UDP a firewall drops the datagrams, with multicast there is no route",
            "set transport = \"tcp\" for this camera, or let the camera's UDP through the firewall",
        ),
        reason => simple(reason),
    }
}

/// Reasons that mean one thing, whatever came before.
fn simple(reason: Reason) -> Option<Meaning> {
    let (cause, found, cure) = TABLE.iter().find(|(of, _)| *of == reason).map(|(_, row)| *row)?;
    Some(Meaning { cause, found, cure })
}

/// Cause, what was found, what to do.
type Row = (&'static str, &'static str, &'static str);

const TABLE: &[(Reason, Row)] = &[
    (
        Reason::ConnectRefused,
        (
            "refused",
            "the camera's host is there and nothing listens on its port: RTSP is off, the port is wrong, or the camera is restarting",
            "check the port in url (554 is usual) and that RTSP is on in the camera; a camera that restarts is found again by itself",
        ),
    ),
    (
        Reason::Dns,
        (
            "dns",
            "the camera's host name does not resolve",
            "correct the name in url or write the address; getent hosts NAME asks the same name servers",
        ),
    ),
    (
        Reason::Tls,
        (
            "tls",
            "the TLS handshake or the certificate check failed",
            "tls.ca or tls.pin_sha256 for a self-signed certificate; correct the camera's clock and certificate; the journal names the fault",
        ),
    ),
    (
        Reason::Auth,
        (
            "password",
            "the camera refuses user or password",
            "correct user and password of this camera, then systemctl reload camring@NAME: tries are a minute and more apart, so that it does not lock the account",
        ),
    ),
    (
        Reason::NotFound,
        (
            "not_found",
            "the camera answers and has no such stream (404), or there is no such file or device",
            "correct the path of the url (camring probe URL tries one); plug the device in",
        ),
    ),
    (
        Reason::NotRtsp,
        (
            "not_rtsp",
            "what answers at this address does not speak RTSP",
            "correct the port: 554 is usual for RTSP, 80 is the web page",
        ),
    ),
    (
        Reason::NoVideo,
        (
            "no_video",
            "the session description offers no video that can be had: sound only, empty, or a transport that the camera refuses",
            "the path of the url; the video settings of the camera; another transport; wait if it is still starting",
        ),
    ),
    (
        Reason::UnsupportedCodec,
        (
            "unsupported_codec",
            "the camera sends a codec that nothing here decodes",
            "set the camera to H.264 or H.265; or install the decoder (the line codecs of camring doctor)",
        ),
    ),
    (
        Reason::NoKeyframe,
        (
            "no_keyframe",
            "packets arrive and no keyframe comes",
            "shorten the keyframe interval (GOP, I-frame interval) in the camera to 1 or 2 s",
        ),
    ),
    (
        Reason::DecoderStuck,
        (
            "decoder_stuck",
            "packets arrive and the decoder gives no picture",
            "decode.device = \"software\"; then look at the stream with camring probe",
        ),
    ),
    (
        Reason::DecoderError,
        (
            "decoder_error",
            "the decoder reports errors",
            "decode.device = \"software\"; then look at the stream with camring probe",
        ),
    ),
    (
        Reason::LossGate,
        (
            "packet_loss",
            "packets were lost, and pictures are withheld until a keyframe comes whole",
            "transport = \"tcp\"; a better network path; a shorter keyframe interval in the camera",
        ),
    ),
    (
        Reason::Lag,
        (
            "decoder_slow",
            "frames reach the ring too late: the processor cannot keep up with this stream",
            "take the camera's sub-stream or a lower rate; decode.threads; a hardware decoder; fewer cameras on this host",
        ),
    ),
    (
        Reason::LowFps,
        (
            "low_fps",
            "far fewer frames arrive than usual: a camera in the dark, an overloaded one, or too little bandwidth",
            "look at exposure and load of the camera, and at the bandwidth of its uplink",
        ),
    ),
    (
        Reason::ServerClosed,
        (
            "session_closed",
            "the camera has closed the session, or refused a request",
            "too many viewers, or a camera that restarts; the journal has the answer it gave",
        ),
    ),
    (Reason::EndOfFile, ("end_of_file", "the file or stream has ended", "nothing for a file in a loop")),
    (
        Reason::ServerBusy,
        (
            "server_busy",
            "the camera has no session left for us (453 or 503), or another program has the device",
            "close other viewers of this camera, or raise its number of sessions; some cameras allow two",
        ),
    ),
    (
        Reason::NoRoom,
        (
            "no_room",
            "the memory mount has no room for the ring",
            "mount -o remount,size=8G /dev/shm, fewer slots, or max_size",
        ),
    ),
    (
        Reason::NameTaken,
        (
            "name_taken",
            "the ring's public name belongs to something else",
            "remove the file that the journal names, or set segment",
        ),
    ),
    (
        Reason::FrameTooLarge,
        (
            "frame_too_large",
            "the camera's picture exceeds what the ring may become",
            "max_size scales it down; or choose a smaller stream",
        ),
    ),
    (
        Reason::Config,
        (
            "configuration",
            "the configuration does not fit: an element is missing, or a region is outside the picture",
            "camring check; the journal says which",
        ),
    ),
    (
        Reason::Internal,
        ("internal", "a fault of camring itself", "report it with the journal; systemctl restart camring@NAME"),
    ),
    (
        Reason::Frozen,
        (
            "frozen",
            "frames come and the picture has not changed by a bit for frozen_after",
            "look at the camera's own page; restart the camera",
        ),
    ),
    (Reason::Black, ("black", "the picture is black", "lens cap, night without infrared, a dead sensor")),
];

#[cfg(test)]
mod tests {
    use super::super::tests::{causes, healthy};
    use super::*;

    #[test]
    fn every_reason_that_a_camera_can_fail_for_has_a_cause_and_a_cure() {
        let calm = [Reason::None, Reason::Operator, Reason::Planned];
        for reason in Reason::ALL.iter().filter(|reason| !calm.contains(reason)) {
            let mut looks = healthy();
            (looks.now.state, looks.now.reason) = (State::Reconnecting, *reason);
            let finding = of_state(&looks).unwrap_or_else(|| panic!("nothing is said of {reason}"));
            assert!(finding.level == Level::Fail && !finding.cure.is_empty(), "{finding:?}");
            assert!(finding.found.contains(reason.word().expect("a word")), "{finding:?}");
        }
    }

    #[test]
    fn silence_is_told_from_a_dead_path_and_from_a_firewall_by_what_came_before() {
        let of = |seq, silent, reason| {
            let mut looks = healthy();
            (looks.now.state, looks.now.reason, looks.now.seq) = (State::Reconnecting, reason, seq);
            looks.reconnects = if silent { vec![(Reason::NoPackets, 1)] } else { vec![] };
            causes(&looks)[0]
        };
        assert_eq!(of(20, true, Reason::NoPackets), "stalled");
        assert_eq!(of(20, true, Reason::ConnectTimeout), "half_open");
        assert_eq!(of(0, false, Reason::ConnectTimeout), "no_answer");
        assert_eq!(of(0, false, Reason::NoPackets), "udp_blocked");
    }
}
