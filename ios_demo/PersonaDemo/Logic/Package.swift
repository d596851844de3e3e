// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "PersonaDemoLogic",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "PersonaDemoLogic", targets: ["PersonaDemoLogic"])
    ],
    dependencies: [
        .package(path: "../../PersonaKit")
    ],
    targets: [
        .target(
            name: "PersonaDemoLogic",
            dependencies: [.product(name: "PersonaKit", package: "PersonaKit")]
        ),
        .testTarget(
            name: "PersonaDemoLogicTests",
            dependencies: ["PersonaDemoLogic"]
        ),
    ]
)
