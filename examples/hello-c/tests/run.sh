#!/bin/sh
# Tests of wordfreq: tests/run.sh PROGRAM
set -u
program=$1
passed=0 failed=0

expect() { # name, what is printed, what was printed
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1)); echo "ok    $1"
    else
        failed=$((failed + 1)); echo "FAIL  $1"; echo "  expected: $2"; echo "  printed:  $3"
    fi
}
words() { "$program" "$@" | sed 's/^ *//' | tr '\n' ',' ; }

expect 'nothing in, nothing out' '' "$(printf '' | words)"
expect 'counts, most frequent first' '2 b,1 a,' "$(printf 'b a b' | words)"
expect 'equal counts by alphabet' '1 a,1 b,1 c,' "$(printf 'c b a' | words)"
expect 'case and punctuation do not matter' '3 word,' "$(printf 'Word, WORD; word!' | words)"
expect 'a limit' '3 x,' "$(printf 'x y x y x z' | words -n 1)"
expect 'bytes above ASCII belong to words' '1 naïve,' "$(printf 'naïve' | words)"
expect 'ten thousand different words' 10000 "$(seq 1 10000 | "$program" -n 99999 | wc -l | tr -d ' ')"
expect 'a long word' 100001 "$(head -c 100000 /dev/zero | tr '\0' x | "$program" | sed 's/^ *1 //' | wc -c | tr -d ' ')"
"$program" /no/such/file 2>/dev/null; expect 'a missing file is an error' 1 $?
"$program" -n many 2>/dev/null; expect 'a wrong number is an error' 2 $?

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
