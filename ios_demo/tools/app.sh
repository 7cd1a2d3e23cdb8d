#!/usr/bin/env bash
# Checks of the demo app that SwiftPM does not make, after `swift build`: tools/app.sh, where `swiftc` is.
#
# 1. Every file of the app and of its tests is parsed for an iPhone.
# 2. The stubs of Apple's modules catch what Apple does not have: each line below, put into a view, must be refused,
#    and what is like it and right must not.
set -euo pipefail
cd "$(dirname "$0")/.."
modules=.build/debug/Modules
count=0
while IFS= read -r file; do
    swiftc -frontend -parse -swift-version 6 -target arm64-apple-ios16.0 "$file"
    count=$((count + 1))
done < <(find Demo Sources -name '*.swift' | sort)
echo "$count files parsed for arm64-apple-ios16.0"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
refuse() { # MESSAGE LINE: the line is refused with that message, and nothing else is wrong
    cat > "$scratch/Tried.swift" << END
import AVFoundation
import PhotosUI
import SwiftUI
import UIKit

struct Tried: View {
    let text = ""
    let session = AVCaptureSession()

    var body: some View { $2 }
}
END
    local said
    said=$(swiftc -typecheck -swift-version 6 -I "$modules" "$scratch/Tried.swift" 2>&1 | grep -o 'error: .*' || true)
    if [[ $1 == '' && -n $said ]] || [[ $1 != '' && $said != *"$1"* ]]; then
        echo "expected '${1:-no error}' of: $2" >&2
        echo "got: ${said:-no error}" >&2
        exit 1
    fi
    tried=$((tried + 1))
}
tried=0
refuse '' 'Text(verbatim: text).font(.footnote)'
refuse "has no member 'fontSize'" 'Text(verbatim: text).fontSize(12)'
refuse "has no member 'foregroundColour'" 'Text(verbatim: text).foregroundColour(.white)'
refuse "incorrect argument label" 'Image(system: "checkmark")'
refuse 'extra arguments at positions' 'HStack(gap: 4) { Text(verbatim: text) }'
refuse "missing argument for parameter 'in'" 'Canvas { context, size in context.draw(Image(systemName: text)) }'
refuse "has no member 'start'" 'Text(verbatim: text).onAppear { session.start() }'
refuse '' 'Text(verbatim: text).onAppear { session.startRunning() }'
refuse "cannot convert value of type 'Int' to expected argument type 'String'" 'Text(verbatim: 7)'
echo "$tried lines tried against the stubs of Apple's modules"
