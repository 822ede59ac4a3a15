//! `camring serve` in a process of its own, and a client that sees every byte of what it answers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use camring::sim::stamp::{self, Stamp};
use gst::prelude::*;
use serde_json::Value as Json;

use super::{Daemon, PATIENCE, Shm, until};

/// `camring serve` on a free port of this machine.
pub struct Server {
    pub daemon: Daemon,
    pub address: SocketAddr,
    folder: PathBuf,
}

impl Server {
    /// With this configuration, and these options besides.
    pub fn spawn(shm: &Shm, config: &str, options: &[&str]) -> Self {
        Self::spawn_at(shm, "127.0.0.1:0", config, options)
    }

    pub fn spawn_at(shm: &Shm, listen: &str, config: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        let file = folder.join("camring.toml");
        std::fs::write(&file, config).unwrap();
        let fixed = ["serve", "--listen", listen, "--config", file.to_str().unwrap()];
        let daemon = Daemon::spawn_with(shm, &[&fixed, options].concat(), None);
        let mut address = None;
        until("it listens", || {
            let log = daemon.log();
            let place = log.split_once("open http://").and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
            address = place;
            address.is_some()
        });
        Self { daemon, address: address.unwrap(), folder }
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.join("camring.toml")
    }

    /// The port at this machine's own address, whatever it listens on.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.address.port()))
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.local()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[])
    }

    /// One request on a connection of its own; `headers` may say another Host.
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let mut stream = self.begin(method, target, headers, "close");
        let mut body = Vec::new();
        stream.read_to_end(&mut body).unwrap();
        Answer { body, ..stream.head }
    }

    /// A request whose answer goes on.
    pub fn stream(&self, target: &str) -> Streaming {
        self.begin("GET", target, &[], "keep-alive")
    }

    fn begin(&self, method: &str, target: &str, headers: &[(&str, &str)], connection: &str) -> Streaming {
        let mut stream = self.connect();
        let mut request = format!("{method} {target} HTTP/1.1\r\nConnection: {connection}\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request += &format!("Host: {}\r\n", self.local());
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        stream.write_all((request + "\r\n").as_bytes()).unwrap();
        Streaming::read(stream)
    }

    pub fn json(&self, target: &str) -> Json {
        let answer = self.get(target);
        serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{target}: {error}: {answer:?}"))
    }

    /// Every sample of `/metrics` by name and labels, as they stand there.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        samples(&answer.text())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The samples of an exposition; one that is malformed or stands twice fails the test.
pub fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        let value = if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap() };
        assert!(samples.insert(name.to_owned(), value).is_none(), "twice: {name}");
    }
    samples
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// An answer whose body is read as it comes, freed from its chunks.
pub struct Streaming {
    pub head: Answer,
    socket: BufReader<TcpStream>,
    is_chunked: bool,
    left: usize,
}

impl Streaming {
    fn read(stream: TcpStream) -> Self {
        let mut socket = BufReader::new(stream);
        let mut line = |line: &mut String| {
            line.clear();
            socket.read_line(line).unwrap();
            line.trim_end().to_owned()
        };
        let mut text = String::new();
        let first = line(&mut text);
        let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {first:?}"));
        let mut headers = BTreeMap::new();
        loop {
            let line = line(&mut text);
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let is_chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
        Self { head: Answer { status, headers, body: Vec::new() }, socket, is_chunked, left: 0 }
    }

    /// The next line of an event stream or a part's headers; `None` at the end.
    pub fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.read(&mut byte).unwrap_or(0) == 1 {
            if byte[0] == b'\n' {
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            line.push(byte[0]);
        }
        None
    }

    /// The next event: its kind and data; comments are passed over.
    pub fn event(&mut self) -> Option<(String, Json)> {
        let (mut kind, mut data) = (String::new(), None);
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("event", word)) => kind = word.to_owned(),
                Some(("data", text)) => data = serde_json::from_str(text).ok(),
                _ if line.is_empty() && data.is_some() => return Some((kind, data?)),
                _ => {}
            }
        }
    }

    /// The next picture of a stream: its headers and its JPEG.
    pub fn picture(&mut self) -> Option<(BTreeMap<String, String>, Vec<u8>)> {
        loop {
            let line = self.line()?;
            if line.ends_with("--") && line.starts_with("--") {
                return None;
            }
            if line.starts_with("--") {
                break;
            }
        }
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let mut jpeg = vec![0; headers["content-length"].parse().unwrap()];
        self.read_exact(&mut jpeg).ok()?;
        Some((headers, jpeg))
    }

    /// What it comes through.
    pub fn socket(&self) -> &TcpStream {
        self.socket.get_ref()
    }

    /// Lets the server know that nobody reads any more.
    pub fn close(self) {
        let _ = self.socket.get_ref().shutdown(Shutdown::Both);
    }
}

impl Read for Streaming {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !self.is_chunked {
            return self.socket.read(buffer);
        }
        if self.left == 0 {
            let mut line = String::new();
            // The end of the chunk before, if there was one, is an empty line.
            while line.trim().is_empty() {
                line.clear();
                if self.socket.read_line(&mut line)? == 0 {
                    return Ok(0);
                }
            }
            self.left = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            if self.left == 0 {
                return Ok(0);
            }
        }
        let most = buffer.len().min(self.left);
        let read = self.socket.read(&mut buffer[..most])?;
        self.left -= read;
        Ok(read)
    }
}

/// Decodes JPEGs, and reads the stamp that is painted in them.
pub struct Decoder {
    input: gst_app::AppSrc,
    output: gst_app::AppSink,
    pipeline: gst::Pipeline,
}

impl Decoder {
    pub fn new() -> Self {
        gst::init().unwrap();
        let launch = "appsrc name=in caps=image/jpeg format=time ! jpegdec ! videoconvert ! video/x-raw,format=GRAY8 ! \
                      appsink name=out sync=false";
        let pipeline = gst::parse::launch(launch).unwrap().downcast::<gst::Pipeline>().unwrap();
        let input = pipeline.by_name("in").unwrap().downcast().unwrap();
        let output = pipeline.by_name("out").unwrap().downcast().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { input, output, pipeline }
    }

    /// The size of a picture and what is painted in it; one that is no picture fails the test.
    pub fn stamp(&self, jpeg: &[u8]) -> ((u32, u32), Stamp) {
        let ((width, height), stride, rows) = self.luma(jpeg);
        ((width, height), stamp::read_luma(&rows, stride, width, height).unwrap())
    }

    /// Size, stride and rows of the luma of a picture.
    pub fn luma(&self, jpeg: &[u8]) -> ((u32, u32), usize, Vec<u8>) {
        self.input.push_buffer(gst::Buffer::from_slice(jpeg.to_vec())).unwrap();
        let sample = self.output.try_pull_sample(gst::ClockTime::from_seconds(PATIENCE.as_secs())).expect("a picture");
        let caps = sample.caps().unwrap().structure(0).unwrap();
        let side = |name: &str| u32::try_from(caps.get::<i32>(name).unwrap()).unwrap();
        let rows = sample.buffer().unwrap().map_readable().unwrap().to_vec();
        let (width, height) = (side("width"), side("height"));
        ((width, height), rows.len() / height as usize, rows)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// A file in the folder of the shipped monitoring files.
pub fn monitoring(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/monitoring").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// How long the tests of this file let a connection go on without anything.
pub const SLOW: Duration = Duration::from_secs(30);
