# Podman of an ordinary user. On cgroup v1 such a user has no cgroups: no limits, no pause.
. /callers/checks.sh "$@"
make_image
chmod 644 /tmp/image.tar
useradd -m -u 1000 user 2>/dev/null
# Its images: an overlay cannot have its changes on the box's overlay.
mount -t tmpfs tmpfs /home/user
printf 'user:200000:65536\n' | tee /etc/subuid > /etc/subgid
export XDG_RUNTIME_DIR=/run/user/1000 PODMAN_IGNORE_CGROUPSV1_WARNING=1
install -d -o user -g user -m 700 "$XDG_RUNTIME_DIR" /home/user/.config /home/user/.config/containers
mkdir -p /etc/containers
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > /etc/containers/policy.json
cat > /home/user/.config/containers/containers.conf <<'END'
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=1024:4096", "nproc=1000:4000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime_supports_json = ["crun", "runc", "runtime"]
[engine.runtimes]
runtime = ["/usr/local/bin/runtime"]
END
chown -R user:user /home/user
cd /home/user

podman() { runuser -u user -- env HOME=/home/user podman "$@"; }
p() {
    local name=runc
    [ "$RT" = runc ] || name=runtime
    podman --runtime "$name" "$@"
}
# No network but the host's: slirp4netns and pasta are not there.
run() { p run --pull never --network host "$@"; }
box() { run -d --name "$C" "$@" >/dev/null; }
field() { podman inspect -f "$1" "${2:-$C}"; }
is() { [ "$(field "$1")" = "$2" ]; }
clean() { podman rm -f -t 0 -a; }
export -f podman p run box field is
podman load -q -i /tmp/image.tar >/dev/null || exit 1
version "Podman $(podman version -f '{{.Client.Version}}'), rootless"

check 'run: output, exit code, ids' <<'END'
same "$(run --rm $IMAGE echo hello)" hello
code 7 run --rm $IMAGE sh -c 'exit 7'
same "$(run --rm $IMAGE id -u)" 0
has "$(run --rm $IMAGE cat /proc/self/uid_map)" 200000
END
check 'run: exit codes 127 and 126 of programs that cannot be run' <<'END'
code 127 run --rm $IMAGE nosuch 2>&1
code 126 run --rm $IMAGE /etc/passwd 2>&1
END
check 'run -it: a terminal, exit code' <<'END'
has "$(terminal "bash -c 'run --rm -it $IMAGE tty'")" /dev/pts/0
code 9 script -qec "bash -c 'run --rm -it $IMAGE sh -c \"exit 9\"'" /dev/null </dev/null
END
check 'run -d, logs, wait' <<'END'
box $IMAGE sh -c 'echo out; exit 3'
same "$(podman wait $C)" 3
same "$(podman logs $C)" out
END
check 'exec: output, exit code, user, terminal' <<'END'
box $IMAGE
same "$(podman exec $C echo hello)" hello
code 5 podman exec $C sh -c 'exit 5'
same "$(podman exec -u user $C id -u)" 1000
has "$(terminal "bash -c 'podman exec -it $C tty'")" /dev/pts/
END
check 'kill, stop, restart' <<'END'
box $IMAGE sh -c 'trap "exit 6" TERM; echo ready; while :; do sleep 0.05; done'
await bash -c "podman logs $C | grep ready"
podman stop $C >/dev/null
is '{{.State.ExitCode}}' 6
podman start $C >/dev/null
podman kill $C >/dev/null
same "$(podman wait $C)" 137
END
check 'top, healthcheck, cp' <<'END'
box --health-cmd 'test -e /tmp/good' --health-interval disable --health-retries 1 $IMAGE
has "$(podman top $C)" 'sleep 1000000'
code 1 podman healthcheck run $C
podman exec $C touch /tmp/good
podman healthcheck run $C
podman cp $C:/etc/passwd /tmp/passwd-$C && grep root /tmp/passwd-$C
END
check '--userns keep-id, host' <<'END'
same "$(run --rm --userns keep-id $IMAGE id -u)" 1000
same "$(run --rm --userns host $IMAGE id -u)" 0
END
check '--read-only, --tmpfs, -v, --init' <<'END'
has "$(run --rm --read-only --tmpfs /scratch $IMAGE sh -c 'touch /file 2>&1; touch /scratch/file')" 'Read-only'
mkdir -p /tmp/v; echo word > /tmp/v/file
same "$(run --rm -v /tmp/v:/mnt:ro $IMAGE cat /mnt/file)" word
run --rm --init $IMAGE true
END
check '--cap-drop, seccomp, no-new-privileges, --user' <<'END'
has "$(run --rm --cap-drop ALL $IMAGE grep CapEff /proc/self/status)" 0000000000000000
has "$(run --rm $IMAGE grep Seccomp: /proc/self/status)" 2
has "$(run --rm --security-opt no-new-privileges $IMAGE grep NoNewPrivs /proc/self/status)" 1
same "$(run --rm --user 1000 $IMAGE id -u)" 1000
END
check '--pid host, --ipc host, --network none' <<'END'
same "$(run --rm --pid host $IMAGE readlink /proc/self/ns/pid)" "$(readlink /proc/self/ns/pid)"
same "$(run --rm --ipc host $IMAGE readlink /proc/self/ns/ipc)" "$(readlink /proc/self/ns/ipc)"
same "$(p run --rm --network none $IMAGE ls /sys/class/net | xargs)" lo
END
check '--privileged' <<'END'
run --rm --privileged $IMAGE sh -c 'mount -t tmpfs tmpfs /mnt && mkdir /mnt/x'
END
check '10 runs in parallel' <<'END'
same "$(seq 1 10 | xargs -P 5 -I% bash -c 'run --rm $IMAGE echo x%' | sort -u | wc -l)" 10
END
