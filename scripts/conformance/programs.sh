#!/bin/sh
# Runs validation programs, each in private namespaces and cgroups, and prints what they say; scripts/conformance.sh
# reads it. Runs on the host and in the guest, hence plain sh; /usr/bin/unshare is that of util-linux, not a busybox applet.
# usage: programs.sh DIRECTORY SECONDS "RUNTIME..." PROGRAM...
# DIRECTORY holds the programs, runtimetest and rootfs-<architecture>.tar.gz; SECONDS is the time that a program has.
#
# For each program and runtime: "begin PROGRAM RUNTIME", lines "out ..." and "err ...", "end STATUS" (124 or more: out of time).
set -eu

# controllers:path of this process in each v1 hierarchy; nothing on pure v2.
hierarchies() { sed -n 's/^[1-9][0-9]*:\(name=\)\{0,1\}//p' /proc/self/cgroup; }

# Makes groups below those of this process, one in each hierarchy, and prints their directories.
make_groups() {
    hierarchies | while IFS=: read -r controllers path; do
        group=/sys/fs/cgroup/$controllers$path
        [ -d "$group" ] || continue
        mkdir "$group/$1"
        if [ "$controllers" = cpuset ]; then
            cat "$group/cpuset.cpus" > "$group/$1/cpuset.cpus"
            cat "$group/cpuset.mems" > "$group/$1/cpuset.mems"
        fi
        echo "$group/$1"
    done
    # On v2 processes live in leaves, or their parent cannot give controllers to its children.
    [ -n "$(hierarchies)" ] || { mkdir -p "/sys/fs/cgroup/$1/self"; echo "/sys/fs/cgroup/$1"; }
}

# Process 1 of the private namespaces: mounts what is private, runs the program, reaps what it leaves behind.
# linux_ns_itype has its container mount /proc, /dev and /sys in its own mount namespace and then removes its bundle
# with these in it: here it meets copies, and the cgroups of the subtree.
inside() {
    # Wherever they are: runc takes the first that it finds.
    sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \([^ ]*\) .* - cgroup2\{0,1\} .*/\1/p' /proc/self/mountinfo | while read -r mount; do
        umount -l "$mount"
    done
    if [ -n "$(hierarchies)" ]; then
        # A hierarchy mounted now begins at the root of the cgroup namespace. v2 stays away: crun refuses hybrid hosts.
        mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
        hierarchies | while IFS=: read -r controllers _; do
            mkdir "/sys/fs/cgroup/$controllers"
            mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$controllers" 2>/dev/null ||
                mount -t cgroup -o "none,name=$controllers" cgroup "/sys/fs/cgroup/$controllers"
        done
    else
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
    fi
    mount -t tmpfs -o mode=755 run /run
    cd "$1"
    TMPDIR=/run RUNTIME=$2 "./$3" < /dev/null
    exit $?
}

# All but the cgroup namespace come second: the leaf that unshare itself waits in must be the one of v2.
run() {
    directory=$1 seconds=$2 runtime=$3 program=$4
    name=conformance-$$-$program
    groups=$(make_groups "$name")
    echo "begin $program $runtime"
    (
        for group in $groups; do echo 0 > "$group/cgroup.procs"; done
        exec /usr/bin/unshare --cgroup sh -c '
            [ ! -d "$1/self" ] || echo 0 > "$1/self/cgroup.procs"
            shift
            exec timeout -k 1 "$@"' sh "$groups" "$seconds" \
            /usr/bin/unshare --mount --ipc --uts --net --pid --fork --kill-child --mount-proc \
            "$0" inside "$directory" "$runtime" "$program"
    ) > "$output.out" 2> "$output.err" && status=0 || status=$?
    sed 's/^/out /' "$output.out"
    sed 's/^/err /' "$output.err"
    echo "end $status"
    # What was killed for lack of time may need a moment to be gone.
    for group in $groups; do
        tries=0
        until find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || [ $tries = 50 ]; do
            tries=$((tries + 1))
            sleep 0.1
        done
    done
}

if [ "$1" = inside ]; then
    shift
    inside "$@"
fi
directory=$1 seconds=$2 runtimes=$3
shift 3
output=$(mktemp)
trap 'rm -f "$output" "$output.out" "$output.err"' EXIT
for program; do
    for runtime in $runtimes; do
        run "$directory" "$seconds" "$runtime" "$program"
    done
done
