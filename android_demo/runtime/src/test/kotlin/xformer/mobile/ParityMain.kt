package xformer.mobile

import java.io.File
import kotlin.system.exitProcess
import xformer.mobile.core.Bundle
import xformer.mobile.core.Format
import xformer.mobile.core.XFormerException

/**
 * Compares every bundle of a directory with what Python made of it, without a test framework:
 *
 *     java -cp CLASSPATH xformer.mobile.ParityMain BUNDLES_DIR OUT.json [PICTURES [NAME...]]
 *
 * With PICTURES, so many of the fixtures' pictures only, and with NAMEs those bundles only: an emulated processor takes
 * seconds for each picture.
 * BUNDLES_DIR is what scripts/app_fixtures.py fills, with expected/ beside it. The formats are onnx and ort;
 * tflite, too, where the property xformer.python names a Python with LiteRT, and xformer.litert-worker its
 * litert_worker.py. Prints a table; exits with 1 if anything differs by more than it may.
 */
public object ParityMain {
    @JvmStatic
    public fun main(arguments: Array<String>) {
        val most = if (arguments.size > 2) arguments[2].toIntOrNull() ?: 0 else Int.MAX_VALUE
        if (arguments.size < 2 || most < 1) {
            System.err.println("usage: ParityMain BUNDLES_DIR OUT.json [PICTURES [NAME...]]")
            exitProcess(2)
        }
        val names = arguments.drop(3)
        val (bundles, target) = arguments.take(2).map(::File)
        val formats = listOf(Format.ONNX, Format.ORT) + listOf(Format.TFLITE).filter { PythonLiteRt.isConfigured }
        val rows = try {
            val found = bundles.list().orEmpty()
                .filter { File(bundles, "$it/manifest.json").isFile && (names.isEmpty() || it in names) }.sorted()
            found.flatMap { name ->
                val present = Bundle.open(File(bundles, name)).formats.filter { it in formats }
                present.map { format ->
                    System.err.println("$name, ${format.id}")
                    Parity.measure(bundles, name, format, most)
                }
            }
        } catch (error: XFormerException) {
            System.err.println("error: ${error.message}")
            exitProcess(1)
        }
        target.absoluteFile.parentFile.mkdirs()
        target.writeText(Parity.toJson(rows).toString() + "\n")
        println(Parity.toMarkdown(rows))
        val misses = rows.flatMap { row ->
            (row.misses + row.golden.misses).map { "${row.bundle}, ${row.format.id}: $it" }
        }
        misses.forEach(::println)
        println("${rows.size} rows on ${System.getProperty("os.arch")}, ${misses.size} misses")
        if (rows.isEmpty() || misses.isNotEmpty()) exitProcess(1)
    }
}
