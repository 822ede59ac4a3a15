//! Joining a stream: what a test's own client leaves out at its beginning.

use std::sync::atomic::{AtomicU32, Ordering};

use gst::prelude::*;

/// Lets the decoder see the stream from the second keyframe on: whoever joins may have missed a part of the first.
pub fn from_the_second_keyframe(decoder: &gst::Element) {
    let keyframes = AtomicU32::new(0);
    let gate = move |_: &gst::Pad, info: &mut gst::PadProbeInfo<'_>| {
        let is_key = info.buffer().is_some_and(|buffer| !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
        if keyframes.fetch_add(u32::from(is_key), Ordering::Relaxed) + u32::from(is_key) >= 2 {
            return gst::PadProbeReturn::Ok;
        }
        // Not `Drop`: the bindings free the buffer before GStreamer 1.22 frees it again.
        info.data = None;
        gst::PadProbeReturn::Handled
    };
    decoder.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, gate);
}
