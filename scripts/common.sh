# shellcheck shell=bash
# What the scripts share. Source it; it changes to the root of the repository.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A bare machine may start scripts with neither.
if [[ -z ${HOME:-} ]]; then
    HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
    export HOME=${HOME:-/tmp}
fi
if ! command -v cargo >/dev/null && [[ -x $HOME/.cargo/bin/cargo ]]; then
    export PATH="$HOME/.cargo/bin:$PATH"
fi
export PATH="$PATH:/usr/sbin:/sbin"

# Where cargo builds, absolute.
target_directory=${CARGO_TARGET_DIR:-target}
mkdir -p "$target_directory"
target_directory=$(cd "$target_directory" && pwd)

say() { printf '\n==> %s\n' "$*" >&2; }
note() { printf 'note: %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Prints the path of a cargo tool of exactly this version, built once into the target directory.
cargo_tool() { # name version
    local name=$1 version=$2 root="$target_directory/tools/$1-$2" found
    found=$(command -v "$name" || true)
    if [[ -n $found ]] && [[ "$("$found" --version 2>/dev/null | head -n 1)" == *" $version"* ]]; then
        echo "$found"
        return
    fi
    if [[ ! -x $root/bin/$name ]]; then
        say "building $name $version (once, into $root)"
        cargo install --quiet --locked --root "$root" --target-dir "$target_directory/tools/build" \
            --version "$version" "$name" >&2
        rm -rf "$target_directory/tools/build"
    fi
    echo "$root/bin/$name"
}

nextest_version=0.9.143
deny_version=0.20.2
