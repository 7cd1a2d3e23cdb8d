import COnnxRuntime
import Foundation
import Glibc
import XFormerCore

/// ONNX Runtime's C library, loaded when it is first used; nothing is linked to it. One a process.
struct Library: @unchecked Sendable {
    /// The variable that says where the library is.
    static let variable = "XFORMER_ONNXRUNTIME"

    /// The library's functions, which it never changes.
    let api: OrtApi

    /// The library's own version, such as "1.23.2".
    let version: String

    /// What all sessions share; it may be used from any thread.
    let environment: Owned

    private static let shared = Result { try Library() }

    /// The library at the path in ``variable``, with its telemetry switched off.
    ///
    /// - Throws: ``XFormerError/engine(_:)`` when it is not there, or too old.
    static func load() throws -> Library { try shared.get() }

    private init() throws {
        guard let path = ProcessInfo.processInfo.environment[Self.variable] else {
            throw XFormerError.engine("ONNX Runtime is not there: set \(Self.variable) to the path of its library")
        }
        guard let library = dlopen(path, RTLD_NOW | RTLD_LOCAL), let symbol = dlsym(library, "OrtGetApiBase") else {
            throw XFormerError.engine("ONNX Runtime can't be loaded: \(oneLine(words(dlerror())))")
        }
        typealias GetApiBase = @convention(c) () -> UnsafePointer<OrtApiBase>
        let base = unsafeBitCast(symbol, to: GetApiBase.self)().pointee
        version = words(base.GetVersionString())
        guard let api = base.GetApi(UInt32(ORT_API_VERSION))?.pointee else {
            throw XFormerError.engine("ONNX Runtime \(version) is too old; its API must be \(ORT_API_VERSION) or later")
        }
        self.api = api
        let refused = { (words: String) in XFormerError.engine("ONNX Runtime can't be used: \(words)") }
        environment = try api.make(api.ReleaseEnv, refused) { api.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "xformer", $0) }
        try api.check(api.DisableTelemetryEvents(environment.pointer), refused)
    }
}

extension OrtApi {
    /// Throws what `error` makes of the library's words, where a call failed.
    func check(_ status: OrtStatusPtr?, _ error: (String) -> XFormerError) throws {
        guard let status else { return }
        defer { ReleaseStatus(status) }
        throw error(oneLine(words(GetErrorMessage(status))))
    }

    /// What a function of the library makes, to be released by another.
    func make(
        _ release: @escaping @convention(c) (OpaquePointer?) -> Void, _ error: (String) -> XFormerError,
        by create: (UnsafeMutablePointer<OpaquePointer?>) -> OrtStatusPtr?
    ) throws -> Owned {
        var made: OpaquePointer?
        try check(create(&made), error)
        guard let made else { throw error("it made nothing") }
        return Owned(made, release)
    }
}

/// A text of the library, which keeps it.
private func words(_ text: UnsafePointer<CChar>?) -> String { text.map { String(cString: $0) } ?? "" }

/// An object of the library, released with this.
final class Owned {
    let pointer: OpaquePointer
    private let release: @convention(c) (OpaquePointer?) -> Void

    init(_ pointer: OpaquePointer, _ release: @escaping @convention(c) (OpaquePointer?) -> Void) {
        self.pointer = pointer
        self.release = release
    }

    deinit { release(pointer) }
}
