//! Stillness: for how long the decoder's picture has not changed by a bit, without reading all of each picture.

use gst_video::VideoFrameRef;
use gst_video::prelude::*;

/// Into so many groups the rows of a picture are dealt, row by row; each picture has two of them read.
const GROUPS: usize = 16;

/// Compares pictures by the checksums of some of their rows.
///
/// Picture `n` has the groups `n` and `n + 1` read, so one of them was read in the picture before as well: a change
/// between two pictures that is 16 rows high is seen at once. A smaller one, down to a single bit, is seen after 16
/// pictures at the latest if it lasts so long, because then every row has been compared. Costs reading an eighth of the
/// picture; no lock and no allocation.
#[derive(Default)]
pub struct Stillness {
    checksums: [Option<u32>; GROUPS],
    group: usize,
    since_ns: Option<i64>,
}

impl Stillness {
    /// Looks at the next picture, decoded at `now_ns`; for how long nothing has changed, ns.
    pub fn look(&mut self, picture: &VideoFrameRef<&gst::BufferRef>, now_ns: i64) -> u64 {
        self.follow(now_ns, |group| checksum(picture, group))
    }

    fn follow(&mut self, now_ns: i64, checksum: impl Fn(usize) -> u32) -> u64 {
        let next = (self.group + 1) % GROUPS;
        let read = [self.group, next].map(|group| (group, checksum(group)));
        let differs = |(group, found): &(usize, u32)| self.checksums[*group].is_some_and(|before| before != *found);
        let changed = self.since_ns.is_none() || read.iter().any(differs);
        if changed {
            // What was read before is of another picture, and says nothing about this one.
            self.checksums = [None; GROUPS];
        }
        read.into_iter().for_each(|(group, found)| self.checksums[group] = Some(found));
        self.group = next;
        let since_ns = if changed { now_ns } else { self.since_ns.unwrap_or(now_ns) };
        self.since_ns = Some(since_ns);
        u64::try_from(now_ns - since_ns).unwrap_or(0)
    }
}

/// The checksum of one group of rows, of all planes; what lies beyond the last pixel of a row is left out.
fn checksum(picture: &VideoFrameRef<&gst::BufferRef>, group: usize) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for plane in 0..picture.n_planes() {
        let (Ok(bytes), Some((row_bytes, rows))) = (picture.plane_data(plane), shape(picture, plane)) else { continue };
        let stride = picture.plane_stride()[plane as usize].unsigned_abs() as usize;
        for row in (group..rows).step_by(GROUPS) {
            let start = row * stride;
            crc.update(bytes.get(start..start + row_bytes.min(stride)).unwrap_or_default());
        }
    }
    crc.finalize()
}

/// Bytes of a row of a plane and its rows; whole rows for formats whose pixels do not begin at bytes of their own.
fn shape(picture: &VideoFrameRef<&gst::BufferRef>, plane: u32) -> Option<(usize, usize)> {
    let info = picture.info();
    let component = (0..info.n_components()).find(|component| info.comp_plane(*component as u8) == plane)? as u8;
    let pixel_bytes = info.comp_pstride(component);
    let row_bytes = match pixel_bytes {
        ..=0 => info.stride()[plane as usize].unsigned_abs(),
        _ => pixel_bytes.unsigned_abs() * info.comp_width(component),
    };
    Some((row_bytes as usize, info.comp_height(component) as usize))
}

#[cfg(test)]
mod tests {
    use gst_video::{VideoFormat, VideoInfo};

    use super::*;

    const MS: i64 = 1_000_000;

    fn info(format: VideoFormat, width: u32, height: u32) -> VideoInfo {
        gst::init().expect("GStreamer");
        VideoInfo::builder(format, width, height).build().expect("a picture")
    }

    fn buffer(bytes: &[u8]) -> gst::Buffer {
        gst::Buffer::from_slice(bytes.to_vec())
    }

    /// Pictures 40 ms apart; the answers in ms.
    struct Player {
        stillness: Stillness,
        info: VideoInfo,
        now: i64,
    }

    impl Player {
        fn new(format: VideoFormat) -> (Self, Vec<u8>) {
            let info = info(format, 70, 34);
            let bytes = (0..info.size()).map(|at| (at * 7) as u8).collect();
            (Self { stillness: Stillness::default(), info, now: 0 }, bytes)
        }

        fn show(&mut self, bytes: &[u8]) -> u64 {
            self.now += 40 * MS;
            let buffer = buffer(bytes);
            let picture = VideoFrameRef::from_buffer_ref_readable(&buffer, &self.info).expect("readable");
            self.stillness.look(&picture, self.now) / MS as u64
        }
    }

    #[test]
    fn the_time_of_an_unchanged_picture_grows_and_begins_anew_when_it_changes() {
        let (mut player, mut bytes) = Player::new(VideoFormat::I420);
        let still: Vec<u64> = (0..50).map(|_| player.show(&bytes)).collect();
        assert_eq!(still, (0..50).map(|n| n * 40).collect::<Vec<u64>>());
        bytes.fill(9);
        assert_eq!([player.show(&bytes), player.show(&bytes)], [0, 40]);
    }

    #[test]
    fn one_bit_of_any_plane_counts_within_sixteen_pictures() {
        for format in [VideoFormat::Gray8, VideoFormat::I420, VideoFormat::Nv12, VideoFormat::Bgr] {
            let (mut player, mut bytes) = Player::new(format);
            let (width, height) = (70, 34);
            let picture = info(format, width, height);
            let first = |plane: usize| picture.offset()[plane];
            // The first row and the fifth of each plane.
            let places = (0..picture.n_planes() as usize)
                .flat_map(|plane| [first(plane), first(plane) + 4 * picture.stride()[plane] as usize]);
            for at in places {
                for _ in 0..20 {
                    player.show(&bytes);
                }
                bytes[at] ^= 1;
                let answers: Vec<u64> = (0..GROUPS).map(|_| player.show(&bytes)).collect();
                assert!(answers.contains(&0), "{format:?} at {at}: {answers:?}");
                assert!(player.show(&bytes) > 0);
            }
        }
    }

    #[test]
    fn padding_is_no_part_of_the_picture() {
        let (mut player, mut bytes) = Player::new(VideoFormat::Gray8);
        assert_eq!(player.info.stride()[0], 72);
        for n in 0..40 {
            bytes[71] = n;
            assert_eq!(player.show(&bytes), u64::from(n) * 40);
        }
    }

    #[test]
    fn noise_a_single_repeat_and_a_short_loop_are_never_still_for_long() {
        let (mut player, mut bytes) = Player::new(VideoFormat::I420);
        for n in 0..200_usize {
            // One step of luma in some pixels of the whole picture, as a sensor in the dark.
            bytes.iter_mut().skip(n % 5).step_by(11).for_each(|byte| *byte ^= 1);
            let again = [player.show(&bytes), player.show(&bytes)];
            assert!(again[0] == 0 && again[1] <= 40, "{n}: {again:?}");
        }
        let other: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
        for n in 0..64 {
            assert_eq!(player.show(if n % 2 == 0 { &other } else { &bytes }), 0, "a loop of two pictures");
        }
    }
}
