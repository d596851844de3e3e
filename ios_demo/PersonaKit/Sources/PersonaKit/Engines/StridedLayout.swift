/// Where the elements of a multi-array lie: Core ML pads rows, so neighbours need not be adjacent.

import Foundation

enum StridedLayout {
    /// Offsets, in elements, of all elements row by row.
    static func offsets(shape: [Int], strides: [Int]) -> [Int] {
        zip(shape, strides).reduce([0]) { offsets, dimension in
            offsets.flatMap { offset in (0..<dimension.0).map { offset + $0 * dimension.1 } }
        }
    }
}
