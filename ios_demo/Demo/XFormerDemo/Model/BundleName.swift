/// The names that bundles may have: they are names of folders, and may come from another app.
enum BundleName {
    /// Whether a name is safe as that of a folder: letters, digits, `.`, `_` and `-`, at most 64, no `.` in front.
    static func isValid(_ name: String) -> Bool {
        guard let first = name.utf8.first, name.utf8.count <= 64 else { return false }
        return isLetterOrDigit(first) && name.utf8.allSatisfy(isValid)
    }

    /// A valid name for a bundle that is imported from a folder of that name: other characters replaced by `-`, and a
    /// number at the end where `taken` has it already.
    static func unused(for folder: String, taken: Set<String>) -> String {
        let cleaned = folder.unicodeScalars.map { scalar in
            scalar.isASCII && isValid(UInt8(scalar.value)) ? Character(scalar) : "-"
        }
        let name = String(cleaned.drop { ".-_".contains($0) }.prefix(56))
        let base = name.isEmpty ? "bundle" : name
        var candidate = base
        var number = 2
        while taken.contains(candidate) {
            candidate = "\(base)-\(number)"
            number += 1
        }
        return candidate
    }

    private static func isValid(_ byte: UInt8) -> Bool { isLetterOrDigit(byte) || "._-".utf8.contains(byte) }

    private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: false
        }
    }
}
