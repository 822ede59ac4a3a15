//! What this host can receive and decode, for people who ask before a camera does.

use gio::prelude::*;

use super::decoder::inventory;
use super::init;
use crate::source::RetryReason;

/// Elements that every RTSP session is made of.
const ELEMENTS: [&str; 7] = ["rtspsrc", "rtpjitterbuffer", "udpsrc", "queue", "capsfilter", "appsink", "videoconvert"];

/// One codec.
#[derive(Clone, Debug)]
pub struct CodecSupport {
    /// Its word.
    pub codec: &'static str,
    /// Elements besides a decoder that are not there.
    pub missing: Vec<&'static str>,
    /// Software decoders that open.
    pub software: Vec<&'static str>,
    /// Hardware decoders that open their device.
    pub hardware: Vec<&'static str>,
}

/// Everything about GStreamer on this host.
#[derive(Clone, Debug)]
pub struct Support {
    /// Its version.
    pub version: (u32, u32, u32),
    /// Elements of every session that are not there.
    pub missing: Vec<&'static str>,
    /// Codec by codec.
    pub codecs: Vec<CodecSupport>,
    /// Whether `rtsps://` can be received.
    pub has_tls: bool,
}

/// Looks at what is installed; opens and closes each decoder once.
///
/// # Errors
///
/// GStreamer does not start.
pub fn support() -> Result<Support, RetryReason> {
    init()?;
    let (major, minor, micro, _) = gst::version();
    let is_missing = |name: &&str| gst::ElementFactory::find(name).is_none();
    Ok(Support {
        version: (major, minor, micro),
        missing: ELEMENTS.into_iter().filter(is_missing).collect(),
        codecs: inventory(),
        has_tls: gio::TlsBackend::default().supports_tls(),
    })
}
