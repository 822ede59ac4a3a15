//! `camring serve`: what it tells, to whom, and that no client of it does harm.
#![cfg(feature = "sim")]

mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use camring::exit::Exit;
use camring_ring::{Sequence, State};
use rustix::process::Signal;
use serde_json::Value as Json;
use system::http::{Answer, Decoder, SLOW, Server, monitoring};
use system::{Daemon, Process, Shm, Sim, amount, camring, ended, measured, pause, stamp_of, until, until_within};

/// Small, so that the tests cost little.
const PICTURES: [&str; 6] = ["--size", "640x360", "--fps", "25", "--gop", "200ms"];
/// The state is told within this after something happened.
const TOLD: Duration = Duration::from_secs(5);
const TOKEN: &str = "0123456789abcdef+/token";
/// Everything that answers by itself.
const ADDRESSES: [&str; 7] =
    ["/", "/metrics", "/healthz", "/readyz", "/api/rings", "/api/rings/cam", "/rings/cam/snapshot.jpg"];

/// A camera, its daemon with a frame in its ring, and a server that knows of one more camera.
fn scene() -> (Shm, Sim, Daemon, Server) {
    let (shm, sim) = (Shm::new(), Sim::spawn(&PICTURES));
    let daemon = Daemon::spawn(&shm, "cam", &sim.url);
    let config =
        "[camera.cam]\ntest = {}\n[camera.never]\ntest = {}\n[camera.never.output.small]\nsize = \"320x180\"\n";
    let server = Server::spawn(&shm, config, &[]);
    let ring = shm.attach("cam");
    until("the camera is live", || ring.status().state == State::Live);
    (shm, sim, daemon, server)
}

/// What a command prints as JSON.
fn printed(shm: &Shm, arguments: &[&str]) -> Json {
    let mut command = camring();
    command.args(arguments).arg("--shm-dir").arg(shm.path());
    let ended = ended(command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

fn number(value: &Json) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn every_address_agrees_with_list_and_show() {
    let (shm, _sim, _daemon, server) = scene();
    let before = printed(&shm, &["list", "--json"]);
    let (rings, show, metrics) = (server.json("/api/rings"), server.json("/api/rings/cam"), server.metrics());
    let after = printed(&shm, &["list", "--json"]);
    let shown = printed(&shm, &["show", "cam", "--json"]);
    let keys = |value: &Json| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!((rings.as_array().unwrap().len(), keys(&rings[0])), (1, keys(&before[0])));
    assert_eq!(keys(&show), keys(&shown));
    for key in [
        "name",
        "segment",
        "state",
        "generation",
        "slots",
        "file_bytes",
        "width",
        "format",
        "writer_pid",
        "writer_epoch",
        "codec",
    ] {
        assert_eq!((&rings[0][key], &show[key]), (&before[0][key], &shown[key]), "{key}");
    }
    let sample = |name: &str| metrics.get(name).copied().unwrap_or_else(|| panic!("no {name} in {metrics:#?}"));
    let between = |name: &str, key: &str| {
        let (least, most) = (number(&before[0]["counters"][key]), number(&after[0]["counters"][key]));
        assert!((least..=most).contains(&sample(name)), "{name}: {} is not between {least} and {most}", sample(name));
    };
    between("camring_frames_published_total{camera=\"cam\"}", "published");
    between("camring_packets_total{camera=\"cam\"}", "packets");
    between("camring_frames_dropped_total{camera=\"cam\",reason=\"gate\"}", "dropped_gate");
    assert_eq!(sample("camring_ring_bytes{camera=\"cam\"}"), number(&before[0]["file_bytes"]));
    assert_eq!(sample("camring_ring_slots{camera=\"cam\"}"), number(&before[0]["slots"]));
    assert_eq!(sample("camring_writer_epoch{camera=\"cam\"}"), number(&before[0]["writer_epoch"]));
    let fps = "camring_frames_per_second{camera=\"cam\"}";
    // On a busy machine it may be far from the 25 that the camera sends.
    until("frames come", || (1.0..100.0).contains(&server.metrics()[fps]));
    assert!(sample("camring_frame_age_seconds{camera=\"cam\"}") < 5.0);
    assert!(sample("camring_process_resident_memory_bytes{camera=\"cam\"}") > 1e6);
    assert!(sample("camring_process_threads{camera=\"cam\"}") > 1.0);
    let bucket = "camring_frame_interval_seconds_bucket{camera=\"cam\",le=\"+Inf\"}";
    assert_eq!(sample(bucket), sample("camring_frame_interval_seconds_count{camera=\"cam\"}"));
    let mount = format!("camring_mount_free_bytes{{mount=\"{}\"}}", shm.path().display());
    assert!(sample(&mount) > 0.0);
}

#[test]
fn exactly_one_state_is_true_and_a_camera_that_never_delivered_is_there_too() {
    let (_shm, _sim, _daemon, server) = scene();
    let metrics = server.metrics();
    let mut states: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in &metrics {
        let Some(labels) = name.strip_prefix("camring_state{camera=\"") else { continue };
        let (camera, rest) = labels.split_once('"').unwrap();
        let state = rest.strip_prefix(",state=\"").unwrap().trim_end_matches("\"}");
        let list = states.entry(camera).or_default();
        if *value == 1.0 {
            list.push(state);
        }
    }
    let expected = [("cam", vec!["live"]), ("never", vec!["absent"]), ("never.small", vec!["absent"])];
    assert_eq!(states, BTreeMap::from(expected));
    assert_eq!(metrics["camring_frame_age_seconds{camera=\"never\"}"], f64::INFINITY);
    let ready = server.get("/readyz");
    let said: Json = serde_json::from_slice(&ready.body).unwrap();
    assert_eq!((ready.status, &said["ready"], &said["rings"][0]["ready"]), (503, &false.into(), &true.into()));
    assert_eq!(said["rings"][1]["reason"], "absent: configured, but there is no ring: start camring@never");
    let picture = server.get("/rings/never/snapshot.jpg");
    assert_eq!((picture.status, picture.text().contains("start camring@never")), (503, true), "{picture:?}");
    // The operator takes it out of the file: it is not missed any more.
    std::fs::write(server.config(), "[camera.cam]\ntest = {}\n").unwrap();
    server.daemon.process.signal(Signal::HUP);
    until("the service is ready", || server.get("/readyz").status == 200);
    std::fs::write(server.config(), "[camera.cam]\ntset = {}\n").unwrap();
    server.daemon.process.signal(Signal::HUP);
    until("the mistake is in the log", || server.daemon.log().contains("stay as they were: unknown key `tset`"));
    assert_eq!(server.get("/readyz").status, 200);
}

#[test]
fn every_answer_is_harmless_and_nothing_can_be_changed() {
    let (_shm, _sim, _daemon, server) = scene();
    for target in ADDRESSES.iter().chain(&["/nothing", "/api/rings/nothing", "/rings/../../etc/passwd/snapshot.jpg"]) {
        let answer = server.get(target);
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{target}: {answer:?}");
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'"), "{target}");
        assert_eq!(
            (answer.header("cache-control"), answer.header("x-frame-options")),
            ("no-store", "DENY"),
            "{target}"
        );
        assert!(answer.header("access-control-allow-origin").is_empty(), "{target}");
        let head = server.ask("HEAD", target, &[]);
        assert_eq!((head.status, head.body.len()), (answer.status, 0), "HEAD {target}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"] {
            let refused = server.ask(method, if method == "CONNECT" { "127.0.0.1:1" } else { target }, &[]);
            let expected = if method == "CONNECT" { &[400, 405][..] } else { &[405][..] };
            assert!(expected.contains(&refused.status), "{method} {target}: {refused:?}");
        }
    }
    let statuses = [
        "/nothing",
        "/api/rings/nothing",
        "/rings/nothing/snapshot.jpg",
        "/rings/nothing/stream.mjpg",
        "/rings/cam",
        "/api",
    ];
    for target in statuses {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
    for (target, status) in [
        ("/rings/cam/snapshot.jpg?max_age=soon", 400),
        ("/rings/cam/snapshot.jpg?width=1", 400),
        ("/api/rings/%2e%2e%2fcam", 404),
        ("/rings/.lock-cam/snapshot.jpg", 400),
    ] {
        assert_eq!(server.get(target).status, status, "{target}");
    }
    let long = format!("/metrics?{}", "x".repeat(4000));
    assert_eq!(server.get(&long).status, 414);
    let padding = "y".repeat(20_000);
    assert_eq!(server.ask("GET", "/metrics", &[("x-padding", &padding)]).status, 431);
    for (name, value) in
        [("Host", "cams.example:9178"), ("Origin", "http://cams.example"), ("Sec-Fetch-Site", "cross-site")]
    {
        for target in ADDRESSES {
            let refused = server.ask("GET", target, &[(name, value)]);
            assert_eq!(refused.status, 403, "{name}: {value} {target}: {refused:?}");
        }
    }
}

#[test]
fn a_snapshot_shows_the_frame_that_its_headers_name() {
    let (shm, _sim, _daemon, server) = scene();
    let (ring, decoder) = (shm.attach("cam"), Decoder::new());
    let mut pixels = Vec::new();
    let mut compared = 0;
    // Under load the frame may be overwritten before it is looked up.
    until("three snapshots were compared with their frames", || {
        let answer = server.get("/rings/cam/snapshot.jpg");
        assert_eq!((answer.status, answer.header("content-type")), (200, "image/jpeg"), "{answer:?}");
        assert_eq!((answer.header("x-camring-state"), answer.header("x-camring-writer")), ("live", "alive"));
        assert!(answer.header("x-camring-age-ms").parse::<f64>().unwrap() < 60_000.0);
        let ((width, height), painted) = decoder.stamp(&answer.body);
        assert_eq!((width, height), (640, 360));
        let seq = Sequence(answer.header("x-camring-seq").parse().unwrap());
        let Ok(frame) = ring.at(seq, &mut pixels) else { return false };
        assert_eq!(stamp_of(&frame, &pixels), painted);
        compared += 1;
        compared == 3
    });
    let small = server.get("/rings/cam/snapshot.jpg?width=200&max_age=any");
    let ((width, height), ..) = decoder.luma(&small.body);
    assert_eq!((width, height), (160, 90), "a quarter: the largest whole fraction of at most 200 columns");
}

#[test]
fn all_clients_of_a_stream_see_painted_numbers_that_grow() {
    let (_shm, _sim, _daemon, server) = scene();
    let decoder = Decoder::new();
    let began = Instant::now();
    let mut streams = [server.stream("/rings/cam/stream.mjpg"), server.stream("/rings/cam/stream.mjpg")];
    let mut jpegs: [BTreeMap<u64, Vec<u8>>; 2] = Default::default();
    for (stream, jpegs) in streams.iter_mut().zip(&mut jpegs) {
        assert!(stream.head.header("content-type").starts_with("multipart/x-mixed-replace"), "{:?}", stream.head);
        let mut before = (0, 0);
        for _ in 0..8 {
            let (headers, jpeg) = stream.picture().expect("a picture");
            let now = (decoder.stamp(&jpeg).1.number, headers["x-camring-seq"].parse().unwrap());
            assert!(now.0 > before.0 && now.1 > before.1, "painted and sequence: {now:?} after {before:?}");
            before = now;
            jpegs.insert(now.1, jpeg);
        }
    }
    // The first is there at once, and the second may be; from there on it is a fifth of a second each.
    let least = Duration::from_millis(6 * 200);
    assert!(began.elapsed() > least, "8 pictures within {:?}, expected at most five a second", began.elapsed());
    // What both saw was encoded once: the same bytes.
    let shared = jpegs[0].iter().filter(|(seq, jpeg)| jpegs[1].get(*seq) == Some(*jpeg)).count();
    let both = jpegs[0].keys().filter(|seq| jpegs[1].contains_key(*seq)).count();
    assert_eq!(shared, both);
    let name = "camring_serve_clients{kind=\"stream\"}";
    assert_eq!(server.metrics()[name], 2.0);
    streams.into_iter().for_each(system::http::Streaming::close);
    until("the streams are gone", || server.metrics()[name] == 0.0);
}

#[test]
fn a_killed_daemon_and_a_frozen_camera_are_told_everywhere_within_five_seconds() {
    let (shm, sim, mut daemon, server) = scene();
    let mut events = server.stream("/events");
    assert_eq!(events.event().unwrap().0, "hello");
    let mut told = |wanted: &str| {
        let since = Instant::now();
        loop {
            let (kind, data) = events.event().expect("events go on");
            if kind == "state" && data["name"] == "cam" && data["words"].as_str().unwrap().contains(wanted) {
                return (data, since.elapsed());
            }
        }
    };
    told("live");
    sim.process.signal(Signal::STOP);
    let (_, after) = told("stale");
    measured(format!("a frozen camera is told after {} ms", after.as_millis()));
    assert!(after < TOLD, "told after {after:?}");
    until_within(TOLD, "the metrics say it", || server.metrics()["camring_stale{camera=\"cam\"}"] == 1.0);
    let refused = server.get("/rings/cam/snapshot.jpg");
    assert_eq!((refused.status, refused.header("retry-after")), (503, "2"), "{refused:?}");
    assert!(refused.text().contains("old"), "{refused:?}");
    let any = server.get("/rings/cam/snapshot.jpg?max_age=any");
    assert!(any.status == 200 && any.header("x-camring-age-ms").parse::<f64>().unwrap() > 1000.0, "{:?}", any.headers);
    sim.process.signal(Signal::CONT);
    told("live");
    until("the snapshot is fresh", || server.get("/rings/cam/snapshot.jpg").status == 200);

    daemon.process.kill();
    let (data, after) = told("dead writer");
    measured(format!("a killed daemon is told after {} ms", after.as_millis()));
    assert!(after < TOLD, "told after {after:?}");
    assert_eq!((&data["condition"], &data["grade"]), (&"dead".into(), &"broken".into()));
    assert!(data["note"].as_str().unwrap().contains("start camring@cam"), "{data}");
    let metrics = server.metrics();
    assert_eq!(metrics["camring_state{camera=\"cam\",state=\"dead\"}"], 1.0);
    assert!(!metrics.contains_key("camring_process_threads{camera=\"cam\"}"), "of the dead nothing is measured");
    assert_eq!(server.json("/api/rings")[0]["liveness"], "gone");
    assert_eq!((server.get("/healthz").status, server.get("/readyz").status), (200, 503));
    let any = server.get("/rings/cam/snapshot.jpg?max_age=any");
    assert_eq!((any.status, any.header("x-camring-writer")), (200, "gone"));
    // The same answers follow the next daemon.
    let _daemon = Daemon::spawn(&shm, "cam", &sim.url);
    told("live");
    assert_eq!(server.metrics()["camring_writer_epoch{camera=\"cam\"}"], 2.0);
}

/// What `list --json`, `/readyz`, the events and the metrics say of the camera once the state is this one.
fn tells_as_list_does(shm: &std::path::Path, server: &Server, (state, reason, grade): (&str, &str, &str)) {
    let list = || {
        let mut command = camring();
        command.args(["list", "--json", "--shm-dir"]).arg(shm);
        serde_json::from_str::<Json>(&ended(command).stdout).unwrap()[0].clone()
    };
    until("list says it", || {
        let ring = list();
        ring["state"] == state && ring["reason"] == reason
    });
    let sample = format!("camring_state{{camera=\"cam\",state=\"{state}\"}}");
    let why = format!("camring_reason{{camera=\"cam\",reason=\"{reason}\"}}");
    until_within(TOLD, "metrics say it", || {
        let metrics = server.metrics();
        [&sample, &why].iter().all(|name| metrics.get(*name) == Some(&1.0))
    });
    let ready = server.get("/readyz");
    assert!(ready.status == 503 && ready.text().contains(&format!("{state}: {reason}")), "{ready:?}");
    let mut events = server.stream("/events");
    assert_eq!(events.event().unwrap().0, "hello");
    let (_, said) = events.event().unwrap();
    assert_eq!((&said["condition"], &said["grade"]), (&state.into(), &grade.into()), "{said}");
    assert!(said["note"].as_str().unwrap().starts_with(reason), "{said}");
}

#[test]
fn a_wrong_password_is_told_in_the_words_of_list() {
    let (shm, sim) = (Shm::new(), Sim::spawn_with_password(&PICTURES, "the-right-one"));
    let daemon = Daemon::spawn_login(&shm, "cam", &sim.url, "not-the-right-one");
    let server = Server::spawn(&shm, "", &[]);
    shm.attach("cam");
    tells_as_list_does(shm.path(), &server, ("connecting", "auth", "broken"));
    let picture = server.get("/rings/cam/snapshot.jpg?max_age=any");
    assert!(picture.status == 503 && picture.text().contains("auth"), "{picture:?}");
    assert_eq!(server.metrics()["camring_frame_age_seconds{camera=\"cam\"}"], f64::INFINITY);
    drop(daemon);
}

#[test]
fn a_mount_without_room_is_told_in_the_words_of_list() {
    let can_mount = rustix::process::geteuid().is_root()
        && std::process::Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    if !can_mount {
        println!("skipped: a mount of one's own needs root");
        return;
    }
    let (folder, sim) = (tempfile::tempdir().unwrap(), Sim::spawn(&["--size", "1280x720", "--fps", "10"]));
    let place = folder.path().to_str().unwrap();
    let script = "mount -t tmpfs -o size=8m tmpfs \"$1\" && exec \"$2\" run cam --url \"$3\" --shm-dir \"$1\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh", place, env!("CARGO_BIN_EXE_camring"), &sim.url]);
    let daemon = Daemon::spawn_command(command, None);
    // The mount is the daemon's alone; the way into it leads through the daemon.
    let mount = std::path::PathBuf::from(format!("/proc/{}/root{place}", daemon.process.pid()));
    until("the ring is there", || mount.join("camring.d/cam").exists());
    let shm = Shm::at(&mount);
    let server = Server::spawn(&shm, "", &[]);
    tells_as_list_does(&mount, &server, ("error", "no_room", "broken"));
    let used = || {
        let bytes =
            |name: &str| server.metrics()[&format!("camring_mount_{name}_bytes{{mount=\"{}\"}}", mount.display())];
        1.0 - bytes("free") / bytes("size")
    };
    assert_eq!(
        server.metrics()[&format!("camring_mount_size_bytes{{mount=\"{}\"}}", mount.display())],
        f64::from(8 << 20)
    );
    assert!(used() < 0.8, "{} of the mount is used", used());
    std::fs::write(mount.join("other"), vec![0; 7 << 20]).unwrap();
    until_within(TOLD, "the metrics say that the mount is full", || used() > 0.8);
}

#[test]
fn an_address_that_others_can_reach_needs_a_token_and_the_token_is_told_to_nobody() {
    let shm = Shm::new();
    let refused = |arguments: &[&str]| {
        let mut command = camring();
        command.args(["serve", "--shm-dir"]).arg(shm.path()).args(arguments);
        let ended = ended(command);
        assert_eq!(ended.code, Some(Exit::Config as i32), "{arguments:?}: {ended:?}");
        ended.stderr
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let empty = file("empty.toml", "");
    for address in ["0.0.0.0:0", "[::]:0", "10.255.255.1:0"] {
        let said = refused(&["--config", &empty, "--listen", address]);
        assert!(said.contains("without a token") && said.contains("--token-file"), "{said}");
    }
    let short = file("short", "hunter2\n");
    let said = refused(&["--config", &empty, "--token-file", &short]);
    assert!(said.contains("has 7 characters, expected at least 16") && !said.contains("hunter2"), "{said}");
    let wanting = file("wanting.toml", "[serve]\ntoken = \"${camring_no_such_token}\"\n");
    assert!(refused(&["--config", &wanting]).contains("camring_no_such_token"));

    let token = file("token", TOKEN);
    let server = Server::spawn_at(&shm, "0.0.0.0:0", "", &["--token-file", &token]);
    let bearer = format!("Bearer {TOKEN}");
    let in_query = "token=0123456789abcdef%2B%2Ftoken";
    let mut seen = String::new();
    for target in ["/", "/metrics", "/healthz", "/readyz", "/api/rings", "/nothing"] {
        for headers in [&[][..], &[("authorization", "Bearer 0123456789abcdef+/tokem")], &[("cookie", &bearer)]] {
            let refused = server.ask("GET", target, headers);
            assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"), "{target} {headers:?}");
            seen += &format!("{refused:?}{}", refused.text());
        }
        // The name under which it is asked does not matter any more: another site does not know the token.
        let let_in = server.ask("GET", target, &[("authorization", &bearer), ("host", "cams.example")]);
        let queried = server.get(&format!("{target}?{in_query}"));
        assert_ne!((let_in.status, queried.status), (401, 401), "{target}");
        assert_eq!(let_in.status, queried.status, "{target}");
        seen += &format!("{let_in:?}{}{queried:?}{}", let_in.text(), queried.text());
    }
    assert!(!seen.contains(TOKEN) && !server.daemon.log().contains(TOKEN), "the token is told to nobody");
    assert!(server.stream(&format!("/events?{in_query}")).event().is_some());
}

#[test]
fn no_answer_holds_the_cameras_password() {
    const PASSWORD: &str = "pa5s:w/rd#%?-of-the-camera";
    let (shm, sim) = (Shm::new(), Sim::spawn_with_password(&PICTURES, PASSWORD));
    let _daemon = Daemon::spawn_login(&shm, "cam", &sim.url, PASSWORD);
    let config = format!("[camera.cam]\nurl = \"{}\"\nuser = \"viewer\"\npassword = \"{PASSWORD}\"\n", sim.url);
    let server = Server::spawn(&shm, &config, &[]);
    until("the camera is live", || server.get("/readyz").status == 200);
    let holds = |answer: &Answer| {
        let text = format!("{answer:?}{}", answer.text());
        text.contains(PASSWORD) || text.contains("pa5s")
    };
    for target in ADDRESSES {
        let answer = server.get(target);
        assert!(answer.status == 200 && !holds(&answer), "{target}");
    }
    let mut events = server.stream("/events?numbers=1");
    for _ in 0..4 {
        assert!(!events.event().unwrap().1.to_string().contains("pa5s"));
    }
    assert!(!server.daemon.log().contains("pa5s"));
}

/// Threads, descriptors and private memory.
fn held(process: &Process) -> (usize, usize, u64) {
    let (threads, fds) = process.threads_and_fds();
    (threads, fds, process.rss_anon())
}

#[test]
fn a_thousand_opened_and_dropped_streams_leave_nothing_behind() {
    let (_shm, _sim, _daemon, server) = scene();
    let process = &server.daemon.process;
    let clients = |kind: &str| server.metrics()[&format!("camring_serve_clients{{kind=\"{kind}\"}}")];
    let round = |number: u64| {
        let mut stream = server.stream("/rings/cam/stream.mjpg");
        let mut events = server.stream("/events?numbers=1");
        match number % 3 {
            0 => assert!(events.event().is_some() && stream.picture().is_some()),
            1 => assert!(events.event().is_some()),
            // Dropped before anything was read.
            _ => {}
        }
        if number.is_multiple_of(2) {
            stream.close();
            events.close();
        }
    };
    (0..20).for_each(round);
    until("the first are gone", || clients("stream") + clients("events") == 0.0);
    // The threads that wait for the next read end two seconds after it.
    until("it is calm", || process.threads_and_fds().0 <= 3);
    let before = held(process);
    let rounds = amount(50, 500);
    (0..rounds).for_each(round);
    until("the last are gone", || clients("stream") + clients("events") == 0.0);
    let mut after = held(process);
    until("threads and descriptors are what they were", || {
        after = held(process);
        after.0 <= before.0 && after.1 <= before.1
    });
    let kib = |bytes: u64| bytes / 1024;
    measured(format!(
        "{} streams opened and dropped: threads {} -> {}, descriptors {} -> {}, RssAnon {} -> {} KiB",
        2 * rounds,
        before.0,
        after.0,
        before.1,
        after.1,
        kib(before.2),
        kib(after.2)
    ));
    assert!(after.2 < before.2 + (8 << 20), "private memory grew from {} to {} KiB", kib(before.2), kib(after.2));
}

#[test]
fn the_most_streams_are_served_and_one_more_is_told_so() {
    let (_shm, _sim, _daemon, server) = scene();
    let open: Vec<_> = (0..16).map(|_| server.stream("/rings/cam/stream.mjpg")).collect();
    assert!(open.iter().all(|stream| stream.head.status == 200));
    let refused = server.get("/rings/cam/stream.mjpg");
    assert_eq!((refused.status, refused.header("retry-after")), (503, "5"), "{refused:?}");
    assert!(refused.text().contains("16 streams are open"), "{refused:?}");
    assert_eq!(server.get("/rings/cam/snapshot.jpg").status, 200);
    drop(open);
    until("there is room again", || server.stream("/rings/cam/stream.mjpg").head.status == 200);
}

/// Something like a request: a real one with a few bytes changed, cut, doubled, or nothing but noise.
fn noise(random: &mut fastrand::Rng) -> Vec<u8> {
    let target = ADDRESSES[random.usize(..ADDRESSES.len())];
    let mut bytes = match random.u8(0..6) {
        0 => (0..random.usize(1..3000)).map(|_| random.u8(..)).collect(),
        1 => format!("GET {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n").into_bytes(),
        2 => format!(
            "POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n"
        )
        .into_bytes(),
        3 => format!("GET {target} HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(random.usize(0..300))).into_bytes(),
        _ => {
            format!("GET {target}?token=%ff%zz&max_age=&width=-1 HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: \u{0}\r\n\r\n")
                .into_bytes()
        }
    };
    for _ in 0..random.usize(0..8) {
        let at = random.usize(..bytes.len());
        match random.u8(0..3) {
            0 => bytes[at] = random.u8(..),
            1 => bytes.truncate(at.max(1)),
            _ => bytes.insert(at, random.u8(..)),
        }
    }
    bytes
}

#[test]
fn noise_and_slow_clients_do_no_harm() {
    let (_shm, _sim, _daemon, mut server) = scene();
    // They begin a request and never end it.
    let mut slow: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    for (number, stream) in slow.iter_mut().enumerate() {
        let begun = ["", "G", "GET /metrics HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "][number % 4];
        stream.write_all(begun.as_bytes()).unwrap();
    }
    let mut random = fastrand::Rng::with_seed(20_261_122);
    let count = amount(400, 50_000);
    for _ in 0..count {
        let mut stream = server.connect();
        // The server may have answered and closed before it has everything.
        let _ = stream.write_all(&noise(&mut random));
        let _ = stream.shutdown(std::net::Shutdown::Write);
        if random.bool() {
            stream.set_read_timeout(Some(SLOW)).unwrap();
            let _ = stream.read(&mut [0; 64]);
        }
    }
    assert_eq!(server.get("/healthz").text(), "ok\n");
    for mut stream in slow {
        stream.set_read_timeout(Some(SLOW)).unwrap();
        let mut rest = Vec::new();
        let closed = stream.read_to_end(&mut rest);
        assert!(closed.is_ok() || rest.is_empty(), "a request that never ends was kept for {SLOW:?}: {closed:?}");
    }
    until("nothing is left of them", || server.daemon.process.threads_and_fds().1 < 25);
    assert_eq!(server.get("/readyz").status, 503);
    assert!(!server.daemon.log().contains("panicked"), "{}", server.daemon.log());
    measured(format!("{count} connections full of noise"));
    server.daemon.process.signal(Signal::TERM);
    assert!(server.daemon.process.wait().success());
}

#[test]
fn a_client_that_takes_nothing_is_cut_and_slows_nobody() {
    let (_shm, _sim, _daemon, server) = scene();
    let name = "camring_serve_clients{kind=\"stream\"}";
    let stuck = server.stream("/rings/cam/stream.mjpg");
    rustix::net::sockopt::set_socket_recv_buffer_size(stuck.socket(), 4096).unwrap();
    let mut other = server.stream("/rings/cam/stream.mjpg");
    let began = Instant::now();
    let mut pictures = 0;
    while server.metrics()[name] > 1.0 {
        assert!(began.elapsed() < Duration::from_secs(120), "a client that takes nothing is still there");
        assert!(other.picture().is_some());
        pictures += 1;
    }
    measured(format!(
        "a client that takes nothing was cut after {} s; the other saw {pictures} pictures",
        began.elapsed().as_secs()
    ));
    drop(stuck);
}

#[test]
fn an_empty_machine_is_served_and_a_stop_ends_open_streams_at_once() {
    let shm = Shm::new();
    let mut server = Server::spawn(&shm, "", &[]);
    assert_eq!(server.json("/api/rings"), Json::Array(Vec::new()));
    let ready = server.get("/readyz");
    assert!(ready.status == 503 && ready.text().contains("there is no ring and no configured camera"), "{ready:?}");
    let page = server.get("/");
    assert!(page.status == 200 && page.text().starts_with("<!doctype html>"));
    let policy = page.header("content-security-policy");
    assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let mut events = server.stream("/events");
    assert!(events.event().is_some());
    let began = Instant::now();
    server.daemon.process.signal(Signal::TERM);
    assert!(server.daemon.process.wait().success());
    measured(format!("ended {} ms after SIGTERM with an open stream", began.elapsed().as_millis()));
    assert!(began.elapsed() < TOLD);
    while events.event().is_some() {
        pause();
    }
}

#[test]
fn pictures_can_be_switched_off() {
    let (shm, sim) = (Shm::new(), Sim::spawn(&PICTURES));
    let _daemon = Daemon::spawn(&shm, "cam", &sim.url);
    let server = Server::spawn(&shm, "[serve]\npreview = false\n", &[]);
    until("the camera is live", || server.get("/readyz").status == 200);
    for target in ["/rings/cam/snapshot.jpg", "/rings/cam/stream.mjpg"] {
        let refused = server.get(target);
        assert!(refused.status == 403 && refused.text().contains("preview = false"), "{refused:?}");
    }
    assert_eq!(server.stream("/events").event().unwrap().1["preview"], false);
}

/// Words that begin like a metric.
fn metric_names(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    let words = text.split(|letter: char| !is_part(letter)).filter(|word| word.starts_with("camring_"));
    let plain = |word: &str| {
        let ends = ["_bucket", "_sum", "_count"];
        ends.iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()
    };
    words.map(plain).collect()
}

#[test]
fn every_metric_of_the_rules_the_dashboard_and_the_manual_is_exported_and_every_exported_one_is_documented() {
    let shm = Shm::new();
    let server = Server::spawn(&shm, "", &[]);
    let text = server.get("/metrics").text();
    let exported: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    assert!(exported.len() > 25 && text.matches("# HELP ").count() == exported.len(), "{exported:?}");
    for file in ["camring.rules.yml", "camring.rules.test.yml", "dashboard.json"] {
        let named = metric_names(&monitoring(file));
        assert!(named.len() >= 10, "{file} names {named:?}");
        let missing: Vec<_> = named.difference(&exported).collect();
        assert!(missing.is_empty(), "{file} names {missing:?}, which nobody exports");
    }
    serde_json::from_str::<Json>(&monitoring("dashboard.json")).expect("the dashboard is JSON");
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    // From the table on: above, names of packages begin alike.
    let (_, table) = manual.split_once("### Metrics").expect("a table of metrics");
    assert_eq!(metric_names(table), exported, "docs/operations.md has a row for each");
}
