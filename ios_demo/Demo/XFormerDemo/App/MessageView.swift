import SwiftUI

/// What is said in place of a picture, and what can be done about it.
struct MessageView: View {
    let message: Message
    let act: @MainActor (Remedy) -> Void

    var body: some View {
        ScrollView {
            VStack(spacing: 16) {
                Text(verbatim: message.text)
                    .multilineTextAlignment(.center)
                Button(message.remedy.title) { act(message.remedy) }
                    .buttonStyle(.borderedProminent)
            }
            .padding()
            .frame(maxWidth: .infinity)
        }
        .background(Color(.systemBackground))
    }
}

/// Picture above, results below; side by side where the screen is low.
struct ResultLayout<Picture: View, Panel: View>: View {
    @ViewBuilder let picture: Picture
    @ViewBuilder let panel: Panel

    @Environment(\.verticalSizeClass) private var verticalSizeClass

    var body: some View {
        let isLow = verticalSizeClass == .compact
        let layout = isLow ? AnyLayout(HStackLayout(spacing: 0)) : AnyLayout(VStackLayout(spacing: 0))
        layout {
            picture
                .frame(maxWidth: .infinity, maxHeight: .infinity)
                .layoutPriority(1)
            panel
                .frame(maxWidth: isLow ? 360 : .infinity, maxHeight: isLow ? .infinity : 280)
        }
    }
}
