// swift-tools-version: 6.0
import PackageDescription

// XFormerCore is pure Swift: bundles, preprocessing, postprocessing, measurements. Engines depend on it, never the
// other way round. What is inside `#if os(Linux)` serves the checks on Linux and no app: see Linux/.

let package = Package(
    name: "XFormerKit",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [
        .library(name: "XFormerKit", targets: ["XFormerCore"])
    ],
    targets: [
        .target(name: "XFormerCore"),
        .testTarget(name: "XFormerCoreTests", dependencies: ["XFormerCore"]),
    ]
)
