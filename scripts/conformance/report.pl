# What the validation programs said, as tables; judges ours by the others and by the list of what is known.
# usage: report.pl --known FILE --own NAME --about TEXT [--page FILE] LOG...   (LOG: <v1|v2>.log of programs.sh)
use strict;
use warnings;

my (%option, @logs);
while (@ARGV) { my $word = shift; if ($word =~ /^--(.*)/) { $option{$1} = shift } else { push @logs, $word } }
my $own = $option{own};

# result{host}{program}{runtime} = {text => {description => [passed, failed, skipped]}, all => [...], status => N}
my (%result, %runtimes, @complaints);
for my $log (@logs) {
    my ($host) = $log =~ /(v[12])\.log$/ or die "$log: neither v1.log nor v2.log\n";
    my $run;
    open my $in, '<', $log or die "$log: $!\n";
    while (<$in>) {
        s/\r?\n$//;
        if (/^begin (\S+) (?:\S*\/)?(\S+)$/) {
            $runtimes{$2} = 1;
            $run = $result{$host}{$1}{$2} = {text => {}, all => [0, 0, 0], status => 'none'};
        } elsif (/^out (not )?ok \d+ ?-? ?(.*)$/) {
            my ($failed, $text) = ($1, $2);
            my $kind = $text =~ s/ # (SKIP|TODO).*// ? 2 : $failed ? 1 : 0;
            $text =~ s/ocitest\d+/ocitest/g;
            $text =~ s/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/ID/g;
            $run->{text}{$text} //= [0, 0, 0];
            $run->{text}{$text}[$kind]++;
            $run->{all}[$kind]++;
        } elsif (/^end (\d+)/) {
            $run->{status} = $1;
            $run->{text}{"exit status $1"} = [0, 1, 0] if $1 ne '0';
        }
    }
}
my @others = sort { $b cmp $a } grep { $_ ne $own } keys %runtimes;

# host | program | assertion | class: reason
my (@known, %left_out);
open my $list, '<', $option{known} or die "$option{known}: $!\n";
while (<$list>) {
    next if /^\s*(#|$)/;
    chomp;
    my ($hosts, $program, $text, $reason) = split /\s*\|\s*/, $_, 4;
    my ($class) = ($reason // '') =~ /^(host|test|spec|ours|flaky|out): /;
    die "$option{known}:$.: expected: host | program | assertion | class: reason\n" unless $class && $hosts =~ /^(v1|v2|both)$/;
    for my $host ($hosts eq 'both' ? ('v1', 'v2') : $hosts) {
        if ($class eq 'out') { push @{$left_out{$host}}, [$program, $reason]; next }
        push @known, {host => $host, program => $program, text => $text, class => $class, reason => $reason, seen => 0, line => $.};
    }
}

# The entries for a failure of ours; they are then true.
sub known {
    my ($host, $program, $text) = @_;
    my @hits = grep { $_->{host} eq $host && $_->{program} eq $program && $_->{text} eq $text } @known;
    $_->{seen} = 1 for @hits;
    return @hits;
}

sub verdict {
    my ($run) = @_;
    my ($passed, $failed) = @{$run->{all}};
    return 'no end' if $run->{status} eq 'none';
    return 'timeout' if $run->{status} >= 124;
    return 'error' if $run->{status};
    return $failed ? 'fail' : $passed ? 'pass' : 'empty';
}

for my $host (sort keys %result) {
    for my $program (sort keys %{$result{$host}}) {
        my $runs = $result{$host}{$program};
        my $ours = $runs->{$own} or do { push @complaints, "$host $program: not run with $own"; next };
        push @complaints, "$host $program: it did not end" if $ours->{status} eq 'none';
        my %bad;
        $bad{$_} = 'fails' for grep { $ours->{text}{$_}[1] } keys %{$ours->{text}};
        for my $other (@others) {
            my $peer = $runs->{$other} or next;
            for my $text (grep { $peer->{text}{$_}[0] && !$peer->{text}{$_}[1] } keys %{$peer->{text}}) {
                my $mine = $ours->{text}{$text} // [0, 0, 0];
                # What a program that gave up did not come to is told by its exit status.
                next if $mine->[0] >= $peer->{text}{$text}[0] || $ours->{status} ne '0';
                $bad{$text} = "passes with $other, not";
            }
            $bad{"exit status $ours->{status}"} = "passes with $other, not" if $ours->{status} ne '0' && verdict($peer) eq 'pass';
        }
        for my $text (sort keys %bad) {
            my @hits = known($host, $program, $text);
            # A peer that passes on the same host shows that the host is no reason.
            my $excuse = $bad{$text} eq 'fails' ? qr/./ : qr/^(spec|test|ours|flaky)$/;
            push @complaints, "$host $program: $bad{$text} with $own: $text" unless grep { $_->{class} =~ $excuse } @hits;
        }
    }
}
for my $entry (@known) {
    my $host = $result{$entry->{host}} or next;
    next if $entry->{seen} || $entry->{class} eq 'flaky' || !$host->{$entry->{program}};
    push @complaints, "$option{known}:$entry->{line}: $entry->{host} $entry->{program} does not fail any more: $entry->{text}";
}

my %title = (v1 => 'Here: cgroup v1', v2 => 'In the guest: pure cgroup v2');
my $text = "`make conformance`: $option{about}. A cell is passed / failed / skipped assertions.\n";
for my $host (sort keys %result) {
    my @columns = grep { my $runtime = $_; grep { $_->{$runtime} } values %{$result{$host}} } $own, @others;
    $text .= "\n### $title{$host}\n\n| program | " . join(' | ', @columns) . " | what fails with $own |\n|" . '---|' x (@columns + 2) . "\n";
    my %total;
    for my $program (sort keys %{$result{$host}}) {
        my @entries = grep { $_->{host} eq $host && $_->{program} eq $program } @known;
        my $flaky = grep { $_->{class} eq 'flaky' } @entries;
        my @cells;
        for my $runtime (@columns) {
            my $run = $result{$host}{$program}{$runtime};
            my $verdict = $flaky ? 'flaky' : $run ? verdict($run) : 'not run';
            $total{$runtime}{$verdict}++;
            push @cells, $flaky || !$run ? $verdict : "$verdict " . join(' / ', @{$run->{all}});
        }
        my %once;
        my $reasons = join '; ', grep { !$once{$_}++ } map { $_->{reason} } @entries;
        $text .= "| $program | " . join(' | ', @cells, $reasons) . " |\n";
    }
    $text .= "| $_->[0] | " . 'not run | ' x @columns . "$_->[1] |\n" for @{$left_out{$host} // []};
    my @totals;
    for my $runtime (@columns) {
        my $count = $total{$runtime};
        push @totals, join(', ', map { $count->{$_} . " $_" } sort keys %$count);
    }
    $text .= "| **all** | " . join(' | ', @totals, '') . " |\n";
}

print $text;
if ($option{page}) {
    open my $in, '<', $option{page} or die "$option{page}: $!\n";
    local $/;
    my $page = <$in>;
    $page =~ s/(<!-- conformance:begin -->\n).*(<!-- conformance:end -->)/$1$text$2/s or die "$option{page}: no markers\n";
    open my $out, '>', $option{page} or die "$option{page}: $!\n";
    print $out $page;
    close $out or die "$option{page}: $!\n";
}
print STDERR "conformance: $_\n" for @complaints;
exit(@complaints ? 1 : 0);
