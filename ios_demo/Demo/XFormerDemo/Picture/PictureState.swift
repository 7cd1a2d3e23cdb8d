import Combine
import Foundation
import XFormerCore
import XFormerCoreML

/// What the picture's screen shows.
@MainActor
final class PictureState: ObservableObject {
    /// What became of the picture that was chosen last.
    enum Phase {
        /// None is chosen.
        case empty

        /// It is being read and looked at.
        case working

        /// The text says why there is no result.
        case failed(String)

        /// It was looked at.
        case shown(Shown)
    }

    /// A picture and what was found in it.
    struct Shown: Sendable {
        let picture: Picture
        let drawing: Drawing
        let banner: String?
        let figures: String
    }

    /// Pictures of more pixels are read at a half, a quarter, ... of their size.
    static nonisolated let mostPixels = 32_000_000

    /// What became of the picture.
    @Published private(set) var phase = Phase.empty

    private let models: ModelSlot
    private let choice: @MainActor () -> Choice
    private let problem: @MainActor (any Error) -> String
    private let decode: @Sendable (Data) async throws -> Picture
    private var work: Task<Void, Never>?

    /// The state of a screen without a picture.
    ///
    /// `choice` is what the user has chosen to run, `problem` says in words why a model could not be opened, `decode`
    /// reads a picture's file.
    init(
        models: ModelSlot, choice: @escaping @MainActor () -> Choice,
        problem: @escaping @MainActor (any Error) -> String,
        decode: @escaping @Sendable (Data) async throws -> Picture
    ) {
        self.models = models
        self.choice = choice
        self.problem = problem
        self.decode = decode
    }

    /// Look at a picture instead of the one before. `load` reads its file; nil where there is none.
    func look(load: @escaping @Sendable () async throws -> Data?) {
        work?.cancel()
        phase = .working
        work = Task {
            let next = await looked(load)
            // Else another picture was chosen meanwhile.
            if !Task.isCancelled { phase = next }
            if !Task.isCancelled { models.want(nil) }
        }
    }

    /// The screen is left, the app goes to the background, or the system is short of memory: stop, and free the model.
    /// A result stays; of a picture that was still looked at, `why` is said.
    func stop(_ why: String) {
        work?.cancel()
        models.want(nil)
        if case .working = phase { phase = .failed(why) }
    }

    /// Waits until the picture that was chosen last was looked at.
    func settled() async {
        await work?.value
    }

    private func looked(_ load: @Sendable () async throws -> Data?) async -> Phase {
        let picture: Picture
        do {
            guard let data = try await load() else { return .failed(Words.pictureFailed(Words.pictureUnreadable)) }
            picture = try await decode(data)
        } catch {
            return .failed(Words.pictureFailed(error.localizedDescription))
        }
        models.want(choice())
        await models.settled()
        switch models.state {
        case .failed(_, let error): return .failed(problem(error))
        case .empty, .opening: return .empty
        case .ready(_, let model):
            do {
                return .shown(try await Self.shown(picture, by: model))
            } catch {
                return .failed(Words.pictureFailed(error.localizedDescription))
            }
        }
    }

    /// Not on the main actor.
    private nonisolated static func shown(_ picture: Picture, by model: any DemoModel) async throws -> Shown {
        let timed = try await model.predict(picture, mapSize: mapSize(of: picture.size))
        let drawing = try Drawing(
            source: picture.size, isMirrored: false, prediction: timed.prediction, palette: model.palette)
        return Shown(
            picture: picture, drawing: drawing, banner: Banner.text(for: model.weights),
            figures: Words.pictureFigures(
                EngineText.describe(model.report),
                size: Figures.size(width: picture.size.width, height: picture.size.height),
                inference: Figures.milliseconds(Double(timed.inferenceNs))))
    }

    /// The picture's shape, as large as it is drawn.
    nonisolated static func mapSize(of picture: PixelSize) -> PixelSize {
        let longer = max(picture.width, picture.height)
        let side = min(longer, ColoredMap.mostSide)
        return PixelSize(
            width: max(1, picture.width * side / longer), height: max(1, picture.height * side / longer))
    }
}
