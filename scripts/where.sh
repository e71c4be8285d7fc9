#!/bin/bash
# Where the time of `run` goes, beside that of the floor's: samples of both in each system call, in page faults and in the
# programs, as microseconds of one run. Sampling slows everything down, system calls the least.
# usage: scripts/where.sh RUNTIME FLOOR BUSYBOX [RUNS]      (root; needs perf)
set -euo pipefail
runtime=$1 floor=$2 busybox=$3 runs=${4:-300}
work=$(mktemp -d /dev/shm/where.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{state,bundle/rootfs/{bin,proc,dev,sys,etc}}
cp "$busybox" "$work/bundle/rootfs/bin/true"
"$runtime" spec --bundle "$work/bundle"
sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"\/bin\/true"/' "$work/bundle/config.json"

read -r cpus < <(cat /sys/fs/cgroup/cpuset/cpuset.cpus 2>/dev/null || echo 0)
read -r mems < <(cat /sys/fs/cgroup/cpuset/cpuset.mems 2>/dev/null || echo 0)
unified=$(awk -v name="/where-$$" '$3 == "cgroup2" { print $2 name; exit }' /proc/mounts)
mapfile -t dirs < <(awk -v name="/where-$$" '$3 == "cgroup" { print $2 name }' /proc/mounts)

# samples FILE COMMAND...: one line for each sample of RUNS runs, with what it was in.
samples() {
    local file=$1
    shift
    # shellcheck disable=SC2016
    perf record --quiet -o "$work/data" -e cpu-clock -F 20000 -g -- \
        sh -c 'n=$1; shift; while [ "$n" -gt 0 ]; do "$@" </dev/null || exit 1; n=$((n - 1)); done' sh "$runs" "$@" >&2
    perf script -i "$work/data" -F comm,ip,sym 2>/dev/null | awk '
        function end() { if (seen) print place; seen = 0 }
        /^[^ \t]/ || (NF == 1 && !/^[ \t]+[0-9a-f]+$/) { end(); seen = ($1 != "sh" && $1 != "perf"); place = "the program"; found = 0; next }
        seen && !found && match($2, /^__(x64|do)_sys_|^ksys_/) { place = substr($2, RLENGTH + 1); found = 1; next }
        seen && !found && $2 ~ /exc_page_fault/ { place = "page faults"; found = 1; next }
        seen && !found && $2 ~ /^(do_syscall_64|entry_SYSCALL)/ { place = "other system calls" }
        END { end() }' > "$file"
}
samples "$work/ours" "$runtime" --root "$work/state" run --bundle "$work/bundle" "where-$$"
samples "$work/bare" "$floor" run "$work/bundle/rootfs" "$cpus" "$mems" "${unified:--}" "${dirs[@]}"

# What a system call is for.
awk -v runs="$runs" '
    BEGIN {
        name("mounts", "mount umount pivot_root fsopen fsconfig fsmount move_mount mount_setattr open_tree")
        name("opening and closing", "open openat openat2 close close_range")
        name("reading and looking", "read pread64 readlink readlinkat newstat newfstat newfstatat statx statfs fstatfs getdents64 faccessat2")
        name("making and removing names", "mkdir mkdirat rmdir unlinkat mknod mknodat symlink symlinkat renameat")
        name("executing programs", "execve execveat")
        name("a process with its namespaces", "clone3")
        name("messages and waiting", "ppoll poll sendto recvmsg recvfrom socketpair waitid wait4 signalfd4")
    }
    function name(group, calls,    list, n) { n = split(calls, list, " "); for (; n; n--) groups[list[n]] = group }
    { place = ($0 in groups) ? groups[$0] : ($0 ~ /^(page faults|the program)$/) ? $0 : "other system calls"; all[place]++ }
    FNR == NR { ours[place]++; next }
    { bare[place]++ }
    function line(place, a, b) { printf "%s| %s | %.0f | %.0f | %.0f |\n", a - b, place, a * 50 / runs, b * 50 / runs, (a - b) * 50 / runs }
    END {
        for (place in all) { line(place, ours[place], bare[place]); a += ours[place]; b += bare[place] }
        line("together", a, b)
    }' "$work/ours" "$work/bare" | sort -rn | cut -d'|' -f2- | sed 's/^/|/; 1h; 1d; $G' |
    { echo "| microseconds in | runtime | floor | difference |"; echo "|---|---|---|---|"; cat; }
