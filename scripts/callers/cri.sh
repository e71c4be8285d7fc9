# Kubernetes' interface of containerd (CRI): pods and containers as the kubelet makes them.
. /callers/checks.sh "$@"
make_image
mkdir -p /etc/containerd /etc/cni/net.d
# containerd 2 reads the old version of its configuration too, but has moved two keys.
if containerd --version | grep -q ' 1\.'; then
    cat > /etc/containerd/config.toml <<END
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$IMAGE"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ours]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ours.options]
BinaryName = "/usr/local/bin/runtime"
END
else
    cat > /etc/containerd/config.toml <<END
version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "$IMAGE"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/usr/lib/cni"]
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.ours]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.ours.options]
BinaryName = "/usr/local/bin/runtime"
END
fi
echo '{"cniVersion":"0.4.0","name":"net","plugins":[{"type":"ptp",
 "ipam":{"type":"host-local","ranges":[[{"subnet":"10.77.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}' > /etc/cni/net.d/10-net.conflist
# Now the options of both are the last of each table.
[ -z "$CALLERS_SYSTEMD" ] || sed -i -E -e "s/^(.*runtimes\.)runc\]/\1runc.options]\nSystemdCgroup = true\n&/" -e 's/^BinaryName.*/&\nSystemdCgroup = true/' /etc/containerd/config.toml
containerd --log-level warn > /results/cri.daemon.log 2>&1 &
await ctr version || exit 1
ctr -n k8s.io images import /tmp/image.tar >/dev/null
cri() { python3 /callers/cri.py "$@"; }
export -f cri
await cri Version || exit 1
version "CRI of containerd $(cri Version | jq -r '.runtime_version | sub("[~+].*"; "")')"

clean() {
    cri ListPodSandbox '{}' | jq -r '.items[]?.id' | while read -r id; do
        cri StopPodSandbox "{\"pod_sandbox_id\": \"$id\"}"
        cri RemovePodSandbox "{\"pod_sandbox_id\": \"$id\"}"
    done
}
# pod [LINUX]: a pod, whose id is POD then. LINUX is JSON for its `linux`.
pod() {
    local linux=${1:-\{\}} hostname="\"hostname\": \"host-$C\","
    # From the kubelet it is a slice, then.
    [ -z "$CALLERS_SYSTEMD" ] || linux=$(jq -c '{cgroup_parent: "kubepods.slice"} + .' <<< "$linux")
    # A pod in the node's network has no host name, as from the kubelet.
    [[ $linux != *'"network": 2'* ]] || hostname=
    CONFIG="{\"metadata\": {\"name\": \"$C\", \"uid\": \"$C\", \"namespace\": \"default\"}, $hostname
        \"log_directory\": \"/tmp/logs-$C\", \"linux\": $linux}"
    POD=$(cri RunPodSandbox "{\"config\": $CONFIG, \"runtime_handler\": \"$RT\"}" | jq -r .pod_sandbox_id)
}
# box SCRIPT [LINUX [MORE]]: a container in the pod, whose id is BOX then; created, not started. Its pid namespace is its own.
box() {
    local config
    config=$(jq -n --arg name "b$RANDOM$RANDOM" --arg image "$IMAGE" --arg script "$1" --argjson linux "${2:-{\}}" --argjson more "${3:-{\}}" \
        '{metadata: {name: $name}, image: {image: $image}, command: ["sh", "-c", $script], linux: ({security_context: {namespace_options: {pid: 1}}} * $linux), log_path: ($name + ".log")} + $more')
    LOG=/tmp/logs-$C/$(jq -r .log_path <<< "$config")
    BOX=$(cri CreateContainer "{\"pod_sandbox_id\": \"$POD\", \"config\": $config, \"sandbox_config\": $CONFIG}" | jq -r .container_id)
}
start() { cri StartContainer "{\"container_id\": \"$BOX\"}"; }
status() { cri ContainerStatus "{\"container_id\": \"$BOX\"}" | jq -r ".status | $1"; }
state() { [ "$(status '.state // 0')" = "$1" ]; }
stop() { cri StopContainer "{\"container_id\": \"$BOX\", \"timeout\": $1}"; }
# sync PROGRAM WORD...: its stdout; SYNC is the whole answer.
sync() { cri ExecSync "$(jq -n --arg id "$BOX" '{container_id: $id, cmd: $ARGS.positional, timeout: 20}' --args -- "$@")"; }
out() { sync "$@" | jq -rj '.stdout // ""'; }
export -f pod box start status state stop sync out

check 'pod: run, status, stop, remove' <<'END'
pod
same "$(cri PodSandboxStatus "{\"pod_sandbox_id\": \"$POD\"}" | jq '.status.state // 0')" 0
has "$(cri PodSandboxStatus "{\"pod_sandbox_id\": \"$POD\"}" | jq -r .status.network.ip)" 10.77.
cri StopPodSandbox "{\"pod_sandbox_id\": \"$POD\"}"
same "$(cri PodSandboxStatus "{\"pod_sandbox_id\": \"$POD\"}" | jq '.status.state')" 1
cri RemovePodSandbox "{\"pod_sandbox_id\": \"$POD\"}"
same "$(cri ListPodSandbox | jq -c .items)" null
same "$(find /sys/fs/cgroup /run/containerd -name "*$POD*" | wc -l)" 0
END
check 'container: create, start, log, exit code' <<'END'
pod
box 'echo hello; exit 3'
state 0
start
await state 2
same "$(status .exit_code)" 3
has "$(cat $LOG)" 'stdout F hello'
cri RemoveContainer "{\"container_id\": \"$BOX\"}"
END
check 'stop: SIGTERM first, then SIGKILL' <<'END'
pod
box 'trap "exit 6" TERM; echo ready; while :; do sleep 0.05; done'
start; await grep ready $LOG
stop 10
same "$(status .exit_code)" 6
box 'sleep 1000'; start
stop 1
same "$(status .exit_code)" 137
END
check 'ExecSync: output, exit code, a missing program' <<'END'
pod; box 'sleep 1000'; start
same "$(out echo hello)" hello
same "$(sync sh -c 'echo err >&2; exit 5' | jq -c '[.stderr, .exit_code]')" '["err\n",5]'
has "$(sync nosuch 2>&1 || true)" 'executable file not found in $PATH'
END
check '20 ExecSync, 5 at a time' <<'END'
pod; box 'sleep 1000'; start
export BOX
same "$(seq 1 20 | xargs -P 5 -I% bash -c 'out echo x%; echo' | sort -u | grep -c x)" 20
END
check 'stats' <<'END'
pod; box 'sleep 1000'; start
answer=$(cri ContainerStats "{\"container_id\": \"$BOX\"}")
[ "$(jq .stats.memory.value.value <<< "$answer")" -gt 0 ] && [ "$(jq .stats.cpu.value.value <<< "$answer")" -gt 0 ]
END
check 'update' <<'END'
pod; box 'sleep 1000' '{"resources": {"memory_limit_in_bytes": 67108864}}'; start
cri UpdateContainerResources "{\"container_id\": \"$BOX\", \"linux\": {\"memory_limit_in_bytes\": 33554432, \"cpu_shares\": 512, \"cpu_quota\": 50000, \"cpu_period\": 100000}}"
same "$(out cat $(limits memory cpu shares) | xargs)" "$(echo 33554432 50000 100000 $(shares 512))"
END
check 'resources of create' <<'END'
pod; box 'sleep 1000' '{"resources": {"memory_limit_in_bytes": 33554432, "cpu_shares": 256, "cpuset_cpus": "0", "oom_score_adj": 500}}'; start
same "$(out cat $(limits memory cpus shares) /proc/1/oom_score_adj | xargs)" "$(echo 33554432 0 $(shares 256) 500)"
END
# The news of the kill may come after that of the end.
check 'OOM kill is the reason' <<'END'
pod
for try in 1 2 3; do
    box 'tail /dev/zero' '{"resources": {"memory_limit_in_bytes": 16777216}}'; start
    await state 2
    [ "$(status .reason)" != OOMKilled ] || exit 0
done
exit 1
END
check 'a missing program is StartError' <<'END'
pod
box true '{}' '{"command": ["nosuch"]}'
has "$(start 2>&1 || true)" 'executable file not found in $PATH'
END
check 'user, groups, directory, environment' <<'END'
pod
box 'sleep 1000' '{"security_context": {"run_as_user": {"value": 1000}, "supplemental_groups": [7]}}' '{"working_dir": "/tmp", "envs": [{"key": "A", "value": "b"}]}'; start
same "$(out sh -c 'echo $(id -u) $(id -G) $PWD $A $(hostname)')" "1000 1000 7 /tmp b host-$C"
END
check 'capabilities, no_new_privs, read-only root' <<'END'
pod
box 'sleep 1000' '{"security_context": {"capabilities": {"drop_capabilities": ["ALL"], "add_capabilities": ["NET_ADMIN"]}, "no_new_privs": 1, "readonly_rootfs": 1}}'; start
has "$(out grep CapEff /proc/1/status)" 0000000000001000
has "$(out grep NoNewPrivs /proc/1/status)" 1
has "$(sync touch /file | jq -r .stderr)" 'Read-only'
END
check 'seccomp: runtime default, unconfined' <<'END'
pod
box 'sleep 1000' '{"security_context": {"seccomp": {"profile_type": 0}}}'; start
has "$(out grep Seccomp: /proc/1/status)" 2
box 'sleep 1000' '{"security_context": {"seccomp": {"profile_type": 1}}}'; start
has "$(out grep Seccomp: /proc/1/status)" 0
END
check 'mounts: read-only, propagation' <<'END'
mkdir -p /tmp/m-$C/sub; echo word > /tmp/m-$C/file
pod
box 'sleep 1000' '{}' "{\"mounts\": [{\"container_path\": \"/mnt\", \"host_path\": \"/tmp/m-$C\", \"readonly\": 1, \"propagation\": 1}]}"; start
same "$(out cat /mnt/file)" word
has "$(sync touch /mnt/new | jq -r .stderr)" 'Read-only'
mount -t tmpfs tmpfs /tmp/m-$C/sub; touch /tmp/m-$C/sub/seen
same "$(out ls /mnt/sub)" seen
umount /tmp/m-$C/sub
END
check 'recursive read-only mounts' <<'END'
mkdir -p /tmp/r-$C/sub; mount -t tmpfs tmpfs /tmp/r-$C/sub
pod
box 'sleep 1000' '{}' "{\"mounts\": [{\"container_path\": \"/mnt\", \"host_path\": \"/tmp/r-$C\", \"readonly\": 1, \"recursive_read_only\": 1}]}" || exit 77; start
has "$(sync touch /mnt/sub/new | jq -r .stderr)" 'Read-only' || exit 77
END
check 'namespaces: shared pid, of the node' <<'END'
pod '{"security_context": {"namespace_options": {"pid": 0}}}'
box 'sleep 1000' '{"security_context": {"namespace_options": {"pid": 0}}}'; start
has "$(out ps)" 'sleep 1000000'
pod2=$POD
C=$C-node
pod '{"security_context": {"namespace_options": {"pid": 2, "network": 2, "ipc": 2}}}'
box 'sleep 1000' '{"security_context": {"namespace_options": {"pid": 2, "network": 2, "ipc": 2}}}'; start
same "$(out sh -c 'readlink /proc/self/ns/net; readlink /proc/self/ns/ipc')" "$(readlink /proc/self/ns/net /proc/self/ns/ipc)"
END
check 'two containers share the network' <<'END'
pod
box 'while :; do echo reached | nc -l -p 8000; done'; start
box 'sleep 1000'; start
export BOX
await bash -c '[ "$(out nc -w 2 127.0.0.1 8000)" = reached ]'
END
check 'user namespace' <<'END'
options='{"security_context": {"namespace_options": {"userns_options": {"mode": 0, "uids": [{"host_id": 200000, "container_id": 0, "length": 65536}], "gids": [{"host_id": 200000, "container_id": 0, "length": 65536}]}}}}'
pod "$options" || exit 77
box 'sleep 1000' "$options" || exit 77; start
has "$(out cat /proc/self/uid_map)" 200000 || exit 77
END
check 'privileged' <<'END'
pod '{"security_context": {"privileged": 1}}'
box 'sleep 1000' '{"security_context": {"privileged": 1}}'; start
same "$(sync mount -t tmpfs tmpfs /mnt | jq '.exit_code // 0')" 0
END
check 'a terminal' <<'END'
pod; box 'tty; sleep 1000' '{}' '{"tty": 1}'; start
await grep /dev/pts/0 $LOG
END
check '10 pods in parallel' <<'END'
job() { C=$C-$1; pod; box 'echo hello'; start; await state 2; same "$(status '.exit_code // 0')" 0; }
export -f job
seq 1 10 | xargs -P 10 -I% bash -ec 'job %'
END
