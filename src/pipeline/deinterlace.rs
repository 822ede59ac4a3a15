//! The element that turns woven fields into whole pictures, and what it would lose on the way.
//!
//! GStreamer's `deinterlace` makes new buffers: the camera's own time, which travels with the old ones, is carried
//! over by PTS. Progressive pictures, and those of more than 8 bits, pass it untouched.

use std::sync::Arc;

use gst::prelude::*;

use super::arrival::PtsTable;
use super::graph::{make, set, set_words};
use super::sample::camera_ntp;
use crate::source::RetryReason;

/// What happens to interlaced pictures.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Deinterlace {
    /// Both fields are delivered woven, flagged INTERLACED.
    #[default]
    Off,
    /// The lines of the bottom field are interpolated between those of the top field; no delay.
    Linear,
    /// The same, aware of motion; costs up to two frame intervals of delay and more processor time.
    Yadif,
}

impl Deinterlace {
    /// The element to put behind the decoder; `None` when there is nothing to do.
    ///
    /// # Errors
    ///
    /// Its plugin is not installed.
    pub(super) fn element(self) -> Result<Option<gst::Element>, RetryReason> {
        let method = match self {
            Self::Off => return Ok(None),
            Self::Linear => "linear",
            Self::Yadif => "yadif",
        };
        let element = make("deinterlace")?;
        set_words(&element, "method", method);
        // One picture for each pair of fields: a camera of 25 frames a second stays one.
        set_words(&element, "fields", "top");
        set_words(&element, "mode", "auto");
        set(&element, "qos", false);
        carry_times(&element);
        Ok(Some(element))
    }
}

/// Gives the pictures that come out the camera's time of those that went in.
fn carry_times(element: &gst::Element) {
    let pad = |name: &str| element.static_pad(name).expect("every filter has it");
    let times = Arc::new(PtsTable::<1>::new());
    let known = Arc::clone(&times);
    pad("sink").add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let picture = info.buffer().and_then(|buffer| Some((buffer.pts()?.nseconds(), camera_ntp(buffer)?)));
        if let Some((pts, ntp)) = picture {
            known.put(pts, [ntp]);
        }
        gst::PadProbeReturn::Ok
    });
    let reference = gst::Caps::builder("timestamp/x-ntp").build();
    pad("src").add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let Some(buffer) = info.buffer_mut().filter(|buffer| camera_ntp(buffer).is_none()) else {
            return gst::PadProbeReturn::Ok;
        };
        if let Some([ntp]) = buffer.pts().and_then(|pts| times.get(pts.nseconds()))
            && let Some(buffer) = buffer.get_mut()
        {
            gst::ReferenceTimestampMeta::add(buffer, &reference, gst::ClockTime::from_nseconds(ntp), None);
        }
        gst::PadProbeReturn::Ok
    });
}
