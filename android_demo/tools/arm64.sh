#!/usr/bin/env bash
# The parity check on ARM64: the same Kotlin, ONNX Runtime's ARM64 build, under an emulated processor (qemu).
#
#     tools/arm64.sh BUNDLES OUTPUT.json [PICTURES [NAME...]]      after: tools/maven.sh package
#
# Java for ARM64 comes from Debian's packages and is unpacked, not installed, into target/arm64. Numbers are compared;
# how long an emulated processor takes says nothing.
set -euo pipefail
bundles=$(realpath "$1")
output=$(realpath "$2")
cd "$(dirname "$0")/.."

root=$PWD/target/arm64
if [ ! -x "$root/root/usr/bin/env" ] || [ ! -e "$root/ready" ]; then
    rm -rf "$root"
    mkdir -p "$root"/{lists/partial,cache/archives/partial,root/proc}
    : > "$root/status"
    cat > "$root/apt.conf" << END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Install-Recommends "false";
Dir::Cache "$root/cache";
Dir::State::lists "$root/lists";
Dir::State::status "$root/status";
END
    APT_CONFIG=$root/apt.conf apt-get update -qq
    APT_CONFIG=$root/apt.conf apt-get install -y -qq --download-only openjdk-17-jre-headless libstdc++6 coreutils > /dev/null
    for package in "$root"/cache/archives/*.deb; do
        dpkg -x "$package" "$root/root"
    done
    # ONNX Runtime asks the system what the processor can do: a Cortex-A76, as qemu emulates it.
    for core in 0 1; do
        printf 'processor\t: %s\nBogoMIPS\t: 62.50\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\n' "$core" \
            "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
        printf 'CPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n\n'
    done > "$root/root/proc/cpuinfo"
    touch "$root/ready"
fi

exec qemu-aarch64 -L "$root/root" -cpu cortex-a76 "$root/root/usr/lib/jvm/java-17-openjdk-arm64/bin/java" -Xmx2g \
    -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    -cp "runtime/target/test-classes:runtime/target/classes:$(cat runtime/target/classpath.txt)" \
    xformer.mobile.ParityMain "$bundles" "$output" "${@:3}"
