import SwiftUI

/// What can be sent to and received from other apps.
public protocol Transferable: Sendable {}

extension Data: Transferable {}

public struct PhotosPickerItem: Hashable, Sendable {
    public func loadTransferable<T: Transferable>(type: T.Type) async throws -> T? { nil }
}

public struct PHPickerFilter: Sendable {
    public static let images = PHPickerFilter()
}

public struct PhotosPicker<Label: View>: SystemView {
    public init(
        selection: Binding<PhotosPickerItem?>, matching filter: PHPickerFilter? = nil, @ViewBuilder label: () -> Label
    ) {}
}
