#!/bin/bash
# Holds docs/spec.md and SECURITY.md against the tests. First it proves on made-up files that it can fail.
# usage: scripts/spec-musts.sh exist        every requirement has a row, and every test named there is in the sources
#        scripts/spec-musts.sh ran LOGS     each of them passed in LOGS/{unit,integration,guest,guest-selinux,guest-systemd,guest-legacy,guest-criu,guest-rootless}.log
#                                           and was not skipped in all of these; and what was skipped is what integration/skips.txt lists
set -euo pipefail

requirements=285
# A row: | number | line, section | what | `test`, `test`; not yet: step 2; not here: why |
row='^\| [0-9]+ \|.* \| ((`[a-z0-9_:]+`(, )?)+|not yet: step [0-9]+[^;|]*|not here: [^|]+)(; (not yet: step [0-9]+[^;|]*|not here: [^|]+))* \|$'

complain() { failed=1; printf 'spec-musts: %s\n' "$*"; }

# The tests that docs/spec.md and the table of SECURITY.md, of the directory $1, name.
named() { grep -hsE '^\| ' "$1/docs/spec.md" "$1/SECURITY.md" | sed 's/.* | //' | grep -oE '`[a-z0-9_]+(::[a-z0-9_]+)+`' | tr -d '`' | sort -u; }

# exist DIRECTORY: sets failed. A unit test has a module `tests` in its path; of a table's rows the name comes before a colon.
exist() {
    local name last path files line
    while read -r line; do
        [[ $line =~ $row ]] || complain "not a row: $line"
    done < <(grep -E '^\| [0-9]' "$1/docs/spec.md")
    diff <(seq "$requirements") <(grep -oE '^\| [0-9]+' "$1/docs/spec.md" | tr -d '| ') >/dev/null \
        || complain "docs/spec.md does not have each of the numbers 1 to $requirements once, in order"
    while read -r name; do
        last=${name##*::}
        case $name in
            *::tests::*) path=$1/src/${name%%::tests::*} path=${path//:://}; files=("$path.rs" "$path/mod.rs" "$path/tests.rs") ;;
            *)           path=${name%::*} files=("$1/integration/${path//:://}.rs") ;;
        esac
        grep -qsE "^ *(fn $last\(\)|$last: )" "${files[@]}" || complain "$name: no such test"
    done < <(named "$1")
}

# results LOG: `RESULT name` and `SKIPPED name: reason`. With one thread what a test prints comes between its name and
# its result; with several, each line is whole.
results() {
    perl -ne '
        print "SKIPPED $1\n" if /SKIPPED (\S+: .*?)\s*$/;
        $name = $1 if s/^test (\S+) \.\.\. //;
        if (defined $name && /^(ok|FAILED|ignored)\b/) { print "$1 $name\n"; undef $name }' "$1"
}

# ran DIRECTORY LOGS HOST: sets failed. HOST is the kind of this host in skips.txt, v1 or v2.
ran() {
    local log kind passed skipped listed name
    local -A shown=()
    for log in unit integration guest guest-selinux guest-systemd guest-legacy guest-criu guest-rootless; do
        [ -e "$2/$log.log" ] || { complain "$2/$log.log: no such file"; continue; }
        passed=$(results "$2/$log.log" | sed -n 's/^ok //p')
        skipped=$(results "$2/$log.log" | sed -n 's/^SKIPPED //p' | sort)
        [ -n "$passed" ] || complain "$log: no test passed"
        for name in $(comm -23 <(sort <<< "$passed") <(sed 's/: .*//' <<< "$skipped" | sort)); do shown[$name]=1; done
        case $log in unit) continue ;; integration) kind=$3 ;; guest) kind=guest ;; guest-*) kind=${log#guest-} ;; esac
        listed=$(sed -nE "s/^$kind //p" "$1/integration/skips.txt" | sort)
        while read -r name; do [ -z "$name" ] || complain "skipped, but not in skips.txt: $kind $name"; done \
            < <(comm -23 <(printf '%s\n' "$skipped") <(printf '%s\n' "$listed"))
        while read -r name; do [ -z "$name" ] || complain "in skips.txt, but not skipped: $kind $name"; done \
            < <(comm -13 <(printf '%s\n' "$skipped") <(printf '%s\n' "$listed"))
    done
    while read -r name; do
        [ -n "${shown[$name]:-}" ] || complain "$name: did not run, did not pass, or was skipped everywhere"
    done < <(named "$1")
}

# What docs/spec.md says, counted.
count() {
    local rows tests reasons
    rows=$(grep -E '^\| [0-9]+ \|' "$1/docs/spec.md" | sed 's/.* | \([^|]*\) |$/\1/')
    tests=$(grep -c '^`' <<< "$rows" || true) reasons=$(grep -c '^not here' <<< "$rows" || true)
    echo "spec-musts: $tests of $requirements requirements have tests, $reasons a reason why not; not yet:" \
        "$(grep -oE '^not yet: step [0-9]+' <<< "$rows" | sort | uniq -c | awk '{printf "%s%d in step %d", sep, $1, $5; sep = ", "}')"
}

# Each rule must fail on what it is for, and only on that.
self_check() {
    local dir bad=0 requirements=2
    dir=$(mktemp -d)
    # shellcheck disable=SC2064 # the directory of now
    trap "rm -rf '$dir'" EXIT
    mkdir -p "$dir"/{docs,src/a,integration,logs}
    printf '    fn two() {\n' > "$dir/src/a/tests.rs"
    printf 'fn one() {\n    row: |b| x;\n' > "$dir/integration/area.rs"
    expect() { # expect FAILED WHAT: what the functions say of the files as they are
        failed=0
        exist "$dir" >/dev/null
        ran "$dir" "$dir/logs" v1 >/dev/null
        [ "$failed" = "$1" ] || { echo "spec-musts: self-check: expected failed=$1: $2" >&2; bad=1; }
    }
    good() {
        printf '| # | line | what | shown by |\n|---|---|---|---|\n| 1 | 5 A | b/c | `area::one`, `area::row`; not yet: step 2 |\n| 2 | 6 A | d | `a::tests::two`; not here: why |\n' > "$dir/docs/spec.md"
        printf '# words\nv1 area::one: because\nguest area::row: because\nv2 area::other: because\n' > "$dir/integration/skips.txt"
        printf 'running\ntest a::tests::two ... ok\n' > "$dir/logs/unit.log"
        printf 'SKIPPED area::one: because\ntest area::one ... ok\ntest area::row ... ok\n' > "$dir/logs/integration.log"
        printf 'test area::row ... SKIPPED area::row: because\nok\ntest area::one ... DIFFERS x\nok\n' > "$dir/logs/guest.log"
        printf 'test area::one ... ok\n' | tee "$dir"/logs/guest-{selinux,systemd,legacy,criu,rootless}.log >/dev/null
    }
    good; expect 0 "all is well"
    good; sed -i 's/one`/three`/' "$dir/docs/spec.md"; expect 1 "a test that does not exist"
    good; sed -i 's/two`/three`/' "$dir/docs/spec.md"; expect 1 "a unit test that does not exist"
    good; sed -i '$d' "$dir/docs/spec.md"; expect 1 "a number is missing"
    good; sed -i 's/`a::tests::two`; not here: why/later/' "$dir/docs/spec.md"; expect 1 "neither a test nor a reason"
    good; sed -i 's/`a::tests::two`; //' "$dir/docs/spec.md"; expect 0 "only a reason"
    good; sed -i '/two/d' "$dir/logs/unit.log"; expect 1 "a test did not run"
    good; sed -i 's/two ... ok/two ... ignored/' "$dir/logs/unit.log"; expect 1 "a test was ignored"
    good; sed -i 's/area::row ... ok/area::row ... FAILED/' "$dir/logs/integration.log"; expect 1 "a test failed in one place and was skipped in the other"
    good; sed -i '1s/.*/SKIPPED area::one: for another reason/' "$dir/logs/integration.log"; expect 1 "another reason"
    good; sed -i '1d' "$dir/logs/integration.log"; expect 1 "listed, but not skipped"
    good; sed -i '/^guest/d' "$dir/integration/skips.txt"; expect 1 "skipped in the guest, but not listed"
    good; printf '| attack | defence | `area::three` |\n' > "$dir/SECURITY.md"; expect 1 "a test of SECURITY.md that does not exist"
    rm "$dir/SECURITY.md"
    good; rm "$dir/logs/guest.log"; expect 1 "no log"
    [ "$bad" = 0 ] || exit 2
}

self_check
root=$(cd "$(dirname "$0")/.." && pwd)
failed=0
case ${1:-} in
    exist) exist "$root"; count "$root" ;;
    ran)
        host=v1
        [ ! -e /sys/fs/cgroup/cgroup.controllers ] || host=v2
        ran "$root" "${2:?LOGS}" "$host" ;;
    *) echo "usage: $0 exist | ran LOGS" >&2; exit 2 ;;
esac
[ "$failed" = 0 ] || exit 1
