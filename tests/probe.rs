//! `camring probe`: what is said of a stream is what the simulated camera was told to send.
#![cfg(feature = "sim")]

mod system;

use std::io::Write;
use std::path::Path;

use serde_json::Value;
use system::{Ended, Sim, camring, ended, free_port};

const PASSWORD: &str = "correct-horse";

fn probe(url: &str, options: &[&str]) -> Ended {
    let mut command = camring();
    command.args(["probe", url]).args(options);
    ended(command)
}

/// What is said of a camera with these options, watched for two seconds.
fn facts(options: &[&str]) -> Value {
    let sim = Sim::spawn(options);
    let said = probe(&sim.url, &["--json", "--watch", "2s"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:#?}");
    serde_json::from_str(&said.stdout).unwrap()
}

fn near(value: &Value, wanted: f64, by: f64) -> bool {
    value.as_f64().is_some_and(|found| (found - wanted).abs() <= by)
}

fn advice(facts: &Value) -> String {
    facts["advice"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn size_rate_group_and_order_are_those_that_the_camera_was_told_to_send() {
    let plain = facts(&["--size", "320x240", "--fps", "10", "--gop", "500ms", "--bitrate", "400k"]);
    assert_eq!((&plain["codec"], &plain["width"], &plain["height"]), (&"h264".into(), &320.into(), &240.into()));
    assert!(near(&plain["fps"], 10.0, 0.3), "{plain:#}");
    assert_eq!((&plain["gop_frames"], &plain["b_frames"]), (&5.into(), &0.into()), "{plain:#}");
    assert_eq!((&plain["transport"], &plain["decoder"]), (&"tcp".into(), &"avdec_h264".into()));
    assert_eq!((&plain["packets_lost"], &plain["marks_slices"]), (&0.into(), &false.into()));
    assert!(near(&plain["kbit_per_s"], 400.0, 300.0) && plain["profile"].is_string(), "{plain:#}");
    assert!(!advice(&plain).contains("B-frames") && !advice(&plain).contains("sub-stream"), "{plain:#}");
}

#[test]
fn b_frames_long_groups_and_large_pictures_are_advised_against() {
    let sent = facts(&["--size", "1280x720", "--fps", "25", "--gop", "5s", "--b-frames", "2"]);
    assert_eq!(sent["b_frames"], 2, "{sent:#}");
    assert!(near(&sent["fps"], 25.0, 0.5) && near(&sent["gop_seconds"], 5.0, 0.2), "{sent:#}");
    for words in ["B-frames off", "keyframe interval", "25 fps is more"] {
        assert!(advice(&sent).contains(words), "no {words} in {sent:#}");
    }
}

#[test]
fn other_codecs_slices_and_interlaced_pictures_are_told() {
    let small = ["--size", "320x240", "--fps", "10", "--gop", "500ms"];
    let h265 = facts(&[&small[..], &["--codec", "h265"]].concat());
    assert_eq!((&h265["codec"], &h265["gop_frames"]), (&"h265".into(), &5.into()), "{h265:#}");
    assert!(advice(&h265).contains("choose H.264"), "{h265:#}");
    let mjpeg = facts(&[&small[..], &["--codec", "mjpeg"]].concat());
    assert_eq!(
        (&mjpeg["codec"], &mjpeg["gop_frames"], &mjpeg["color"]["range"]),
        (&"mjpeg".into(), &1.into(), &"full".into())
    );
    let marked = facts(&[&small[..], &["--slices", "4", "--mark-slices"]].concat());
    assert_eq!((&marked["slices"], &marked["marks_slices"]), (&4.into(), &true.into()), "{marked:#}");
    assert!(advice(&marked).contains("access_units"), "{marked:#}");
    let woven = facts(&[&small[..], &["--interlaced"]].concat());
    assert_eq!(woven["interlaced"], true, "{woven:#}");
}

#[test]
fn the_block_is_accepted_by_check_and_holds_no_password() {
    let sim = Sim::spawn_with_password(&["--size", "320x240", "--fps", "10", "--gop", "500ms"], PASSWORD);
    let mut command = camring();
    command.args([
        "probe",
        &sim.url,
        "--user",
        "viewer",
        "--password-stdin",
        "--toml",
        "--name",
        "yard-2",
        "--watch",
        "1s",
    ]);
    let output = assert_cmd::Command::from_std(command)
        .write_stdin(format!("{PASSWORD}\n"))
        .timeout(system::PATIENCE)
        .output()
        .unwrap();
    let block = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{block} {}", String::from_utf8_lossy(&output.stderr));
    assert!(block.contains("[camera.yard-2]") && block.contains("password = \"${yard_2_pw}\""), "{block}");
    assert!(!block.contains(PASSWORD) && !String::from_utf8_lossy(&output.stderr).contains(PASSWORD), "{block}");
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(block.as_bytes()).unwrap();
    let mut command = camring();
    command.arg("check").arg(file.path()).env("yard_2_pw", PASSWORD).args(["--secrets", "--connect"]);
    let said = ended(command);
    assert!(said.code == Some(0) && said.stdout.contains("yard-2") && said.stdout.contains(" live "), "{said:#?}");
}

#[test]
fn a_camera_that_refuses_tcp_is_watched_over_udp() {
    let mut script = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    script.write_all(b"transport = \"udp\"\n[[fault]]\nat = \"1h\"\ndo = \"stall\"\n").unwrap();
    let script = script.path().to_str().unwrap().to_owned();
    let sent = facts(&["--size", "320x240", "--fps", "10", "--gop", "500ms", "--script", &script]);
    assert_eq!((&sent["transport"], &sent["transports_tried"]), (&"udp".into(), &serde_json::json!(["tcp", "udp"])));
}

#[test]
fn each_failure_has_its_exit_code_and_says_what_to_do() {
    let locked = Sim::spawn_with_password(&["--size", "320x240"], PASSWORD);
    let open = Sim::spawn(&["--size", "320x240"]);
    let busy = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/sim/busy.toml");
    let busy = Sim::spawn(&["--size", "320x240", "--script", busy.to_str().unwrap()]);
    let nobody = format!("rtsp://127.0.0.1:{}/x", free_port());
    let missing = format!("{}-elsewhere", open.url);
    for (url, code, words) in [
        (busy.url.as_str(), 75, "no session left (status 453); close other viewers"),
        (&locked.url, 77, "asks for user and password"),
        (&nobody, 69, "refused the connection; check the port"),
        (&missing, 69, "no such stream (status 404); check the path"),
        ("rtsp://", 78, "url"),
    ] {
        let said = probe(url, &["--json"]);
        assert_eq!((said.code, said.stdout.as_str()), (Some(code), ""), "{said:#?}");
        assert!(said.stderr.contains(words), "no {words:?} in {said:#?}");
    }
}
