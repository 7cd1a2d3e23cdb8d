import Foundation

/// What one session on one device measured: raw samples in nanoseconds, by artifact, engine and phase.
///
/// The document of xformer_mobile/schemas/latency_run.schema.json, which `xformer-bench show` reads. What is nil is
/// left out, but for the threads of an engine.
public struct LatencyRun: Codable, Sendable, Equatable {
    /// That of the schema.
    public let schemaVersion: String

    /// What wrote the document.
    public let generator: Generator

    /// UTC, such as 2025-01-31T12:00:00Z.
    public let created: String

    /// What measured.
    public let machine: Machine

    /// Versions by name.
    public let tools: [String: String]

    /// What was measured, one after the other.
    public let measurements: [Measurement]

    private enum CodingKeys: String, CodingKey {
        case schemaVersion = "schema_version"
        case generator, created, machine, tools, measurements
    }

    /// A session's measurements. `created` is rounded down to a second.
    public init(created: Date, machine: Machine, tools: [String: String], measurements: [Measurement]) {
        schemaVersion = "1.0"
        generator = Generator(name: "xformer-mobile-ios", version: XFormerKit.version)
        self.created = ISO8601DateFormatter().string(
            from: Date(timeIntervalSince1970: created.timeIntervalSince1970.rounded(.down)))
        self.machine = machine
        self.tools = tools
        self.measurements = measurements
    }

    /// The file's content: UTF-8, one line.
    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return try encoder.encode(self) + Data("\n".utf8)
    }

    /// What wrote the document.
    public struct Generator: Codable, Sendable, Equatable {
        /// "xformer-mobile-ios" for this library.
        public let name: String

        /// Its version.
        public let version: String
    }
}

extension LatencyRun {
    /// The phone or computer that measured.
    public struct Machine: Codable, Sendable, Equatable {
        /// The same for the same machine, and for no other: a hash, no name and no serial number.
        public let id: String

        /// The same until the machine is started anew.
        public let boot: String?

        /// Such as "iOS".
        public let system: String

        /// The system's version.
        public let release: String?

        /// Such as "arm64".
        public let architecture: String?

        /// Such as "iPhone16,1".
        public let model: String?

        /// The processor's name.
        public let cpu: String?

        /// How many processors there are.
        public let cpus: Int?

        /// How many of them may be used.
        public let usableCpus: Int?

        /// The memory that is built in.
        public let memoryBytes: Int?

        /// How many processes wanted a processor when the session began, over a minute.
        public let loadAverage: Double?

        private enum CodingKeys: String, CodingKey {
            case id, boot, system, release, architecture, model, cpu, cpus
            case usableCpus = "usable_cpus"
            case memoryBytes = "memory_bytes"
            case loadAverage = "load_average"
        }

        /// A machine; leave out what is not known.
        ///
        /// - Throws: ``XFormerError/benchmark(_:)`` when `id` or `system` has no letter or more than 500, or a number
        ///   can't be.
        public init(
            id: String, boot: String? = nil, system: String, release: String? = nil, architecture: String? = nil,
            model: String? = nil, cpu: String? = nil, cpus: Int? = nil, usableCpus: Int? = nil,
            memoryBytes: Int? = nil, loadAverage: Double? = nil
        ) throws {
            guard [id, system].allSatisfy({ (1...500).contains($0.unicodeScalars.count) }) else {
                throw XFormerError.benchmark("a machine's id and system have 1 to 500 letters each")
            }
            guard cpus ?? 1 >= 1, usableCpus ?? 1 >= 1, memoryBytes ?? 0 >= 0 else {
                throw XFormerError.benchmark(
                    "a machine has 1 processor or more, and memory; leave out what is not known")
            }
            if let loadAverage, !(loadAverage >= 0 && loadAverage.isFinite) {
                throw XFormerError.benchmark(
                    "a load average of \(loadAverage) is not valid; leave it out where it is not known")
            }
            self.id = id
            self.boot = boot
            self.system = system
            self.release = release
            self.architecture = architecture
            self.model = model
            self.cpu = cpu
            self.cpus = cpus
            self.usableCpus = usableCpus
            self.memoryBytes = memoryBytes
            self.loadAverage = loadAverage
        }
    }

    /// One artifact on one engine.
    public struct Measurement: Codable, Sendable, Equatable {
        /// The model, in the words of its manifest.
        public let model: Model

        /// The file that was measured.
        public let artifact: Artifact

        /// What ran it.
        public let engine: Engine

        /// What is measured apart.
        public let phases: Phases

        /// What it took of the memory.
        public let memory: Memory?

        /// What was noticed.
        public internal(set) var disturbances: Disturbances?

        /// A measurement of one artifact on one engine.
        public init(
            model: Model, artifact: Artifact, engine: Engine, phases: Phases, memory: Memory? = nil,
            disturbances: Disturbances? = nil
        ) {
            self.model = model
            self.artifact = artifact
            self.engine = engine
            self.phases = phases
            self.memory = memory
            self.disturbances = disturbances
        }

        /// The statistics of each phase that has samples, in the order in which they are shown.
        public func statistics() -> [(phase: BenchmarkPhase, statistics: Statistics)] {
            phases.byName().compactMap { name, phase in
                (try? Statistics(samplesNs: phase.samplesNs)).map { (name, $0) }
            }
        }
    }
}

extension LatencyRun.Measurement {
    /// The model, in the words of its manifest.
    public struct Model: Codable, Sendable, Equatable {
        /// Such as "classify".
        public let task: String

        /// Such as "xformer_s".
        public let variant: String

        /// Such as "int8".
        public let precision: String

        /// Height, width.
        public let imageSize: [Int]

        private enum CodingKeys: String, CodingKey {
            case task, variant, precision
            case imageSize = "image_size"
        }

        /// A model in the words of its manifest.
        public init(task: String, variant: String, precision: String, imageSize: ImageSize) {
            self.task = task
            self.variant = variant
            self.precision = precision
            self.imageSize = [imageSize.height, imageSize.width]
        }
    }

    /// The file that was measured.
    public struct Artifact: Codable, Sendable, Equatable {
        /// Such as "coreml".
        public let format: String

        /// As the manifest has it, in hex.
        public let sha256: String

        /// Of all its files.
        public let sizeBytes: Int

        private enum CodingKeys: String, CodingKey {
            case format, sha256
            case sizeBytes = "size_bytes"
        }

        /// A file in the words of the manifest.
        public init(format: String, sha256: String, sizeBytes: Int) {
            self.format = format
            self.sha256 = sha256
            self.sizeBytes = sizeBytes
        }
    }

    /// What ran the model.
    public struct Engine: Codable, Sendable, Equatable {
        /// Such as "coreml".
        public let name: String

        /// nil: the engine's own choice.
        public let threads: Int?

        /// What it computed on; "(requested)" behind it where that can't be told.
        public let accelerator: String?

        /// An engine and what it computed on.
        public init(name: String, threads: Int?, accelerator: String? = nil) {
            self.name = name
            self.threads = threads
            self.accelerator = accelerator
        }

        /// Writes `threads` as null where it is nil: the schema asks for it.
        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(name, forKey: .name)
            try container.encode(threads, forKey: .threads)
            try container.encodeIfPresent(accelerator, forKey: .accelerator)
        }
    }

    /// What is measured apart.
    public struct Phases: Codable, Sendable, Equatable {
        /// Opening the artifact.
        public let load: Phase

        /// The first run after that.
        public let firstRun: Phase

        /// From a picture to the model's input.
        public let preprocess: Phase

        /// The model.
        public let inference: Phase

        /// From the model's outputs to a result.
        public let postprocess: Phase

        private enum CodingKeys: String, CodingKey {
            case load
            case firstRun = "first_run"
            case preprocess, inference, postprocess
        }

        /// The times of every phase.
        public init(load: Phase, firstRun: Phase, preprocess: Phase, inference: Phase, postprocess: Phase) {
            self.load = load
            self.firstRun = firstRun
            self.preprocess = preprocess
            self.inference = inference
            self.postprocess = postprocess
        }

        func byName() -> [(BenchmarkPhase, Phase)] {
            [
                (.load, load), (.firstRun, firstRun), (.preprocess, preprocess), (.inference, inference),
                (.postprocess, postprocess),
            ]
        }
    }

    /// Times in nanoseconds, in the order of measurement.
    public struct Phase: Codable, Sendable, Equatable {
        /// Runs that count.
        public let samplesNs: [Int]

        /// Runs that do not.
        public let warmUpsNs: [Int]?

        /// How many of the samples are of each process, in order.
        public let processes: [Int]?

        private enum CodingKeys: String, CodingKey {
            case samplesNs = "samples_ns"
            case warmUpsNs = "warm_ups_ns"
            case processes
        }

        /// Times of one phase.
        public init(samplesNs: [Int], warmUpsNs: [Int]? = nil, processes: [Int]? = nil) {
            self.samplesNs = samplesNs
            self.warmUpsNs = warmUpsNs
            self.processes = processes
        }
    }

    /// Resident memory of the process.
    public struct Memory: Codable, Sendable, Equatable {
        /// Before loading.
        public let rssStartBytes: Int?

        /// Loaded.
        public let rssLoadedBytes: Int?

        /// At most since then.
        public let rssPeakBytes: Int?

        private enum CodingKeys: String, CodingKey {
            case rssStartBytes = "rss_start_bytes"
            case rssLoadedBytes = "rss_loaded_bytes"
            case rssPeakBytes = "rss_peak_bytes"
        }

        /// Resident memory; leave out what is not known.
        public init(rssStartBytes: Int? = nil, rssLoadedBytes: Int? = nil, rssPeakBytes: Int? = nil) {
            self.rssStartBytes = rssStartBytes
            self.rssLoadedBytes = rssLoadedBytes
            self.rssPeakBytes = rssPeakBytes
        }
    }

    /// What was noticed; readers judge for themselves from the samples too.
    public struct Disturbances: Codable, Sendable, Equatable {
        /// How often the system took the processor away during inference.
        public let preempted: Int?

        /// How often the times still changed when the warm-up was given up.
        public let unstableWarmUps: Int?

        /// The worst during the run, see ``ThermalState``.
        public let thermalState: String?

        /// Why the times can't be relied on, in words; empty where they can.
        public internal(set) var tooNoisy: [String]?

        private enum CodingKeys: String, CodingKey {
            case preempted
            case unstableWarmUps = "unstable_warm_ups"
            case thermalState = "thermal_state"
            case tooNoisy = "too_noisy"
        }

        /// What was noticed; leave out what is not known.
        public init(
            preempted: Int? = nil, unstableWarmUps: Int? = nil, thermalState: String? = nil, tooNoisy: [String]? = nil
        ) {
            self.preempted = preempted
            self.unstableWarmUps = unstableWarmUps
            self.thermalState = thermalState
            self.tooNoisy = tooNoisy
        }
    }
}
