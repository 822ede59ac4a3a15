//! JPEG over RTP at any size: the packet header of RFC 2435 counts in units of 8 pixels, at most 2040.
//!
//! For other sizes the header says 0x0 and the session description has `a=x-dimensions:WIDTH,HEIGHT`, as cameras do
//! for pictures above 2040. The payloader does so above 2040 only, so this does the rest on its source pad.

use gst::prelude::*;

use super::config::Size;

/// Where width / 8 and height / 8 are in a packet: after 12 bytes of RTP (no CSRC, no extension) and 6 of JPEG.
const SIZE_AT: std::ops::Range<usize> = 18..20;

/// Whether the packet header can say this size.
pub(super) fn fits_header(size: Size) -> bool {
    size.width.is_multiple_of(8) && size.height.is_multiple_of(8) && size.width.max(size.height) <= 2040
}

/// Makes the payloader whose source pad this is state `size` exactly.
pub(super) fn state_size(pad: &gst::Pad, size: Size) {
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |_, info| {
        match &mut info.data {
            Some(gst::PadProbeData::Buffer(packet)) => blank_size(packet.make_mut()),
            Some(gst::PadProbeData::BufferList(packets)) => {
                let packets = packets.make_mut();
                (0..packets.len()).for_each(|index| packets.get_mut(index).into_iter().for_each(blank_size));
            }
            Some(gst::PadProbeData::Event(event)) => {
                if let gst::EventView::Caps(caps) = event.view() {
                    let mut caps = caps.caps_owned();
                    let dimensions = format!("{},{}", size.width, size.height);
                    caps.make_mut().set("x-dimensions", dimensions);
                    *event = gst::event::Caps::new(&caps);
                }
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

fn blank_size(packet: &mut gst::BufferRef) {
    if let Ok(mut bytes) = packet.map_writable()
        && let Some(size) = bytes.get_mut(SIZE_AT)
    {
        size.fill(0);
    }
}
