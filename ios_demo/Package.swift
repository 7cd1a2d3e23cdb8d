// swift-tools-version: 6.0
import PackageDescription

// XFormerCore is pure Swift: bundles, preprocessing, postprocessing, measurements. Engines depend on it, never the
// other way round. What is inside `#if os(Linux)` serves the checks on Linux and no app: see Linux/.

let package = Package(
    name: "XFormerKit",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [
        .library(name: "XFormerKit", targets: ["XFormerCore", "XFormerCoreML"]),
        .executable(name: "xformer-bench-apple", targets: ["xformer-bench-apple"]),
    ],
    targets: [
        .target(name: "XFormerCore", dependencies: .onLinux("COpenSSL")),
        .target(name: "XFormerCoreML", dependencies: ["XFormerCore"] + .onLinux("CoreML", "ImageIO")),
        .executableTarget(name: "xformer-bench-apple", dependencies: ["XFormerCoreML"]),
        .target(name: "TestSupport", dependencies: ["XFormerCore"] + .onLinux("CPng"), path: "Tests/TestSupport"),
        .testTarget(name: "XFormerCoreTests", dependencies: ["XFormerCore", "TestSupport"]),
        .testTarget(
            name: "XFormerCoreMLTests",
            dependencies: ["XFormerCoreML", "xformer-bench-apple", "TestSupport"]
                + .onLinux("CoreML", "ImageIO", "CRawPng")),
    ]
)

#if os(Linux)
package.targets += [
    .systemLibrary(name: "COpenSSL", path: "Linux/COpenSSL", pkgConfig: "libcrypto"),
    .systemLibrary(name: "CPng", path: "Linux/CPng", pkgConfig: "libpng"),
    .target(name: "CRawPng", dependencies: ["CPng"], path: "Linux/CRawPng"),
    // Test doubles, named as Apple's modules, so that the files that import those are compiled and run as they are.
    .target(name: "CoreGraphics", path: "Linux/CoreGraphics"),
    .target(name: "CoreVideo", dependencies: ["CoreGraphics"], path: "Linux/CoreVideo"),
    .target(name: "ImageIO", dependencies: ["CoreGraphics", "CRawPng"], path: "Linux/ImageIO"),
    .target(name: "CoreML", dependencies: ["CoreVideo"], path: "Linux/CoreML"),

    // The whole pipeline on real models: ONNX Runtime's C library, which is loaded at run time.
    .systemLibrary(name: "COnnxRuntime", path: "Linux/COnnxRuntime"),
    .target(name: "OnnxRuntime", dependencies: ["XFormerCore", "COnnxRuntime"], path: "Linux/OnnxRuntime"),
    .testTarget(name: "ParityTests", dependencies: ["XFormerCore", "OnnxRuntime", "TestSupport"]),

    // The demo app, which Xcode builds from Demo/: its logic is tested here, and its views are type-checked against stubs
    // of Apple's modules.
    .executableTarget(
        name: "XFormerDemo",
        dependencies: [
            "XFormerCore", "XFormerCoreML", "AVFoundation", "Combine", "CoreGraphics", "CoreVideo", "ImageIO",
            "PhotosUI", "SwiftUI", "UIKit", "UniformTypeIdentifiers",
        ],
        path: "Demo/XFormerDemo",
        exclude: ["Assets.xcassets", "Info.plist", "Localizable.xcstrings", "PrivacyInfo.xcprivacy"]),
    .testTarget(name: "XFormerDemoTests", dependencies: ["XFormerDemo", "TestSupport"]),
    .target(
        name: "XFormerDemoDeviceTests", dependencies: ["XFormerCore", "XFormerCoreML", "XCTestOnApple"],
        path: "Demo/XFormerDemoTests",
        swiftSettings: [.unsafeFlags(["-Xfrontend", "-import-module", "-Xfrontend", "XCTestOnApple"])]),
    .target(name: "XCTestOnApple", path: "Linux/XCTestOnApple"),
    .target(name: "FoundationOnApple", path: "Linux/FoundationOnApple"),
    .target(name: "Combine", dependencies: ["FoundationOnApple"], path: "Linux/Combine"),
    .target(name: "UniformTypeIdentifiers", path: "Linux/UniformTypeIdentifiers"),
    .target(name: "UIKit", dependencies: ["CoreGraphics", "FoundationOnApple"], path: "Linux/UIKit"),
    .target(name: "AVFoundation", dependencies: ["CoreVideo", "UIKit"], path: "Linux/AVFoundation"),
    .target(
        name: "SwiftUI", dependencies: ["Combine", "CoreGraphics", "UIKit", "UniformTypeIdentifiers"],
        path: "Linux/SwiftUI"),
    .target(name: "PhotosUI", dependencies: ["SwiftUI"], path: "Linux/PhotosUI"),
]
#endif

extension [Target.Dependency] {
    /// A target that only the checks on Linux have.
    static func onLinux(_ names: String...) -> Self {
        #if os(Linux)
        names.map { .byName(name: $0) }
        #else
        []
        #endif
    }
}
