//! A camera at this machine, through Video4Linux: `v4l2src`, and a decoder for what is not raw.
//!
//! ```text
//!  v4l2src -> decodebin (video only) -> queue (leaky) [-> deinterlace] -> appsink
//! ```

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::Arc;

use camring_ring::frame::Reason;
use crossbeam_channel::Sender;
use gst::glib;
use gst::prelude::*;

use super::bus::{End, Subject, Verdicts, Words};
use super::deinterlace::Deinterlace;
use super::graph::{make, new_appsink, set, set_words};
use super::report::Reporter;
use super::sample::Origin;
use super::{chain, init, session};
use crate::source::{FrameSink, FrameSource, Loan, Progress, RetryClass, RetryReason, Session, SourceEvent};

/// A camera at this machine.
#[derive(Clone, Debug)]
pub struct V4l2Source {
    /// The device, such as `/dev/video0`.
    pub path: PathBuf,
    /// What happens to interlaced pictures.
    pub deinterlace: Deinterlace,
}

impl V4l2Source {
    /// Looks at the device before GStreamer does, whose words for all of this are the same.
    fn look(&self) -> Result<(), RetryReason> {
        let path = self.path.display();
        let found = match std::fs::metadata(&self.path) {
            Ok(meta) if !meta.file_type().is_char_device() => {
                let message = format!("{path} is no device; set device to a camera such as /dev/video0");
                return Err(chain::refused(Reason::NotFound, message));
            }
            Ok(_) => std::fs::OpenOptions::new().read(true).write(true).open(&self.path).map(drop),
            Err(error) => Err(error),
        };
        let (reason, class, advice) = match found.as_ref().map_err(std::io::Error::kind) {
            Ok(()) => return Ok(()),
            // Plugged in, it is there within a second.
            Err(ErrorKind::NotFound) => {
                (Reason::NotFound, RetryClass::Transient, "is not there; plug the camera in, or correct device")
            }
            Err(ErrorKind::PermissionDenied) => {
                (Reason::Config, RetryClass::Permanent, "may not be opened; put this user into the device's group")
            }
            Err(ErrorKind::ResourceBusy) => (Reason::ServerBusy, RetryClass::Busy, "is used by another program"),
            Err(_) => (Reason::NotFound, RetryClass::Transient, "cannot be opened; look into the kernel's log"),
        };
        let why = found.map_or_else(|error| format!(" ({error})"), |()| String::new());
        Err(RetryReason { reason, class, message: format!("{path} {advice}{why}") })
    }

    fn build(&self, appsink: gst::Element, reporter: &Arc<Reporter>) -> Result<gst::Pipeline, RetryReason> {
        let (source, queue) = (make("v4l2src")?, make("queue")?);
        source.set_property("device", self.path.display().to_string());
        set_words(&queue, "leaky", "downstream");
        set(&queue, "max-size-buffers", 2u32);
        let unfit = "the camera's pictures cannot be brought into memory";
        chain::decoded(source, queue, self.deinterlace, appsink, reporter, unfit)
    }
}

impl FrameSource for V4l2Source {
    fn start(
        &mut self,
        sink: Loan<Box<dyn FrameSink>>,
        events: Sender<SourceEvent>,
        progress: Arc<Progress>,
    ) -> Result<Box<dyn Session>, RetryReason> {
        init()?;
        self.look()?;
        let reporter = Arc::new(Reporter::new(events, vec![]));
        let appsink = new_appsink(false);
        let pipeline = self.build(appsink.clone().upcast(), &reporter)?;
        let origin = Origin::Local { pts_offset: 0, synthetic: false };
        let let_go = chain::end(&appsink, origin, sink, &reporter, &progress);
        reporter.event(SourceEvent::Decoder { codec: "v4l2".into(), decoder: "decodebin".into() });
        session::start(pipeline, Subject::Other(Arc::new(Judge(self.clone()))), let_go, reporter, progress)
    }
}

/// What the messages of v4l2src mean.
struct Judge(V4l2Source);

impl Verdicts for Judge {
    fn on_error(&self, error: &glib::Error, words: &Words) -> End {
        use gst::ResourceError as R;
        let path = self.0.path.display();
        let end = |reason, class, sentence: String| End(reason, class, sentence);
        // A device that was unplugged: the file is gone, whatever GStreamer calls it.
        if let Err(why) = self.0.look().map_err(|why| why.message) {
            return end(Reason::NotFound, RetryClass::Transient, format!("the camera went away: {why}"));
        }
        match error.kind::<R>() {
            Some(R::Busy) => end(Reason::ServerBusy, RetryClass::Busy, format!("{path} is used by another program")),
            Some(R::Settings | R::NotFound | R::OpenRead | R::OpenReadWrite) => end(
                Reason::NotFound,
                RetryClass::Permanent,
                format!(
                    "{path} is no camera that can be used: {}; v4l2-ctl --list-devices names the cameras",
                    words.text
                ),
            ),
            Some(_) => end(
                Reason::ServerClosed,
                RetryClass::Transient,
                format!("{path} gave no more pictures: {}", words.text),
            ),
            None if error.matches(gst::StreamError::CodecNotFound) => end(
                Reason::UnsupportedCodec,
                RetryClass::Permanent,
                format!("no decoder for what {path} sends: {}", words.text),
            ),
            None => end(Reason::DecoderError, RetryClass::Transient, format!("pictures of {path}: {}", words.text)),
        }
    }

    fn on_eos(&self) -> End {
        let path = self.0.path.display();
        End(Reason::ServerClosed, RetryClass::Transient, format!("{path} gives no more pictures"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(path: &str) -> RetryReason {
        let source = V4l2Source { path: path.into(), deinterlace: Deinterlace::Off };
        source.look().expect_err(path)
    }

    #[test]
    fn a_device_that_is_missing_may_come_and_one_that_is_none_may_not() {
        let missing = look("/dev/video-no-such");
        assert_eq!((missing.reason, missing.class), (Reason::NotFound, RetryClass::Transient));
        assert!(missing.message.starts_with("/dev/video-no-such is not there; plug the camera in"), "{missing:?}");
        let file = look("/proc/self/status");
        assert_eq!((file.reason, file.class), (Reason::NotFound, RetryClass::Permanent));
        assert_eq!(file.message, "/proc/self/status is no device; set device to a camera such as /dev/video0");
    }

    #[test]
    fn a_device_that_disappears_is_waited_for_and_one_that_breaks_off_is_opened_again() {
        gst::init().expect("GStreamer");
        let read = glib::Error::new(gst::ResourceError::Read, "Could not read from the device.");
        let judged = |path: &str, error: &glib::Error| {
            let judge = Judge(V4l2Source { path: path.into(), deinterlace: Deinterlace::Off });
            judge.on_error(error, &Words::new(error, None, None))
        };
        let End(reason, class, sentence) = judged("/dev/video-no-such", &read);
        assert_eq!((reason, class), (Reason::NotFound, RetryClass::Transient));
        assert!(sentence.starts_with("the camera went away: /dev/video-no-such is not there"), "{sentence}");
        assert_eq!(judged("/dev/null", &read).0, Reason::ServerClosed);
        let busy = glib::Error::new(gst::ResourceError::Busy, "x");
        assert_eq!(judged("/dev/null", &busy).0, Reason::ServerBusy);
    }
}
