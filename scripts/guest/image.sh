#!/bin/bash
# Makes the root file system of the guest with systemd (scripts/guest.sh --systemd): an ext4 image of Debian trixie.
# usage: scripts/guest/image.sh IMAGE     (root; needs mmdebstrap and e2fsprogs)
#
# Trixie, because its systemd 257 is the one in use: it knows every property that a runtime may set, and no cgroup v1.
# An image and not an initramfs: unpacking a hundred MiB is what an emulated processor is slow at. There is no kernel in
# it and no udev; guest/init mounts it.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

packages=(systemd systemd-sysv dbus dbus-user-session libpam-systemd uidmap busybox-static)
# A runtime that is not ours wants libseccomp.so; runc's tests want the rest.
packages+=(libseccomp2 bats bsdutils gawk iproute2 jq procps util-linux xz-utils)

mmdebstrap --quiet --mode=root --variant=essential --include="${packages[*]}" \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    trixie "$work/root" \
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${GUEST_MIRROR:-http://deb.debian.org/debian} trixie main"

cd "$work/root"
echo guest > etc/hostname
echo 0123456789abcdef0123456789abcdef > etc/machine-id
: > etc/fstab
install -m 755 "$here/run" usr/local/sbin/guest-run

# The user of --user: PAM wants a line in shadow, newuidmap one in subuid. All controllers are delegated to its manager.
echo 'user:x:1000:1000::/home/user:/bin/bash' >> etc/passwd
echo 'user:x:1000:' >> etc/group
echo 'user:*:20000:0:99999:7:::' >> etc/shadow
echo 'user:100000:65536' | tee etc/subuid > etc/subgid
install -d -o 1000 -g 1000 home/user
mkdir -p 'etc/systemd/system/user@.service.d'
printf '[Service]\nDelegate=cpu cpuset io memory pids\n' > 'etc/systemd/system/user@.service.d/delegate.conf'

# The one unit that is booted to. Its cgroup is the command's own.
cat > etc/systemd/system/guest.service <<'UNIT'
[Unit]
Description=The command of scripts/guest.sh
Requires=basic.target dbus.socket
After=basic.target dbus.socket
[Service]
ExecStart=/usr/local/sbin/guest-run
Delegate=yes
TasksMax=infinity
UNIT
# What only costs time at boot.
for unit in systemd-modules-load.service systemd-journal-flush.service timers.target; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
touch etc/.updated var/.updated
mkdir -p etc/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\n' > etc/systemd/journald.conf.d/guest.conf

# Half a GiB of room for bundles; the file is sparse.
truncate -s $(($(du -sm . | cut -f 1) * 12 / 10 + 512))M "$work/image"
mkfs.ext4 -q -F -O ^has_journal -m 0 -d . "$work/image"
mv "$work/image" "$1.new"
mv "$1.new" "$1"
