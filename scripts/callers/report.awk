# Reads lines `ENGINE TAB VERSION TAB FILE`, FILE with lines `CHECK TAB RUNTIME TAB ok|not ok|skip`; prints two tables.
# Exits with 1 when a check passes with runc and not with ours, or an engine has no check.
BEGIN { FS = "\t" }
{
    engines[++count] = $2
    while ((getline line < $3) > 0) {
        split(line, field, "\t")
        name = field[1]
        if (!((count, name) in seen)) { seen[count, name] = 1; names[count, ++checks[count]] = name }
        word[count, name, field[2]] = field[3]
        sum[count, field[2], field[3]]++
    }
}
function cell(engine, name, runtime) {
    return (engine, name, runtime) in word ? word[engine, name, runtime] : "missing"
}
function sums(engine, runtime) {
    return (sum[engine, runtime, "ok"] + 0) " / " (sum[engine, runtime, "not ok"] + 0) " / " (sum[engine, runtime, "skip"] + 0)
}
END {
    print "| engine | runc: ok / not ok / skipped | ours |\n|---|---|---|"
    for (e = 1; e <= count; e++) {
        print "| " engines[e] " | " sums(e, "runc") " | " sums(e, "ours") " |"
        if (!checks[e]) { print "callers: " engines[e] ": no check was run" > "/dev/stderr"; bad = 1 }
    }
    for (e = 1; e <= count; e++) {
        print "\n| " engines[e] " | runc | ours |\n|---|---|---|"
        for (n = 1; n <= checks[e]; n++) {
            name = names[e, n]
            shown = name
            gsub(/\|/, "\\|", shown)
            print "| " shown " | " cell(e, name, "runc") " | " cell(e, name, "ours") " |"
            if (cell(e, name, "runc") == "ok" && cell(e, name, "ours") != "ok") {
                print "callers: " engines[e] ": " name ": passes with runc, not with ours" > "/dev/stderr"
                bad = 1
            }
        }
    }
    exit bad
}
