#if canImport(CoreML)
import Foundation
import XFormerCore

#if canImport(Darwin)
import Darwin
#endif

/// What a device says of itself for a benchmark. What it does not say is nil, not guessed.
///
/// The device's id is a hash of a random number that is kept with the app: the same until the app is installed anew, and
/// made of no serial number, account or advertising identifier.
public struct DeviceInfo: BenchmarkProbe {
    private let directory: URL

    /// Keeps the random number in `directory`; nil is the app's directory for its own files.
    public init(directory: URL? = nil) {
        let own = FileManager.default.urls(for: .applicationSupportDirectory, in: .userDomainMask).first
        let parent = own ?? FileManager.default.temporaryDirectory
        self.directory = directory ?? parent.appendingPathComponent("xformer-mobile", isDirectory: true)
    }

    /// The device. Reads and writes a file.
    ///
    /// - Throws: ``XFormerCore/XFormerError/benchmark(_:)`` when the system tells of no processor or memory.
    public func machine() throws -> LatencyRun.Machine {
        let install = installId()
        let process = ProcessInfo.processInfo
        return try LatencyRun.Machine(
            id: hashed(install, System.model ?? ""), boot: System.boot.map { hashed(install, $0) }, system: System.name,
            release: process.operatingSystemVersionString, architecture: System.architecture, model: System.model,
            cpu: System.processor, cpus: process.processorCount, usableCpus: process.activeProcessorCount,
            memoryBytes: Int(clamping: process.physicalMemory), loadAverage: System.loadAverage)
    }

    /// Whether the user, or an empty battery, has slowed the device down.
    public var isLowPowerModeEnabled: Bool {
        #if canImport(Darwin)
        ProcessInfo.processInfo.isLowPowerModeEnabled
        #else
        false
        #endif
    }

    /// How hot the device is.
    public func thermalState() -> ThermalState? {
        #if canImport(Darwin)
        switch ProcessInfo.processInfo.thermalState {
        case .nominal: .nominal
        case .fair: .fair
        case .serious: .serious
        case .critical: .critical
        @unknown default: nil
        }
        #else
        nil
        #endif
    }

    /// Memory of this process that is in RAM now.
    public func residentBytes() -> Int? { System.residentBytes }

    /// Since the process began, not since the benchmark did.
    public func peakResidentBytes() -> Int? { System.usage.map { System.maxrssUnit * $0.ru_maxrss } }

    /// How often the system has taken the processor away from this process's threads.
    public func preemptions() -> Int? { System.usage.map { $0.ru_nivcsw } }

    /// The number that is kept; made where there is none yet, another one each time where it can't be kept.
    private func installId() -> String {
        let file = directory.appendingPathComponent("install-id")
        if let kept = try? String(contentsOf: file, encoding: .utf8), !kept.isEmpty { return kept }
        let made = UUID().uuidString
        try? FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        try? Data(made.utf8).write(to: file, options: .atomic)
        #if canImport(Darwin)
        // Another phone that is set up from this one's backup is another machine.
        var values = URLResourceValues()
        values.isExcludedFromBackup = true
        var url = file
        try? url.setResourceValues(values)
        #endif
        return made
    }

    /// A short hash of texts.
    private func hashed(_ parts: String...) -> String {
        String(sha256(Data(parts.joined(separator: "\n").utf8)).prefix(16))
    }
}

/// What the system tells by functions of C.
private enum System {
    /// What this process has used; nil where the system does not say.
    static var usage: rusage? {
        var usage = rusage()
        // RUSAGE_SELF, which Glibc declares with another type than the one that its function takes.
        return getrusage(0, &usage) == 0 ? usage : nil
    }

    static var loadAverage: Double? {
        var average = 0.0
        return getloadavg(&average, 1) == 1 && average >= 0 && average.isFinite ? average : nil
    }

    static var architecture: String? {
        #if arch(arm64)
        "arm64"
        #elseif arch(x86_64)
        "x86_64"
        #else
        nil
        #endif
    }

    #if canImport(Darwin)
    #if os(iOS)
    static let name = "iOS"

    /// Such as "iPhone16,1"; of a simulator, that of the device it stands for.
    static var model: String? {
        ProcessInfo.processInfo.environment["SIMULATOR_MODEL_IDENTIFIER"] ?? text("hw.machine")
    }
    #else
    static let name = "macOS"

    /// Such as "Mac15,3".
    static var model: String? { text("hw.model") }
    #endif

    /// Such as "Apple M3"; iOS does not say.
    static var processor: String? { text("machdep.cpu.brand_string") }

    /// The same until the next start.
    static var boot: String? { text("kern.bootsessionuuid") }

    /// `ru_maxrss` is in bytes.
    static let maxrssUnit = 1

    /// This process, as Mach knows it. `mach_task_self_` is a variable, which Swift 6 can't take from older SDKs.
    private static let task = task_self_trap()

    static var residentBytes: Int? {
        var info = mach_task_basic_info()
        let words = MemoryLayout<mach_task_basic_info>.size / MemoryLayout<integer_t>.size
        var count = mach_msg_type_number_t(words)
        let status = withUnsafeMutablePointer(to: &info) { start in
            start.withMemoryRebound(to: integer_t.self, capacity: words) {
                task_info(task, task_flavor_t(MACH_TASK_BASIC_INFO), $0, &count)
            }
        }
        return status == KERN_SUCCESS ? Int(clamping: info.resident_size) : nil
    }

    /// A text that the kernel tells by name.
    private static func text(_ name: String) -> String? {
        var size = 0
        guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 1 else { return nil }
        var bytes = [UInt8](repeating: 0, count: size)
        guard sysctlbyname(name, &bytes, &size, nil, 0) == 0 else { return nil }
        let text = String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        return text.isEmpty ? nil : text
    }
    #else
    static let name = "Linux"
    static let model: String? = nil
    static let processor: String? = nil

    static var boot: String? { text("/proc/sys/kernel/random/boot_id") }

    /// `ru_maxrss` is in kilobytes.
    static let maxrssUnit = 1024

    static var residentBytes: Int? {
        let pages = text("/proc/self/statm")?.split(separator: " ").dropFirst().first.flatMap { Int($0) }
        return pages.map { $0 * sysconf(Int32(_SC_PAGESIZE)) }
    }

    private static func text(_ file: String) -> String? { try? String(contentsOfFile: file, encoding: .utf8) }
    #endif
}
#endif
