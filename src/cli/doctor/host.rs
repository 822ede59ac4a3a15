//! The memory mount, who may write into it, and who may read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use camring_ring::{ShmDir, mebibytes};

use super::Check;
use crate::diagnosis::Finding;

/// statfs's word for a tmpfs; ramfs has its own, and no limit.
const TMPFS: i64 = 0x0102_1994;
/// A mount fuller than this deserves a look, and one fuller than that has no room for a new ring.
const FULL_WARN: f64 = 80.0;
const FULL_FAIL: f64 = 97.0;

/// The checks of the mount and of users.
pub(super) fn checks(mount: &Path) -> Vec<Check> {
    let mut checks = vec![Check::host("mount", mount_check(mount))];
    let shm = ShmDir::new(mount);
    checks.push(Check::host("anchors", anchors(&shm.system_anchors(), Path::new("/run/systemd/system").exists())));
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let membership = Membership {
        uid: rustix::process::geteuid().as_raw(),
        gids: gids(),
        users: read("/etc/passwd"),
        groups: read("/etc/group"),
    };
    checks.push(Check::host("users", users(&membership)));
    checks
}

fn mount_check(mount: &Path) -> Finding {
    let shown = mount.display();
    let room = match rustix::fs::statvfs(mount) {
        Ok(room) => room,
        Err(error) => {
            let found = format!("{shown} cannot be examined: {error}");
            return Finding::fail("mount_missing", found, format!("mount -t tmpfs -o size=2G,mode=1777 tmpfs {shown}"));
        }
    };
    let (total, free) = (room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize);
    let is_tmpfs = rustix::fs::statfs(mount).is_ok_and(|found| found.f_type == TMPFS);
    judge_mount(mount, is_tmpfs, total, free, rings_in(mount))
}

/// Files of rings in a mount, and their bytes.
fn rings_in(mount: &Path) -> (usize, u64) {
    let shm = ShmDir::new(mount);
    let folders = [shm.system_anchors(), shm.user_anchors()];
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let sizes = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    let sizes: Vec<u64> = sizes
        .filter_map(|entry| entry.metadata().ok().filter(fs::Metadata::is_file))
        .map(|file| file.blocks() * 512)
        .collect();
    (sizes.len(), sizes.iter().sum())
}

fn judge_mount(mount: &Path, is_tmpfs: bool, total: u64, free: u64, (rings, bytes): (usize, u64)) -> Finding {
    let shown = mount.display();
    if !is_tmpfs {
        let found = format!("{shown} is no tmpfs: every frame would be written to a disk");
        return Finding::fail(
            "mount_no_tmpfs",
            found,
            format!("mount -t tmpfs -o size=2G,mode=1777 tmpfs {shown}, or another --shm-dir"),
        );
    }
    let takes = match rings {
        0 => "no ring in it".to_owned(),
        1 => format!("one ring takes {}", mebibytes(bytes)),
        rings => format!("{rings} rings take {}", mebibytes(bytes)),
    };
    if total == 0 {
        return Finding::ok("mount", format!("{shown} has no limit; {takes}"));
    }
    let used = total.saturating_sub(free);
    let percent = used as f64 * 100.0 / total as f64;
    let found = format!(
        "{shown}: {} of {} are in use ({percent:.0} %), {} free; {takes}",
        mebibytes(used),
        mebibytes(total),
        mebibytes(free)
    );
    let larger = (total * 2).div_ceil(1 << 20);
    let cure = format!(
        "mount -o remount,size={larger}M {shown} (and in /etc/fstab); fewer slots; max_size; camring rm --stale --dry-run shows rings whose daemon is gone"
    );
    match percent {
        FULL_FAIL.. => Finding::fail("mount_full", found, cure),
        FULL_WARN.. => Finding::warn("mount_full", found, cure),
        _ => Finding::ok("mount", found),
    }
}

/// The folder that makes rings outlive a log-out, and readable in containers.
fn anchors(folder: &Path, systemd: bool) -> Finding {
    let shown = folder.display();
    match fs::symlink_metadata(folder) {
        Ok(found) if !found.is_dir() => {
            let cure = format!("rm {shown}; systemd-tmpfiles --create camring.conf");
            Finding::fail("anchors", format!("{shown} is no folder"), cure)
        }
        Ok(found) if found.mode() & 0o002 != 0 => {
            let cure = format!("chown root:camring-svc {shown}; chmod 1775 {shown}");
            Finding::fail("anchors", format!("everybody may write into {shown}"), cure)
        }
        Ok(found) => Finding::ok(
            "anchors",
            format!("{shown}, mode {:04o}, owner {}:{}", found.mode() & 0o7777, found.uid(), found.gid()),
        ),
        Err(_) if systemd => Finding::warn(
            "anchors",
            format!("{shown} is not there: a log-out may remove rings, and containers have nothing to mount"),
            "install systemd/camring.tmpfiles.conf, then systemd-tmpfiles --create camring.conf",
        ),
        Err(_) => {
            Finding::ok("anchors", format!("{shown} is not there; rings of each user lie in a folder of that user"))
        }
    }
}

/// Who asks, and the host's tables of users and groups.
struct Membership {
    uid: u32,
    gids: Vec<u32>,
    users: String,
    groups: String,
}

impl Membership {
    fn group(&self, name: &str) -> Option<u32> {
        let line = self.groups.lines().find(|line| line.split(':').next() == Some(name))?;
        line.split(':').nth(2)?.parse().ok()
    }

    fn has_user(&self, name: &str) -> bool {
        self.users.lines().any(|line| line.split(':').next() == Some(name))
    }
}

fn gids() -> Vec<u32> {
    let mut gids: Vec<u32> = rustix::process::getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()).collect();
    gids.push(rustix::process::getegid().as_raw());
    gids
}

/// The service's user and groups, and whether who asks may read.
fn users(who: &Membership) -> Finding {
    let missing: Vec<&str> = [
        (!who.has_user("camring")).then_some("user camring"),
        who.group("camring").is_none().then_some("group camring"),
        who.group("camring-svc").is_none().then_some("group camring-svc"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !missing.is_empty() {
        return Finding::warn(
            "users_missing",
            format!("there is no {}: the units cannot start; cameras run by hand can", missing.join(", no ")),
            "install systemd/camring.sysusers.conf, then systemd-sysusers",
        );
    }
    let is_reader = who.uid == 0 || who.group("camring").is_some_and(|gid| who.gids.contains(&gid));
    if is_reader {
        return Finding::ok("users", "user camring, groups camring and camring-svc are there; you may read rings");
    }
    Finding::warn(
        "not_a_reader",
        "you are not in group camring: rings of the service cannot be read by you",
        "usermod -aG camring \"$USER\" as root, then log in again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Level;

    #[test]
    fn a_mount_is_judged_by_how_full_it_is() {
        let judge = |free: u64| judge_mount(Path::new("/dev/shm"), true, 1000 << 20, free << 20, (2, 50 << 20));
        let levels = [500, 190, 20].map(|free| judge(free).level);
        assert_eq!(levels, [Level::Ok, Level::Warn, Level::Fail]);
        let full = judge(190);
        assert!(full.found.contains("(81 %)") && full.found.contains("2 rings take 50.0 MiB"), "{full:?}");
        assert!(full.cure.starts_with("mount -o remount,size=2000M /dev/shm"), "{full:?}");
        assert_eq!(judge_mount(Path::new("/tmp"), false, 1, 1, (0, 0)).cause, "mount_no_tmpfs");
        assert_eq!(judge_mount(Path::new("/dev/shm"), true, 0, 0, (0, 0)).level, Level::Ok, "no limit");
    }

    #[test]
    fn missing_users_and_a_missing_membership_name_the_command_that_helps() {
        let who = |uid, gids: &[u32], groups: &str| Membership {
            uid,
            gids: gids.to_vec(),
            users: "root:x:0:0::/:/bin/sh\ncamring:x:997:996::/:/bin/false\n".into(),
            groups: groups.into(),
        };
        let groups = "camring:x:995:camring\ncamring-svc:x:996:\n";
        assert_eq!(users(&who(1000, &[1000, 995], groups)).cause, "users");
        assert_eq!(users(&who(0, &[0], groups)).cause, "users");
        assert!(users(&who(1000, &[1000], groups)).cure.contains("usermod -aG camring"));
        let none = users(&who(0, &[0], "camring:x:995:\n"));
        assert!(none.found.starts_with("there is no group camring-svc:"), "{none:?}");
    }
}
