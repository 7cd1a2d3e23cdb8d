package xformer.mobile.core

import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Makes a picture of a PNG file's bytes: 8-bit RGB, no color conversion, no scaling. */
public fun interface PictureDecoder {
    /** @throws ImageException it is not a picture. */
    public fun decode(content: ByteArray): RgbImage
}

/**
 * One converted model of a bundle. [file] exists (a directory for [Format.COREML]), is inside the bundle and has the
 * manifest's [sha256].
 */
public class Artifact(
    public val format: Format,
    public val file: File,
    public val sha256: String,
    public val sizeBytes: Long,
)

/** An [image] of the input's size, and what the reference model returns for it, by output name. */
public class GoldenCase(public val name: String, public val image: RgbImage, public val outputs: Outputs)

/**
 * One model at one precision in any number of formats: a directory with a manifest.json (docs/bundle.md).
 *
 * Nothing in it is trusted: the manifest is checked when the bundle is opened, each file when it is asked for. May be
 * used from any thread.
 */
public class Bundle private constructor(
    /** Where the bundle is. */
    public val directory: File,
    /** What it says of itself. */
    public val manifest: Manifest,
) {
    /** What the model does. */
    public val task: Task get() = manifest.model.task

    /** The classes' names, in the order of their indices. */
    public val labels: List<String> get() = manifest.model.labels

    /** fp32, fp16, int8 or int8-weights. */
    public val precision: String get() = manifest.precision

    /** The input's size. */
    public val imageSize: ImageSize = ImageSize(manifest.input.shape[1], manifest.input.shape[2])

    /** How a picture is fitted to the input. */
    public val resizeRule: ResizeRule get() = manifest.input.resize.rule

    /** The outputs' shapes by name, in the manifest's order. */
    public val outputShapes: Map<String, IntArray> = manifest.outputs.associate { it.name to it.shape.toIntArray() }

    /** The formats that the bundle holds. */
    public val formats: List<Format> get() = manifest.artifacts.map { it.format }

    /** Whether the weights were drawn at random: the predictions mean nothing. */
    public val isUntrained: Boolean get() = manifest.model.weights.source == Manifest.WeightsSource.UNTRAINED

    /**
     * The artifact of that format. Reads the whole file, to check it against the manifest.
     *
     * @throws UsageException the bundle has no such format.
     * @throws BundleException the file is missing, leads out of the bundle, or has another sha256.
     */
    public fun artifact(format: Format): Artifact {
        val entry = manifest.artifacts.find { it.format == format }
            ?: throw UsageException(
                "the bundle ${directory.name} has no ${format.id} artifact; it has ${formats.joinToString { it.id }}",
            )
        return Artifact(format, checked(entry), entry.sha256, entry.sizeBytes)
    }

    /** The task's postprocessing, with the manifest's constants. */
    public fun postprocess(): Postprocess {
        val stated = manifest.postprocess
        return when (task) {
            Task.CLASSIFY -> Postprocess(task, labels, topK = checkNotNull(stated.topK))
            Task.DETECT -> Postprocess(task, labels, detection = detectionRule(stated))
            Task.SEGMENT -> Postprocess(
                task,
                labels,
                palette = checkNotNull(stated.palette).map { (red, green, blue) -> Rgb(red, green, blue) },
            )
        }
    }

    private fun detectionRule(stated: Manifest.Postprocess) = DetectionRule(
        anchors = checkNotNull(stated.anchors).map { scale ->
            scale.map { (width, height) -> Anchor(width.toFloat(), height.toFloat()) }
        },
        strides = checkNotNull(stated.strides),
        scoreThreshold = checkNotNull(stated.scoreThreshold).toFloat(),
        iouThreshold = checkNotNull(stated.iouThreshold).toFloat(),
        maxDetections = checkNotNull(stated.maxDetections),
    )

    /**
     * The golden inputs and the reference model's outputs for them, one at a time: each is read when it is asked for.
     *
     * The sequence throws [BundleException] where a file is missing, leads out of the bundle, has another sha256 or
     * another size.
     */
    public fun golden(decode: PictureDecoder): Sequence<GoldenCase> =
        manifest.golden.asSequence().map { entry -> goldenCase(entry, decode) }

    private fun goldenCase(entry: Manifest.Golden, decode: PictureDecoder): GoldenCase {
        val image = try {
            decode.decode(content(entry.input, MAX_PICTURE_BYTES))
        } catch (error: ImageException) {
            throw BundleException("${named(entry.input.file)} can't be used: ${error.message}", error)
        }
        if (image.width != imageSize.width || image.height != imageSize.height) {
            throw BundleException("${named(entry.input.file)} is ${image.height}x${image.width}, not $imageSize")
        }
        val outputs = outputShapes.mapValues { (name, shape) ->
            val stored = entry.outputs[name]
                ?: throw BundleException("the golden outputs for ${named(entry.input.file)} lack ${quote(name)}")
            floats(stored, shape)
        }
        return GoldenCase(entry.input.file.substringAfterLast('/').substringBeforeLast('.'), image, outputs)
    }

    private fun floats(stored: Manifest.FileEntry, shape: IntArray): Tensor {
        val size = Float.SIZE_BYTES * volume(shape).toInt()
        val content = content(stored, size)
        if (content.size != size) {
            throw BundleException("${named(stored.file)} does not have the shape ${describe(shape)}")
        }
        val values = FloatArray(content.size / Float.SIZE_BYTES)
        ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values)
        return Tensor(shape, values)
    }

    /** Reads every file that the manifest names and checks its sha256. */
    internal fun verify() {
        manifest.artifacts.forEach(::checked)
        manifest.fileEntries().forEach(::checked)
    }

    private fun checked(entry: Manifest.Artifact): File =
        checked(entry.file, entry.sha256, isDirectory = entry.format == Format.COREML)

    private fun checked(entry: Manifest.FileEntry): File = checked(entry.file, entry.sha256, isDirectory = false)

    private fun checked(path: String, sha256: String, isDirectory: Boolean): File = reading(path) {
        val file = existing(path, isDirectory)
        checkSha256(path, sha256, if (isDirectory) treeSha256(file) else fileSha256(file))
        file
    }

    /** The content of a file of at most [limit] bytes; what is checked is what is returned. */
    private fun content(entry: Manifest.FileEntry, limit: Int): ByteArray = reading(entry.file) {
        val file = existing(entry.file, isDirectory = false)
        if (file.length() > limit) throw BundleException("${named(entry.file)} has more than $limit bytes")
        val content = file.inputStream().use { it.readAtMost(limit) }
        checkSha256(entry.file, entry.sha256, sha256(content))
        content
    }

    private fun existing(path: String, isDirectory: Boolean): File {
        val file = File(directory, path)
        // The manifest's rule for paths lets none leave the bundle; a symbolic link could.
        if (!file.canonicalFile.startsWith(directory.canonicalFile)) {
            throw BundleException("${named(path)} leads out of it")
        }
        when {
            !file.exists() -> throw BundleException("${named(path)} is missing; the manifest names it")
            isDirectory && !file.isDirectory -> throw BundleException("${named(path)} is not a directory")
            !isDirectory && !file.isFile -> throw BundleException("${named(path)} is not a file")
        }
        return file
    }

    private fun checkSha256(path: String, stated: String, found: String) {
        if (found != stated) {
            throw BundleException(
                "${named(path)} is not the file that the manifest describes: its sha256 is " +
                    "${found.take(12)}..., not ${stated.take(12)}...; it was changed, truncated or exchanged",
            )
        }
    }

    private fun named(path: String): String = "$path of the bundle ${directory.name}"

    private inline fun <T> reading(path: String, block: () -> T): T = try {
        block()
    } catch (error: IOException) {
        throw BundleException("can't read ${named(path)}: ${error.message}", error)
    }

    public companion object {
        /** The largest input as a PNG that is not compressed at all, and what goes with it. */
        private const val MAX_PICTURE_BYTES = 64 shl 20

        /**
         * Reads and checks the manifest. Artifacts are checked when they are asked for.
         *
         * @throws BundleException no bundle, or a manifest that is broken, foreign, or of a newer major version.
         */
        public fun open(directory: File): Bundle {
            val file = File(directory, Manifest.FILE)
            if (!directory.isDirectory) {
                throw BundleException("no bundle at $directory: no such directory; xformer-export makes one")
            }
            if (!file.isFile) throw BundleException("$directory is not a bundle: it has no ${Manifest.FILE}")
            val source = try {
                file.inputStream()
            } catch (error: IOException) {
                throw BundleException("can't read $file: ${error.message}", error)
            }
            return Bundle(directory, source.use { Manifest.read(it, file.path) })
        }
    }
}
