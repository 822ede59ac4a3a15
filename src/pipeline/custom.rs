//! A pipeline of the operator's own, written as for `gst-launch-1.0`, that ends in an appsink called `out`.

use std::fmt;
use std::sync::Arc;

use camring_ring::frame::Reason;
use crossbeam_channel::Sender;
use gst::glib;
use gst::prelude::*;
use secrecy::SecretString;

use super::bus::{End, Subject, Verdicts, Words};
use super::chain;
use super::report::Reporter;
use super::sample::Origin;
use super::{init, session};
use crate::source::{FrameSink, FrameSource, Loan, Progress, RetryClass, RetryReason, Session, SourceEvent};

/// The name of the appsink that pictures are taken from.
const OUT: &str = "out";

/// A pipeline of the operator's own; `Debug` does not show it, it may hold passwords.
#[derive(Clone)]
pub struct CustomSource {
    /// As for `gst-launch-1.0`.
    pub launch: String,
    /// What must not stand in any message.
    pub secrets: Vec<SecretString>,
}

impl fmt::Debug for CustomSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomSource")
    }
}

/// What is wrong with the text of a pipeline.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LaunchFault {
    /// What was found, one line.
    pub what: String,
    /// The word of the text that it is about, when GStreamer names one.
    pub word: Option<String>,
    /// What to do.
    pub hint: &'static str,
}

/// Looks whether a pipeline can be built, and has an appsink called `out`; starts nothing.
///
/// # Errors
///
/// What is wrong with it. It may repeat parts of the text.
pub fn examine(launch: &str) -> Result<(), LaunchFault> {
    if let Err(error) = init() {
        return Err(LaunchFault { what: error.message, word: None, hint: "install GStreamer's core plugins" });
    }
    parse(launch).map(drop)
}

/// The pipeline and its appsink.
fn parse(launch: &str) -> Result<(gst::Pipeline, gst_app::AppSink), LaunchFault> {
    let fault = |what: String, word: Option<&str>, hint| LaunchFault { what, word: word.map(str::to_owned), hint };
    let built = gst::parse::launch_full(launch, None, gst::ParseFlags::FATAL_ERRORS).map_err(|error| {
        let word = error.message().split('"').nth(1).map(str::to_owned);
        let hint = match error.kind::<gst::ParseError>() {
            Some(gst::ParseError::NoSuchElement) => "correct the name, or install the plugin that holds the element",
            Some(gst::ParseError::NoSuchProperty) => "gst-inspect-1.0 ELEMENT lists the properties",
            Some(gst::ParseError::CouldNotSetProperty) => "gst-inspect-1.0 ELEMENT lists the values",
            Some(gst::ParseError::Link) => "gst-inspect-1.0 ELEMENT lists what each takes; put a converter between",
            _ => "try it with gst-launch-1.0",
        };
        LaunchFault { what: error.message().to_owned(), word, hint }
    })?;
    let hint = "end it with ! appsink name=out";
    let one = built.type_().name().to_owned();
    let pipeline = built
        .downcast::<gst::Pipeline>()
        .map_err(|_| fault(format!("{one} alone is no pipeline: it has no appsink called out"), None, hint))?;
    let Some(found) = pipeline.by_name(OUT) else {
        return Err(fault("it has no appsink called out".to_owned(), None, hint));
    };
    let kind = found.factory().map_or_else(|| "something else".to_owned(), |factory| factory.name().to_string());
    let appsink = found
        .downcast::<gst_app::AppSink>()
        .map_err(|_| fault(format!("what is called out is {kind}, expected an appsink"), Some(OUT), hint))?;
    Ok((pipeline, appsink))
}

impl FrameSource for CustomSource {
    fn start(
        &mut self,
        sink: Loan<Box<dyn FrameSink>>,
        events: Sender<SourceEvent>,
        progress: Arc<Progress>,
    ) -> Result<Box<dyn Session>, RetryReason> {
        init()?;
        let reporter = Arc::new(Reporter::new(events, self.secrets.clone()));
        let (pipeline, appsink) = parse(&self.launch).map_err(|fault| {
            let text = reporter.redact(&format!("the pipeline cannot be built: {}; {}", fault.what, fault.hint));
            chain::refused(Reason::Config, text)
        })?;
        let origin = Origin::Local { pts_offset: 0, synthetic: false };
        let let_go = chain::end(&appsink, origin, sink, &reporter, &progress);
        reporter.event(SourceEvent::Decoder { codec: "pipeline".into(), decoder: "custom".into() });
        session::start(pipeline, Subject::Other(Arc::new(Judge)), let_go, reporter, progress)
    }
}

/// What the messages of a pipeline mean that we did not build.
struct Judge;

impl Verdicts for Judge {
    fn on_error(&self, error: &glib::Error, words: &Words) -> End {
        use gst::ResourceError as R;
        let (reason, class) = match (error.kind::<R>(), error.kind::<gst::StreamError>()) {
            (Some(R::NotAuthorized), _) => (Reason::Auth, RetryClass::Auth),
            (Some(R::NotFound), _) => (Reason::NotFound, RetryClass::Permanent),
            (Some(R::OpenRead | R::OpenReadWrite), _) => (Reason::ConnectTimeout, RetryClass::Transient),
            (Some(R::Busy), _) => (Reason::ServerBusy, RetryClass::Busy),
            (Some(_), _) => (Reason::ServerClosed, RetryClass::Transient),
            (_, Some(gst::StreamError::CodecNotFound)) => (Reason::UnsupportedCodec, RetryClass::Permanent),
            (_, Some(_)) => (Reason::DecoderError, RetryClass::Transient),
            _ => (Reason::Internal, RetryClass::Transient),
        };
        let advice = "try it with gst-launch-1.0";
        End(reason, class, format!("the pipeline failed: {}; {advice}", words.text))
    }

    fn on_eos(&self) -> End {
        End(Reason::EndOfFile, RetryClass::Transient, "the pipeline came to its end; starting it again".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_pipeline_is_named_with_its_word() {
        gst::init().expect("GStreamer");
        let fault = |launch: &str| examine(launch).expect_err(launch);
        for (launch, what, word) in [
            ("videotestsrc ! nosuchthing ! appsink name=out", "no element \"nosuchthing\"", Some("nosuchthing")),
            ("videotestsrc", "has no appsink called out", None),
            ("videotestsrc ! fakesink", "it has no appsink called out", None),
            ("videotestsrc ! appsink", "it has no appsink called out", None),
            ("videotestsrc ! fakesink name=out", "what is called out is fakesink, expected an appsink", Some("out")),
            ("videotestsrc colour=7 ! appsink name=out", "no property \"colour\"", Some("colour")),
        ] {
            let fault = fault(launch);
            assert!(fault.what.contains(what), "{launch}: {fault:?}");
            assert_eq!(fault.word.as_deref(), word, "{launch}");
        }
        examine("videotestsrc ! video/x-raw,width=64 ! appsink name=out sync=false").expect("it is right");
        assert!(examine("videotestsrc ! ! appsink name=out").is_err());
    }
}
