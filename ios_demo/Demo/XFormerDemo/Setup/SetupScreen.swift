import SwiftUI
import UniformTypeIdentifiers
import XFormerCoreML

/// The bundle, and what Core ML may compute on.
struct SetupScreen: View {
    @StateObject private var state: SetupState

    @State private var isImporting = false

    /// A screen with a state of its own, which is made when the screen is shown first.
    init(state: @autoclosure @escaping () -> SetupState) {
        _state = StateObject(wrappedValue: state())
    }

    var body: some View {
        Form {
            Section {
                if state.rows?.isEmpty == true {
                    Text(verbatim: Words.noBundle)
                }
                ForEach(state.rows ?? []) { row in
                    ChoiceRow(title: row.bundle.name, details: row.details, isChosen: row.isChosen) {
                        state.choose(row.bundle)
                    }
                }
                Button(Words.importBundle) { isImporting = true }
                    .disabled(state.isImporting)
                if state.chosen?.isImported == true {
                    Button(Words.removeBundle, role: .destructive) { state.removeChosen() }
                }
                if let notice = state.notice {
                    Text(verbatim: notice)
                        .font(.callout)
                }
            } header: {
                Text(verbatim: Words.setupBundle)
            }
            Section {
                ForEach(ComputeUnits.allCases, id: \.self) { units in
                    ChoiceRow(title: EngineText.name(of: units), details: nil, isChosen: units == state.choice.units) {
                        state.choose(units)
                    }
                }
            } header: {
                Text(verbatim: Words.setupUnits)
            } footer: {
                Text(verbatim: Words.unitsHint)
            }
        }
        .navigationTitle(Text(verbatim: Words.setupTitle))
        .fileImporter(isPresented: $isImporting, allowedContentTypes: [.folder]) { picked in
            state.importBundle(picked)
        }
        .onAppear(perform: state.refresh)
    }
}

/// One of several things that can be chosen.
struct ChoiceRow: View {
    let title: String
    let details: String?
    let isChosen: Bool
    let choose: @MainActor () -> Void

    var body: some View {
        Button(action: choose) {
            HStack {
                VStack(alignment: .leading) {
                    Text(verbatim: title)
                    if let details {
                        Text(verbatim: details)
                            .font(.callout)
                            .foregroundColor(.secondary)
                    }
                }
                Spacer()
                if isChosen {
                    // Said by the trait.
                    Image(systemName: "checkmark")
                        .accessibilityHidden(true)
                }
            }
        }
        .foregroundColor(.primary)
        .accessibilityAddTraits(isChosen ? .isSelected : [])
    }
}
