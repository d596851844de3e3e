/// A program in two: the head's file with the values of its slots in place.
///
/// Specified in docs/edit-format.md, "A program in two". Never write into the bundle, and let go of
/// the old head before the new one is loaded.

import Foundation

extension Program {
    /// `head`: the file as the bundle has it. `effective`: `SLOT.SUFFIX` → values.
    public func patchedHead(_ head: Data, effective: SlotTensors) -> Data {
        var patched = head
        for feed in feeds {
            guard let patch = feed.patch else { continue }
            let values = StoredTensor(effective[feed.tensor]!).data
            let start = patched.startIndex + patch.offset
            patched.replaceSubrange(start..<start + patch.length, with: values)
        }
        return patched
    }
}
