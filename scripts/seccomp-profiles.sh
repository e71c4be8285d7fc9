#!/bin/bash
# Takes the default seccomp profiles of Docker, containerd and Podman out of Debian's packages, which are not installed.
# usage: scripts/seccomp-profiles.sh DIRECTORY
set -euo pipefail

directory=${1:?usage: $0 DIRECTORY}
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt-get reads packages as a user of its own.
chmod 755 "$work"

# take PACKAGE PATH FILE
take() {
    [ -s "$directory/$3" ] && return
    echo "seccomp-profiles: $3 from $1"
    (cd "$work" && { apt-get download -qq "$1" 2>/dev/null || { apt-get update -qq && apt-get download -qq "$1"; }; })
    dpkg-deb --fsys-tarfile "$work/$1"_*.deb | tar -xO "./$2" > "$work/taken"
    mv "$work/taken" "$directory/$3"
}

gocode=usr/share/gocode/src/github.com
take golang-github-docker-docker-dev $gocode/docker/docker/profiles/seccomp/default.json docker.json
take golang-github-containerd-containerd-dev $gocode/containerd/containerd/contrib/seccomp/seccomp_default.go containerd.go
take golang-github-containers-common usr/share/containers/seccomp.json podman.json
