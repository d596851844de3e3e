// swift-tools-version: 6.0
import PackageDescription

var dependencies: [Package.Dependency] = []
var cryptography: [Target.Dependency] = []
var runtime: [Target.Dependency] = ["PersonaKit"]
var systemTargets: [Target] = []

// The manifest is evaluated on the machine that builds. Apple's systems bring CryptoKit, and
// ExecuTorch's own package has binaries for them; Linux verifies signatures with OpenSSL.
#if os(Linux)
    cryptography.append("COpenSSL")
    systemTargets.append(
        .systemLibrary(
            name: "COpenSSL", path: "Sources/COpenSSL", providers: [.apt(["libssl-dev"])])
    )
#else
    dependencies.append(
        .package(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-1.5.1")
    )
    runtime += ["executorch", "backend_xnnpack", "kernels_optimized"].map {
        .product(name: $0, package: "executorch")
    }
#endif

let package = Package(
    name: "PersonaKit",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "PersonaKit", targets: ["PersonaKit"]),
        .library(name: "PersonaKitExecuTorch", targets: ["PersonaKitExecuTorch"]),
    ],
    dependencies: dependencies,
    targets: [
        .target(name: "PersonaKit", dependencies: cryptography),
        .target(name: "PersonaKitExecuTorch", dependencies: runtime),
        .testTarget(name: "PersonaKitTests", dependencies: ["PersonaKit"] + cryptography),
    ] + systemTargets,
    swiftLanguageModes: [.v6]
)
