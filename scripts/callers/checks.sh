# Read by the scripts of the engines, inside of the box: makes the image, runs checks, keeps their results.
set -uo pipefail
engine=$1
# Names of checks to run; all without.
only=${2:-}
export IMAGE=docker.io/library/box:1
results=/results/$engine.tsv
logs=/results/$engine.log
: > "$results"
: > "$logs"
number=0

# What is tested, for the table.
version() { echo "$*" | tee "/results/$engine.version" | sed 's/^/# /'; }

# An image as `docker save` writes it, of a static busybox.
make_image() {
    local work=/tmp/image layer applet
    mkdir -p $work/root/{bin,dev,etc,home,mnt,proc,root,sys,tmp,var} && cd $work || exit 1
    cp /bin/busybox root/bin/busybox
    for applet in $(/bin/busybox --list); do
        [ "$applet" = busybox ] || ln root/bin/busybox "root/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n' > root/etc/passwd
    printf 'root:x:0:\nuser:x:1000:\n' > root/etc/group
    chmod 1777 root/tmp
    mkdir layer
    tar -C root --numeric-owner --owner=0 --group=0 -cf layer/layer.tar .
    layer=$(sha256sum < layer/layer.tar)
    cat > config.json <<END
{"architecture":"amd64","os":"linux","created":"2026-01-01T00:00:00Z",
 "config":{"Env":["PATH=/usr/local/bin:/bin"],"Cmd":["sleep","1000000"]},
 "rootfs":{"type":"layers","diff_ids":["sha256:${layer%% *}"]},"history":[{"created":"2026-01-01T00:00:00Z"}]}
END
    echo "[{\"Config\":\"config.json\",\"RepoTags\":[\"$IMAGE\"],\"Layers\":[\"layer/layer.tar\"]}]" > manifest.json
    tar -cf /tmp/image.tar manifest.json config.json layer/layer.tar
    cd /
}

# Waits, at most 30 s, until a command succeeds.
await() {
    local end=$((SECONDS + 30))
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { echo "never happened: $*"; return 1; }
        sleep 0.05
    done
}
# Fails when two texts differ, and shows them.
same() { [ "$1" = "$2" ] || { printf 'expected %q, found %q\n' "$2" "$1"; return 1; }; }
# Fails when a text has not got another in it.
has() { [[ $1 == *"$2"* ]] || { printf 'no %q in %q\n' "$2" "$1"; return 1; }; }
# Runs a command that has to exit with a code.
code() {
    local expected=$1 found=0
    shift
    "$@" || found=$?
    same "$found" "$expected"
}
# limits MEMORY CPU...: the files of a container's limits as they are named in it; cpu is quota and period. v2 has no shares, but
# a weight, for which there are two formulas.
limits() {
    local word v2=
    [ ! -e /sys/fs/cgroup/cgroup.controllers ] || v2=2
    for word; do
        case $word$v2 in
            memory)  echo /sys/fs/cgroup/memory/memory.limit_in_bytes ;;
            cpu)     echo /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us ;;
            pids)    echo /sys/fs/cgroup/pids/pids.max ;;
            cpus)    echo /sys/fs/cgroup/cpuset/cpuset.cpus ;;
            shares)  echo /sys/fs/cgroup/cpu/cpu.shares ;;
            memory2) echo /sys/fs/cgroup/memory.max ;;
            cpu2)    echo /sys/fs/cgroup/cpu.max ;;
            pids2)   echo /sys/fs/cgroup/pids.max ;;
            cpus2)   echo /sys/fs/cgroup/cpuset.cpus ;;
        esac
    done
}
# What is in the file for so many shares.
shares() { [ -e /sys/fs/cgroup/cgroup.controllers ] || echo "$1"; }
# A program that counts, and says so.
export COUNTER='i=0; while :; do i=$((i + 1)); echo $i; echo $i > /count; sleep 0.1; done'
# more COMMAND...: waits until a number that it prints grows.
more() {
    local first
    first=$("$@")
    await bash -c '[ "$("$@")" -gt "$0" ]' "$first" "$@"
}
needs_criu() { command -v criu || exit 77; }
# Runs a command line on a terminal.
terminal() { script -qec "$1" /dev/null </dev/null | tr -d '\r'; }
export -f await same has code limits shares more needs_criu terminal

# check NAME < SCRIPT: runs a script (bash -e) with each runtime. RT is its name for the engine, C a name for a container.
# Engines have races of their own: what fails is tried once more, and says so.
check() {
    local name=$1 body runtime word tried try code
    body=$(cat)
    [ -z "$only" ] || [[ $name == *$only* ]] || return 0
    for runtime in ${RUNTIMES:-runc ours}; do
        number=$((number + 1))
        tried=
        for try in '' 2; do
            echo "== $name ($runtime)" >> "$logs"
            code=0
            RT=$runtime C=c$number$try timeout -k 5 ${CALLERS_PATIENCE:-100} bash -euo pipefail -c "$body" </dev/null > /tmp/check.log 2>&1 || code=$?
            cat /tmp/check.log >> "$logs"
            clean >> "$logs" 2>&1
            case $code in
                0)  word=ok; break ;;
                77) word=skip; break ;;
                *)  word='not ok' tried=', second try'
                    tail -n 5 /tmp/check.log | sed 's/^/#   /' ;;
            esac
        done
        echo "$word $number - $engine: $name ($runtime)$tried"
        printf '%s\t%s\t%s\n' "$name" "$runtime" "$word" >> "$results"
    done
}
