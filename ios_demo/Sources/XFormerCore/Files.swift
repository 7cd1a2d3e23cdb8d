import Foundation

#if canImport(CryptoKit)
import CryptoKit
#else
import COpenSSL
#endif

/// What a file system refuses, or holds where something else should be.
struct FileProblem: LocalizedError {
    let errorDescription: String?

    /// The system's words for the last call that failed.
    static func ofSystem() -> FileProblem { FileProblem(errorDescription: String(cString: strerror(errno))) }
}

/// Whether there is a directory, perhaps behind a link.
func isDirectory(_ url: URL) -> Bool { fileType(url) == S_IFDIR }

/// Whether there is a file that has a content and an end, perhaps behind a link.
func isRegularFile(_ url: URL) -> Bool { fileType(url) == S_IFREG }

private func fileType(_ url: URL, followingLinks: Bool = true) -> mode_t? {
    var status = stat()
    let failed = followingLinks ? stat(url.path, &status) : lstat(url.path, &status)
    return failed == 0 ? status.st_mode & S_IFMT : nil
}

/// The path without links; nil where there is nothing.
///
/// - Throws: ``FileProblem`` when it can't be followed, such as a link to itself.
func canonicalPath(_ url: URL) throws -> String? {
    guard let path = realpath(url.path, nil) else {
        if errno == ENOENT || errno == ENOTDIR { return nil }
        throw FileProblem.ofSystem()
    }
    defer { free(path) }
    return String(cString: path)
}

/// The first `limit` bytes of a file, or all where there are fewer.
func readAtMost(_ limit: Int, of url: URL) throws -> Data {
    var content = Data()
    try forEachBlock(of: url) { block in
        content.append(contentsOf: block.prefix(limit - content.count))
        return content.count < limit
    }
    return content
}

/// Calls `take` with one part of a file after the other, until it says that this was enough.
private func forEachBlock(of url: URL, _ take: (UnsafeRawBufferPointer) throws -> Bool) throws {
    guard let file = fopen(url.path, "rb") else { throw FileProblem.ofSystem() }
    defer { fclose(file) }
    let block = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
    defer { block.deallocate() }
    while true {
        let count = fread(block.baseAddress, 1, block.count, file)
        if count > 0, try !take(UnsafeRawBufferPointer(rebasing: block[..<count])) { return }
        if count < block.count {
            if ferror(file) != 0 { throw FileProblem.ofSystem() }
            return
        }
    }
}

// MARK: - SHA-256

/// The SHA-256 of bytes, in hexadecimal.
package func sha256(_ content: some DataProtocol) -> String {
    let digest = Sha256()
    for region in content.regions { region.withUnsafeBytes { digest.update($0) } }
    return digest.hex()
}

/// The SHA-256 of a file, which is never whole in memory.
func fileSha256(_ url: URL) throws -> String {
    let digest = Sha256()
    try forEachBlock(of: url) { block in
        digest.update(block)
        return true
    }
    return digest.hex()
}

/// The SHA-256 of the lines "SHA256  PATH" of a directory's files, in the order of their relative paths' bytes.
///
/// - Throws: ``FileProblem`` when there is something else in it, such as a symbolic link: it could lead out of the
///   directory, or back into it.
package func treeSha256(_ directory: URL) throws -> String {
    let paths = try filePaths(below: directory, "").sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    let digest = Sha256()
    for path in paths {
        let line = "\(try fileSha256(directory.appendingPathComponent(path)))  \(path)\n"
        Array(line.utf8).withUnsafeBytes { digest.update($0) }
    }
    return digest.hex()
}

private func filePaths(below directory: URL, _ prefix: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: directory.path).flatMap { name in
        let url = directory.appendingPathComponent(name)
        switch fileType(url, followingLinks: false) {
        case S_IFREG: return [prefix + name]
        case S_IFDIR: return try filePaths(below: url, "\(prefix)\(name)/")
        case S_IFLNK: throw FileProblem(errorDescription: "\(prefix)\(name) is a symbolic link")
        default: throw FileProblem(errorDescription: "\(prefix)\(name) is not a file")
        }
    }
}

/// A digest that grows. Not for several threads.
private final class Sha256 {
    #if canImport(CryptoKit)
    private var state = SHA256()

    func update(_ bytes: UnsafeRawBufferPointer) {
        state.update(bufferPointer: bytes)
    }

    func hex() -> String { state.finalize().map(hexadecimal).joined() }
    #else
    private let state = EVP_MD_CTX_new()

    init() {
        let started = EVP_DigestInit_ex(state, EVP_sha256(), nil)
        precondition(started == 1, "OpenSSL has no SHA-256")
    }

    deinit { EVP_MD_CTX_free(state) }

    func update(_ bytes: UnsafeRawBufferPointer) {
        EVP_DigestUpdate(state, bytes.baseAddress, bytes.count)
    }

    func hex() -> String {
        var digest = [UInt8](repeating: 0, count: 32)
        EVP_DigestFinal_ex(state, &digest, nil)
        return digest.map(hexadecimal).joined()
    }
    #endif
}

private func hexadecimal(_ byte: UInt8) -> String {
    (byte < 16 ? "0" : "") + String(byte, radix: 16)
}
