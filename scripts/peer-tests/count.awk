# Counts the results of one TAP file, in one line.
/^1\.\./ { planned = substr($1, 4) }
/^ok / { if ($0 ~ / # skip/) skipped++; else passed++ }
/^not ok / { failed++ }
END { printf "%3d passed %3d failed %3d skipped %3d without a result\n", passed, failed, skipped, planned - passed - failed - skipped }
