import PhotosUI
import SwiftUI
import UIKit
import UniformTypeIdentifiers
import XFormerCoreML

/// A picture of the user's, with what the model finds in it.
struct PictureScreen: View {
    @StateObject private var state: PictureState

    @Environment(\.scenePhase) private var scenePhase
    @State private var photo: PhotosPickerItem?
    @State private var isChoosingFile = false

    /// A screen with a state of its own, which is made when the screen is shown first.
    init(state: @autoclosure @escaping () -> PictureState) {
        _state = StateObject(wrappedValue: state())
    }

    var body: some View {
        ResultLayout {
            stage
        } panel: {
            VStack(spacing: 0) {
                panel
                actions
            }
        }
        .navigationTitle(Text(verbatim: Words.pictureTitle))
        .navigationBarTitleDisplayMode(.inline)
        .onChange(of: photo) { chosen in
            guard let chosen else { return }
            // So that the same photo, when it is chosen once more, is a change.
            photo = nil
            state.look { try await chosen.loadTransferable(type: Data.self) }
        }
        .fileImporter(isPresented: $isChoosingFile, allowedContentTypes: [.image]) { picked in
            state.look { try Self.read(picked) }
        }
        .onDisappear { state.stop(Words.pictureLeft) }
        .onChange(of: scenePhase) { phase in
            // In the background there is no GPU.
            if phase == .background { state.stop(Words.pictureLeft) }
        }
        .onReceive(
            NotificationCenter.default.publisher(for: UIApplication.didReceiveMemoryWarningNotification)
        ) { _ in
            state.stop(Words.pictureMemory)
        }
    }

    @ViewBuilder private var stage: some View {
        switch state.phase {
        case .empty: saying(Words.pictureNone)
        case .working:
            ProgressView {
                Text(verbatim: Words.pictureWorking)
            }
        case .failed(let why): saying(why)
        case .shown(let shown):
            ZStack {
                Color.black
                Image(decorative: shown.picture.image, scale: 1, orientation: shown.picture.shownOrientation)
                    .resizable()
                    .scaledToFit()
                OverlayView(drawing: shown.drawing, mode: .fit)
            }
            .clipped()
            .accessibilityElement(children: .ignore)
            .accessibilityLabel(Text(verbatim: Words.chosenPicture))
            .accessibilityValue(Text(verbatim: ResultText.sentence(for: shown.drawing.prediction)))
        }
    }

    @ViewBuilder private var panel: some View {
        if case .shown(let shown) = state.phase {
            ResultPanel(drawing: shown.drawing, figures: shown.figures, notices: [shown.banner].compactMap { $0 })
        } else {
            Spacer(minLength: 0)
        }
    }

    private var actions: some View {
        ViewThatFits(in: .horizontal) {
            HStack { buttons }
            VStack { buttons }
        }
        .buttonStyle(.bordered)
        .padding()
    }

    @ViewBuilder private var buttons: some View {
        PhotosPicker(selection: $photo, matching: .images) {
            Text(verbatim: Words.choosePhoto)
        }
        Button(Words.chooseFile) { isChoosingFile = true }
    }

    private func saying(_ text: String) -> some View {
        ScrollView {
            Text(verbatim: text)
                .multilineTextAlignment(.center)
                .padding()
                .frame(maxWidth: .infinity)
        }
    }

    private nonisolated static func read(_ picked: Result<URL, any Error>) throws -> Data {
        let file = try picked.get()
        // Outside the app's own folders, files can be read between these two calls only.
        let isScoped = file.startAccessingSecurityScopedResource()
        defer { if isScoped { file.stopAccessingSecurityScopedResource() } }
        return try Data(contentsOf: file)
    }
}

extension Picture {
    fileprivate var shownOrientation: Image.Orientation {
        switch orientation {
        case .up: .up
        case .upMirrored: .upMirrored
        case .down: .down
        case .downMirrored: .downMirrored
        case .left: .left
        case .leftMirrored: .leftMirrored
        case .right: .right
        case .rightMirrored: .rightMirrored
        }
    }
}
