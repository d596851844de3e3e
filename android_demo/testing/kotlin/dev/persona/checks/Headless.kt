package dev.persona.checks

import dev.persona.demo.session.Benchmark
import dev.persona.demo.session.Settings
import dev.persona.formats.JsonArray
import dev.persona.formats.JsonObject
import dev.persona.formats.JsonReal
import dev.persona.formats.JsonString
import dev.persona.formats.parseJson
import java.io.File

/** The run without hands against a real cloud, and what it says where it cannot. */
internal fun checkHeadless(cloud: String, folder: File) {
    val phone = DesktopPhone(folder.apply { mkdirs() }, publisher = null)
    val settings = File(folder, "settings.json")
    Settings(address = "http://192.168.1.20:8080").save(settings)
    val chosen = settings.readText()
    val lost = Benchmark(phone, bundle = null, endpoint = "http://8.8.8.8", iterations = 50, warmUp = 5).run()
    expect(lost.failed && "CLEARTEXT_TO_PUBLIC" in lost.file.readText(), "a refused address is the reason")
    val found = Benchmark(phone, bundle = null, endpoint = cloud, iterations = 50, warmUp = 5).run()
    expect(!found.failed, "the benchmark ends with a result, got ${found.file.readText()}")
    val figures = (parseJson(found.file.readBytes()) as JsonArray).elements.associate {
        val figure = it as JsonObject
        (figure["metric"] as JsonString).value to (figure["actualValue"] as JsonReal).value
    }
    expect(figures.getValue("edited_over_base(ratio)") > 0, "it holds the ratio")
    expect(settings.readText() == chosen, "a person's address outlives the benchmark, got ${settings.readText()}")
    expect("edit_to_active(ms)" in figures, "the cloud's edit was active, got ${figures.keys}")
}
