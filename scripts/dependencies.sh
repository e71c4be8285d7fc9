#!/bin/bash
# Every crate that is built is under a licence that deny.toml allows and comes from crates.io or this repository, and each that
# Cargo.toml names stands in ARCHITECTURE.md with its reason. Without cargo-deny, which takes longer to build than all else
# that `make check` does. First it proves on made-up crates that it can fail.
# usage: scripts/dependencies.sh
set -euo pipefail
cd "$(dirname "$0")/.."

# judge: complains of crates, of which standard input has name, licence and source, separated by tabs.
judge() {
    perl -F'\t' -lane '
        BEGIN {
            open my $in, "<", "deny.toml" or die "deny.toml: $!\n";
            local $/; my ($list) = <$in> =~ /^allow = \[(.*?)\]/ms or die "deny.toml: no licences\n";
            $allowed{$1} = 1 while $list =~ /"([^"]+)"/g;
        }
        my ($name, $terms, $source) = @F;
        $terms =~ s/ WITH \S+//g;                       # an exception only allows more
        $terms =~ s{[\w.+-]+|/}{$& eq "OR" || $& eq "/" ? "||" : $& eq "AND" ? "&&" : $allowed{$&} // 0}ge;
        print "$name: licence $F[1]" unless $F[1] ne "null" && eval $terms;
        print "$name: from $source" unless $source eq "null" || $source eq "registry+https://github.com/rust-lang/crates.io-index";
    '
}

crates=(MIT $'Apache-2.0 WITH LLVM-exception OR GPL-3.0' 'MIT/GPL-3.0' '(MIT OR GPL-3.0) AND Zlib')
for licence in "${crates[@]}"; do
    [ -z "$(printf 'a\t%s\tnull\n' "$licence" | judge)" ] || { echo "dependencies: self-check: $licence" >&2; exit 2; }
done
for crate in $'a\tGPL-3.0\tnull' $'a\tMIT AND GPL-3.0\tnull' $'a\tnull\tnull' $'a\tMIT\tgit+https://example.org/a'; do
    [ -n "$(judge <<< "$crate")" ] || { echo "dependencies: self-check: $crate" >&2; exit 2; }
done

failed=0

metadata=$(cargo metadata --locked --format-version 1)
found=$(perl -MJSON::PP -0777 -ne '
    for my $crate (@{decode_json($_)->{packages}}) {
        print join("\t", $crate->{name}, map { $_ // "null" } @$crate{qw(license source)}), "\n";
    }' <<< "$metadata")
complaints=$(judge <<< "$found")
[ -z "$complaints" ] || { printf 'dependencies: %s\n' "$complaints"; failed=1; }
while read -r name; do
    grep -q "^| \`$name\` |" ARCHITECTURE.md || { echo "dependencies: $name: no reason in ARCHITECTURE.md"; failed=1; }
done < <(sed -n '/^\[dependencies\]/,/^$/s/^\([a-z0-9_-]*\) = .*/\1/p' Cargo.toml)
exit $failed
