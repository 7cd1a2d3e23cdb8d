@_exported import UniformTypeIdentifiers
import UIKit

@MainActor @preconcurrency
public protocol App {
    associatedtype Body: Scene

    @SceneBuilder @MainActor @preconcurrency var body: Body { get }

    @MainActor @preconcurrency init()
}

extension App {
    public static func main() {}
}

@MainActor @preconcurrency
public protocol Scene {}

@resultBuilder
public enum SceneBuilder {
    public static func buildBlock<Content: Scene>(_ content: Content) -> Content { content }
}

public struct WindowGroup<Content: View>: Scene {
    public init(@ViewBuilder content: () -> Content) {}
}

public enum ScenePhase: Comparable, Sendable {
    case background
    case inactive
    case active
}

public enum UserInterfaceSizeClass: Sendable {
    case compact
    case regular
}

public enum DynamicTypeSize: Hashable, Sendable {
    case large
    case accessibility1

    public var isAccessibilitySize: Bool { self == .accessibility1 }
}

public enum LegibilityWeight: Hashable, Sendable {
    case regular
    case bold
}

@MainActor @preconcurrency
public struct OpenURLAction {
    public func callAsFunction(_ url: URL) {}
}

public struct EnvironmentValues {
    public var scenePhase: ScenePhase { .active }

    public var verticalSizeClass: UserInterfaceSizeClass? { nil }

    public var dynamicTypeSize: DynamicTypeSize { .large }

    public var legibilityWeight: LegibilityWeight? { nil }

    @MainActor public var openURL: OpenURLAction { OpenURLAction() }
}

@MainActor @preconcurrency @propertyWrapper
public struct Environment<Value> {
    public init(_ keyPath: KeyPath<EnvironmentValues, Value>) {
        self.keyPath = keyPath
    }

    let keyPath: KeyPath<EnvironmentValues, Value>

    public var wrappedValue: Value { EnvironmentValues()[keyPath: keyPath] }
}

@MainActor @preconcurrency @propertyWrapper
public struct State<Value> {
    public init(wrappedValue: Value) { value = wrappedValue }

    let value: Value

    public var wrappedValue: Value {
        get { value }
        nonmutating set {}
    }

    public var projectedValue: Binding<Value> { Binding(of: Value.self) }
}

extension State where Value: ExpressibleByNilLiteral {
    public init() { self.init(wrappedValue: nil) }
}

@MainActor @preconcurrency @propertyWrapper @dynamicMemberLookup
public struct Binding<Value> {
    public init(
        get: @escaping @isolated(any) @Sendable () -> Value, set: @escaping @isolated(any) @Sendable (Value) -> Void
    ) {}

    init(of type: Value.Type) {}

    public var wrappedValue: Value {
        get { fatalError("nothing is drawn here") }
        nonmutating set {}
    }

    public var projectedValue: Binding<Value> { self }

    public subscript<Subject>(dynamicMember keyPath: WritableKeyPath<Value, Subject>) -> Binding<Subject> {
        Binding<Subject>(of: Subject.self)
    }
}

@MainActor @preconcurrency @propertyWrapper
public struct StateObject<ObjectType: ObservableObject> {
    let thunk: () -> ObjectType

    public init(wrappedValue thunk: @autoclosure @escaping () -> ObjectType) { self.thunk = thunk }

    public var wrappedValue: ObjectType { thunk() }

    public var projectedValue: ObservedObject<ObjectType>.Wrapper { .init() }
}

@MainActor @preconcurrency @propertyWrapper
public struct ObservedObject<ObjectType: ObservableObject> {
    @MainActor @preconcurrency @dynamicMemberLookup
    public struct Wrapper {
        public subscript<Subject>(
            dynamicMember keyPath: ReferenceWritableKeyPath<ObjectType, Subject>
        ) -> Binding<Subject> { Binding(of: Subject.self) }
    }

    public init(wrappedValue: ObjectType) { self.wrappedValue = wrappedValue }

    public var wrappedValue: ObjectType

    public var projectedValue: Wrapper { Wrapper() }
}

@MainActor @preconcurrency
public protocol UIViewRepresentable: View where Body == Never {
    associatedtype UIViewType: UIView

    typealias Context = UIViewRepresentableContext<Self>

    func makeUIView(context: Context) -> UIViewType

    func updateUIView(_ uiView: UIViewType, context: Context)
}

extension UIViewRepresentable {
    public var body: Never { fatalError("nothing is drawn here") }
}

@MainActor @preconcurrency
public struct UIViewRepresentableContext<Representable: UIViewRepresentable> {}
