import SwiftUI
import UIKit
import XFormerCore
import XFormerCoreML

/// Parity and latency of a bundle on this device.
struct BenchmarkScreen: View {
    @StateObject private var state: BenchmarkState

    @Environment(\.scenePhase) private var scenePhase

    /// A screen with a state of its own, which is made when the screen is shown first.
    init(state: @autoclosure @escaping () -> BenchmarkState) {
        _state = StateObject(wrappedValue: state())
    }

    var body: some View {
        Form {
            Section {
                subject
            }
            Section {
                ForEach(ComputeUnits.allCases, id: \.self) { units in
                    ChoiceRow(
                        title: EngineText.name(of: units), details: nil, isChosen: state.units.contains(units)
                    ) {
                        state.toggle(units)
                    }
                }
            } header: {
                Text(verbatim: Words.benchmarkUnits)
            }
            .disabled(state.isRunning)
            Section {
                Picker(Words.benchmarkRuns, selection: $state.runs) {
                    ForEach(BenchmarkState.runCounts, id: \.self) { count in
                        Text(verbatim: Words.benchmarkRunCount(count)).tag(count)
                    }
                }
                .disabled(state.isRunning)
                progress
                if state.isRunning {
                    Button(Words.benchmarkCancel) { state.cancel() }
                } else {
                    Button(Words.benchmarkStart, action: state.start)
                        .disabled(!state.canStart)
                }
                if let file = state.file {
                    ShareLink(Words.benchmarkShare, item: file)
                }
            }
            if case .done(let report) = state.phase {
                ForEach(report.outcomes, id: \.target) { outcome in
                    OutcomeSection(outcome: outcome)
                }
            }
        }
        .navigationTitle(Text(verbatim: Words.benchmarkTitle))
        .task { await state.appear() }
        .onDisappear {
            state.cancel(Words.benchmarkLeft)
            // A screen that is gone is not told that the run has ended.
            UIApplication.shared.isIdleTimerDisabled = false
        }
        .onChange(of: scenePhase) { phase in
            // In the background the system slows the app down: what is measured there means nothing.
            if phase == .background { state.cancel(Words.benchmarkLeft) }
        }
        .onReceive(
            NotificationCenter.default.publisher(for: UIApplication.didReceiveMemoryWarningNotification)
        ) { _ in
            state.cancel(Words.benchmarkMemory)
        }
        .onChange(of: state.isRunning) { isRunning in
            UIApplication.shared.isIdleTimerDisabled = isRunning
        }
    }

    @ViewBuilder private var subject: some View {
        switch state.subject {
        case .opening: Text(verbatim: Words.modelOpening)
        case .none(let why): Text(verbatim: why)
        case .ready(let name, _): Text(verbatim: Words.benchmarkSubject(name))
        }
    }

    @ViewBuilder private var progress: some View {
        switch state.phase {
        case .idle: EmptyView()
        case .running(let step, let share):
            ProgressView(value: share) {
                Text(verbatim: step.map(OutcomeText.describe) ?? Words.benchmarkProgress)
            }
        case .done: Text(verbatim: Words.benchmarkFinished)
        case .stopped(let why): Text(verbatim: why)
        }
    }
}

/// What became of one target.
private struct OutcomeSection: View {
    let outcome: BenchmarkOutcome

    var body: some View {
        Section {
            Text(verbatim: OutcomeText.verdict(of: outcome))
                .font(.headline)
                .foregroundColor(color)
            ForEach(Array(OutcomeText.details(of: outcome).enumerated()), id: \.offset) { _, line in
                Text(verbatim: line)
                    .font(.callout)
            }
            TimeTable(lines: OutcomeText.table(of: outcome))
            ForEach(Array(OutcomeText.notes(of: outcome).enumerated()), id: \.offset) { _, line in
                Text(verbatim: line)
                    .font(.callout)
            }
        } header: {
            Text(verbatim: OutcomeText.title(of: outcome.target))
        }
    }

    private var color: Color {
        switch outcome.parity?.passed {
        case .some(true): Color("Good")
        case .some(false): Color("Bad")
        case nil: .primary
        }
    }
}

/// The times of a target; scrolls sideways where letters are large. VoiceOver reads a row at its first cell: a modifier
/// of a whole `GridRow` goes to each of its cells.
private struct TimeTable: View {
    let lines: [[String]]

    var body: some View {
        ScrollView(.horizontal) {
            Grid(alignment: .trailing, horizontalSpacing: 12, verticalSpacing: 4) {
                ForEach(Array(lines.enumerated()), id: \.offset) { number, cells in
                    GridRow {
                        ForEach(Array(cells.enumerated()), id: \.offset) { column, cell in
                            Text(verbatim: cell)
                                .font(number == 0 ? .caption.bold() : .caption)
                                .monospacedDigit()
                                .gridColumnAlignment(column == 0 ? .leading : .trailing)
                                .accessibilityLabel(Text(verbatim: OutcomeText.sentence(for: cells, under: lines[0])))
                                .accessibilityHidden(number == 0 || column > 0)
                        }
                    }
                }
            }
        }
    }
}
