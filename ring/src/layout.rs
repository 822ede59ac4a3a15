//! The byte layout of a segment (ABI 1): every field, its offset, and what makes a header acceptable.
//!
//! The normative text is docs/segment.md; the assertions below hold the code to it.

use std::fmt;
use std::mem::{offset_of, size_of};

pub use crate::crc::crc32c;
use crate::frame::Generation;

/// First eight bytes of a complete segment.
pub const MAGIC: [u8; 8] = *b"CAMRING1";
/// Tells a reader of the other byte order apart.
pub const ENDIAN_TAG: u32 = 0x0A0B_0C0D;
/// Must match.
pub const ABI_MAJOR: u16 = 1;
/// Only adds.
pub const ABI_MINOR: u16 = 0;
/// Feature bits that a reader must know; none is defined yet.
pub const KNOWN_INCOMPAT: u64 = 0;
/// Bytes of the immutable configuration, CRC included.
pub const CONFIG_BYTES: usize = 0x200;
/// Bytes of the header.
pub const HEADER_BYTES: u32 = 4096;
/// Bytes of one slot header.
pub const SLOT_HEADER_BYTES: u32 = 256;
/// 64-bit words of one slot header.
pub const SLOT_WORDS: usize = SLOT_HEADER_BYTES as usize / 8;
/// Fewest slots: the newest frame, one being written, one spare.
pub const SLOTS_MIN: u32 = 3;
/// Most slots.
pub const SLOTS_MAX: u32 = 256;
/// Alignment of the payload area and of every slot: the largest page size of the supported machines.
pub const PAGE_ALIGN: u64 = 64 * 1024;
/// Alignment of the payload area of large segments, so that huge pages fit.
pub const HUGE_ALIGN: u64 = 2 * 1024 * 1024;
/// Segments of at least so many bytes get [`HUGE_ALIGN`].
pub const HUGE_FROM: u64 = 16 * 1024 * 1024;
/// Where lease lock bytes begin.
pub const LEASE_LOCK_BASE: u64 = 1 << 40;
/// The byte that the living daemon holds a write lock on.
pub const ALIVE_LOCK_OFF: u64 = 1 << 41;
/// Where presence lock bytes begin.
pub const PRESENCE_LOCK_BASE: u64 = 1 << 44;
/// Counters in the header.
pub const COUNTERS: usize = 48;
/// Buckets of a histogram.
pub const BUCKETS: usize = 16;
/// Upper bound of the first histogram bucket; each next one is twice as wide.
pub const BUCKET_FIRST_NS: u64 = 64_000;

/// A histogram in the header: counts per bucket (not cumulative), sum and count of all values.
#[repr(C)]
#[allow(missing_docs)]
pub struct HistogramBlock {
    pub buckets: [u64; BUCKETS],
    pub sum_ns: u64,
    pub count: u64,
}

/// The segment header, as it lies in memory; used for offsets only.
#[repr(C)]
#[allow(missing_docs)]
pub struct SegmentHeader {
    pub magic: [u8; 8],
    pub endian_tag: u32,
    pub abi_major: u16,
    pub abi_minor: u16,
    pub feature_incompat: u64,
    pub feature_compat: u64,
    pub header_bytes: u32,
    pub slot_header_bytes: u32,
    pub slot_count: u32,
    pub lease_policy: u32,
    pub slot_table_off: u64,
    pub data_off: u64,
    pub slot_stride: u64,
    pub slot_capacity: u64,
    pub file_bytes: u64,
    pub lease_lock_base: u64,
    pub alive_lock_off: u64,
    pub presence_lock_base: u64,
    pub ring_uuid: [u8; 16],
    pub boot_id: [u8; 16],
    pub created_real_ns: i64,
    pub owner_uid: u32,
    pub owner_gid: u32,
    pub base_seq: u64,
    pub camera_id: [u8; 64],
    pub segment_name: [u8; 256],
    pub builder: [u8; 16],
    pub stale_after_ms: u32,
    pub header_crc32c: u32,
    // Hot line.
    pub head: u64,
    pub notify: u32,
    pub state_word: u32,
    pub last_publish_mono_ns: u64,
    pub state_since_mono_ns: u64,
    pub wake_mode: u32,
    pub retired: u32,
    pub next_retry_mono_ns: u64,
    pub frame_interval_us: u32,
    pub lease_now: u32,
    pub hot_reserved: u64,
    // Liveness.
    pub heartbeat_mono_ns: u64,
    pub writer_epoch: u32,
    pub writer_pid: u32,
    pub writer_start_ticks: u64,
    pub geometry_epoch: u32,
    pub session_id: u32,
    pub successor_uuid: [u64; 2],
    pub time_ns_ino: u64,
    pub heartbeat_real_ns: u64,
    pub counters: [u64; COUNTERS],
    // Process.
    pub rss_bytes: u64,
    pub rss_anon_bytes: u64,
    pub cpu_user_ns: u64,
    pub cpu_sys_ns: u64,
    pub threads: u32,
    pub open_fds: u32,
    pub process_start_real_ns: u64,
    pub process_reserved: [u64; 2],
    pub decode_to_publish: HistogramBlock,
    pub frame_interval: HistogramBlock,
    pub histogram_reserved: [u64; 4],
    // Text.
    pub text_seq: u64,
    pub decoder: [u8; 32],
    pub codec: [u8; 32],
    pub text_reserved: [u8; 0x38],
    pub reconnects: [u64; 32],
    pub reserved: [u8; 0x900],
}

/// One slot's header, as it lies in memory; used for offsets only, always accessed as 64-bit words.
#[repr(C)]
#[allow(missing_docs)]
pub struct SlotHeader {
    pub stamp: u64,
    pub seq: u64,
    pub width: u32,
    pub height: u32,
    pub pixfmt: u32,
    pub plane_count: u32,
    pub payload_len: u64,
    pub plane_off: [u32; 4],
    pub plane_stride: [u32; 4],
    pub flags: u32,
    pub color: [u8; 4],
    pub geometry_epoch: u32,
    pub writer_epoch: u32,
    pub session_id: u32,
    pub rtp_timestamp: u32,
    pub pts_ns: i64,
    pub duration_ns: i64,
    pub arrival_mono_ns: i64,
    pub arrival_real_ns: i64,
    pub source_unix_ns: i64,
    pub decoded_mono_ns: i64,
    pub publish_mono_ns: i64,
    pub publish_real_ns: i64,
    pub source_seq: u64,
    pub dropped_before: u64,
    pub payload_crc32c: u32,
    pub pixel_aspect: [u16; 2],
    pub gap: u32,
    pub time_source: u8,
    pub source_pixfmt: u8,
    pub rotation: u8,
    pub fit: u8,
    pub source_size: [u32; 2],
    pub scale: [f32; 2],
    pub offset: [f32; 2],
    pub pad_color: [u8; 4],
    pub pad_reserved: u32,
    pub value_scale: f32,
    pub value_offset: f32,
    pub boot_minus_mono_ns: i64,
    pub lag_ns: u64,
    pub reserved: u64,
}

/// Offsets inside the segment header, bytes from the file's start.
pub mod at {
    use super::{SegmentHeader, offset_of};
    macro_rules! offsets { ($($(#[$meta:meta])* $name:ident = $field:ident @ $offset:literal;)+) => {
        $(#[doc = concat!("Offset of `", stringify!($field), "`.")] pub const $name: u64 = offset_of!(SegmentHeader, $field) as u64;
        const _: () = assert!($name == $offset);)+
    } }
    offsets! {
        MAGIC = magic @ 0x000;
        ENDIAN_TAG = endian_tag @ 0x008;
        ABI_MAJOR = abi_major @ 0x00C;
        ABI_MINOR = abi_minor @ 0x00E;
        FEATURE_INCOMPAT = feature_incompat @ 0x010;
        FEATURE_COMPAT = feature_compat @ 0x018;
        HEADER_BYTES = header_bytes @ 0x020;
        SLOT_HEADER_BYTES = slot_header_bytes @ 0x024;
        SLOT_COUNT = slot_count @ 0x028;
        LEASE_POLICY = lease_policy @ 0x02C;
        SLOT_TABLE_OFF = slot_table_off @ 0x030;
        DATA_OFF = data_off @ 0x038;
        SLOT_STRIDE = slot_stride @ 0x040;
        SLOT_CAPACITY = slot_capacity @ 0x048;
        FILE_BYTES = file_bytes @ 0x050;
        LEASE_LOCK_BASE = lease_lock_base @ 0x058;
        ALIVE_LOCK_OFF = alive_lock_off @ 0x060;
        PRESENCE_LOCK_BASE = presence_lock_base @ 0x068;
        RING_UUID = ring_uuid @ 0x070;
        BOOT_ID = boot_id @ 0x080;
        CREATED_REAL_NS = created_real_ns @ 0x090;
        OWNER_UID = owner_uid @ 0x098;
        OWNER_GID = owner_gid @ 0x09C;
        BASE_SEQ = base_seq @ 0x0A0;
        CAMERA_ID = camera_id @ 0x0A8;
        SEGMENT_NAME = segment_name @ 0x0E8;
        BUILDER = builder @ 0x1E8;
        STALE_AFTER_MS = stale_after_ms @ 0x1F8;
        HEADER_CRC32C = header_crc32c @ 0x1FC;
        HEAD = head @ 0x200;
        NOTIFY = notify @ 0x208;
        STATE_WORD = state_word @ 0x20C;
        LAST_PUBLISH_MONO_NS = last_publish_mono_ns @ 0x210;
        STATE_SINCE_MONO_NS = state_since_mono_ns @ 0x218;
        WAKE_MODE = wake_mode @ 0x220;
        RETIRED = retired @ 0x224;
        NEXT_RETRY_MONO_NS = next_retry_mono_ns @ 0x228;
        FRAME_INTERVAL_US = frame_interval_us @ 0x230;
        LEASE_NOW = lease_now @ 0x234;
        HEARTBEAT_MONO_NS = heartbeat_mono_ns @ 0x240;
        WRITER_EPOCH = writer_epoch @ 0x248;
        WRITER_PID = writer_pid @ 0x24C;
        WRITER_START_TICKS = writer_start_ticks @ 0x250;
        GEOMETRY_EPOCH = geometry_epoch @ 0x258;
        SESSION_ID = session_id @ 0x25C;
        SUCCESSOR_UUID = successor_uuid @ 0x260;
        TIME_NS_INO = time_ns_ino @ 0x270;
        HEARTBEAT_REAL_NS = heartbeat_real_ns @ 0x278;
        COUNTERS = counters @ 0x280;
        RSS_BYTES = rss_bytes @ 0x400;
        RSS_ANON_BYTES = rss_anon_bytes @ 0x408;
        CPU_USER_NS = cpu_user_ns @ 0x410;
        CPU_SYS_NS = cpu_sys_ns @ 0x418;
        THREADS = threads @ 0x420;
        OPEN_FDS = open_fds @ 0x424;
        PROCESS_START_REAL_NS = process_start_real_ns @ 0x428;
        DECODE_TO_PUBLISH = decode_to_publish @ 0x440;
        FRAME_INTERVAL = frame_interval @ 0x4D0;
        TEXT_SEQ = text_seq @ 0x580;
        DECODER = decoder @ 0x588;
        CODEC = codec @ 0x5A8;
        RECONNECTS = reconnects @ 0x600;
    }
}

/// Offsets inside a slot header, bytes from its start.
pub mod slot_at {
    use super::{SlotHeader, offset_of};
    macro_rules! offsets { ($($name:ident = $field:ident @ $offset:literal;)+) => {
        $(#[doc = concat!("Offset of `", stringify!($field), "`.")] pub const $name: usize = offset_of!(SlotHeader, $field);
        const _: () = assert!($name == $offset);)+
    } }
    offsets! {
        STAMP = stamp @ 0x00;
        SEQ = seq @ 0x08;
        WIDTH = width @ 0x10;
        HEIGHT = height @ 0x14;
        PIXFMT = pixfmt @ 0x18;
        PLANE_COUNT = plane_count @ 0x1C;
        PAYLOAD_LEN = payload_len @ 0x20;
        PLANE_OFF = plane_off @ 0x28;
        PLANE_STRIDE = plane_stride @ 0x38;
        FLAGS = flags @ 0x48;
        COLOR = color @ 0x4C;
        GEOMETRY_EPOCH = geometry_epoch @ 0x50;
        WRITER_EPOCH = writer_epoch @ 0x54;
        SESSION_ID = session_id @ 0x58;
        RTP_TIMESTAMP = rtp_timestamp @ 0x5C;
        PTS_NS = pts_ns @ 0x60;
        DURATION_NS = duration_ns @ 0x68;
        ARRIVAL_MONO_NS = arrival_mono_ns @ 0x70;
        ARRIVAL_REAL_NS = arrival_real_ns @ 0x78;
        SOURCE_UNIX_NS = source_unix_ns @ 0x80;
        DECODED_MONO_NS = decoded_mono_ns @ 0x88;
        PUBLISH_MONO_NS = publish_mono_ns @ 0x90;
        PUBLISH_REAL_NS = publish_real_ns @ 0x98;
        SOURCE_SEQ = source_seq @ 0xA0;
        DROPPED_BEFORE = dropped_before @ 0xA8;
        PAYLOAD_CRC32C = payload_crc32c @ 0xB0;
        PIXEL_ASPECT = pixel_aspect @ 0xB4;
        GAP = gap @ 0xB8;
        TIME_SOURCE = time_source @ 0xBC;
        SOURCE_PIXFMT = source_pixfmt @ 0xBD;
        ROTATION = rotation @ 0xBE;
        FIT = fit @ 0xBF;
        SOURCE_SIZE = source_size @ 0xC0;
        SCALE = scale @ 0xC8;
        OFFSET = offset @ 0xD0;
        PAD_COLOR = pad_color @ 0xD8;
        VALUE_SCALE = value_scale @ 0xE0;
        VALUE_OFFSET = value_offset @ 0xE4;
        BOOT_MINUS_MONO_NS = boot_minus_mono_ns @ 0xE8;
        LAG_NS = lag_ns @ 0xF0;
    }
}

const _: () = assert!(size_of::<SegmentHeader>() == HEADER_BYTES as usize);
const _: () = assert!(size_of::<SlotHeader>() == SLOT_HEADER_BYTES as usize);
const _: () = assert!(cfg!(target_endian = "little"), "the layout is little-endian");
const _: () = assert!(size_of::<usize>() == 8, "the layout needs 64-bit addresses");

/// What the writer does when every reusable slot is leased.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u32)]
pub enum LeasePolicy {
    /// Takes the oldest leased slot; its reader is told.
    #[default]
    Fresh = 0,
    /// Drops the new frame and counts it.
    Protect = 1,
    /// Leases are not offered.
    Off = 2,
}

impl LeasePolicy {
    /// Its name in every listing and in the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Protect => "protect",
            Self::Off => "off",
        }
    }

    /// The policy behind a number of the layout.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Fresh),
            1 => Some(Self::Protect),
            2 => Some(Self::Off),
            _ => None,
        }
    }
}

/// The immutable configuration of a segment: a private, checked copy.
#[derive(Clone, Debug, Eq, PartialEq)]
#[allow(missing_docs)]
pub struct Layout {
    pub abi_minor: u16,
    pub feature_compat: u64,
    pub header_bytes: u32,
    pub slot_header_bytes: u32,
    pub slot_count: u32,
    pub lease_policy: u32,
    pub slot_table_off: u64,
    pub data_off: u64,
    pub slot_stride: u64,
    pub slot_capacity: u64,
    pub file_bytes: u64,
    pub lease_lock_base: u64,
    pub alive_lock_off: u64,
    pub presence_lock_base: u64,
    pub ring_uuid: Generation,
    pub boot_id: [u8; 16],
    pub created_real_ns: i64,
    pub owner_uid: u32,
    pub owner_gid: u32,
    pub base_seq: u64,
    pub camera_id: String,
    pub segment_name: String,
    pub builder: String,
    pub stale_after_ms: u32,
}

/// Why a header is not acceptable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LayoutError {
    /// The magic is still zero: the segment is being made.
    NotReady,
    /// Another kind of file.
    NotARing,
    /// A layout that this build does not speak.
    Version {
        /// What the header says.
        found: String,
        /// What this build speaks.
        expected: String,
    },
    /// A field that contradicts another or the file.
    Invalid(String),
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady => write!(f, "is still being made"),
            Self::NotARing => write!(f, "is no camring segment: it does not begin with \"CAMRING1\""),
            Self::Version { found, expected } => {
                write!(f, "has {found} but this build speaks {expected}; upgrade the older of the two")
            }
            Self::Invalid(what) => write!(f, "has a damaged header: {what}; restart its daemon to make a new one"),
        }
    }
}

impl std::error::Error for LayoutError {}

impl Layout {
    /// The layout of a new segment of `slot_count` slots of `slot_bytes` each; identity fields are left empty.
    ///
    /// Returns `None` when the sizes overflow or the slot count is out of range.
    #[must_use]
    pub fn plan(slot_count: u32, slot_bytes: u64) -> Option<Self> {
        if !(SLOTS_MIN..=SLOTS_MAX).contains(&slot_count) {
            return None;
        }
        let slot_stride = slot_bytes.max(1).checked_next_multiple_of(PAGE_ALIGN)?;
        let payload = slot_stride.checked_mul(u64::from(slot_count))?;
        let table_end = u64::from(HEADER_BYTES) + u64::from(slot_count) * u64::from(SLOT_HEADER_BYTES);
        let small_off = table_end.next_multiple_of(PAGE_ALIGN);
        let data_off = if payload.checked_add(small_off)? >= HUGE_FROM {
            table_end.next_multiple_of(HUGE_ALIGN)
        } else {
            small_off
        };
        let file_bytes = payload.checked_add(data_off)?;
        if i64::try_from(file_bytes).is_err() || file_bytes >= LEASE_LOCK_BASE {
            return None;
        }
        Some(Self {
            abi_minor: ABI_MINOR,
            feature_compat: 0,
            header_bytes: HEADER_BYTES,
            slot_header_bytes: SLOT_HEADER_BYTES,
            slot_count,
            lease_policy: LeasePolicy::Fresh as u32,
            slot_table_off: u64::from(HEADER_BYTES),
            data_off,
            slot_stride,
            slot_capacity: slot_stride,
            file_bytes,
            lease_lock_base: LEASE_LOCK_BASE,
            alive_lock_off: ALIVE_LOCK_OFF,
            presence_lock_base: PRESENCE_LOCK_BASE,
            ring_uuid: Generation::default(),
            boot_id: [0; 16],
            created_real_ns: 0,
            owner_uid: 0,
            owner_gid: 0,
            base_seq: 0,
            camera_id: String::new(),
            segment_name: String::new(),
            builder: String::new(),
            stale_after_ms: 0,
        })
    }

    /// Offset of slot `index`'s header.
    #[must_use]
    pub fn slot_header_off(&self, index: u32) -> u64 {
        self.slot_table_off + u64::from(index) * u64::from(self.slot_header_bytes)
    }

    /// Offset of slot `index`'s payload.
    #[must_use]
    pub fn payload_off(&self, index: u32) -> u64 {
        self.data_off + u64::from(index) * self.slot_stride
    }

    /// The bytes of the immutable configuration, CRC included.
    #[must_use]
    pub fn encode(&self) -> [u8; CONFIG_BYTES] {
        let mut out = Bytes([0; CONFIG_BYTES]);
        out.put(at::MAGIC, &MAGIC);
        out.put(at::ENDIAN_TAG, &ENDIAN_TAG.to_le_bytes());
        out.put(at::ABI_MAJOR, &ABI_MAJOR.to_le_bytes());
        out.put(at::ABI_MINOR, &self.abi_minor.to_le_bytes());
        out.put(at::FEATURE_COMPAT, &self.feature_compat.to_le_bytes());
        out.put(at::HEADER_BYTES, &self.header_bytes.to_le_bytes());
        out.put(at::SLOT_HEADER_BYTES, &self.slot_header_bytes.to_le_bytes());
        out.put(at::SLOT_COUNT, &self.slot_count.to_le_bytes());
        out.put(at::LEASE_POLICY, &self.lease_policy.to_le_bytes());
        out.put(at::SLOT_TABLE_OFF, &self.slot_table_off.to_le_bytes());
        out.put(at::DATA_OFF, &self.data_off.to_le_bytes());
        out.put(at::SLOT_STRIDE, &self.slot_stride.to_le_bytes());
        out.put(at::SLOT_CAPACITY, &self.slot_capacity.to_le_bytes());
        out.put(at::FILE_BYTES, &self.file_bytes.to_le_bytes());
        out.put(at::LEASE_LOCK_BASE, &self.lease_lock_base.to_le_bytes());
        out.put(at::ALIVE_LOCK_OFF, &self.alive_lock_off.to_le_bytes());
        out.put(at::PRESENCE_LOCK_BASE, &self.presence_lock_base.to_le_bytes());
        out.put(at::RING_UUID, &self.ring_uuid.0);
        out.put(at::BOOT_ID, &self.boot_id);
        out.put(at::CREATED_REAL_NS, &self.created_real_ns.to_le_bytes());
        out.put(at::OWNER_UID, &self.owner_uid.to_le_bytes());
        out.put(at::OWNER_GID, &self.owner_gid.to_le_bytes());
        out.put(at::BASE_SEQ, &self.base_seq.to_le_bytes());
        out.text(at::CAMERA_ID, 64, &self.camera_id);
        out.text(at::SEGMENT_NAME, 256, &self.segment_name);
        out.text(at::BUILDER, 16, &self.builder);
        out.put(at::STALE_AFTER_MS, &self.stale_after_ms.to_le_bytes());
        let crc = crc32c(&out.0[..at::HEADER_CRC32C as usize]);
        out.put(at::HEADER_CRC32C, &crc.to_le_bytes());
        out.0
    }

    /// Reads a private copy of the configuration and checks it against itself and the file's size.
    ///
    /// # Errors
    ///
    /// [`LayoutError`]; no byte pattern makes it panic.
    pub fn decode(bytes: &[u8; CONFIG_BYTES], file_size: u64) -> Result<Self, LayoutError> {
        check_version(bytes)?;
        let crc = crc32c(&bytes[..at::HEADER_CRC32C as usize]);
        if crc != u32_at(bytes, at::HEADER_CRC32C) {
            return Err(LayoutError::Invalid("the checksum does not match".into()));
        }
        let layout = Self {
            abi_minor: u16_at(bytes, at::ABI_MINOR),
            feature_compat: u64_at(bytes, at::FEATURE_COMPAT),
            header_bytes: u32_at(bytes, at::HEADER_BYTES),
            slot_header_bytes: u32_at(bytes, at::SLOT_HEADER_BYTES),
            slot_count: u32_at(bytes, at::SLOT_COUNT),
            lease_policy: u32_at(bytes, at::LEASE_POLICY),
            slot_table_off: u64_at(bytes, at::SLOT_TABLE_OFF),
            data_off: u64_at(bytes, at::DATA_OFF),
            slot_stride: u64_at(bytes, at::SLOT_STRIDE),
            slot_capacity: u64_at(bytes, at::SLOT_CAPACITY),
            file_bytes: u64_at(bytes, at::FILE_BYTES),
            lease_lock_base: u64_at(bytes, at::LEASE_LOCK_BASE),
            alive_lock_off: u64_at(bytes, at::ALIVE_LOCK_OFF),
            presence_lock_base: u64_at(bytes, at::PRESENCE_LOCK_BASE),
            ring_uuid: Generation(array_at(bytes, at::RING_UUID)),
            boot_id: array_at(bytes, at::BOOT_ID),
            created_real_ns: u64_at(bytes, at::CREATED_REAL_NS).cast_signed(),
            owner_uid: u32_at(bytes, at::OWNER_UID),
            owner_gid: u32_at(bytes, at::OWNER_GID),
            base_seq: u64_at(bytes, at::BASE_SEQ),
            camera_id: text_at(bytes, at::CAMERA_ID, 64),
            segment_name: text_at(bytes, at::SEGMENT_NAME, 256),
            builder: text_at(bytes, at::BUILDER, 16),
            stale_after_ms: u32_at(bytes, at::STALE_AFTER_MS),
        };
        layout.validate(file_size)?;
        Ok(layout)
    }

    /// Checks every bound that later accesses rely on.
    fn validate(&self, file_size: u64) -> Result<(), LayoutError> {
        let require = |ok: bool, what: &str| if ok { Ok(()) } else { Err(LayoutError::Invalid(what.to_owned())) };
        require(self.file_bytes == file_size, "the file's size is not the one the header states")?;
        require(self.file_bytes < LEASE_LOCK_BASE, "the file has 1 TiB or more")?;
        require((SLOTS_MIN..=SLOTS_MAX).contains(&self.slot_count), "the slot count is not between 3 and 256")?;
        require(self.header_bytes >= HEADER_BYTES, "the header is too small")?;
        require(
            self.slot_header_bytes >= SLOT_HEADER_BYTES && self.slot_header_bytes.is_multiple_of(64),
            "the slot headers are too small or not aligned",
        )?;
        require(
            self.slot_table_off >= u64::from(self.header_bytes) && self.slot_table_off.is_multiple_of(64),
            "the slot table overlaps the header",
        )?;
        let table_bytes = u64::from(self.slot_count) * u64::from(self.slot_header_bytes);
        let table_end = self.slot_table_off.checked_add(table_bytes);
        require(table_end.is_some_and(|end| end <= self.data_off), "the slot table overlaps the payload")?;
        require(
            self.data_off.is_multiple_of(PAGE_ALIGN) && self.slot_stride.is_multiple_of(PAGE_ALIGN),
            "the payload is not aligned",
        )?;
        require(
            self.slot_capacity > 0 && self.slot_capacity <= self.slot_stride,
            "a slot's capacity exceeds its stride",
        )?;
        let payload = self.slot_stride.checked_mul(u64::from(self.slot_count));
        let end = payload.and_then(|payload| payload.checked_add(self.data_off));
        require(end.is_some_and(|end| end <= self.file_bytes), "the payload exceeds the file")?;
        let lockable = |base: u64, bytes: u64| base.checked_add(bytes).is_some_and(|end| i64::try_from(end).is_ok());
        require(
            lockable(self.lease_lock_base, 256)
                && lockable(self.alive_lock_off, 1)
                && lockable(self.presence_lock_base, PRESENCE_LOCK_SPAN),
            "a lock offset is out of range",
        )
    }
}

/// Bytes of the range that presence locks may lie in: 22 bits of pid, 20 random bits.
pub const PRESENCE_LOCK_SPAN: u64 = 1 << 42;

/// The number after which the frames of a segment go on that this build cannot read: one of the same major version with
/// features it does not know. `head` is the word behind the configuration.
///
/// `None` unless the checksum vouches for the configuration; in another major version the words may lie elsewhere.
pub(crate) fn newest_of_unknown(config: &[u8; CONFIG_BYTES], head: u64) -> Option<u64> {
    let same_major = array_at(config, at::MAGIC) == MAGIC
        && u32_at(config, at::ENDIAN_TAG) == ENDIAN_TAG
        && u16_at(config, at::ABI_MAJOR) == ABI_MAJOR;
    let vouched = crc32c(&config[..at::HEADER_CRC32C as usize]) == u32_at(config, at::HEADER_CRC32C);
    (same_major && vouched).then(|| u64_at(config, at::BASE_SEQ).max(head >> 16))
}

fn check_version(bytes: &[u8; CONFIG_BYTES]) -> Result<(), LayoutError> {
    let magic: [u8; 8] = array_at(bytes, at::MAGIC);
    if magic == [0; 8] {
        return Err(LayoutError::NotReady);
    }
    if magic != MAGIC {
        return Err(LayoutError::NotARing);
    }
    let expected = format!("{ABI_MAJOR}.{ABI_MINOR}");
    let refuse = |found: String| LayoutError::Version { found, expected: format!("layout version {expected}") };
    if u32_at(bytes, at::ENDIAN_TAG) != ENDIAN_TAG {
        return Err(refuse("the other byte order".into()));
    }
    let (major, minor) = (u16_at(bytes, at::ABI_MAJOR), u16_at(bytes, at::ABI_MINOR));
    if major != ABI_MAJOR {
        return Err(refuse(format!("layout version {major}.{minor}")));
    }
    let unknown = u64_at(bytes, at::FEATURE_INCOMPAT) & !KNOWN_INCOMPAT;
    if unknown != 0 {
        return Err(refuse(format!("layout version {major}.{minor} with the unknown features {unknown:#x}")));
    }
    Ok(())
}

struct Bytes([u8; CONFIG_BYTES]);

impl Bytes {
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        self.0[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Writes at most `room - 1` bytes of `text`, cut at a character, so that a zero byte always ends it.
    fn text(&mut self, offset: u64, room: usize, text: &str) {
        let mut len = text.len().min(room - 1);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        self.put(offset, &text.as_bytes()[..len]);
    }
}

fn array_at<const N: usize>(bytes: &[u8; CONFIG_BYTES], offset: u64) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[offset as usize..][..N]);
    out
}

fn u16_at(bytes: &[u8; CONFIG_BYTES], offset: u64) -> u16 {
    u16::from_le_bytes(array_at(bytes, offset))
}

fn u32_at(bytes: &[u8; CONFIG_BYTES], offset: u64) -> u32 {
    u32::from_le_bytes(array_at(bytes, offset))
}

fn u64_at(bytes: &[u8; CONFIG_BYTES], offset: u64) -> u64 {
    u64::from_le_bytes(array_at(bytes, offset))
}

fn text_at(bytes: &[u8; CONFIG_BYTES], offset: u64, room: usize) -> String {
    text(&bytes[offset as usize..][..room])
}

/// The text before the first zero byte; bytes that are no UTF-8 become replacement characters.
pub(crate) fn text(bytes: &[u8]) -> String {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Layout {
        let mut layout = Layout::plan(8, 1920 * 1080 * 3).expect("a common size");
        layout.camera_id = "front".into();
        layout.segment_name = "camring.front".into();
        layout.ring_uuid = Generation([7; 16]);
        layout
    }

    #[test]
    fn a_1080p_slot_takes_the_documented_bytes() {
        let layout = sample();
        assert_eq!(layout.slot_stride, 6_225_920);
        assert_eq!(layout.data_off, HUGE_ALIGN);
        assert_eq!(layout.file_bytes, HUGE_ALIGN + 8 * 6_225_920);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let layout = sample();
        assert_eq!(Layout::decode(&layout.encode(), layout.file_bytes), Ok(layout));
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let layout = sample();
        let good = layout.encode();
        for bit in 0..CONFIG_BYTES * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Layout::decode(&bytes, layout.file_bytes).is_err(), "bit {bit} was not noticed");
        }
    }

    #[test]
    fn bounds_are_checked_even_when_the_checksum_is_right() {
        let refuse = |change: fn(&mut Layout), what: &str| {
            let mut layout = sample();
            change(&mut layout);
            let size = sample().file_bytes;
            let error = Layout::decode(&layout.encode(), size).expect_err(what);
            assert!(matches!(error, LayoutError::Invalid(_)), "{what}: {error}");
        };
        refuse(|l| l.slot_count = 2, "two slots");
        refuse(|l| l.slot_count = 257, "too many slots");
        refuse(|l| l.slot_stride = !0xFFFF, "a stride that overflows");
        refuse(|l| l.data_off = !0xFFFF, "an offset that overflows");
        refuse(|l| l.slot_capacity = l.slot_stride + 1, "a capacity over the stride");
        refuse(|l| l.slot_table_off = 64, "a table inside the header");
        refuse(|l| l.slot_header_bytes = 8, "slot headers that overlap");
        refuse(|l| l.file_bytes += 1, "another file size");
        let mut huge = sample();
        huge.file_bytes = LEASE_LOCK_BASE;
        let error = Layout::decode(&huge.encode(), LEASE_LOCK_BASE).expect_err("locks inside the file");
        assert_eq!(error, LayoutError::Invalid("the file has 1 TiB or more".into()));
        refuse(|l| l.lease_lock_base = u64::MAX, "locks out of range");
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = sample().encode();
        bytes[at::ABI_MAJOR as usize] = 3;
        let error = Layout::decode(&bytes, sample().file_bytes).expect_err("version 3");
        assert_eq!(
            error.to_string(),
            "has layout version 3.0 but this build speaks layout version 1.0; upgrade the older of the two"
        );
    }
}
