//! RTP's marker bit on every slice of H.264, as some cameras and proxies set it, instead of on every picture.

use gst::prelude::*;

/// The byte with the marker bit, its bit, and where the payload begins (no CSRC, no extension).
const MARKER_AT: usize = 1;
const MARKER: u8 = 0x80;
const PAYLOAD_AT: usize = 12;

/// Makes the payloader whose source pad this is mark the last packet of every slice.
pub(super) fn mark_slices(pad: &gst::Pad) {
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    pad.add_probe(mask, |_, info| {
        match &mut info.data {
            Some(gst::PadProbeData::Buffer(packet)) => mark(packet.make_mut()),
            Some(gst::PadProbeData::BufferList(packets)) => {
                let packets = packets.make_mut();
                (0..packets.len()).for_each(|index| packets.get_mut(index).into_iter().for_each(mark));
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

fn mark(packet: &mut gst::BufferRef) {
    if let Ok(mut bytes) = packet.map_writable()
        && bytes.get(PAYLOAD_AT..).is_some_and(ends_slice)
    {
        bytes[MARKER_AT] |= MARKER;
    }
}

/// Whether this payload (RFC 6184) is a slice, or the last fragment of one.
fn ends_slice(payload: &[u8]) -> bool {
    let is_slice = |byte: u8| matches!(byte & 0x1f, 1 | 5);
    match payload {
        [unit, header, ..] if unit & 0x1f == 28 => header & 0x40 != 0 && is_slice(*header),
        [unit, ..] => is_slice(*unit),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_slices_are_known_and_parameter_sets_and_middles_are_not() {
        let ends = [&[0x65, 1][..], &[0x41], &[0x7c, 0x45], &[0x5c, 0x41]];
        assert!(ends.into_iter().all(ends_slice));
        let others = [&[0x67, 1][..], &[0x68], &[0x06], &[0x7c, 0x85], &[0x7c, 0x05], &[0x78, 0], &[]];
        assert!(!others.into_iter().any(ends_slice));
    }
}
