#!/bin/bash
# Runs runc's own tests (the bats files of Debian's source package of runc) with runc and with this project's binary.
# usage: scripts/peer-tests.sh [--runtime NAME=PATH]... [--guest | --user] [--write] [FILE.bats...]
#   default: runc=/usr/sbin/runc, ours=the release binary, and all files
#   --guest  in the guest with systemd, of which the files about cgroups: v2/FILE by cgroupfs, systemd/FILE by systemd
#   --user   by an ordinary user: user/FILE with their own id only and without cgroups, user+/FILE with sub-ids and delegated cgroups
#   --write  put the table into docs/conformance.md
# Fails when a test that runc passes fails with another runtime and is not in integration/peer-tests-known.txt, or is
# there and passes. What each test printed stays in .cache/peer-tests/results/NAME/FILE.tap.
#
# Each file runs in namespaces and a cgroup of its own (scripts/peer-tests/file.sh). Needs root and, but for the guest, a
# cgroup v1 or hybrid host, and the packages of `scripts/setup.sh peer`. The tests, and the Go compiler and libraries for their helper
# programs, are downloaded by apt and only unpacked under .cache/peer-tests. The images that the tests want are made here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
cache=$top/.cache/peer-tests
known=$top/integration/peer-tests-known.txt
page=$top/docs/conformance.md

runtimes=() files=() write= guest= user= table=peer-tests
while [ $# -gt 0 ]; do
    case $1 in
        --runtime) runtimes+=("$2"); shift 2 ;;
        --write)   write=1; shift ;;
        --guest)   guest=1 table=peer-tests-guest; shift ;;
        --user)    user=1 table=peer-tests-user; shift ;;
        *.bats)    files+=("$(basename "$1")"); shift ;;
        *)         sed -n '3,7s/^# //p' "$0" >&2; exit 2 ;;
    esac
done
[ -z "$write" ] || [ ${#files[@]} = 0 ] || { echo "peer-tests: --write is for all files" >&2; exit 2; }
target=$("$here/target.sh")
[ ${#runtimes[@]} != 0 ] || runtimes=(runc=/usr/sbin/runc "ours=$top/target/$target/release/runtime")

# Deb-src lines and lists of our own: /etc/apt stays as it is.
apt_get() {
    local apt=$cache/apt suite
    mkdir -p "$apt/lists/partial"
    for suite in "debian bookworm" "debian-security bookworm-security"; do
        printf 'deb http://deb.debian.org/%s main\ndeb-src http://deb.debian.org/%s main\n' "$suite" "$suite"
    done > "$apt/sources.list"
    apt-get -qq -o APT::Sandbox::User=root -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt" "$@"
}

# The tests and their helpers, in $cache/src.
fetch_tests() {
    local work=$cache/new patch program
    local go=$work/go/usr/lib/go-1.19 path=$work/go/usr/share/gocode
    echo "peer-tests: downloading runc's source package and Debian's Go" >&2
    rm -rf "$work" && mkdir -p "$work"/{download,src,go}
    apt_get update
    (cd "$work/download" && apt_get source --download-only runc >/dev/null && apt_get download golang-1.19-go golang-1.19-src \
        golang-github-{containerd-console,cyphar-filepath-securejoin,moby-sys,opencontainers-specs,sirupsen-logrus,urfave-cli}-dev \
        golang-github-{cpuguy83-go-md2man-v2,russross-blackfriday-v2,shurcool-sanitized-anchor-name,seccomp-libseccomp-golang}-dev \
        golang-golang-x-sys-dev libseccomp-dev libseccomp2)
    tar -xf "$work"/download/runc_*.orig.tar.* -C "$work/src" --strip-components=1
    tar -xf "$work"/download/runc_*.debian.tar.* -C "$work/src"
    while read -r patch; do
        patch -s -d "$work/src" -p1 -i "debian/patches/$patch"
    done < "$work/src/debian/patches/series"
    for patch in "$work"/download/*.deb; do dpkg-deb -x "$patch" "$work/go"; done
    ln -s "$work/src" "$path/src/github.com/opencontainers/runc"
    # sd-helper is left out: it is for the tests with systemd.
    for program in recvtty seccompagent; do
        (cd "$path/src/github.com/opencontainers/runc/contrib/cmd/$program" &&
            PKG_CONFIG_SYSROOT_DIR=$work/go PKG_CONFIG_LIBDIR=$work/go/usr/lib/x86_64-linux-gnu/pkgconfig CGO_ENABLED=1 \
            PATH=$go/bin:$PATH GOROOT=$go GOPATH=$path GO111MODULE=off GOCACHE=$work/cache \
                go build -tags seccomp,netgo,osusergo -ldflags '-extldflags -static' -o "$program" . && "./$program" -h >/dev/null 2>&1)
    done
    rm -rf "$cache/src" && mv "$work/src" "$cache/src"
    rm -rf "$work" "$cache/apt"
}

# The two images, in place of Docker Hub's: one of busybox, one of a Debian's libc and shell with ldconfig.
make_images() {
    local work=$cache/images name
    rm -rf "$work" && mkdir -p "$work"/{busybox,debian}/{bin,dev,etc,home,root,sbin,tmp,usr/bin,usr/sbin,var/log} "$work/debian"/{lib,lib64}
    for name in busybox debian; do
        printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' > "$work/$name/etc/passwd"
        printf 'root:x:0:\nnogroup:x:65534:\n' > "$work/$name/etc/group"
        chmod 1777 "$work/$name/tmp"
    done
    cp /bin/busybox "$work/busybox/bin/busybox"
    for name in $(/bin/busybox --list); do
        [ "$name" = busybox ] || ln "$work/busybox/bin/busybox" "$work/busybox/bin/$name"
    done
    for name in bin/sh bin/cat bin/ls bin/grep sbin/ldconfig; do
        cp -L "/$name" "$work/debian/$name"
        # ldconfig is static, and has no libraries to bring.
        { ldd "/$name" 2>/dev/null || true; } | sed -n 's/^[^/]*\(\/[^ ]*\.so[^ ]*\).*/\1/p' | while read -r library; do
            install -D -m 755 "$library" "$work/debian$library"
        done
    done
    for name in busybox debian; do
        tar -C "$work/$name" --owner=0 --group=0 -cJf "$cache/src/tests/integration/testdata/$name-amd64.tar.xz" .
    done
    rm -rf "$work"
}

[ "$(id -u)" = 0 ] || { echo "peer-tests: needs root" >&2; exit 2; }
[ -n "$guest" ] || [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ] || { echo "peer-tests: needs a cgroup v1 or hybrid host" >&2; exit 2; }
mkdir -p "$cache"
# Not `||`, behind which a failing step would not end the script.
if [ ! -e "$cache/src" ]; then fetch_tests; fi
if [ ! -e "$cache/src/tests/integration/testdata/debian-amd64.tar.xz" ]; then make_images; fi
# Seen there by tests of checkpoint, which skip themselves without.
rm -rf "$cache/criu"
if [ -d "$top/.cache/criu" ]; then
    cp -r "$top/.cache/criu" "$cache/criu"
    # Without CAP_SYS_RESOURCE criu serves no pages, and the test that asks for some would wait for ever: it is skipped where this
    # feature is missing.
    sed -i '2i case "$*" in *uffd-noncoop*) exit 1 ;; esac' "$cache/criu/bin/criu"
fi
if [ -n "$guest" ]; then
    [ ${#files[@]} != 0 ] || files=(cgroup_delegation.bats cgroups.bats events.bats pause.bats update.bats)
elif [ ${#files[@]} = 0 ]; then
    for file in "$cache"/src/tests/integration/*.bats; do files+=("$(basename "$file")"); done
fi
[ -z "$user" ] || files=("${files[@]/#/user/}" "${files[@]/#/user+/}")

# In the guest, all of it in one go. Files are v2/FILE and systemd/FILE from then on.
run_guest() {
    local name file
    for name in "${names[@]}"; do mkdir -p "$cache/results/$name"/{v2,systemd}; done
    tar -C "$cache" -cf "$cache/guest.tar" src/contrib/cmd src/tests "${names[@]/#/bin/}"
    for file in "${files[@]}"; do rm -f "$cache"/results/*/{v2,systemd}/"$file.tap"; done
    "$here/guest.sh" --systemd --processors 2 --memory 2048 --timeout "${GUEST_TIMEOUT:-3600}" --file "$cache/guest.tar":/peer.tar \
        --file "$here/peer-tests/guest.sh":/guest.sh -- bash /guest.sh "${files[@]}" \
        | awk -v results="$cache/results" '
            /^>>> / { close(tap); tap = results "/" $3 "/" $2 "/" $4 ".tap"; print $3, $2 "/" $4 > "/dev/stderr"; next }
            { print > tap }'
    files=("${files[@]/#/v2/}" "${files[@]/#/systemd/}")
}

names=()
trap 'kill $!; wait; exit 130' INT TERM HUP
for runtime in "${runtimes[@]}"; do
    name=${runtime%%=*}
    names+=("$name")
    # The tests look at the base name of the binary.
    install -D -m 755 "${runtime#*=}" "$cache/bin/$name/runc"
    [ -z "$guest" ] || continue
    mkdir -p "$cache/results/$name"/{user,user+}
    for file in "${files[@]}"; do
        printf '%-8s %-32s' "$name" "$file" >&2
        rm -f "$cache/results/$name/$file.tap"
        "$here/peer-tests/file.sh" "$cache" "$name" "$file" &
        wait $! || true
        awk -f "$here/peer-tests/count.awk" "$cache/results/$name/$file.tap" >&2
    done
done

[ -z "$guest" ] || run_guest

report=$cache/report.md code=0
for name in "${names[@]}"; do
    for file in "${files[@]}"; do printf '%s\t%s\t%s\n' "$name" "$file" "$cache/results/$name/$file.tap"; done
done | awk -v known="$known" -f "$here/peer-tests/report.awk" > "$report" || code=$?
cat "$report"
if [ -n "$write" ]; then
    awk -v report="$report" -v table="$table" '
        $0 == "<!-- " table ":begin -->" { print; while ((getline line < report) > 0) print line; skip = 1 }
        $0 == "<!-- " table ":end -->" { skip = 0 }
        !skip' "$page" > "$cache/page.new"
    mv "$cache/page.new" "$page"
fi
exit "$code"
