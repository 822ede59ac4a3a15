//! When packets arrive: fixed tables from a picture's PTS to what was known of it upstream, and the clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering, fence};
use std::time::{SystemTime, UNIX_EPOCH};

use atomic_refcell::AtomicRefCell;
use gst::prelude::*;

use super::report::Reporter;
use crate::source::{Progress, SourceEvent};

/// Nanoseconds of CLOCK_MONOTONIC; GStreamer must be initialised.
pub(super) fn mono_ns() -> i64 {
    i64::try_from(gst::get_timestamp().nseconds()).unwrap_or(i64::MAX)
}

/// Nanoseconds since 1970; negative before.
pub(super) fn real_ns() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}

/// Pictures a table remembers: 10 s at 25 fps, far more than any decoder holds back.
const ROWS: usize = 256;

/// What one thread knew of the newest pictures, by PTS, for others; nobody ever waits or allocates.
///
/// Only one thread may write. A reader that meets a row while it is written looks again a few times, and then knows that
/// it does not know.
pub(super) struct PtsTable<const WORDS: usize> {
    rows: Box<[Row<WORDS>]>,
    /// Rows written so far; the newest one is the one before.
    written: AtomicU64,
}

struct Row<const WORDS: usize> {
    /// Odd while the row is written.
    version: AtomicU64,
    pts: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// PTS of a row that holds nothing (`GST_CLOCK_TIME_NONE`).
const EMPTY: u64 = u64::MAX;

impl<const WORDS: usize> PtsTable<WORDS> {
    pub(super) fn new() -> Self {
        let row = || Row {
            version: AtomicU64::new(0),
            pts: AtomicU64::new(EMPTY),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Self { rows: (0..ROWS).map(|_| row()).collect(), written: AtomicU64::new(0) }
    }

    fn row(&self, number: u64) -> &Row<WORDS> {
        &self.rows[(number % ROWS as u64) as usize]
    }

    /// Remembers `words` for `pts`; the newest picture's row is overwritten in place, so that its last packet counts.
    pub(super) fn put(&self, pts: u64, words: [u64; WORDS]) {
        let written = self.written.load(Ordering::Relaxed);
        let again = written > 0 && self.row(written - 1).pts.load(Ordering::Relaxed) == pts;
        let number = if again { written - 1 } else { written };
        let row = self.row(number);
        let version = row.version.load(Ordering::Relaxed);
        row.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Pairs with the Acquire fence in `get`: whoever sees one of the stores below sees the odd version.
        fence(Ordering::Release);
        row.pts.store(pts, Ordering::Relaxed);
        row.words.iter().zip(words).for_each(|(cell, word)| cell.store(word, Ordering::Relaxed));
        // Pairs with the Acquire load in `get`: whoever sees the even version sees the row.
        row.version.store(version.wrapping_add(2), Ordering::Release);
        self.written.store(number + 1, Ordering::Release);
    }

    /// What is remembered for `pts`, if it is among the newest rows and can be read now.
    pub(super) fn get(&self, pts: u64) -> Option<[u64; WORDS]> {
        match self.look_up(pts) {
            Found::Words(words) => Some(words),
            Found::Nothing | Found::Busy => None,
        }
    }

    /// What is remembered for `pts`, or that a row is being written that may be its.
    fn look_up(&self, pts: u64) -> Found<WORDS> {
        let written = self.written.load(Ordering::Acquire);
        let mut busy = false;
        for number in (written.saturating_sub(ROWS as u64)..written).rev() {
            match self.read(self.row(number), pts) {
                Found::Words(words) => return Found::Words(words),
                Found::Busy => busy = true,
                Found::Nothing => {}
            }
        }
        if busy { Found::Busy } else { Found::Nothing }
    }

    fn read(&self, row: &Row<WORDS>, pts: u64) -> Found<WORDS> {
        for _ in 0..LOOKS {
            let version = row.version.load(Ordering::Acquire);
            if version & 1 == 0 {
                let is_its = row.pts.load(Ordering::Relaxed) == pts;
                let words = std::array::from_fn(|word| row.words[word].load(Ordering::Relaxed));
                fence(Ordering::Acquire);
                if row.version.load(Ordering::Relaxed) == version {
                    return if is_its { Found::Words(words) } else { Found::Nothing };
                }
            }
            std::hint::spin_loop();
        }
        Found::Busy
    }
}

/// What a look into a table found.
enum Found<const WORDS: usize> {
    Words([u64; WORDS]),
    Nothing,
    /// A row is being written that may be the one, by a thread that the kernel has stopped in the middle of it.
    Busy,
}

/// So often a row is looked at that is being written, which takes a few nanoseconds.
const LOOKS: u32 = 100;

/// Arrival of a picture's last packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Arrival {
    pub mono_ns: i64,
    pub real_ns: i64,
    pub rtp_timestamp: u32,
    /// Packets are missing inside the picture, or may be.
    pub torn: bool,
    /// Gaps in the sequence numbers up to here, since the session began.
    pub gaps: u64,
    /// Slices that have begun to come; 0 where that is not known.
    pub slices: u32,
}

/// What the packets say of a picture's wholeness.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Wholeness {
    /// As in [`Arrival`]; also where it cannot be told at this moment.
    pub torn: bool,
    /// As in [`Arrival`]; `None`: not known.
    pub gaps: Option<u64>,
    /// As in [`Arrival`].
    pub slices: u32,
}

/// Arrivals by PTS.
pub(super) struct Arrivals {
    table: PtsTable<6>,
    /// Slices of the picture that had the fewest; for all sessions with a camera.
    fewest: Arc<FewestSlices>,
    /// When the newest packet of a keyframe came; 0 = none yet.
    keyframe_ns: AtomicI64,
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self::knowing(Arc::default())
    }

    /// With what the sessions before have found out.
    pub(super) fn knowing(fewest: Arc<FewestSlices>) -> Self {
        Self { table: PtsTable::new(), fewest, keyframe_ns: AtomicI64::new(0) }
    }

    /// Whether the picture with this PTS may be the first part of one, whose other parts are still on their way: fewer
    /// slices of it have come than any whole picture of this camera had, or none is known to have been whole.
    pub(super) fn may_be_a_part(&self, pts: u64) -> bool {
        match self.wholeness(pts) {
            Wholeness { torn: true, .. } => false,
            Wholeness { slices, .. } => slices < self.fewest.0.load(Ordering::Relaxed),
        }
    }

    /// When the newest packet of a keyframe came, whether or not the others did; 0 = none yet, or the codec does not
    /// tell.
    pub(super) fn keyframe_ns(&self) -> i64 {
        self.keyframe_ns.load(Ordering::Relaxed)
    }

    pub(super) fn put(&self, pts: u64, arrival: Arrival) {
        let rtp = u64::from(arrival.rtp_timestamp);
        let (mono, real) = (arrival.mono_ns as u64, arrival.real_ns as u64);
        self.table.put(pts, [mono, real, rtp, u64::from(arrival.torn), arrival.gaps, u64::from(arrival.slices)]);
    }

    pub(super) fn get(&self, pts: u64) -> Option<Arrival> {
        let [mono, real, rtp, torn, gaps, slices] = self.table.get(pts)?;
        let (mono_ns, real_ns) = (mono as i64, real as i64);
        Some(Arrival { mono_ns, real_ns, rtp_timestamp: rtp as u32, torn: torn != 0, gaps, slices: slices as u32 })
    }

    /// Whether the picture with this PTS is whole; one that cannot be looked up at this moment is taken for torn.
    pub(super) fn wholeness(&self, pts: u64) -> Wholeness {
        match self.table.look_up(pts) {
            Found::Words([_, _, _, torn, gaps, slices]) => {
                Wholeness { torn: torn != 0, gaps: Some(gaps), slices: slices as u32 }
            }
            Found::Nothing => Wholeness::default(),
            Found::Busy => Wholeness { torn: true, ..Wholeness::default() },
        }
    }
}

/// Slices of the picture that had the fewest, of those that came without a gap, and whose end the next picture's RTP
/// time has shown.
#[derive(Debug)]
pub(super) struct FewestSlices(AtomicU32);

impl Default for FewestSlices {
    /// No picture yet.
    fn default() -> Self {
        Self(AtomicU32::new(u32::MAX))
    }
}

/// The start of an RTP packet, as far as it matters here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Packet {
    pub sequence: u16,
    pub timestamp: u32,
    /// Says that the picture ends with this packet.
    pub marker: bool,
    /// The first bytes of the payload; zeros where it is shorter or behind an unusually long header.
    pub payload: [u8; 4],
    /// Slices that begin in it.
    slices: u32,
}

/// Bytes read of each packet: the longest fixed header (15 sources) and a little more.
const LOOK: usize = 12 + 15 * 4 + 16;

impl Packet {
    pub(super) fn of(buffer: &gst::BufferRef, start: PictureStart) -> Option<Self> {
        let mut bytes = [0; LOOK];
        let len = buffer.size().min(LOOK);
        buffer.copy_to_slice(0, &mut bytes[..len]).ok()?;
        if len < 12 || bytes[0] >> 6 != 2 {
            return None;
        }
        let fixed = 12 + usize::from(bytes[0] & 0x0f) * 4;
        let extension = match bytes[0] & 0x10 {
            0 => 0,
            _ => 4 + usize::from(u16::from_be_bytes([bytes[fixed + 2], bytes[fixed + 3]])) * 4,
        };
        let payload = bytes.get(fixed + extension..).and_then(|payload| payload.first_chunk());
        let payload = payload.copied().unwrap_or([0; 4]);
        Some(Self {
            sequence: u16::from_be_bytes([bytes[2], bytes[3]]),
            timestamp: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            marker: bytes[1] & 0x80 != 0,
            payload,
            slices: start.slices(payload, buffer, fixed + extension),
        })
    }
}

/// How to see that a packet is the first one of a picture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PictureStart {
    /// RFC 6184.
    H264,
    /// RFC 7798.
    H265,
    /// The depayloader drops torn pictures itself.
    Any,
}

impl PictureStart {
    fn is_start(self, payload: [u8; 4]) -> bool {
        // The first bit of a slice header says that the slice is the picture's first one.
        let first = |byte: u8| byte & 0x80 != 0;
        match self {
            Self::Any => true,
            Self::H264 => match payload[0] & 0x1f {
                1..=5 => first(payload[1]),
                6..=9 => true,
                // Aggregated: the first unit decides, behind its two bytes of length.
                24 => matches!(payload[3] & 0x1f, 6..=9),
                28 => payload[1] & 0x80 != 0 && first(payload[2]),
                _ => false,
            },
            Self::H265 => match payload[0] >> 1 & 0x3f {
                0..=31 => first(payload[2]),
                32..=35 | 39 => true,
                49 => payload[2] & 0x80 != 0 && first(payload[3]),
                _ => false,
            },
        }
    }
}

impl PictureStart {
    /// Whether a packet holds a part of a keyframe; `false` where that is not known. Parameter sets are none: streams
    /// without keyframes repeat them, too.
    fn is_keyframe(self, payload: [u8; 4]) -> bool {
        match self {
            Self::Any => false,
            Self::H264 => match payload[0] & 0x1f {
                28 => payload[1] & 0x1f == 5,
                kind => kind == 5,
            },
            Self::H265 => match payload[0] >> 1 & 0x3f {
                49 => matches!(payload[2] & 0x3f, 16..=23),
                kind => matches!(kind, 16..=23),
            },
        }
    }

    /// How many slices begin in a packet whose payload, which begins with these bytes, is at `at` of `buffer`.
    fn slices(self, payload: [u8; 4], buffer: &gst::BufferRef, at: usize) -> u32 {
        // Bytes of a unit's header, and whether the packet holds several units.
        let (header, aggregate) = match self {
            Self::Any => return 0,
            Self::H264 => (1, payload[0] & 0x1f == 24),
            Self::H265 => (2, payload[0] >> 1 & 0x3f == 48),
        };
        if !aggregate {
            return u32::from(self.is_slice(payload));
        }
        let Ok(bytes) = buffer.map_readable() else { return 0 };
        let (mut rest, mut slices) = (bytes.get(at + header..).unwrap_or_default(), 0);
        while let [high, low, unit, ..] = rest {
            slices += u32::from(self.is_slice([*unit, 0, 0, 0]));
            rest = rest.get(2 + usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default();
        }
        slices
    }

    /// Whether a slice begins with these bytes: those of a unit, or of a fragment of one.
    fn is_slice(self, payload: [u8; 4]) -> bool {
        match self {
            Self::Any => false,
            Self::H264 => match payload[0] & 0x1f {
                28 => payload[1] & 0x80 != 0 && matches!(payload[1] & 0x1f, 1..=5),
                kind => matches!(kind, 1..=5),
            },
            Self::H265 => match payload[0] >> 1 & 0x3f {
                49 => payload[2] & 0x80 != 0 && payload[2] & 0x3f <= 31,
                kind => kind <= 31,
            },
        }
    }

    /// Whether a packet begins a slice that is not its picture's first one; `false` where that is not known.
    pub(super) fn is_later_slice(self, payload: [u8; 4]) -> bool {
        let later = |byte: u8| byte & 0x80 == 0;
        match self {
            Self::Any => false,
            Self::H264 => match payload[0] & 0x1f {
                1..=5 => later(payload[1]),
                28 => payload[1] & 0x80 != 0 && matches!(payload[1] & 0x1f, 1..=5) && later(payload[2]),
                _ => false,
            },
            Self::H265 => match payload[0] >> 1 & 0x3f {
                0..=31 => later(payload[2]),
                49 => payload[2] & 0x80 != 0 && payload[2] & 0x3f <= 31 && later(payload[3]),
                _ => false,
            },
        }
    }
}

/// Who says where a picture ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ends {
    /// The marker bit, which is not to be believed where it cuts a picture in two.
    Marker,
    /// The marker bit by the operator's word, or the parser.
    Settled,
}

/// Follows the sequence numbers and says which pictures lack packets.
#[derive(Debug)]
struct Order {
    start: PictureStart,
    ends: Ends,
    /// Sequence number and marker of the packet before.
    before: Option<(u16, bool)>,
    /// RTP time of the packet before.
    time: u32,
    /// RTP time of a torn picture.
    torn: Option<u32>,
    /// Slices of the picture so far; `None` where a gap is in it.
    slices: Option<u32>,
}

/// What one packet says of its picture and of the one before.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Findings {
    /// Packets missing in front of it.
    lost: u16,
    /// The sequence numbers have a gap in front of it, also one that is too large for a loss.
    gap: bool,
    /// Its picture lacks packets, or may.
    torn: bool,
    /// The picture before it lacks its end, or may.
    cut: bool,
    /// It follows the packet before without a gap, inside one picture.
    continues: bool,
    /// It goes on with a picture that a marker has ended: what was taken for the picture is its first part.
    split: bool,
    /// It has another RTP time than the packet before.
    new_time: bool,
    /// Slices of its picture so far; 0 where that is not known.
    slices: u32,
    /// Slices of the picture before, which was whole and ends here.
    ended: Option<u32>,
}

/// A step in sequence numbers above this is a new stream, not a loss.
const LARGEST_GAP: u16 = 3000;

impl Order {
    fn new(start: PictureStart, ends: Ends) -> Self {
        Self { start, ends, before: None, time: 0, torn: None, slices: None }
    }

    fn look(&mut self, packet: &Packet) -> Findings {
        let before = self.before.replace((packet.sequence, packet.marker));
        let same_time = std::mem::replace(&mut self.time, packet.timestamp) == packet.timestamp;
        let gap = before.map_or(0, |(sequence, _)| packet.sequence.wrapping_sub(sequence.wrapping_add(1)));
        // A session may begin in the middle of a picture, too.
        if (gap != 0 || before.is_none()) && !self.start.is_start(packet.payload) {
            self.torn = Some(packet.timestamp);
        }
        let split = self.ends == Ends::Marker
            && (gap == 0 && same_time && before.is_some_and(|(_, marker)| marker))
            && self.start.is_later_slice(packet.payload);
        if split {
            self.torn = Some(packet.timestamp);
        }
        let ended = self.count_slices(packet, gap == 0 && before.is_some(), same_time);
        Findings {
            slices: self.slices.unwrap_or(0),
            ended,
            split,
            lost: if gap <= LARGEST_GAP { gap } else { 0 },
            gap: gap != 0,
            torn: self.torn == Some(packet.timestamp),
            cut: gap != 0 && before.is_some_and(|(_, marker)| !marker),
            // Whatever the markers say: some cameras mark every slice.
            continues: gap == 0 && same_time && before.is_some(),
            new_time: !same_time && before.is_some(),
        }
    }

    /// Counts the slices of a picture; those of the one before, where it is known to have ended whole.
    fn count_slices(&mut self, packet: &Packet, follows: bool, same_time: bool) -> Option<u32> {
        let slice = packet.slices;
        let before = self.slices.filter(|_| follows);
        self.slices = match (follows, same_time) {
            (true, true) => before.map(|slices| slices + slice),
            (true, false) => Some(slice),
            (false, true) => None,
            (false, false) => self.start.is_start(packet.payload).then_some(slice),
        };
        before.filter(|slices| !same_time && *slices > 0)
    }
}

/// Counts the packets in front of the depayloader, which the jitter buffer has put in order.
pub(super) struct PacketCounter {
    arrivals: Arc<Arrivals>,
    progress: Arc<Progress>,
    reporter: Arc<Reporter>,
    start: PictureStart,
    /// Only the streaming thread touches it.
    seen: AtomicRefCell<Seen>,
    /// RTP time of the newest packet.
    newest: Arc<AtomicU32>,
}

/// What is remembered from packet to packet.
struct Seen {
    order: Order,
    /// PTS and arrival of the packet before.
    before: Option<(u64, Arrival)>,
    /// PTS of the newest torn picture. Late pictures may share one PTS: then all of them count as torn.
    torn_pts: Option<u64>,
    gaps: u64,
    /// PTS that the packet before came with, and what was added to it.
    given: (Option<u64>, u64),
}

impl Seen {
    fn new(start: PictureStart, ends: Ends) -> Self {
        Self { order: Order::new(start, ends), before: None, torn_pts: None, gaps: 0, given: (None, 0) }
    }

    /// The PTS to go on with. Pictures that are late together, as after a stall, get one time from the jitter buffer; a
    /// nanosecond apart, everybody behind can tell them from each other.
    fn apart(&mut self, pts: u64, new_time: bool) -> u64 {
        let (before, added) = self.given;
        let added = if before == Some(pts) { added + u64::from(new_time) } else { 0 };
        self.given = (Some(pts), added);
        pts.saturating_add(added)
    }
}

impl PacketCounter {
    pub(super) fn new(
        arrivals: Arc<Arrivals>,
        progress: Arc<Progress>,
        reporter: Arc<Reporter>,
        start: PictureStart,
        ends: Ends,
    ) -> Self {
        let seen = AtomicRefCell::new(Seen::new(start, ends));
        Self { arrivals, progress, reporter, start, seen, newest: Arc::default() }
    }

    /// RTP time of the newest packet, for those behind it on the same streaming thread.
    pub(super) fn newest(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.newest)
    }

    /// Counts every packet that passes `pad`.
    pub(super) fn watch(self, pad: &gst::Pad) {
        let probed = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(probed, move |_, info| {
            if let Some(gst::PadProbeData::Event(event)) = &info.data {
                if event.type_() == gst::EventType::Eos {
                    self.end();
                }
                return gst::PadProbeReturn::Ok;
            }
            let (mono_ns, real_ns) = (mono_ns(), real_ns());
            let look = |buffer: &mut gst::Buffer| {
                let Noted { continues, pts } = self.count(buffer, mono_ns, real_ns);
                if continues {
                    keep_together(buffer);
                }
                if let Some(pts) = pts.map(gst::ClockTime::from_nseconds).filter(|pts| buffer.pts() != Some(*pts)) {
                    buffer.make_mut().set_pts(pts);
                }
            };
            match &mut info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => look(buffer),
                Some(gst::PadProbeData::BufferList(list)) => list.make_mut().foreach_mut(|mut buffer, _| {
                    look(&mut buffer);
                    std::ops::ControlFlow::Continue(Some(buffer))
                }),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// The stream ends: a depayloader lets go of the picture it is collecting, whose last packets never came.
    fn end(&self) {
        let Ok(seen) = self.seen.try_borrow_mut() else { return };
        if let (Some((_, false)), Some((pts, arrival))) = (seen.order.before, seen.before) {
            self.arrivals.put(pts, Arrival { torn: true, ..arrival });
        }
    }

    fn count(&self, buffer: &gst::BufferRef, mono_ns: i64, real_ns: i64) -> Noted {
        if self.progress.packets.fetch_add(1, Ordering::Relaxed) == 0 {
            self.reporter.event(SourceEvent::FirstPacket);
        }
        self.progress.last_packet_mono_ns.store(mono_ns, Ordering::Relaxed);
        let Some(packet) = Packet::of(buffer, self.start) else { return Noted::default() };
        self.newest.store(packet.timestamp, Ordering::Relaxed);
        if self.start.is_keyframe(packet.payload) {
            self.arrivals.keyframe_ns.store(mono_ns, Ordering::Relaxed);
        }
        let arrival = Arrival { mono_ns, real_ns, rtp_timestamp: packet.timestamp, torn: false, gaps: 0, slices: 0 };
        self.note(&packet, buffer.pts().map(gst::ClockTime::nseconds), arrival)
    }

    /// Remembers when the packet's picture came and whether it is whole, and corrects the picture before.
    fn note(&self, packet: &Packet, pts: Option<u64>, arrival: Arrival) -> Noted {
        let Ok(mut seen) = self.seen.try_borrow_mut() else { return Noted::default() };
        let Findings { lost, gap, torn, cut, continues, split, new_time, slices, ended } = seen.order.look(packet);
        if let Some(slices) = ended {
            self.arrivals.fewest.0.fetch_min(slices, Ordering::Relaxed);
        }
        seen.gaps += u64::from(gap);
        self.progress.packets_lost.fetch_add(u64::from(lost), Ordering::Relaxed);
        if let Some((pts, arrival)) = seen.before.filter(|_| cut || split) {
            // Cut: without its marker the depayloader still holds it, the gate has not judged it yet. Split: its first
            // part is with the decoder, and whoever gets the picture from there looks here again.
            seen.torn_pts = Some(pts);
            self.arrivals.put(pts, Arrival { torn: true, ..arrival });
        }
        let Some(pts) = pts.map(|pts| seen.apart(pts, new_time)) else { return Noted { continues, pts } };
        // A gap between two packets of one time may be between two pictures, and the row cannot tell which.
        if torn || (gap && seen.before.is_some_and(|(before, _)| before == pts)) {
            seen.torn_pts = Some(pts);
        }
        let arrival = Arrival { torn: seen.torn_pts == Some(pts), gaps: seen.gaps, slices, ..arrival };
        self.arrivals.put(pts, arrival);
        seen.before = Some((pts, arrival));
        Noted { continues, pts: Some(pts) }
    }
}

/// What to do with a packet that was looked at.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Noted {
    /// It follows the one before without a gap, inside one picture.
    continues: bool,
    /// The PTS to go on with.
    pts: Option<u64>,
}

/// Takes the flag DISCONT off a packet that follows the one before without a gap, inside one picture.
///
/// rtspsrc flags the first packet after the answer to PLAY, and the server may have sent the picture's first packets
/// before that answer. The depayloader would throw away the slice it is collecting, and no number would be missing.
fn keep_together(buffer: &mut gst::Buffer) {
    if buffer.flags().contains(gst::BufferFlags::DISCONT) {
        buffer.make_mut().unset_flags(gst::BufferFlags::DISCONT);
    }
}

/// Counts the packets of H.264 that pass `pad`, for tests of what is behind it.
#[cfg(test)]
pub(super) fn watch_packets(pad: &gst::Pad, arrivals: Arc<Arrivals>) {
    let (events, _receiver) = crossbeam_channel::bounded(4);
    let reporter = Arc::new(Reporter::new(events, vec![]));
    PacketCounter::new(arrivals, Arc::default(), reporter, PictureStart::H264, Ends::Settled).watch(pad);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_finds_the_newest_pictures_and_forgets_the_oldest() {
        let table = PtsTable::<1>::new();
        assert_eq!(table.get(0), None);
        (0..1000).for_each(|pts| table.put(pts, [pts * 7]));
        assert_eq!(table.get(999), Some([6993]));
        assert_eq!(table.get(1000 - ROWS as u64), Some([(1000 - ROWS as u64) * 7]));
        assert_eq!(table.get(999 - ROWS as u64), None);
        assert_eq!(table.get(EMPTY), None);
    }

    #[test]
    fn the_last_packet_of_a_picture_counts() {
        let arrivals = Arrivals::new();
        let arrival =
            |mono_ns| Arrival { mono_ns, real_ns: -5, rtp_timestamp: u32::MAX, torn: mono_ns == 4, gaps: 7, slices: 2 };
        (1..=4).for_each(|packet| arrivals.put(40, arrival(packet)));
        arrivals.put(80, arrival(5));
        assert_eq!(arrivals.get(40), Some(arrival(4)));
        assert_eq!(arrivals.wholeness(40), Wholeness { torn: true, gaps: Some(7), slices: 2 });
        assert_eq!(arrivals.wholeness(41), Wholeness::default());
        assert_eq!(arrivals.table.written.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_reader_never_sees_half_a_row() {
        let table = PtsTable::<3>::new();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..200_000u64).for_each(|pts| table.put(pts / 3, [pts, pts ^ 0xff, !pts])));
            scope.spawn(|| {
                for pts in (0..200_000u64).map(|pts| pts / 3) {
                    if let Some([a, b, c]) = table.get(pts) {
                        assert!(a / 3 == pts && b == a ^ 0xff && c == !a, "{pts}: {a} {b} {c}");
                    }
                }
            });
        });
    }

    #[test]
    fn a_picture_whose_row_is_being_written_is_not_taken_for_whole() {
        let arrivals = Arrivals::new();
        arrivals.put(40, Arrival { mono_ns: 1, real_ns: 1, rtp_timestamp: 1, torn: true, gaps: 0, slices: 1 });
        // The thread that writes it is stopped in the middle.
        arrivals.table.row(0).version.fetch_add(1, Ordering::Relaxed);
        assert_eq!((arrivals.get(40), arrivals.wholeness(40).torn), (None, true));
        arrivals.table.row(0).version.fetch_add(1, Ordering::Relaxed);
        assert_eq!(arrivals.wholeness(40), Wholeness { torn: true, gaps: Some(0), slices: 1 });
    }

    fn packet(sequence: u16, timestamp: u32, payload: [u8; 4]) -> Packet {
        Packet { sequence, timestamp, marker: false, payload, slices: u32::from(PictureStart::H264.is_slice(payload)) }
    }

    /// FU-A of an IDR slice: first fragment of the first slice, and a later one.
    const FIRST: [u8; 4] = [0x7c, 0x85, 0x88, 0x84];
    const LATER: [u8; 4] = [0x7c, 0x05, 0x88, 0x84];

    #[test]
    fn a_marker_inside_a_picture_splits_it_unless_markers_are_settled() {
        /// A later slice of its own packet, and the end of the first slice.
        const LATER_SLICE: [u8; 4] = [0x7c, 0x85, 0x08, 0x84];
        const PARAMETERS: [u8; 4] = [0x67, 0x42, 0xc0, 0x1f];
        let look = |ends, second: [u8; 4], time| {
            let mut order = Order::new(PictureStart::H264, ends);
            order.look(&Packet { marker: true, ..packet(1, 10, FIRST) });
            order.look(&Packet { marker: true, ..packet(2, time, second) })
        };
        let split = look(Ends::Marker, LATER_SLICE, 10);
        assert!(split.split && split.torn, "{split:?}");
        for whole in [
            look(Ends::Settled, LATER_SLICE, 10),
            look(Ends::Marker, LATER_SLICE, 20),
            look(Ends::Marker, FIRST, 10),
            look(Ends::Marker, PARAMETERS, 10),
        ] {
            assert!(!whole.split && !whole.torn, "{whole:?}");
        }
    }

    #[test]
    fn lost_packets_are_counted_across_the_wrap_and_restarts_are_not() {
        let mut order = Order::new(PictureStart::Any, Ends::Marker);
        let lost = [65530, 65531, 65535, 0, 1, 40000, 40001].map(|sequence| {
            let findings = order.look(&packet(sequence, 1, [0; 4]));
            assert!(!findings.torn);
            findings.lost
        });
        assert_eq!(lost, [0, 0, 3, 0, 0, 0, 0]);
    }

    #[test]
    fn a_gap_inside_a_picture_tears_it_and_one_before_its_first_slice_does_not() {
        let mut order = Order::new(PictureStart::H264, Ends::Marker);
        let mut torn = |sequence, timestamp, payload| order.look(&packet(sequence, timestamp, payload)).torn;
        assert_eq!([torn(1, 10, FIRST), torn(2, 10, LATER)], [false, false]);
        assert_eq!([torn(4, 10, LATER), torn(5, 10, LATER)], [true, true]);
        assert_eq!([torn(7, 20, FIRST), torn(8, 20, LATER)], [false, false]);
        assert_eq!([torn(10, 30, LATER), torn(11, 30, FIRST), torn(12, 40, FIRST)], [true, true, false]);
    }

    #[test]
    fn a_session_that_begins_inside_a_picture_begins_with_a_torn_one() {
        let torn = |payload| Order::new(PictureStart::H264, Ends::Marker).look(&packet(9, 10, payload)).torn;
        assert_eq!([torn(LATER), torn(FIRST), torn([0x67, 0x64, 0, 0])], [true, false, false]);
        let mut order = Order::new(PictureStart::H264, Ends::Marker);
        let mut torn = |sequence, timestamp, payload| order.look(&packet(sequence, timestamp, payload)).torn;
        assert_eq!([torn(1, 10, LATER), torn(2, 10, LATER), torn(3, 20, FIRST)], [true, true, false]);
    }

    #[test]
    fn a_gap_after_a_picture_without_its_marker_cuts_that_picture() {
        let mut order = Order::new(PictureStart::H264, Ends::Marker);
        let mut cut =
            |sequence, timestamp, marker| order.look(&Packet { marker, ..packet(sequence, timestamp, FIRST) }).cut;
        assert_eq!([cut(1, 10, false), cut(2, 10, true), cut(4, 20, false)], [false, false, false]);
        assert_eq!([cut(6, 30, true), cut(7, 40, false), cut(8, 50, false)], [true, false, false]);
    }

    #[test]
    fn a_marked_slice_is_continued_by_the_next_one_of_its_picture() {
        let mut order = Order::new(PictureStart::H264, Ends::Marker);
        let mut continues =
            |sequence, timestamp| order.look(&Packet { marker: true, ..packet(sequence, timestamp, FIRST) }).continues;
        assert_eq!([continues(1, 10), continues(2, 10), continues(3, 20)], [false, true, false]);
        assert_eq!([continues(5, 20), continues(6, 20)], [false, true]);
    }

    fn counter() -> PacketCounter {
        let (events, _receiver) = crossbeam_channel::bounded(4);
        let reporter = Arc::new(Reporter::new(events, vec![]));
        PacketCounter::new(Arc::new(Arrivals::new()), Arc::default(), reporter, PictureStart::H264, Ends::Marker)
    }

    fn note(counter: &PacketCounter, packet: &Packet, pts: u64) -> u64 {
        let arrival =
            Arrival { mono_ns: 1, real_ns: 1, rtp_timestamp: packet.timestamp, torn: false, gaps: 0, slices: 0 };
        counter.note(packet, Some(pts), arrival).pts.expect("a time")
    }

    #[test]
    fn pictures_that_are_late_together_are_told_apart() {
        // After a suspended process they all get the time of the newest one before.
        let counter = counter();
        let packets = [(1, 10, false), (3, 10, true), (4, 20, true), (5, 30, false), (6, 30, true)];
        let times = packets.map(|(sequence, time, marker)| {
            note(&counter, &Packet { marker, ..packet(sequence, time, if marker { LATER } else { FIRST }) }, 40)
        });
        assert_eq!(times, [40, 40, 41, 42, 42]);
        assert_eq!(note(&counter, &packet(7, 40, FIRST), 80), 80);
        let torn = [40, 41, 42, 80].map(|pts| counter.arrivals.wholeness(pts).torn);
        assert_eq!(torn, [true, false, false, false]);
    }

    #[test]
    fn a_whole_picture_does_not_hide_a_torn_one_of_the_same_time() {
        // Two pictures with one RTP time.
        let counter = counter();
        note(&counter, &packet(1, 10, FIRST), 40);
        note(&counter, &Packet { marker: true, ..packet(3, 10, LATER) }, 40);
        note(&counter, &Packet { marker: true, ..packet(4, 10, FIRST) }, 40);
        note(&counter, &Packet { marker: true, ..packet(5, 30, FIRST) }, 80);
        let torn = [40, 80].map(|pts| counter.arrivals.get(pts).expect("remembered").torn);
        assert_eq!(torn, [true, false]);
    }

    #[test]
    fn slices_are_counted_in_packets_of_several_units_too() {
        let slices = |start: PictureStart, payload: &[u8]| {
            let buffer = gst::Buffer::from_slice([&[0; 12], payload].concat());
            start.slices(payload.first_chunk().copied().unwrap_or_default(), &buffer, 12)
        };
        gst::init().expect("GStreamer");
        let h264 = |payload| slices(PictureStart::H264, payload);
        // Delimiter and slice; two slices; a length beyond the end.
        assert_eq!(h264(&[0x18, 0, 2, 9, 0x10, 0, 2, 0x41, 0x9a]), 1);
        assert_eq!(h264(&[0x18, 0, 2, 0x65, 0x88, 0, 2, 0x65, 0x20]), 2);
        assert_eq!(h264(&[0x18, 0xff, 0xff, 0x65, 0x88]), 1);
        assert_eq!([h264(&FIRST), h264(&LATER), h264(&[0x67, 1, 2, 3]), h264(&[])], [1, 0, 0, 0]);
        assert_eq!(slices(PictureStart::H265, &[0x60, 1, 0, 3, 0x46, 1, 0x50, 0, 3, 0x26, 1, 0xaf]), 1);
    }

    #[test]
    fn a_picture_with_fewer_slices_than_any_whole_one_may_be_a_part() {
        let counter = counter();
        let later = [0x41, 0x20, 0, 0];
        let mut sequence = 0;
        let mut note = |time: u32, slices: u16, lost: u16| {
            sequence += lost;
            for slice in 0..slices {
                sequence += 1;
                let payload = if slice == 0 { FIRST } else { later };
                super::tests::note(&counter, &packet(sequence, time, payload), u64::from(time));
            }
            counter.arrivals.may_be_a_part(u64::from(time))
        };
        assert!([note(10, 1, 0), note(10, 1, 0)].iter().all(|doubtful| *doubtful), "none is known to be whole");
        assert!(note(20, 1, 0), "the one before had two");
        assert!(!note(30, 2, 5) && note(40, 1, 0), "the end of the one with one slice was lost");
        assert!(!note(50, 1, 0), "the one before was whole");
    }

    #[test]
    fn every_picture_knows_how_many_gaps_there_were_before_it() {
        let counter = counter();
        note(&counter, &Packet { marker: true, ..packet(1, 10, FIRST) }, 40);
        note(&counter, &Packet { marker: true, ..packet(2, 20, FIRST) }, 80);
        note(&counter, &Packet { marker: true, ..packet(9, 30, FIRST) }, 120);
        let whole = [40, 80, 120].map(|pts| counter.arrivals.wholeness(pts));
        assert_eq!(whole, [0, 0, 1].map(|gaps| Wholeness { torn: false, gaps: Some(gaps), slices: 1 }));
        // Of one time: whichever of them the gap is before, none of them is the picture to go on from.
        note(&counter, &Packet { marker: true, ..packet(11, 30, FIRST) }, 120);
        assert_eq!(counter.arrivals.wholeness(120), Wholeness { torn: true, gaps: Some(2), slices: 0 });
    }

    #[test]
    fn a_picture_that_lacks_its_end_is_torn() {
        let counter = counter();
        note(&counter, &packet(1, 10, FIRST), 40);
        note(&counter, &Packet { marker: true, ..packet(3, 20, FIRST) }, 80);
        let torn = [40, 80].map(|pts| counter.arrivals.get(pts).expect("remembered").torn);
        assert_eq!(torn, [true, false]);
        assert_eq!(counter.progress.packets_lost.load(Ordering::Relaxed), 1);
    }

    /// Bytes of the access units that come out of the depayloader, with every packet flagged as the first of a session.
    fn unit_sizes(encoder: &str, depay: &str, start: PictureStart, flagged: bool) -> Vec<usize> {
        let line = format!(
            "videotestsrc pattern=snow num-buffers=3 ! video/x-raw,width=320,height=240 ! {encoder} mtu=300 \
             ! {depay} name=depay ! appsink name=sink sync=false"
        );
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let packets = pipeline.by_name("depay").unwrap().static_pad("sink").unwrap();
        if flagged {
            packets.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, |_, info| {
                let flag = |buffer: &mut gst::Buffer| buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
                match &mut info.data {
                    Some(gst::PadProbeData::Buffer(buffer)) => flag(buffer),
                    Some(gst::PadProbeData::BufferList(list)) => {
                        list.make_mut().foreach_mut(|mut buffer, _| {
                            flag(&mut buffer);
                            std::ops::ControlFlow::Continue(Some(buffer))
                        });
                    }
                    _ => {}
                }
                gst::PadProbeReturn::Ok
            });
        }
        PacketCounter { start, seen: AtomicRefCell::new(Seen::new(start, Ends::Marker)), ..counter() }.watch(&packets);
        pipeline.set_state(gst::State::Playing).unwrap();
        let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
        let sizes = std::iter::from_fn(|| sink.pull_sample().ok()).map(|sample| sample.buffer().unwrap().size());
        let sizes = sizes.collect();
        pipeline.set_state(gst::State::Null).unwrap();
        sizes
    }

    #[test]
    fn a_session_that_is_flagged_inside_a_picture_loses_nothing_of_it() {
        gst::init().expect("GStreamer");
        // One quantiser for all: what rate control makes of threads differs from run to run.
        let constant = "x264enc tune=zerolatency threads=2 pass=quant quantizer=21 ! rtph264pay";
        let h264 = (constant, "rtph264depay", PictureStart::H264);
        let h265 = ("x265enc tune=zerolatency qp=28 ! rtph265pay", "rtph265depay", PictureStart::H265);
        for (encoder, depay, start) in [h264, h265] {
            let whole = unit_sizes(encoder, depay, start, false);
            assert!(whole.len() >= 3 && whole.iter().all(|size| *size > 1000), "{whole:?}");
            assert_eq!(unit_sizes(encoder, depay, start, true), whole, "{depay}");
        }
    }

    #[test]
    fn the_first_packet_of_a_picture_is_known_in_both_codecs() {
        let h264 = |payload| PictureStart::H264.is_start(payload);
        assert!(h264([0x67, 0x64, 0, 0]) && h264([0x65, 0x88, 0, 0]) && h264([0x78, 0, 20, 0x67]));
        assert!(!h264([0x65, 0x08, 0, 0]) && !h264([0x78, 0, 20, 0x41]) && !h264([0, 0, 0, 0]));
        assert!(!h264([0x7c, 0x85, 0x08, 0]), "the first fragment of a later slice");
        let h265 = |payload| PictureStart::H265.is_start(payload);
        assert!(h265([0x40, 1, 0, 0]) && h265([0x26, 1, 0xaf, 0]) && h265([0x62, 1, 0x93, 0xaf]));
        assert!(!h265([0x26, 1, 0x2f, 0]) && !h265([0x62, 1, 0x13, 0xaf]) && !h265([0x62, 1, 0x93, 0x2f]));
    }

    #[test]
    fn any_packet_of_a_keyframe_is_known_in_both_codecs() {
        let h264 = |payload| PictureStart::H264.is_keyframe(payload);
        assert!(
            h264([0x65, 0x88, 0, 0])
                && h264([0x7c, 0x85, 0, 0])
                && h264([0x7c, 0x05, 0, 0])
                && h264([0x5c, 0x45, 0, 0])
        );
        assert!(
            !h264([0x67, 0x64, 0, 0])
                && !h264([0x41, 0x9a, 0, 0])
                && !h264([0x7c, 0x81, 0, 0])
                && !h264([0x7c, 0x07, 0, 0])
        );
        let h265 = |payload| PictureStart::H265.is_keyframe(payload);
        assert!(
            h265([0x26, 1, 0xaf, 0])
                && h265([0x28, 1, 0xaf, 0])
                && h265([0x62, 1, 0x13, 0])
                && h265([0x62, 1, 0x54, 0])
        );
        assert!(!h265([0x40, 1, 0, 0]) && !h265([0x02, 1, 0xd0, 0]) && !h265([0x62, 1, 0x81, 0]));
        assert!(!PictureStart::Any.is_keyframe([0x65, 0x88, 0, 0]));
    }

    #[test]
    fn rtp_headers_are_read_and_other_bytes_are_not() {
        gst::init().expect("GStreamer");
        let read_packet = |bytes: &[u8]| Packet::of(&gst::Buffer::from_slice(bytes.to_vec()), PictureStart::Any);
        let plain = [0x80, 0xe0, 0x12, 0x34, 0, 1, 0, 2, 9, 9, 9, 9, 1, 2];
        let read = Packet { sequence: 0x1234, timestamp: 65538, marker: true, payload: [1, 2, 0, 0], slices: 0 };
        assert_eq!(read_packet(&plain), Some(read));
        let mut with_source = plain.to_vec();
        with_source[0] = 0x81;
        with_source.splice(12..12, [7, 7, 7, 7]);
        assert_eq!(read_packet(&with_source), Some(read));
        let mut with_extension = plain.to_vec();
        with_extension[0] = 0x90;
        with_extension.splice(12..12, [0xbe, 0xde, 0, 1, 7, 7, 7, 7]);
        assert_eq!(read_packet(&with_extension), Some(read));
        with_extension[14] = 0xff;
        assert_eq!(read_packet(&with_extension), Some(Packet { payload: [0; 4], ..read }));
        assert_eq!(
            read_packet(&[0x8f; 12]),
            Some(Packet { sequence: 0x8f8f, timestamp: 0x8f8f_8f8f, marker: true, payload: [0; 4], slices: 0 })
        );
        assert_eq!((read_packet(&[0x80, 0, 0]), read_packet(&[0; 12]), read_packet(&[])), (None, None, None));
    }
}
