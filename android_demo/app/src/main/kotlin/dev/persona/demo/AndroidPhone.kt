package dev.persona.demo

import android.content.Context
import android.content.pm.ApplicationInfo
import android.os.Build
import android.os.Debug
import android.os.PowerManager
import android.util.Base64
import dev.persona.demo.runtime.ExecuTorchEngine
import dev.persona.demo.session.Phone
import dev.persona.demo.session.RunningProgram
import dev.persona.formats.Program
import dev.persona.measure.ThermalStatus
import java.io.File
import java.io.IOException

/** The phone that the app runs on. */
class AndroidPhone(private val context: Context) : Phone {
    override val files: File = context.filesDir

    override val debug: Boolean = context.applicationInfo.flags and ApplicationInfo.FLAG_DEBUGGABLE != 0

    override val targets: List<String> = Flavour.targets

    override val machine: String = "${Build.MANUFACTURER} ${Build.MODEL}"

    override val abi: String = Build.SUPPORTED_ABIS.firstOrNull().orEmpty()

    override val system: String = "Android ${Build.VERSION.RELEASE}"

    override val cores: Int = Runtime.getRuntime().availableProcessors()

    override val threads: Int = ExecuTorchEngine.THREADS

    override fun pssKb(): Long = Debug.getPss()

    override fun thermal(): ThermalStatus {
        val power = context.getSystemService(Context.POWER_SERVICE) as PowerManager
        return ThermalStatus.of(NewerAndroid.thermalStatus(power))
    }

    /** PEM files of `assets/publishers`. */
    override fun publishers(): List<ByteArray> =
        context.assets.list(PUBLISHERS).orEmpty().map { name ->
            val pem = context.assets.open("$PUBLISHERS/$name").bufferedReader().use { it.readLines() }
            Base64.decode(pem.filterNot { it.startsWith("-----") }.joinToString(""), Base64.DEFAULT)
        }

    override fun unpackShippedBundle(to: File): Boolean {
        if (context.assets.list(BUNDLE).isNullOrEmpty()) return false
        to.deleteRecursively()
        copy(BUNDLE, to)
        return true
    }

    private fun copy(from: String, to: File) {
        val names = context.assets.list(from).orEmpty()
        if (names.isEmpty()) {
            context.assets.open(from).use { input -> to.outputStream().use { input.copyTo(it) } }
            return
        }
        if (!to.isDirectory && !to.mkdirs()) throw IOException("cannot make $to")
        for (name in names) copy("$from/$name", File(to, name))
    }

    override fun engine(bundle: File, program: Program): RunningProgram {
        val engine = ExecuTorchEngine(bundle, program, context.cacheDir)
        return RunningProgram(engine, engine.delegates(), engine.hasBase)
    }

    private companion object {
        const val PUBLISHERS = "publishers"
        const val BUNDLE = "bundle"
    }
}
