#!/bin/bash
# Makes a bundle to try the runtime with: a root file system of busybox, and a config.json by `runtime spec`.
# usage: scripts/bundle.sh RUNTIME DIRECTORY
# config.json is written anew each time. Without a terminal, the container prints a few lines and exits.
set -euo pipefail
runtime=${1:?usage: $0 RUNTIME DIRECTORY}
bundle=${2:?usage: $0 RUNTIME DIRECTORY}
busybox=/bin/busybox

mkdir -p "$bundle"/rootfs/{bin,dev,etc,proc,root,sys,tmp}
if ! cmp -s "$busybox" "$bundle/rootfs/bin/busybox"; then
    cp "$busybox" "$bundle/rootfs/bin/busybox"
    for applet in $("$busybox" --list); do
        [ "$applet" = busybox ] || ln -sf busybox "$bundle/rootfs/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' > "$bundle/rootfs/etc/passwd"
    echo 'root:x:0:' > "$bundle/rootfs/etc/group"
fi

rm -f "$bundle/config.json"
"$runtime" spec --bundle "$bundle"
if ! [ -t 0 ] || ! [ -t 1 ]; then
    config=$(<"$bundle/config.json")
    config=${config/'"terminal": true'/'"terminal": false'}
    config=${config/'"sh"'/'"sh", "-c", "echo hello from the container; id; hostname"'}
    printf '%s\n' "$config" > "$bundle/config.json"
fi
