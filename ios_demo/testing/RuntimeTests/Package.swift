// swift-tools-version: 6.0
import PackageDescription

// PersonaKit on the real runtime, on Linux: `ExecuTorchEngine` as it is, the stand-in module that it
// imports, and tests against a bundle just exported and a real `persona serve`. `check.py` builds
// it, and says where the wheel's headers and libraries are.
let package = Package(
    name: "RuntimeTests",
    dependencies: [.package(path: "../../PersonaKit")],
    targets: [
        .target(
            name: "CExecuTorch",
            cxxSettings: [
                .define("C10_USING_CUSTOM_GENERATED_MACROS"), .define("ET_EVENT_TRACER_ENABLED"),
            ],
            linkerSettings: [
                .linkedLibrary("executorch"),
                .unsafeFlags([
                    "-Xlinker", "--no-as-needed", "-lexecutorch_kernels_optimized",
                    "-lexecutorch_backend_xnnpack", "-lexecutorch_threadpool",
                ]),
            ]
        ),
        .target(name: "ExecuTorch", dependencies: ["CExecuTorch"]),
        .target(
            name: "EngineOnRuntime",
            dependencies: ["ExecuTorch", .product(name: "PersonaKit", package: "PersonaKit")],
            path: "Sources/PersonaKitExecuTorch"
        ),
        .executableTarget(name: "SwapVictim", dependencies: ["EngineOnRuntime"]),
        .testTarget(name: "RuntimeTests", dependencies: ["EngineOnRuntime"]),
    ],
    swiftLanguageModes: [.v6],
    cxxLanguageStandard: .cxx17
)
