import UIKit

extension View {
    public nonisolated func frame(
        width: CGFloat? = nil, height: CGFloat? = nil, alignment: Alignment = .center
    ) -> some View { self }

    public nonisolated func frame(
        minWidth: CGFloat? = nil, idealWidth: CGFloat? = nil, maxWidth: CGFloat? = nil, minHeight: CGFloat? = nil,
        idealHeight: CGFloat? = nil, maxHeight: CGFloat? = nil, alignment: Alignment = .center
    ) -> some View { self }

    public nonisolated func padding(_ edges: Edge.Set = .all, _ length: CGFloat? = nil) -> some View { self }

    public nonisolated func padding(_ length: CGFloat) -> some View { self }

    public nonisolated func scaledToFit() -> some View { self }

    public nonisolated func clipped(antialiased: Bool = false) -> some View { self }

    public nonisolated func cornerRadius(_ radius: CGFloat, antialiased: Bool = true) -> some View { self }

    public nonisolated func background<S: ShapeStyle>(_ style: S) -> some View { self }

    public nonisolated func foregroundColor(_ color: Color?) -> some View { self }

    public nonisolated func font(_ font: Font?) -> some View { self }

    public nonisolated func monospacedDigit() -> some View { self }

    public nonisolated func multilineTextAlignment(_ alignment: TextAlignment) -> some View { self }

    public nonisolated func gridColumnAlignment(_ guide: HorizontalAlignment) -> some View { self }

    public nonisolated func tag<V: Hashable>(_ tag: V) -> some View { self }

    public nonisolated func disabled(_ disabled: Bool) -> some View { self }

    public nonisolated func allowsHitTesting(_ enabled: Bool) -> some View { self }

    public nonisolated func buttonStyle<S: PrimitiveButtonStyle>(_ style: S) -> some View { self }

    public nonisolated func navigationTitle(_ title: Text) -> some View { self }

    public nonisolated func navigationBarTitleDisplayMode(
        _ displayMode: NavigationBarItem.TitleDisplayMode
    ) -> some View { self }

    public nonisolated func navigationDestination<D: Hashable, C: View>(
        for data: D.Type, @ViewBuilder destination: @escaping (D) -> C
    ) -> some View { self }

    public nonisolated func fileImporter(
        isPresented: Binding<Bool>, allowedContentTypes: [UTType],
        onCompletion: @escaping (_ result: Result<URL, any Error>) -> Void
    ) -> some View { self }

    public nonisolated func onAppear(perform action: (() -> Void)? = nil) -> some View { self }

    public nonisolated func onDisappear(perform action: (() -> Void)? = nil) -> some View { self }

    @available(iOS, deprecated: 17.0)
    public nonisolated func onChange<V: Equatable>(of value: V, perform action: @escaping (_ newValue: V) -> Void)
        -> some View
    { self }

    public nonisolated func onReceive<P: Publisher>(
        _ publisher: P, perform action: @escaping (P.Output) -> Void
    ) -> some View where P.Failure == Never { self }

    public nonisolated func task(
        priority: TaskPriority = .userInitiated, @_inheritActorContext _ action: @escaping @Sendable () async -> Void
    ) -> some View { self }
}

// MARK: Accessibility

public struct AccessibilityChildBehavior: Hashable, Sendable {
    let name: String

    public static let ignore = AccessibilityChildBehavior(name: "ignore")
    public static let contain = AccessibilityChildBehavior(name: "contain")
    public static let combine = AccessibilityChildBehavior(name: "combine")
}

public struct AccessibilityTraits: SetAlgebra, OptionSet, Sendable {
    public let rawValue: Int

    public init(rawValue: Int) { self.rawValue = rawValue }

    public static let isSelected = AccessibilityTraits(rawValue: 1)
}

extension View {
    public nonisolated func accessibilityElement(children: AccessibilityChildBehavior = .ignore) -> some View { self }

    public nonisolated func accessibilityLabel(_ label: Text) -> some View { self }

    public nonisolated func accessibilityValue(_ value: Text) -> some View { self }

    public nonisolated func accessibilityHidden(_ hidden: Bool) -> some View { self }

    public nonisolated func accessibilityAddTraits(_ traits: AccessibilityTraits) -> some View { self }
}

// MARK: Styles

public protocol PrimitiveButtonStyle {}

public struct BorderedButtonStyle: PrimitiveButtonStyle {}

public struct BorderedProminentButtonStyle: PrimitiveButtonStyle {}

extension PrimitiveButtonStyle where Self == BorderedButtonStyle {
    public static var bordered: BorderedButtonStyle { BorderedButtonStyle() }
}

extension PrimitiveButtonStyle where Self == BorderedProminentButtonStyle {
    public static var borderedProminent: BorderedProminentButtonStyle { BorderedProminentButtonStyle() }
}

public struct NavigationBarItem: Sendable {
    public enum TitleDisplayMode: Sendable {
        case automatic
        case inline
        case large
    }
}

extension Color {
    public init(_ color: UIColor) { self.init("") }
}
