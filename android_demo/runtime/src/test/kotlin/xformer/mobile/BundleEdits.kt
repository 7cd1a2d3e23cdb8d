package xformer.mobile

import java.io.File
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import xformer.mobile.core.Bundle
import xformer.mobile.core.Format

/** A copy of a bundle in [directory], to be damaged: only [formats], and the golden cases. */
internal fun copyOf(name: String, directory: File, formats: List<Format> = Format.entries): File {
    val target = File(directory, name)
    File(Fixtures.bundles, name).copyRecursively(target)
    for (format in Bundle.open(target).formats - formats.toSet()) File(target, "model.${format.id}").delete()
    return target
}

/** Puts [content] in the place of a copy's artifact, and its sha256 and size in the manifest. */
internal fun exchange(bundle: File, format: Format, content: ByteArray) {
    val manifest = File(bundle, "manifest.json")
    val text = manifest.readText()
    val entry = Json.parseToJsonElement(text).jsonObject.getValue("artifacts").jsonArray
        .map { it.jsonObject }.single { it.getValue("format").jsonPrimitive.content == format.id }
    File(bundle, entry.getValue("file").jsonPrimitive.content).writeBytes(content)
    val (oldSha256, oldSize) = listOf("sha256", "size_bytes").map { entry.getValue(it).jsonPrimitive.content }
    manifest.writeText(
        text.replace(oldSha256, sha256(content)).replace("\"size_bytes\": $oldSize", "\"size_bytes\": ${content.size}"),
    )
}
