#!/bin/bash
# Runs bats files in the guest with systemd (scripts/guest.sh --systemd), with cgroupfs and with systemd's cgroups.
# usage, there: guest.sh FILE.bats...     /peer.tar has src/ and bin/NAME/runc, as in the cache of scripts/peer-tests.sh
# Prints `>>> KIND NAME FILE` before each TAP, where KIND is v2 or systemd. Nothing is tidied up: the guest ends.
set -euo pipefail

mkdir -p /peer/path
tar -xf /peer.tar -C /peer
# get-images.sh asks `go env GOARCH`; sd-helper of runc starts and stops a slice.
printf '#!/bin/sh\necho amd64\n' > /peer/path/go
printf '#!/bin/sh\nexec systemctl "$3" "$4"\n' > /peer/src/contrib/cmd/sd-helper/sd-helper
chmod +x /peer/path/go /peer/src/contrib/cmd/sd-helper/sd-helper
export PATH=/peer/path:$PATH TMPDIR=/var/tmp
cd /peer/src/tests/integration
# Each test unpacks an image; tar(1) sees by itself that they are no longer compressed.
for image in testdata/*.tar.xz; do
    xz -dc "$image" > image
    mv image "$image"
done
# A call may hang, or a helper that waits for one.
while sleep 10; do pkill -KILL -O 120 -f '^/peer/' || true; done &
for kind in v2 systemd; do
    [ "$kind" = v2 ] || export RUNC_USE_SYSTEMD=1
    for file in "$@"; do
        for runtime in /peer/bin/*/runc; do
            name=$(basename "$(dirname "$runtime")")
            # The terminal is the standard input and output; the results go into a file.
            RUNC=$runtime timeout -k 5 900 script -qec "bats --tap $file > /peer/tap 2>&1" /dev/null </dev/null >/dev/null 2>&1 || true
            echo ">>> $kind $name $file"
            cat /peer/tap
        done
    done
done
