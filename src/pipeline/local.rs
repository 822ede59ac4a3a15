//! Sources that need no camera: a test picture and a looped file, both marked SYNTHETIC.
//!
//! ```text
//!  videotestsrc (live) -> caps [-> painted clock] -> appsink
//!  filesrc -> decodebin (video only) -> queue [-> deinterlace] -> appsink (paced by the clock); at its end it begins again
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use camring_ring::frame::Reason;
use crossbeam_channel::Sender;
use gst::glib;
use gst::prelude::*;

use super::bus::Subject;
use super::deinterlace::Deinterlace;
use super::digits;
use super::graph::{make, new_appsink, set};
use super::report::Reporter;
use super::sample::Origin;
use super::{chain, init, session};
use crate::source::{FrameSink, FrameSource, Loan, Progress, RetryReason, Session, SourceEvent};

const ORIGIN: Origin = Origin::Local { pts_offset: 0, synthetic: true };

/// A test picture; `clock` shows the time of day over colour bars, every other name is a pattern of videotestsrc.
#[derive(Clone, Debug)]
pub struct TestSource {
    /// `clock`, `smpte`, `ball`, `snow` and so on.
    pub pattern: String,
    /// Width and height, pixels.
    pub size: (u32, u32),
    /// Pictures in a second.
    pub fps: u32,
}

/// A file that is played over and over at its own speed.
#[derive(Clone, Debug)]
pub struct FileSource {
    /// Anything that GStreamer can decode here.
    pub path: PathBuf,
    /// What happens to interlaced pictures.
    pub deinterlace: Deinterlace,
}

impl TestSource {
    fn caps(&self) -> Result<gst::Caps, RetryReason> {
        let side = |pixels: u32| i32::try_from(pixels).ok().filter(|side| (1..=32767).contains(side));
        let (Some(width), Some(height), Some(fps)) = (side(self.size.0), side(self.size.1), side(self.fps)) else {
            let (width, height) = self.size;
            return Err(chain::refused(
                Reason::Config,
                format!("test picture {width}x{height} at {} fps cannot be made; each must be 1 to 32767", self.fps),
            ));
        };
        Ok(gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .field("width", width)
            .field("height", height)
            .field("framerate", gst::Fraction::new(fps, 1))
            .build())
    }

    /// Sets the pattern; true when the clock is to be painted over it.
    fn set_pattern(&self, source: &gst::Element) -> Result<bool, RetryReason> {
        let clock = self.pattern == "clock";
        let nick = if clock { "smpte" } else { &self.pattern };
        let patterns = source.property_type("pattern").and_then(glib::EnumClass::with_type);
        if patterns.is_none_or(|patterns| patterns.value_by_nick(nick).is_none()) {
            let pattern = &self.pattern;
            return Err(chain::refused(
                Reason::Config,
                format!(
                    "test pattern {pattern:?} is unknown; use clock or a pattern of videotestsrc such as smpte or ball"
                ),
            ));
        }
        source.set_property_from_str("pattern", nick);
        Ok(clock)
    }
}

impl FrameSource for TestSource {
    fn start(
        &mut self,
        sink: Loan<Box<dyn FrameSink>>,
        events: Sender<SourceEvent>,
        progress: Arc<Progress>,
    ) -> Result<Box<dyn Session>, RetryReason> {
        init()?;
        let (source, filter) = (make("videotestsrc")?, make("capsfilter")?);
        let clock = self.set_pattern(&source)?;
        set(&source, "is-live", true);
        filter.set_property("caps", self.caps()?);
        if clock {
            digits::paint_clock(&filter.static_pad("src").expect("every filter has it"), self.size);
        }
        let reporter = Arc::new(Reporter::new(events, vec![]));
        let appsink = new_appsink(false);
        let let_go = chain::end(&appsink, ORIGIN, sink, &reporter, &progress);
        let pipeline = gst::Pipeline::new();
        chain::join(&pipeline, &[source, filter, appsink.upcast()])?;
        reporter.event(SourceEvent::Decoder { codec: "raw".into(), decoder: "videotestsrc".into() });
        session::start(pipeline, Subject::Test, let_go, reporter, progress)
    }
}

impl FileSource {
    fn build(&self, appsink: gst::Element, reporter: &Arc<Reporter>) -> Result<gst::Pipeline, RetryReason> {
        let (source, queue) = (make("filesrc")?, make("queue")?);
        source.set_property("location", &self.path);
        set(&queue, "max-size-buffers", 4u32);
        let unfit = "the file's video cannot be brought into memory";
        chain::decoded(source, queue, self.deinterlace, appsink, reporter, unfit)
    }
}

impl FrameSource for FileSource {
    fn start(
        &mut self,
        sink: Loan<Box<dyn FrameSink>>,
        events: Sender<SourceEvent>,
        progress: Arc<Progress>,
    ) -> Result<Box<dyn Session>, RetryReason> {
        init()?;
        let path = self.path.display();
        match std::fs::metadata(&self.path) {
            Ok(meta) if meta.is_file() => {}
            Ok(_) => {
                return Err(chain::refused(Reason::NotFound, format!("{path} is not a file; set file to a video")));
            }
            Err(error) => return Err(chain::refused(Reason::NotFound, format!("{path} cannot be opened: {error}"))),
        }
        let reporter = Arc::new(Reporter::new(events, vec![]));
        let appsink = new_appsink(true);
        let let_go = chain::end(&appsink, ORIGIN, sink, &reporter, &progress);
        let pipeline = self.build(appsink.upcast(), &reporter)?;
        reporter.event(SourceEvent::Decoder { codec: "file".into(), decoder: "decodebin".into() });
        let subject = Subject::File(pipeline.downgrade());
        session::start(pipeline, subject, let_go, reporter, progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(pattern: &str, size: (u32, u32), fps: u32) -> TestSource {
        TestSource { pattern: pattern.into(), size, fps }
    }

    #[test]
    fn impossible_test_pictures_are_refused_in_words() {
        gst::init().expect("GStreamer");
        let error = source("clock", (0, 10), 25).caps().expect_err("no width");
        assert_eq!(error.message, "test picture 0x10 at 25 fps cannot be made; each must be 1 to 32767");
        let element = make("videotestsrc").expect("it is installed");
        let error = source("nonsense", (16, 16), 25).set_pattern(&element).expect_err("no such pattern");
        assert_eq!(
            error.message,
            "test pattern \"nonsense\" is unknown; use clock or a pattern of videotestsrc such as smpte or ball"
        );
        assert!(source("clock", (16, 16), 25).set_pattern(&element).expect("known"));
        assert!(!source("ball", (16, 16), 25).set_pattern(&element).expect("known"));
    }
}
