#!/bin/bash
# Runs one bats file with one runtime, so that nothing of it stays: private mount, pid, network, IPC, UTS and cgroup
# namespaces, /run and /tmp of its own, a cgroup of its own in each hierarchy.
# usage: scripts/peer-tests/file.sh CACHE NAME [user/|user+/]FILE.bats     (the rest is for itself)
set -euo pipefail
cache=$1 name=$2 file=$3 inside=${4:-}
group=peer-tests

# A process that was left in the v1 freezer could not even be killed.
thaw() {
    find "/sys/fs/cgroup/freezer/${1:-}" -name freezer.state 2>/dev/null | while read -r state; do
        echo THAWED > "$state" 2>/dev/null || true
    done
}

# /dev with what tests use. Block devices are looked up by name (lsblk).
device_nodes() {
    local node type numbers
    mount -t tmpfs -o mode=755 tmpfs /mnt
    mkdir /mnt/{pts,shm,mqueue}
    ln -s /proc/self/fd /mnt/fd
    ln -s pts/ptmx /mnt/ptmx
    for node in null zero full random urandom tty kmsg fuse loop-control loop{0..7} $(lsblk -dno NAME); do
        [ -e "/dev/$node" ] || continue
        [ ! -e "/mnt/$node" ] || continue
        type=c
        [ ! -b "/dev/$node" ] || type=b
        numbers=$(stat -c '0x%t 0x%T' "/dev/$node")
        mknod -m 666 "/mnt/$node" "$type" $numbers
    done
    mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts /mnt/pts
    mount -t tmpfs -o mode=1777 tmpfs /mnt/shm
    mount -t mqueue mqueue /mnt/mqueue
    umount -lR /dev
    mount --rbind /mnt /dev
    umount -lR /mnt
}

# A user for the tests, in files of /etc that are their own; for user+ with ids besides their own and a cgroup that is theirs, as
# runc's rootless.sh prepares both. Sets as_user, which a command goes behind.
prepare_user() {
    local item hierarchy directory
    mkdir -p /run/etc /run/home
    chown 1000:1000 /run/home
    { grep -v ':1000:' /etc/passwd; echo 'rootless:x:1000:1000::/run/home:/bin/bash'; } > /run/etc/passwd
    { grep -v ':1000:' /etc/group; echo 'rootless:x:1000:'; } > /run/etc/group
    for item in passwd group; do mount --bind "/run/etc/$item" "/etc/$item"; done
    export HOME=/run/home XDG_RUNTIME_DIR=/run/home USER=rootless ROOTLESS_FEATURES=
    touch "$TAP"
    chmod 666 "$TAP"
    as_user=(setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all)
    [ "$1" = user+ ] || return 0
    export ROOTLESS_FEATURES=idmap+cgroup
    export ROOTLESS_UIDMAP_START=100000 ROOTLESS_UIDMAP_LENGTH=65536 ROOTLESS_GIDMAP_START=200000 ROOTLESS_GIDMAP_LENGTH=65536
    echo rootless:100000:65536 > /run/etc/subuid
    echo rootless:200000:65536 > /run/etc/subgid
    for item in subuid subgid; do mount --bind "/run/etc/$item" "/etc/$item"; done
    export AUX_UID=1024 AUX_DIR=/tmp/aux
    mkdir "$AUX_DIR"
    chown $((100000 - 1000 + AUX_UID)) "$AUX_DIR"
    for hierarchy in /sys/fs/cgroup/*/; do
        [ ! -L "${hierarchy%/}" ] || continue
        directory=${hierarchy}runc-cgroups-integration-test
        mkdir "$directory"
        for item in cpus mems; do
            [ ! -e "$directory/cpuset.$item" ] || cat "${hierarchy}cpuset.$item" > "$directory/cpuset.$item"
        done
        for item in "" /cgroup.procs /tasks /cpuset.cpus /cpuset.mems; do
            [ ! -e "$directory$item" ] || chown 1000:1000 "$directory$item"
        done
    done
}

if [ -n "$inside" ]; then
    # Mounts that containers of somebody else left: runc takes the first cgroup mount that it finds, and the kernel lets
    # a user namespace mount proc where an open one is seen.
    awk '$3 ~ /^(cgroup2?|proc|sysfs)$/ && $2 !~ "^/(proc|sys|sys/fs/cgroup/.*)$" { print $2 }' /proc/mounts | tac | xargs -r umount -l
    umount -l /proc
    mount -t proc proc /proc
    # A runtime may give the null device to a container's user; so the device nodes are not the machine's own.
    device_nodes
    # The cgroup of the file takes the place of each hierarchy's root.
    mount -t tmpfs tmpfs /run
    mkdir /run/peer /run/cgroup
    mount -t tmpfs tmpfs /run/cgroup
    cp -P $(find /sys/fs/cgroup -maxdepth 1 -type l) /run/cgroup/ 2>/dev/null || true
    for hierarchy in /sys/fs/cgroup/*/; do
        hierarchy=$(basename "$hierarchy")
        [ ! -L "/sys/fs/cgroup/$hierarchy" ] || continue
        mkdir "/run/cgroup/$hierarchy"
        mount --bind "/sys/fs/cgroup/$hierarchy/$inside" "/run/cgroup/$hierarchy"
    done
    umount -lR /sys/fs/cgroup
    mount --rbind /run/cgroup /sys/fs/cgroup
    umount -lR /run/cgroup
    # Tests write files of criu there, and leave them.
    mkdir /run/etc-new /run/etc-work
    mount -t overlay -o lowerdir=/etc,upperdir=/run/etc-new,workdir=/run/etc-work overlay /etc
    mount --bind "$cache" /run/peer
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    ip link set lo up
    # The terminal is the standard input and output; the results go into a file.
    export RUNC=/run/peer/bin/$name/runc TMPDIR=/tmp TAP=/run/peer/results/$name/$file.tap
    # get-images.sh asks `go env GOARCH`.
    mkdir /run/path
    printf '#!/bin/sh\necho amd64\n' > /run/path/go
    chmod +x /run/path/go
    export PATH=/run/path:/run/peer/criu/bin:$PATH
    cd /run/peer/src/tests/integration
    # A call, or a helper that waits for one, may take 55 s. The limit that bats has is a child of the test, so a test
    # that says `wait` would wait for it, too.
    while sleep 5; do pkill -KILL -O 55 -f '^/run/peer/' || true; done &
    as_user=()
    case $file in */*) prepare_user "${file%/*}" ;; esac
    timeout -k 5 600 script -qec "${as_user[*]} bats --tap ${file##*/} > $TAP 2>&1" /dev/null </dev/null >/dev/null 2>&1 || true
    thaw
    exit 0
fi

group=$group.$$
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
    thaw "$group"
    [ -z "$child" ] || { kill -KILL "$child" 2>/dev/null || true; wait "$child" 2>/dev/null || true; }
    for hierarchy in /sys/fs/cgroup/*/; do
        [ ! -L "${hierarchy%/}" ] || continue
        find "$hierarchy$group" -depth -type d 2>/dev/null | while read -r directory; do
            rmdir "$directory" || echo "peer-tests: $directory stays: processes $(tr '\n' ' ' < "$directory/cgroup.procs")" >&2
        done
    done
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
(
    for hierarchy in /sys/fs/cgroup/*/; do
        [ -L "${hierarchy%/}" ] || echo $BASHPID > "$hierarchy$group/cgroup.procs"
    done
    exec unshare --cgroup --mount --propagation private --pid --fork --kill-child --net --ipc --uts \
        "$0" "$cache" "$name" "$file" "$group"
) &
child=$!
wait "$child"
child=
