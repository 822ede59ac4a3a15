//! Pictures for people: one frame as a JPEG, and per ring a thread that encodes the newest frame for all who watch.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use camring_ring::{AttachError, AttachOptions, FrameMeta, OwnerPolicy, Presence, ReadError, Ring, ShmDir, State};
use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::sync::watch;

use super::reply::{Reply, add_header, sentence};
use crate::listing;
use crate::report::{age_ms, liveness_word};
use crate::snapshot::Snapshot;

/// Quality of every JPEG.
const QUALITY: u8 = 82;
/// How long a request waits for a frame that is young enough.
pub const FRAME_WITHIN: Duration = Duration::from_secs(2);
/// Oldest frame that is shown unless the request says otherwise; as `camring snap` has it.
pub const MAX_AGE: Duration = Duration::from_secs(1);
/// Most frames a second of a stream.
const STREAM_FPS: u32 = 5;
/// Most columns of a stream's pictures: larger ones are averaged down by whole numbers.
const STREAM_WIDTH: u32 = 1280;
/// A stream without a new frame for so long ends: what its client shows is not live any more.
const DRY_AFTER: Duration = Duration::from_secs(10);
/// How long a stream's thread looks away at most.
const SLICE: Duration = Duration::from_millis(200);

/// A picture of one frame.
#[derive(Debug)]
pub struct Picture {
    /// The JPEG.
    pub jpeg: Bytes,
    /// The frame.
    pub meta: FrameMeta,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Oldest age; `None` = any.
    pub max_age: Option<Duration>,
    /// Most columns; `None` = as in the ring.
    pub width: Option<u32>,
}

/// Why there is no picture: the status and the sentence of the answer.
#[derive(Debug)]
pub struct Refusal {
    /// What HTTP calls it.
    pub status: StatusCode,
    /// What a person needs to know.
    pub text: String,
}

impl Refusal {
    /// A refusal that time may cure.
    pub fn not_now(text: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text: text.into() }
    }

    /// The answer.
    #[must_use]
    pub fn reply(&self) -> Reply {
        let mut reply = sentence(self.status, &self.text);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            add_header(&mut reply, "retry-after", "2");
        }
        reply
    }
}

/// Why a ring cannot be attached to, in the words of HTTP.
#[must_use]
pub fn refused(error: &AttachError) -> Refusal {
    let status = match error {
        AttachError::Name(_) => StatusCode::BAD_REQUEST,
        AttachError::NotFound { .. } => StatusCode::NOT_FOUND,
        AttachError::Removed(_) => StatusCode::GONE,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal { status, text: error.to_string() }
}

/// Names and values of headers.
pub type Headers = Vec<(&'static str, String)>;

type Feed = watch::Sender<Arc<Picture>>;
type Feeds = Arc<Mutex<HashMap<String, Arc<Feed>>>>;

/// Takes pictures, and keeps the threads that take them over and over.
#[derive(Clone, Debug)]
pub struct Pictures {
    shm: ShmDir,
    owner: OwnerPolicy,
    feeds: Feeds,
}

impl Pictures {
    /// Pictures of the rings on this mount.
    #[must_use]
    pub fn new(shm: ShmDir, owner: OwnerPolicy) -> Self {
        Self { shm, owner, feeds: Feeds::default() }
    }

    /// The newest frame, and the headers that say what it is. Blocks for [`FRAME_WITHIN`] at most, and for the encoder.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn take(&self, name: &str, wish: Wish) -> Result<(Picture, Headers), Refusal> {
        let ring = self.attach(name)?;
        let picture = first(&ring, wish)?;
        let said = headers(&ring, &picture.meta);
        Ok((picture, said))
    }

    /// The stream of a ring: a picture now, then each newer one at most [`STREAM_FPS`] times a second, encoded once for
    /// all who watch, until a [`DRY_AFTER`] passes without one. Blocks as [`Pictures::take`].
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn watch(&self, name: &str) -> Result<watch::Receiver<Arc<Picture>>, Refusal> {
        if let Some(feed) = feeds(&self.feeds).get(name) {
            return Ok(feed.subscribe());
        }
        // Others may wait for a feed of their own meanwhile: nothing is locked while a frame is waited for.
        let ring = self.attach(name)?;
        let picture = first(&ring, Wish { max_age: Some(MAX_AGE), width: Some(STREAM_WIDTH) })?;
        let mut open = feeds(&self.feeds);
        if let Some(feed) = open.get(name) {
            return Ok(feed.subscribe());
        }
        let (feed, pictures) = watch::channel(Arc::new(picture));
        let feed = Arc::new(feed);
        self.start(name, ring, Arc::clone(&feed))
            .map_err(|error| Refusal::not_now(format!("no thread for the stream of {name}: {error}")))?;
        open.insert(name.to_owned(), feed);
        Ok(pictures)
    }

    fn start(&self, name: &str, ring: Ring, feed: Arc<Feed>) -> io::Result<()> {
        let (feeds, name) = (Arc::clone(&self.feeds), name.to_owned());
        std::thread::Builder::new().name("stream".into()).spawn(move || run(&name, &ring, &feed, &feeds)).map(drop)
    }

    /// As a reader that counts: somebody looks, so the camera is not to be parked.
    fn attach(&self, name: &str) -> Result<Ring, Refusal> {
        let timeout = Some(listing::PATIENCE);
        let options = AttachOptions { shm: self.shm.clone(), timeout, owner: self.owner, presence: Presence::Counted };
        Ring::attach(name, options).map_err(|error| refused(&error))
    }
}

fn feeds(feeds: &Feeds) -> MutexGuard<'_, HashMap<String, Arc<Feed>>> {
    feeds.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream's thread: ends when nobody watches, when no frame comes, when the ring is removed.
fn run(name: &str, ring: &Ring, feed: &Arc<Feed>, open: &Feeds) {
    let mut pixels = Vec::new();
    let mut fresh = Instant::now();
    loop {
        if feed.receiver_count() == 0 || fresh.elapsed() > DRY_AFTER || ring.is_removed() {
            let mut open = feeds(open);
            // Under the lock nobody can begin to watch; whoever did before is still served unless it ran dry.
            if feed.receiver_count() == 0 || fresh.elapsed() > DRY_AFTER || ring.is_removed() {
                open.remove(name);
                return;
            }
        }
        match ring.next(&mut pixels, Some(SLICE)) {
            Ok(frame) => {
                let began = Instant::now();
                if let Ok(jpeg) = encode(&frame.meta, &pixels, Some(STREAM_WIDTH)) {
                    fresh = began;
                    feed.send_replace(Arc::new(Picture { jpeg, meta: frame.meta }));
                }
                let period = Duration::from_secs(1) / STREAM_FPS;
                std::thread::sleep(period.saturating_sub(began.elapsed()));
            }
            // Whoever cannot read at once looks again; the time without a frame decides.
            Err(ReadError::Timeout { .. }) => {}
            Err(_) => std::thread::sleep(SLICE),
        }
    }
}

fn encode(meta: &FrameMeta, payload: &[u8], width: Option<u32>) -> Result<Bytes, Refusal> {
    let snapshot = Snapshot { meta, payload };
    let jpeg = snapshot
        .jpeg_within(width, QUALITY)
        .map_err(|error| Refusal { status: StatusCode::UNPROCESSABLE_ENTITY, text: error.to_string() })?;
    Ok(jpeg.into())
}

/// The newest frame, once it is young enough.
fn first(ring: &Ring, wish: Wish) -> Result<Picture, Refusal> {
    let deadline = Instant::now() + FRAME_WITHIN;
    let mut pixels = Vec::new();
    loop {
        let result = match wish.max_age {
            Some(limit) => ring.latest_within(&mut pixels, limit),
            None => ring.latest(&mut pixels),
        };
        let error = match result {
            Ok(frame) => return Ok(Picture { jpeg: encode(&frame.meta, &pixels, wish.width)?, meta: frame.meta }),
            Err(error) => error,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let may_come = match error {
            ReadError::Overrun { .. } => true,
            // Whoever takes any frame is not kept waiting for one.
            ReadError::Stale { .. } | ReadError::NoFrame { .. } => wish.max_age.is_some(),
            _ => false,
        };
        let state = ring.status().state;
        if !may_come || left.is_zero() || state == State::Stopped {
            let is_over = state == State::Stopped || matches!(error, ReadError::Removed { .. });
            let status = if is_over { StatusCode::GONE } else { StatusCode::SERVICE_UNAVAILABLE };
            return Err(Refusal { status, text: error.to_string() });
        }
        ring.wait(ring.last_seq(), Some(left.min(SLICE)));
    }
}

/// What a picture's answer says of its frame and its camera.
fn headers(ring: &Ring, meta: &FrameMeta) -> Headers {
    let status = ring.status();
    vec![
        ("x-camring-seq", meta.seq.0.to_string()),
        ("x-camring-age-ms", format!("{:.0}", age_ms(meta))),
        ("x-camring-state", status.state.to_string()),
        ("x-camring-reason", status.reason.to_string()),
        ("x-camring-writer", liveness_word(ring.liveness()).to_owned()),
        ("x-camring-size", format!("{}x{}", meta.geometry.width, meta.geometry.height)),
    ]
}
