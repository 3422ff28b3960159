# Greets its argument, and keeps the greeting.
case $1 in
    --*) echo "greet.sh: unknown option $1" >&2; exit 3 ;;
esac
echo "hello, $1" | tee greeting
