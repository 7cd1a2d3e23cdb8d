import Foundation

/// Every text of the app, in the user's language: the keys of Localizable.xcstrings. Numbers come in as ``Figures``
/// writes them.
enum Words {
    /// Between the parts of a list.
    static let separator = String(localized: ", ")

    // MARK: Every screen

    static let appName = String(localized: "XFormer Mobile")
    static let tryAgain = String(localized: "Try again")
    static let memoryFull = String(localized: "The device is short of memory, and the model was closed.")
    static let bannerSample = String(
        localized: "Sample weights: the model knows drawn scenes only. What it says of a photograph means nothing.")
    static let bannerUntrained = String(
        localized: "Untrained weights, drawn at random: what the model says means nothing.")
    static let noBundle = String(
        localized: """
            There is no model in the app yet.

            To build one in, run on your computer:
            make ios-assets BUNDLES=my-bundle
            and install the app again. Or import a bundle's folder.
            """)
    static let modelOpening = String(localized: "Opening the model…")
    static func modelFailed(_ why: String) -> String { String(localized: "The model can't be used: \(why)") }
    static func somethingFailed(_ why: String) -> String { String(localized: "This did not work: \(why)") }

    // MARK: Camera

    static let openPicture = String(localized: "Picture")
    static let openSetup = String(localized: "Model")
    static let openBenchmark = String(localized: "Benchmark")
    static let switchCamera = String(localized: "Other camera")
    static let cameraPicture = String(localized: "The camera's picture")
    static let cameraAsk = String(
        localized: """
            To see what the model finds in live pictures, allow the app to use the camera. Pictures stay on the device.
            """)
    static let cameraAllow = String(localized: "Allow the camera")
    static let cameraRefused = String(
        localized: """
            The app may not use the camera. You can allow it in the settings, or choose a picture instead.
            """)
    static let cameraRestricted = String(
        localized: "Whoever manages this device has switched the camera off. Choose a picture instead.")
    static let openSettings = String(localized: "Open the settings")
    static let cameraNone = String(
        localized: "This device has no camera that can be used. Choose a picture instead.")
    static let cameraInUse = String(localized: "Another app uses the camera. Close it and try again.")
    static let cameraSharedScreen = String(
        localized: "The camera does not work while another app shares the screen. Give this app the whole screen.")
    static let cameraPressure = String(
        localized: "The device is too hot or too busy for the camera. Let it rest, then try again.")
    static let cameraNoFormat = String(
        localized: "The camera offers no pictures that the app can use. Try the other camera, or choose a picture.")
    static let cameraFailed = String(
        localized: "The camera reported an error. If it comes again, restart the device.")
    static let heatSerious = String(
        localized: "The device is hot and has slowed down: fewer frames are looked at.")
    static let heatCritical = String(
        localized: "The device is too hot. Nothing is looked at until it has cooled down.")
    static func liveFigures(_ engine: String, rate: String, inference: String) -> String {
        String(localized: "\(engine) · \(rate) frames a second · inference \(inference)")
    }

    // MARK: Compute units

    static let unitsAll = String(localized: "All: Core ML chooses")
    static let unitsCpu = String(localized: "CPU only")
    static let unitsGpu = String(localized: "CPU and GPU")
    static let unitsNeuralEngine = String(localized: "CPU and Neural Engine")
    static func engineUsed(_ engine: String, format: String, units: String) -> String {
        String(localized: "\(engine), \(format), \(units)")
    }
    static func unitsUsed(_ used: String, requested: String) -> String {
        String(localized: "\(requested); computes on \(used)")
    }
    static func unitsUnknown(_ requested: String) -> String {
        String(localized: "\(requested); what computes is not known")
    }

    // MARK: Results

    static let resultNothing = String(localized: "No result")
    static let resultNoObjects = String(localized: "No objects found")
    static func resultRow(_ label: String, share: String) -> String { String(localized: "\(label), \(share)") }
    static func resultClass(_ label: String, share: String) -> String {
        String(localized: "Probably \(label), \(share)")
    }
    static func resultShare(_ label: String, share: String) -> String { String(localized: "\(label) \(share)") }
    static func resultSeveral(_ label: String, count: String) -> String { String(localized: "\(label) (\(count))") }
    static func resultObjects(_ count: Int, list: String) -> String {
        count == 1 ? String(localized: "1 object: \(list)") : String(localized: "\(count.description) objects: \(list)")
    }
    static func resultOthers(_ count: Int) -> String { String(localized: "and \(count.description) more") }
    static func resultOtherClasses(_ count: Int, share: String) -> String {
        count == 1
            ? String(localized: "1 other class, \(share)")
            : String(localized: "\(count.description) other classes, \(share)")
    }

    // MARK: Picture

    static let pictureTitle = String(localized: "Picture")
    static let choosePhoto = String(localized: "Choose a photo")
    static let chooseFile = String(localized: "Choose a file")
    static let pictureNone = String(localized: "Choose a picture, and the model's result is drawn over it.")
    static let pictureWorking = String(localized: "Looking at the picture…")
    static let pictureUnreadable = String(localized: "Its file can't be read.")
    static let pictureLeft = String(localized: "Stopped: the app left the screen. Choose the picture again.")
    static let pictureMemory = String(
        localized: "Stopped: the device is short of memory. Close other apps, and choose the picture again.")
    static let chosenPicture = String(localized: "The chosen picture")
    static func pictureFailed(_ why: String) -> String { String(localized: "The picture can't be used: \(why)") }
    static func pictureFigures(_ engine: String, size: String, inference: String) -> String {
        String(localized: "\(engine) · picture \(size) · inference \(inference)")
    }

    // MARK: Model

    static let setupTitle = String(localized: "Model")
    static let setupBundle = String(localized: "Model bundle")
    static let setupUnits = String(localized: "Compute units")
    static let unitsHint = String(
        localized: "What Core ML may compute on. It may still choose less than it may use.")
    static let importBundle = String(localized: "Import a bundle's folder")
    static let removeBundle = String(localized: "Remove the imported bundle")
    static let importWorking = String(localized: "Importing…")
    static let taskClassify = String(localized: "classify")
    static let taskDetect = String(localized: "detect")
    static let taskSegment = String(localized: "segment")
    static func importDone(_ name: String) -> String { String(localized: "Imported as \(name).") }
    static func importFailed(_ why: String) -> String { String(localized: "The folder can't be imported: \(why)") }
    static func bundleDescription(task: String, size: String, precision: String, formats: String) -> String {
        String(localized: "\(task), \(size), \(precision): \(formats)")
    }
    static func bundleBroken(_ why: String) -> String { String(localized: "Can't be used: \(why)") }

    // MARK: Benchmark

    static let benchmarkTitle = String(localized: "Benchmark")
    static let benchmarkUnits = String(localized: "Compute units")
    static let benchmarkRuns = String(localized: "Timed runs of each")
    static let benchmarkStart = String(localized: "Start")
    static let benchmarkCancel = String(localized: "Cancel")
    static let benchmarkShare = String(localized: "Share the measurements")
    static let benchmarkProgress = String(localized: "Progress of the benchmark")
    static let benchmarkFinished = String(localized: "Finished.")
    static let benchmarkCancelled = String(localized: "Cancelled.")
    static let benchmarkLeft = String(
        localized: "Cancelled: the app left the screen, where the system slows it down. Start again and stay here.")
    static let benchmarkMemory = String(localized: "Cancelled: the device is short of memory.")
    static let benchmarkNothing = String(localized: "Choose at least one of the compute units.")
    static func benchmarkNoFormat(_ formats: String) -> String {
        String(localized: "Core ML runs no format of this bundle. It has: \(formats). Export it with --format coreml.")
    }
    static func benchmarkSubject(_ name: String) -> String {
        String(
            localized: """
                \(name). The model is first compared with the reference on the bundle's golden pictures, then timed. \
                The screen stays on; leave the device alone meanwhile.
                """)
    }
    static func benchmarkRunCount(_ count: Int) -> String {
        count == 1 ? String(localized: "1 run") : String(localized: "\(count.description) runs")
    }
    static func benchmarkTarget(format: String, units: String) -> String {
        String(localized: "\(format) on Core ML, \(units)")
    }
    static func benchmarkComparing(_ target: String, picture: String, of count: String) -> String {
        String(localized: "\(target): comparing with the reference, picture \(picture) of \(count)")
    }
    static func benchmarkTiming(_ target: String) -> String { String(localized: "\(target): timing") }
    static func benchmarkRefused(_ why: String) -> String { String(localized: "Not measured: \(why)") }

    static let parityPass = String(localized: "Parity: PASS")
    static let parityFail = String(localized: "Parity: FAIL")
    static let parityUnknown = String(localized: "Parity: not known")
    static func parityImages(_ count: Int) -> String {
        count == 1 ? String(localized: "1 golden picture") : String(localized: "\(count.description) golden pictures")
    }
    static func parityOutput(_ name: String, difference: String, snr: String) -> String {
        String(localized: "\(name): largest difference \(difference) of the range, SNR \(snr)")
    }
    static func parityAgreement(_ name: String, share: String) -> String { String(localized: "\(name): \(share)") }
    static func parityTolerance(_ bounds: String) -> String { String(localized: "Allowed: \(bounds)") }
    static func toleranceDifference(_ most: String) -> String { String(localized: "difference up to \(most)") }
    static func toleranceSnr(_ least: String) -> String { String(localized: "SNR of \(least) and more") }
    static func toleranceAgreement(_ least: String) -> String { String(localized: "agreement of \(least) and more") }
    static let snrEqual = String(localized: "infinite (equal)")

    static let tablePhase = String(localized: "phase")
    static let tableSamples = String(localized: "samples")
    static let tableMin = String(localized: "min")
    static let tableMedian = String(localized: "median")
    static let tableP90 = String(localized: "p90")
    static let tableP99 = String(localized: "p99")
    static let tableSpread = String(localized: "spread")
    static let phaseLoad = String(localized: "load")
    static let phaseFirstRun = String(localized: "first run")
    static let phasePreprocess = String(localized: "preprocess")
    static let phaseInference = String(localized: "inference")
    static let phasePostprocess = String(localized: "postprocess")
    static func noise(_ why: String) -> String { String(localized: "Too noisy to tell: \(why)") }
    static let noiseNone = String(localized: "The times are steady enough.")
    static func thermal(_ state: String) -> String { String(localized: "Thermal state: \(state)") }
    static let thermalUnknown = String(localized: "Thermal state: this device does not say")

    // MARK: Headless

    static let headlessTitle = String(localized: "Headless benchmark")
    static func headlessRunning(_ target: String) -> String { String(localized: "Benchmark running: \(target)") }
}
