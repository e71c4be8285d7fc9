# Reads lines `runtime TAB file TAB path of its TAP`, and writes the table and the lists of docs/conformance.md.
# -v known=FILE: the differences that are known, under headings `= reason`, as lines `file: test`.
# Exit status 1 when a test that the first runtime passes does not pass with another and is not known, or is known and passes.
BEGIN {
    FS = "\t"
    split("", group)
    while ((getline line < known) > 0) {
        if (line ~ /^= /) { reason = substr(line, 3); reasons[++headings] = reason }
        else if (line !~ /^#/ && line != "") { why[line] = reason }
    }
}
{
    runtime = $1; file = $2
    if (!(runtime in seen)) { seen[runtime]; names[++runtimes] = runtime }
    if (!(file in listed)) { listed[file]; order[++files] = file }
    while ((getline line < $3) > 0) {
        if (line !~ /^(not )?ok /) continue
        verdict = line ~ /^not / ? "failed" : line ~ / # skip/ ? "skipped" : "passed"
        test = line
        sub(/^(not )?ok [0-9]+ /, "", test)
        sub(/ # (skip|timeout after).*$/, "", test)
        test = file ": " test
        if (!(test in exists)) { exists[test]; tests[++count] = test }
        result[runtime, test] = verdict
        total[runtime, file, verdict]++
        total[runtime, "", verdict]++
    }
    close($3)
}
function cell(runtime, file) {
    return (total[runtime, file, "passed"] + 0) " / " (total[runtime, file, "failed"] + 0) " / " (total[runtime, file, "skipped"] + 0)
}
function row(title, file,    line, i) {
    line = "| " title
    for (i = 1; i <= runtimes; i++) line = line " | " cell(names[i], file)
    print line " |"
}
function complain(text) { print "peer-tests: " text > "/dev/stderr"; code = 1 }
END {
    line = "| passed / failed / skipped"; rule = "|---"
    for (i = 1; i <= runtimes; i++) { line = line " | " names[i]; rule = rule "|---" }
    print line " |\n" rule "|"
    for (i = 1; i <= files; i++) row(order[i], order[i])
    row("**all**", "")
    first = names[1]
    for (i = 2; i <= runtimes; i++) {
        for (j = 1; j <= count; j++) {
            test = tests[j]
            fine = result[names[i], test] == "passed"
            if (result[first, test] == "passed" && !fine) {
                if (test in why) group[why[test]] = group[why[test]] "\n- " test
                else { complain(names[i] " does not pass what " first " passes: " test); unknown = unknown "\n- " test }
            } else if ((test in why) && fine) complain(names[i] " passes, and is listed in " known ": " test)
        }
        print "\n### Passed by " first ", not by " names[i]
        for (j = 1; j <= headings; j++) if (reasons[j] in group) print "\n" reasons[j] ":\n" group[reasons[j]]
        if (unknown != "") print "\n**Not known**:\n" unknown
        if (unknown == "" && length(group) == 0) print "\nNone."
        split("", group); unknown = ""
    }
    for (test in why) {
        split(test, part, ": ")
        if ((part[1] in listed) && !(test in exists)) complain("no such test, though listed in " known ": " test)
    }
    exit code
}
