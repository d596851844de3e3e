/// Which processors Core ML may use. It chooses among them, operator by operator; `Placement` says
/// what it chose.

public enum ComputeUnits: String, Sendable, CaseIterable {
    case cpuOnly
    case cpuAndGPU
    case cpuAndNeuralEngine
    case all
}
