package dev.persona.measure

import dev.persona.device.DurableFiles
import dev.persona.formats.JsonArray
import dev.persona.formats.JsonException
import dev.persona.formats.JsonNull
import dev.persona.formats.JsonReal
import dev.persona.formats.JsonString
import dev.persona.formats.JsonValue
import dev.persona.formats.JsonWhole
import dev.persona.formats.SchemaException
import dev.persona.formats.asWhole
import dev.persona.formats.fields
import dev.persona.formats.formatTime
import dev.persona.formats.jsonObject
import dev.persona.formats.parseJson
import dev.persona.formats.parseTime
import dev.persona.formats.write
import java.io.File
import java.io.IOException
import java.time.Instant

/**
 * One valid run as the history keeps it.
 *
 * @property id its number in this history
 */
data class HistoryEntry(
    val id: Long,
    val at: Instant,
    val model: String,
    val bundle: String,
    val target: String,
    val precision: String,
    val baseP50Us: Double,
    val editedP50Us: Double,
    val editedP90Us: Double,
)

/** Runs of this phone, the oldest first, and the one that others are compared with. */
class MeasurementHistory(private val file: File) {
    private val files = DurableFiles()
    private var kept = load()

    private class Kept(val entries: List<HistoryEntry>, val baseline: Long?)

    /** All runs, the oldest first. */
    val entries: List<HistoryEntry>
        get() = kept.entries

    /** The run that others are compared with, where one was chosen. */
    val baseline: HistoryEntry?
        get() = kept.entries.firstOrNull { it.id == kept.baseline }

    /** Keeps a valid run. The oldest beyond [MOST] go, but never the baseline. */
    fun add(record: BenchmarkRecord): HistoryEntry {
        require(record.validity.isValid) { "only valid runs are kept: ${record.validity.reasons}" }
        val entry =
            HistoryEntry(
                id = (kept.entries.maxOfOrNull { it.id } ?: 0) + 1,
                at = record.at,
                model = record.subject.model,
                bundle = record.subject.bundle,
                target = record.subject.target,
                precision = record.subject.precision.text,
                baseP50Us = record.base.p50,
                editedP50Us = record.edited.p50,
                editedP90Us = record.edited.p90,
            )
        val newest = (kept.entries + entry).takeLast(MOST)
        save(Kept(listOfNotNull(baseline?.takeIf { it !in newest }) + newest, kept.baseline))
        return entry
    }

    /** Compares others with this run from now on; null with none. */
    fun chooseBaseline(entry: HistoryEntry?) = save(Kept(kept.entries, entry?.id))

    private fun save(next: Kept) {
        val document =
            jsonObject(
                "baseline" to (next.baseline?.let(::JsonWhole) ?: JsonNull),
                "runs" to JsonArray(next.entries.map(::toJson)),
            )
        files.write(file, (document.write() + "\n").toByteArray())
        kept = next
    }

    /** What was kept; a file that is not a history is none. */
    private fun load(): Kept =
        try {
            parseJson(file.readBytes()).fields("history") {
                Kept(list("runs", ::readEntry), nullable("baseline", JsonValue::asWhole))
            }
        } catch (_: IOException) {
            Kept(emptyList(), null)
        } catch (_: JsonException) {
            Kept(emptyList(), null)
        } catch (_: SchemaException) {
            Kept(emptyList(), null)
        }

    private fun toJson(entry: HistoryEntry) =
        jsonObject(
            "id" to JsonWhole(entry.id),
            "at" to JsonString(formatTime(entry.at)),
            "model" to JsonString(entry.model),
            "bundle" to JsonString(entry.bundle),
            "target" to JsonString(entry.target),
            "precision" to JsonString(entry.precision),
            "base_p50_us" to JsonReal(entry.baseP50Us),
            "edited_p50_us" to JsonReal(entry.editedP50Us),
            "edited_p90_us" to JsonReal(entry.editedP90Us),
        )

    private fun readEntry(value: JsonValue, path: String): HistoryEntry =
        value.fields(path) {
            HistoryEntry(
                id = whole("id"),
                at = parseTime(string("at")) ?: throw SchemaException("$path.at: expected a time"),
                model = string("model"),
                bundle = string("bundle"),
                target = string("target"),
                precision = string("precision"),
                baseP50Us = real("base_p50_us"),
                editedP50Us = real("edited_p50_us"),
                editedP90Us = real("edited_p90_us"),
            )
        }

    private companion object {
        const val MOST = 200
    }
}

/** How a run stands to the baseline. */
sealed interface Comparison {
    /** [factor] edited p50 ÷ the baseline's: below 1 is faster. */
    data class Comparable(val factor: Double, val verdict: Verdict) : Comparison

    /** Another model, target or precision: there is nothing to compare. */
    object NotComparable : Comparison
}

enum class Verdict {
    FASTER,
    SAME,
    SLOWER,
}

/** Difference of two runs of the same program that noise explains. */
private const val NOISE = 0.05

/** Compares a run with the baseline; another bundle of the same model is what one compares for. */
fun compare(run: HistoryEntry, baseline: HistoryEntry): Comparison {
    fun program(entry: HistoryEntry) = listOf(entry.model, entry.target, entry.precision)
    if (program(run) != program(baseline)) return Comparison.NotComparable
    val factor = run.editedP50Us / baseline.editedP50Us
    val verdict =
        when {
            factor < 1 - NOISE -> Verdict.FASTER
            factor > 1 + NOISE -> Verdict.SLOWER
            else -> Verdict.SAME
        }
    return Comparison.Comparable(factor, verdict)
}
