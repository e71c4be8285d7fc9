# Podman as root, with conmon.
. /callers/checks.sh "$@"
make_image
export PODMAN_IGNORE_CGROUPSV1_WARNING=1
mkdir -p /etc/containers
cat > /etc/containers/containers.conf <<'END'
[containers]
log_driver = "k8s-file"
# What this machine may not raise, for want of CAP_SYS_RESOURCE.
default_ulimits = ["nofile=1024:4096", "nproc=1000:4000"]
[network]
firewall_driver = "iptables"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime_supports_json = ["crun", "runc", "runtime"]
[engine.runtimes]
runtime = ["/usr/local/bin/runtime"]
END
# The guest's kernel has no bridges.
[ -z "$CALLERS_SYSTEMD" ] || sed -i -e 's/"cgroupfs"/"systemd"/' -e '/^\[containers\]/a netns = "none"' /etc/containers/containers.conf
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > /etc/containers/policy.json
# Whose ids `--userns auto` takes.
useradd -r containers
printf 'containers:1000000:10000000\n' | tee /etc/subuid > /etc/subgid
# Pods want an image for their first container; none is to be had from a registry.
export INFRA="--infra-image $IMAGE --infra-command '/bin/sleep 1000000'"
podman load -q -i /tmp/image.tar >/dev/null || exit 1
version "Podman $(podman version -f '{{.Client.Version}}')"

p() {
    local name=runc
    [ "$RT" = runc ] || name=runtime
    podman --runtime "$name" "$@"
}
run() { p run --pull never "$@"; }
box() { run -d --name "$C" "$@" >/dev/null; }
field() { podman inspect -f "$1" "${2:-$C}"; }
is() { [ "$(field "$1")" = "$2" ]; }
clean() {
    podman unpause -a
    podman pod rm -f -t 0 -a
    podman rm -f -t 0 -a
}
export -f p run box field is

check 'info names the runtime' <<'END'
name=runc; [ $RT = runc ] || name=runtime
same "$(p info -f '{{.Host.OCIRuntime.Name}}')" $name
has "$(p info -f '{{.Host.OCIRuntime.Version}}')" "$name version"
END
check 'as the default in containers.conf' <<'END'
name=runc; [ $RT = runc ] || name=runtime
sed "s/^\[engine\]/&\nruntime = \"$name\"/" /etc/containers/containers.conf > /tmp/default.conf
export CONTAINERS_CONF=/tmp/default.conf
same "$(podman info -f '{{.Host.OCIRuntime.Name}}')" $name
same "$(podman run --pull never --rm $IMAGE echo hello)" hello
END
check 'without runtime_supports_json: exit codes 127 and 126' <<'END'
sed 's/^runtime_supports_json = .*/runtime_supports_json = ["kata"]/' /etc/containers/containers.conf > /tmp/nojson.conf
export CONTAINERS_CONF=/tmp/nojson.conf
code 127 run --rm $IMAGE nosuch 2>&1
code 126 run --rm $IMAGE /etc 2>&1
END
check 'run: output, exit code' <<'END'
same "$(run --rm $IMAGE echo hello)" hello
code 7 run --rm $IMAGE sh -c 'exit 7'
END
check 'run: stdin' <<'END'
same "$(seq 1 20000 | run --rm -i $IMAGE wc -l)" 20000
END
check 'run: exit codes 127 and 126 of programs that cannot be run' <<'END'
code 127 run --rm $IMAGE nosuch 2>&1
code 127 run --rm $IMAGE /nosuch 2>&1
code 126 run --rm $IMAGE /etc/passwd 2>&1
code 126 run --rm $IMAGE /etc 2>&1
END
check 'run: error text of a missing program' <<'END'
out=$(run --rm $IMAGE nosuch 2>&1 || true)
has "$out" 'executable file'; has "$out" 'not found in $PATH'
END
check 'run -it: a terminal, exit code' <<'END'
export -f run p
has "$(terminal "bash -c 'run --rm -it $IMAGE tty'")" /dev/pts/0
code 9 script -qec "bash -c 'run --rm -it $IMAGE sh -c \"exit 9\"'" /dev/null </dev/null
END
check 'run -d, logs, wait' <<'END'
box $IMAGE sh -c 'echo out; echo err >&2; exit 3'
same "$(podman wait $C)" 3
same "$(podman logs $C 2>/dev/null)" out
same "$(podman logs $C 2>&1 >/dev/null)" err
END
check 'create, start, attach' <<'END'
p create --name $C -i $IMAGE sh -c 'read a; echo got $a' >/dev/null
same "$(echo word | podman start -ai $C)" 'got word'
END
check 'exec: output, exit code, stdin' <<'END'
box $IMAGE
same "$(podman exec $C echo hello)" hello
code 5 podman exec $C sh -c 'exit 5'
same "$(seq 1 5000 | podman exec -i $C wc -l)" 5000
END
check 'exec -it' <<'END'
box $IMAGE
has "$(terminal "podman exec -it $C tty")" /dev/pts/
code 4 script -qec "podman exec -it $C sh -c 'exit 4'" /dev/null </dev/null
END
check 'exec: programs that cannot be run' <<'END'
box $IMAGE
code 127 podman exec $C nosuch 2>&1
code 126 podman exec $C /etc/passwd 2>&1
END
check 'exec: user, environment, directory, detached' <<'END'
box $IMAGE
same "$(podman exec -u user -e A=b -w /tmp $C sh -c 'echo $(id -u) $A $PWD')" '1000 b /tmp'
podman exec -d $C sh -c 'echo done > /tmp/file; sleep 100' >/dev/null
await podman exec $C test -s /tmp/file
END
check '20 execs, 5 at a time' <<'END'
box $IMAGE
same "$(seq 1 20 | xargs -P 5 -I% podman exec $C echo x% | sort -u | wc -l)" 20
END
check 'pause, unpause' <<'END'
box $IMAGE sh -c 'while :; do date +%s%N > /tmp/now; sleep 0.01; done'
podman pause $C >/dev/null
is '{{.State.Status}}' paused
now=$(podman mount $C)/tmp/now
one=$(cat $now); sleep 0.3; same "$(cat $now)" "$one"
podman unpause $C >/dev/null
is '{{.State.Status}}' running
END
check 'stats' <<'END'
box --memory 64m $IMAGE
has "$(podman stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' $C)" '67.11MB 1'
END
check 'top' <<'END'
box $IMAGE
has "$(podman top $C)" 'sleep 1000000'
has "$(podman top $C pid comm)" sleep
END
check 'kill with a signal' <<'END'
box $IMAGE sh -c 'trap "exit 8" USR1; echo ready; while :; do sleep 0.05; done'
await sh -c "podman logs $C | grep ready"
podman kill -s USR1 $C >/dev/null
same "$(podman wait $C)" 8
END
check 'stop: SIGTERM first, then SIGKILL' <<'END'
box $IMAGE sh -c 'trap "exit 6" TERM; echo ready; while :; do sleep 0.05; done'
await sh -c "podman logs $C | grep ready"
podman stop $C >/dev/null
is '{{.State.ExitCode}}' 6
podman rm $C >/dev/null
box $IMAGE
podman stop -t 1 $C >/dev/null 2>&1
is '{{.State.ExitCode}}' 137
END
check 'restart' <<'END'
box $IMAGE
podman restart -t 0 $C >/dev/null
podman exec $C true
END
check 'restart policy' <<'END'
box --restart on-failure:2 $IMAGE sh -c 'exit 3'
await sh -c "podman inspect -f '{{.State.Status}} {{.RestartCount}}' $C | grep 'exited 2'"
END
check 'healthcheck' <<'END'
box --health-cmd 'test -e /tmp/good' --health-interval disable --health-retries 1 $IMAGE
code 1 podman healthcheck run $C
podman exec $C touch /tmp/good
podman healthcheck run $C
is '{{.State.Health.Status}}' healthy
END
check 'cp, commit, diff, export' <<'END'
box $IMAGE
echo content > /tmp/in
podman cp /tmp/in $C:/tmp/file
same "$(podman exec $C cat /tmp/file)" content
has "$(podman diff $C)" 'A /tmp/file'
podman commit -q $C localhost/box:$C >/dev/null
same "$(run --rm localhost/box:$C cat /tmp/file)" content
podman export -o /tmp/export.tar $C
tar -tf /tmp/export.tar | grep -x tmp/file
END
check 'pod: shared namespaces' <<'END'
eval p pod create --name pod-$C $INFRA --share net,ipc,uts,pid >/dev/null
run -d --pod pod-$C --name $C $IMAGE >/dev/null
same "$(run --rm --pod pod-$C $IMAGE sh -c 'readlink /proc/self/ns/net; readlink /proc/self/ns/pid')" "$(podman exec $C sh -c 'readlink /proc/self/ns/net; readlink /proc/self/ns/pid')"
podman pod pause pod-$C >/dev/null
podman pod unpause pod-$C >/dev/null
podman pod stop -t 0 pod-$C >/dev/null
podman pod rm -f pod-$C >/dev/null
END
check 'limits: memory, cpu, pids, cpuset, ulimit' <<'END'
out=$(run --rm --memory 32m --cpu-shares 256 --cpus 0.5 --pids-limit 40 --cpuset-cpus 0 --ulimit nofile=100:200 --ulimit nproc=500:500 $IMAGE sh -c "cat $(limits memory cpu pids cpus shares | xargs); ulimit -n")
same "$(echo $out)" "$(echo 33554432 50000 100000 40 0 $(shares 256) 100)"
END
check 'update' <<'END'
box --memory 64m $IMAGE
podman update --memory 32m --cpu-shares 512 $C >/dev/null
same "$(podman exec $C cat $(limits memory shares) | xargs)" "$(echo 33554432 $(shares 512))"
END
check 'OOM kill is reported' <<'END'
box --memory 16m --memory-swap 16m $IMAGE sh -c 'tail /dev/zero'
podman wait $C
is '{{.State.OOMKilled}}' true
END
check '--cgroups=disabled' <<'END'
run --rm --cgroups disabled $IMAGE true || exit 77
END
check '--init' <<'END'
run --rm --init $IMAGE sh -c 'ps | grep -E "catatonit|podman-init"'
END
check '--read-only, --tmpfs' <<'END'
out=$(run --rm --read-only --tmpfs /scratch:size=1m,mode=700 $IMAGE sh -c 'touch /file 2>&1; touch /scratch/file /tmp/x && grep /scratch /proc/mounts')
has "$out" 'Read-only file system'; has "$out" 'size=1024k,mode=700'
END
check '-v: bind, read-only, volume, copy-up' <<'END'
mkdir -p /tmp/volume; echo word > /tmp/volume/file
same "$(run --rm -v /tmp/volume:/mnt $IMAGE cat /mnt/file)" word
has "$(run --rm -v /tmp/volume:/mnt:ro $IMAGE touch /mnt/new 2>&1 || true)" 'Read-only'
has "$(run --rm -v $C:/etc $IMAGE cat /etc/passwd)" root
podman volume rm $C >/dev/null
has "$(run --rm --mount type=tmpfs,destination=/etc,tmpcopyup $IMAGE cat /etc/passwd)" root
END
check '-v :idmap' <<'END'
mkdir -p /tmp/idmap; touch /tmp/idmap/file
same "$(run --rm --uidmap 0:200000:65536 --gidmap 0:200000:65536 -v /tmp/idmap:/mnt:idmap $IMAGE stat -c %u /mnt/file)" 0
END
check '--user, --group-add, --workdir, --hostname, --umask' <<'END'
same "$(run --rm --user 1000:1000 --group-add 7 -w /tmp --hostname name --umask 0027 $IMAGE sh -c 'echo $(id -u) $(id -G) $PWD $(hostname) $(umask)')" '1000 1000 7 /tmp name 0027'
END
check '--cap-drop, --cap-add, no-new-privileges' <<'END'
has "$(run --rm --cap-drop ALL $IMAGE grep CapEff /proc/self/status)" 0000000000000000
has "$(run --rm --cap-drop ALL --cap-add NET_ADMIN $IMAGE grep CapEff /proc/self/status)" 0000000000001000
has "$(run --rm --security-opt no-new-privileges $IMAGE grep NoNewPrivs /proc/self/status)" 1
END
check 'seccomp: default, a profile, unconfined' <<'END'
has "$(run --rm $IMAGE grep Seccomp: /proc/self/status)" 2
echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}' > /tmp/profile.json
has "$(run --rm --security-opt seccomp=/tmp/profile.json $IMAGE mkdir /tmp/x 2>&1 || true)" 'Operation not permitted'
has "$(run --rm --security-opt seccomp=unconfined $IMAGE grep Seccomp: /proc/self/status)" 0
END
check '--sysctl, --shm-size, --device, --oom-score-adj, mask, unmask' <<'END'
same "$(run --rm --sysctl net.ipv4.ip_forward=0 $IMAGE cat /proc/sys/net/ipv4/ip_forward)" 0
has "$(run --rm --shm-size 1m $IMAGE df /dev/shm)" 1024
run --rm --device /dev/kmsg:/dev/log0 $IMAGE test -c /dev/log0
same "$(run --rm --oom-score-adj 500 $IMAGE cat /proc/self/oom_score_adj)" 500
same "$(run --rm --security-opt mask=/etc/passwd $IMAGE cat /etc/passwd)" ''
END
check '--pid host' <<'END'
same "$(run --rm --pid host $IMAGE readlink /proc/self/ns/pid)" "$(readlink /proc/self/ns/pid)"
box --pid host $IMAGE sh -c 'sleep 4321 & sleep 4321'
await pgrep -fx 'sleep 4321'
podman rm -f -t 0 $C >/dev/null
await sh -c '! pgrep -fx "sleep 4321"'
END
check '--ipc, --uts, --cgroupns' <<'END'
same "$(run --rm --ipc host --uts host $IMAGE sh -c 'readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts')" "$(readlink /proc/self/ns/ipc /proc/self/ns/uts)"
has "$(run --rm --cgroupns private $IMAGE cat /proc/self/cgroup)" 'memory:/'
box $IMAGE
has "$(run --rm --pid container:$C $IMAGE ps)" 'sleep 1000000'
END
check '--network none, host, container:' <<'END'
same "$(run --rm --network none $IMAGE ls /sys/class/net | xargs)" lo
same "$(run --rm --network host $IMAGE readlink /proc/self/ns/net)" "$(readlink /proc/self/ns/net)"
box --network none $IMAGE
same "$(run --rm --network container:$C $IMAGE readlink /proc/self/ns/net)" "$(podman exec $C readlink /proc/self/ns/net)"
END
check '--network bridge' <<'END'
box --network podman $IMAGE sh -c 'while :; do echo reached | nc -l -p 8000; done'
address=$(field '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}')
await sh -c "podman exec $C netstat -ltn | grep 8000"
same "$(run --rm --network podman $IMAGE nc -w 5 $address 8000 </dev/null)" reached
END
check '--userns: auto, a map, of a container' <<'END'
has "$(run --rm --uidmap 0:200000:65536 --gidmap 0:200000:65536 $IMAGE cat /proc/self/uid_map)" 200000
has "$(run --rm --userns auto:size=1024 $IMAGE cat /proc/self/uid_map)" 1024
run -d --name $C --uidmap 0:200000:65536 --gidmap 0:200000:65536 $IMAGE >/dev/null
same "$(run --rm --userns container:$C $IMAGE readlink /proc/self/ns/user)" "$(podman exec $C readlink /proc/self/ns/user)"
has "$(terminal "podman exec -it $C tty")" /dev/pts/
END
check '--privileged' <<'END'
run --rm --privileged $IMAGE sh -c 'mount -t tmpfs tmpfs /mnt && mkdir /mnt/x && test -c /dev/kmsg'
END
check '--preserve-fds' <<'END'
same "$(run --rm --preserve-fds 1 $IMAGE sh -c 'cat <&3' 3< <(echo passed))" passed
END
check '--sdnotify: READY reaches the caller' <<'END'
socket=/tmp/notify-$C.sock
python3 - $socket > /tmp/notify-$C <<'PY' &
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1]); s.settimeout(30)
for _ in range(2): print(s.recv(4096), flush=True)
PY
await test -S $socket
NOTIFY_SOCKET=$socket run --rm --sdnotify conmon $IMAGE true
await grep -q READY /tmp/notify-$C
END
check 'build by buildah' <<'END'
mkdir -p /tmp/build; cd /tmp/build
binary=runc; [ $RT = runc ] || binary=/usr/local/bin/runtime
printf 'FROM %s\nRUN echo built > /file\nUSER user\nRUN id -un > /tmp/who\nCMD cat /file /tmp/who\n' $IMAGE > Dockerfile
buildah bud --isolation oci --runtime $binary --pull-never --no-cache -q -t localhost/built:$C . 2>&1
same "$(run --rm localhost/built:$C | xargs)" 'built user'
END
check 'buildah run: exit code, terminal' <<'END'
binary=runc; [ $RT = runc ] || binary=/usr/local/bin/runtime
name=$(buildah from --pull-never $IMAGE)
code 5 buildah run --isolation oci --runtime $binary $name sh -c 'exit 5'
has "$(terminal "buildah run --isolation oci --runtime $binary -t $name tty")" /dev/pts/
buildah rm $name >/dev/null
END
check 'checkpoint, restore' <<'END'
needs_criu
box --network none $IMAGE sh -c "$COUNTER"
await sh -c "podman logs $C | grep .."
podman container checkpoint $C
is '{{.State.Status}}' exited
podman container restore $C
is '{{.State.Status}}' running
more sh -c "podman logs $C | tail -n 1"
same "$(podman logs $C | sort -n | uniq -d)" ''
END
check 'checkpoint: --leave-running, --export, restore --import' <<'END'
needs_criu
box --network none --mount type=tmpfs,dst=/mnt $IMAGE sh -c "$COUNTER"
await podman exec $C grep .. /count
podman container checkpoint --leave-running --export /tmp/$C.tar $C
is '{{.State.Status}}' running
podman rm -f -t 0 $C
podman container restore --import /tmp/$C.tar
[ "$(podman exec $C cat /count)" -ge 10 ]
more podman exec $C cat /count
END
check 'checkpoint: --pre-checkpoint, --with-previous' <<'END'
needs_criu
criu check --feature mem_dirty_track || exit 77
box --network none $IMAGE sh -c "$COUNTER"
podman container checkpoint --pre-checkpoint --export /tmp/pre-$C.tar $C
podman container checkpoint --with-previous --export /tmp/$C.tar $C
podman rm -f -t 0 $C
podman container restore --import-previous /tmp/pre-$C.tar --import /tmp/$C.tar
more podman exec $C cat /count
END
check '20 runs in parallel' <<'END'
same "$(seq 1 20 | xargs -P 10 -I% bash -c 'run --rm --network none $IMAGE echo x%' | sort -u | wc -l)" 20
END
check 'nothing is left: cgroups, state' <<'END'
box $IMAGE
id=$(field '{{.Id}}')
podman rm -f -t 0 $C >/dev/null
same "$(find /sys/fs/cgroup /run -name "*$id*" 2>/dev/null | wc -l)" 0
END
