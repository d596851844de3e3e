package dev.persona.demo.session

import dev.persona.formats.JsonBoolean
import dev.persona.formats.JsonException
import dev.persona.formats.JsonObject
import dev.persona.formats.JsonString
import dev.persona.formats.jsonObject
import dev.persona.formats.parseJson
import dev.persona.formats.write
import java.io.File
import java.io.IOException

/**
 * What a person chose, kept between starts.
 *
 * @property bundle folder name of the bundle that is run; empty before the first
 */
data class Settings(
    val address: String = "",
    val bundle: String = "",
    val automatic: Boolean = false,
) {
    /** Writes the settings; a reader sees the old or the new ones. */
    fun save(file: File) {
        val document = jsonObject(
            "address" to JsonString(address),
            "bundle" to JsonString(bundle),
            "automatic" to JsonBoolean(automatic),
        )
        val next = File(file.path + ".next")
        next.writeText(document.write())
        if (!next.renameTo(file)) throw IOException("cannot write $file")
    }

    companion object {
        /** The settings of a file; without one, or with one that cannot be read, the first ones. */
        fun load(file: File): Settings {
            val document = try {
                parseJson(file.readBytes()) as? JsonObject
            } catch (_: IOException) {
                null
            } catch (_: JsonException) {
                null
            }
            return Settings(
                address = (document?.get("address") as? JsonString)?.value.orEmpty(),
                bundle = (document?.get("bundle") as? JsonString)?.value.orEmpty(),
                automatic = (document?.get("automatic") as? JsonBoolean)?.value ?: false,
            )
        }
    }
}
