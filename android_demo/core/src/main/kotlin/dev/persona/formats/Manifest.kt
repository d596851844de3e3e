package dev.persona.formats

import java.math.BigInteger

/** The bundle manifest `persona.bundle/1`: what an app ships, file by file, and how to use it. */
const val BUNDLE_FORMAT = "persona.bundle/1"

/** The two files of a bundle whose names are fixed. */
const val MANIFEST_FILE = "manifest.json"
const val MANIFEST_SIGNATURE_FILE = "manifest.sig"

/** A dimension that the caller chooses, from [min] to [max]. */
data class Dimension(val name: String, val min: Long, val max: Long)

enum class PortType(val text: String) {
    FLOAT32("float32"),
    INT64("int64"),
}

/**
 * An input or output of a program.
 *
 * @property shape with the batch of 1; a dimension that the caller chooses is -1, and the next of
 *   [free] says its limits
 */
data class Port(
    val name: String,
    val type: PortType,
    val shape: List<Long>,
    val free: List<Dimension>,
)

/** [length] bytes of a head's file from [offset] on: one slot tensor, row by row, little-endian. */
data class Patch(val offset: Long, val length: Long)

/** What a feed carries: base + prototype + edit, or prototype + edit. */
enum class Carries(val text: String) {
    EFFECTIVE("effective"),
    CHANGE("change"),
}

/**
 * How one slot tensor reaches a program: by index, by name or both, or by a patch.
 *
 * @property tensor `SLOT.SUFFIX`
 * @property index position among the program's inputs
 * @property input name of the program's input
 * @property shape what the program takes, with as many values as the tensor, row by row
 */
data class Feed(
    val tensor: String,
    val index: Long?,
    val input: String?,
    val carries: Carries,
    val shape: List<Long>,
    val patch: Patch?,
)

/** The second half of a program in two: it takes what the first half gives, in order. */
data class Head(val path: String, val method: String)

enum class Precision(val text: String) {
    FP32("fp32"),
    FP16("fp16"),
    INT8("int8"),
}

/** What was done with a program where it was exported. */
enum class Verified(val text: String) {
    EXECUTED("executed"),
    INTERPRETED("interpreted"),
    LOWERED("lowered"),
}

/**
 * A program for one target in one precision. It feeds every slot tensor once.
 *
 * @property target runtime and processor
 * @property path a file of the bundle, or a folder that holds some
 * @property method the entry point
 * @property observePath the program that computes features, as [observeMethod]; null for item ids
 * @property tolerance largest difference from golden outputs, relative to max(1, largest magnitude)
 * @property delegation what runs where
 * @property slotFeed which way of feeding slots the exporter chose, and why
 */
data class Program(
    val target: String,
    val precision: Precision,
    val path: String,
    val method: String,
    val observePath: String?,
    val observeMethod: String?,
    val feeds: List<Feed>,
    val tolerance: Double,
    val verified: Verified,
    val delegation: JsonObject,
    val head: Head?,
    val slotFeed: JsonObject,
)

/** Size in bytes and sha256 (hex) of one file of the bundle. */
data class FileDigest(val size: Long, val sha256: String)

/**
 * A public key that may sign edits.
 *
 * @property publicKey SubjectPublicKeyInfo in DER, base64
 */
data class EditKey(val id: String, val publicKey: String)

enum class Task(val text: String) {
    CLASSIFICATION("classification"),
    RANKING("ranking"),
}

/**
 * Everything that a device needs to know of a bundle; `docs/edit-format.md`, "Manifest".
 *
 * @property base path of the base slots' file, as are [prototypes] and [golden]
 * @property files path -> digest of every file but manifest and signature
 * @property madeBy configuration, versions, data fingerprint, metrics
 */
data class Manifest(
    val model: String,
    val task: Task,
    val createdAt: String,
    val inputs: List<Port>,
    val outputs: List<Port>,
    val slots: List<SlotSpec>,
    val observation: ObservationSpec,
    val prototypeCount: Long,
    val base: String,
    val prototypes: String,
    val golden: String,
    val programs: List<Program>,
    val editKeys: List<EditKey>,
    val maxEditBytes: Long,
    val maxObservationBytes: Long,
    val files: Map<String, FileDigest>,
    val madeBy: JsonObject,
) {
    /**
     * The first program for a target, in this precision where one is asked for.
     *
     * @throws NoSuchElementException naming those there are
     */
    fun program(target: String, precision: Precision? = null): Program =
        programs.firstOrNull { it.target == target && precision in listOf(null, it.precision) }
            ?: throw NoSuchElementException(
                "the bundle has no program for $target ${precision?.text ?: "in any precision"}; " +
                    "it has: ${programs.joinToString { "${it.target} ${it.precision.text}" }}"
            )

    companion object {
        /** Reads `manifest.json`. [PersonaError] `bundle.manifest_invalid` names the field. */
        fun decode(data: ByteArray): Manifest =
            try {
                readManifest(parseJson(data)).also(::checkManifest)
            } catch (e: JsonException) {
                throw PersonaError(Code.BUNDLE_MANIFEST, "$MANIFEST_FILE: ${e.message}")
            } catch (e: SchemaException) {
                throw PersonaError(Code.BUNDLE_MANIFEST, "$MANIFEST_FILE: ${e.message}")
            }

        /** The bundle's name in edits and observations: sha256 of the manifest's bytes, hex. */
        fun digest(manifest: ByteArray): String = sha256(manifest)
    }
}

/** How many values a shape has. Sizes of a manifest may multiply beyond 64 bits. */
internal fun product(shape: List<Long>): BigInteger =
    shape.fold(BigInteger.ONE) { product, size -> product * BigInteger.valueOf(size) }
