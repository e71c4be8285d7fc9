#!/bin/bash
# Puts criu of Debian sid, with its libraries, into .cache/criu, whose bin is for PATH: that of Debian 12 is too old for the
# kernels of today. Nothing of the system is touched.
# usage: scripts/criu.sh      (root; needs mmdebstrap and debian-archive-keyring)
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
criu=$top/.cache/criu
[ ! -x "$criu/bin/criu" ] || exit 0

mkdir -p "$criu"
work=$(mktemp -d "$criu/new.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "criu: downloading it from Debian sid"
mmdebstrap --quiet --mode=root --variant=extract --include=criu --aptopt='Acquire::Check-Valid-Until "false"' sid "$work/root.tar" \
    "${GUEST_MIRROR:-http://deb.debian.org/debian}" 2> "$work/log" || { tail -n 3 "$work/log" >&2; exit 1; }
mkdir "$work"/{root,bin,lib}
tar -xf "$work/root.tar" -C "$work/root"
libraries=$work/root/usr/lib/x86_64-linux-gnu
loader=ld-linux-x86-64.so.2
"$libraries/$loader" --library-path "$libraries" --list "$work/root/usr/sbin/criu" |
    awk '$3 ~ /^\// { print $3 }' | xargs cp -Lt "$work/lib"
cp -L "$libraries/$loader" "$work/root/usr/sbin/criu" "$work/lib"
cat > "$work/bin/criu" <<'END'
#!/bin/sh
lib=$(dirname "$(dirname "$(readlink -f "$0")")")/lib
exec "$lib/ld-linux-x86-64.so.2" --argv0 criu --library-path "$lib" "$lib/criu" "$@"
END
chmod 755 "$work/bin/criu"
"$work/bin/criu" --version >/dev/null
rm -rf "$criu/lib" "$criu/bin"
mv "$work/lib" "$criu/lib"
mv "$work/bin" "$criu/bin"
