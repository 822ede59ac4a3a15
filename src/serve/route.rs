//! Which address answers what.

use std::sync::Arc;
use std::time::Duration;

use camring_ring::{OwnerPolicy, ShmDir, rings};
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::access::{Gate, query};
use super::events::{self, Numbers};
use super::metrics::{self, Clients, exposition};
use super::page::Page;
use super::pictures::{MAX_AGE, Picture, Pictures, Refusal, Wish, refused};
use super::reply::{Body, Reply, add_header, json as json_reply, reply, sentence};
use super::scene::{Entry, Found, Scene, Watcher};
use crate::config::Switch;
use crate::details::Details;
use crate::listing::{self, Line};
use crate::report::{Grade, age_ms};

/// MJPEG streams at a time.
pub const STREAMS_MAX: usize = 16;
/// Event streams at a time.
pub const EVENTS_MAX: usize = 64;
/// Requests at a time that read a ring, which waits and computes.
pub const READS_MAX: usize = 8;
/// For a turn to read a ring.
const TURN_WITHIN: Duration = Duration::from_secs(5);
/// Between the pictures of a stream.
const BOUNDARY: &str = "camring-picture";
const STREAM_TYPE: &str = "multipart/x-mixed-replace; boundary=camring-picture";

/// Everything that answers are made of.
pub struct Site {
    watcher: Watcher,
    pictures: Pictures,
    gate: Gate,
    page: Page,
    preview: Switch,
    shm: ShmDir,
    owner: OwnerPolicy,
    streams: Arc<Semaphore>,
    events: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

impl Site {
    /// The answers about the rings of one mount.
    #[must_use]
    pub fn new(watcher: Watcher, gate: Gate, preview: Switch, shm: ShmDir, owner: OwnerPolicy) -> Self {
        Self {
            watcher,
            pictures: Pictures::new(shm.clone(), owner),
            gate,
            page: Page::new(),
            preview,
            shm,
            owner,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            events: Arc::new(Semaphore::new(EVENTS_MAX)),
            reads: Arc::new(Semaphore::new(READS_MAX)),
        }
    }

    /// Answers one request; a body that came with it is not read.
    pub async fn answer<B>(&self, request: Request<B>) -> Reply {
        let (request, _) = request.into_parts();
        if let Err(refusal) = self.gate.check(&request) {
            return *refusal;
        }
        let path: Vec<&str> = request.uri.path().split('/').skip(1).collect();
        match path[..] {
            [""] => self.page.reply(),
            ["metrics"] => self.metrics().await,
            ["healthz"] => self.health(),
            ["readyz"] => self.ready().await,
            ["events"] => self.events(&request),
            ["api", "rings"] => self.rings().await,
            ["api", "rings", name] => self.details(name).await,
            ["rings", name, "snapshot.jpg"] => self.snapshot(name, &request).await,
            ["rings", name, "stream.mjpg"] => self.stream(name, &request).await,
            _ => sentence(
                StatusCode::NOT_FOUND,
                "nothing here; there are / /metrics /healthz /readyz /events /api/rings /api/rings/NAME \
                 /rings/NAME/snapshot.jpg /rings/NAME/stream.mjpg",
            ),
        }
    }

    async fn metrics(&self) -> Reply {
        let Some(scene) = self.watcher.fresh().await else { return stuck() };
        let clients = Clients {
            streams: STREAMS_MAX - self.streams.available_permits(),
            events: EVENTS_MAX - self.events.available_permits(),
        };
        reply(StatusCode::OK, metrics::MEDIA_TYPE, Body::Whole(Some(exposition(&scene, clients).into())))
    }

    fn health(&self) -> Reply {
        if self.watcher.is_well() { sentence(StatusCode::OK, "ok") } else { stuck() }
    }

    /// Keys: `ready`, and `rings`: list of `name`, `ready`, `condition`, `reason`; what the operator has stopped does not
    /// count.
    async fn ready(&self) -> Reply {
        let Some(scene) = self.watcher.fresh().await else { return stuck() };
        let status = if is_ready(&scene) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let ring = |entry: &Entry| {
            let note = entry.note();
            let reason = if note.is_empty() { entry.words() } else { format!("{}: {note}", entry.words()) };
            let is_ready = entry.grade() == Grade::Fine;
            json!({ "name": entry.name, "ready": is_ready, "condition": entry.condition(), "reason": reason })
        };
        let why = match &scene.fault {
            Some(fault) => Some(fault.clone()),
            None if scene.entries.is_empty() => Some("there is no ring and no configured camera".to_owned()),
            None => None,
        };
        let rings: Vec<_> = scene.entries.iter().map(ring).collect();
        json_reply(status, &json!({ "ready": is_ready(&scene), "why": why, "rings": rings }))
    }

    fn events(&self, request: &Parts) -> Reply {
        let Ok(place) = Arc::clone(&self.events).try_acquire_owned() else {
            return crowded(&format!("{EVENTS_MAX} event streams are open, which is the most"));
        };
        if request.method == Method::HEAD {
            return reply(StatusCode::OK, "text/event-stream", Body::Whole(None));
        }
        let hello = json!({ "version": env!("CARGO_PKG_VERSION"), "preview": self.preview == Switch::On });
        let wanted = query(request, "numbers").is_some_and(|value| value == "1");
        let numbers = if wanted { Numbers::Wanted } else { Numbers::Unwanted };
        events::stream(self.watcher.subscribe(), &hello, numbers, place)
    }

    async fn rings(&self) -> Reply {
        let (shm, owner) = (self.shm.clone(), self.owner);
        let read = self.read(move || {
            let names = rings(&shm).map_err(|error| {
                Refusal::not_now(format!("cannot read the memory mount {}: {error}", shm.root().display()))
            })?;
            Ok(names.iter().filter_map(|name| listing::line(&shm, name, owner)).collect::<Vec<Line>>())
        });
        read.await.map_or_else(|refusal| refusal.reply(), |lines| json_reply(StatusCode::OK, &lines))
    }

    async fn details(&self, name: &str) -> Reply {
        let (shm, owner, wanted) = (self.shm.clone(), self.owner, name.to_owned());
        let read = self.read(move || {
            let ring = listing::look(&shm, &wanted, owner).map_err(|error| refused(&error))?;
            Ok(Details::observe(&ring, &wanted, &shm))
        });
        match read.await {
            Ok(details) => json_reply(StatusCode::OK, &details),
            Err(refusal) => self.explained(name, refusal).reply(),
        }
    }

    async fn snapshot(&self, name: &str, request: &Parts) -> Reply {
        if self.preview == Switch::Off {
            return no_preview();
        }
        let wish = match wish(request) {
            Ok(wish) => wish,
            Err(text) => return sentence(StatusCode::BAD_REQUEST, &text),
        };
        let (pictures, wanted) = (self.pictures.clone(), name.to_owned());
        match self.read(move || pictures.take(&wanted, wish)).await {
            Ok((picture, said)) => {
                let mut reply = reply(StatusCode::OK, "image/jpeg", Body::Whole(Some(picture.jpeg)));
                said.iter().for_each(|(name, value)| add_header(&mut reply, name, value));
                reply
            }
            Err(refusal) => self.explained(name, refusal).reply(),
        }
    }

    async fn stream(&self, name: &str, request: &Parts) -> Reply {
        if self.preview == Switch::Off {
            return no_preview();
        }
        let Ok(place) = Arc::clone(&self.streams).try_acquire_owned() else {
            return crowded(&format!(
                "{STREAMS_MAX} streams are open, which is the most; close one, or take snapshots"
            ));
        };
        if request.method == Method::HEAD {
            return reply(StatusCode::OK, STREAM_TYPE, Body::Whole(None));
        }
        let (pictures, wanted) = (self.pictures.clone(), name.to_owned());
        match self.read(move || pictures.watch(&wanted)).await {
            Ok(pictures) => {
                let (sender, pieces) = mpsc::channel(1);
                tokio::spawn(pass_on(pictures, sender, place));
                reply(StatusCode::OK, STREAM_TYPE, Body::Pieces(pieces))
            }
            Err(refusal) => self.explained(name, refusal).reply(),
        }
    }

    /// A name that the configuration knows is no wrong address: its ring is not there yet.
    fn explained(&self, name: &str, refusal: Refusal) -> Refusal {
        let scene = self.watcher.last();
        match scene.entry(name) {
            Some(entry) if refusal.status == StatusCode::NOT_FOUND && matches!(entry.found, Found::Absent) => {
                Refusal::not_now(format!("camera \"{name}\" is {}", entry.note()))
            }
            _ => refusal,
        }
    }

    /// Reads rings on a thread for that, when it is this request's turn.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = tokio::time::timeout(TURN_WITHIN, Arc::clone(&self.reads).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Refusal::not_now("too many requests read rings at the moment; ask again"));
        };
        let result = tokio::task::spawn_blocking(move || {
            let result = read();
            drop(turn);
            result
        });
        // A panic is a fault of ours, which the log has; the connection goes on.
        result.await.unwrap_or_else(|_| {
            let text = "reading the ring failed; the log of camring serve says how".to_owned();
            Err(Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, text })
        })
    }
}

/// Something is served, and whatever is not stopped on purpose is fine.
fn is_ready(scene: &Scene) -> bool {
    scene.fault.is_none()
        && scene.count(Grade::Fine) > 0
        && scene.count(Grade::Fine) + scene.count(Grade::Off) == scene.entries.len()
}

/// Writes the pictures of a stream until the client or the stream ends.
async fn pass_on(
    mut pictures: watch::Receiver<Arc<Picture>>,
    client: mpsc::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
) {
    let mut picture = Arc::clone(&pictures.borrow_and_update());
    loop {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\nX-Camring-Seq: {}\r\n\
             X-Camring-Age-Ms: {:.0}\r\n\r\n",
            picture.jpeg.len(),
            picture.meta.seq,
            age_ms(&picture.meta)
        );
        for piece in [Bytes::from(head), picture.jpeg.clone(), Bytes::from_static(b"\r\n")] {
            if client.send(piece).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = client.closed() => return,
            changed = pictures.changed() => if changed.is_err() { break },
        }
        picture = Arc::clone(&pictures.borrow_and_update());
    }
    // No newer picture will come: an end that every client understands.
    let _ = client.send(format!("--{BOUNDARY}--\r\n").into()).await;
}

/// `?max_age=` (a duration, or `any`) and `?width=` (pixels).
fn wish(request: &Parts) -> Result<Wish, String> {
    let max_age = match query(request, "max_age").as_deref() {
        None => Some(MAX_AGE),
        Some("any") => None,
        Some(text) => Some(
            humantime::parse_duration(text)
                .map_err(|error| format!("max_age is no duration ({error}); expected for example 500ms, 10s or any"))?,
        ),
    };
    let width = match query(request, "width") {
        None => None,
        Some(text) => match text.parse() {
            Ok(width) if (16..=16384).contains(&width) => Some(width),
            _ => return Err("width is no number of pixels; expected 16 to 16384".to_owned()),
        },
    };
    Ok(Wish { max_age, width })
}

fn stuck() -> Reply {
    let text = "the rings have not been looked at for seconds; the machine is too busy, or its memory mount hangs";
    sentence(StatusCode::SERVICE_UNAVAILABLE, text)
}

fn crowded(text: &str) -> Reply {
    let mut reply = sentence(StatusCode::SERVICE_UNAVAILABLE, text);
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    reply
}

fn no_preview() -> Reply {
    sentence(StatusCode::FORBIDDEN, "pictures are switched off: [serve] preview = false")
}
