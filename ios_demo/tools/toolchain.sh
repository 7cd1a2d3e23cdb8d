#!/usr/bin/env bash
# Runs a command in ios_demo with Swift at hand: tools/toolchain.sh swift test --filter PreprocessTests
#
# Takes this machine's own `swift` where it is version 6 or newer and the C libraries of the checks are there; on Linux
# else that of Debian 13, in a folder of its own, which is made the first time (Debian or Ubuntu, as root: 3.5 GB, about
# a minute) and used again after that: XFORMER_SWIFT, by default ~/.cache/xformer-mobile/swift. Inside it the repository
# has the same path as outside, and variables whose names begin with XFORMER_ have the same values.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin  # chroot and debootstrap are root's
repository=$(cd "$(dirname "$0")/../.." && pwd)
place=${XFORMER_SWIFT:-${XDG_CACHE_HOME:-$HOME/.cache}/xformer-mobile/swift}
packages=(
    swiftlang libc6-dev g++ libstdc++-14-dev git ca-certificates pkgconf
    libonnxruntime-dev libpng-dev libssl-dev  # in place of Apple's Core ML, ImageIO and CryptoKit
)

own_is_enough() {
    [[ $(swift --version 2> /dev/null) =~ Swift\ version\ ([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 6 ] || return 1
    [ "$(uname)" = Darwin ] || pkg-config --exists libonnxruntime libpng libcrypto 2> /dev/null
}

# Runs a command inside. /proc is mounted for it alone, and this machine's devices never are: nothing stays mounted.
inside() {
    local variables=() name
    for name in $(compgen -e XFORMER_); do variables+=("$name=${!name}"); done
    unshare --mount --propagation private bash -euc '
        place=$1 repository=$2 directory=$3; shift 3
        mkdir -p "$place$repository"
        mount -t proc proc "$place/proc"
        mount --bind "$repository" "$place$repository"
        exec chroot "$place" /usr/bin/env --ignore-environment --chdir="$directory" \
            PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "$@"
    ' inside "$1" "$repository" "$2" "${variables[@]}" "${@:3}"
}

make_place() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        echo "Swift 6 is missing; install it (swift.org/install) with the C libraries ${packages[*]: -3}," >&2
        echo "or run this as root on Debian or Ubuntu, which makes a folder with Debian's" >&2
        exit 1
    fi
    echo "Making a folder with Swift, $place: 3.5 GB, about a minute" >&2
    if ! command -v debootstrap > /dev/null; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq debootstrap > /dev/null
    fi
    rm -rf --one-file-system "$place".new.*
    # The mirror that apt has; on Ubuntu, which has none of Debian's, debootstrap's own.
    local new=$place.new.$$ mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | sed -n 1p)
    debootstrap --variant=minbase --include=ca-certificates trixie "$new" $mirror > "$place.log" 2>&1 &&
        inside "$new" / env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${packages[@]}" >> "$place.log" 2>&1 ||
        { tail -n 5 "$place.log" >&2; echo "Swift could not be installed; all of the output: $place.log" >&2; exit 1; }
    echo "${packages[*]}" > "$new/packages"
    rm -rf --one-file-system "$place"
    mv "$new" "$place"
}

cd "$repository/ios_demo"
if own_is_enough; then
    exec "$@"
fi
mkdir -p "$(dirname "$place")"
exec {lock}> "$place.lock"
flock "$lock"
[ "$(cat "$place/packages" 2> /dev/null)" = "${packages[*]}" ] || make_place
exec {lock}>&-
inside "$place" "$PWD" "$@"
