//! A camera that serves MJPEG over HTTP: the pictures of the simulated camera, in a server of the tests' own.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use gst::prelude::*;

use super::Sim;

const PICTURES: [&str; 8] = ["--codec", "mjpeg", "--size", "640x360", "--fps", "20", "--gop", "200ms"];
/// `viewer` and [`PASSWORD`], as HTTP has them.
const LOGIN: &str = "Basic dmlld2VyOnMzY3JldC13b3Jk";
pub const PASSWORD: &str = "s3cret-word";
/// How long the threads of the server look away at most.
const SLICE: Duration = Duration::from_millis(100);

/// The newest JPEG of a simulated camera, and its number.
#[derive(Default)]
struct Newest {
    picture: Mutex<(u32, Vec<u8>)>,
    changed: Condvar,
}

/// What the server is told to do.
#[derive(Default)]
pub struct Mood {
    over: AtomicBool,
    /// Sends nothing and keeps its connections.
    pub silent: AtomicBool,
    /// Connections that began under another number are closed.
    pub generation: AtomicU32,
    /// Whether it asks for user and password.
    pub locked: AtomicBool,
}

/// A camera that serves MJPEG over HTTP at `/mjpeg`, and a web page at `/page`.
pub struct WebCamera {
    pub address: SocketAddr,
    pub mood: Arc<Mood>,
    pipeline: gst::Pipeline,
    threads: Vec<JoinHandle<()>>,
    _sim: Sim,
}

impl WebCamera {
    /// 640x360 at 20 fps.
    pub fn start() -> Self {
        gst::init().unwrap();
        let sim = Sim::spawn(&PICTURES);
        let launch = format!(
            "rtspsrc location={} protocols=tcp latency=0 ! rtpjpegdepay ! appsink name=out sync=false max-buffers=4",
            sim.url
        );
        let pipeline = gst::parse::launch(&launch).unwrap().downcast::<gst::Pipeline>().unwrap();
        let pictures = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (mood, newest) = (Arc::new(Mood::default()), Arc::new(Newest::default()));
        let (theirs, kept) = (mood.clone(), newest.clone());
        let pull = std::thread::spawn(move || {
            while !theirs.over.load(Ordering::Relaxed) {
                let Some(sample) = pictures.try_pull_sample(gst::ClockTime::from_mseconds(100)) else { continue };
                let mut picture = kept.picture.lock().unwrap();
                *picture = (picture.0 + 1, sample.buffer().unwrap().map_readable().unwrap().to_vec());
                kept.changed.notify_all();
            }
        });
        let theirs = mood.clone();
        let accept = std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if theirs.over.load(Ordering::Relaxed) {
                    return;
                }
                let (mood, newest) = (theirs.clone(), newest.clone());
                // A client that goes away ends its thread with an error, which is no fault of the server.
                std::thread::spawn(move || drop(serve(client, &mood, &newest)));
            }
        });
        Self { address, mood, pipeline, threads: vec![pull, accept], _sim: sim }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Closes every connection.
    pub fn cut(&self) {
        self.mood.generation.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for WebCamera {
    fn drop(&mut self) {
        self.mood.over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

fn serve(client: TcpStream, mood: &Mood, newest: &Newest) -> std::io::Result<()> {
    let began = mood.generation.load(Ordering::Relaxed);
    let mut lines = BufReader::new(client.try_clone()?).lines().map_while(Result::ok);
    let request: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    let path = request.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let knows = request.iter().any(|line| line.split_once(": ").is_some_and(|(_, value)| value == LOGIN));
    let mut out = client;
    let mut answer = |status: &str, headers: &str, body: &str| {
        write!(out, "HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    if mood.locked.load(Ordering::Relaxed) && !knows {
        return answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"camera\"\r\n", "");
    }
    match path {
        "/mjpeg" => {}
        "/page" => return answer("200 OK", "Content-Type: text/html\r\n", "<p>a camera"),
        _ => return answer("404 Not Found", "", ""),
    }
    out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=edge\r\n\r\n")?;
    let mut last = 0;
    while began == mood.generation.load(Ordering::Relaxed) && !mood.over.load(Ordering::Relaxed) {
        let picture = newest.picture.lock().unwrap();
        let (picture, _) = newest.changed.wait_timeout(picture, SLICE).unwrap();
        if picture.0 == last || mood.silent.load(Ordering::Relaxed) {
            continue;
        }
        let (number, bytes) = picture.clone();
        last = number;
        write!(out, "--edge\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", bytes.len())?;
        out.write_all(&bytes)?;
        out.write_all(b"\r\n")?;
    }
    Ok(())
}
