//! What a session shows of its stream besides pictures: packets, access units, caps; for `camring probe` only.
//!
//! Takes a lock for each packet, which nobody else wants meanwhile. A session without a tap pays nothing.

use std::sync::{Mutex, MutexGuard};

use gst::prelude::*;

use super::arrival::{Packet, PictureStart, mono_ns};

/// Pictures and units that are remembered: a minute at 60 a second, and then the first ones are enough.
const KEPT: usize = 4096;

/// One picture as its packets brought it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Arrived {
    /// Its time on the camera's media clock, 90 kHz.
    pub rtp_timestamp: u32,
    /// When its last packet came, ns of CLOCK_MONOTONIC.
    pub arrival_ns: i64,
    /// Bytes of its packets, RTP headers included.
    pub bytes: u32,
    /// Packets that claim to be its last one.
    pub markers: u32,
    /// Slices that begin in it, the first one included; 0 = not known for this codec.
    pub slices: u32,
}

/// One access unit behind the parser, in the order of decoding.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Unit {
    /// Whether it stands for itself.
    pub keyframe: bool,
    /// Its size.
    pub bytes: u32,
}

/// Everything that was heard so far.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Encodings of the audio streams that the camera offers.
    pub audio: Vec<String>,
    /// Whether packets come as datagrams; `None` before the stream begins.
    pub datagrams: Option<bool>,
    /// Whether the camera ends every slice as if it were a picture.
    pub marks_slices: bool,
    /// Words of the caps behind the parser, such as `profile`, `level`, `chroma-format`, `interlace-mode`.
    pub caps: Vec<(String, String)>,
    /// Packets that never came.
    pub lost: u64,
    /// The newest packet's number.
    sequence: Option<u16>,
    /// The pictures, in the order of their packets.
    pub pictures: Vec<Arrived>,
    /// The access units.
    pub units: Vec<Unit>,
}

/// Where a session leaves what it shows.
#[derive(Debug, Default)]
pub struct Tap(Mutex<Heard>);

/// Fields of the caps that are worth a word.
const FIELDS: [&str; 8] =
    ["profile", "level", "tier", "chroma-format", "bit-depth-luma", "interlace-mode", "framerate", "stream-format"];

impl Tap {
    /// What was heard so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A new session begins, which may know more than the one before.
    pub(super) fn begin(&self, marks_slices: bool) {
        *self.lock() = Heard { marks_slices, ..Heard::default() };
    }

    /// The session description offers a stream.
    pub(super) fn offered(&self, media: &str, encoding: &str) {
        let mut heard = self.lock();
        if media == "audio" && !heard.audio.iter().any(|known| known == encoding) {
            heard.audio.push(encoding.to_owned());
        }
    }

    /// Listens at the pads of a stream that begins on `source`, a pad of rtspsrc.
    pub(super) fn listen(self: &std::sync::Arc<Self>, source: &gst::Pad, pads: Pads<'_>) {
        self.lock().datagrams = Some(is_udp(source));
        let (tap, start) = (self.clone(), pads.start);
        let probed = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        pads.packets.add_probe(probed, move |_, info| {
            let now_ns = mono_ns();
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => tap.packet(buffer, start, now_ns),
                Some(gst::PadProbeData::BufferList(list)) => {
                    list.iter().for_each(|buffer| tap.packet(buffer, start, now_ns));
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
        let tap = self.clone();
        pads.units.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => tap.unit(buffer),
                Some(gst::PadProbeData::Event(event)) => {
                    if let gst::EventView::Caps(caps) = event.view() {
                        tap.caps(caps.caps());
                    }
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn packet(&self, buffer: &gst::BufferRef, start: PictureStart, now_ns: i64) {
        let Some(packet) = Packet::of(buffer, start) else { return };
        let mut heard = self.lock();
        let gap = heard.sequence.map_or(0, |before| packet.sequence.wrapping_sub(before.wrapping_add(1)));
        heard.lost += u64::from(if gap < 3000 { gap } else { 0 });
        heard.sequence = Some(packet.sequence);
        let later = u32::from(start.is_later_slice(packet.payload));
        let known = start != PictureStart::Any;
        let bytes = u32::try_from(buffer.size()).unwrap_or(u32::MAX);
        let marker = u32::from(packet.marker);
        let is_full = heard.pictures.len() >= KEPT;
        match heard.pictures.last_mut() {
            Some(picture) if picture.rtp_timestamp == packet.timestamp => {
                picture.arrival_ns = now_ns;
                picture.bytes = picture.bytes.saturating_add(bytes);
                picture.markers += marker;
                picture.slices += later;
            }
            _ if !is_full => heard.pictures.push(Arrived {
                rtp_timestamp: packet.timestamp,
                arrival_ns: now_ns,
                bytes,
                markers: marker,
                slices: u32::from(known) + later,
            }),
            _ => {}
        }
    }

    fn unit(&self, buffer: &gst::BufferRef) {
        let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let mut heard = self.lock();
        if heard.units.len() < KEPT {
            heard.units.push(Unit { keyframe, bytes: u32::try_from(buffer.size()).unwrap_or(u32::MAX) });
        }
    }

    fn caps(&self, caps: &gst::CapsRef) {
        let Some(structure) = caps.structure(0) else { return };
        let word = |name: &str| {
            let value = structure.value(name).ok()?;
            let text = value.get::<String>().ok().or_else(|| {
                let text = value.serialize().ok()?.to_string();
                Some(text.trim_start_matches("(fraction)").trim_start_matches("(uint)").to_owned())
            })?;
            Some((name.to_owned(), text))
        };
        self.lock().caps = FIELDS.into_iter().filter_map(word).collect();
    }
}

/// Where to listen.
pub(super) struct Pads<'a> {
    /// In front of the depayloader.
    pub packets: &'a gst::Pad,
    /// Behind the parser.
    pub units: &'a gst::Pad,
    /// How a picture's first packet is known.
    pub start: PictureStart,
}

/// Whether a stream of rtspsrc comes as datagrams: only then it has sockets of its own.
fn is_udp(source: &gst::Pad) -> bool {
    let Some(bin) = source.parent_element().and_then(|parent| parent.downcast::<gst::Bin>().ok()) else { return false };
    bin.iterate_recurse()
        .into_iter()
        .flatten()
        .any(|element| element.factory().is_some_and(|factory| factory.name() == "udpsrc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(sequence: u16, time: u32, marker: bool, payload: &[u8]) -> gst::Buffer {
        let mut bytes = vec![0x80, 96 | u8::from(marker) << 7];
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(time.to_be_bytes());
        bytes.extend([0, 0, 0, 7]);
        bytes.extend(payload);
        gst::Buffer::from_slice(bytes)
    }

    #[test]
    fn packets_become_pictures_with_their_slices_markers_and_losses() {
        gst::init().expect("GStreamer");
        let tap = Tap::default();
        tap.begin(false);
        // Two slices in the first picture, each marked; then a lost packet and a picture of one.
        for (number, time, payload) in [(1, 0, [0x41, 0x80]), (2, 0, [0x41, 0x40]), (4, 3600, [0x41, 0x80])] {
            tap.packet(&buffer(number, time, true, &payload), PictureStart::H264, i64::from(number));
        }
        let heard = tap.heard();
        assert_eq!((heard.pictures.len(), heard.lost), (2, 1));
        let first = heard.pictures[0];
        assert_eq!((first.slices, first.markers, first.bytes, first.arrival_ns), (2, 2, 28, 2));
        assert_eq!(heard.pictures[1].slices, 1);
        tap.begin(true);
        assert!(tap.heard().marks_slices && tap.heard().pictures.is_empty());
    }

    #[test]
    fn a_short_or_foreign_packet_is_left_out() {
        gst::init().expect("GStreamer");
        let tap = Tap::default();
        tap.packet(&gst::Buffer::from_slice([0x80; 3]), PictureStart::H264, 1);
        assert!(tap.heard().pictures.is_empty());
    }
}
