# Docker: one daemon with runc and ours side by side; then daemons with each as the default, and with --userns-remap.
. /callers/checks.sh "$@"
make_image
: > /results/dockerd.log

# The guest's kernel has neither bridges nor netfilter.
export NO_BRIDGE=${CALLERS_SYSTEMD:+--bridge none --iptables=false --ip6tables=false}
# Starts dockerd with these options, and waits until it answers.
daemon() {
    dockerd --storage-driver overlay2 $NO_BRIDGE "$@" >> /results/dockerd.log 2>&1 &
    daemon=$!
    await docker version || { tail -n 20 /results/dockerd.log; exit 1; }
    docker load -q -i /tmp/image.tar >/dev/null
}
stop_daemon() {
    kill "$daemon"
    wait "$daemon"
}
clean() { docker ps -aq | xargs -r docker rm -f -v; }

run() { docker run --runtime "$RT" --pull never "$@"; }
# A container of that name in the background, that sleeps.
box() { run -d --name "$C" "$@" >/dev/null; }
field() { docker inspect -f "$1" "${2:-$C}"; }
is() { [ "$(field "$1")" = "$2" ]; }
export -f run box field is

mkdir -p /etc/docker
echo '{"experimental": true, "runtimes": {"ours": {"path": "/usr/local/bin/runtime"},
    "ours-args": {"path": "/usr/local/bin/runtime", "runtimeArgs": ["--debug"]},
    "runc-args": {"path": "runc", "runtimeArgs": ["--debug"]}}}' > /etc/docker/daemon.json
daemon
version "$(docker version -f 'Docker {{.Server.Version}}')"

check 'info names the runtime' <<'END'
has "$(docker info -f '{{json .Runtimes}}')" "\"$RT\""
END
check 'run: output, exit code' <<'END'
same "$(run --rm $IMAGE echo hello)" hello
code 7 run --rm $IMAGE sh -c 'exit 7'
END
check 'run: a runtime with runtimeArgs' <<'END'
same "$(docker run --pull never --runtime $RT-args --rm $IMAGE echo hello)" hello
END
check 'run: stdin' <<'END'
same "$(seq 1 20000 | run --rm -i $IMAGE sh -c 'cat | wc -l')" 20000
END
check 'run: death by a signal' <<'END'
code 137 run --rm $IMAGE sh -c 'kill -9 $$; sleep 9' || code 137 run --rm --pid host $IMAGE sh -c 'kill -9 $$'
END
check 'run: exit codes 127 and 126 of programs that cannot be run' <<'END'
code 127 run --rm $IMAGE nosuch 2>&1
code 127 run --rm $IMAGE /nosuch 2>&1
code 126 run --rm $IMAGE /etc/passwd 2>&1
code 126 run --rm $IMAGE /etc 2>&1
END
check 'run: error text of a missing program' <<'END'
has "$(run --rm $IMAGE nosuch 2>&1)" 'exec: "nosuch": executable file not found in $PATH'
END
check 'run: a directory on a file' <<'END'
has "$(run --rm -v /tmp:/etc/passwd $IMAGE true 2>&1)" 'Are you trying to mount a directory onto a file'
END
check 'run -it: a terminal' <<'END'
out=$(terminal "docker run --runtime $RT --rm -it $IMAGE sh -c 'tty; test -t 0 && test -t 1 && echo both'")
has "$out" /dev/pts/0; has "$out" both
END
check 'run -it: exit code' <<'END'
code 9 script -qec "docker run --runtime $RT --rm -it $IMAGE sh -c 'exit 9'" /dev/null </dev/null
END
check 'run -it: window size' <<'END'
has "$(script -qec "stty rows 33 cols 77; docker run --runtime $RT --rm -it $IMAGE sh -c 'sleep 1; stty size'" /dev/null </dev/null)" '33 77'
END
check 'run -d, logs, wait' <<'END'
box $IMAGE sh -c 'echo out; echo err >&2; exit 3'
same "$(docker wait $C)" 3
same "$(docker logs $C 2>/dev/null)" out
same "$(docker logs $C 2>&1 >/dev/null)" err
END
check 'create, start, attach' <<'END'
docker create --runtime $RT --name $C -i $IMAGE sh -c 'read a; echo got $a' >/dev/null
same "$(echo word | docker start -ai $C)" 'got word'
END
check 'exec: output, exit code, stdin' <<'END'
box $IMAGE
same "$(docker exec $C echo hello)" hello
code 5 docker exec $C sh -c 'exit 5'
same "$(seq 1 5000 | docker exec -i $C wc -l)" 5000
END
check 'exec -it' <<'END'
box $IMAGE
has "$(terminal "docker exec -it $C sh -c 'tty; echo \$TERM'")" /dev/pts/
code 4 script -qec "docker exec -it $C sh -c 'exit 4'" /dev/null </dev/null
END
check 'exec: user, environment, directory' <<'END'
box $IMAGE
same "$(docker exec -u user -e A=b -w /tmp $C sh -c 'echo $(id -u) $A $PWD $HOME')" '1000 b /tmp /home'
END
check 'exec: programs that cannot be run' <<'END'
box $IMAGE
code 127 docker exec $C nosuch 2>&1 || code 126 docker exec $C nosuch 2>&1
code 126 docker exec $C /etc/passwd 2>&1
END
check 'exec -d' <<'END'
box $IMAGE
docker exec -d $C sh -c 'echo done > /tmp/file; sleep 100'
await docker exec $C test -s /tmp/file
END
check 'exec in a container that ends' <<'END'
box $IMAGE
docker exec $C sleep 100 & other=$!
await sh -c "docker top $C | grep 'sleep 100$'"
docker kill $C >/dev/null
code 137 wait $other
END
check '30 execs, 6 at a time' <<'END'
box $IMAGE
same "$(seq 1 30 | xargs -P 6 -I% docker exec $C echo x% | sort -u | wc -l)" 30
END
check '20 runs in parallel' <<'END'
same "$(seq 1 20 | xargs -P 20 -I% docker run --runtime $RT --rm --network none $IMAGE echo x% | sort -u | wc -l)" 20
END
check 'stats' <<'END'
box --memory 64m $IMAGE
has "$(docker stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' $C)" '64MiB 1'
END
check 'top' <<'END'
box $IMAGE
has "$(docker top $C)" 'sleep 1000000'
has "$(docker top $C -o pid,comm)" sleep
END
check 'pause, unpause' <<'END'
box $IMAGE sh -c 'while :; do date +%s%N > /tmp/now; sleep 0.01; done'
docker pause $C >/dev/null
is '{{.State.Status}}' paused
one=$(docker cp $C:/tmp/now - | tar -xO); sleep 0.3; two=$(docker cp $C:/tmp/now - | tar -xO)
same "$one" "$two"
code 1 docker exec $C true 2>&1
docker unpause $C >/dev/null
is '{{.State.Status}}' running
docker exec $C true
END
check 'update' <<'END'
box --memory 64m $IMAGE
docker update --memory 32m --memory-swap 32m --cpu-shares 512 --pids-limit 50 $C >/dev/null
same "$(docker exec $C cat $(limits memory pids shares) | xargs)" "$(echo 33554432 50 $(shares 512))"
END
check 'kill with a signal' <<'END'
box $IMAGE sh -c 'trap "echo usr1; exit 8" USR1; echo ready; while :; do sleep 0.05; done'
await sh -c "docker logs $C | grep ready"
docker kill -s USR1 $C >/dev/null
same "$(docker wait $C)" 8
END
check 'stop: SIGTERM first, then SIGKILL' <<'END'
box $IMAGE sh -c 'trap "exit 6" TERM; echo ready; while :; do sleep 0.05; done'
await sh -c "docker logs $C | grep ready"
docker stop $C >/dev/null
is '{{.State.ExitCode}}' 6
docker start $C >/dev/null
docker rm -f $C >/dev/null
box $IMAGE
docker stop -t 1 $C >/dev/null
is '{{.State.ExitCode}}' 137
END
check 'restart' <<'END'
box $IMAGE
docker restart -t 0 $C >/dev/null
docker exec $C true
END
check 'restart policy' <<'END'
box --restart on-failure:2 $IMAGE sh -c 'exit 3'
await sh -c "docker inspect -f '{{.State.Status}} {{.RestartCount}}' $C | grep 'exited 2'"
END
check 'cp in and out' <<'END'
box $IMAGE
echo content > /tmp/in
docker cp /tmp/in $C:/tmp/file
same "$(docker exec $C cat /tmp/file)" content
docker cp $C:/tmp/file /tmp/out
same "$(cat /tmp/out)" content
END
check 'healthcheck' <<'END'
box --health-cmd 'test -e /tmp/good' --health-interval 0.5s --health-retries 1 $IMAGE
await is '{{.State.Health.Status}}' unhealthy
docker exec $C touch /tmp/good
await is '{{.State.Health.Status}}' healthy
END
check 'limits: memory, cpu, pids, cpuset, ulimit' <<'END'
out=$(run --rm --memory 32m --cpu-shares 256 --cpus 0.5 --pids-limit 40 --cpuset-cpus 0 --ulimit nofile=100:200 $IMAGE sh -c "cat $(limits memory cpu pids cpus shares | xargs); ulimit -n")
same "$(echo $out)" "$(echo 33554432 50000 100000 40 0 $(shares 256) 100)"
END
# The news of the kill may come after that of the end.
check 'OOM kill is reported' <<'END'
for try in 1 2 3; do
    box --memory 16m --memory-swap 16m $IMAGE sh -c 'tail /dev/zero'
    docker wait $C
    ! is '{{.State.OOMKilled}}' true || exit 0
    docker rm $C
done
exit 1
END
check '--init' <<'END'
box --init $IMAGE
has "$(docker exec $C ps)" docker-init
END
check '--read-only, --tmpfs' <<'END'
out=$(run --rm --read-only --tmpfs /scratch:size=1m,mode=700 $IMAGE sh -c 'touch /file 2>&1; touch /scratch/file && grep /scratch /proc/mounts')
has "$out" 'Read-only file system'; has "$out" 'size=1024k,mode=700'
END
check '-v: bind, read-only, volume' <<'END'
mkdir -p /tmp/volume; echo word > /tmp/volume/file
same "$(run --rm -v /tmp/volume:/mnt $IMAGE cat /mnt/file)" word
has "$(run --rm -v /tmp/volume:/mnt:ro $IMAGE touch /mnt/new 2>&1)" 'Read-only'
run --rm -v $C:/data $IMAGE sh -c 'echo kept > /data/file'
same "$(run --rm -v $C:/data $IMAGE cat /data/file)" kept
docker volume rm $C >/dev/null
END
check '--mount: propagation' <<'END'
mkdir -p /tmp/shared-$C
mount -t tmpfs tmpfs /tmp/shared-$C; mount --make-shared /tmp/shared-$C
box --mount type=bind,source=/tmp/shared-$C,target=/mnt,bind-propagation=rslave $IMAGE
mkdir /tmp/shared-$C/sub; mount -t tmpfs tmpfs /tmp/shared-$C/sub; touch /tmp/shared-$C/sub/seen
docker exec $C test -e /mnt/sub/seen
umount -R /tmp/shared-$C
END
check '--user, --group-add, --workdir, --hostname' <<'END'
same "$(run --rm --user 1000:1000 --group-add 7 -w /tmp --hostname name $IMAGE sh -c 'echo $(id -u) $(id -g) $(id -G) $PWD $(hostname)')" '1000 1000 1000 7 /tmp name'
END
check '--cap-drop, --cap-add' <<'END'
has "$(run --rm --cap-drop ALL $IMAGE grep CapEff /proc/self/status)" 0000000000000000
has "$(run --rm --cap-drop ALL --cap-add NET_ADMIN $IMAGE grep CapEff /proc/self/status)" 0000000000001000
END
check '--security-opt no-new-privileges' <<'END'
has "$(run --rm --security-opt no-new-privileges $IMAGE grep NoNewPrivs /proc/self/status)" 1
END
check 'seccomp: default, a profile, unconfined' <<'END'
has "$(run --rm $IMAGE grep Seccomp: /proc/self/status)" 2
echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}' > /tmp/profile.json
has "$(run --rm --security-opt seccomp=/tmp/profile.json $IMAGE mkdir /tmp/x 2>&1)" 'Operation not permitted'
has "$(run --rm --security-opt seccomp=unconfined $IMAGE grep Seccomp: /proc/self/status)" 0
END
check '--sysctl, --shm-size, --device, --oom-score-adj' <<'END'
same "$(run --rm --sysctl net.ipv4.ip_forward=0 $IMAGE cat /proc/sys/net/ipv4/ip_forward)" 0
has "$(run --rm --shm-size 1m $IMAGE df /dev/shm)" 1024
run --rm --device /dev/kmsg:/dev/log0 $IMAGE test -c /dev/log0
same "$(run --rm --oom-score-adj 500 $IMAGE cat /proc/self/oom_score_adj)" 500
END
check '--pid host' <<'END'
same "$(run --rm --pid host $IMAGE readlink /proc/self/ns/pid)" "$(readlink /proc/self/ns/pid)"
END
check '--pid host: all processes end with kill' <<'END'
box --pid host $IMAGE sh -c 'sleep 4321 & sleep 4321'
await pgrep -f 'sleep 4321'
docker rm -f $C >/dev/null
await sh -c '! pgrep -fx "sleep 4321"'
END
check '--ipc, --uts: host, container' <<'END'
same "$(run --rm --ipc host --uts host $IMAGE sh -c 'readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts')" "$(readlink /proc/self/ns/ipc /proc/self/ns/uts)"
box --ipc shareable $IMAGE
same "$(run --rm --ipc container:$C $IMAGE readlink /proc/self/ns/ipc)" "$(docker exec $C readlink /proc/self/ns/ipc)"
END
check '--pid container' <<'END'
box $IMAGE
has "$(run --rm --pid container:$C $IMAGE ps)" 'sleep 1000000'
END
check '--cgroupns private' <<'END'
has "$(run --rm --cgroupns private $IMAGE cat /proc/self/cgroup)" 'memory:/'
[ "$(run --rm --cgroupns private $IMAGE readlink /proc/self/ns/cgroup)" != "$(readlink /proc/self/ns/cgroup)" ]
END
check '--cgroup-parent' <<'END'
box --cgroup-parent /parent-$C --cgroupns host $IMAGE
has "$(docker exec $C cat /proc/self/cgroup)" "/parent-$C/$(field '{{.Id}}')"
END
check '--network none' <<'END'
same "$(run --rm --network none $IMAGE ls /sys/class/net | xargs)" lo
END
check '--network host' <<'END'
same "$(run --rm --network host $IMAGE readlink /proc/self/ns/net)" "$(readlink /proc/self/ns/net)"
END
check '--network container:' <<'END'
box --network none $IMAGE
same "$(run --rm --network container:$C $IMAGE readlink /proc/self/ns/net)" "$(docker exec $C readlink /proc/self/ns/net)"
END
check 'bridge network: containers reach each other' <<'END'
box $IMAGE sh -c 'while :; do echo reached | nc -l -p 8000; done'
address=$(field '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}')
await sh -c "docker exec $C netstat -ltn | grep 8000"
same "$(run --rm $IMAGE nc -w 5 $address 8000 </dev/null)" reached
END
check '--privileged' <<'END'
run --rm --privileged $IMAGE sh -c 'mount -t tmpfs tmpfs /mnt && mkdir /mnt/x && test -c /dev/kmsg && touch '$(dirname $(limits memory))/cgroup.procs
END
check 'commit, diff, export' <<'END'
box $IMAGE sh -c 'echo new > /file; sleep 1000'
await docker exec $C test -s /file
has "$(docker diff $C)" 'A /file'
docker commit $C box:$C >/dev/null
same "$(run --rm box:$C cat /file)" new
docker export $C | tar -t | grep -x file
docker rm -f $C >/dev/null; docker rmi box:$C >/dev/null
END
check 'checkpoint, start --checkpoint' <<'END'
needs_criu
box --network host $IMAGE sh -c "$COUNTER"
await sh -c "docker logs $C | grep .."
docker checkpoint create --leave-running $C one
is '{{.State.Status}}' running
docker checkpoint create $C two
await is '{{.State.Status}}' exited
same "$(docker checkpoint ls $C | tail -n +2 | sort)" "$(printf 'one\ntwo')"
# It may find its own upload there already (moby issue 42900).
await docker start --checkpoint two $C
more sh -c "docker logs $C | tail -n 1"
same "$(docker logs $C | sort -n | uniq -d)" ''
docker rm -f $C
END
check 'checkpoint: a volume, a read-only root' <<'END'
needs_criu
box --network host -v $C:/mnt --read-only --tmpfs /run $IMAGE sh -c "$(sed 's,/count,/mnt/count,' <<< "$COUNTER")"
await docker exec $C grep .. /mnt/count
docker checkpoint create $C one
await is '{{.State.Status}}' exited
await docker start --checkpoint one $C
[ "$(docker exec $C cat /mnt/count)" -ge 10 ]
more docker exec $C cat /mnt/count
has "$(docker exec $C touch /file 2>&1)" 'Read-only'
docker rm -f $C; docker volume rm $C
END
check 'events' <<'END'
since=$(date +%s)
run --rm --name $C $IMAGE true
out=$(docker events --since $since --until "$(date +%s.%N)" --filter container=$C --format '{{.Action}}' | xargs)
has "$out" 'create attach'; has "$out" start; has "$out" die
END
stop_daemon

check 'live restore: containers outlive the daemon' <<'END'
start() { dockerd --storage-driver overlay2 $NO_BRIDGE --live-restore >> /results/dockerd.log 2>&1 & await docker version; }
start; first=$!
box $IMAGE sh -c 'trap "exit 6" TERM; while :; do sleep 0.05; done'
kill $first; wait $first || true
start; second=$!
docker exec $C true
docker stop $C >/dev/null
is '{{.State.ExitCode}}' 6
docker rm $C >/dev/null
kill $second; wait $second || true
END

# What has no --runtime: the daemon's default is what is asked.
run() { docker run --pull never "$@"; }
export -f run
# BuildKit calls a runtime of its own, the first `runc` in the daemon's PATH or that of the variable.
export CALLS=/tmp/buildkit-calls
mkdir /tmp/as
for RUNTIMES in runc ours; do
    if [ $RUNTIMES = runc ]; then binary=$(command -v runc); else binary=/usr/local/bin/runtime; fi
    printf '#!/bin/sh\necho "%s $*" >> %s\nexec %s "$@"\n' $RUNTIMES $CALLS "$binary" > /tmp/as/runc
    chmod +x /tmp/as/runc
    echo "{\"runtimes\": {\"ours\": {\"path\": \"/usr/local/bin/runtime\"}}, \"default-runtime\": \"$RUNTIMES\"}" > /etc/docker/daemon.json
    PATH=/tmp/as:$PATH DOCKER_BUILDKIT_RUNC_COMMAND=/tmp/as/runc daemon
    check 'as default: run' <<'END'
same "$(docker info -f '{{.DefaultRuntime}}')" $RT
same "$(run --rm $IMAGE echo hello)" hello
END
    check 'build: RUN, USER, WORKDIR' <<'END'
mkdir -p /tmp/build; cd /tmp/build
printf 'FROM %s\nRUN echo built > /file\nUSER user\nWORKDIR /work\nRUN id -un > /tmp/who\nCMD cat /file /tmp/who\n' $IMAGE > Dockerfile
DOCKER_BUILDKIT=0 docker build --no-cache -q -t built:$C . 2>&1
same "$(run --rm built:$C | xargs)" 'built user'
has "$(printf 'FROM %s\nRUN exit 3\n' $IMAGE | DOCKER_BUILDKIT=0 docker build --no-cache -q - 2>&1)" 'returned a non-zero code: 3'
END
    check 'build with BuildKit' <<'END'
mkdir -p /tmp/build; cd /tmp/build
printf 'FROM %s\nRUN echo built > /file && test "$(id -u)" = 0\nUSER 1000\nRUN id -u > /tmp/who\nCMD cat /file /tmp/who\n' $IMAGE > Dockerfile
DOCKER_BUILDKIT=1 docker build --no-cache -q -t built:$C . 2>&1
same "$(run --rm built:$C | xargs)" 'built 1000'
grep "^$RT .*run --bundle" $CALLS
END
    stop_daemon
done

grep -q dockremap /etc/passwd || useradd -r dockremap
printf 'dockremap:200000:65536\n' | tee /etc/subuid > /etc/subgid
run() { docker run --runtime "$RT" --pull never "$@"; }
RUNTIMES="runc ours"
daemon --userns-remap default
check 'userns-remap: ids, exec, volumes, terminal' <<'END'
box $IMAGE
has "$(docker exec $C cat /proc/self/uid_map)" 200000
same "$(stat -c %u /proc/$(field '{{.State.Pid}}'))" 200000
run --rm -v $C:/data $IMAGE sh -c 'echo kept > /data/file && chown 7 /data/file'
docker volume rm $C >/dev/null
has "$(terminal "docker run --runtime $RT --rm -it $IMAGE tty")" /dev/pts/0
same "$(run --rm --user 1000 --read-only --tmpfs /tmp $IMAGE sh -c 'touch /tmp/x; stat -c %u /tmp/x')" 1000
END
check 'userns-remap: --userns host' <<'END'
has "$(run --rm --userns host $IMAGE cat /proc/self/uid_map)" 4294967295
END
stop_daemon
