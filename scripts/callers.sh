#!/bin/bash
# Drives containerd, Docker and Podman, from Debian's packages, with runc and with this project's binary.
# usage: scripts/callers.sh [--guest] [--suite bookworm|sid]... [--engine containerd|cri|docker|podman|rootless]... [--only WORDS] [--write] [RUNTIME]
#   default: both suites, all engines, the release binary
#   --guest  in the guest with systemd, on cgroup v2, by systemd's cgroups; sid alone, and not rootless
#   --only   only the checks whose name has these words in it
#   --write  put the table into docs/callers.md
# Fails when a check passes with runc and not with ours. What each check printed stays in .cache/callers/results.
#
# Each engine runs in a box (scripts/callers/box.sh), in which everything ends with it. Debian's packages are unpacked
# under .cache/callers; the image that the engines run is made in the box, of busybox. Needs root and the packages of
# `scripts/setup.sh callers`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
cache=$top/.cache/callers
page=$top/docs/callers.md

suites=() engines=() only='' write='' runtime='' guest=''
while [ $# -gt 0 ]; do
    case $1 in
        --suite)  suites+=("$2"); shift 2 ;;
        --engine) engines+=("$2"); shift 2 ;;
        --only)   only=$2; shift 2 ;;
        --write)  write=1; shift ;;
        --guest)  guest=1; shift ;;
        -*)       sed -n '3,7s/^# //p' "$0" >&2; exit 2 ;;
        *)        runtime=$1; shift ;;
    esac
done
[ -z "$write" ] || [ ${#suites[@]}${#engines[@]}$only = 00 ] || { echo "callers: --write is for all checks" >&2; exit 2; }
mark=callers
if [ -n "$guest" ]; then
    suites=(sid) mark=guest
    [ ${#engines[@]} != 0 ] || engines=(containerd cri docker podman)
fi
[ ${#suites[@]} != 0 ] || suites=(bookworm sid)
[ ${#engines[@]} != 0 ] || engines=(containerd cri docker podman rootless)
target=$("$here/target.sh")
runtime=$(realpath "${runtime:-$top/target/$target/release/runtime}")
[ "$(id -u)" = 0 ] || { echo "callers: needs root" >&2; exit 2; }

# A Debian with the engines in it, none of which is started.
make_root() {
    local suite=$1 more
    local packages=adduser,bsdutils,buildah,busybox-static,catatonit,conmon,containerd,containernetworking-plugins,crun,docker.io
    packages+=,golang-github-containers-common,iproute2,iptables,jq,mount,netavark,passwd,podman,procps,python3-grpcio
    packages+=,runc,tini,uidmap
    # What is a package of its own by now.
    case $suite in
        bookworm) more= ;;
        *)        more=,docker-cli,docker-buildx ;;
    esac
    echo "callers: unpacking the engines of Debian $suite" >&2
    rm -rf "$cache/$suite.new"
    # A mirror may be behind the date that its lists are good for.
    mmdebstrap --quiet --mode=root --variant=essential --aptopt='Acquire::Check-Valid-Until "false"' \
        --include="$packages$more" "$suite" "$cache/$suite.new"
    mv "$cache/$suite.new" "$cache/$suite"
}

# in_guest ENGINE RESULTS: what is printed is all that comes out of it.
in_guest() {
    local file files=()
    for file in "$here"/callers/*.{sh,py}; do files+=(--file "$file:/callers/${file##*/}"); done
    if ! [ "$cache/sid.ext4" -nt "$cache/sid" ]; then
        truncate -s $(($(du -sm "$cache/sid" | cut -f 1) * 12 / 10 + 256))M "$cache/sid.ext4"
        mkfs.ext4 -q -F -O ^has_journal -m 0 -d "$cache/sid" "$cache/sid.ext4"
    fi
    "$here/guest.sh" --timeout 3600 --memory 3000 --systemd --disk "$cache/sid.ext4" "${files[@]}" --file "$runtime:/runtime" \
        -- env CALLERS_PATIENCE=400 /callers/guest.sh /runtime "$1.sh" "$1" "$only" | tee "$2/$1.log"
    sed -nE 's/^# ([A-Z].*)/\1, systemd, v2/p' "$2/$1.log" | head -n 1 > "$2/$1.version"
    sed -nE 's/^(ok|not ok|skip) [0-9]+ - [a-z]+: (.*) \((runc|ours)\)(, second try)?$/\2\t\3\t\1/p' "$2/$1.log" > "$2/$1.tsv"
}

mkdir -p "$cache/results"
# The guest's kernel lacks what criu needs.
[ -n "$guest" ] || "$here/criu.sh"
trap 'kill $! 2>/dev/null; wait; exit 130' INT TERM HUP
for suite in "${suites[@]}"; do
    if [ ! -e "$cache/$suite" ]; then make_root "$suite"; fi
    results=$cache/results/$suite${guest:+-guest}
    mkdir -p "$results"
    for engine in "${engines[@]}"; do
        rm -f "$results/$engine".{tsv,log,version}
        if [ -n "$guest" ]; then
            in_guest "$engine" "$results" || echo "callers: $engine in the guest ended with $?" >&2
            continue
        fi
        "$here/callers/box.sh" "$cache/$suite" "$runtime" "$results" "$engine.sh" "$engine" "$only" &
        # An engine that does not start fails in the report: its checks are missing.
        wait $! || echo "callers: $engine of $suite ended with $?" >&2
    done
done

report=$cache/report.md code=0
for suite in "${suites[@]}"; do
    results=$cache/results/$suite${guest:+-guest}
    for engine in "${engines[@]}"; do
        printf '%s\t%s\t%s\n' "$engine" "$(cat "$results/$engine.version" 2>/dev/null || echo "$engine of $suite")" "$results/$engine.tsv"
    done
done | awk -f "$here/callers/report.awk" > "$report" || code=$?
cat "$report"
if [ -n "$write" ]; then
    awk -v report="$report" -v mark="$mark" '
        $0 == "<!-- " mark ":begin -->" { print; while ((getline line < report) > 0) print line; skip = 1 }
        $0 == "<!-- " mark ":end -->" { skip = 0 }
        !skip' "$page" > "$cache/page.new"
    cat "$cache/page.new" > "$page"
fi
exit "$code"
