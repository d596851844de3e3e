/// The terms under which a device measures: heat, power and memory, as its system tells.

import Foundation

/// As Apple's systems name it; `unknown` elsewhere.
public enum ThermalState: String, Sendable, CaseIterable {
    case unknown
    case nominal
    case fair
    case serious
    case critical

    /// Whether the system may have slowed its processors down.
    public var throttles: Bool { self != .unknown && self != .nominal }
}

/// Reads the device's conditions, anew with each call.
public struct DeviceConditions: Sendable {
    public let thermal: @Sendable () -> ThermalState
    public let lowPower: @Sendable () -> Bool
    /// What the app's process holds, in bytes; nil where the system does not tell.
    public let memoryBytes: @Sendable () -> Int?

    public init(
        thermal: @escaping @Sendable () -> ThermalState,
        lowPower: @escaping @Sendable () -> Bool,
        memoryBytes: @escaping @Sendable () -> Int?
    ) {
        self.thermal = thermal
        self.lowPower = lowPower
        self.memoryBytes = memoryBytes
    }

    /// Of this device.
    public static let current = DeviceConditions(
        thermal: readThermalState, lowPower: readLowPower, memoryBytes: readMemory
    )

    /// This device, for the measurement record.
    static func host(thermal: ThermalState) -> MeasuredHost {
        var system = utsname()
        uname(&system)
        let machine = withUnsafeBytes(of: &system.machine) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        let information = ProcessInfo.processInfo
        return MeasuredHost(
            system: systemName + " " + information.operatingSystemVersionString, machine: machine,
            cores: information.activeProcessorCount, threads: 1, thermal: thermal.rawValue
        )
    }

    /// What the app was built for.
    static var architecture: String {
        #if arch(arm64)
            "arm64"
        #else
            "x86_64"
        #endif
    }

    private static var systemName: String {
        #if os(iOS)
            "iOS"
        #elseif os(macOS)
            "macOS"
        #else
            "Linux"
        #endif
    }
}

#if canImport(Darwin)
    private func readThermalState() -> ThermalState {
        switch ProcessInfo.processInfo.thermalState {
        case .nominal: .nominal
        case .fair: .fair
        case .serious: .serious
        case .critical: .critical
        @unknown default: .unknown
        }
    }

    private func readLowPower() -> Bool { ProcessInfo.processInfo.isLowPowerModeEnabled }

    /// The physical footprint: what the system counts against the app.
    private func readMemory() -> Int? {
        var info = task_vm_info_data_t()
        var count = mach_msg_type_number_t(
            MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<integer_t>.size
        )
        let result = withUnsafeMutablePointer(to: &info) { pointer in
            pointer.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
                task_info(task_self_trap(), task_flavor_t(TASK_VM_INFO), $0, &count)
            }
        }
        return result == KERN_SUCCESS ? Int(info.phys_footprint) : nil
    }
#else
    private func readThermalState() -> ThermalState { .unknown }

    private func readLowPower() -> Bool { false }

    /// The resident set, from the second field of /proc/self/statm in pages.
    private func readMemory() -> Int? {
        guard let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) else {
            return nil
        }
        let fields = text.split(separator: " ")
        return fields.count > 1
            ? Int(fields[1]).map { $0 * Int(sysconf(Int32(_SC_PAGESIZE))) } : nil
    }
#endif
