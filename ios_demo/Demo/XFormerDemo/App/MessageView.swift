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

/// Picture above, results below; side by side where the screen is low. The results get what they need up to a limit,
/// and half of the screen where letters are very large; the picture gets the rest.
struct ResultLayout<Picture: View, Panel: View>: View {
    @ViewBuilder let picture: Picture
    @ViewBuilder let panel: Panel

    @Environment(\.verticalSizeClass) private var verticalSizeClass
    @Environment(\.dynamicTypeSize) private var dynamicTypeSize

    var body: some View {
        let isLow = verticalSizeClass == .compact
        let layout = isLow ? AnyLayout(HStackLayout(spacing: 0)) : AnyLayout(VStackLayout(spacing: 0))
        let hasLargeLetters = dynamicTypeSize.isAccessibilitySize
        layout {
            // No layout priority: the picture, which takes all it can get, would leave the list no height at all.
            picture
                .frame(maxWidth: .infinity, maxHeight: .infinity)
            panel
                .frame(
                    maxWidth: isLow && !hasLargeLetters ? 360 : .infinity,
                    maxHeight: isLow || hasLargeLetters ? .infinity : 280)
        }
    }
}
