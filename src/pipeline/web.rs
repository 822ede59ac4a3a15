//! A camera that sends pictures over HTTP: MJPEG as `multipart/x-mixed-replace`.
//!
//! ```text
//!  souphttpsrc -> multipartdemux -> queue (leaky, 250 ms) -> decoder [-> download] -> appsink
//!       |               |            |                         |
//!       headers         arrivals     numbers                   gate: rests while nobody reads
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use camring_ring::frame::Reason;
use crossbeam_channel::Sender;
use gio::prelude::NetworkAddressExt;
use gst::glib;
use gst::prelude::*;
use secrecy::{ExposeSecret, SecretString};

use super::arrival::{Arrival, Arrivals, mono_ns, real_ns};
use super::bus::{End, Subject, Verdicts, Words, classify_status};
use super::decoder::{Codec, Device};
use super::gate::{FindingsTable, GateLink, OnCorrupt, guard, number_units};
use super::graph::{make, new_appsink, set, set_queue, set_words};
use super::reach::{self, Endpoint};
use super::report::Reporter;
use super::sample::Origin;
use super::{chain, init, session};
use crate::source::{FrameSink, FrameSource, Loan, Progress, RetryClass, RetryReason, Session, SourceEvent};

/// Everything about one camera that a session needs.
#[derive(Clone, Debug)]
pub struct WebSource {
    /// Where the stream is; without user and password in it.
    pub url: String,
    /// User to log in with.
    pub user: Option<String>,
    /// Password to log in with.
    pub password: Option<SecretString>,
    /// Longest wait for the answer and for more of it; whole seconds count.
    pub patience: Duration,
    /// Which decoders may be used.
    pub device: Device,
    /// Where nothing was lost every picture stands for itself; kept for pictures that the decoder refuses.
    pub on_corrupt: OnCorrupt,
    /// Longest silence of the gate.
    pub keyframe_wait: Duration,
}

impl WebSource {
    fn endpoint(&self) -> Result<Endpoint, RetryReason> {
        let wrong =
            || chain::refused(Reason::Config, "the camera's url cannot be read; expected http://HOST/PATH".into());
        let address = gio::NetworkAddress::parse_uri(&self.url, 80).map_err(|_| wrong())?;
        Ok(Endpoint { host: address.hostname().into(), port: address.port(), tls: false, speaks: "HTTP" })
    }

    fn source(&self) -> Result<gst::Element, RetryReason> {
        let source = make("souphttpsrc")?;
        set(&source, "location", self.url.as_str());
        if let Some(user) = &self.user {
            set(&source, "user-id", user.as_str());
        }
        if let Some(password) = &self.password {
            set(&source, "user-pw", password.expose_secret());
        }
        let seconds = u32::try_from(self.patience.as_secs_f64().ceil() as u64).unwrap_or(3600).clamp(1, 3600);
        set(&source, "timeout", seconds);
        // Headers hold the password.
        set_words(&source, "http-log-level", "none");
        // The supervisor tries again, at a pace of its own.
        set(&source, "retries", 0i32);
        set(&source, "is-live", true);
        set(&source, "do-timestamp", true);
        Ok(source)
    }

    fn build(&self, appsink: gst::Element, watch: &Watch) -> Result<gst::Pipeline, RetryReason> {
        let (source, demux, queue) = (self.source()?, make("multipartdemux")?, make("queue")?);
        set_queue(&queue);
        let codec = Codec::of_encoding("JPEG").expect("the table has it");
        let chosen =
            codec.choose(&self.device).map_err(|sentence| chain::refused(Reason::UnsupportedCodec, sentence))?;
        set(&chosen.element, "qos", false);
        let pad = |element: &gst::Element, name: &str| element.static_pad(name).expect("every filter has it");
        watch.headers(&pad(&source, "src"));
        number_units(&pad(&queue, "sink"), |_| {});
        watch.arrivals(&pad(&queue, "sink"));
        guard(&pad(&chosen.element, "sink"), self.on_corrupt, self.keyframe_wait, watch.gate());
        let pipeline = gst::Pipeline::new();
        chain::join(&pipeline, &[source, demux.clone()])?;
        let entry = pad(&queue, "sink");
        let tail: Vec<_> = [queue, chosen.element].into_iter().chain(chosen.download).chain([appsink]).collect();
        chain::join(&pipeline, &tail)?;
        chain::link_later(&demux, entry, &watch.reporter, "the camera's parts are no pictures that can be decoded");
        watch.reporter.event(SourceEvent::Decoder { codec: codec.word.into(), decoder: chosen.name });
        Ok(pipeline)
    }
}

impl FrameSource for WebSource {
    fn start(
        &mut self,
        sink: Loan<Box<dyn FrameSink>>,
        events: Sender<SourceEvent>,
        progress: Arc<Progress>,
    ) -> Result<Box<dyn Session>, RetryReason> {
        init()?;
        let endpoint = self.endpoint()?;
        let secrets = self.password.iter().map(|password| SecretString::from(password.expose_secret())).collect();
        let reporter = Arc::new(Reporter::new(events, secrets));
        let watch = Watch {
            endpoint: endpoint.to_string(),
            arrivals: Arc::new(Arrivals::new()),
            findings: Arc::new(FindingsTable::new()),
            decoder_failed: Arc::default(),
            progress: progress.clone(),
            reporter: reporter.clone(),
        };
        let appsink = new_appsink(false);
        let pipeline = self.build(appsink.clone().upcast(), &watch)?;
        let origin =
            Origin::Camera { arrivals: watch.arrivals.clone(), findings: watch.findings.clone(), full_range: true };
        let let_go = chain::end(&appsink, origin, sink, &reporter, &progress);
        let judge = Judge {
            endpoint,
            has_user: self.user.is_some(),
            decoder_failed: watch.decoder_failed,
            progress: progress.clone(),
        };
        session::start(pipeline, Subject::Other(Arc::new(judge)), let_go, reporter, progress)
    }

    fn twin(&self) -> Option<Box<dyn FrameSource>> {
        Some(Box::new(self.clone()))
    }
}

/// The probes of one session.
struct Watch {
    endpoint: String,
    arrivals: Arc<Arrivals>,
    findings: Arc<FindingsTable>,
    decoder_failed: Arc<AtomicBool>,
    progress: Arc<Progress>,
    reporter: Arc<Reporter>,
}

impl Watch {
    fn gate(&self) -> GateLink {
        GateLink {
            arrivals: self.arrivals.clone(),
            findings: self.findings.clone(),
            progress: self.progress.clone(),
            decoder_failed: self.decoder_failed.clone(),
        }
    }

    /// Ends a session with something that is no stream of pictures, such as a web page.
    fn headers(&self, pad: &gst::Pad) {
        let (reporter, endpoint) = (self.reporter.clone(), self.endpoint.clone());
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if let Some(found) = info.event().and_then(|event| content_type(event))
                && !found.to_ascii_lowercase().starts_with("multipart/")
            {
                let sentence = format!(
                    "{endpoint} answers with {found}, expected multipart/x-mixed-replace (MJPEG); check the path of the url"
                );
                reporter.ended(Reason::NoVideo, RetryClass::Permanent, &sentence);
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Remembers when each picture came.
    fn arrivals(&self, pad: &gst::Pad) {
        let (arrivals, progress, reporter) = (self.arrivals.clone(), self.progress.clone(), self.reporter.clone());
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let mono_ns = mono_ns();
            if progress.packets.fetch_add(1, Ordering::Relaxed) == 0 {
                reporter.event(SourceEvent::FirstPacket);
            }
            progress.last_packet_mono_ns.store(mono_ns, Ordering::Relaxed);
            if let Some(pts) = info.buffer().and_then(|buffer| buffer.pts()) {
                let arrival =
                    Arrival { mono_ns, real_ns: real_ns(), rtp_timestamp: 0, torn: false, gaps: 0, slices: 0 };
                arrivals.put(pts.nseconds(), arrival);
            }
            gst::PadProbeReturn::Ok
        });
    }
}

/// The content type in what souphttpsrc tells of an answer's headers.
fn content_type(event: &gst::EventRef) -> Option<String> {
    let gst::EventView::CustomDownstreamSticky(custom) = event.view() else { return None };
    let headers = custom.structure().filter(|structure| structure.name() == "http-headers")?;
    let response = headers.get::<gst::Structure>("response-headers").ok()?;
    let name = response.fields().find(|name| name.eq_ignore_ascii_case("content-type"))?;
    response.get::<String>(name).ok()
}

/// What the messages of souphttpsrc mean.
struct Judge {
    endpoint: Endpoint,
    has_user: bool,
    decoder_failed: Arc<AtomicBool>,
    progress: Arc<Progress>,
}

impl Verdicts for Judge {
    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.endpoint)
    }

    fn decoder_failed(&self) {
        self.decoder_failed.store(true, Ordering::Relaxed);
    }

    fn on_error(&self, error: &glib::Error, words: &Words) -> End {
        use gst::ResourceError as R;
        let endpoint = &self.endpoint;
        let status = words.status.or(match error.kind::<R>() {
            Some(R::NotAuthorized) => Some(401),
            _ => None,
        });
        if let Some(end) = status.and_then(|status| classify_status(status, endpoint, self.has_user)) {
            return end;
        }
        let closed = |what: &str| {
            let sentence = format!("{what} {endpoint} broke off: {}", words.text);
            End(Reason::ServerClosed, RetryClass::Transient, sentence)
        };
        // A refused connection is an error of the stream without a word about it.
        let is_connected = self.progress.packets.load(Ordering::Relaxed) > 0;
        match error.kind::<R>() {
            None if !is_connected && error.matches(gst::StreamError::Failed) => {
                let (reason, sentence) = reach::look(endpoint);
                End(reason, RetryClass::Transient, sentence)
            }
            Some(R::OpenRead | R::OpenReadWrite | R::NotFound) => {
                let (reason, sentence) = reach::look(endpoint);
                End(reason, RetryClass::Transient, sentence)
            }
            // After a break it asks for the rest, which no camera has.
            Some(R::Seek) => self.on_eos(),
            Some(_) => closed("the connection to"),
            None if error.matches(gst::StreamError::Demux) => End(
                Reason::NoVideo,
                RetryClass::Permanent,
                format!("what {endpoint} sends is no multipart stream: {}; check the path of the url", words.text),
            ),
            None => closed("the stream from"),
        }
    }

    fn on_eos(&self) -> End {
        let endpoint = &self.endpoint;
        End(Reason::ServerClosed, RetryClass::Transient, format!("{endpoint} closed the connection"))
    }
}
