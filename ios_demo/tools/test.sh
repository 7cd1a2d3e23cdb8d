#!/usr/bin/env bash
# Every check of the Swift code that Linux can make: tools/test.sh FIXTURES
#
# FIXTURES is the folder that scripts/app_fixtures.py fills. What the tests print goes to FIXTURES/swift-test.log.
set -euo pipefail
fixtures=$(cd "$1" && pwd)
cd "$(dirname "$0")"

export XFORMER_FIXTURES=$fixtures
XFORMER_ONNXRUNTIME=$(find "$fixtures" -path '*/onnxruntime/capi/libonnxruntime.so.*' | sort | tail -n 1)
export XFORMER_ONNXRUNTIME
strict=(-Xswiftc -warnings-as-errors)
./toolchain.sh swift build --build-tests "${strict[@]}"
status=0
./toolchain.sh swift test --skip-build "${strict[@]}" > "$fixtures/swift-test.log" 2>&1 || status=$?
if [ $status != 0 ]; then
    grep -E "error:|Fatal error|: failed|^Executed|Executed [0-9]" "$fixtures/swift-test.log" >&2 || tail -n 50 "$fixtures/swift-test.log" >&2
    exit 1
fi
./toolchain.sh tools/app.sh
