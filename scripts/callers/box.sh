#!/bin/bash
# Runs one script of scripts/callers in a box: a Debian of its own (an overlay that is thrown away), in private mount,
# pid, network, IPC, UTS and cgroup namespaces, with a cgroup of its own in each hierarchy. Daemons end with the box.
# usage: scripts/callers/box.sh ROOT RUNTIME RESULTS SCRIPT [WORD...]        (ROOT: a directory with a Debian)
# In the guest with systemd CALLERS_BOX=guest is set: there is nothing to be protected, and systemd has the cgroups.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$1 runtime=$2 results=$3 script=$4
shift 4
group=callers.$$
criu=$here/../../.cache/criu

# Bind mounts take the place of each hierarchy's root: an engine sees its own cgroups only. With systemd they are its own.
cgroups() {
    local hierarchy
    [ "$group" != guest ] || { mount --rbind /sys/fs/cgroup "$1"; return; }
    mount -t tmpfs -o mode=755 tmpfs "$1"
    cp -P $(find /sys/fs/cgroup -maxdepth 1 -type l) "$1" 2>/dev/null || true
    for hierarchy in /sys/fs/cgroup/*/; do
        hierarchy=$(basename "$hierarchy")
        [ ! -L "/sys/fs/cgroup/$hierarchy" ] || continue
        mkdir "$1/$hierarchy"
        mount --bind "/sys/fs/cgroup/$hierarchy/$group" "$1/$hierarchy"
    done
}

device_nodes() {
    local node type
    mount -t tmpfs -o mode=755 tmpfs "$1"
    mkdir "$1"/{pts,shm,mqueue,net}
    ln -s /proc/self/fd "$1/fd"
    ln -s pts/ptmx "$1/ptmx"
    for node in null zero full random urandom tty fuse net/tun kmsg; do
        [ -e "/dev/$node" ] || continue
        type=$(stat -c '0x%t 0x%T' "/dev/$node")
        mknod -m 666 "$1/$node" c $type
    done
    mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$1/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$1/shm"
    mount -t mqueue mqueue "$1/mqueue"
}

if [ -n "${CALLERS_BOX:-}" ]; then
    group=$CALLERS_BOX
    unset CALLERS_BOX
    export CALLERS_SYSTEMD=
    [ "$group" != guest ] || CALLERS_SYSTEMD=1
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/{upper,work,new}
    mount -t overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/new
    cd /mnt/new
    mkdir -p callers results old var/lib/{docker,docker-remapped,containerd,containers}
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    cgroups sys/fs/cgroup
    device_nodes dev
    for directory in run tmp var/lib/{docker,docker-remapped,containerd,containers}; do
        mount -t tmpfs -o mode=755 tmpfs "$directory"
    done
    chmod 1777 tmp
    if [ "$group" = guest ]; then
        for directory in run/systemd run/dbus; do mkdir "$directory"; mount --rbind "/$directory" "$directory"; done
    fi
    cp "$here"/*.{sh,py} callers
    mount --bind "$results" results
    install -m 755 "$runtime" usr/local/bin/runtime
    if [ -d "$criu" ]; then
        cp -r "$criu" usr/local/criu
        ln -sf ../criu/bin/criu usr/local/sbin/criu
    fi
    rm -f etc/resolv.conf
    echo 'nameserver 127.0.0.1' > etc/resolv.conf
    echo '127.0.0.1 localhost callers' > etc/hosts
    hostname callers
    ip link set lo up
    pivot_root . old
    umount -l /old
    # Engines share their mounts with what they start.
    mount --make-rshared /
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
    # The first process of the box also waits for what shims and monitors leave behind.
    exec /usr/bin/tini -s -- /bin/bash "/callers/$script" "$@"
fi

for hierarchy in /sys/fs/cgroup/*/; do
    [ ! -L "${hierarchy%/}" ] || continue
    mkdir "$hierarchy$group"
    # A v1 cpuset takes nobody before it has processors and memory.
    for item in cpus mems; do
        [ ! -e "${hierarchy}cpuset.$item" ] || cat "${hierarchy}cpuset.$item" > "$hierarchy$group/cpuset.$item"
    done
done
child=
clean() {
    trap '' INT TERM HUP
    # A process that was left in the v1 freezer could not even be killed.
    find "/sys/fs/cgroup/freezer/$group" -name freezer.state 2>/dev/null | while read -r state; do
        echo THAWED > "$state" 2>/dev/null || true
    done
    [ -z "$child" ] || { kill -KILL "$child" 2>/dev/null || true; wait "$child" 2>/dev/null || true; }
    # Killed, the box ends a little after the one that is waited for.
    local tries
    for tries in {1..50}; do
        find /sys/fs/cgroup/*/"$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
        [ -n "$(find /sys/fs/cgroup/*/"$group" -maxdepth 0 2>/dev/null || true)" ] || return 0
        sleep 0.1
    done
    find /sys/fs/cgroup/*/"$group" -type d | sed 's/^/callers: left: /' >&2
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
(
    for hierarchy in /sys/fs/cgroup/*/; do
        [ -L "${hierarchy%/}" ] || echo $BASHPID > "$hierarchy$group/cgroup.procs"
    done
    CALLERS_BOX=$group exec unshare --cgroup --mount --propagation private --pid --fork --kill-child --net --ipc --uts \
        "$0" "$root" "$runtime" "$results" "$script" "$@"
) &
child=$!
code=0
wait "$child" || code=$?
child=
exit "$code"
