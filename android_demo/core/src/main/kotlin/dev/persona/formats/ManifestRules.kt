package dev.persona.formats

import java.math.BigInteger

private val NAME = Regex("[A-Za-z0-9_][A-Za-z0-9_.-]*")
private val PATH = Regex("[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
private const val LARGEST = 3.4028234663852886e38

/** What a manifest's types alone do not say. Throws [SchemaException]. */
internal fun checkManifest(manifest: Manifest) {
    rule(NAME.matches(manifest.model)) {
        "model \"${manifest.model}\" must be letters, digits, '_', '.' and '-'"
    }
    checkPorts(manifest)
    rule(manifest.slots.isNotEmpty() && differ(manifest.slots) { it.name }) {
        "slots must be one or more with different names"
    }
    manifest.slots.forEach(::checkSlot)
    checkFilesField(manifest)
    manifest.editKeys.forEach(::checkEditKey)
    rule(differ(manifest.programs) { it.target to it.precision }) {
        "programs must differ in target or precision"
    }
    for (program in manifest.programs) {
        checkProgram(program)
        checkProgramFits(program, manifest)
    }
    rule(manifest.prototypeCount >= 0) { "prototype_count must be 0 or more" }
    rule(manifest.maxEditBytes >= 1) { "max_edit_bytes must be 1 or more" }
    rule(manifest.maxObservationBytes >= 1) { "max_observation_bytes must be 1 or more" }
}

private fun checkPorts(manifest: Manifest) {
    val ports = manifest.inputs + manifest.outputs
    val some = manifest.inputs.isNotEmpty() && manifest.outputs.isNotEmpty()
    rule(some && differ(ports) { it.name }) {
        "inputs and outputs must be one or more, all named apart: ${ports.map { it.name }}"
    }
    for (port in ports) {
        rule(port.shape.all { it >= 1 || it == -1L }) {
            "inputs and outputs: sizes of \"${port.name}\" must be 1 or more, or -1, " +
                "got ${port.shape}"
        }
        rule(port.shape.count { it == -1L } == port.free.size) {
            "inputs and outputs: \"${port.name}\" needs as many free dimensions as its shape " +
                "${port.shape} has -1"
        }
    }
}

private fun checkSlot(slot: SlotSpec) {
    val name = slot.name
    rule(NAME.matches(name) && name != "probe" && !name.startsWith("probe.")) {
        "slots: \"$name\" cannot name a slot"
    }
    val affine = slot.kind == SlotKind.AFFINE
    rule(slot.rows >= 1 && if (affine) slot.columns == 0L else slot.columns >= 1) {
        "slot \"$name\": out and in must be 1 or more; affine: in is 0"
    }
    rule(if (slot.kind == SlotKind.LOW_RANK) slot.rank >= 1 else slot.rank == 0L) {
        "slot \"$name\": rank must be 1 or more where low-rank, else 0"
    }
    rule(!(affine && slot.bias)) { "slot \"$name\": an affine slot has a shift and no bias" }
    rule(slot.bound > 0 && slot.bound <= LARGEST && slot.biasBound in 0.0..LARGEST) {
        "slot \"$name\": bounds must be above 0 and fit binary32"
    }
}

private fun checkFilesField(manifest: Manifest) {
    for ((path, digest) in manifest.files) {
        rule(PATH.matches(path) && path != MANIFEST_FILE && path != MANIFEST_SIGNATURE_FILE) {
            "files: \"$path\" must be a plain path inside the bundle"
        }
        rule(digest.size >= 0 && SHA256.matches(digest.sha256)) {
            "files: \"$path\" must have a size of 0 or more and a sha256 in lower-case hex"
        }
    }
    for (needed in listOf(manifest.base, manifest.prototypes, manifest.golden)) {
        rule(needed in manifest.files) { "\"$needed\" is not among the files" }
    }
}

private fun checkEditKey(key: EditKey) {
    val der = fromBase64(key.publicKey)
    rule(der != null) { "edit_keys: public_key of \"${key.id}\" is not canonical base64" }
    rule(der != null && PublicKeys.keyId(der) == key.id) {
        "edit_keys: \"${key.id}\" is not the id of its public_key"
    }
}

/** What a program must be by itself. */
private fun checkProgram(program: Program) {
    program.feeds.forEach(::checkFeed)
    program.rule(differ(program.feeds) { it.tensor }) { "feeds name a tensor more than once" }
    program.rule(differ(program.feeds.mapNotNull { it.index }) { it }) {
        "feeds name an index more than once"
    }
    program.rule(differ(program.feeds.mapNotNull { it.input }) { it }) {
        "feeds name an input more than once"
    }
    program.rule(program.feeds.map { it.carries }.toSet().size <= 1) {
        "feeds must all carry `effective`, or all `change`"
    }
    val patches = program.feeds.mapNotNull { it.patch }.sortedBy { it.offset }
    val head = program.head?.path
    program.rule(patches.isNotEmpty() == (head != null)) { "patches and a head must come together" }
    program.rule(head == null || head !in listOf(program.path, program.observePath)) {
        "the head must be a file of its own, not \"$head\""
    }
    for ((before, after) in patches.zipWithNext()) {
        program.rule(before.offset + before.length <= after.offset) {
            "two patches share the byte ${after.offset}"
        }
    }
}

private fun checkFeed(feed: Feed) {
    val asInput = feed.index != null || feed.input != null
    rule(asInput != (feed.patch != null)) {
        "feeds: \"${feed.tensor}\" needs the index or the name of an input, or else a patch"
    }
    rule(feed.index == null || feed.index >= 0) {
        "feeds: index of \"${feed.tensor}\" must be 0 or more, got ${feed.index}"
    }
    val patch = feed.patch ?: return
    rule(patch.offset >= 0 && patch.length >= 1) {
        "feeds: patch of \"${feed.tensor}\" must have an offset of 0 or more, a length of 1 or more"
    }
    rule(feed.carries == Carries.EFFECTIVE) {
        "feeds: a patch carries what is effective, that of \"${feed.tensor}\" does not"
    }
    val bytes = product(feed.shape) * BigInteger.valueOf(4)
    rule(bytes == BigInteger.valueOf(patch.length)) {
        "feeds: \"${feed.tensor}\" with shape ${feed.shape} has $bytes bytes, " +
            "its patch ${patch.length}"
    }
}

/** How a program fits the rest of the manifest. */
private fun checkProgramFits(program: Program, manifest: Manifest) {
    for (path in listOfNotNull(program.path, program.observePath)) {
        program.rule(manifest.files.keys.any { it == path || it.startsWith("$path/") }) {
            "\"$path\" is not among the files"
        }
    }
    val head = program.head?.let { manifest.files[it.path] }
    program.rule(program.head == null || head != null) {
        "\"${program.head?.path}\" is not among the files"
    }
    val shapes = manifest.slots.feedTensors()
    for (feed in program.feeds) {
        val shape = shapes[feed.tensor]
        program.rule(shape != null) { "it feeds \"${feed.tensor}\", which is of no slot" }
        program.rule(shape != null && product(feed.shape) == product(shape)) {
            "it feeds \"${feed.tensor}\" with shape ${feed.shape}; the slot has $shape"
        }
        val end = feed.patch?.let { it.offset + it.length }
        program.rule(end == null || head == null || end <= head.size) {
            "it patches \"${feed.tensor}\" beyond the end of \"${program.head?.path}\""
        }
    }
    val missing = shapes.keys - program.feeds.map { it.tensor }.toSet()
    program.rule(missing.isEmpty()) { "it does not feed \"${missing.first()}\"" }
}

private fun <T> differ(elements: List<T>, by: (T) -> Any): Boolean =
    elements.map(by).toSet().size == elements.size

private inline fun rule(holds: Boolean, message: () -> String) {
    if (!holds) throw SchemaException(message())
}

private inline fun Program.rule(holds: Boolean, message: () -> String) {
    if (!holds) throw SchemaException("program \"$target\": ${message()}")
}
