import SwiftUI

/// The demo: live camera, pictures, and a benchmark; or the benchmark alone, where the launch arguments ask for it.
@main
struct XFormerDemoApp: App {
    @StateObject private var demo = Demo()

    var body: some Scene {
        WindowGroup {
            NavigationStack(path: $demo.path) {
                root
                    .navigationDestination(for: Screen.self) { screen in
                        switch screen {
                        case .picture: PictureScreen(state: demo.makePicture())
                        case .setup: SetupScreen(state: demo.makeSetup())
                        case .benchmark: BenchmarkScreen(state: demo.makeBenchmark())
                        }
                    }
            }
        }
    }

    @ViewBuilder private var root: some View {
        if demo.isIdle {
            Color.black
        } else if let headless = demo.headless {
            HeadlessScreen(state: headless)
        } else {
            LiveScreen(state: demo.live, camera: demo.camera) { demo.path.append($0) }
        }
    }
}
