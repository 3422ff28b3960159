# Uses both servers by their names.
set -eu
redis-cli -h cache set greeting hello
redis-cli -h queue -p 6380 rpush jobs one two three
[ "$(redis-cli -h cache get greeting)" = hello ]
[ "$(redis-cli -h queue -p 6380 llen jobs)" = 3 ]
[ "$(redis-cli -h queue -p 6380 get greeting)" = '' ]
echo 'both servers answered'
