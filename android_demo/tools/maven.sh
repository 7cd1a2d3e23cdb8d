#!/usr/bin/env bash
# Maven with the versions of gradle/libs.versions.toml: tools/maven.sh test
set -euo pipefail
cd "$(dirname "$0")/.."

# On a desktop Java writes the names of files by the locale's encoding; on Android it is always UTF-8.
export LC_ALL=C.UTF-8
mapfile -t versions < <(sed -n '/^\[versions\]/,/^\[libraries\]/s/^\([a-z0-9-]*\) = "\(.*\)"$/-D\1.version=\2/p' gradle/libs.versions.toml)
exec mvn --batch-mode --no-transfer-progress -Dstyle.color=never "${versions[@]}" "$@"
