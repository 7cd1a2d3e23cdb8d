package xformer.mobile.core

import com.networknt.schema.JsonSchema
import com.networknt.schema.JsonSchemaFactory
import com.networknt.schema.SpecVersion
import java.io.File
import kotlin.random.Random

/** A schema of xformer_mobile/schemas. */
fun schema(name: String): JsonSchema =
    JsonSchemaFactory.getInstance(SpecVersion.VersionFlag.V202012)
        .getSchema(File(System.getProperty("xformer.schemas"), "$name.schema.json").readText())

/** Bytes with a few of them flipped, cut out, put twice or exchanged. */
fun mutated(content: ByteArray, random: Random): ByteArray {
    var bytes = content
    repeat(random.nextInt(1, 4)) {
        if (bytes.isEmpty()) return bytes
        val at = random.nextInt(bytes.size)
        val end = minOf(bytes.size, at + random.nextInt(1, 20))
        bytes = when (random.nextInt(5)) {
            0 -> bytes.copyOf().also { it[at] = (it[at].toInt() xor (1 shl random.nextInt(8))).toByte() }
            1 -> bytes.copyOfRange(0, at) + bytes.copyOfRange(end, bytes.size)
            2 -> bytes.copyOfRange(0, end) + bytes.copyOfRange(at, bytes.size)
            3 -> bytes.copyOf().also { it[at] = random.nextInt().toByte() }
            else -> bytes.copyOfRange(0, at + 1)
        }
    }
    return bytes
}
