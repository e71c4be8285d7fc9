#!/bin/bash
# Puts runc and crun of Debian sid into .cache/peers, with their libraries, for `make bench`; and youki, if YOUKI is set, from
# crates.io. Nothing of the system is touched.
# usage: scripts/peers.sh      (root; needs mmdebstrap, debian-archive-keyring and patchelf; for youki also libseccomp-dev)
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
peers=$top/.cache/peers
if [ -n "${YOUKI:-}" ] && [ ! -x "$peers/youki/bin/youki" ]; then
    echo "peers: building youki"
    cargo install --quiet --locked --features v1 youki --root "$peers/youki" --target-dir "$peers/build"
    rm -rf "$peers/build"
fi
! [ "$peers/sid/crun" -nt "${BASH_SOURCE[0]}" ] || exit 0

mkdir -p "$peers"
work=$(mktemp -d "$peers/new.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "peers: downloading runc and crun from Debian sid"
"$top/scripts/sid.sh" "$work" runc crun
libraries=$work/root/usr/lib/x86_64-linux-gnu
loader=ld-linux-x86-64.so.2
mkdir "$work/sid" "$work/sid/lib"
cp -L "$libraries/$loader" "$work/sid/lib"
for program in sbin/runc bin/crun; do
    "$libraries/$loader" --library-path "$libraries" --list "$work/root/usr/$program" |
        awk '$3 ~ /^\// { print $3 }' | xargs cp -Lt "$work/sid/lib"
    # They execute themselves anew, by /proc/self/exe: a loader on the command line would be that.
    patchelf --set-interpreter "$peers/sid/lib/$loader" --set-rpath "$peers/sid/lib" --force-rpath \
        --output "$work/sid/${program#*/}" "$work/root/usr/$program"
done
rm -rf "$peers/sid"
mv "$work/sid" "$peers/sid"
touch "$peers/sid/crun"
for peer in runc crun; do "$peers/sid/$peer" --version | head -n 1; done
