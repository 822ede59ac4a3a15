//! A ring that is made anew with other options while it runs, and the question whether anybody reads it.

mod common;

use camring_ring::{
    AttachOptions, Capacity, ClaimError, Counter, Geometry, LeasePolicy, PixelFormat, Presence, ReaderGroup, Ring,
    Writer, WriterOptions,
};
use common::{Shm, publish, until};

#[test]
fn a_reshaped_ring_goes_on_in_a_new_generation_that_readers_follow() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    assert_eq!(publish(&mut writer, 64, 48, 1), 1);
    let mut pixels = Vec::new();
    let before = ring.latest(&mut pixels).unwrap();
    writer.reshape(WriterOptions { slots: 5, lease_policy: LeasePolicy::Protect, ..shm.options("another-name") });
    assert!(writer.is_reshaping());
    assert_eq!(ring.latest(&mut pixels).unwrap().generation, before.generation, "not before the next frame");
    assert_eq!(publish(&mut writer, 64, 48, 2), 2);
    assert!(!writer.is_reshaping() && writer.take_reshape_error().is_none());
    until("the reader follows", || ring.latest(&mut pixels).unwrap().meta.seq.0 == 2);
    assert!(pixels.iter().all(|byte| *byte == 2));
    let layout = ring.layout();
    assert_eq!((layout.slot_count, layout.lease_policy), (5, LeasePolicy::Protect as u32));
    assert_ne!(layout.ring_uuid, before.generation);
    assert_eq!(layout.camera_id, "cam", "the name stays");
    assert_eq!(ring.status().counter(Counter::Generations), 2);
    assert_eq!(publish(&mut writer, 64, 48, 3), 3);
    assert_eq!(ring.layout().ring_uuid, layout.ring_uuid, "once is enough");
}

#[test]
fn a_shape_that_cannot_be_made_leaves_the_ring_as_it_is_and_says_why() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let nobody = ReaderGroup::Named("no-such-group-here".into());
    writer.reshape(WriterOptions { group: nobody, ..shm.options("cam") });
    assert_eq!(publish(&mut writer, 64, 48, 2), 2);
    let error = writer.take_reshape_error().expect("the group does not exist").to_string();
    assert!(error.contains("no-such-group-here"), "{error}");
    assert!(writer.take_reshape_error().is_none() && writer.is_reshaping());
    assert_eq!(ring.status().counter(Counter::Generations), 1);
    writer.reshape(WriterOptions { slots: 4, ..shm.options("cam") });
    assert_eq!(publish(&mut writer, 64, 48, 3), 3);
    assert!(!writer.is_reshaping());
    let mut pixels = Vec::new();
    until("the reader follows", || ring.latest(&mut pixels).unwrap().meta.seq.0 == 3);
    assert_eq!(ring.layout().slot_count, 4);
}

#[test]
fn the_largest_frame_can_be_raised_and_lowered() {
    let shm = Shm::new();
    let sized = |width| {
        let bytes = Geometry::packed(width, 48, PixelFormat::Bgr).unwrap().len;
        WriterOptions { capacity: Capacity::Bytes(bytes), ..shm.options("cam") }
    };
    let wide = Geometry::packed(4096, 48, PixelFormat::Bgr).unwrap().len;
    let (mut writer, _) = Writer::start(sized(64)).unwrap();
    publish(&mut writer, 64, 48, 1);
    assert!(matches!(writer.claim(wide), Err(ClaimError::TooLarge { .. })));
    writer.reshape(sized(4096));
    assert_eq!(publish(&mut writer, 4096, 48, 2), 2);
    writer.reshape(sized(64));
    assert!(matches!(writer.claim(wide), Err(ClaimError::TooLarge { .. })), "the file says so");
    assert_eq!(publish(&mut writer, 64, 48, 3), 3);
    assert!(matches!(writer.claim(wide), Err(ClaimError::TooLarge { .. })));
}

#[test]
fn a_ring_is_attended_as_long_as_a_reader_that_counts_itself_is_attached() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    publish(&mut writer, 64, 48, 1);
    let status = writer.status();
    assert!(!status.is_attended());
    let onlooker = AttachOptions { presence: Presence::Uncounted, ..shm.attach_options() };
    let _onlooker = Ring::attach("cam", onlooker).unwrap();
    assert!(!status.is_attended());
    let readers = [(); 2].map(|()| Ring::attach("cam", shm.attach_options()).unwrap());
    assert!(status.is_attended());
    let [first, second] = readers;
    drop(first);
    assert!(status.is_attended());
    // A reader that follows counts itself in the next generation as well.
    writer.reshape(WriterOptions { slots: 4, ..shm.options("cam") });
    publish(&mut writer, 64, 48, 2);
    let mut pixels = Vec::new();
    until("the reader follows", || second.latest(&mut pixels).unwrap().meta.seq.0 == 2);
    assert!(status.is_attended());
    drop(second);
    assert!(!status.is_attended());
}
