//! A writer whose process forks: the child has its memory and descriptors, and may do nothing with them.

mod common;

use camring_ring::{
    ClaimError, Counter, FrameMeta, Geometry, Housekeeping, Liveness, PixelFormat, PublishError, Reason, Ring, State,
    Writer,
};
use common::system::Child;
use common::{Shm, publish};

const FORKED: &str =
    "this process was forked from the one that writes the ring; publish there, or start a writer of another ring here";

#[test]
fn a_forked_child_of_the_writer_can_neither_publish_nor_end_the_ring() {
    let shm = Shm::new();
    let (mut writer, _) = Writer::start(shm.options("cam")).unwrap();
    let house = Housekeeping::spawn(writer.status(), |_| {}).unwrap();
    publish(&mut writer, 64, 48, 1);
    let geometry = Geometry::packed(64, 48, PixelFormat::Bgr).unwrap();
    let (kept, dropped) = (writer.claim(geometry.len).unwrap(), writer.claim(geometry.len).unwrap());
    let ring = Ring::attach("cam", shm.attach_options()).unwrap();
    let files = shm.files();
    let mut parts = Some((writer, house, kept, dropped));
    let child = Child::fork(|_| {
        let (mut writer, house, kept, dropped) = parts.take().unwrap();
        let error = writer.claim(10).unwrap_err();
        assert!(matches!(error, ClaimError::Forked), "{error}");
        assert_eq!(error.to_string(), FORKED);
        let error = writer.publish(kept, FrameMeta::new(geometry)).unwrap_err();
        assert!(matches!(error, PublishError::Forked), "{error}");
        assert_eq!(error.to_string(), FORKED);
        writer.count_drop(Counter::DroppedNoSlot);
        let status = writer.status();
        status.set_state(State::Error, Reason::Internal, 9, None);
        status.add(Counter::Packets, 7);
        status.stopped(Reason::Operator);
        assert_eq!((status.settle_names().unwrap().relinked, status.newest().0), (0, 0));
        drop(dropped);
        drop(house);
        drop((writer, status));
    });
    child.end();
    let (mut writer, house, kept, dropped) = parts.take().unwrap();
    assert_eq!(shm.files(), files, "the child has taken a name away");
    let status = ring.status();
    assert_eq!((status.state, status.writer_pid), (State::Starting, std::process::id()));
    assert_eq!((status.counter(Counter::Packets), status.counter(Counter::DroppedNoSlot)), (0, 0));
    assert_ne!(ring.liveness(), Liveness::Gone, "the child has let go of the alive byte");
    let refused = Writer::start(shm.options("cam")).unwrap_err();
    assert!(
        refused.to_string().contains("is already written by process"),
        "the child has let go of the lock: {refused}"
    );
    // The slots that the child dropped are the parent's still: the next claims take others, and they can be published.
    let others: Vec<_> = std::iter::from_fn(|| writer.claim(geometry.len).ok()).collect();
    assert_eq!(others.len(), 5, "eight, less the newest frame's and two");
    drop(others);
    assert_eq!(writer.publish(kept, FrameMeta::new(geometry)).unwrap().0, 2);
    drop(dropped);
    assert_eq!(publish(&mut writer, 64, 48, 3), 3);
    drop(house);
}
