//! What each fuzz target does with its bytes. `ring/tests/hostile.rs` runs the same over the committed corpus.
//!
//! The promise of all of them: an error or a frame. Never a panic, a crash, an access outside the mapping, an endless
//! loop, or a frame that contradicts its own description.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use camring_ring::layout::{
    ABI_MAJOR, ABI_MINOR, CONFIG_BYTES, ENDIAN_TAG, HEADER_BYTES, Layout, MAGIC, SLOT_HEADER_BYTES, at, crc32c,
};
use camring_ring::{
    AttachOptions, FrameMeta, Geometry, PixelFormat, Ring, RingName, SegmentName, Sequence, ShmDir, Writer,
    WriterOptions,
};

/// Slots of the ring that the target `read` changes.
const SLOTS: u32 = 4;
/// Largest file that the target `attach` makes, in 64 KiB: also bounds what a reader may be made to copy.
const FILE_UNITS_MAX: u64 = 64;

/// A folder on the memory mount; removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::var("CAMRING_FUZZ_DIR").unwrap_or_else(|_| "/dev/shm".to_owned());
        let path = PathBuf::from(format!("{root}/camring-fuzz-{}-{number}", std::process::id()));
        std::fs::create_dir_all(path.join("camring.d")).expect("a folder on the memory mount can be made");
        Self(path)
    }

    fn attach(&self, name: &str) -> Result<Ring, camring_ring::AttachError> {
        let options =
            AttachOptions { shm: ShmDir::new(&self.0), timeout: Some(Duration::ZERO), ..AttachOptions::default() };
        Ring::attach(name, options)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path) -> File {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    opened.expect("a file in a folder of our own can be opened")
}

/// Uses everything that a reader has, and judges what comes back.
pub fn exercise(ring: &Ring) {
    let capacity = ring.layout().slot_capacity;
    let mut pixels = Vec::new();
    for _ in 0..2 {
        if let Ok(frame) = ring.latest(&mut pixels) {
            judge(&frame.meta, &pixels, capacity);
        }
    }
    if let Ok(frame) = ring.next(&mut pixels, Some(Duration::ZERO)) {
        judge(&frame.meta, &pixels, capacity);
    }
    match ring.peek() {
        Ok(meta) => {
            let mut exact = vec![0; usize::try_from(meta.geometry.len).expect("it was checked against the capacity")];
            let _ = (ring.latest_into(&mut exact), ring.latest_into(&mut []), ring.age(&meta));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    exercise_leases(ring, capacity);
    exercise_history(ring, capacity);
    let _ = ring.latest_within(&mut pixels, Duration::from_secs(1));
    let _ = format!("{:?} {:?} {:?}", ring.status(), ring.liveness(), ring.stats());
    let _ = (ring.wait(ring.last_seq(), Some(Duration::ZERO)), ring.is_removed(), ring.writer_pid());
    let _ = camring_ring::wait_any(&[ring], Some(Duration::ZERO));
}

fn exercise_leases(ring: &Ring, capacity: u64) {
    let leases = [ring.lease(), ring.lease_next(Some(Duration::ZERO)), ring.lease()];
    for lease in leases.into_iter().flatten() {
        let mut pixels = vec![0; lease.len()];
        let copied = lease.copy_to(&mut pixels);
        judge(&lease.frame().meta, &pixels, capacity);
        assert!(lease.copy_to(&mut []).is_err() || lease.is_empty());
        // Nobody writes meanwhile: whole it was, whole it stays.
        assert!(copied.is_ok() && lease.is_valid(), "a lease nobody revokes is valid");
        let _ = (lease.is_guarded(), lease.as_ptr());
        if let Some(slice) = lease.protected() {
            assert_eq!(slice.to_vec(), pixels);
        }
        assert!(lease.release().is_ok());
    }
}

fn exercise_history(ring: &Ring, capacity: u64) {
    let mut pixels = Vec::new();
    for count in [1, usize::MAX] {
        let frames = ring.history(count).unwrap_or_default();
        assert!(frames.len() <= count);
        frames.iter().for_each(|(frame, pixels)| judge(&frame.meta, pixels, capacity));
        assert!(frames.windows(2).all(|two| two[0].0.meta.seq <= two[1].0.meta.seq), "the oldest comes first");
    }
    let held = ring.held();
    let newest = held.last().map_or(Sequence(7), |meta| meta.seq);
    for seq in [Sequence(0), Sequence(u64::MAX), newest, Sequence(newest.0.saturating_sub(1))] {
        if let Ok(frame) = ring.at(seq, &mut pixels) {
            assert_eq!(frame.meta.seq, seq);
            judge(&frame.meta, &pixels, capacity);
        }
        if let Ok(frame) = ring.after(seq, &mut pixels, Some(Duration::ZERO)) {
            judge(&frame.meta, &pixels, capacity);
        }
    }
    for arrival in [i64::MIN, 0, held.first().map_or(i64::MAX, |meta| meta.arrival_mono_ns)] {
        if let Ok(frame) = ring.nearest(arrival, &mut pixels) {
            judge(&frame.meta, &pixels, capacity);
        }
        if let Ok(frames) = camring_ring::nearest(&[ring, ring], arrival, Duration::from_millis(20)) {
            frames.iter().for_each(|(frame, pixels)| judge(&frame.meta, pixels, capacity));
        }
    }
}

/// A frame that a reader hands out lies inside its slot, and its planes lie inside the frame.
fn judge(meta: &FrameMeta, pixels: &[u8], capacity: u64) {
    let geometry = &meta.geometry;
    assert_eq!(geometry.len, pixels.len() as u64, "as many bytes as the frame says");
    assert!(geometry.len <= capacity, "a frame of {} bytes in a slot of {capacity}", geometry.len);
    assert!(meta.seq.0 > 0, "frame 0 is none");
    assert!(!matches!(geometry.format, PixelFormat::Unknown(_)), "an unknown format is an error");
    assert!(geometry.plane_count <= 4, "{} planes", geometry.plane_count);
    if geometry.format == PixelFormat::Opaque {
        return;
    }
    for plane in 0..geometry.plane_count as usize {
        let (row_bytes, rows) = geometry.plane_extent(plane).expect("the planes of a known format");
        let stride = u64::from(geometry.plane_strides[plane]);
        assert!(stride >= row_bytes, "rows of {row_bytes} bytes every {stride}");
        let end = u64::from(geometry.plane_offsets[plane]) + stride * (rows - 1) + row_bytes;
        assert!(end <= geometry.len, "plane {plane} ends at {end} of {}", geometry.len);
    }
}

/// The target `attach`: any bytes as a file of any size.
///
/// The first byte says what is put right so that more than the first check is reached (1 = magic, byte order and
/// version, 2 = the file's size, 4 = the checksum, 8 = plausible sizes), the second the file's size in 64 KiB.
pub struct AttachBench {
    folder: Folder,
    file: Mutex<File>,
}

impl Default for AttachBench {
    fn default() -> Self {
        Self::new()
    }
}

impl AttachBench {
    /// Makes the folder.
    ///
    /// # Panics
    ///
    /// When there is no memory mount to make it on.
    #[must_use]
    pub fn new() -> Self {
        let folder = Folder::new();
        let file = Mutex::new(open(&folder.0.join("camring.d/cam")));
        Self { folder, file }
    }

    /// Attaches to a file made of `bytes` and reads from it.
    pub fn run(&self, bytes: &[u8]) {
        let file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let [repairs, units, content @ ..] = bytes else { return };
        let content = &content[..content.len().min(FILE_UNITS_MAX as usize * 65_536)];
        let size = match *units {
            0 => content.len() as u64,
            units => u64::from(units) % FILE_UNITS_MAX * 65_536,
        };
        let mut content = content.to_vec();
        if *repairs & 0x0F != 0 && content.len() >= CONFIG_BYTES {
            repair(&mut content, *repairs, size);
        }
        file.set_len(0).expect("our own file can be emptied");
        file.write_all_at(&content, 0).expect("our own file can be written");
        file.set_len(size).expect("our own file can be sized");
        match self.folder.attach("cam") {
            Ok(ring) => exercise(&ring),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn repair(content: &mut [u8], repairs: u8, size: u64) {
    let mut put = |offset: u64, bytes: &[u8]| content[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    if repairs & 1 != 0 {
        put(at::MAGIC, &MAGIC);
        put(at::ENDIAN_TAG, &ENDIAN_TAG.to_le_bytes());
        put(at::ABI_MAJOR, &ABI_MAJOR.to_le_bytes());
        put(at::ABI_MINOR, &ABI_MINOR.to_le_bytes());
        put(at::FEATURE_INCOMPAT, &[0; 8]);
    }
    if repairs & 8 != 0
        && let Some(plan) = Layout::plan(3, 65_536)
    {
        // Everything between the versions and the identity: sizes and offsets.
        let good = plan.encode();
        put(at::HEADER_BYTES, &good[at::HEADER_BYTES as usize..at::RING_UUID as usize]);
    }
    if repairs & 2 != 0 {
        put(at::FILE_BYTES, &size.to_le_bytes());
    }
    if repairs & 4 != 0 {
        let crc = crc32c(&content[..at::HEADER_CRC32C as usize]);
        content[at::HEADER_CRC32C as usize..][..4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The target `read`: words of a valid ring's header and slot table are overwritten.
///
/// Every eleven bytes are a change: which word (two bytes), what is done with it (one byte: replaced, added to, some
/// bits flipped, its low half replaced), and a value (eight bytes). A reader attached before the changes and one attached after them read the result.
pub struct ReadBench {
    folder: Folder,
    file: Mutex<File>,
    image: Vec<u8>,
}

impl Default for ReadBench {
    fn default() -> Self {
        Self::new()
    }
}

impl ReadBench {
    /// Makes a ring of four slots with seven frames in it, whose writer has ended.
    ///
    /// # Panics
    ///
    /// When there is no memory mount to make it on.
    #[must_use]
    pub fn new() -> Self {
        let folder = Folder::new();
        let mut options = WriterOptions::new(RingName::new("cam").expect("a good name"));
        options.shm = ShmDir::new(&folder.0);
        options.slots = SLOTS;
        let (mut writer, _) = Writer::start(options).expect("a ring in a folder of our own can be made");
        let formats = [PixelFormat::Bgr, PixelFormat::I420, PixelFormat::RgbPlanarF32, PixelFormat::Gray];
        for index in 0..7 {
            let geometry = Geometry::packed(17, 9, formats[index % 4]).expect("a picture has a size");
            let slot = writer.claim(geometry.len).expect("nobody leases a slot");
            writer.publish(slot, FrameMeta::new(geometry)).expect("the frame fits");
        }
        drop(writer);
        let file = open(&folder.0.join("camring.d/cam"));
        let mut image = vec![0; (HEADER_BYTES + SLOTS * SLOT_HEADER_BYTES) as usize];
        file.read_exact_at(&mut image, 0).expect("the ring is at least that long");
        Self { folder, file: Mutex::new(file), image }
    }

    /// Changes the ring as `bytes` say and reads from it.
    pub fn run(&self, bytes: &[u8]) {
        let file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all_at(&self.image, 0).expect("our own file can be written");
        let before = self.folder.attach("cam").expect("the unchanged ring is good");
        let mut image = self.image.clone();
        for change in bytes.chunks_exact(11) {
            let word = usize::from(u16::from_le_bytes([change[0], change[1]])) % (image.len() / 8);
            let value = u64::from_le_bytes(change[3..11].try_into().expect("eight bytes"));
            let place = &mut image[word * 8..][..8];
            let old = u64::from_le_bytes(place.try_into().expect("eight bytes"));
            let new = match change[2] % 4 {
                0 => value,
                1 => old.wrapping_add(value),
                2 => old ^ value,
                // The low half alone: most words hold two fields.
                _ => old & !0xFFFF_FFFF | value & 0xFFFF_FFFF,
            };
            place.copy_from_slice(&new.to_le_bytes());
        }
        let crc = crc32c(&image[..at::HEADER_CRC32C as usize]);
        image[at::HEADER_CRC32C as usize..][..4].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&image, 0).expect("our own file can be written");
        exercise(&before);
        match self.folder.attach("cam") {
            Ok(ring) => exercise(&ring),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// The target `text`: a configuration block of any bytes for a file of any size, and names of any text.
pub fn text(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        names(text);
    }
    let Some((size, rest)) = bytes.split_first_chunk::<8>() else { return };
    let mut config = [0; CONFIG_BYTES];
    let len = rest.len().min(CONFIG_BYTES);
    config[..len].copy_from_slice(&rest[..len]);
    let mut size = u64::from_le_bytes(*size);
    if size & 1 == 1 {
        repair(&mut config, (size >> 1) as u8 & 0x0F, size & !0xFFFF);
        size &= !0xFFFF;
    }
    match Layout::decode(&config, size) {
        Ok(layout) => judge_layout(&layout, size),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Every place that an accepted layout leads to lies inside the file and overlaps no other.
fn judge_layout(layout: &Layout, size: u64) {
    assert!(layout.slot_table_off >= u64::from(HEADER_BYTES));
    let last = layout.slot_count - 1;
    let table_end = layout.slot_header_off(last) + u64::from(layout.slot_header_bytes);
    assert!(
        table_end <= layout.data_off,
        "the slot table ends at {table_end}, the payload begins at {}",
        layout.data_off
    );
    assert!(layout.slot_capacity <= layout.slot_stride && layout.slot_stride.is_multiple_of(8));
    assert!(layout.payload_off(last) + layout.slot_stride <= size, "the last slot lies outside");
    let again = Layout::decode(&layout.encode(), size);
    // Text that is no UTF-8 grows when it is replaced, and is then cut; everything else is kept.
    let again = again.expect("what was accepted once is accepted again");
    assert_eq!(
        (again.slot_stride, again.data_off, again.base_seq),
        (layout.slot_stride, layout.data_off, layout.base_seq)
    );
}

fn names(text: &str) {
    if let Ok(ring) = RingName::new(text) {
        assert!(ring.as_str().starts_with(ring.camera()) && !ring.camera().is_empty());
        let segment = ring.default_segment();
        assert!(SegmentName::new(segment.as_str()).is_ok(), "the segment of {ring} has a name that is none");
    }
    if let Ok(segment) = SegmentName::new(text) {
        assert!(!segment.as_str().contains('/') && !segment.as_str().starts_with('.'), "{segment} leads elsewhere");
    }
}
