#!/bin/bash
# Puts criu of Debian sid, with its libraries and tar, into .cache/criu, whose bin is for PATH: that of Debian 12 is too old for the
# kernels of today. Nothing of the system is touched.
# usage: scripts/criu.sh      (root; needs mmdebstrap and debian-archive-keyring)
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
criu=$top/.cache/criu
# Made by another version of this script, it may lack something.
! [ "$criu/bin/criu" -nt "${BASH_SOURCE[0]}" ] || exit 0

mkdir -p "$criu"
work=$(mktemp -d "$criu/new.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "criu: downloading it from Debian sid"
"$top/scripts/sid.sh" "$work" criu tar
mkdir "$work"/{bin,lib}
libraries=$work/root/usr/lib/x86_64-linux-gnu
loader=ld-linux-x86-64.so.2
cp -L "$libraries/$loader" "$work/lib"
# tar is what criu packs the files of a tmpfs with; busybox' does not know its options.
for program in sbin/criu bin/tar; do
    "$libraries/$loader" --library-path "$libraries" --list "$work/root/usr/$program" |
        awk '$3 ~ /^\// { print $3 }' | xargs cp -Lt "$work/lib"
    cp -L "$work/root/usr/$program" "$work/lib"
    cat > "$work/bin/${program#*/}" <<'END'
#!/bin/sh
lib=$(dirname "$(dirname "$(readlink -f "$0")")")/lib
name=$(basename "$0")
exec "$lib/ld-linux-x86-64.so.2" --argv0 "$name" --library-path "$lib" "$lib/$name" "$@"
END
    chmod 755 "$work/bin/${program#*/}"
done
"$work/bin/criu" --version >/dev/null
rm -rf "$criu/lib" "$criu/bin"
mv "$work/lib" "$criu/lib"
mv "$work/bin" "$criu/bin"
