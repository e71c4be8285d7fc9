#!/bin/bash
# Boots a throw-away guest with pure cgroup v2, runs COMMAND in it, prints its output as it comes, exits with its status.
# usage: scripts/guest.sh [--timeout SECONDS] [--memory MIB] [--processors N] [--lsm apparmor|selinux] [--kernel cloud|amd64] [--warp] [--systemd [--user] [--legacy]] [--disk IMAGE] [--file SOURCE:DESTINATION]... -- COMMAND...
#
# QEMU without KVM, Debian's cloud kernel, and an initramfs with busybox and the files given: nothing of this machine is
# shared with the guest, and nothing is left behind but the kernel and two security policies under .cache/.
# --kernel amd64: Debian's kernel for all machines, with what criu needs.
# --warp: a second of the guest is a billion instructions, and what it sleeps costs no time here. For programs that sleep
# much and give others few seconds.
# --systemd: Debian with systemd as process 1 in place of busybox: an image that is made once (guest/image.sh, root), of
# which the guest gets a copy on write. COMMAND is in a service whose cgroup is delegated. --user: as uid 1000, in a
# service of that user's own systemd. --legacy: with cgroup v1.
# --disk: a further disk, /dev/vdb with --systemd and else /dev/vda. What is written to it is lost.
# Exit status: COMMAND's; 124 when the time is up; 125 when the guest ended without a status.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=$here/../.cache/guest
limit=300 memory=1024 processors=1 lsm=apparmor kernel=cloud files=() clock=() systemd= user= legacy= disks=()
while [ $# -gt 0 ]; do
    case $1 in
        --timeout) limit=$2; shift 2 ;;
        --memory)  memory=$2; shift 2 ;;
        --processors) processors=$2; shift 2 ;;
        --lsm)     lsm=$2; shift 2 ;;
        --kernel)  kernel=$2; shift 2 ;;
        --warp)    clock=(-icount shift=0,sleep=off); shift ;;
        --systemd) systemd=1; shift ;;
        --user)    user=guest.user; shift ;;
        --disk)    disks+=("$2"); shift 2 ;;
        --legacy)  legacy='systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1'; shift ;;
        --file)    files+=("$2"); shift 2 ;;
        --)        shift; break ;;
        *)         echo "guest: unknown option $1" >&2; exit 2 ;;
    esac
done
[ $# -gt 0 ] || { sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 2; }

work=$(mktemp -d)
qemu=
# TERM goes to timeout(1), which passes it on to QEMU.
trap '[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

update_lists() { { [ "$(id -u)" = 0 ] && apt-get -qq update; } || { [ "$(id -u)" != 0 ] && sudo apt-get -qq update; } || true; }

# download DIRECTORY PACKAGE...
download() { (cd "$1" && shift && apt-get -q -o APT::Sandbox::User=root download "$@" >/dev/null); }

case $kernel in
    cloud) package=linux-image-cloud-amd64 more=() ;;
    amd64) package=linux-image-amd64 more=(unix_diag inet_diag tcp_diag udp_diag netlink_diag af_packet_diag nf_tables nf_conntrack_netlink) ;;
    *)     echo "guest: unknown kernel $kernel" >&2; exit 2 ;;
esac
kernel=$cache/$kernel

# The kernel of the machine's own apt sources, unpacked under .cache/guest/: vmlinuz and the modules in the order to load them.
fetch_kernel() {
    local image version module path
    echo "guest: downloading Debian's $package" >&2
    find_image() { apt-cache depends "$package" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1; }
    mkdir "$work/kernel" "$work/modules"
    image=$(find_image)
    # The lists of packages may be missing, or older than what the archive still has.
    if [ -z "$image" ] || ! download "$work/kernel" "$image" 2>/dev/null; then
        update_lists
        image=$(find_image)
        [ -n "$image" ] || { echo "guest: the apt sources have no $package" >&2; exit 125; }
        download "$work/kernel" "$image"
    fi
    dpkg-deb -x "$work"/kernel/*.deb "$work/kernel"
    version=$(basename "$work"/kernel/boot/vmlinuz-* | sed 's/^vmlinuz-//')
    depmod -b "$work/kernel" "$version"
    for module in overlay veth loop virtio_pci virtio_blk ext4 "${more[@]}"; do
        modprobe -d "$work/kernel" -S "$version" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
    done | awk '!seen[$0]++' | while read -r path; do
        cp "$path" "$work/modules/"
        unxz -q "$work/modules/$(basename "$path")" 2>/dev/null || true
        basename "$path" .xz >> "$work/modules/order"
    done
    rm -rf "$kernel"
    mkdir "$kernel"
    cp -r "$work/modules" "$kernel/modules"
    cp "$work/kernel/boot/vmlinuz-$version" "$kernel/vmlinuz.new"
    mv "$kernel/vmlinuz.new" "$kernel/vmlinuz"    # last: it stands for all of it
}
# Guests may start side by side: the first one makes what all of them need.
mkdir -p "$cache"
exec {lock}> "$cache/lock"
flock "$lock"
# Made by another version of this script, it may lack a module.
[ "$kernel/vmlinuz" -nt "${BASH_SOURCE[0]}" ] || fetch_kernel

# The policies of guest/, compiled by the tools of the same apt sources, which are unpacked and not installed: .cache/guest/lsm/.
compile_policies() {
    local tools=$work/tools out=$work/lsm deb
    mkdir "$tools" "$out"
    local packages=(apparmor secilc libsepol2)
    download "$tools" "${packages[@]}" 2>/dev/null || { update_lists; download "$tools" "${packages[@]}"; }
    for deb in "$tools"/*.deb; do dpkg-deb -x "$deb" "$tools"; done
    # The features of Debian's kernel stand in for those of this machine, which may have no AppArmor.
    "$tools/sbin/apparmor_parser" -qQTKS --config-file=/dev/null -M "$tools/usr/share/apparmor-features/features" \
        "$here/guest/apparmor.profile" > "$out/apparmor"
    LD_LIBRARY_PATH=$(dirname "$tools"/usr/lib/*/libsepol.so.2) "$tools/usr/bin/secilc" -M true -c 33 \
        -o "$out/selinux" -f /dev/null "$here/guest/selinux.cil"
    rm -rf "$cache/lsm"
    mv "$out" "$cache/lsm"
}
for policy in apparmor.profile selinux.cil; do
    [ "$cache/lsm/${policy%.*}" -nt "$here/guest/$policy" ] || { compile_policies; break; }
done

image=$cache/systemd.ext4 init=init
if [ -n "$systemd" ]; then
    [ "$lsm" = apparmor ] || { echo "guest: with systemd there is AppArmor only" >&2; exit 2; }
    if ! [ "$image" -nt "$here/guest/image.sh" ] || ! [ "$image" -nt "$here/guest/run" ]; then
        echo "guest: making the image with systemd" >&2
        "$here/guest/image.sh" "$image" >&2
    fi
    disks=("$image" "${disks[@]}")
    init=init-systemd
fi
devices=()
for disk in "${disks[@]}"; do
    id=disk${#devices[@]}
    devices+=(-drive "if=none,id=$id,file=$disk,format=raw,snapshot=on,cache=unsafe" -device "virtio-blk-pci,drive=$id")
done

exec {lock}>&-

# The initramfs. It is not compressed: unpacking is what an emulated processor is slow at.
root=$work/root
mkdir -p "$root"/{bin,files}
cp /bin/busybox "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
cp -r "$kernel/modules" "$cache/lsm" "$root/"
install -m 755 "$here/guest/$init" "$root/init"
install -m 755 "$here/guest/run" "$root/guest-run"
for file in "${files[@]}"; do
    install -D -m 755 "${file%%:*}" "$root/files/${file#*:}"
done
printf '%q ' "$@" > "$root/command"
(cd "$root" && find . | cpio -o -H newc --quiet) > "$work/initramfs"
rm -rf "$root"

# Serial lines: the kernel's console, the command's output, its status. A FIFO and not stdio, because QEMU would share
# this script's stdin. One thread and no cx16: more threads, or cx16, make emulated Debian kernels panic now and then.
mkfifo "$work/output"
cat "$work/output" &
cat=$!
timeout -k 5 "$limit" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
    -accel tcg,thread=single -cpu max,-cx16 -m "$memory" -smp "$processors" "${clock[@]}" "${devices[@]}" \
    -serial "file:$work/console" -serial "file:$work/output" -serial "file:$work/status" \
    -kernel "$kernel/vmlinuz" -initrd "$work/initramfs" -append "console=ttyS0 quiet panic=-1 security=$lsm systemd.unit=guest.service $user $legacy" </dev/null >&2 &
qemu=$!
code=0
wait "$qemu" || code=$?
qemu=
# Opened once from here, so that cat sees the end even if QEMU never came to open it.
: <> "$work/output"
wait "$cat" || true

[ "$code" != 124 ] || { echo "guest: not done after $limit s" >&2; exit 124; }
status=$(cat "$work/status" 2>/dev/null || true)
case $status in
    ''|*[!0-9]*)
        echo "guest: it ended without a status (QEMU: $code); the last lines of its console:" >&2
        tail -n 30 "$work/console" >&2 || true
        exit 125 ;;
esac
exit "$status"
