package dev.persona.formats

/** From JSON to [Manifest]: every field of its type, none unknown, none missing. */
internal fun readManifest(document: JsonValue): Manifest {
    val format = ((document as? JsonObject)?.get("format") as? JsonString)?.value
    if (format != null && format != BUNDLE_FORMAT) {
        throw SchemaException(
            "its format is \"$format\", and this version reads \"$BUNDLE_FORMAT\"; " +
                "export the bundle again, or use a version that reads it"
        )
    }
    return document.fields("manifest") {
        string("format")
        Manifest(
            model = string("model"),
            task = choice("task", Task.values().associateBy { it.text }),
            createdAt = string("created_at"),
            inputs = list("inputs", ::readPort),
            outputs = list("outputs", ::readPort),
            slots = list("slots", ::readSlot),
            observation = readObservationSpec(get("observation"), "manifest.observation"),
            prototypeCount = whole("prototype_count"),
            base = string("base"),
            prototypes = string("prototypes"),
            golden = string("golden"),
            programs = list("programs", ::readProgram),
            editKeys = list("edit_keys", ::readEditKey),
            maxEditBytes = whole("max_edit_bytes"),
            maxObservationBytes = whole("max_observation_bytes"),
            files = map("files", ::readFileDigest),
            madeBy = obj("made_by"),
        )
    }
}

private fun readPort(value: JsonValue, path: String): Port =
    value.fields(path) {
        Port(
            name = string("name"),
            type = choice("dtype", PortType.values().associateBy { it.text }),
            shape = list("shape", JsonValue::asWhole),
            free = if ("free" in this) list("free", ::readDimension) else emptyList(),
        )
    }

private fun readDimension(value: JsonValue, path: String): Dimension =
    value.fields(path) { Dimension(string("name"), whole("min"), whole("max")) }

/** A slot as manifests and the corpus spell it. */
internal fun readSlot(value: JsonValue, path: String): SlotSpec =
    value.fields(path) {
        SlotSpec(
            name = string("name"),
            kind = choice("kind", SlotKind.values().associateBy { it.text }),
            rows = whole("out"),
            columns = whole("in"),
            rank = whole("rank"),
            bias = boolean("bias"),
            bound = real("bound"),
            biasBound = real("bias_bound"),
        )
    }

private fun readProgram(value: JsonValue, path: String): Program =
    value.fields(path) {
        Program(
            target = string("target"),
            precision = choice("precision", Precision.values().associateBy { it.text }),
            path = string("path"),
            method = string("method"),
            observePath = nullable("observe_path", JsonValue::asString),
            observeMethod = nullable("observe_method", JsonValue::asString),
            feeds = list("feeds", ::readFeed),
            tolerance = real("tolerance"),
            verified = choice("verified", Verified.values().associateBy { it.text }),
            delegation = obj("delegation"),
            head = if ("head" in this) nullable("head", ::readHead) else null,
            slotFeed = if ("slot_feed" in this) obj("slot_feed") else JsonObject(emptyMap()),
        )
    }

private fun readHead(value: JsonValue, path: String): Head =
    value.fields(path) { Head(string("path"), string("method")) }

/** A feed as manifests and the corpus spell it. */
internal fun readFeed(value: JsonValue, path: String): Feed =
    value.fields(path) {
        Feed(
            tensor = string("tensor"),
            index = nullable("index", JsonValue::asWhole),
            input = nullable("input", JsonValue::asString),
            carries = choice("carries", Carries.values().associateBy { it.text }),
            shape = list("shape", JsonValue::asWhole),
            patch = if ("patch" in this) nullable("patch", ::readPatch) else null,
        )
    }

private fun readPatch(value: JsonValue, path: String): Patch =
    value.fields(path) {
        choice("dtype", mapOf("F32" to Unit))
        Patch(whole("offset"), whole("length"))
    }

private fun readEditKey(value: JsonValue, path: String): EditKey =
    value.fields(path) { EditKey(string("id"), string("public_key")) }

/** A digest as manifests and the corpus spell it. */
internal fun readFileDigest(value: JsonValue, path: String): FileDigest =
    value.fields(path) { FileDigest(whole("size"), string("sha256")) }
