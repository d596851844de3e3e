package dev.persona.device

import dev.persona.formats.Container
import dev.persona.formats.DetachedSignature
import dev.persona.formats.FloatTensor
import dev.persona.formats.LongTensor
import dev.persona.formats.PortValue
import dev.persona.formats.PublicKeys
import dev.persona.formats.SlotTensors
import dev.persona.formats.formatTime
import dev.persona.formats.toBase64
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.KeyPair
import java.security.KeyPairGenerator
import java.security.MessageDigest
import java.security.PrivateKey
import java.security.Signature
import java.security.spec.ECGenParameterSpec
import java.time.Duration
import java.time.Instant

/** A key pair that signs as the cloud or the publisher does. */
class TestKey(private val pair: KeyPair) {
    val publicKey: ByteArray = pair.public.encoded
    val id: String = PublicKeys.keyId(publicKey)

    fun sign(data: ByteArray) = DetachedSignature(id, sign(pair.private, data))

    private fun sign(key: PrivateKey, data: ByteArray): ByteArray =
        Signature.getInstance("SHA256withECDSA").run {
            initSign(key)
            update(data)
            sign()
        }

    companion object {
        fun create(): TestKey {
            val generator = KeyPairGenerator.getInstance("EC")
            generator.initialize(ECGenParameterSpec("secp256r1"))
            return TestKey(generator.generateKeyPair())
        }
    }
}

/**
 * A whole bundle, made here, of a model that is simple enough to be computed by hand: y = W x with
 * the one slot W [2, 3]. It is observed by pooling x itself, with posterior (x₀ > 0, x₀ ≤ 0).
 *
 * @param inTwo whether the weight is patched into a head's file instead of being an input
 */
class TestBundle(val folder: File, private val inTwo: Boolean = false, items: Boolean = false) {
    val cloud = TestKey.create()
    val publisher = TestKey.create()
    val trusted = PublicKeys(listOf(publisher.publicKey))

    init {
        File(folder, "programs").mkdirs()
        val files =
            mapOf(
                "base.safetensors" to container("persona.base/1", mapOf(SLOT to matrix(BASE))),
                "prototypes.safetensors" to container("persona.prototypes/1", prototypes(items)),
                "golden.safetensors" to container("persona.golden/1", golden(items)),
                "programs/trunk.bin" to "y = W x".toByteArray(),
                "programs/head.bin" to ByteArray(PATCH_AT) { 7 } + littleEndian(BASE) + byteArrayOf(9),
            )
        for ((path, data) in files) File(folder, path).writeBytes(data)
        val listed =
            files.entries.joinToString { (path, data) ->
                """"$path": {"size": ${data.size}, "sha256": "${sha256(data)}"}"""
            }
        val manifest = manifest(listed, items).toByteArray()
        File(folder, "manifest.json").writeBytes(manifest)
        sign(publisher)
    }

    /** Signs the manifest anew. [enclosed]: whether the signature brings its key. */
    fun sign(key: TestKey, enclosed: Boolean = false) {
        val signature = key.sign(File(folder, "manifest.json").readBytes()).encode()
        val brought = ", \"public_key\": \"${toBase64(key.publicKey)}\"}"
        val text = String(signature).trimEnd()
        File(folder, "manifest.sig").writeText(if (enclosed) text.dropLast(1) + brought else text)
    }

    fun open(): Bundle = Bundle.open(folder, trusted)

    /** An edit's file as the cloud would make it, and its signature. */
    fun edit(
        bundle: Bundle,
        sequence: Long,
        values: List<Float>,
        prototype: Int? = null,
        device: String = "",
        issued: Instant = NOW,
        lifetime: Duration = Duration.ofDays(7),
        probe: List<Float>? = null,
        signer: TestKey = cloud,
    ): SignedEdit {
        val group = prototype?.let { PROTOTYPES[it] } ?: NOTHING
        val weight = BASE.indices.map { BASE[it] + (group[it] + values[it]) }
        val expected = probe ?: output(weight, GOLDEN[0])
        val data =
            Container.encode(
                mapOf(
                    SLOT to matrix(values),
                    "probe.expected" to FloatTensor(listOf(1, 2), expected.toFloatArray()),
                ),
                mapOf(
                    "format" to "persona.edit/1",
                    "model" to "by-hand",
                    "bundle" to bundle.digest,
                    "device" to device.ifEmpty { DEVICE },
                    "sequence" to "$sequence",
                    "prototype" to (prototype?.toString() ?: "none"),
                    "issued_at" to formatTime(issued),
                    "expires_at" to formatTime(issued + lifetime),
                ),
            )
        return SignedEdit(data, signer.sign(data))
    }

    private fun manifest(files: String, items: Boolean): String {
        val head = """{"path": "programs/head.bin", "method": "forward"}"""
        val patch = """{"offset": $PATCH_AT, "length": 24, "dtype": "F32"}"""
        val observation =
            if (items) """{"kind": "items", "vocabulary": 9, "min_count": 1, "max_count": 6}"""
            else
                """{"kind": "pooled", "features": 3, "classes": 2, "min_count": 2, "max_count": 50,
                    "training_mass": [0.5, 0.5]}"""
        return """
            {"format": "persona.bundle/1", "model": "by-hand", "task": "classification",
             "created_at": "2026-06-01T00:00:00Z",
             "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 3]}],
             "outputs": [{"name": "y", "dtype": "float32", "shape": [1, 2]}],
             "slots": [{"name": "head", "kind": "dense", "out": 2, "in": 3, "rank": 0, "bias": false,
                        "bound": 2.0, "bias_bound": 0.0}],
             "observation": $observation,
             "prototype_count": 2, "base": "base.safetensors",
             "prototypes": "prototypes.safetensors", "golden": "golden.safetensors",
             "programs": [{"target": "by-hand", "precision": "fp32", "path": "programs/trunk.bin",
                "method": "forward", "observe_path": ${if (items) "null" else "\"programs/trunk.bin\""},
                "observe_method": ${if (items) "null" else "\"observe\""},
                "feeds": [{"tensor": "head.weight", "index": ${if (inTwo) "null" else "1"},
                           "input": null, "carries": "effective", "shape": [2, 3],
                           "patch": ${if (inTwo) patch else "null"}}],
                "tolerance": 1e-5, "verified": "executed", "delegation": {},
                "head": ${if (inTwo) head else "null"}}],
             "edit_keys": [{"id": "${cloud.id}", "public_key": "${toBase64(cloud.publicKey)}"}],
             "max_edit_bytes": 4096, "max_observation_bytes": 65536,
             "files": {$files}, "made_by": {}}
            """
            .trimIndent()
    }

    companion object {
        const val SLOT = "head.weight"
        const val DEVICE = "phone-1"
        const val PATCH_AT = 5
        val NOW: Instant = Instant.parse("2026-06-01T12:00:00Z")

        val BASE = listOf(1f, -2f, 0.5f, 0.25f, 3f, -1f)
        val NOTHING = List(6) { 0f }
        val PROTOTYPES = listOf(listOf(0.5f, 0f, 0f, 0f, 0f, 0f), listOf(0f, 0f, 0f, 0f, 0f, -0.75f))
        val EXAMPLE = listOf(0f, 0.125f, 0f, 0f, -0.5f, 0f)
        val GOLDEN = listOf(listOf(1f, 2f, 3f), listOf(-1f, 0.5f, 2f))

        /** W x, row by row. */
        fun output(weight: List<Float>, x: List<Float>): List<Float> =
            weight.chunked(3).map { row -> row[0] * x[0] + row[1] * x[1] + row[2] * x[2] }

        fun plus(one: List<Float>, other: List<Float>) = one.zip(other, Float::plus)

        fun posterior(x: List<Float>) = if (x[0] > 0) listOf(0.75f, 0.25f) else listOf(0.25f, 0.75f)

        fun input(x: List<Float>): List<PortValue> = listOf(FloatTensor(listOf(1, 3), x.toFloatArray()))

        fun matrix(values: List<Float>) = FloatTensor(listOf(2, 3), values.toFloatArray())

        private fun container(format: String, tensors: Map<String, PortValue>) =
            Container.encode(tensors, mapOf("format" to format))

        private fun prototypes(items: Boolean): SlotTensors {
            val width = if (items) 10 else 2 * 3 + 2 * 2 + 2 * 3
            val weight = FloatArray(2 * width).also { it[0] = 1f }
            return mapOf(
                "0.$SLOT" to matrix(PROTOTYPES[0]),
                "1.$SLOT" to matrix(PROTOTYPES[1]),
                "assign.mean" to FloatTensor(listOf(width.toLong()), FloatArray(width)),
                "assign.deviation" to FloatTensor(listOf(width.toLong()), FloatArray(width) { 1f }),
                "assign.weight" to FloatTensor(listOf(2, width.toLong()), weight),
                "assign.bias" to FloatTensor(listOf(2), floatArrayOf(0f, 0.5f)),
            )
        }

        private fun golden(items: Boolean): Map<String, PortValue> {
            val out = LinkedHashMap<String, PortValue>()
            fun row(values: List<Float>) = FloatTensor(listOf(1, values.size.toLong()), values.toFloatArray())
            GOLDEN.forEachIndexed { i, x ->
                out["input.$i.x"] = row(x)
                out["base.$i"] = row(output(BASE, x))
                out["edited.$i"] = row(output(plus(BASE, EXAMPLE), x))
                PROTOTYPES.forEachIndexed { k, change ->
                    out["prototype.$k.$i"] = row(output(plus(BASE, change), x))
                }
                if (!items) {
                    out["features.$i"] = row(x)
                    out["posterior.$i"] = row(posterior(x))
                }
            }
            out["edit.$SLOT"] = matrix(EXAMPLE)
            return out
        }

        private fun sha256(data: ByteArray) =
            MessageDigest.getInstance("SHA-256").digest(data).joinToString("") { "%02x".format(it) }

        private fun littleEndian(values: List<Float>): ByteArray {
            val out = ByteBuffer.allocate(4 * values.size).order(ByteOrder.LITTLE_ENDIAN)
            values.forEach(out::putFloat)
            return out.array()
        }
    }
}

/** Computes the test bundle's model: W from the slot input, or from the patched bytes of the head. */
open class ByHandEngine(private val scratch: File? = null) : Engine {
    var weight: List<Float> = emptyList()
        private set

    override fun bind(slots: BoundSlots) {
        weight =
            if (slots.head == null) {
                slots.inputs.single().values.toList()
            } else {
                check(slots.inputs.isEmpty())
                val bytes = ByteBuffer.wrap(slots.writeHead(checkNotNull(scratch)).readBytes())
                bytes.order(ByteOrder.LITTLE_ENDIAN).position(TestBundle.PATCH_AT)
                List(6) { bytes.getFloat() }
            }
    }

    override fun predict(inputs: List<PortValue>): FloatTensor = answer(weight, inputs)

    override fun predictBase(inputs: List<PortValue>): FloatTensor = answer(TestBundle.BASE, inputs)

    override fun observe(inputs: List<PortValue>): Features {
        val x = (inputs.single() as FloatTensor).values.toList()
        val posterior = TestBundle.posterior(x).toFloatArray()
        return Features(
            FloatTensor(listOf(1, 3), x.toFloatArray()),
            FloatTensor(listOf(1, 2), posterior),
        )
    }

    override fun close() = Unit

    private fun answer(weight: List<Float>, inputs: List<PortValue>): FloatTensor {
        val x =
            when (val input = inputs.single()) {
                is FloatTensor -> input.values.toList()
                is LongTensor -> error("the test bundle takes float32")
            }
        return FloatTensor(listOf(1, 2), TestBundle.output(weight, x).toFloatArray())
    }
}
