#!/usr/bin/env bash
# Maven with the versions of gradle/libs.versions.toml: tools/maven.sh test
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t versions < <(sed -n '/^\[versions\]/,/^\[libraries\]/s/^\([a-z0-9-]*\) = "\(.*\)"$/-D\1.version=\2/p' gradle/libs.versions.toml)
exec mvn --batch-mode --no-transfer-progress -Dstyle.color=never "${versions[@]}" "$@"
