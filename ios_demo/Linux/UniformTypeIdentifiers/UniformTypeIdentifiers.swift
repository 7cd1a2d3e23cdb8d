public struct UTType: Hashable, Sendable {
    let identifier: String

    public static let image = UTType(identifier: "public.image")
    public static let folder = UTType(identifier: "public.folder")
}
