package dev.persona.checks

import dev.persona.demo.runtime.ExecuTorchEngine
import dev.persona.device.Bundle
import dev.persona.device.CloudClient
import dev.persona.device.Device
import dev.persona.device.OnBase
import dev.persona.device.OnEdit
import dev.persona.device.OnPrototype
import dev.persona.device.Outcome
import dev.persona.device.Swap
import dev.persona.device.Window
import dev.persona.formats.Code
import dev.persona.formats.Container
import dev.persona.formats.DetachedSignature
import dev.persona.formats.FloatTensor
import dev.persona.formats.ItemsSpec
import dev.persona.formats.JsonObject
import dev.persona.formats.JsonString
import dev.persona.formats.LongTensor
import dev.persona.formats.PortValue
import dev.persona.formats.PublicKeys
import dev.persona.formats.parseJson
import java.io.File
import java.util.Base64
import kotlin.math.abs
import kotlin.system.exitProcess

/**
 * A phone's whole path, over the app's own engine and the real runtime, against a real cloud:
 *
 *     DevicePath BUNDLE WINDOW CLOUD PUBLISHER_KEY FOLDER OUTPUTS
 *
 * Writes what the base and the edited model gave for each query to OUTPUTS, as safetensors, and the
 * edit to FOLDER; says what held. Ends with 1 at the first thing that does not.
 */
fun main(arguments: Array<String>) {
    val (bundle, window, cloud, key, folder) = arguments
    val path = DevicePath(File(bundle), Container.decode(File(window).readBytes()), cloud, key, File(folder))
    val outputs = path.walk()
    File(arguments[5]).writeBytes(Container.encode(outputs, mapOf("format" to "checks")))
}

private class DevicePath(folder: File, given: Container, private val cloud: String, key: String, private val home: File) {
    private val publisher = PublicKeys(listOf(Base64.getDecoder().decode(key)))
    private val bundle = Bundle.open(folder, publisher)
    private val program = bundle.manifest.program("executorch-xnnpack")
    private val window = window(given)
    private val queries = queries(given)

    private fun values(given: Container, prefix: String): List<PortValue> =
        given.tensors.filterKeys { it.startsWith(prefix) }.toSortedMap().values.map {
            if (it.dtype == "I64") it.longs() else it.floats()
        }

    private fun window(given: Container): Window {
        val found = values(given, "window.")
        return if (bundle.manifest.observation is ItemsSpec) {
            Window.Items((found[0] as LongTensor).values)
        } else {
            Window.Samples(found)
        }
    }

    private fun queries(given: Container): List<List<PortValue>> {
        val count = given.tensors.keys.filter { it.startsWith("query.") }.map { it.split(".")[1] }.distinct().size
        return (0 until count).map { values(given, "query.$it.") }
    }

    fun walk(): Map<String, FloatTensor> {
        val base = onBase()
        val edited = personalised(base)
        restarted(edited)
        takenBack(base)
        offline()
        return named("base", base) + named("edited", edited)
    }

    private fun named(what: String, outputs: List<FloatTensor>) =
        outputs.withIndex().associate { (i, output) -> "$what.$i" to output }

    private fun <T> device(name: String, action: (Device) -> T): T =
        ExecuTorchEngine(bundle.folder, program, home).use { action(Device(bundle, program, it, File(home, name), publisher)) }

    private fun answers(device: Device) = queries.map { device.predict(it) }

    private fun onBase(): List<FloatTensor> = device("phone") { device ->
        expect(device.state == OnBase, "a new device runs the base")
        say("golden outputs of base, ${bundle.manifest.prototypeCount} prototypes and the example edit")
        val outputs = answers(device)
        val baked = queries.map { device.predictBase(it) }
        val apart = outputs.zip(baked).maxOf { (a, b) -> a.values.indices.maxOf { abs(a.values[it] - b.values[it]) } }
        expect(apart <= TOLERANCE, "slots as inputs give what baked weights give, got $apart apart")
        outputs
    }

    private fun personalised(base: List<FloatTensor>): List<FloatTensor> = device("phone") { device ->
        val outcome = device.personalise(CloudClient(cloud), window).outcome
        expect(outcome is Outcome.NewEdit, "the cloud's edit is taken, got $outcome")
        expect(device.state is OnEdit, "the edit runs, got ${device.state}")
        val outputs = answers(device)
        expect(outputs != base, "the edit changes something")
        val (data, signature) = stored()
        File(home, "edit.safetensors").writeBytes(data)
        val again = device.accept(data, signature)
        expect(again is Swap.Refused && again.code == Code.REPLAYED, "the same edit is refused as replayed, got ${again.about}")
        val spoilt = data.copyOf().also { it[it.size - 1] = (it[it.size - 1] + 1).toByte() }
        val other = device.accept(spoilt, signature)
        expect(other is Swap.Refused && other.code == Code.BAD_SIGNATURE, "a changed byte is refused, got ${other.about}")
        expect(answers(device) == outputs, "what ran before runs on, bit for bit")
        val edit = outcome as Outcome.NewEdit
        say("edit of ${edit.bytes} bytes taken, probed and run; replayed and spoilt ones refused")
        outputs
    }

    private fun stored(): Pair<ByteArray, DetachedSignature> {
        val file = File(home, "phone").listFiles()!!.single { it.name.matches(Regex("edit-\\d+\\.safetensors")) }
        val signed = parseJson(File(file.path + ".sig").readBytes()) as JsonObject
        fun field(name: String) = (signed[name] as JsonString).value
        return file.readBytes() to DetachedSignature.ofHeaders(field("key_id"), field("signature"))
    }

    private fun restarted(edited: List<FloatTensor>) = device("phone") { device ->
        expect(device.state is OnEdit, "the edit goes on after a restart, got ${device.state}")
        expect(answers(device) == edited, "its outputs are the same, bit for bit")
        say("after a restart the same edit runs")
    }

    private fun takenBack(base: List<FloatTensor>) = device("phone") { device ->
        device.rollBack()
        expect(answers(device) == base, "rolled back, the base runs bit for bit")
        say("rolled back to the base, bit for bit")
    }

    private fun offline() = device("lonely") { device ->
        val outcome = device.personalise(CloudClient("http://127.0.0.1:9"), window).outcome
        expect(outcome is Outcome.Offline, "a cloud that is not there is offline, got $outcome")
        expect(device.state is OnPrototype, "the phone chooses a prototype, got ${device.state}")
        say("without a cloud it chose ${device.state}")
    }

    private fun say(what: String) = println(what)

    private fun expect(holds: Boolean, what: String) {
        if (!holds) {
            System.err.println("expected: $what")
            exitProcess(1)
        }
    }

    private companion object {
        const val TOLERANCE = 1e-5f
    }
}
