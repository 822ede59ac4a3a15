//! From bus messages to events: what each message of a pipeline means, on a thread of its own per session.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use camring_ring::frame::Reason;
use crossbeam_channel::{Receiver, after, bounded, never, select};
use gst::glib;
use gst::prelude::*;

use super::arrival::mono_ns;
use super::dial::{self, Dial};
use super::graph::{Camera, Tls};
use super::knock::Knocker;
use super::reach::{self, Endpoint};
use super::report::Reporter;
use crate::source::{Progress, RetryClass};

/// Messages that may wait for the watcher; it falls behind only while it looks for the cause of a failed connect.
const BACKLOG: usize = 64;
/// Takes the messages that matter off `bus`, tells `dial` of the connect, and drops all others at once.
///
/// Not popped from the bus itself: a pipeline on its way to NULL flushes it, and a wake-up call with it.
pub(super) fn listen(bus: &gst::Bus, dial: Arc<Dial>) -> Receiver<gst::Message> {
    let (sender, messages) = bounded(BACKLOG);
    bus.set_sync_handler(move |_, message| {
        use gst::MessageType as T;
        dial.hear(message);
        let matters =
            matches!(message.type_(), T::Error | T::Warning | T::Eos | T::Element | T::ClockLost | T::Application);
        if matters || dial::is_agreed(message) {
            // Full: a flood of warnings, of which the first ones are told already. Closed: the session is over.
            drop(sender.try_send(message.to_owned()));
        }
        gst::BusSyncReply::Drop
    });
    messages
}

/// Has the watcher end a session whose pipeline refuses to start, unless some element has said why: for those that
/// refuse without a word.
pub(super) fn refused(bus: &gst::Bus) {
    // Dropped only by a bus that is flushing, which is one of a session that is over.
    let _ = bus.post(gst::message::Application::new(gst::Structure::new_empty("refused")));
}

/// What kind of pipeline posts the messages.
pub(super) enum Subject {
    /// An RTSP camera.
    Camera(Arc<Camera>),
    /// A test picture, which never ends by itself.
    Test,
    /// A file, which begins again at its end.
    File(glib::WeakRef<gst::Pipeline>),
    /// Any other source, which says itself what its messages mean.
    Other(Arc<dyn Verdicts>),
}

impl Subject {
    /// Where the camera is, for a source that is reached over the network.
    fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::Camera(camera) => Some(&camera.endpoint),
            Self::Other(source) => source.endpoint(),
            Self::Test | Self::File(_) => None,
        }
    }
}

/// What the messages of one kind of source mean.
pub(super) trait Verdicts: Send + Sync {
    /// An error of any element but the decoder.
    fn on_error(&self, error: &glib::Error, words: &Words) -> End;

    /// The stream has come to its end.
    fn on_eos(&self) -> End;

    /// Where the camera is, for a source that is reached over the network.
    fn endpoint(&self) -> Option<&Endpoint> {
        None
    }

    /// Hears of each error of the decoder.
    fn decoder_failed(&self) {}
}

/// The watcher of one session's bus.
pub(super) struct Watcher {
    pub messages: Receiver<gst::Message>,
    /// Closed when the session is stopped.
    pub stopped: Receiver<Infallible>,
    pub subject: Subject,
    pub reporter: Arc<Reporter>,
    pub progress: Arc<Progress>,
    /// How far the connect has come.
    pub dial: Arc<Dial>,
    /// Requests that keep the session alive.
    pub knocker: Knocker,
}

/// An end of the session: the word, how soon to try again, the sentence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct End(pub Reason, pub RetryClass, pub String);

impl Watcher {
    /// Starts the thread; it ends when `stopped` is closed.
    pub(super) fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("camring-bus".into()).spawn(move || self.run())
    }

    fn run(mut self) {
        let (mut timed_out, mut packet_due) = (false, never());
        let patience_ends = self.subject.endpoint().map_or_else(never, |_| after(dial::PATIENCE));
        loop {
            let message = select! {
                recv(self.messages) -> message => message,
                recv(patience_ends) -> _ => {
                    self.check_connect();
                    continue;
                }
                recv(packet_due) -> _ => {
                    self.check_packets();
                    continue;
                }
                recv(self.knocker.due()) -> _ => {
                    self.knocker.knock();
                    continue;
                }
                recv(self.stopped) -> _ => return,
            };
            let Ok(message) = message else { return };
            // Messages after the end are read and dropped, so that none of them waits.
            if self.reporter.is_closed() {
                continue;
            }
            let end = match message.view() {
                gst::MessageView::Error(error) => {
                    self.on_error(&message, &error.error(), error.debug(), error.details())
                }
                gst::MessageView::Warning(warning) => self.on_warning(&message, &warning.error(), warning.debug()),
                gst::MessageView::Eos(_) => self.on_eos(timed_out),
                gst::MessageView::Element(element) => {
                    timed_out |= element.structure().is_some_and(|s| s.name() == "GstRTSPSrcTimeout");
                    None
                }
                gst::MessageView::Progress(_) => {
                    if let Subject::Camera(camera) = &self.subject {
                        packet_due = after(camera.lessons.packet_patience());
                    }
                    None
                }
                gst::MessageView::Application(_) => {
                    Some(End(Reason::Internal, RetryClass::Transient, "the pipeline does not start".into()))
                }
                gst::MessageView::ClockLost(_) => {
                    Some(End(Reason::Internal, RetryClass::Transient, "the pipeline lost its clock".into()))
                }
                _ => None,
            };
            if let Some(End(reason, class, sentence)) = end {
                self.reporter.ended(reason, class, &sentence);
            }
        }
    }

    /// Ends a session in which the camera has agreed to send and sends nothing, unlike in the ones before.
    fn check_packets(&self) {
        let Subject::Camera(camera) = &self.subject else { return };
        let packets_came = self.progress.packets.load(Ordering::Relaxed) > 0;
        if !self.reporter.is_closed() && camera.lessons.is_silent(packets_came) {
            let sentence = format!("{} has agreed to send and sends nothing; beginning anew", camera.endpoint);
            self.reporter.ended(Reason::NoPackets, RetryClass::Transient, &sentence);
        }
    }

    /// Ends a session whose connect hangs, in the look-up of the name or, with RTSP, behind it: sources wait without a
    /// word, for name servers longer than the supervisor does, and rtspsrc for the camera until after the next try would
    /// have found it.
    fn check_connect(&self) {
        let Some(endpoint) = self.subject.endpoint() else { return };
        let over = || {
            self.dial.is_connected() || self.progress.packets.load(Ordering::Relaxed) > 0 || self.reporter.is_closed()
        };
        if over() {
            return;
        }
        let found = reach::resolve(endpoint);
        // The look-up may have taken a while, in which the connection was made after all.
        if over() {
            return;
        }
        match (found, &self.subject) {
            (Err(sentence), _) => self.reporter.ended(Reason::Dns, RetryClass::Transient, &sentence),
            // A handshake may take longer; it ends with `request_timeout`.
            (Ok(_), Subject::Camera(camera)) if self.dial.is_connecting() && matches!(camera.tls, Tls::Off) => {
                let End(reason, class, sentence) = unanswered(camera);
                self.reporter.ended(reason, class, &sentence);
            }
            (Ok(_), _) => {}
        }
    }

    fn on_error(
        &mut self,
        message: &gst::Message,
        error: &glib::Error,
        debug: Option<glib::GString>,
        details: Option<&gst::StructureRef>,
    ) -> Option<End> {
        let words = Words::new(error, debug.as_deref(), details);
        match &self.subject {
            Subject::Camera(camera) if is_decoder(message) => {
                self.note_decoder_error(camera);
                Some(End(Reason::DecoderError, RetryClass::Transient, format!("the decoder failed: {}", words.text)))
            }
            Subject::Camera(camera) => Some(classify(error, &words, camera).unwrap_or_else(|| connect_failure(camera))),
            Subject::Other(source) if is_decoder(message) => {
                self.progress.decode_errors.fetch_add(1, Ordering::Relaxed);
                source.decoder_failed();
                Some(End(Reason::DecoderError, RetryClass::Transient, format!("the decoder failed: {}", words.text)))
            }
            Subject::Other(source) => Some(source.on_error(error, &words)),
            Subject::Test => Some(End(Reason::Internal, RetryClass::Transient, words.text)),
            Subject::File(_) => Some(classify_file(error, words.text)),
        }
    }

    fn on_warning(&self, message: &gst::Message, error: &glib::Error, debug: Option<glib::GString>) -> Option<End> {
        let words = Words::new(error, debug.as_deref(), None);
        let Subject::Camera(camera) = &self.subject else {
            if let Subject::Other(source) = &self.subject
                && is_decoder(message)
            {
                self.progress.decode_errors.fetch_add(1, Ordering::Relaxed);
                source.decoder_failed();
            }
            self.reporter.notice("warning", &words.text);
            return None;
        };
        if is_decoder(message) {
            return self.on_decoder_warning(camera, &words);
        }
        if words.has("closed the connection") {
            return Some(server_closed(camera));
        }
        if words.has("Could not receive any UDP packets") {
            camera.lessons.tcp_only.store(true, Ordering::Relaxed);
            self.reporter.notice("udp", "no UDP packet arrives from the camera; using TCP from now on");
            return None;
        }
        let kind = format!("{}/{}", error.domain().as_str(), words.text);
        self.reporter.notice(&kind, &words.text);
        None
    }

    fn on_decoder_warning(&self, camera: &Camera, words: &Words) -> Option<End> {
        let unfit = self.note_decoder_error(camera);
        self.reporter.notice("decoder", &format!("the decoder complains: {}", words.text));
        // Software is the last resort: nothing would be won by starting it again.
        (unfit && camera.hardware.load(Ordering::Relaxed)).then(|| {
            End(Reason::DecoderError, RetryClass::Transient, "two decoder errors in 60 s; decoding in software".into())
        })
    }

    /// Counts an error of the decoder; true when the decoder is unfit.
    fn note_decoder_error(&self, camera: &Camera) -> bool {
        self.progress.decode_errors.fetch_add(1, Ordering::Relaxed);
        camera.decoder_failed.store(true, Ordering::Relaxed);
        let unfit = camera.lessons.decoder_failed(mono_ns());
        if unfit && camera.hardware.load(Ordering::Relaxed) {
            camera.lessons.software.store(true, Ordering::Relaxed);
        }
        unfit
    }

    fn on_eos(&self, timed_out: bool) -> Option<End> {
        match &self.subject {
            Subject::Camera(_) if timed_out => {
                Some(End(Reason::NoPackets, RetryClass::Transient, "the camera sends nothing any more".into()))
            }
            Subject::Camera(camera) => Some(server_closed(camera)),
            Subject::Test => Some(End(Reason::EndOfFile, RetryClass::Transient, "the test picture ended".into())),
            Subject::Other(source) => Some(source.on_eos()),
            Subject::File(pipeline) => rewind(pipeline, &self.progress),
        }
    }
}

/// The words of an error in one place.
pub(super) struct Words {
    pub text: String,
    /// The status of an answer in RTSP or HTTP.
    pub status: Option<u32>,
}

impl Words {
    pub(super) fn new(error: &glib::Error, debug: Option<&str>, details: Option<&gst::StructureRef>) -> Self {
        let detail = debug.map(last_line).filter(|line| !line.is_empty());
        let text =
            detail.map_or_else(|| error.message().to_owned(), |detail| format!("{} ({detail})", error.message()));
        let status = |name: &str| details.and_then(|details| details.get::<u32>(name).ok());
        Self { text, status: status("rtsp-status-code").or_else(|| status("http-status-code")) }
    }

    fn has(&self, needle: &str) -> bool {
        self.text.contains(needle)
    }
}

/// The sentence in a debug text, without the file and function in front of it.
fn last_line(debug: &str) -> &str {
    debug.lines().last().unwrap_or("").trim()
}

fn is_decoder(message: &gst::Message) -> bool {
    message.src().is_some_and(|source| source.name() == "decoder")
}

fn server_closed(camera: &Camera) -> End {
    let endpoint = &camera.endpoint;
    End(Reason::ServerClosed, RetryClass::Transient, format!("{endpoint} closed the connection"))
}

/// Nobody answers at the camera's address.
fn unanswered(camera: &Camera) -> End {
    let endpoint = &camera.endpoint;
    let sentence = format!("{endpoint} does not answer; check address, cable and firewall, and that the camera is on");
    End(Reason::ConnectTimeout, RetryClass::Transient, sentence)
}

/// What an error of a camera's pipeline means; `None` = the connect failed and the cause is to be looked for.
fn classify(error: &glib::Error, words: &Words, camera: &Camera) -> Option<End> {
    let endpoint = &camera.endpoint;
    if let Some(end) = words.status.and_then(|status| classify_status(status, endpoint, camera.config.user.is_some())) {
        return Some(end);
    }
    let end = |reason, class, sentence| Some(End(reason, class, sentence));
    match error.kind::<gst::ResourceError>() {
        Some(gst::ResourceError::NotAuthorized) => classify_status(401, endpoint, camera.config.user.is_some()),
        Some(gst::ResourceError::NotFound) => classify_status(404, endpoint, camera.config.user.is_some()),
        Some(gst::ResourceError::OpenReadWrite) if words.has("Timeout while waiting for server response") => {
            Some(unanswered(camera))
        }
        _ if words.has("Timeout while waiting for server response") => end(
            Reason::ConnectTimeout,
            RetryClass::Transient,
            format!(
                "{endpoint} did not answer in time; check that this port speaks RTSP and that the camera is not overloaded"
            ),
        ),
        _ if words.has("Parse error") => end(
            Reason::NotRtsp,
            RetryClass::Permanent,
            format!("what answers at {endpoint} does not speak RTSP; check the port"),
        ),
        _ if words.has("SDP contains no streams") => Some(camera.no_stream()),
        _ if words.has("Could not receive any UDP packets") => end(
            Reason::NoPackets,
            RetryClass::Transient,
            format!("{endpoint} says that it sends, and no packet arrives; {}", camera.config.transport.advice()),
        ),
        Some(gst::ResourceError::OpenReadWrite | gst::ResourceError::OpenRead) => None,
        Some(_) => server_closed_with(camera, words),
        None => Some(classify_stream(error, words, camera)),
    }
}

fn server_closed_with(camera: &Camera, words: &Words) -> Option<End> {
    let endpoint = &camera.endpoint;
    let sentence = format!("the session with {endpoint} broke off: {}", words.text);
    Some(End(Reason::ServerClosed, RetryClass::Transient, sentence))
}

/// What an answer with this status means; `None` = it is none of a refusal.
pub(super) fn classify_status(status: u32, endpoint: &Endpoint, has_user: bool) -> Option<End> {
    let (reason, class, sentence) = match status {
        401 | 403 | 407 if !has_user => (
            Reason::Auth,
            RetryClass::Auth,
            format!("{endpoint} asks for user and password (status {status}); set user and password of this camera"),
        ),
        401 | 403 | 407 => (
            Reason::Auth,
            RetryClass::Auth,
            format!("{endpoint} refused user or password (status {status}); check user and password of this camera"),
        ),
        404 | 410 => (
            Reason::NotFound,
            RetryClass::Permanent,
            format!("{endpoint} has no such stream (status {status}); check the path of the url"),
        ),
        453 | 503 => (
            Reason::ServerBusy,
            RetryClass::Busy,
            format!("{endpoint} has no session left (status {status}); close other viewers of this camera"),
        ),
        461 => (
            Reason::NoVideo,
            RetryClass::Transient,
            format!("{endpoint} refuses this transport (status {status}); set another transport"),
        ),
        400..=599 => {
            (Reason::ServerClosed, RetryClass::Transient, format!("{endpoint} refused the request (status {status})"))
        }
        _ => return None,
    };
    Some(End(reason, class, sentence))
}

fn classify_stream(error: &glib::Error, words: &Words, camera: &Camera) -> End {
    let endpoint = &camera.endpoint;
    match error.kind::<gst::StreamError>() {
        Some(gst::StreamError::CodecNotFound) => camera.no_stream(),
        _ if words.has("not-negotiated") => End(
            Reason::DecoderError,
            RetryClass::Transient,
            format!("the decoder and the stream do not fit: {}", words.text),
        ),
        Some(_) => End(
            Reason::ServerClosed,
            RetryClass::Transient,
            format!("the stream from {endpoint} broke off: {}", words.text),
        ),
        None => End(Reason::Internal, RetryClass::Transient, words.text.clone()),
    }
}

fn connect_failure(camera: &Camera) -> End {
    let endpoint = &camera.endpoint;
    if let Tls::On(refusal) = &camera.tls {
        let why = refusal.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(why) = why {
            return End(Reason::Tls, RetryClass::Transient, format!("the certificate of {endpoint} is refused: {why}"));
        }
    }
    let (reason, sentence) = reach::look(endpoint);
    End(reason, RetryClass::Transient, sentence)
}

fn classify_file(error: &glib::Error, text: String) -> End {
    let (reason, class) = match (error.kind::<gst::ResourceError>(), error.kind::<gst::StreamError>()) {
        (Some(gst::ResourceError::NotFound | gst::ResourceError::OpenRead), _) => {
            (Reason::NotFound, RetryClass::Permanent)
        }
        (_, Some(gst::StreamError::CodecNotFound)) => (Reason::UnsupportedCodec, RetryClass::Permanent),
        _ if error.matches(gst::CoreError::MissingPlugin) => (Reason::UnsupportedCodec, RetryClass::Permanent),

        (_, Some(gst::StreamError::TypeNotFound | gst::StreamError::WrongType)) => {
            (Reason::NoVideo, RetryClass::Permanent)
        }
        (_, Some(_)) => (Reason::DecoderError, RetryClass::Transient),
        _ => (Reason::Internal, RetryClass::Transient),
    };
    End(reason, class, format!("the file cannot be played: {text}"))
}

/// Begins a file again at its end.
fn rewind(pipeline: &glib::WeakRef<gst::Pipeline>, progress: &Progress) -> Option<End> {
    let end = |class, sentence: &str| Some(End(Reason::EndOfFile, class, sentence.into()));
    if progress.decoded.load(Ordering::Relaxed) == 0 {
        return end(RetryClass::Permanent, "the file ended without a picture");
    }
    let pipeline = pipeline.upgrade()?;
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
    if pipeline.seek_simple(flags, gst::ClockTime::ZERO).is_err() {
        return end(RetryClass::Transient, "the file ended and cannot be wound back; starting it again");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(error: &glib::Error, debug: &str, status: Option<u32>) -> Option<(Reason, RetryClass)> {
        gst::init().expect("GStreamer");
        let words = Words { status, ..Words::new(error, Some(debug), None) };
        classify(error, &words, &Camera::sample()).map(|End(reason, class, _)| (reason, class))
    }

    fn resource(error: gst::ResourceError, debug: &str, status: Option<u32>) -> Option<(Reason, RetryClass)> {
        classified(&glib::Error::new(error, "Could not."), debug, status)
    }

    #[test]
    fn the_words_of_rtspsrc_become_the_classes_of_the_table() {
        use RetryClass::{Auth, Busy, Permanent, Transient};
        use gst::ResourceError as R;
        let unhandled = "gstrtspsrc.c(1): gst_rtspsrc_send ():\nUnhandled error";
        let table = [
            (R::OpenReadWrite, "Failed to connect. (Generic error)", None, None),
            (
                R::OpenReadWrite,
                "Failed to connect. (Timeout while waiting for server response)",
                None,
                Some((Reason::ConnectTimeout, Transient)),
            ),
            (R::Read, "(Timeout while waiting for server response)", None, Some((Reason::ConnectTimeout, Transient))),
            (R::Read, "Could not receive message. (Parse error)", None, Some((Reason::NotRtsp, Permanent))),
            (R::NotFound, "", Some(404), Some((Reason::NotFound, Permanent))),
            (R::NotAuthorized, "", Some(401), Some((Reason::Auth, Auth))),
            (R::NotAuthorized, "", None, Some((Reason::Auth, Auth))),
            (R::Read, unhandled, Some(403), Some((Reason::Auth, Auth))),
            (R::Read, unhandled, Some(453), Some((Reason::ServerBusy, Busy))),
            (R::Read, unhandled, Some(503), Some((Reason::ServerBusy, Busy))),
            (R::Read, unhandled, Some(454), Some((Reason::ServerClosed, Transient))),
            (R::Settings, "(SDP contains no streams)", None, Some((Reason::NoVideo, Permanent))),
            (R::Read, "System error", None, Some((Reason::ServerClosed, Transient))),
            (
                R::Read,
                "Could not receive any UDP packets for 5.0000 seconds",
                None,
                Some((Reason::NoPackets, Transient)),
            ),
        ];
        for (error, debug, status, expected) in table {
            assert_eq!(resource(error, debug, status), expected, "{error:?} {debug} {status:?}");
        }
    }

    #[test]
    fn stream_errors_are_told_apart() {
        let stream = |error, debug: &str| classified(&glib::Error::new(error, "x"), debug, None).expect("an end").0;
        assert_eq!(stream(gst::StreamError::CodecNotFound, ""), Reason::NoVideo);
        assert_eq!(
            stream(gst::StreamError::Failed, "streaming stopped, reason not-negotiated (-4)"),
            Reason::DecoderError
        );
        assert_eq!(stream(gst::StreamError::Failed, "streaming stopped, reason error (-5)"), Reason::ServerClosed);
    }

    #[test]
    fn sentences_name_the_camera_and_the_remedy() {
        let endpoint = Camera::sample().endpoint;
        let End(_, _, sentence) = classify_status(401, &endpoint, false).expect("an end");
        assert_eq!(
            sentence,
            "10.0.0.21:554 asks for user and password (status 401); set user and password of this camera"
        );
        let End(_, _, sentence) = classify_status(401, &endpoint, true).expect("an end");
        assert_eq!(
            sentence,
            "10.0.0.21:554 refused user or password (status 401); check user and password of this camera"
        );
        let words = Words::new(
            &glib::Error::new(gst::ResourceError::Read, "Could not read."),
            Some(
                "../gst/rtsp/gstrtspsrc.c(6640): gst_rtspsrc_loop (): /GstPipeline:p/GstRTSPSrc:s:\nThe server closed the connection.",
            ),
            None,
        );
        assert_eq!(words.text, "Could not read. (The server closed the connection.)");
    }
}
