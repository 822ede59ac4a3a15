//! Ways for packets to travel: multicast, RTSP inside HTTP, and what `auto` makes of a camera that refuses.
#![cfg(feature = "sim")]

mod system;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use camring_ring::{Counter, Reason, State};
use system::net::Net;
use system::reader::{Reader, Way};
use system::{Daemon, Shm, Sim, camring, free_port, until};

const SMALL: [&str; 6] = ["--size", "640x360", "--fps", "10", "--gop", "200ms"];
const GROUP: &str = "239.255.42.1";

/// `camring run cam` on `url` by this transport, with a reader that judges every picture.
struct Scene {
    reader: Reader,
    daemon: Daemon,
    _file: tempfile::NamedTempFile,
    _shm: Shm,
}

impl Scene {
    fn of(mut command: Command, url: &str, transport: &str) -> Self {
        let (shm, file) = (Shm::new(), tempfile::NamedTempFile::with_suffix(".toml").unwrap());
        std::fs::write(file.path(), format!("[camera.cam]\nurl = \"{url}\"\ntransport = \"{transport}\"\n")).unwrap();
        command.args(["run", "cam", "--config", file.path().to_str().unwrap(), "--shm-dir"]).arg(shm.path());
        let daemon = Daemon::spawn_command(command, None);
        let reader = Reader::attach(&shm, "cam", Way::Next);
        Self { reader, daemon, _file: file, _shm: shm }
    }

    /// So many frames come, whole and in order.
    fn reads(&self, frames: u64) {
        let before = self.reader.newest().map_or(0, |seen| seen.frame.meta.seq.0);
        self.reader.first("frames", |seen| seen.frame.meta.seq.0 >= before + frames);
        until("the state is live", || self.reader.ring.status().state == State::Live);
    }
}

#[test]
fn one_multicast_stream_is_read_by_two_daemons() {
    let Some((camera, net)) = Net::new().and_then(|here| here.beside().map(|there| (here, there))) else { return };
    let sim = Sim::spawn_at(&camera, "10.77.0.1", &[&SMALL[..], &["--multicast", "239.255.42.1:5600"]].concat());
    let daemon = || Scene::of(net.command(env!("CARGO_BIN_EXE_camring")), &sim.url, "multicast");
    let scenes = [daemon(), daemon()];
    scenes.iter().for_each(|scene| scene.reads(30));
    assert!(net.groups().contains(GROUP), "{}", net.groups());
    let run = |scene: &Scene| scene.reader.newest().unwrap().stamp.run_id;
    assert_eq!(run(&scenes[0]), run(&scenes[1]));
    // Whoever leaves takes the group from nobody else.
    let [gone, stays] = scenes;
    drop(gone);
    stays.reads(20);
    assert_eq!(stays.reader.ring.status().counter(Counter::Reconnects), 0, "{}", stays.daemon.log());
    // Packets of the group that do not arrive are a silence like any other.
    net.rule("ip daddr 239.255.42.1 drop");
    until("the silence is noticed", || stays.reader.ring.status().state != State::Live);
    until("its reason", || stays.reader.ring.status().reason == Reason::NoPackets);
    let late = daemon();
    until("what to do", || late.daemon.log().contains("is there a route to the group"));
    assert_eq!(late.reader.ring.status().reason, Reason::NoPackets);
    net.no_rule();
    stays.reads(10);
    stays.reader.finish();
}

/// Relays connections to `port` and keeps the first word of each.
fn listen_in(port: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (own, words) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let heard = words.clone();
    // Ends with the process; each connection ends with its two ends.
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let heard = heard.clone();
            std::thread::spawn(move || {
                let mut start = [0; 4096];
                let Ok(len) = client.read(&mut start) else { return };
                let word = String::from_utf8_lossy(&start[..len]).split(' ').next().unwrap_or_default().to_owned();
                heard.lock().unwrap().push(word);
                let mut camera = TcpStream::connect(("127.0.0.1", port)).unwrap();
                camera.write_all(&start[..len]).unwrap();
                let (mut back, mut from) = (client.try_clone().unwrap(), camera.try_clone().unwrap());
                std::thread::spawn(move || drop(std::io::copy(&mut from, &mut back)));
                drop(std::io::copy(&mut client, &mut camera));
            });
        }
    });
    (own, words)
}

#[test]
fn a_camera_is_read_through_http_with_and_without_a_password() {
    let open = Sim::spawn(&SMALL);
    let (port, heard) = listen_in(open.port());
    let scene = Scene::of(camring(), &format!("rtsp://127.0.0.1:{port}/stream"), "http");
    scene.reads(30);
    assert_eq!(scene.reader.ring.status().counter(Counter::PacketsLost), 0);
    let mut words = heard.lock().unwrap().clone();
    words.sort();
    assert_eq!(words, ["GET", "POST"], "nothing but HTTP went that way");
    scene.reader.finish();
    let locked = Sim::spawn_with_password(&SMALL, "correct-horse");
    let url = format!("rtsp://viewer:correct-horse@127.0.0.1:{}/stream", locked.port());
    let scene = Scene::of(camring(), &url, "http");
    scene.reads(10);
}

#[test]
fn auto_takes_tcp_where_datagrams_are_refused() {
    // Its only transport is TCP: a client that proposes another one gets status 461.
    let script = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(script.path(), "[[fault]]\nat = \"1h\"\ndo = \"stall\"\n").unwrap();
    let sim = Sim::spawn(&[&SMALL[..], &["--script", script.path().to_str().unwrap()]].concat());
    Scene::of(camring(), &sim.url, "auto").reads(20);
    for transport in ["udp", "multicast"] {
        let scene = Scene::of(camring(), &sim.url, transport);
        until("the refusal", || scene.reader.ring.status().reason == Reason::NoVideo);
        until("what to do", || scene.daemon.log().contains("set another transport"));
    }
}

#[test]
fn a_group_that_nobody_offers_and_a_port_without_http_are_named() {
    let sim = Sim::spawn(&SMALL);
    let scene = Scene::of(camring(), &sim.url, "multicast");
    until("the refusal", || scene.reader.ring.status().reason == Reason::NoVideo);
    let nobody = Scene::of(camring(), &format!("rtsp://127.0.0.1:{}/stream", free_port()), "http");
    until("the refusal", || nobody.reader.ring.status().reason == Reason::ConnectRefused);
}
