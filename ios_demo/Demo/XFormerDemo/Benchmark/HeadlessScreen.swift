import Foundation
import SwiftUI
import UIKit

/// A benchmark for device farms and scripts. It must stay on the screen, for only there it gets the fast processors.
struct HeadlessScreen: View {
    @ObservedObject var state: HeadlessState

    @Environment(\.scenePhase) private var scenePhase

    var body: some View {
        ScrollView {
            Text(verbatim: state.text)
                .padding()
        }
        .navigationTitle(Text(verbatim: Words.headlessTitle))
        .onAppear {
            UIApplication.shared.isIdleTimerDisabled = true
            state.start()
        }
        .onChange(of: state.exitCode) { code in
            if let code { exit(code) }
        }
        .onChange(of: scenePhase) { phase in
            if phase == .background { state.cancel() }
        }
        .onReceive(
            NotificationCenter.default.publisher(for: UIApplication.didReceiveMemoryWarningNotification)
        ) { _ in
            state.cancel()
        }
    }
}
