#!/bin/bash
# Runs the OCI validation programs of runtime-tools with our binary, runc and crun, and writes docs/conformance.md.
# usage: scripts/conformance.sh RUNTIME [PROGRAM...]
# The source is Debian's package, built by Debian's Go. With PROGRAMs: only these, and no page is written.
# Here, where cgroup v1 is, with all of RUNTIMES (default "/usr/sbin/runc /usr/bin/crun"); then in the cgroup v2 guest,
# with the first of them, unless CONFORMANCE_GUEST=0 (then no page either). What they print
# stays in .cache/conformance/{v1,v2}.log.
# Exit status: 1 when a program or an assertion passes with another runtime and fails with ours, or fails with ours, and
# is not in integration/conformance-known.txt; or when an entry of that list passes.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$here/..
cache=$top/.cache/conformance
known=$top/integration/conformance-known.txt
own=$(realpath "${1:?usage: $0 RUNTIME [PROGRAM...]}")
shift
read -ra others <<< "${RUNTIMES:-/usr/sbin/runc /usr/bin/crun}"
version=0.9.0.109.ge931285
sha256=203989a1ea98cf2aaced79155bbda09270b20db19b03376dde91ab12e5e6a0fe

# Debian's archive may have lost the .dsc, with which apt-get would check the source: it ends with an error, but leaves
# the tarball, which is checked here. With lists of packages of its own: the package is newer than the host may be.
fetch_source() {
    local apt=$cache/apt orig=golang-github-opencontainers-runtime-tools_$version.orig.tar.xz
    local options=(-qq -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$apt/lists" -o APT::Sandbox::User=root)
    echo "conformance: downloading runtime-tools $version, Debian's source package" >&2
    mkdir -p "$apt/lists/partial"
    echo 'deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main' \
        > "$apt/sources.list"
    apt-get "${options[@]}" update
    (cd "$apt" && apt-get "${options[@]}" source --download-only golang-github-opencontainers-runtime-tools) >&2 || true
    echo "$sha256  $apt/$orig" | sha256sum --check --quiet
    mkdir -p "$cache/new"
    tar -xf "$apt/$orig" -C "$cache/new" --strip-components=1
    mv "$cache/new" "$cache/source"
}

# All of it static, for the guest. tap-go is the one dependency that Debian has not got: ours stands in.
build() {
    local go=$cache/go/src
    mkdir -p "$go/github.com/mndrix/tap-go" "$go/github.com/opencontainers" "$cache/building"
    cp "$here/conformance/tap.go" "$go/github.com/mndrix/tap-go/"
    ln -sfn "$cache/source" "$go/github.com/opencontainers/runtime-tools"
    # busybox' tar does not see that it is compressed; both take it as it is.
    gzip -dc "$cache/source/rootfs-amd64.tar.gz" > "$cache/building/rootfs-amd64.tar.gz"
    echo "conformance: building the programs" >&2
    (cd "$go/github.com/opencontainers/runtime-tools" &&
        GO111MODULE=off GOPATH=$cache/go:/usr/share/gocode GOCACHE=$cache/gocache CGO_ENABLED=0 \
            go build -trimpath -ldflags '-s -w' -o "$cache/building/" ./validation/... ./cmd/runtimetest)
    mv "$cache/building" "$cache/programs"
}

# All runtimes at once: the programs mostly sleep.
run_here() {
    local runtime pids=()
    for runtime in "$own" "${others[@]}"; do
        "$here/conformance/programs.sh" "$cache/programs" 60 "$runtime" "$@" > "$cache/here.${runtime##*/}" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid"; done
    cat "$cache"/here.* > "$cache/v1.log"
}

# Not crun, for lack of time. Each end gets the seconds that it took here: the guest's clock counts instructions.
run_guest() {
    local file files=() peer=${others[0]}
    for file in runtimetest rootfs-amd64.tar.gz "$@"; do files+=(--file "$cache/programs/$file:/programs/$file"); done
    while read -r file; do files+=(--file "$file:$file"); done \
        < <(ldd /usr/bin/unshare "$peer" | grep -o ' /lib[^ ]*\|^[[:space:]]*/lib[^ ]*' | tr -d '[:blank:]' | sort -u)
    for file in /usr/bin/unshare "$peer"; do files+=(--file "$file:$file"); done
    "$here/guest.sh" --warp --timeout "${GUEST_TIMEOUT:-600}" --memory 1536 "${files[@]}" --file "$own:/${own##*/}" \
        --file "$here/conformance/programs.sh:/programs.sh" \
        -- sh /programs.sh /programs 60 "/${own##*/} $peer" "$@" |
        perl -ne '$| = 1; $start = time if /^begin /; s/$/" " . (time - $start)/e if /^end /; print' > "$cache/v2.log"
}

# What the list says is left out in the guest.
left_out() {
    local pattern
    # shellcheck disable=SC2053 # a pattern
    for pattern in "${out[@]}"; do [[ $1 == $pattern ]] && return; done
    return 1
}

[ -d "$cache/source" ] || { rm -rf "$cache/new"; fetch_source; }
[ -d "$cache/programs" ] && [ ! "$here/conformance/tap.go" -nt "$cache/programs" ] || { rm -rf "$cache/programs" "$cache/building"; build; }
programs=("$@")
[ $# -gt 0 ] || mapfile -t programs < <(cd "$cache/programs" && find . -type f -printf '%P\n' | grep -v '^runtimetest$\|^rootfs-' | sort)
rm -f "$cache"/here.* "$cache"/*.log
run_here "${programs[@]}"
logs=("$cache/v1.log")
if [ "${CONFORMANCE_GUEST:-1}" = 1 ]; then
    mapfile -t out < <(sed -n 's/^v2 | \([^ ]*\) | - | out: .*/\1/p' "$known")
    applicable=()
    for program in "${programs[@]}"; do left_out "$program" || applicable+=("$program"); done
    if [ ${#applicable[@]} -gt 0 ]; then
        run_guest "${applicable[@]}" || { echo "conformance: it came to: $(grep '^begin ' "$cache/v2.log" | tail -n 1)" >&2; exit 1; }
        logs+=("$cache/v2.log")
    fi
fi
page=()
[ $# -gt 0 ] || [ ${#logs[@]} = 1 ] || page=(--page "$top/docs/conformance.md")
exec perl "$here/conformance/report.pl" --known "$known" "${page[@]}" \
    --own "${own##*/}" --about "runtime-tools $version (Debian), $(go version | cut -d' ' -f3), Linux $(uname -r | cut -d. -f1,2)" \
    "${logs[@]}"
