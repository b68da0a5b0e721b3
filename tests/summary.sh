#!/bin/sh
# Reads cargo test's output on stdin: passes failures and errors through, counts, and ends with one line.
awk '
    /^test result:/ { split($0, f, /[ ;.]+/); for (i in f) { if (f[i] == "passed") p += f[i-1]; if (f[i] == "failed") q += f[i-1]; if (f[i] == "ignored") s += f[i-1] } next }
    /^successes:$/ { fine = 1; next }
    /^failures:$/ { fine = 0 }
    fine && (/^    [a-z_0-9:]+$/ || /^---- .* stdout ----$/) { next }
    /^test .* \.\.\. ok$/ { next }
    /^running [0-9]+ tests?$/ || /^$/ { next }
    /^ *(Running|Doc-tests|Compiling|Downloaded|Finished|Checking) / { next }
    /^error/ { broken = 1 }
    { print }
    END { printf "%d passed, %d failed, %d skipped\n", p, q, s; exit (q > 0 || broken || p == 0) }
'
