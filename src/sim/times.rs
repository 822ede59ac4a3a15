//! Time stamps of MPEG-4 part 2: GStreamer 1.22's element for libavcodec's encoder gives its pictures none that make
//! sense. Without B-frames each picture that goes in comes out in order, so it can have its own back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use gst::prelude::*;

/// Gives every picture that leaves `encoder` the running time with which it came.
pub(super) fn keep(encoder: &gst::Element) {
    let pad = |name: &str| encoder.static_pad(name).expect("every encoder has it");
    let times = Arc::new(Mutex::new(VecDeque::new()));
    let coming = Arc::clone(&times);
    pad("sink").add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        // The feed's segment begins at 0, so its times are running times.
        let time = info.buffer().and_then(|buffer| buffer.pts());
        coming.lock().unwrap_or_else(PoisonError::into_inner).push_back(time);
        gst::PadProbeReturn::Ok
    });
    pad("src").add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let time = times.lock().unwrap_or_else(PoisonError::into_inner).pop_front().flatten();
        let segment = pad.sticky_event::<gst::event::Segment>(0).map(|event| event.segment().clone());
        let segment = segment.and_then(|segment| segment.downcast::<gst::ClockTime>().ok());
        let position = segment.map_or(time, |segment| segment.position_from_running_time(time));
        if let Some(buffer) = info.buffer_mut() {
            let buffer = buffer.make_mut();
            buffer.set_pts(position);
            buffer.set_dts(position);
        }
        gst::PadProbeReturn::Ok
    });
}
