//! The reading commands as a user has them: the real binary against writers in other processes.

mod writer;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use camring_ring::PixelFormat;
use rustix::process::Signal;
use serde_json::Value;
use writer::{Ended, QUADRANTS, Shm, WriterProcess, picture, signal, until};

#[test]
#[ignore = "the writer process that the other tests start"]
fn writer_process() {
    writer::writer_main();
}

/// What `list --json` says about a ring.
fn listed(shm: &Shm, ring: &str) -> Value {
    let all = shm.camring(&["list", "--json"]).with_code(0).json();
    let found = all.as_array().unwrap().iter().find(|one| one["name"] == ring);
    found.unwrap_or_else(|| panic!("no {ring} in {all}")).clone()
}

/// A ring that has a frame.
fn live(shm: &Shm, ring: &str) -> WriterProcess {
    let writer = WriterProcess::start(shm, ring);
    shm.camring(&["wait", ring]).with_code(0);
    writer
}

#[test]
fn list_says_what_each_ring_is_doing() {
    let shm = Shm::new();
    let _front = live(&shm, "front");
    let mut back = live(&shm, "back.small");
    back.order("pause");
    back.order("state reconnecting no_packets 3 60000");
    let table = until("both states in the list", || {
        let list = shm.camring(&["list"]).with_code(0);
        let lines: Vec<String> = list.text().lines().map(str::to_owned).collect();
        lines.iter().any(|line| line.contains("no_packets, try 3, next in")).then_some(lines)
    });
    let columns: Vec<&str> = table[0].split_whitespace().collect();
    assert_eq!(columns.join(" "), "CAMERA STATE SIZE FMT SLOTS RING FPS AGE SEQ READERS");
    assert!(table[1].starts_with("back.small  reconnecting"), "{table:#?}");
    assert!(table[1].contains("  64x48  bgr  8      "), "{table:#?}");
    assert!(table[2].starts_with("front       live"), "{table:#?}");
    assert!(table.iter().all(|line| !line.contains('\x1b') && line.trim_end() == line), "{table:#?}");
    assert_eq!(table.len(), 3);
}

#[test]
fn colours_are_given_when_demanded_and_never_when_refused() {
    let shm = Shm::new();
    let _front = live(&shm, "front");
    let run = |variables: &[(&str, &str)]| {
        let mut command = shm.command(&["list"]);
        command.envs(variables.iter().copied());
        Ended::of(command).with_code(0).text().contains('\x1b')
    };
    assert!(run(&[("CLICOLOR_FORCE", "1")]));
    assert!(!run(&[]));
    assert!(!run(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

#[test]
fn the_json_of_list_and_show_has_the_documented_keys() {
    let shm = Shm::new();
    let front = live(&shm, "front");
    let show = shm.camring(&["show", "front", "--json"]).with_code(0).json();
    for object in [&listed(&shm, "front"), &show] {
        for key in camring::report::RingReport::KEYS {
            assert!(object.get(key).is_some(), "no {key} in {object}");
        }
        let known = [("name", "front"), ("segment", "camring.front"), ("state", "live"), ("format", "bgr")];
        known.iter().for_each(|(key, value)| assert_eq!(object[key], *value, "{object}"));
        assert_eq!((&object["width"], &object["height"], &object["slots"]), (&64.into(), &48.into(), &8.into()));
        assert_eq!((&object["writer_alive"], &object["stale"]), (&true.into(), &false.into()));
        assert_eq!(object["writer_pid"], front.pid());
        assert!(object["seq"].as_u64() > Some(0) && object["age_ms"].as_f64() >= Some(0.0), "{object}");
        assert!(object["counters"]["published"].as_u64() > Some(0), "{object}");
    }
    for key in ["slot_states", "decode_to_publish", "frame_interval", "process", "reconnects", "path"] {
        assert!(!show[key].is_null(), "{key} in {show}");
    }
    let slots = &show["slot_states"];
    let sum = ["published", "writing", "empty"].iter().map(|key| slots[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum, 8, "{slots}");
    assert!(show["process"]["rss_bytes"].as_u64() > Some(1_000_000), "{show}");
}

#[test]
fn show_tells_a_person_about_frames_daemon_segment_and_readers() {
    let shm = Shm::new();
    let front = live(&shm, "front");
    let mut watcher = shm.command(&["watch", "front"]).stdout(Stdio::null()).spawn().unwrap();
    let reader = format!("readers     1: pid {}", watcher.id());
    let text = until("the watcher among the readers", || {
        let show = shm.camring(&["show", "camring.front"]).with_code(0).text().to_owned();
        show.contains(&reader).then_some(show)
    });
    signal(&watcher, Signal::INT);
    assert!(watcher.wait().unwrap().success());
    for part in [
        "state       live since",
        "64x48 bgr, ",
        "source      h264 decoded by avdec_h264",
        &format!("daemon      alive, pid {}", front.pid()),
        "layout      version 1.0 by camring",
        "lease policy fresh",
        "counters    bytes",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn a_dead_daemon_is_named_and_its_ring_stays_readable() {
    let shm = Shm::new();
    live(&shm, "front").kill();
    let report = listed(&shm, "front");
    assert_eq!((&report["state"], &report["liveness"]), (&"live".into(), &"gone".into()));
    assert_eq!(report["writer_alive"], false);
    let list = shm.camring(&["list"]).with_code(0);
    assert!(list.text().contains("live, dead writer"), "{list:?}");
    assert!(shm.camring(&["show", "front"]).with_code(0).text().contains("daemon      gone"));
    let waited = shm.camring(&["wait", "front", "--fresh", "0s", "--timeout", "100ms"]).with_code(75);
    assert!(waited.errors.contains("its camera is live and its daemon is not running; start camring@front"));
    let any = shm.camring(&["snap", "front", "--max-age", "any", "--format", "raw"]).with_code(0);
    assert_eq!(any.out, picture(64, 48, PixelFormat::Bgr));
    let stale = shm.camring(&["snap", "front", "--max-age", "0s", "--timeout", "0s"]).with_code(75);
    assert!(stale.errors.contains("the newest frame of ring \"front\" is ") && stale.out.is_empty(), "{stale:?}");
    assert!(stale.errors.contains("ms old, expected at most 0 ms; its camera is live"), "{stale:?}");
}

#[test]
fn a_stopped_daemon_is_called_hung_and_not_dead() {
    let shm = Shm::new();
    let front = live(&shm, "front");
    front.signal(Signal::STOP);
    until("the hung writer", || shm.camring(&["list"]).with_code(0).text().contains("hung writer").then_some(()));
    let report = listed(&shm, "front");
    assert_eq!((&report["liveness"], &report["writer_alive"]), (&"hung".into(), &true.into()));
    let refused = shm.camring(&["rm", "front"]).with_code(79);
    assert!(refused.errors.contains(&front.pid().to_string()), "{refused:?}");
    front.signal(Signal::CONT);
    until("the living writer", || (listed(&shm, "front")["liveness"] == "alive").then_some(()));
}

#[test]
fn a_ring_without_a_frame_has_no_size_and_every_command_says_why() {
    let shm = Shm::new();
    let mut front = WriterProcess::start_with(&shm, "front", "0x0", "bgr");
    front.order("state connecting auth 2 60000");
    let report = until("the state", || Some(listed(&shm, "front")).filter(|report| report["reason"] == "auth"));
    for key in ["width", "height", "format", "age_ms"] {
        assert!(report[key].is_null(), "{key} in {report}");
    }
    assert_eq!((&report["seq"], &report["stale"], &report["error"]), (&0.into(), &false.into(), &Value::Null));
    let list = shm.camring(&["list"]).with_code(0);
    let line = list.text().lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(line.starts_with("front connecting - - 8 ") && line.contains("auth, try 2, next in"), "{line}");
    for command in ["wait", "snap"] {
        let late = shm.camring(&[command, "front", "--timeout", "50ms"]).with_code(75);
        assert!(late.errors.contains("ring \"front\" has no frame yet"), "{late:?}");
        assert!(late.errors.contains("its camera is connecting (auth)"), "{late:?}");
    }
    let watched = shm.camring(&["watch", "front", "--timeout", "50ms", "--json"]).with_code(75).json();
    assert_eq!(
        (&watched["event"], &watched["reason"], &watched["seq"]),
        (&"state".into(), &"auth".into(), &Value::Null)
    );
    assert!(shm.camring(&["show", "front"]).with_code(0).text().contains("frame       none yet"));
}

#[test]
fn a_mount_without_rings_says_so() {
    let empty = Shm::new();
    let nothing = empty.camring(&["list"]).with_code(0);
    assert_eq!(nothing.text(), format!("no rings in {}\n", empty.path().display()));
    assert_eq!(empty.camring(&["list", "--json"]).with_code(0).text(), "[]\n");
}

#[test]
fn wait_tells_success_timeout_and_absence_apart() {
    let shm = Shm::new();
    let absent = shm.camring(&["wait", "front", "--timeout", "50ms"]).with_code(66);
    assert!(absent.errors.contains("no ring \"front\"") && absent.errors.contains("camring list"), "{absent:?}");
    let mut front = live(&shm, "front");
    let object = shm.camring(&["wait", "front", "--json"]).with_code(0).json();
    assert_eq!((&object["fresh"], &object["state"]), (&true.into(), &"live".into()));
    front.order("pause");
    front.order("state stalled no_packets 0 0");
    until("the state", || (listed(&shm, "front")["state"] == "stalled").then_some(()));
    let late = shm.camring(&["wait", "front", "--fresh", "0ms", "--timeout", "50ms", "--json"]).with_code(75);
    assert!(late.errors.contains("its camera is stalled (no_packets)"), "{late:?}");
    assert_eq!(late.json()["fresh"], false);
}

#[test]
fn wait_begins_before_the_ring_is_there() {
    let shm = Shm::new();
    let mut waiting = shm.command(&["wait", "front", "--timeout", "30s"]);
    let mut waiting = waiting.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(waiting.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.ends_with("; waiting\n"), "{said}");
    let _front = WriterProcess::start(&shm, "front");
    assert!(waiting.wait().unwrap().success());
}

#[test]
fn watch_prints_the_documented_keys_for_every_frame() {
    let shm = Shm::new();
    let _front = live(&shm, "front");
    let watched = shm.camring(&["watch", "front", "--count", "5", "--json"]).with_code(0);
    let frames: Vec<Value> = watched.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(frames.len(), 5);
    for frame in &frames {
        for key in [
            "seq",
            "skipped",
            "age_ms",
            "publish_to_read_us",
            "width",
            "height",
            "format",
            "state",
            "writer_epoch",
            "geometry_epoch",
            "flags",
        ] {
            assert!(!frame[key].is_null(), "{key} in {frame}");
        }
        assert_eq!(frame["event"], "frame");
        assert_eq!(frame["flags"], serde_json::json!(["keyframe", "synthetic"]));
    }
    for pair in frames.windows(2) {
        let step = pair[1]["seq"].as_u64().unwrap() - pair[0]["seq"].as_u64().unwrap();
        assert_eq!(pair[1]["skipped"], step - 1, "{pair:?}");
    }
    let text = shm.camring(&["watch", "front", "-n", "1"]).with_code(0);
    assert!(text.text().contains("64x48 bgr  keyframe,synthetic"), "{text:?}");
}

#[test]
fn watch_tells_each_change_of_state_once_and_goes_on() {
    let shm = Shm::new();
    let mut front = live(&shm, "front");
    let mut watching = shm.command(&["watch", "front"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("64x48 bgr"));
    front.order("pause");
    front.order("state stalled no_packets 0 0");
    assert_eq!(lines.find(|line| line.starts_with("front: ")).unwrap(), "front: stalled, no_packets");
    front.order("state reconnecting no_packets 1 60000");
    let next = lines.next().unwrap();
    assert!(next.starts_with("front: reconnecting, no_packets, next try in"), "{next}");
    // Another attempt is no other state.
    front.order("state reconnecting no_packets 2 60000");
    front.order("state live none 0 0");
    assert_eq!(lines.next().unwrap(), "front: live");
    front.order("go");
    assert!(lines.next().unwrap().contains("64x48 bgr"));
    front.kill();
    assert_eq!(lines.find(|line| line.starts_with("front: ")).unwrap(), "front: live, dead writer");
    let _again = WriterProcess::start(&shm, "front");
    assert!(lines.find(|line| line.contains("64x48 bgr")).unwrap().contains("discont,after_restart"));
    signal(&watching, Signal::INT);
    assert!(watching.wait().unwrap().success());
}

#[test]
fn watch_goes_on_with_a_ring_that_was_removed_and_made_anew() {
    let shm = Shm::new();
    let front = live(&shm, "front");
    let mut watching = shm.command(&["watch", "front"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Far enough that the numbers of the new ring begin below.
    let seq = |line: &str| line.trim_start().split(' ').next().unwrap().parse::<u64>();
    lines.find(|line| seq(line).is_ok_and(|seq| seq > 10)).unwrap();
    front.stop();
    let stopped = lines.find(|line| line.starts_with("front: ")).unwrap();
    assert!(stopped.starts_with("front: stopped, operator"), "{stopped}");
    shm.camring(&["rm", "front"]).with_code(0);
    lines.find(|line| line.contains("removed by its operator")).unwrap();
    let mut again = WriterProcess::start_with(&shm, "front", "0x0", "bgr");
    until("the watcher on the new ring", || (listed(&shm, "front")["readers"] == 1).then_some(()));
    again.order("size 64x48");
    let first = lines.find(|line| line.contains("64x48 bgr")).unwrap();
    assert!(seq(&first).unwrap() < 10, "{first}");
    signal(&watching, Signal::INT);
    assert!(watching.wait().unwrap().success());
}

#[test]
fn watch_ends_with_75_when_no_frame_comes_in_time() {
    let shm = Shm::new();
    let absent = shm.camring(&["watch", "front", "--timeout", "50ms"]).with_code(66);
    assert!(absent.errors.contains("no ring \"front\""), "{absent:?}");
    let mut front = live(&shm, "front");
    front.order("pause");
    front.order("state stalled no_packets 0 0");
    let ended = shm.camring(&["watch", "front", "--timeout", "300ms"]).with_code(75);
    assert!(ended.errors.contains("no new frame in ring \"front\""), "{ended:?}");
    assert!(ended.errors.contains("its camera is stalled (no_packets)"), "{ended:?}");
}

#[test]
fn watch_ends_quietly_when_its_reader_goes_away() {
    let shm = Shm::new();
    let _front = live(&shm, "front");
    let mut command = shm.command(&["watch", "front"]);
    let mut watching = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    BufReader::new(watching.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    // The pipe's reading end is closed by now.
    assert!(watching.wait().unwrap().success());
    let mut said = String::new();
    watching.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn watch_verifies_checksums_and_says_when_no_stamp_is_painted() {
    let shm = Shm::new();
    let _front = live(&shm, "front");
    let watched = shm.camring(&["watch", "front", "--count", "1", "--verify", "--json"]).with_code(0).json();
    let said = watched["verify_error"].as_str().unwrap();
    assert!(!said.contains("torn") && said.contains("stamp"), "{said}");
}

#[test]
fn snap_writes_the_pixels_of_the_ring_in_every_format() {
    let shm = Shm::new();
    let folder = tempfile::tempdir().unwrap();
    for format in ["bgr", "rgb", "gray"] {
        let ring = format!("cam-{format}");
        let _writer = WriterProcess::start_with(&shm, &ring, "64x48", format);
        let expected = picture(64, 48, PixelFormat::from_word(format).unwrap());
        let snap = |name: &str| {
            let path = folder.path().join(format!("{format}{name}"));
            let arguments = ["snap", &ring, "-o", path.to_str().unwrap(), "--max-age", "10s", "--timeout", "10s"];
            let ended = shm.camring(&[&arguments[..], &["--json"]].concat()).with_code(0).json();
            let file = std::fs::read(&path).unwrap();
            assert_eq!((&ended["bytes"], &ended["width"]), (&file.len().into(), &64.into()), "{ended}");
            (path, file)
        };
        assert_eq!(snap(".raw").1, expected);
        let npy = snap(".npy").1;
        assert_eq!(npy[npy.len() - expected.len()..], expected);
        let shape = if format == "gray" { "'shape': (48, 64), }" } else { "'shape': (48, 64, 3), }" };
        assert!(String::from_utf8_lossy(&npy[..128]).contains(shape), "{format}");
        let mut png = png::Decoder::new(std::io::Cursor::new(snap(".png").1)).read_info().unwrap();
        let mut pixels = vec![0; png.output_buffer_size().unwrap()];
        png.next_frame(&mut pixels).unwrap();
        let wanted = if format == "gray" { expected } else { picture(64, 48, PixelFormat::Rgb) };
        assert_eq!(pixels, wanted, "{format} as png");
        assert_quadrants(&decoded(&snap(".jpg").0), format == "gray");
    }
}

/// A JPEG's pixels as rgb, by a decoder of another house.
fn decoded(path: &std::path::Path) -> Vec<u8> {
    let out = path.with_extension("rgb");
    let status = Command::new("gst-launch-1.0")
        .args(["-q", "filesrc", &format!("location={}", path.display()), "!", "jpegdec", "!", "videoconvert", "!"])
        .args(["video/x-raw,format=RGB", "!", "filesink", &format!("location={}", out.display())])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read(out).unwrap()
}

/// The middle of each quadrant has its colour, as exactly as a JPEG can.
fn assert_quadrants(rgb: &[u8], gray: bool) {
    for (index, colour) in QUADRANTS.iter().enumerate() {
        let (x, y) = (16 + index % 2 * 32, 12 + index / 2 * 24);
        let found = &rgb[(y * 64 + x) * 3..][..3];
        let wanted = if gray { [colour[1]; 3] } else { *colour };
        let far = found.iter().zip(wanted).any(|(a, b)| a.abs_diff(b) > 8);
        assert!(!far, "quadrant {index} is {found:?}, expected {wanted:?}");
    }
}

#[test]
fn snap_gives_standard_output_a_picture_but_never_a_terminal() {
    let shm = Shm::new();
    let _front = live(&shm, "front");
    let jpeg = shm.camring(&["snap", "front", "-o", "-"]).with_code(0);
    assert_eq!(jpeg.out[..3], [0xFF, 0xD8, 0xFF]);
    let command = format!("{} snap front --shm-dir {}", env!("CARGO_BIN_EXE_camring"), shm.path().display());
    let mut in_terminal = Command::new("script");
    in_terminal.args(["-qec", &command, "/dev/null"]).stdin(Stdio::null());
    let refused = Ended::of(in_terminal).with_code(2);
    assert!(refused.text().contains("name a file with -o FILE"), "{refused:?}");
    let unknown = shm.camring(&["snap", "front", "-o", "x.tiff"]).with_code(2);
    assert!(unknown.errors.contains("does not end in .jpg, .png, .npy or .raw"), "{unknown:?}");
    shm.camring(&["snap", "nothing", "--timeout", "0s"]).with_code(66);
}

#[test]
fn rm_refuses_a_ring_in_use_and_names_the_pid() {
    let shm = Shm::new();
    let front = live(&shm, "front");
    for arguments in [&["rm", "front"][..], &["rm", "front", "--dry-run"], &["rm", "camring.front"]] {
        let refused = shm.camring(arguments).with_code(79);
        let text = format!("ring \"front\" is in use by process {}; stop camring@front first", front.pid());
        assert!(refused.errors.contains(&text), "{refused:?}");
    }
    front.stop();
    let dry = shm.camring(&["rm", "front", "--dry-run"]).with_code(0);
    assert_eq!(dry.text(), "would remove front\n");
    assert_eq!(shm.camring(&["rm", "front"]).with_code(0).text(), "removed front\n");
    let gone = shm.camring(&["rm", "front"]).with_code(66);
    assert!(gone.errors.contains("no ring \"front\""), "{gone:?}");
    assert!(!shm.path().join("camring.front").exists());
}

#[test]
fn rm_stale_removes_rings_without_a_daemon_and_no_others() {
    let shm = Shm::new();
    let _front = live(&shm, "front");
    live(&shm, "killed").kill();
    live(&shm, "stopped").stop();
    let dry = shm.camring(&["rm", "--stale", "--dry-run"]).with_code(0);
    assert_eq!(dry.text(), "would remove killed\nwould remove stopped\n");
    let done = shm.camring(&["rm", "--stale", "--json"]).with_code(0).json();
    let names: Vec<_> = done.as_array().unwrap().iter().map(|one| (&one["name"], &one["removed"])).collect();
    assert_eq!(names, [(&"killed".into(), &true.into()), (&"stopped".into(), &true.into())]);
    let left = shm.camring(&["list", "--json"]).with_code(0).json();
    assert_eq!(left.as_array().unwrap().len(), 1);
    assert_eq!(shm.camring(&["rm", "--stale"]).with_code(0).text(), "no stale rings\n");
    shm.camring(&["rm"]).with_code(2);
}

#[test]
fn what_a_killed_rm_leaves_is_removed_by_the_next_one() {
    let shm = Shm::new();
    for (point, arguments, said) in [
        ("remove-retired", &["rm", "front"][..], "removed front\n"),
        ("remove-retired", &["rm", "--stale"], "removed front\n"),
        ("remove-public", &["rm", "--stale"], "removed front\n"),
    ] {
        live(&shm, "front").kill();
        let mut killed = shm.command(&["rm", "front"]);
        assert_eq!(killed.env("CAMRING_CRASH_AT", point).status().unwrap().signal(), Some(9), "{point}");
        assert!(shm.anchor("front").exists(), "{point} is before the end");
        let dry = [arguments, &["--dry-run"]].concat();
        assert_eq!(shm.camring(&dry).with_code(0).text(), "would remove front\n", "{point}");
        assert_eq!(shm.camring(arguments).with_code(0).text(), said, "{point}");
        assert!(!shm.path().join("camring.front").exists(), "{point}");
        shm.camring(&["rm", "front"]).with_code(66);
    }
    assert_eq!(shm.camring(&["rm", "--stale"]).with_code(0).text(), "no stale rings\n");
}

#[test]
fn names_that_are_no_names_are_refused_with_the_reason() {
    use std::os::unix::ffi::OsStrExt;
    let shm = Shm::new();
    for name in ["/camring.front", "a/b", "../front", ".lock-front", &"x".repeat(256)] {
        for command in ["show", "wait", "snap"] {
            let refused = shm.camring(&[command, name, "--any-owner"]);
            assert!(refused.code != Some(0) && refused.errors.contains("name \""), "{command} {name}: {refused:?}");
        }
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_camring"));
    let output = command.arg("show").arg(std::ffi::OsStr::from_bytes(b"\xFF\xFE")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("invalid UTF-8"), "{output:?}");
}

#[test]
fn damaged_and_newer_rings_are_lines_with_their_error() {
    let shm = Shm::new();
    let _front = live(&shm, "front");
    let ring = std::fs::read(shm.anchor("front")).unwrap();
    let put = |name: &str, offset: usize, byte: u8| {
        let mut copy = ring.clone();
        copy[offset] = byte;
        std::fs::write(shm.anchor("front").with_file_name(name), copy).unwrap();
    };
    put("newer", 0x00C, 2);
    put("damaged", 0x028, 77);
    put("other", 0, b'X');
    let list = shm.camring(&["list"]).with_code(0);
    let line = |name: &str| list.text().lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("front").contains("live"));
    assert!(line("newer").contains("unreadable") && line("newer").contains("this build speaks"), "{list:?}");
    assert!(line("damaged").contains("damaged header: the checksum does not match"), "{list:?}");
    assert!(line("other").contains("is no camring segment"), "{list:?}");
    let report = listed(&shm, "damaged");
    assert!(report["error"].as_str().unwrap().contains("checksum") && report["state"].is_null(), "{report}");
    assert_eq!(report.as_object().unwrap().len(), camring::report::RingReport::KEYS.len());
    for (name, part) in [("newer", "layout version 2"), ("damaged", "checksum"), ("other", "no camring segment")] {
        for command in ["show", "snap", "wait", "watch"] {
            let refused = shm.camring(&[command, name]).with_code(76);
            assert!(refused.errors.contains(part), "{command} {name}: {refused:?}");
        }
    }
    // The header's checksum covers its configuration; the head is judged at every read.
    put("headless", 0x200, 200);
    assert!(listed(&shm, "headless")["error"].as_str().unwrap().contains("contradicts itself"));
    let refused = shm.camring(&["watch", "headless"]).with_code(1);
    assert!(refused.errors.contains("in slot 200 of 8"), "{refused:?}");
    let stale = shm.camring(&["rm", "--stale"]).with_code(76);
    assert!(stale.errors.contains("checksum") && shm.anchor("damaged").exists(), "{stale:?}");
}

#[test]
fn a_ring_that_may_not_be_read_is_told_with_its_group_and_code_77() {
    let shm = Shm::new();
    let _front = live(&shm, "front");
    let root = rustix::process::geteuid().is_root();
    if !root {
        std::fs::set_permissions(shm.anchor("front"), std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    let as_other = |arguments: &[&str]| {
        let own = shm.command(arguments);
        if !root {
            return Ended::of(own);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
        command.arg(own.get_program()).args(own.get_args()).env("CAMRING_SHM_DIR", shm.path());
        Ended::of(command)
    };
    let list = as_other(&["list"]).with_code(0);
    assert!(list.text().contains("front") && list.text().contains("may be read by group"), "{list:?}");
    for command in ["show", "snap", "wait", "watch"] {
        let refused = as_other(&[command, "front"]).with_code(77);
        assert!(refused.errors.contains("add this user to that group"), "{command}: {refused:?}");
    }
    if root {
        let refused = as_other(&["rm", "front"]);
        assert_eq!(refused.code, Some(77), "{refused:?}");
        assert!(shm.anchor("front").exists());
    }
}

#[test]
fn a_mount_that_is_not_there_is_an_error_with_a_remedy() {
    let ended = Shm::new().camring(&["list", "--shm-dir", "/nonexistent"]).with_code(1);
    assert!(ended.errors.contains("cannot read the memory mount /nonexistent; give another --shm-dir"), "{ended:?}");
}

#[test]
fn a_larger_picture_is_followed_by_a_watcher() {
    let shm = Shm::new();
    let mut front = live(&shm, "front");
    let mut watching = shm.command(&["watch", "front", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut frames = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let first = frames.next().unwrap();
    front.order("size 640x360");
    let larger = frames.find(|frame| frame["width"] == 640).unwrap();
    assert_ne!(first["generation"], larger["generation"]);
    assert!(larger["flags"].as_array().unwrap().contains(&"geometry_changed".into()), "{larger}");
    signal(&watching, Signal::TERM);
    assert!(watching.wait().unwrap().success());
}
