import Combine
import XFormerCore

/// A frame's result, ready to be drawn.
struct LiveResult: Sendable {
    let drawing: Drawing

    /// How long the engine took.
    let inferenceNs: Int
}

/// What the camera's screen shows. Camera and model work while the screen is shown, the app is in front, the camera may
/// be used and the model can be opened; else it says in words what is missing.
@MainActor
final class LiveState: ObservableObject {
    /// The result of the last frame.
    @Published private(set) var result: LiveResult?

    /// The engine, and its speed.
    @Published private(set) var figures = ""

    /// A warning about the model's weights.
    @Published private(set) var banner: String?

    /// What is said in place of results; nil where nothing is missing.
    @Published private(set) var message: Message?

    /// A warning that the device is hot.
    @Published private(set) var heatNotice: String?

    /// Whether there is another camera.
    @Published private(set) var hasOtherCamera = false

    /// The camera that is shown.
    @Published private(set) var side = CameraSide.back

    private let camera: any CameraSource
    private let models: ModelSlot
    private let choice: @MainActor () -> Choice
    private let problem: @MainActor (any Error) -> String
    private let clock: any BenchmarkClock
    private let gate: FrameGate
    private var meter = FrameMeter()
    private var isOnScreen = false
    private var isInFront = true
    private var isRunning = false
    private var session = 0
    private var cameraProblem: CameraProblem?
    private var modelProblem: Message?

    /// The state of a screen that is not shown yet.
    ///
    /// `choice` is what the user has chosen to run, `problem` says in words why a model could not be opened.
    init(
        camera: any CameraSource, models: ModelSlot, choice: @escaping @MainActor () -> Choice,
        problem: @escaping @MainActor (any Error) -> String, clock: any BenchmarkClock = SystemClock()
    ) {
        self.camera = camera
        self.models = models
        self.choice = choice
        self.problem = problem
        self.clock = clock
        gate = FrameGate(clock: clock)
        models.onChange = { [weak self] state in self?.show(state) }
    }

    // MARK: What happens to the screen

    /// The screen is shown.
    func appear() {
        isOnScreen = true
        update()
    }

    /// Another screen covers this one: camera and model are released.
    func disappear() {
        isOnScreen = false
        update()
    }

    /// The app is in front of the user, or no longer: in the background there is no camera and no GPU.
    func setInFront(_ isInFront: Bool) {
        self.isInFront = isInFront
        update()
    }

    /// The system is short of memory: the model is closed, until the user asks for it again.
    func memoryWarning() {
        guard isRunning else { return }
        modelProblem = Message(text: Words.memoryFull, remedy: .tryAgain)
        models.want(nil)
        showMessage()
    }

    /// The device has become hotter or cooler.
    func setHeat(_ heat: ThermalState) {
        gate.setHeat(heat)
        switch heat {
        case .nominal, .fair: heatNotice = nil
        case .serious: heatNotice = Words.heatSerious
        case .critical:
            heatNotice = Words.heatCritical
            clearResult()
        }
    }

    // MARK: What the user does

    /// Show the other camera.
    func switchCamera() {
        side = side == .back ? .front : .back
        restartCamera()
    }

    /// Ask the user for the camera, and show it where the answer is yes.
    func askForCamera() async {
        await camera.ask()
        restartCamera()
    }

    /// Try again what did not work.
    func tryAgain() {
        modelProblem = nil
        if cameraProblem != nil { restartCamera() }
        update()
        showMessage()
    }

    // MARK: The camera

    private func update() {
        let isWanted = isOnScreen && isInFront
        if isWanted != isRunning {
            isRunning = isWanted
            modelProblem = nil
            if isWanted { startCamera() } else { stopCamera() }
        }
        models.want(isWanted && modelProblem == nil ? choice() : nil)
    }

    private func restartCamera() {
        guard isRunning else { return }
        stopCamera()
        startCamera()
    }

    private func startCamera() {
        cameraProblem = cannotStart()
        if cameraProblem == nil {
            session += 1
            camera.start(side) { [weak self, gate, session] event in
                if case .frame(let frame) = event {
                    gate.offer(frame)
                } else {
                    Task { @MainActor in self?.handle(event, of: session) }
                }
            }
        }
        showMessage()
    }

    private func cannotStart() -> CameraProblem? {
        switch camera.permission() {
        case .notAsked: return .notAsked
        case .refused: return .refused
        case .restricted: return .restricted
        case .allowed:
            let sides = camera.sides()
            hasOtherCamera = sides.count > 1
            guard let first = sides.first else { return .noCamera }
            if !sides.contains(side) { side = first }
            return nil
        }
    }

    private func stopCamera() {
        session += 1
        camera.stop()
        clearResult()
    }

    private func handle(_ event: CameraEvent, of session: Int) {
        // What an older session tells is no news.
        guard session == self.session else { return }
        switch event {
        case .frame: return
        case .resumed: cameraProblem = nil
        case .problem(let problem):
            cameraProblem = problem
            clearResult()
        }
        showMessage()
    }

    // MARK: The model

    private func show(_ state: ModelSlot.State) {
        gate.open(to: nil)
        clearResult()
        banner = nil
        figures = ""
        switch state {
        case .empty: break
        case .opening:
            modelProblem = nil
            figures = Words.modelOpening
        case .failed(_, let error):
            modelProblem = Message(text: problem(error), remedy: .openSetup)
        case .ready(_, let model):
            banner = Banner.text(for: model.weights)
            figures = EngineText.describe(model.report)
            gate.open(
                to: Analyzer(analyze: { try await Self.analyze($0, by: model) }) { [weak self] result in
                    self?.deliver(result, of: model)
                })
        }
        showMessage()
    }

    /// From a frame to what is drawn over it; not on the main actor.
    private nonisolated static func analyze(_ frame: LiveFrame, by model: any DemoModel) async throws -> LiveResult {
        let source = frame.uprightSize
        // Smoothed when it is drawn: a class map as fine as the frame would take longer than the model.
        let mapSize = PixelSize(width: (source.width + 1) / 2, height: (source.height + 1) / 2)
        let timed = try await model.predict(frame, mapSize: mapSize)
        let drawing = try Drawing(
            source: source, isMirrored: frame.geometry.isFront, prediction: timed.prediction, palette: model.palette)
        return LiveResult(drawing: drawing, inferenceNs: timed.inferenceNs)
    }

    private func deliver(_ found: Result<LiveResult, any Error>, of model: any DemoModel) {
        guard isRunning, cameraProblem == nil, heatNotice != Words.heatCritical else { return }
        let engine = EngineText.describe(model.report)
        switch found {
        case .success(let result):
            self.result = result
            meter.add(finishedNs: clock.nanoseconds(), inferenceNs: result.inferenceNs)
            if let rate = meter.framesPerSecond, let median = meter.medianInferenceNs {
                figures = Words.liveFigures(
                    engine, rate: Figures.rate(rate), inference: Figures.milliseconds(median))
            }
        case .failure(let error):
            clearResult()
            figures = Words.somethingFailed(error.localizedDescription)
        }
    }

    private func clearResult() {
        result = nil
        meter.reset()
    }

    private func showMessage() {
        let next = cameraProblem.map { Message(text: $0.text, remedy: $0.remedy) } ?? modelProblem
        if next != message { message = next }
    }
}
