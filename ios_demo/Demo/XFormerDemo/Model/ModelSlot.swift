/// Holds at most one open model, the one that was wanted last. Models are opened and closed one after the other, never
/// two at a time: each takes much memory.
@MainActor
final class ModelSlot {
    /// What became of a wish.
    enum State: Sendable {
        /// No model, and none is wanted.
        case empty

        /// The model of the choice is being opened.
        case opening(Choice)

        /// The model is open and belongs to the slot, which closes it.
        case ready(Choice, any DemoModel)

        /// The model of the choice could not be opened.
        case failed(Choice, any Error)

        /// The open model.
        var model: (any DemoModel)? {
            if case .ready(_, let model) = self { model } else { nil }
        }
    }

    /// What became of the choice that was wanted last: from ``want(_:)`` on, nothing is told of an older one.
    private(set) var state = State.empty {
        didSet { onChange(state) }
    }

    /// Is told of each new state.
    var onChange: @MainActor (State) -> Void = { _ in }

    private let opener: @Sendable (Choice) async throws -> any DemoModel
    private var wanted: Choice?
    private var held: (choice: Choice, model: any DemoModel)?
    private var worker: Task<Void, Never>?

    /// A slot that opens models by `open`, which takes seconds and must not block the main actor.
    init(open: @escaping @Sendable (Choice) async throws -> any DemoModel) {
        opener = open
    }

    /// Have the model of `choice`, or none; does nothing where that is already so or under way. Never waits.
    func want(_ choice: Choice?) {
        if choice == wanted, !isFailed { return }
        wanted = choice
        // Before this returns: who wants a model and looks shall not find what became of an older wish.
        state = choice.map(State.opening) ?? .empty
        if worker == nil {
            worker = Task {
                await exchange()
                worker = nil
            }
        }
    }

    /// Waits until nothing is being opened or closed.
    func settled() async {
        await worker?.value
    }

    private var isFailed: Bool {
        if case .failed = state { true } else { false }
    }

    /// Makes so what is wanted; while a model is opened or closed, another wish may come.
    private func exchange() async {
        while true {
            if let old = held, old.choice != wanted {
                held = nil
                await old.model.close()
            } else if let choice = wanted, case .opening = state {
                if let held {
                    // Wanted, given up and wanted again while it was being opened.
                    state = .ready(choice, held.model)
                } else {
                    await open(choice)
                }
            } else {
                return
            }
        }
    }

    private func open(_ choice: Choice) async {
        do {
            let model = try await opener(choice)
            held = (choice, model)
            // One that is not wanted any more is closed by what comes next.
            if choice == wanted { state = .ready(choice, model) }
        } catch {
            if choice == wanted { state = .failed(choice, error) }
        }
    }
}
