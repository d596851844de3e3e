package dev.persona.formats

/**
 * The head's file with the patched slot tensors replaced (`docs/edit-format.md`, "A program in
 * two"). What is loaded from it must be the only module of its name: let go of the head before
 * **first**, for XNNPACK keeps packed weights by name.
 *
 * @param head the file as the bundle has it
 * @param values `SLOT.SUFFIX` -> effective values
 */
fun patchedHead(head: ByteArray, feeds: List<Feed>, values: SlotTensors): ByteArray {
    val out = head.copyOf()
    for (feed in feeds) {
        val patch = feed.patch ?: continue
        littleEndian(values.getValue(feed.tensor)).copyInto(out, patch.offset.toInt())
    }
    return out
}
