//! Wrong answers: whatever a camera says instead of a stream has its name in the ring, and its pace.
#![cfg(feature = "sim")]

mod system;

use std::time::Duration;

use camring_ring::clock::mono_ns;
use camring_ring::{Liveness, Reason, State};
use system::reader::{Reader, Way};
use system::{Daemon, Shm, Sim, let_pass, until, until_within};

/// From one to the other the first pause is to last, ms.
type Pace = (u64, u64);

/// `reconnect.first` of the cameras here, and its jitter: the usual 0 to 250 ms would be over between two looks.
const SOON: Pace = (1000, 1250);
/// 5 s on top of it.
const BUSY: Pace = (6000, 6250);
const SLOW: Pace = (5000, 10_000);
const VERY_SLOW: Pace = (60_000, 120_000);
/// How late a test of a busy machine may look.
const SLACK_MS: u64 = 1500;
/// How long each answer is wrong.
const WRONG: Duration = Duration::from_secs(4);

/// What the camera does, what readers are told, how soon it is asked again.
const TABLE: [(&str, Reason, Pace); 16] = [
    ("do = \"status\"\ncode = 401", Reason::Auth, VERY_SLOW),
    ("do = \"status\"\ncode = 403", Reason::Auth, VERY_SLOW),
    ("do = \"status\"\ncode = 404", Reason::NotFound, SLOW),
    ("do = \"status\"\ncode = 410", Reason::NotFound, SLOW),
    ("do = \"status\"\ncode = 453", Reason::ServerBusy, BUSY),
    ("do = \"status\"\ncode = 503\nretry_after = \"7s\"", Reason::ServerBusy, BUSY),
    ("do = \"status\"\ncode = 500", Reason::ServerClosed, SOON),
    ("do = \"status\"\nmethod = \"SETUP\"\ncode = 454", Reason::ServerClosed, SOON),
    ("do = \"status\"\nmethod = \"PLAY\"\ncode = 453", Reason::ServerBusy, BUSY),
    ("do = \"status\"\nmethod = \"PLAY\"\ncode = 403", Reason::Auth, VERY_SLOW),
    ("do = \"garbage\"", Reason::NotRtsp, SLOW),
    ("do = \"no-answer\"", Reason::ConnectTimeout, SOON),
    ("do = \"sdp\"\nkind = \"empty\"", Reason::NoVideo, SLOW),
    ("do = \"sdp\"\nkind = \"malformed\"", Reason::NoVideo, SLOW),
    ("do = \"sdp\"\nkind = \"audio-only\"", Reason::NoVideo, SLOW),
    ("do = \"sdp\"\nkind = \"unknown-codec\"", Reason::UnsupportedCodec, SLOW),
];

/// One camera that answers wrongly for a while, its daemon, and a reader that was there before either had a frame.
fn answered(fault: &str, reason: Reason, (least, most): Pace) {
    let [script, config] = [0; 2].map(|_| tempfile::NamedTempFile::with_suffix(".toml").unwrap());
    let text = format!("from = \"start\"\n[[fault]]\nfor = \"{}s\"\n{fault}\n", WRONG.as_secs());
    std::fs::write(script.path(), text).unwrap();
    let options = ["--size", "320x240", "--fps", "10", "--gop", "200ms", "--script", script.path().to_str().unwrap()];
    let (shm, sim) = (Shm::new(), Sim::spawn(&options));
    let lines =
        "user = \"viewer\"\npassword = \"wr0ng-p4ss\"\nreconnect.first = \"1s\"\nreconnect.request_timeout = \"1s\"";
    std::fs::write(config.path(), format!("[camera.cam]\nurl = \"{}\"\n{lines}\n", sim.url)).unwrap();
    let began_ms = mono_ns().unsigned_abs() / 1_000_000;
    let mut daemon = Daemon::spawn_config(&shm, "cam", config.path());
    let reader = Reader::attach(&shm, "cam", Way::Next);
    until(&format!("{fault:?} is answered"), || reader.ring.status().next_retry_mono_ns != 0);
    let (status, now_ms) = (reader.ring.status(), mono_ns().unsigned_abs() / 1_000_000);
    let log = daemon.log();
    assert_eq!((status.state, status.reason, status.attempt), (State::Connecting, reason, 1), "{fault:?}: {log}");
    let next_ms = status.next_retry_mono_ns / 1_000_000;
    assert!(next_ms >= began_ms + least, "{fault:?}: asked again {} ms after the start", next_ms - began_ms);
    assert!(next_ms <= now_ms + most, "{fault:?}: asked again in {} ms", next_ms - now_ms);
    until(&format!("{fault:?} is in the log"), || daemon.log().contains(&format!("reason={reason}")));
    if least >= VERY_SLOW.0 {
        // An account that locks after a few wrong passwords is not asked twice.
        let_pass(WRONG);
        assert_eq!(reader.ring.status().attempt, 1, "{fault:?}");
    } else {
        let patience = WRONG + Duration::from_millis(2 * most + SLACK_MS) + Duration::from_secs(15);
        until_within(patience, &format!("{fault:?} is over and frames flow"), || reader.newest().is_some());
        until("the state is live", || reader.ring.status().state == State::Live);
    }
    assert_eq!(reader.ring.liveness(), Liveness::Alive, "{fault:?}");
    assert!(daemon.process.0.try_wait().unwrap().is_none(), "{fault:?}");
    let log = daemon.log();
    assert!(!log.contains("panicked") && !log.contains("wr0ng-p4ss"), "{log}");
    reader.finish();
}

#[test]
fn each_wrong_answer_has_its_name_and_its_pace() {
    for rows in TABLE.chunks(6) {
        std::thread::scope(|scope| {
            for (fault, reason, pace) in rows {
                scope.spawn(|| answered(fault, *reason, *pace));
            }
        });
    }
}
