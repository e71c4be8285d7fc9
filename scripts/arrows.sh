#!/bin/bash
# The arrows between rooms that must not exist (ARCHITECTURE.md). Looks at code only: comments, strings and test modules
# are left out, and `use a::{b, c}` counts as `a::b` and `a::c`. First it proves on made-up files that it can fail.
# usage: scripts/arrows.sh [SRC_DIRECTORY]
set -euo pipefail

# Prints FILE:LINE:CODE for every line of code of the files given.
code() {
    perl -e '
        sub expand {                                    # a::{b, c::{d}} -> a::b a::c::d
            my ($path) = @_;
            return $path unless $path =~ /^(.*?)\{(.*)\}\s*$/s;
            my ($prefix, $list) = ($1, $2);
            my ($depth, $item, @items) = (0, "");
            for my $c (split //, $list) {
                $depth++ if $c eq "{"; $depth-- if $c eq "}";
                if ($c eq "," && !$depth) { push @items, $item; $item = "" } else { $item .= $c }
            }
            return map { s/^\s+|\s+$//g; $_ eq "" ? () : expand($prefix . $_) } @items, $item;
        }
        for my $file (@ARGV) {
            open my $in, "<", $file or die "$file: $!\n";
            local $/; my $text = <$in>;
            # Comments and strings go first, their newlines stay: line numbers must remain right.
            $text =~ s{(//[^\n]*|/\*.*?\*/|r(\#+)".*?"\2|"(?:[^"\\]|\\.)*"|\x27(?:[^\x27\\\n]|\\[^\n]{1,8}?)\x27)}
                      {my $gone = $1; $gone =~ tr/\n//cd; $gone}gse;
            # rustfmt indents: an item ends with a brace at its own indentation, or with a semicolon on its first line.
            $text =~ s{^([ \t]*)\#\[cfg\(test\)\]\s*\n((?:\1\#\[[^\n]*\n)*)(?:[^\n]*;[ \t]*\n|.*?^\1\}[ \t]*\n?)}
                      {my $gone = $&; $gone =~ tr/\n//cd; $gone}gmse;
            $text =~ s{\buse\s+([^;]*\{[^;]*\})\s*;}
                      {my $all = $1; my $lines = $all =~ tr/\n//; join(" ", map { "use $_;" } expand($all)) . "\n" x $lines}gse;
            my $number = 0;
            for my $line (split /\n/, $text) { $number++; print "$file:$number:$line\n" if $line =~ /\S/ }
        }' "$@"
}

# arrow WHAT PATTERN FILE...: complains about the lines of FILEs that match PATTERN.
arrow() {
    local what=$1 pattern=$2 hits
    shift 2
    [ $# -gt 0 ] || return 0
    hits=$(code "$@" | grep -P "^[^:]*:\d+:.*$pattern" || true)
    [ -n "$hits" ] || return 0
    failed=1
    printf 'arrows: %s\n%s\n' "$what" "$hits"
}

# files ROOM...: the files of rooms (a file, or a directory), in the current directory, without files of tests.
files() {
    local room
    for room in "$@"; do
        find "./$room" -name '*.rs' ! -name tests.rs ! -path '*/tests/*' 2>/dev/null || true
    done | sed -E "s|^(\./)+||" | sort -u
}
without() { grep -vxE "$1" || true; }

# check DIRECTORY: sets failed.
check() {
    failed=0
    cd "$1"
    local pure child all
    mapfile -t pure < <(files error.rs cli.rs cli plan plan.rs seccomp seccomp.rs rootfs/plan rootfs/plan.rs cgroups/settings.rs cgroups/settings cgroups/devices.rs cgroups/devices cgroups/systemd/properties.rs cgroups/systemd/properties dbus/message.rs dbus/message criu/message.rs criu/message criu/options.rs criu/options netdev/message.rs netdev/message netdev/stats.rs cgroups/stats/figures.rs cgroups/stats/parse.rs events/interval.rs)
    mapfile -t child < <(files init init.rs rootfs rootfs.rs | without 'rootfs/plan(\.rs|/.*)')
    arrow "a pure room may not reach sys, std::fs or std::process" \
        '\b(?:(?:crate|super)::sys|std::fs|std::process)\b' "${pure[@]}"
    arrow "what runs in the child may not reach oci_spec or std::fs" '\b(?:oci_spec|std::fs)\b' "${child[@]}"
    mapfile -t all < <(files . | without 'sys/.*|sys\.rs')
    arrow "unsafe is only for sys" '\bunsafe\b' "${all[@]}"
    mapfile -t all < <(files cgroups cgroups.rs)
    arrow "cgroups may not reach rootfs" '\b(?:crate|super)::rootfs\b' "${all[@]}"
    mapfile -t all < <(files rootfs rootfs.rs)
    arrow "rootfs may not reach cgroups" '\b(?:crate|super)::cgroups\b' "${all[@]}"
    mapfile -t all < <(files . | without 'main\.rs|cli\.rs')
    arrow "only main may reach main or cli" '\b(?:crate|super)::(?:main|cli)\b' "${all[@]}"
    cd "$OLDPWD"
}

# Each rule must see its arrow, in each way that code can spell it, and must not see what is none.
self_check() {
    local dir bad
    dir=$(mktemp -d)
    # shellcheck disable=SC2064 # the directory of now
    trap "rm -rf '$dir'" EXIT
    expect() { # expect FAILED FILE TEXT
        rm -rf "$dir/src"
        mkdir -p "$dir/src/$(dirname "$2")"
        printf '%s\n' "$3" > "$dir/src/$2"
        check "$dir/src" >/dev/null
        [ "$failed" = "$1" ] || { echo "arrows: self-check: expected failed=$1 for $2: $3" >&2; bad=1; }
    }
    bad=0
    expect 1 plan/mod.rs 'use crate::sys;'
    expect 1 plan/caps.rs $'use crate::{\n    error::Error,\n    sys::{self, mount},\n};'
    expect 1 error.rs 'fn f() { std::fs::read("x"); }'
    expect 1 cli.rs 'use std::{fs, io};'
    expect 1 seccomp/tree.rs 'use std::process::exit;'
    expect 1 rootfs/plan.rs 'use std::fs;'
    expect 1 cgroups/devices.rs 'use super::super::sys::bpf;'
    expect 1 cgroups/settings.rs $'#[cfg(test)]\nmod tests {\n    fn f() {}\n}\nuse std::fs;'
    expect 1 netdev/message.rs 'use std::fs;'
    expect 1 create.rs 'fn f() { unsafe { g() } }'
    expect 1 init/mod.rs 'use oci_spec::runtime::Spec;'
    expect 1 rootfs/mount.rs 'use std::{ffi::CStr, fs::File};'
    expect 1 cgroups/v1.rs 'use crate::rootfs::resolve;'
    expect 1 rootfs/mount.rs 'use crate::cgroups;'
    expect 1 create.rs 'use crate::cli::Create;'
    expect 0 main.rs 'use crate::cli::Command;'
    expect 0 sys/mod.rs 'unsafe fn f() {}'
    expect 0 cgroups/v1.rs 'use std::fs;'
    expect 0 rootfs/plan.rs 'use oci_spec::runtime::Mount;'
    expect 0 init/mod.rs 'use std::os::unix::fs::OpenOptionsExt;'
    expect 0 state.rs $'#![deny(unsafe_code)]\n// unsafe is for sys\nconst WORD: &str = "unsafe";'
    expect 0 plan/mod.rs $'use crate::{error, system};\n\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}'
    expect 0 plan/mod.rs $'#[cfg(test)]\nuse std::fs;\nfn f() {}'
    expect 0 plan/tests.rs 'use std::fs;'
    [ "$bad" = 0 ] || exit 2
}

self_check
src=${1:-$(dirname "$0")/../src}
check "$src"
find "$src" -name '*.rs' -exec wc -l {} + | awk '$2 != "total" && $1 > 400 {print "arrows: warning: " $2 " has " $1 " lines; is it one room, or two?"}'
[ "$failed" = 0 ] || exit 1
