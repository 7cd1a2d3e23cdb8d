#!/usr/bin/env bash
# What the checks need beside Python: says what is missing, or with --install installs it (Debian, as root).
set -euo pipefail

packages=()
need() { command -v "$1" > /dev/null || packages+=("$2"); }
need javac openjdk-17-jdk-headless
need mvn maven
need aapt2 aapt
need zipalign zipalign
need apksigner apksigner
need dexdump dexdump
need qemu-aarch64 qemu-user
need zip zip

if [ ${#packages[@]} -eq 0 ]; then
    exit 0
elif [ "${1:-}" = --install ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" > /dev/null
else
    echo "These are missing; on Debian or Ubuntu: apt install ${packages[*]}" >&2
    exit 1
fi
