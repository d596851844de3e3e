package dev.persona.demo.runtime

import dev.persona.device.BASE_METHOD
import dev.persona.device.BoundSlots
import dev.persona.device.Engine
import dev.persona.device.EngineException
import dev.persona.device.Features
import dev.persona.formats.FloatTensor
import dev.persona.formats.LongTensor
import dev.persona.formats.PortValue
import dev.persona.formats.Program
import java.io.File
import java.nio.FloatBuffer
import java.nio.LongBuffer
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/**
 * A program of a bundle in ExecuTorch's runtime. Slots are trailing inputs in direct buffers that
 * the runtime reads in place; where the program is in two, its head is written to a file of its
 * own in [scratch] and loaded anew. Outputs are copied, for they lie in the method's memory.
 */
class ExecuTorchEngine(
    private val bundle: File,
    private val program: Program,
    private val scratch: File,
) : Engine {
    private val modules = HashMap<String, Module>()
    private var head: Module? = null
    private var slots: List<EValue> = emptyList()
    private val bound = HashMap<String, List<InputBuffer>>()

    init {
        try {
            loaded(program.path, program.method)
            if (hasBase) loaded(program.path, BASE_METHOD)
            program.observeMethod?.let { loaded(observePath, it) }
        } catch (error: EngineException) {
            close()
            throw error
        }
    }

    /** Whether the program brings the same model with constant weights, to measure against. */
    val hasBase: Boolean
        get() = BASE_METHOD in module(program.path).getMethods()

    /** Which backends run each method's delegates; none means portable kernels on the CPU alone. */
    fun delegates(): Map<String, List<String>> =
        modules.values
            .flatMap { module -> module.getMethods().map { module.getMethodMetadata(it) } }
            .associate { it.name to it.backends.toList() }

    override fun bind(slots: BoundSlots) {
        this.slots = slots.inputs.map { value ->
            InputBuffer.of(value).apply { fill(value) }.argument
        }
        if (slots.head != null) reloadHead(slots)
    }

    /** The old head goes first: XNNPACK keeps packed weights by name while a module lives. */
    private fun reloadHead(slots: BoundSlots) {
        val wanted = checkNotNull(program.head) { "a head came for a program that has none" }
        head?.destroy()
        head = null
        val file = slots.writeHead(scratch)
        head = runtime("load the head") { load(file).apply { loadMethod(wanted.method) } }
    }

    override fun predict(inputs: List<PortValue>): FloatTensor {
        val given = arguments(program.method, inputs) + slots
        val wanted = program.head ?: return output(run(module(program.path), program.method, given)[0])
        val second = head ?: throw EngineException("the head has not been given its slots yet")
        val hidden = run(module(program.path), program.method, given)
        return output(run(second, wanted.method, hidden.toList())[0])
    }

    override fun predictBase(inputs: List<PortValue>): FloatTensor {
        if (!hasBase) {
            throw EngineException("this program has no method '$BASE_METHOD' to measure against")
        }
        return output(run(module(program.path), BASE_METHOD, arguments(BASE_METHOD, inputs))[0])
    }

    override fun observe(inputs: List<PortValue>): Features {
        val method = program.observeMethod
            ?: throw EngineException("this bundle observes item ids; it has no observe program")
        val found = run(module(observePath), method, arguments(method, inputs))
        return Features(output(found[0]), output(found[1]))
    }

    override fun close() {
        modules.values.forEach { it.destroy() }
        head?.destroy()
        modules.clear()
        head = null
    }

    private val observePath: String
        get() = program.observePath ?: program.path

    private fun loaded(path: String, method: String) {
        runtime("load method '$method' of $path") { module(path).loadMethod(method) }
    }

    private fun module(path: String): Module =
        modules.getOrPut(path) { runtime("load $path") { load(File(bundle, path)) } }

    private fun load(file: File): Module = Module.load(file.path, Module.LOAD_MODE_MMAP, THREADS)

    /** A method's inputs in its buffers; they are made once for each form of inputs. */
    private fun arguments(method: String, inputs: List<PortValue>): List<EValue> {
        val before = bound[method]
        val buffers =
            if (before != null && before.size == inputs.size && before.zip(inputs).all { (b, v) -> b.fits(v) }) {
                before
            } else {
                inputs.map { InputBuffer.of(it) }.also { bound[method] = it }
            }
        buffers.zip(inputs).forEach { (buffer, value) -> buffer.fill(value) }
        return buffers.map { it.argument }
    }

    private fun run(module: Module, method: String, given: List<EValue>): Array<EValue> =
        runtime("run method '$method'") { module.execute(method, *given.toTypedArray()) }

    private fun output(value: EValue): FloatTensor {
        val tensor = value.toTensor()
        return FloatTensor(tensor.shape().toList(), tensor.dataAsFloatArray)
    }

    /** The library throws unchecked exceptions of several kinds; all mean that it refuses. */
    private fun <T> runtime(what: String, call: () -> T): T =
        try {
            call()
        } catch (error: RuntimeException) {
            throw EngineException("ExecuTorch cannot $what: ${error.message}", error)
        }

    companion object {
        /** The pool is process-wide, and changing it under loaded methods breaks them. */
        const val THREADS = 1
    }
}

/** One input in native memory, and how to write a value into it. */
private sealed class InputBuffer(val shape: List<Long>) {
    abstract val argument: EValue

    abstract fun fits(value: PortValue): Boolean

    abstract fun fill(value: PortValue)

    class Floats(shape: List<Long>, size: Int) : InputBuffer(shape) {
        private val buffer: FloatBuffer = Tensor.allocateFloatBuffer(size)
        override val argument: EValue = EValue.from(Tensor.fromBlob(buffer, shape.toLongArray()))

        override fun fits(value: PortValue) = value is FloatTensor && value.shape == shape

        override fun fill(value: PortValue) {
            buffer.clear()
            buffer.put((value as FloatTensor).values)
            buffer.rewind()
        }
    }

    class Longs(shape: List<Long>, size: Int) : InputBuffer(shape) {
        private val buffer: LongBuffer = Tensor.allocateLongBuffer(size)
        override val argument: EValue = EValue.from(Tensor.fromBlob(buffer, shape.toLongArray()))

        override fun fits(value: PortValue) = value is LongTensor && value.shape == shape

        override fun fill(value: PortValue) {
            buffer.clear()
            buffer.put((value as LongTensor).values)
            buffer.rewind()
        }
    }

    companion object {
        fun of(value: PortValue): InputBuffer =
            when (value) {
                is FloatTensor -> Floats(value.shape, value.values.size)
                is LongTensor -> Longs(value.shape, value.values.size)
            }
    }
}
