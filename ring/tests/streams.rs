//! Streams that change: size, format, rate, stride and times; readers keep their handle and their pixels.

mod common;

use std::time::Duration;

use camring_ring::clock::{mono_ns, real_ns};
use camring_ring::{FrameFlags, FrameMeta, Geometry, Liveness, PixelFormat, Ring, Writer, age_ns, free_bytes};
use common::actors::{Actor, PATIENCE, let_pass, numbers, until_within};
use common::{Shm, amount, assert_untorn, measured};

const LONG: Duration = Duration::from_secs(500);

#[test]
fn sizes_that_grow_and_shrink_keep_readers_and_leases() {
    let shm = Shm::new();
    let per_size = amount(12, 50).to_string();
    // Beyond what the ring holds by then, within it, back to the first.
    let sizes = "320x240,64x48,641x359,405x305,1280x720,320x240,1920x1080,64x48";
    let options = ["--fps", "50", "--size", sizes, "--per-size", &per_size, "--crc"];
    let mut writer = Actor::ready_writer(&shm, "cam", &options);
    let mut holder = Actor::reader(&shm, "hold", "cam", &[]);
    holder.order("lease");
    assert!(holder.answer().starts_with("held "));
    let mut readers = ["copy", "lease"].map(|mode| Actor::reader(&shm, mode, "cam", &[]));
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let frames = amount(150, 9_000);
    until_within(LONG, "the frames are published", || {
        assert!(readers.iter_mut().all(|reader| reader.ended().is_none()), "a reader has ended");
        ring.status().seq.0 >= frames
    });
    for reader in &mut readers {
        until_within(PATIENCE, "each reader has read", || reader.count("copies") + reader.count("constant") > 10);
        reader.stop();
    }
    let (epochs, generations) =
        (ring.status().geometry_epoch, ring.status().counter(camring_ring::Counter::Generations));
    assert!(epochs >= 8 && generations >= 4, "{epochs} sizes, {generations} generations");
    holder.order("release");
    assert_eq!(holder.answer(), "valid", "a lease on a retired generation is constant for ever");
    assert_eq!(readers[1].count("revoked"), 0);
    writer.stop();
    measured(format!(
        "{epochs} changes of size in {frames} frames, {} copies and {} leases verified: 0 torn, 0 revoked",
        readers[0].count("copies"),
        readers[1].count("constant")
    ));
}

#[test]
fn a_camera_that_comes_back_with_another_size_and_format_is_read_on() {
    let shm = Shm::new();
    let mut writer = Actor::ready_writer(&shm, "cam", &["--fps", "100", "--size", "640x360:bgr"]);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut reader = Actor::reader(&shm, "copy", "cam", &[]);
    let mut pixels = Vec::new();
    let returns = [(800, 600, PixelFormat::Nv12), (320, 240, PixelFormat::Gray), (854, 480, PixelFormat::I420)];
    for (width, height, format) in returns {
        let last = ring.next(&mut pixels, Some(PATIENCE)).unwrap().meta;
        writer.kill();
        until_within(PATIENCE, "the camera is gone", || ring.liveness() == Liveness::Gone);
        let_pass(Duration::from_millis(amount(200, 150_000)));
        let newest = ring.latest(&mut pixels).unwrap().meta;
        assert!(newest.seq >= last.seq && newest.geometry == last.geometry, "the last frame stays");
        writer = Actor::ready_writer(&shm, "cam", &["--fps", "100", "--size", &format!("{width}x{height}:{format}")]);
        let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
        let geometry = frame.meta.geometry;
        assert_eq!((geometry.width, geometry.height, geometry.format), (width, height, format));
        assert_untorn(frame.meta.seq.0, &pixels);
        assert!(frame.meta.seq > newest.seq && frame.meta.writer_epoch > newest.writer_epoch);
        let changed = FrameFlags::GEOMETRY_CHANGED.with(FrameFlags::AFTER_RESTART);
        assert!(frame.skipped > 0 || frame.meta.flags.contains(changed), "{:?}", frame.meta.flags);
        until_within(PATIENCE, "the other reader reads on", || reader.count("last") >= frame.meta.seq.0);
    }
    reader.stop();
    measured(format!(
        "away for {} ms and back with another size and format, three times: same handle",
        amount(200, 150_000)
    ));
}

/// Reads `frames` frames of a writer of this size and rate.
fn read_stream(size: &str, fps: u64, slots: &str, frames: u64) -> String {
    let shm = Shm::new();
    let fps_word = fps.to_string();
    let mut writer = Actor::ready_writer(&shm, "cam", &["--size", size, "--fps", &fps_word, "--slots", slots]);
    let mut reader = Actor::reader(&shm, "copy", "cam", &[]);
    until_within(LONG, "the frames are read", || {
        assert!(reader.ended().is_none(), "the reader has ended: {:?}", reader.answer());
        reader.count("copies") >= frames
    });
    reader.order("report");
    let report = numbers(&reader.answer());
    assert_eq!(report["frames"] + report["skipped"], report["last"] - report["after"], "{report:?}");
    reader.stop();
    writer.stop();
    format!(
        "{fps} fps of {size}: {} frames read, {} skipped and counted, {} us after publication (median, the copy included)",
        report["frames"], report["skipped"], report["p50_us"]
    )
}

#[test]
fn two_hundred_and_forty_small_frames_a_second_are_all_accounted_for() {
    measured(read_stream("64x64", 240, "8", amount(120, 28_800)));
}

#[test]
fn one_frame_of_8k_a_second_is_read_whole() {
    let free = free_bytes(Shm::new().path()).unwrap_or(0);
    if free < 1 << 30 {
        println!("skipped: a ring of 8K frames needs 300 MiB and the memory mount has {} MiB free", free >> 20);
        return;
    }
    measured(read_stream("7680x4320", 1, "3", amount(2, 120)));
}

#[test]
fn padded_rows_are_read_with_their_stride() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut pixels = Vec::new();
    for (width, stride) in [(405u32, 1216u32), (641, 2048), (1, 64), (333, 999)] {
        let height = 21;
        let mut geometry = Geometry::packed(width, height, PixelFormat::Bgr).unwrap();
        geometry.plane_strides[0] = stride;
        geometry.len = u64::from(stride * height);
        let mut slot = writer.claim(geometry.len).unwrap();
        for (row, bytes) in slot.as_mut().chunks_mut(stride as usize).enumerate() {
            bytes.fill(0xEE);
            let picture = &mut bytes[..width as usize * 3];
            picture.iter_mut().enumerate().for_each(|(k, byte)| *byte = ((row * 7 + k) % 251) as u8);
        }
        writer.publish(slot, FrameMeta::new(geometry)).unwrap();
        let frame = ring.latest(&mut pixels).unwrap();
        assert_eq!(frame.meta.geometry, geometry);
        assert_eq!(frame.meta.geometry.plane_extent(0), Some((u64::from(width * 3), u64::from(height))));
        for (row, bytes) in pixels.chunks(stride as usize).enumerate() {
            let (picture, padding) = bytes.split_at(width as usize * 3);
            assert!(picture.iter().enumerate().all(|(k, byte)| *byte == ((row * 7 + k) % 251) as u8), "row {row}");
            assert!(padding.iter().all(|byte| *byte == 0xEE), "row {row}");
        }
    }
}

#[test]
fn times_that_jump_change_neither_the_order_nor_the_age() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let hour_ns = 3_600_000_000_000i64;
    let geometry = Geometry::packed(64, 48, PixelFormat::Bgr).unwrap();
    let jumps = [0, hour_ns, -hour_ns, i64::MIN / 2, i64::MAX / 2, 0];
    for (index, jump) in jumps.into_iter().enumerate() {
        let mut slot = writer.claim(geometry.len).unwrap();
        slot.as_mut().fill(index as u8);
        let mut meta = FrameMeta::new(geometry);
        // The stream's clock and the wall clock jump; the host's monotonic one cannot.
        meta.pts_ns = jump;
        meta.arrival_mono_ns = mono_ns();
        meta.arrival_real_ns = real_ns().saturating_add(jump);
        writer.publish(slot, meta).unwrap();
        let mut pixels = Vec::new();
        let frame = ring.next(&mut pixels, Some(PATIENCE)).unwrap();
        assert_eq!((frame.meta.seq.0, frame.skipped, frame.meta.pts_ns), (index as u64 + 1, 0, jump));
        assert!(pixels.iter().all(|byte| usize::from(*byte) == index));
        let age = age_ns(&frame.meta);
        assert!((0..60_000_000_000).contains(&age), "age {age} ns after a jump of {jump} ns");
        assert_eq!(frame.meta.arrival_real_ns, meta.arrival_real_ns);
        assert!(ring.latest_within(&mut pixels, PATIENCE).is_ok(), "a frame of just now is fresh");
    }
}
