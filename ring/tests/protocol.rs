//! The ring inside one process: what is published is read, names and generations behave, errors say what to do.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use camring_ring::{
    Capacity, ClaimError, Counter, CreateError, FrameFlags, FrameMeta, Geometry, Liveness, PixelFormat, ReadError,
    Reason, Ring, RingName, State, Writer,
};
use common::{Shm, publish};

fn read(ring: &Ring) -> (u64, u8) {
    let mut pixels = Vec::new();
    let frame = ring.latest(&mut pixels).unwrap();
    assert!(pixels.iter().all(|byte| *byte == pixels[0]), "frame {} is torn", frame.meta.seq);
    (frame.meta.seq.0, pixels[0])
}

#[test]
fn a_reader_always_gets_the_newest_frame() {
    let shm = Shm::new();
    let (mut writer, started) = Writer::start(shm.options("cam")).unwrap();
    assert!(!started.adopted);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    for value in 1..=100u8 {
        assert_eq!(publish(&mut writer, 640, 480, value), u64::from(value));
        assert_eq!(read(&ring), (u64::from(value), value));
    }
}

#[test]
fn a_copy_of_any_length_has_every_byte_and_writes_no_other() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let byte = |index: usize| (index * 31 % 251) as u8 + 1;
    for len in (1..=260).chain([4096, 65_535, 65_536]) {
        let geometry = Geometry::packed(len as u32, 1, PixelFormat::Gray).unwrap();
        let mut slot = writer.claim(geometry.len).unwrap();
        for (index, place) in slot.as_mut().iter_mut().enumerate() {
            *place = byte(index);
        }
        writer.publish(slot, FrameMeta::new(geometry)).unwrap();
        let mut out = vec![0; len + 200];
        ring.next_into(&mut out[7..], None).unwrap();
        let expected = (0..len).map(byte);
        assert!(out[7..7 + len].iter().copied().eq(expected), "{len} bytes");
        assert!(out[..7].iter().chain(&out[7 + len..]).all(|byte| *byte == 0), "beside {len} bytes");
    }
}

#[test]
fn skipped_counts_exactly_the_frames_that_were_not_returned() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut pixels = Vec::new();
    let mut published = 0;
    let mut accounted = 0;
    for burst in [1u64, 1, 5, 2, 17, 1] {
        for _ in 0..burst {
            published = publish(&mut writer, 64, 48, 9);
        }
        let frame = ring.latest(&mut pixels).unwrap();
        accounted += frame.skipped + 1;
        assert_eq!(frame.skipped, burst - 1, "after a burst of {burst}");
        assert_eq!(ring.latest(&mut pixels).unwrap().skipped, 0, "the same frame again");
    }
    assert_eq!(accounted, published);
    assert_eq!(ring.stats().skipped + ring.stats().frames, published);
}

#[test]
fn before_the_first_frame_a_read_tells_state_and_reason() {
    let shm = Shm::new();
    let (writer, _) = Writer::start(shm.options("cam")).unwrap();
    writer.status().set_state(State::Connecting, Reason::Auth, 3, None);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let error = ring.latest(&mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "ring \"cam\" has no frame yet; its camera is connecting (auth)");
    let status = ring.status();
    assert_eq!((status.state, status.reason, status.attempt), (State::Connecting, Reason::Auth, 3));
    let error = ring.next(&mut Vec::new(), Some(Duration::from_millis(5))).unwrap_err();
    assert!(matches!(error, ReadError::Timeout { writer_alive: true, .. }), "{error}");
}

#[test]
fn the_waiting_room_gives_way_to_a_generation_that_fits_and_readers_follow() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let waiting_room = ring.status().generation;
    assert_eq!(publish(&mut writer, 1280, 720, 1), 1);
    assert_eq!(read(&ring), (1, 1));
    let first = ring.status();
    assert_ne!(first.generation, waiting_room);
    assert_eq!(publish(&mut writer, 1920, 1080, 2), 2);
    assert_eq!(read(&ring), (2, 2));
    assert_ne!(ring.status().generation, first.generation);
    assert_eq!(publish(&mut writer, 320, 240, 3), 3);
    let meta = ring.peek().unwrap();
    assert_eq!((meta.geometry.width, meta.geometry.height, meta.geometry_epoch), (320, 240, 3));
    assert!(meta.flags.contains(FrameFlags::GEOMETRY_CHANGED));
    assert_eq!(ring.stats().followed, 2, "within capacity the generation stays");
    assert_eq!(shm.files(), ["camring.cam", "camring.d/.lock-cam", "camring.d/cam"]);
}

#[test]
fn state_and_counters_survive_a_new_generation() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let status = writer.status();
    status.set_state(State::Live, Reason::None, 0, None);
    status.set_text("avdec_h264", "h264");
    status.set_counter(Counter::Packets, 77);
    status.count_reconnect(Reason::NoPackets);
    status.set_session(1);
    publish(&mut writer, 640, 480, 1);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let seen = ring.status();
    assert_eq!((seen.state, seen.decoder.as_str(), seen.codec.as_str()), (State::Live, "avdec_h264", "h264"));
    assert_eq!((seen.counter(Counter::Packets), seen.counter(Counter::Generations)), (77, 2));
    assert_eq!(seen.reconnects, [(Reason::NoPackets, 1)]);
    assert_eq!(ring.peek().unwrap().session_id, 1);
    status.set_state(State::Stalled, Reason::NoPackets, 1, None);
    assert_eq!(ring.status().state, State::Stalled);
}

#[test]
fn the_next_writer_adopts_the_ring_and_the_reader_notices_only_flags_and_epoch() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 640, 480, 1);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let before = ring.status();
    drop(writer);
    let (mut writer, started) = Writer::start(shm.options("cam")).unwrap();
    assert!(started.adopted, "{started:?}");
    assert_eq!(read(&ring), (1, 1), "the last frame stays readable");
    assert_eq!(publish(&mut writer, 640, 480, 2), 2);
    let meta = ring.peek().unwrap();
    assert!(meta.flags.contains(FrameFlags::AFTER_RESTART.with(FrameFlags::DISCONT)));
    assert_eq!(meta.writer_epoch, before.writer_epoch + 1);
    assert_eq!(ring.status().generation, before.generation);
    assert_eq!(ring.stats().followed, 0);
    publish(&mut writer, 640, 480, 3);
    assert!(!ring.peek().unwrap().flags.contains(FrameFlags::AFTER_RESTART), "only the first frame carries it");
}

#[test]
fn another_number_of_slots_makes_a_new_generation_that_continues_the_numbers() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 640, 480, 1);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    assert_eq!(read(&ring), (1, 1));
    drop(writer);
    let mut options = shm.options("cam");
    options.slots = 5;
    let (mut writer, started) = Writer::start(options).unwrap();
    assert_eq!(started.not_adopted.as_deref(), Some("the number of slots was 8 and is now 5"));
    assert_eq!(publish(&mut writer, 640, 480, 2), 2);
    assert_eq!(read(&ring), (2, 2));
    assert_eq!(ring.layout().slot_count, 5);
}

#[test]
fn a_second_writer_is_refused_and_the_message_names_the_first() {
    let shm = Shm::new();
    let (_writer, _) = Writer::start(shm.options("cam")).unwrap();
    let error = Writer::start(shm.options("cam")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("ring \"cam\" is already written by process {}; stop it first", std::process::id())
    );
}

#[test]
fn a_frame_over_max_size_is_refused_and_the_ring_goes_on() {
    let shm = Shm::new();
    let mut options = shm.options("cam");
    options.capacity = Capacity::Bytes(640 * 480 * 3);
    let (mut writer, _) = Writer::start(options).unwrap();
    publish(&mut writer, 640, 480, 1);
    assert!(matches!(writer.claim(1920 * 1080 * 3), Err(ClaimError::TooLarge { .. })));
    writer.count_drop(Counter::DroppedOverload);
    assert_eq!(publish(&mut writer, 640, 480, 2), 2);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    assert_eq!(ring.peek().unwrap().dropped_before, 1);
}

#[test]
fn a_slot_dropped_without_publishing_is_free_again() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let len = Geometry::packed(64, 48, PixelFormat::Bgr).unwrap().len;
    publish(&mut writer, 64, 48, 1);
    for _ in 0..20 {
        let mut slots: Vec<_> = std::iter::from_fn(|| writer.claim(len).ok()).collect();
        assert_eq!(slots.len(), 7, "all but the newest frame's");
        slots.iter_mut().for_each(|slot| slot.as_mut().fill(0xEE));
    }
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    assert_eq!(read(&ring), (1, 1));
    assert_eq!(publish(&mut writer, 64, 48, 2), 2);
}

#[test]
fn the_newest_frame_is_never_written_over_even_when_every_other_slot_is_taken() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 5);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let slots: Vec<_> = std::iter::from_fn(|| writer.claim(64 * 48 * 3).ok()).collect();
    assert_eq!(slots.len(), 7);
    assert_eq!(read(&ring), (1, 5));
}

#[test]
fn every_page_of_a_ring_is_allocated_so_that_a_full_mount_cannot_hurt_it() {
    use std::os::unix::fs::MetadataExt;
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 1920, 1080, 1);
    let meta = std::fs::metadata(shm.path().join("camring.cam")).unwrap();
    assert!(meta.blocks() * 512 >= meta.size(), "{} blocks for {} bytes", meta.blocks(), meta.size());
    assert_eq!(meta.mode() & 0o7777, 0o640);
}

#[test]
fn a_foreign_file_under_the_public_name_is_named_and_never_touched() {
    let shm = Shm::new();
    let path = shm.path().join("camring.cam");
    std::fs::write(&path, b"precious").unwrap();
    let error = Writer::start(shm.options("cam")).unwrap_err();
    assert!(matches!(error, CreateError::NameTaken { .. }), "{error}");
    assert!(error.to_string().contains("is taken by a file that is no camring segment"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    let error = Writer::start(shm.options("cam")).unwrap_err();
    assert!(error.to_string().contains("is taken by a symbolic link"), "{error}");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let error = Writer::start(shm.options("cam")).unwrap_err();
    assert!(error.to_string().contains("is taken by something that is no regular file"), "{error}");
}

#[test]
fn two_cameras_cannot_share_a_segment_name() {
    let shm = Shm::new();
    let (_first, _) = Writer::start(shm.options("cam")).unwrap();
    let mut options = shm.options("other");
    options.segment = RingName::new("cam").unwrap().default_segment();
    let error = Writer::start(options).unwrap_err();
    assert!(error.to_string().contains("is taken by the ring of camera \"cam\""), "{error}");
}

#[test]
fn a_removed_name_comes_back_on_the_same_inode() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    for name in ["camring.cam", "camring.d/cam"] {
        std::fs::remove_file(shm.path().join(name)).unwrap();
        assert_eq!(writer.status().settle_names().unwrap().relinked, 1);
    }
    publish(&mut writer, 64, 48, 2);
    assert_eq!(read(&ring), (2, 2));
    assert_eq!(ring.stats().followed, 0);
    assert_eq!(read(&Ring::attach("camring.cam", shm.attach_options()).unwrap()), (2, 2));
}

#[test]
fn when_both_names_are_gone_the_next_frame_makes_a_new_generation_and_readers_follow() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    std::fs::remove_file(shm.path().join("camring.cam")).unwrap();
    std::fs::remove_file(shm.path().join("camring.d/cam")).unwrap();
    assert!(writer.status().settle_names().unwrap().lost);
    assert_eq!(read(&ring), (1, 1), "the mapped frame stays readable");
    publish(&mut writer, 64, 48, 2);
    assert_eq!(read(&ring), (2, 2));
    assert_eq!(ring.stats().followed, 1);
}

#[test]
fn rm_refuses_a_ring_in_use_and_removes_every_file_of_one_that_is_not() {
    let shm = Shm::new();
    let name = RingName::new("cam").unwrap();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    let error = camring_ring::remove(&shm.dir(), &name).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("ring \"cam\" is in use by process {}; stop camring@cam first", std::process::id())
    );
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    drop(writer);
    assert_eq!(ring.liveness(), Liveness::Gone);
    camring_ring::remove(&shm.dir(), &name).unwrap();
    assert_eq!(shm.files(), [""; 0]);
    assert!(ring.is_removed());
    assert_eq!(read(&ring), (1, 1), "an attached reader keeps its frame");
    let error = camring_ring::remove(&shm.dir(), &name).unwrap_err();
    assert_eq!(error.to_string(), "no ring \"cam\"; `camring list` shows what there is");
}

#[test]
fn rings_are_listed_by_name_without_internal_files() {
    let shm = Shm::new();
    let _writers: Vec<_> = ["b", "a", "a.small"].iter().map(|name| Writer::start(shm.options(name)).unwrap()).collect();
    let names: Vec<String> = camring_ring::rings(&shm.dir()).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "a.small", "b"]);
}

#[test]
fn a_ring_that_does_not_exist_is_an_error_that_says_where_it_was_looked_for() {
    let shm = Shm::new();
    let mut options = shm.attach_options();
    options.timeout = Some(Duration::ZERO);
    let error = Ring::attach("nothing", options).unwrap_err().to_string();
    let root = shm.path().display();
    assert_eq!(
        error,
        format!(
            "no ring \"nothing\": looked for {root}/camring.d/nothing, {root}/camring-0.d/nothing, {root}/nothing; \
             is its daemon running? `camring list` shows what there is"
        )
        .replace("camring-0.d", &format!("camring-{}.d", rustix::process::geteuid().as_raw()))
    );
}

#[test]
fn a_reader_is_counted_while_it_is_attached() {
    let shm = Shm::new();
    let (_writer, _) = Writer::start(shm.options("cam")).unwrap();
    let first = Ring::attach("cam", shm.attach_options()).unwrap();
    assert_eq!(first.readers(), [std::process::id()]);
    let second = Ring::attach("cam", shm.attach_options()).unwrap();
    assert_eq!(first.readers().len(), 2);
    drop(second);
    assert_eq!(first.readers().len(), 1);
}

#[test]
fn a_buffer_of_the_wrong_size_is_refused_with_both_sizes() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let error = ring.latest_into(&mut [0; 10]).unwrap_err();
    assert_eq!(error.to_string(), "the buffer has 10 bytes but the frame needs 9216; make it that size");
    let mut right = vec![0; 9216];
    assert_eq!(ring.latest_into(&mut right).unwrap().meta.seq.0, 1);
    assert_eq!(right, vec![1; 9216]);
}

#[test]
fn the_next_frame_goes_into_the_front_of_a_larger_buffer_and_is_not_lost_on_a_smaller_one() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 8, 4, 7);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let mut short = [0; 95];
    let error = ring.next_into(&mut short, Some(Duration::ZERO)).unwrap_err();
    assert_eq!(error, ReadError::BufferSize { found: 95, expected: 96 });
    let mut long = [1; 100];
    assert_eq!(ring.next_into(&mut long, Some(Duration::ZERO)).unwrap().meta.seq.0, 1);
    assert_eq!((&long[..96], &long[96..]), (&[7; 96][..], &[1; 4][..]));
    let error = ring.next_into(&mut long, Some(Duration::ZERO)).unwrap_err();
    assert!(matches!(error, ReadError::Timeout { .. }), "{error}");
}

#[test]
fn a_formatted_file_is_read_like_any_ring() {
    let shm = Shm::new();
    let path = shm.path().join("copy");
    let bytes = Writer::format_bytes(4, 64 * 48 * 3).unwrap();
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    let mut options = shm.options("copy");
    options.slots = 4;
    let mut writer = Writer::format(&path, options, 64 * 48 * 3).unwrap();
    publish(&mut writer, 64, 48, 6);
    let ring = Ring::attach("copy", shm.attach_options()).unwrap();
    assert_eq!(read(&ring), (1, 6));
    assert_eq!(ring.layout().lease_policy, 2);
    assert!(matches!(writer.claim(1 << 30), Err(ClaimError::TooLarge { .. })));
}

#[test]
fn threads_that_share_a_handle_share_its_frames() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut pixels = Vec::new();
                    std::iter::from_fn(|| ring.next(&mut pixels, Some(Duration::from_millis(500))).ok()).count() as u64
                })
            })
            .collect();
        for value in 0..200u8 {
            publish(&mut writer, 64, 48, value);
            std::thread::yield_now();
        }
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    let stats = ring.stats();
    assert_eq!(counts.iter().sum::<u64>(), stats.frames, "a frame was returned to two threads: {counts:?}");
    assert_eq!(ring.last_seq().0, 200);
}

#[test]
fn times_that_no_clock_can_show_do_not_stop_a_reader() {
    let mut meta = camring_ring::FrameMeta::new(Geometry::packed(4, 4, PixelFormat::Bgr).unwrap());
    for arrival in [i64::MIN, -1, 0, i64::MAX] {
        for suspended in [i64::MIN, 0, i64::MAX] {
            (meta.arrival_mono_ns, meta.boot_minus_mono_ns) = (arrival, suspended);
            let _ = camring_ring::age_ns(&meta);
        }
    }
}

#[test]
fn metadata_that_describe_more_than_was_claimed_are_refused() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    let slot = writer.claim(100).unwrap();
    let meta = camring_ring::FrameMeta::new(Geometry::packed(64, 48, PixelFormat::Bgr).unwrap());
    let error = writer.publish(slot, meta).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the metadata describe 9216 bytes but 100 were claimed; claim what the geometry needs"
    );
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    assert_eq!(read(&ring), (1, 1), "the ring is as it was");
    assert_eq!(publish(&mut writer, 64, 48, 2), 2);
}

#[test]
fn a_larger_generation_that_was_never_used_does_not_falsify_the_numbers() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    drop(writer.claim(1920 * 1080 * 3).unwrap());
    for value in 2..=20 {
        publish(&mut writer, 64, 48, value);
    }
    publish(&mut writer, 1920, 1080, 21);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    assert_eq!(ring.layout().base_seq, 20);
    assert_eq!(read(&ring), (21, 21));
}

#[test]
fn a_ring_replaced_at_start_says_so_and_keeps_its_counters() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    writer.status().set_session(4);
    drop(writer);
    let mut options = shm.options("cam");
    options.slots = 5;
    let (mut writer, started) = Writer::start(options).unwrap();
    assert!(!started.adopted);
    publish(&mut writer, 64, 48, 2);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let (meta, status) = (ring.peek().unwrap(), ring.status());
    assert!(meta.flags.contains(FrameFlags::AFTER_RESTART.with(FrameFlags::DISCONT)));
    assert_eq!((status.writer_epoch, status.session_id, status.counter(Counter::Published)), (2, 4, 2));
}

#[test]
fn numbers_go_on_when_only_the_public_name_is_left() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    let ring = Ring::attach("camring.cam", shm.attach_options()).unwrap();
    drop(writer);
    std::fs::remove_file(shm.path().join("camring.d/cam")).unwrap();
    let (mut writer, started) = Writer::start(shm.options("cam")).unwrap();
    assert_eq!(started.not_adopted.as_deref(), Some("its anchor is missing"));
    assert_eq!(publish(&mut writer, 64, 48, 2), 2);
    assert_eq!(read(&ring), (2, 2));
}

#[test]
fn an_onlooker_that_reads_no_pixels_follows_a_ring_that_was_made_anew() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let before = ring.status().generation;
    drop(writer);
    std::fs::remove_file(shm.path().join("camring.cam")).unwrap();
    std::fs::remove_file(shm.path().join("camring.d/cam")).unwrap();
    let (_writer, _) = Writer::start(shm.options("cam")).unwrap();
    common::until("the handle shows the new ring", || ring.status().generation != before);
}

/// A process that locks every byte of a file for reading, as any reader may; killed at the end.
struct Squatter(Child);

impl Squatter {
    fn lock(file: &Path) -> Self {
        const SCRIPT: &str = "import fcntl, struct, sys\n\
            file = open(sys.argv[1], 'rb')\n\
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack('hhqqi4x', fcntl.F_RDLCK, 0, 0, 0, 0))\n\
            print('held', flush=True)\n\
            sys.stdin.read()";
        let mut python = Command::new("python3");
        python.args(["-c", SCRIPT]).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().expect("python3 is installed");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }

    /// Lets it go; it must have held the lock until now.
    fn end(mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None);
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Squatter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_reader_that_squats_on_the_alive_byte_neither_stops_a_daemon_nor_makes_it_look_dead() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    drop(writer);
    let squatter = Squatter::lock(&shm.path().join("camring.cam"));
    let (mut writer, started) = Writer::start(shm.options("cam")).unwrap();
    assert!(started.adopted, "{started:?}");
    let _house = camring_ring::Housekeeping::spawn(writer.status(), |_| {}).unwrap();
    publish(&mut writer, 64, 48, 2);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    assert_eq!(read(&ring), (2, 2));
    common::until("the heartbeat is seen to move", || ring.liveness() == Liveness::Alive);
    squatter.end();
}

#[test]
fn a_planted_link_in_place_of_the_anchor_folder_is_refused() {
    let shm = Shm::new();
    let target = shm.path().join("elsewhere");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("cam"), b"precious").unwrap();
    std::os::unix::fs::symlink(&target, shm.path().join("camring.d")).unwrap();
    let error = Writer::start(shm.options("cam")).unwrap_err();
    assert!(error.to_string().contains("is not a folder"), "{error}");
    let error = camring_ring::remove(&shm.dir(), &RingName::new("cam").unwrap()).unwrap_err();
    assert!(error.to_string().contains("is not a folder"), "{error}");
    assert_eq!(std::fs::read(target.join("cam")).unwrap(), b"precious");
}

#[test]
fn more_sleepers_than_one_call_wakes_are_all_woken() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let _house = camring_ring::Housekeeping::spawn(writer.status(), |_| {}).unwrap();
    publish(&mut writer, 64, 48, 1);
    let rings: Vec<Ring> = (0..80).map(|_| Ring::attach("cam", shm.attach_options()).unwrap()).collect();
    // All of them look around once in a quarter of a second, and may do so just when a frame is published.
    common::until("a wake-up call leaves sleepers for housekeeping", || {
        let last = writer.status().newest();
        let woken = std::thread::scope(|scope| {
            let wait = |ring| scope.spawn(move || Ring::wait(ring, last, Some(Duration::from_secs(20))));
            let sleepers: Vec<_> = rings.iter().map(wait).collect();
            common::until("most readers sleep", || asleep() >= 60);
            publish(&mut writer, 64, 48, 2);
            sleepers.into_iter().map(|sleeper| sleeper.join().unwrap()).filter(|woken| *woken).count()
        });
        assert_eq!(woken, 80);
        rings[0].status().counter(Counter::WakeOverflow) >= 1
    });
}

/// Threads of this process that sleep in a futex call.
fn asleep() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter(|task| std::fs::read_to_string(task.path().join("wchan")).is_ok_and(|at| at.contains("futex"))).count()
}
