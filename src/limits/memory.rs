//! The limit on memory: that of the tightest control group of this process, and whether its rings fit below it.
//!
//! The pages of a ring count against the group of the process that allocates them (`MemoryMax=` of the unit, the memory
//! limit of a container). A ring that exceeds it would end the process each time it is made.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use camring_ring::{Capacity, Geometry, Writer, mebibytes};

use crate::config::{Camera, Source};
use crate::exit::{Exit, Failure};
use crate::rings::Plan;

const GROUPS: &str = "/proc/self/cgroup";
const MOUNT: &str = "/sys/fs/cgroup";
/// What a camera of 1920x1080 takes besides its ring, measured; below that a warning says so.
const BESIDES: u64 = 32 << 20;

/// The tightest limit on memory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemoryLimit {
    /// Bytes.
    pub bytes: u64,
    /// The file that says so.
    pub file: PathBuf,
}

impl MemoryLimit {
    /// That of this process; `None` where no control group limits it.
    #[must_use]
    pub fn of_process() -> Option<Self> {
        // A system without control groups has no such limit.
        Self::tightest(&fs::read_to_string(GROUPS).unwrap_or_default(), Path::new(MOUNT))
    }

    /// `groups` as /proc/self/cgroup has them: `0::/path` in the unified hierarchy, `4:memory:/path` in the older one.
    fn tightest(groups: &str, mount: &Path) -> Option<Self> {
        let limits = groups.lines().filter_map(|line| {
            let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
            match controllers {
                "" => of_group(mount, group, "memory.max"),
                _ if controllers.split(',').any(|one| one == "memory") => {
                    of_group(&mount.join("memory"), group, "memory.limit_in_bytes")
                }
                _ => None,
            }
        });
        limits.min_by_key(|limit| limit.bytes)
    }

    /// Why `bytes` of rings cannot be had; `None` when they can. `what` is the subject: `the ring needs`.
    #[must_use]
    pub fn refusal(&self, what: &str, bytes: u64) -> Option<String> {
        (bytes > self.bytes).then(|| {
            format!(
                "{what} {}, and {self}; raise MemoryMax= of the unit (the memory limit of the container) above that and \
                 {} for decoding, or set fewer slots or a smaller max_size",
                mebibytes(bytes),
                mebibytes(BESIDES),
            )
        })
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this process may have {} of memory ({})", mebibytes(self.bytes), self.file.display())
    }
}

/// The least limit of a group and those above it; what is not a number is no limit.
fn of_group(mount: &Path, group: &str, file: &str) -> Option<MemoryLimit> {
    let limits = Path::new(group.trim_start_matches('/')).ancestors().filter_map(|group| {
        let file = mount.join(group).join(file);
        let bytes = fs::read_to_string(&file).ok()?.trim().parse().ok()?;
        Some(MemoryLimit { bytes, file })
    });
    limits.min_by_key(|limit| limit.bytes)
}

/// Refuses a camera whose rings, as far as their size is known, do not fit below the limit; warns when decoding hardly would.
///
/// # Errors
///
/// 78, with both numbers.
pub fn check(camera: &Camera, plans: &[Plan], limit: Option<MemoryLimit>) -> Result<(), Failure> {
    let Some(limit) = limit else { return Ok(()) };
    let needed: u64 = plans.iter().map(|plan| known_bytes(camera, plan)).sum();
    let what = if plans.len() == 1 { "the ring needs" } else { "its rings together need" };
    if let Some(refusal) = limit.refusal(what, needed) {
        return Err(Failure::message(Exit::Config, format!("camera \"{}\": {refusal}", camera.name)));
    }
    if needed + BESIDES > limit.bytes {
        let both = mebibytes(needed + BESIDES);
        tracing::warn!(
            camera = camera.name.as_str(),
            "{what}, with decoding, about {both}, and {limit}; the kernel may end this process"
        );
    }
    Ok(())
}

/// Bytes of the ring's file as far as they are known before the first picture.
fn known_bytes(camera: &Camera, plan: &Plan) -> u64 {
    let slot_bytes = match (plan.options.capacity, &camera.source) {
        (Capacity::Bytes(bytes), _) => Some(bytes),
        (Capacity::FromSource, Source::Test(picture)) => {
            // One that cannot be placed makes no frame.
            let placed = plan.look.view.place((picture.size.width, picture.size.height), 2).ok();
            placed.and_then(|placed| Some(Geometry::packed(placed.size.0, placed.size.1, plan.look.format)?.len))
        }
        (Capacity::FromSource, _) => None,
    };
    // A number of slots that makes no ring is refused when it is made.
    slot_bytes.and_then(|bytes| Writer::format_bytes(plan.options.slots, bytes)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mount of control groups with these files.
    fn mount(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn bytes(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        MemoryLimit::tightest(groups, mount(files).path()).map(|limit| limit.bytes)
    }

    #[test]
    fn the_tightest_group_above_counts() {
        let unit = "system.slice/camring@front.service/memory.max";
        let files = [(unit, "max\n"), ("system.slice/memory.max", "64000000\n"), ("memory.max", "max\n")];
        assert_eq!(bytes("0::/system.slice/camring@front.service\n", &files), Some(64_000_000));
        let files = [(unit, "1000\n"), ("system.slice/memory.max", "64000000\n")];
        assert_eq!(bytes("0::/system.slice/camring@front.service\n", &files), Some(1000));
        assert_eq!(bytes("0::/another.slice\n", &files), None);
        assert_eq!(bytes("", &files), None);
    }

    #[test]
    fn the_older_hierarchy_and_a_container_that_sees_itself_as_the_root_are_read() {
        let files = [("memory/docker/abc/memory.limit_in_bytes", "5000\n"), ("memory.max", "4000\n")];
        assert_eq!(bytes("9:name=systemd:/\n4:cpu,memory:/docker/abc\n", &files), Some(5000));
        assert_eq!(bytes("0::/\n", &files), Some(4000));
        assert_eq!(bytes("0::/\n4:memory:/docker/abc\n", &files), Some(4000));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers_and_the_file() {
        let limit = MemoryLimit { bytes: 16 << 20, file: "/sys/fs/cgroup/x/memory.max".into() };
        assert_eq!(limit.refusal("the ring needs", 16 << 20), None);
        let text = limit.refusal("the ring needs", 50 << 20).unwrap();
        let both =
            "the ring needs 50.0 MiB, and this process may have 16.0 MiB of memory (/sys/fs/cgroup/x/memory.max)";
        assert!(text.starts_with(both), "{text}");
    }
}
