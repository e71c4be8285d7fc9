#!/bin/bash
# Installs the Debian packages that a make target needs, and says so; does nothing when they are there.
# usage: scripts/setup.sh build|seccomp|fuzz|integration|criu|guest|guest-systemd|conformance|peer|callers|bench|where|run
set -euo pipefail
# rustc would warn that the jobserver of make is closed.
unset MAKEFLAGS MFLAGS

case ${1:-} in
    build)       packages=(gcc libc6-dev) ;;
    run)         packages=(gcc libc6-dev busybox-static) ;;
    seccomp)     packages=(gcc libc6-dev libseccomp-dev) ;;
    fuzz)        packages=(gcc g++ libc6-dev libseccomp-dev) ;;
    integration) packages=(gcc libc6-dev busybox-static runc crun uidmap btrfs-progs xfsprogs strace) ;;
    # criu itself is no package of Debian 12 that would do: scripts/criu.sh fetches it.
    criu)        packages=(mmdebstrap debian-archive-keyring tar) ;;
    bench)       packages=(gcc libc6-dev busybox-static runc crun golang-github-containers-common strace mmdebstrap debian-archive-keyring patchelf
                           libseccomp-dev pkg-config) ;;
    where)       packages=(gcc libc6-dev busybox-static linux-perf) ;;
    guest)       packages=(gcc libc6-dev busybox-static qemu-system-x86 cpio kmod xz-utils) ;;
    guest-systemd) packages=(gcc libc6-dev busybox-static qemu-system-x86 cpio kmod xz-utils mmdebstrap e2fsprogs) ;;
    conformance) packages=(gcc libc6-dev runc crun dpkg-dev util-linux xz-utils golang-go golang-github-blang-semver-dev
                           golang-github-google-uuid-dev golang-github-hashicorp-go-multierror-dev golang-github-mrunalp-fileutils-dev
                           golang-github-opencontainers-selinux-dev golang-github-opencontainers-specs-dev
                           golang-github-sirupsen-logrus-dev golang-github-urfave-cli-dev golang-github-xeipuuv-gojsonschema-dev
                           golang-gocapability-dev golang-golang-x-sys-dev) ;;
    peer)        packages=(gcc libc6-dev busybox-static runc bats gawk jq patch pkg-config util-linux xz-utils iproute2 procps uidmap) ;;
    callers)     packages=(gcc libc6-dev mmdebstrap debian-archive-keyring util-linux iproute2) ;;
    *) echo "usage: $0 build|seccomp|fuzz|integration|criu|guest|guest-systemd|conformance|peer|callers|bench|where|run" >&2; exit 2 ;;
esac

command -v cargo >/dev/null || { echo "setup: cargo not found: install Rust first (https://rustup.rs)" >&2; exit 1; }

# The standard library for musl, which scripts/target.sh looks for; without it release binaries are linked with glibc.
musl=$(uname -m)-unknown-linux-musl
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$musl/lib" ] && command -v rustup >/dev/null; then
    echo "setup: installing Rust's standard library for $musl"
    rustup --quiet target add "$musl" || echo "setup: it cannot be had: building with glibc"
fi

missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} = 0 ] && exit 0

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
apt_install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

echo "setup: installing ${missing[*]}"
# The lists of packages may be missing or too old; a third-party source that is out of reach must not end it either.
apt_install 2>/dev/null && exit 0
echo "setup: updating the lists of packages first"
"${as_root[@]}" apt-get update -qq || true
apt_install
