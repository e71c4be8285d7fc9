# containerd by ctr, with the shim io.containerd.runc.v2.
. /callers/checks.sh "$@"
make_image
mkdir -p /etc/containerd
echo 'version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]' > /etc/containerd/config.toml
containerd --log-level warn > /results/containerd.daemon.log 2>&1 &
await ctr version || exit 1
ctr images import /tmp/image.tar >/dev/null
version "$(ctr version | awk '/Server/ { s = 1 } s && /Version/ { sub(/[~+].*/, "", $2); print "containerd " $2; exit }')"

clean() {
    local id
    for id in $(ctr tasks ls -q); do
        ctr tasks resume "$id"
        ctr tasks delete -f "$id"
    done
    ctr containers ls -q | xargs -r ctr containers rm
}
# `run OPTIONS... -- ID COMMAND...`, since ctr wants the image between.
run() {
    local options=() binary=runc
    [ "$RT" = runc ] || binary=/usr/local/bin/runtime
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    local id=$1
    shift
    [ -z "$CALLERS_SYSTEMD" ] || options+=(--runc-systemd-cgroup --cgroup "system.slice:ctr:$id")
    ctr run --runc-binary "$binary" "${options[@]}" "$IMAGE" "$id" "$@"
}
task() { ctr tasks ls | awk -v id="$C" '$1 == id { print $3 }'; }
is() { [ "$(task)" = "$1" ]; }
pid() { ctr tasks ls | awk -v id="$C" '$1 == id { print $2 }'; }
texec() { ctr tasks exec --exec-id "x$RANDOM$RANDOM" "$@"; }
# Its limits, of the host's files: ctr gives a container no cgroup mount on v2.
group() {
    local file dir
    for file in $(limits "$@"); do
        dir=$(dirname "$file")
        cat "$dir$(awk -F: -v c="$(sed 's,^/sys/fs/cgroup/*,,' <<< "$dir")" '$2 == c { print $3 }' "/proc/$(pid)/cgroup")/$(basename "$file")"
    done
}
export -f run task is pid texec group

check 'run: output, exit code' <<'END'
same "$(run --rm -- $C echo hello)" hello
code 7 run --rm -- $C sh -c 'exit 7'
END
check 'run: stdin' <<'END'
# ctr loses the end of a stdin that is over before the start.
same "$({ seq 1 20000; sleep 1; } | run --rm -- $C wc -l)" 20000
END
check 'run: all output arrives' <<'END'
same "$(run --rm -- $C seq 1 100000 | tail -n 1)" 100000
END
# At the end of a session the kernel may throw away what the terminal's other side has not been given yet.
check 'run -t: a terminal' <<'END'
binary=runc; [ $RT = runc ] || binary=/usr/local/bin/runtime
has "$(terminal "ctr run --rm -t --runc-binary $binary $IMAGE $C sh -c 'tty; sleep 0.3'")" /dev/pts/0
code 9 script -qec "ctr run --rm -t --runc-binary $binary $IMAGE $C-2 sh -c 'exit 9'" /dev/null </dev/null
END
check 'run -d, state, kill, delete' <<'END'
run -d -- $C sleep 1000
is RUNNING
ctr tasks kill -s SIGKILL $C
await is STOPPED
ctr tasks delete $C 2>&1 || true
ctr containers rm $C
same "$(task)" ''
END
check 'kill: SIGTERM to a handler' <<'END'
run -d -- $C sh -c 'trap "exit 6" TERM; >/tmp/ready; while :; do sleep 0.05; done'
await test -e /proc/$(pid)/root/tmp/ready
ctr tasks kill $C
await is STOPPED
has "$(ctr tasks delete $C 2>&1)" "exit code 6"
END
check 'kill: --all' <<'END'
run -d --with-ns pid:/proc/1/ns/pid -- $C sh -c 'sleep 4321 & sleep 4321'
await pgrep -fx 'sleep 4321'
ctr tasks kill -a -s SIGKILL $C
await is STOPPED
await sh -c '! pgrep -fx "sleep 4321"'
END
check 'kill of a dead task' <<'END'
run -d -- $C true
await is STOPPED
has "$(ctr tasks kill $C 2>&1 || true)" 'not found'
END
check 'delete of a running task is refused; --force' <<'END'
run -d -- $C sleep 1000
code 1 ctr tasks delete $C 2>&1
has "$(ctr tasks delete -f $C 2>&1)" "exit code 137"
END
check 'exec: output, exit code, stdin' <<'END'
run -d -- $C sleep 1000
same "$(texec $C echo hello)" hello
code 5 texec $C sh -c 'exit 5'
same "$(seq 1 5000 | texec $C wc -l)" 5000
END
check 'exec -t: a terminal' <<'END'
run -d -- $C sleep 1000
has "$(terminal "ctr tasks exec --exec-id a -t $C sh -c 'tty; sleep 0.3'")" /dev/pts/
code 4 script -qec "ctr tasks exec --exec-id b -t $C sh -c 'exit 4'" /dev/null </dev/null
END
check 'exec: detached, user, directory' <<'END'
run -d -- $C sleep 1000
texec -d $C sh -c 'echo done > /tmp/file; sleep 100'
await test -s /proc/$(pid)/root/tmp/file
same "$(texec --user 1000 --cwd /tmp $C sh -c 'echo $(id -u) $PWD')" '1000 /tmp'
END
check 'exec: a missing program' <<'END'
run -d -- $C sleep 1000
has "$(texec $C nosuch 2>&1 || true)" 'executable file not found in $PATH'
END
check 'exec: 30, 6 at a time' <<'END'
run -d -- $C sleep 1000
same "$(seq 1 30 | xargs -P 6 -I% ctr tasks exec --exec-id x% $C echo x% | sort -u | wc -l)" 30
END
check 'exec in a container that ends' <<'END'
run -d -- $C sleep 1000
texec $C sleep 100 & other=$!
await sh -c "ctr tasks ps $C | wc -l | grep 3"
ctr tasks kill -s SIGKILL $C
code 137 wait $other
END
check 'errors of run: missing program, bad mount' <<'END'
has "$(run --rm -- $C nosuch 2>&1 || true)" 'exec: "nosuch": executable file not found in $PATH'
has "$(run --rm --mount type=bind,src=/nosuch,dst=/mnt,options=rbind -- $C-2 true 2>&1 || true)" 'no such file or directory'
same "$(task)" ''
END
check 'pause, resume' <<'END'
run -d -- $C sh -c 'while :; do date +%s%N > /tmp/now; sleep 0.01; done'
ctr tasks pause $C
is PAUSED
now=/proc/$(pid)/root/tmp/now
one=$(cat $now); sleep 0.3; same "$(cat $now)" "$one"
ctr tasks resume $C
is RUNNING
await sh -c "[ \$(cat $now) != $one ]"
END
check 'ps' <<'END'
run -d -- $C sh -c 'sleep 1000 & sleep 1000'
await sh -c "ctr tasks ps $C | wc -l | grep 3"
has "$(ctr tasks ps $C)" $(pid)
END
check 'metrics' <<'END'
run -d -- $C sleep 1000
has "$(ctr tasks metrics $C)" 'pids.current'
END
check 'limits: memory, cpu' <<'END'
run -d --memory-limit 33554432 --cpus 0.5 --cpu-shares 256 -- $C sleep 1000
same "$(echo $(group memory cpu))" '33554432 50000 100000'
END
check 'OOM is an event' <<'END'
ctr events > /tmp/events-$C & events=$!
run -d --memory-limit 16777216 -- $C sh -c 'tail /dev/zero; sleep 1000'
await grep -q oom /tmp/events-$C
kill $events
END
check 'seccomp' <<'END'
has "$(run --rm --seccomp -- $C grep Seccomp: /proc/self/status)" 2
END
check 'a seccomp profile' <<'END'
echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}' > /tmp/profile.json
has "$(run --rm --seccomp --seccomp-profile /tmp/profile.json -- $C mkdir /tmp/x 2>&1 || true)" 'Operation not permitted'
END
check 'cwd, env' <<'END'
same "$(run --rm --cwd /tmp --env A=b -- $C sh -c 'echo $PWD $A')" '/tmp b'
END
check 'capabilities' <<'END'
has "$(run --rm --cap-drop CAP_CHOWN -- $C grep CapEff /proc/self/status)" 00000000a80425fa
has "$(run --rm --cap-add CAP_NET_ADMIN -- $C-2 grep CapEff /proc/self/status)" 00000000a80435fb
END
check 'read-only, mounts, devices' <<'END'
has "$(run --rm --read-only -- $C touch /file 2>&1 || true)" 'Read-only'
mkdir -p /tmp/v; echo word > /tmp/v/file
same "$(run --rm --mount type=bind,src=/tmp/v,dst=/mnt,options=rbind:ro -- $C-2 cat /mnt/file)" word
run --rm --device /dev/kmsg -- $C-3 test -c /dev/kmsg
END
check 'privileged' <<'END'
run --rm --privileged -- $C sh -c 'mount -t tmpfs tmpfs /mnt && mkdir /mnt/x'
END
check 'network of the host, namespaces by path' <<'END'
same "$(run --rm --net-host -- $C readlink /proc/self/ns/net)" "$(readlink /proc/self/ns/net)"
same "$(run --rm --with-ns ipc:/proc/1/ns/ipc -- $C-2 readlink /proc/self/ns/ipc)" "$(readlink /proc/self/ns/ipc)"
END
check 'user namespace by id maps' <<'END'
has "$(run --rm --uidmap 0:200000:65536 --gidmap 0:200000:65536 -- $C cat /proc/self/uid_map)" 200000
END
check 'rootfs without an image' <<'END'
binary=runc; [ $RT = runc ] || binary=/usr/local/bin/runtime
same "$(ctr run --rm --runc-binary $binary --env PATH=/bin --rootfs /tmp/image/root $C echo hello)" hello
END
check 'create, start' <<'END'
ctr containers create --runtime io.containerd.runc.v2 $([ $RT = runc ] || echo --runc-binary /usr/local/bin/runtime) $IMAGE $C sh -c 'exit 8' ||
    exit 77
code 8 ctr tasks start $C
END
check 'pid file' <<'END'
run -d --pid-file /tmp/pid-$C -- $C sleep 1000
same "$(cat /tmp/pid-$C)" "$(pid)"
END
check 'checkpoint: the task goes on in another container' <<'END'
needs_criu
run -d -- $C sh -c "$COUNTER"
await texec $C grep .. /count
ctr containers checkpoint --task --rw --image $C localhost/saved:$C
before=$(texec $C cat /count)
ctr tasks delete -f $C; ctr containers rm $C
ctr containers restore --live $C-2 localhost/saved:$C &
await texec $C-2 cat /count
[ "$(texec $C-2 cat /count)" -ge 10 ]
more texec $C-2 cat /count
ctr tasks kill -s KILL $C-2
wait
END
check '20 in parallel' <<'END'
job() { same "$(run --rm -- $C-$1 echo x$1)" x$1; }
export -f job
seq 1 20 | xargs -P 20 -I% bash -c 'job %'
END
check '20 in a row leave no cgroup and no state' <<'END'
for i in $(seq 1 20); do run --rm -- $C-$i true; done
same "$(find /sys/fs/cgroup -name "$C-*" | wc -l)" 0
same "$(find /run/containerd -name "$C-*" | wc -l)" 0
END
check 'the shim is killed: the task can be deleted' <<'END'
run -d -- $C sleep 1000
kill -9 $(pgrep -f "containerd-shim-runc-v2.*-id $C ")
await sh -c "ctr tasks ls | grep '$C .*\(STOPPED\|UNKNOWN\)' || ! ctr tasks ls | grep '$C '"
ctr tasks delete -f $C || true
await sh -c '! pgrep -fx "sleep 1000"'
END
