# shellcheck shell=bash
# What scripts/test-unit, scripts/test-package and scripts/test-vm share: a clean Debian 12, and the words of the judges
# that they send inside (`declare -f`). Sourced after scripts/lib.sh, never run.

SUITE=bookworm
TREE=$CACHE/debian-12
# What a Debian 12 server has anyway, and what the judges use.
BASE=systemd,systemd-sysv,dbus,ca-certificates,python3,python3-venv,init-system-helpers,iproute2,procps,passwd

# need_tree: the clean tree, made once.
need_tree() {
    need_packages debootstrap
    [ ! -e "$TREE/.complete" ] || return 0
    local mirror
    # Single quotes: apt fills the fields in.
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $SUITE" 'Component: main' | head -n 1)
    [ -n "$mirror" ] || die "this machine's apt knows no mirror of Debian 12 ($SUITE)"
    say "making a clean Debian 12 (once, some minutes)"
    rm -rf "$TREE"
    debootstrap --variant=minbase --include="$BASE" "$SUITE" "$TREE" "$mirror" >&2
    touch "$TREE/.complete"
}

# with_apt ROOT COMMAND: a shell command in a tree in which apt works as it does on this machine; in a mount namespace of
# the caller's own.
with_apt() {
    local root=$1
    mount -t proc proc "$root/proc"
    mount --bind /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
    mkdir -p "$root/tmp/host-apt"
    mount --bind /etc/apt/apt.conf.d "$root/tmp/host-apt"
    chroot "$root" sh -c "
        export DEBIAN_FRONTEND=noninteractive HOME=/root
        cat /tmp/host-apt/*proxy* >/etc/apt/apt.conf.d/00proxy 2>/dev/null
        apt-get update -q -o Acquire::Check-Valid-Until=false -o Acquire::Check-Date=false && $2"
    umount "$root/tmp/host-apt" "$root/proc"
    umount "$root/etc/resolv.conf" 2>/dev/null || true
}

# promise WHAT COMMAND...: inside; one line for each.
promise() {
    local what=$1
    shift
    PROMISED=$((${PROMISED:-0} + 1))
    if "$@" >>/run/out/log 2>&1; then echo "ok $PROMISED $what"; else echo "not ok $PROMISED $what"; fi
}

# until_true SECONDS COMMAND...
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do [ "$SECONDS" -lt "$end" ] || return 1; done
}

# Files of the package that a purge has left; apt's and systemd's own records are theirs.
left_over() {
    find / -xdev -name '*camring*' -not -path '/proc/*' -not -path '/sys/*' -not -path '/home/alice/*' -not -path '/var/log/*' \
        -not -path '/var/cache/apt/*' -not -path '/var/lib/systemd/timers/*'
    find /dev/shm /run -name '*camring*' -not -path '/run/out/*' -not -path '/run/systemd/*'
}
