import SwiftUI
import UIKit
import XFormerCore

/// The live picture of a camera, with what the model finds in it.
struct LiveScreen: View {
    @ObservedObject var state: LiveState
    let camera: CameraSession
    let open: @MainActor (Screen) -> Void

    @Environment(\.openURL) private var openURL
    @Environment(\.scenePhase) private var scenePhase
    @State private var throttle = AnnouncementThrottle(quietNs: 3_000_000_000)

    var body: some View {
        ResultLayout {
            stage
        } panel: {
            VStack(spacing: 0) {
                ResultPanel(
                    drawing: state.result?.drawing, figures: state.figures,
                    notices: [state.heatNotice, state.banner].compactMap { $0 })
                actions
            }
        }
        .navigationTitle(Text(verbatim: Words.appName))
        .navigationBarTitleDisplayMode(.inline)
        .onAppear {
            state.setHeat(ThermalState(ProcessInfo.processInfo.thermalState))
            state.appear()
        }
        .onDisappear(perform: state.disappear)
        .onChange(of: scenePhase) { phase in state.setInFront(phase != .background) }
        .onReceive(
            NotificationCenter.default.publisher(for: UIApplication.didReceiveMemoryWarningNotification)
        ) { _ in
            state.memoryWarning()
        }
        .onReceive(
            NotificationCenter.default.publisher(for: ProcessInfo.thermalStateDidChangeNotification)
                .receive(on: RunLoop.main)
        ) { _ in
            state.setHeat(ThermalState(ProcessInfo.processInfo.thermalState))
        }
        .onReceive(state.$result) { result in
            if let result { announce(result) }
        }
    }

    private var stage: some View {
        ZStack {
            Color.black
            CameraPreview(camera: camera, side: state.side)
            if let result = state.result {
                OverlayView(drawing: result.drawing, mode: .fill)
            }
            if let message = state.message {
                MessageView(message: message, act: act)
            }
        }
        .clipped()
        .accessibilityElement(children: state.message == nil ? .ignore : .contain)
        .accessibilityLabel(Text(verbatim: Words.cameraPicture))
        .accessibilityValue(Text(verbatim: state.result.map { ResultText.sentence(for: $0.drawing.prediction) } ?? ""))
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
        Button(Words.openPicture) { open(.picture) }
        Button(Words.openSetup) { open(.setup) }
        Button(Words.openBenchmark) { open(.benchmark) }
        if state.hasOtherCamera {
            Button(action: state.switchCamera) {
                Image(systemName: "arrow.triangle.2.circlepath.camera")
            }
            .accessibilityLabel(Text(verbatim: Words.switchCamera))
        }
    }

    private func act(_ remedy: Remedy) {
        switch remedy {
        case .allowCamera: Task { await state.askForCamera() }
        case .openSettings:
            if let settings = URL(string: UIApplication.openSettingsURLString) { openURL(settings) }
        case .openPicture: open(.picture)
        case .openSetup: open(.setup)
        case .tryAgain: state.tryAgain()
        }
    }

    private func announce(_ result: LiveResult) {
        guard UIAccessibility.isVoiceOverRunning else { return }
        let sentence = ResultText.sentence(for: result.drawing.prediction)
        let now = Int(clamping: DispatchTime.now().uptimeNanoseconds)
        if let text = throttle.next(sentence, at: now) {
            UIAccessibility.post(notification: .announcement, argument: text)
        }
    }
}

extension ThermalState {
    /// What the system says. A state that is newer than this app is taken for the worst.
    fileprivate init(_ state: ProcessInfo.ThermalState) {
        switch state {
        case .nominal: self = .nominal
        case .fair: self = .fair
        case .serious: self = .serious
        case .critical: self = .critical
        @unknown default: self = .critical
        }
    }
}
