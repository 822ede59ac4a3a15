//! Encrypted cameras, as processes: a certificate that cannot be trusted is refused and named, no picture comes through.
#![cfg(feature = "sim")]

mod system;

use std::path::{Path, PathBuf};
use std::time::Duration;

use camring_ring::{Reason, State};
use system::reader::{Reader, Way};
use system::{Daemon, Shm, Sim, amount, let_pass, measured, until};

/// The SHA-256 of `test-camera.pem`.
const PIN: &str = "4c8c5e16eb838101f4d808271cd6256dc0626f7b1498bb5971c0e4d43af85fb1";
/// How long a refused camera is watched after its first try.
fn watching_time() -> Duration {
    Duration::from_secs(amount(2, 40))
}

fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A camera with this certificate, a daemon with these lines about it, and a reader.
fn watched(certificate: &str, lines: &str) -> (Reader, Daemon, Sim, Shm) {
    let path = pem(certificate);
    let options = ["--size", "320x240", "--fps", "10", "--gop", "200ms", "--tls-certificate", path.to_str().unwrap()];
    let (shm, sim) = (Shm::new(), Sim::spawn(&options));
    assert!(sim.url.starts_with("rtsps://"), "{}", sim.url);
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), format!("[camera.cam]\nurl = \"{}\"\n{lines}\n", sim.url)).unwrap();
    let daemon = Daemon::spawn_config(&shm, "cam", file.path());
    // It reads the file before it makes the ring.
    let reader = Reader::attach(&shm, "cam", Way::Next);
    (reader, daemon, sim, shm)
}

fn trusting(certificate: &str) -> String {
    format!("tls.ca = \"{}\"", pem(certificate).display())
}

#[test]
fn a_certificate_that_cannot_be_trusted_is_refused_and_named_and_no_picture_comes() {
    let wrong = PIN.replace('a', "b");
    let table = [
        ("test-camera.pem", String::new(), "its authority is unknown"),
        ("test-camera.pem", trusting("other-camera.pem"), "its authority is unknown"),
        ("other-camera.pem", trusting("other-camera.pem"), "it is for another host name"),
        ("expired-camera.pem", trusting("expired-camera.pem"), "it has expired"),
        ("test-camera.pem", format!("tls.pin_sha256 = \"{wrong}\""), PIN),
    ];
    for (certificate, lines, words) in table {
        let (reader, mut daemon, _sim, _shm) = watched(certificate, &lines);
        until(&format!("{certificate} is refused"), || reader.ring.status().next_retry_mono_ns != 0);
        let_pass(watching_time());
        let status = reader.ring.status();
        assert_eq!((status.state, status.reason, status.seq.0), (State::Connecting, Reason::Tls, 0), "{certificate}");
        assert!(daemon.log().contains(words), "no {words:?} in\n{}", daemon.log());
        assert!(daemon.process.0.try_wait().unwrap().is_none());
        measured(format!("{certificate} ({words}): {} tries, no picture", status.attempt));
        assert!(reader.finish().is_empty(), "a picture of a camera that nobody trusts");
    }
}

#[test]
fn a_certificate_that_is_trusted_pinned_or_expressly_not_checked_gives_whole_pictures() {
    let table = [
        ("test-camera.pem", trusting("test-camera.pem")),
        ("test-camera.pem", format!("tls.pin_sha256 = \"{}\"", PIN.to_uppercase())),
        ("expired-camera.pem", "tls.verify = false\ntls.allow_insecure = true".to_owned()),
    ];
    for (certificate, lines) in table {
        let (reader, _daemon, _sim, _shm) = watched(certificate, &lines);
        let mut frames = 0;
        let wanted = amount(10, 300);
        reader.first(&format!("{wanted} frames with {lines}"), |_| {
            frames += 1;
            frames >= wanted
        });
        until("the state is live", || reader.ring.status().state == State::Live);
        measured(format!("{certificate} with {lines}: {} frames", reader.finish().len()));
    }
}
