@_exported import Combine
@_exported import CoreGraphics

@MainActor @preconcurrency
public protocol View {
    associatedtype Body: View

    @ViewBuilder @MainActor @preconcurrency var body: Body { get }
}

extension Never: View {
    public var body: Never { fatalError("it has no value") }
}

/// A view that is made by the system.
public protocol SystemView: View where Body == Never {}

extension SystemView {
    public var body: Never { fatalError("nothing is drawn here") }
}

public struct EmptyView: SystemView {
    public nonisolated init() {}
}

public struct TupleView<T>: SystemView {}

public struct _ConditionalContent<TrueContent, FalseContent>: SystemView {}

extension Optional: View where Wrapped: View {
    public var body: Never { fatalError("nothing is drawn here") }
}

@resultBuilder
public enum ViewBuilder {
    public static func buildBlock() -> EmptyView { EmptyView() }

    public static func buildBlock<Content: View>(_ content: Content) -> Content { content }

    public static func buildBlock<each Content: View>(
        _ content: repeat each Content
    ) -> TupleView<(repeat each Content)> { TupleView() }

    public static func buildExpression<Content: View>(_ content: Content) -> Content { content }

    public static func buildIf<Content: View>(_ content: Content?) -> Content? { content }

    public static func buildEither<TrueContent: View, FalseContent: View>(
        first: TrueContent
    ) -> _ConditionalContent<TrueContent, FalseContent> { _ConditionalContent() }

    public static func buildEither<TrueContent: View, FalseContent: View>(
        second: FalseContent
    ) -> _ConditionalContent<TrueContent, FalseContent> { _ConditionalContent() }

    public static func buildLimitedAvailability<Content: View>(_ content: Content) -> Content { content }
}

public struct Text: SystemView, Equatable {
    public nonisolated init(verbatim content: String) {}

    public nonisolated func font(_ font: Font?) -> Text { self }

    public nonisolated func foregroundColor(_ color: Color?) -> Text { self }

    public nonisolated func monospacedDigit() -> Text { self }
}

public struct Image: SystemView, Equatable {
    public enum Orientation: UInt8, Sendable {
        case up
        case upMirrored
        case down
        case downMirrored
        case left
        case leftMirrored
        case right
        case rightMirrored
    }

    public nonisolated init(systemName: String) {}

    public nonisolated init(decorative cgImage: CGImage, scale: CGFloat, orientation: Orientation = .up) {}

    public nonisolated func resizable() -> Image { self }
}

public struct Label<Title: View, Icon: View>: SystemView {
    public init(@ViewBuilder title: () -> Title, @ViewBuilder icon: () -> Icon) {}
}

public struct Button<Label: View>: SystemView {
    public init(action: @escaping @MainActor () -> Void, @ViewBuilder label: () -> Label) {}
}

public struct ButtonRole: Equatable, Sendable {
    public static let destructive = ButtonRole()
}

extension Button where Label == Text {
    public init<S: StringProtocol>(_ title: S, action: @escaping @MainActor () -> Void) {}

    public init<S: StringProtocol>(_ title: S, role: ButtonRole?, action: @escaping @MainActor () -> Void) {}
}

public struct ShareLink<Label: View>: SystemView {}

extension ShareLink where Label == DefaultShareLinkLabel {
    public init<S: StringProtocol>(_ title: S, item: URL, subject: Text? = nil, message: Text? = nil) {}
}

public struct DefaultShareLinkLabel: SystemView {}

public struct Picker<Label: View, SelectionValue: Hashable, Content: View>: SystemView {}

extension Picker where Label == Text {
    public init<S: StringProtocol>(
        _ title: S, selection: Binding<SelectionValue>, @ViewBuilder content: () -> Content
    ) {}
}

public struct ProgressView<Label: View, CurrentValueLabel: View>: SystemView {}

extension ProgressView where CurrentValueLabel == EmptyView {
    public nonisolated init(@ViewBuilder label: () -> Label) {}

    public nonisolated init<V: BinaryFloatingPoint>(value: V?, total: V = 1.0) where Label == EmptyView {}

    public nonisolated init<V: BinaryFloatingPoint>(value: V?, total: V = 1.0, @ViewBuilder label: () -> Label) {}
}

// MARK: Layout

public struct HStack<Content: View>: SystemView {
    public init(alignment: VerticalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content) {}
}

public struct VStack<Content: View>: SystemView {
    public init(
        alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content
    ) {}
}

public struct ZStack<Content: View>: SystemView {
    public init(alignment: Alignment = .center, @ViewBuilder content: () -> Content) {}
}

public struct Grid<Content: View>: SystemView {
    public init(
        alignment: Alignment = .center, horizontalSpacing: CGFloat? = nil, verticalSpacing: CGFloat? = nil,
        @ViewBuilder content: () -> Content
    ) {}
}

public struct GridRow<Content: View>: SystemView {
    public init(alignment: VerticalAlignment? = nil, @ViewBuilder content: () -> Content) {}
}

public struct ViewThatFits<Content: View>: SystemView {
    public init(in axes: Axis.Set = [.horizontal, .vertical], @ViewBuilder content: () -> Content) {}
}

public struct ScrollView<Content: View>: SystemView {
    public init(_ axes: Axis.Set = .vertical, showsIndicators: Bool = true, @ViewBuilder content: () -> Content) {}
}

public struct Form<Content: View>: SystemView {
    public init(@ViewBuilder content: () -> Content) {}
}

public struct Section<Parent, Content, Footer>: SystemView {}

extension Section where Parent: View, Content: View, Footer: View {
    public init(
        @ViewBuilder content: () -> Content, @ViewBuilder header: () -> Parent, @ViewBuilder footer: () -> Footer
    ) {}
}

extension Section where Parent: View, Content: View, Footer == EmptyView {
    public init(@ViewBuilder content: () -> Content, @ViewBuilder header: () -> Parent) {}
}

extension Section where Parent == EmptyView, Content: View, Footer == EmptyView {
    public init(@ViewBuilder content: () -> Content) {}
}

public struct ForEach<Data: RandomAccessCollection, ID: Hashable, Content>: SystemView {}

extension ForEach where Content: View {
    public init(
        _ data: Data, id: KeyPath<Data.Element, ID>, @ViewBuilder content: @escaping (Data.Element) -> Content
    ) {}

    public init(_ data: Data, @ViewBuilder content: @escaping (Data.Element) -> Content)
    where Data.Element: Identifiable, ID == Data.Element.ID {}
}

public struct Spacer: SystemView {
    public nonisolated init(minLength: CGFloat? = nil) {}
}

public struct NavigationStack<Data, Root: View>: SystemView {
    public init(path: Binding<Data>, @ViewBuilder root: () -> Root)
    where
        Data: MutableCollection, Data: RandomAccessCollection, Data: RangeReplaceableCollection,
        Data.Element: Hashable
    {}
}

@MainActor @preconcurrency
public protocol Layout {}

public struct HStackLayout: Layout {
    public nonisolated init(alignment: VerticalAlignment = .center, spacing: CGFloat? = nil) {}
}

public struct VStackLayout: Layout {
    public nonisolated init(alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil) {}
}

public struct AnyLayout: Layout {
    public nonisolated init<L: Layout>(_ layout: L) {}

    public func callAsFunction<V: View>(@ViewBuilder _ content: () -> V) -> some View { content() }
}

public struct HorizontalAlignment: Equatable, Sendable {
    public static let leading = HorizontalAlignment()
    public static let center = HorizontalAlignment()
    public static let trailing = HorizontalAlignment()
}

public struct VerticalAlignment: Equatable, Sendable {
    public static let center = VerticalAlignment()
}

public struct Alignment: Equatable, Sendable {
    public static let center = Alignment()
    public static let leading = Alignment()
    public static let trailing = Alignment()
}

public enum TextAlignment: Sendable {
    case leading
    case center
    case trailing
}

public enum Axis: Int8, Sendable {
    case horizontal
    case vertical

    public struct Set: OptionSet, Sendable {
        public let rawValue: Int8

        public init(rawValue: Int8) { self.rawValue = rawValue }

        public static let horizontal = Set(rawValue: 1)
        public static let vertical = Set(rawValue: 2)
    }
}

public struct Edge {
    public struct Set: OptionSet, Sendable {
        public let rawValue: Int8

        public init(rawValue: Int8) { self.rawValue = rawValue }

        public static let all = Set(rawValue: 15)
        public static let horizontal = Set(rawValue: 10)
    }
}

// MARK: Drawing

public protocol ShapeStyle: Sendable {}

public struct Color: SystemView, ShapeStyle, Hashable {
    public enum RGBColorSpace: Sendable {
        case sRGB
        case sRGBLinear
        case displayP3
    }

    public nonisolated init(
        _ colorSpace: RGBColorSpace = .sRGB, red: Double, green: Double, blue: Double, opacity: Double = 1
    ) {}

    public nonisolated init(_ name: String, bundle: Bundle? = nil) {}

    init() {}

    public static let black = Color()
    public static let white = Color()
    public static let primary = Color()
    public static let secondary = Color()

    public nonisolated func opacity(_ opacity: Double) -> Color { self }
}

public struct Font: Hashable, Sendable {
    public struct Weight: Hashable, Sendable {
        let value: Int

        public static let semibold = Weight(value: 600)
        public static let bold = Weight(value: 700)
    }

    public static let headline = Font()
    public static let callout = Font()
    public static let footnote = Font()
    public static let caption = Font()

    public func weight(_ weight: Weight) -> Font { self }

    public func bold() -> Font { self }
}

public protocol Shape: SystemView {}

extension Shape {
    public nonisolated func fill<S: ShapeStyle>(_ content: S) -> some View { EmptyView() }
}

public struct Rectangle: Shape {
    public nonisolated init() {}
}

public struct Path: Equatable, Sendable {
    public init(_ rect: CGRect) {}

    public init(roundedRect rect: CGRect, cornerRadius: CGFloat) {}
}

public struct FillStyle: Equatable, Sendable {
    public init(eoFill: Bool = false, antialiased: Bool = true) {}
}

public struct GraphicsContext {
    public struct Shading {
        public static func color(_ color: Color) -> Shading { Shading() }
    }

    public struct ResolvedText {
        public func measure(in size: CGSize) -> CGSize { size }
    }

    public mutating func translateBy(x: CGFloat, y: CGFloat) {}

    public mutating func scaleBy(x: CGFloat, y: CGFloat) {}

    public func resolve(_ text: Text) -> ResolvedText { ResolvedText() }

    public func draw(_ text: ResolvedText, in rect: CGRect) {}

    public func draw(_ image: Image, in rect: CGRect, style: FillStyle = FillStyle()) {}

    public func fill(_ path: Path, with shading: Shading, style: FillStyle = FillStyle()) {}

    public func stroke(_ path: Path, with shading: Shading, lineWidth: CGFloat = 1) {}
}

public struct Canvas<Symbols>: SystemView {}

extension Canvas where Symbols == EmptyView {
    public init(
        opaque: Bool = false, rendersAsynchronously: Bool = false,
        renderer: @escaping (inout GraphicsContext, CGSize) -> Void
    ) {}
}
