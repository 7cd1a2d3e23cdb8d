package xformer.mobile.core

import java.util.Locale
import kotlin.math.abs
import kotlin.math.log10
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sqrt

/**
 * What an artifact must keep. [relativeMax]: the largest difference as a share of the reference output's range, on the
 * worst picture. [snrDb]: the smallest signal-to-noise ratio, over all pictures together. [agreement]: the share of the
 * task's own results that must agree. Infinite, or 0 for the agreement, where it is not bounded.
 */
public data class Tolerance(
    val relativeMax: Double = Double.POSITIVE_INFINITY,
    val snrDb: Double = Double.NEGATIVE_INFINITY,
    val agreement: Double = 0.0,
)

/**
 * One output over all pictures.
 *
 * [maxAbs] and [meanAbs] are in the output's own unit, [relativeMax] is a share of the reference's range over all
 * pictures (of its largest magnitude where all values are the same): the worst picture's. [snrDb] is 10 log10 of the
 * reference's power over the difference's, both over all pictures (infinite where they are equal), [worstSnrDb] that of
 * the worst picture. [cosine] is that of the angle between the two.
 */
public data class OutputComparison(
    val name: String,
    val maxAbs: Double,
    val meanAbs: Double,
    val relativeMax: Double,
    val snrDb: Double,
    val worstSnrDb: Double,
    val cosine: Double,
)

/** The [share], 0..1, of a task's results that are the same; [name] says which results, [figures] what else differs. */
public data class Agreement(val name: String, val share: Double, val figures: Map<String, Double>)

/** An engine against the reference on so many [images]. */
public class ParityResult(
    public val images: Int,
    public val outputs: List<OutputComparison>,
    public val agreement: Agreement,
    public val tolerance: Tolerance,
) {
    /** One sentence for each bound that is not kept. */
    public val misses: List<String> = outputs.flatMap { misses(it) } + agreementMisses()

    /** Whether every bound is kept. */
    public val passed: Boolean get() = misses.isEmpty()

    // Written so that NaN is a miss.
    private fun misses(output: OutputComparison): List<String> = listOfNotNull(
        if (output.relativeMax <= tolerance.relativeMax) {
            null
        } else {
            format(
                "%s differs by %.2e of its range, %.0e is allowed",
                output.name,
                output.relativeMax,
                tolerance.relativeMax,
            )
        },
        if (output.snrDb >= tolerance.snrDb) {
            null
        } else {
            format(
                "%s has a signal-to-noise ratio of %.1f dB; %.0f dB needed",
                output.name,
                output.snrDb,
                tolerance.snrDb,
            )
        },
    )

    private fun agreementMisses(): List<String> {
        if (agreement.share >= tolerance.agreement) return emptyList()
        return listOf("${agreement.name} is ${percent(agreement.share, 2)}; ${percent(tolerance.agreement, 2)} needed")
    }

    private fun format(text: String, vararg values: Any): String = String.format(Locale.ROOT, text, *values)
}

/**
 * Runs a bundle's golden inputs through an engine and compares its outputs with the reference model's: whether this
 * phone computes what was exported. Figures and formulas are those of xformer_mobile/parity/compare.py.
 */
public object GoldenReplay {
    /**
     * Compares on all golden inputs, one at a time. The tolerance is what the manifest states for [format].
     *
     * [report] is called before each input and at the end; what it throws is passed on. Does not close the engine.
     *
     * @throws BundleException the bundle has no golden inputs or no tolerance for the format, or a file is broken.
     * @throws EngineException the engine failed.
     */
    public fun run(
        bundle: Bundle,
        format: Format,
        engine: Engine,
        decode: PictureDecoder,
        report: (done: Int, of: Int) -> Unit = { _, _ -> },
    ): ParityResult {
        val stated = bundle.manifest.parity[format.id] ?: throw BundleException(
            "the bundle states no tolerance for ${format.id}: it was exported with --no-verify; export it without",
        )
        val count = bundle.manifest.golden.size
        if (count == 0) throw BundleException("the bundle has no golden inputs; export it again")
        val checked = engine.checkedBy(bundle)
        val outputs = bundle.outputShapes.keys.map(::OutputFigures)
        val agreement = AgreementFigures.of(bundle.postprocess(), bundle.imageSize)
        bundle.golden(decode).forEachIndexed { index, case ->
            report(index, count)
            val found = checked.run(case.image)
            for (output in outputs) output.add(case.outputs.getValue(output.name), found.getValue(output.name))
            agreement.add(case.outputs, found)
        }
        report(count, count)
        return ParityResult(count, outputs.map { it.result() }, agreement.result(), toleranceOf(stated))
    }

    private fun toleranceOf(stated: Manifest.Parity): Tolerance {
        val open = Tolerance()
        return Tolerance(
            stated.tolerance["relative_max"] ?: open.relativeMax,
            stated.tolerance["snr_db"] ?: open.snrDb,
            stated.tolerance["agreement"] ?: open.agreement,
        )
    }
}

/** The figures of one output, gathered picture by picture. */
private class OutputFigures(val name: String) {
    private var low = Double.POSITIVE_INFINITY
    private var high = Double.NEGATIVE_INFINITY
    private var maxAbs = 0.0
    private var meanAbs = 0.0
    private var signal = 0.0
    private var noise = 0.0
    private var worstSnrDb = Double.POSITIVE_INFINITY
    private var product = 0.0
    private var foundPower = 0.0

    fun add(reference: Tensor, found: Tensor) {
        var sumAbs = 0.0
        var signalHere = 0.0
        var noiseHere = 0.0
        for (i in reference.values.indices) {
            val a = reference.values[i].toDouble()
            val b = found.values[i].toDouble()
            val difference = abs(a - b)
            low = min(low, a)
            high = max(high, a)
            maxAbs = max(maxAbs, difference) // NaN stays
            sumAbs += difference
            signalHere += a * a
            noiseHere += difference * difference
            product += a * b
            foundPower += b * b
        }
        meanAbs = max(meanAbs, sumAbs / reference.values.size)
        worstSnrDb = min(worstSnrDb, snrDb(signalHere, noiseHere))
        signal += signalHere
        noise += noiseHere
    }

    fun result(): OutputComparison {
        val span = if (high != low) high - low else abs(high)
        val relativeMax = when {
            maxAbs == 0.0 -> 0.0
            span == 0.0 -> Double.POSITIVE_INFINITY
            else -> maxAbs / span
        }
        return OutputComparison(name, maxAbs, meanAbs, relativeMax, snrDb(signal, noise), worstSnrDb, cosine())
    }

    private fun snrDb(signal: Double, noise: Double): Double = when {
        noise == 0.0 -> Double.POSITIVE_INFINITY
        signal == 0.0 || !noise.isFinite() -> Double.NEGATIVE_INFINITY
        else -> 10 * log10(signal / noise)
    }

    /** 1 where the two are the same, also where both are zero; NaN where only one is. */
    private fun cosine(): Double = when {
        signal == 0.0 && foundPower == 0.0 -> 1.0
        signal == 0.0 || foundPower == 0.0 -> Double.NaN
        else -> product / sqrt(signal * foundPower)
    }
}

/** A task's own agreement, gathered picture by picture. */
private interface AgreementFigures {
    fun add(reference: Outputs, found: Outputs)

    fun result(): Agreement

    companion object {
        fun of(postprocess: Postprocess, imageSize: ImageSize): AgreementFigures = when (postprocess.task) {
            Task.CLASSIFY -> TopClasses()
            Task.DETECT -> MatchedBoxes(checkNotNull(postprocess.detection), postprocess.labels, imageSize)
            Task.SEGMENT -> ClassMaps(postprocess.labels.size)
        }
    }
}

/** Classes whose reference logits are nearer than this share of the range are a tie: either is right. */
private const val TIE = 1e-5f

/** A box of one side may be this far below the score threshold on the other. */
private const val BOX_SCORE_SLACK = 1e-3

/** Corners of the same box may differ by this share of the input's longer side. */
private const val BOX_CORNER_SLACK = 0.01

/** How near the largest logit another may be to count as the largest too. */
private fun tie(logits: FloatArray): Float = TIE * (logits.max() - logits.min())

/** Whether the picture's class is the same. */
private class TopClasses : AgreementFigures {
    private var pictures = 0
    private var same = 0
    private var shared = 0.0
    private var compared = 0

    override fun add(reference: Outputs, found: Outputs) {
        val a = reference.getValue(LOGITS).values
        val b = found.getValue(LOGITS).values
        compared = min(COMPARED, a.size)
        if (a[largest(b, 0, 1, b.size)] >= a.max() - tie(a)) same++
        val best = fallingOrder(a).take(compared).toSet()
        shared += fallingOrder(b).take(compared).count { it in best }.toDouble() / compared
        pictures++
    }

    override fun result(): Agreement = Agreement(
        "top-1 agreement",
        same.toDouble() / pictures,
        mapOf("top-$compared in common" to shared / pictures),
    )

    private companion object {
        const val COMPARED = 5
    }
}

/** The channel with the largest value of those [step] apart; of equal ones the lowest; the first NaN is the largest. */
private fun largest(values: FloatArray, start: Int, step: Int, channels: Int): Int {
    var best = 0
    for (channel in 0 until channels) {
        val value = values[start + channel * step]
        if (value.isNaN()) return channel
        if (value > values[start + best * step]) best = channel
    }
    return best
}

/** Whether the classes of the pixels are the same. */
private class ClassMaps(private val classes: Int) : AgreementFigures {
    private var pixels = 0L
    private var same = 0L
    private val shared = LongArray(classes)
    private val ofReference = LongArray(classes)
    private val ofFound = LongArray(classes)

    override fun add(reference: Outputs, found: Outputs) {
        val a = reference.getValue(LOGITS).values
        val b = found.getValue(LOGITS).values
        val tie = tie(a)
        val plane = a.size / classes
        for (pixel in 0 until plane) {
            val first = largest(a, pixel, plane, classes)
            val second = largest(b, pixel, plane, classes)
            if (a[pixel + second * plane] >= a[pixel + first * plane] - tie) same++
            if (first == second) shared[first]++
            ofReference[first]++
            ofFound[second]++
        }
        pixels += plane
    }

    override fun result(): Agreement {
        val overlaps = (0 until classes).mapNotNull { index ->
            val union = ofReference[index] + ofFound[index] - shared[index]
            if (union > 0) shared[index].toDouble() / union else null
        }
        val figures = mapOf("mean IoU of the class maps" to overlaps.average())
        return Agreement("pixel agreement", same.toDouble() / pixels, figures)
    }
}

/** Whether the boxes of either side are on the other side too. */
private class MatchedBoxes(
    private val rule: DetectionRule,
    private val labels: List<String>,
    imageSize: ImageSize,
) : AgreementFigures {
    private val lenient = rule.copy(scoreThreshold = max(0.0, rule.scoreThreshold - BOX_SCORE_SLACK).toFloat())
    private val size = Size(imageSize.width, imageSize.height)
    private val whole = Fit(size, size, Point(0, 0), size)
    private val slack = BOX_CORNER_SLACK * max(size.width, size.height)
    private var total = 0
    private val overlaps = mutableListOf<Double>()
    private var scoreDifference = 0.0

    override fun add(reference: Outputs, found: Outputs) {
        for ((side, other) in listOf(reference to found, found to reference)) {
            val candidates = detect(other, lenient, labels, whole).toMutableList()
            for (item in detect(side, rule, labels, whole)) {
                total++
                val twin = candidates.find { isSame(item, it) } ?: continue
                candidates.remove(twin)
                overlaps += overlap(item.box, twin.box)
                scoreDifference = max(scoreDifference, abs(item.score.toDouble() - twin.score))
            }
        }
    }

    private fun isSame(a: Detection, b: Detection): Boolean =
        a.index == b.index && corners(a.box).zip(corners(b.box)).all { (x, y) -> abs(x - y) <= slack }

    private fun corners(box: Box): List<Double> = listOf(box.x1, box.y1, box.x2, box.y2).map(Float::toDouble)

    /** The intersection over union; 1 where both are empty. */
    private fun overlap(a: Box, b: Box): Double {
        val width = max(0.0, min(a.x2, b.x2).toDouble() - max(a.x1, b.x1))
        val height = max(0.0, min(a.y2, b.y2).toDouble() - max(a.y1, b.y1))
        val union = area(a) + area(b) - width * height
        return if (union > 0) width * height / union else 1.0
    }

    private fun area(box: Box): Double = (box.x2.toDouble() - box.x1) * (box.y2.toDouble() - box.y1)

    override fun result(): Agreement {
        val figures = if (overlaps.isEmpty()) {
            emptyMap()
        } else {
            mapOf(
                "mean IoU of matched boxes" to overlaps.average(),
                "least IoU of matched boxes" to overlaps.min(),
                "largest difference of their scores" to scoreDifference,
            )
        }
        return Agreement("box agreement", if (total > 0) overlaps.size.toDouble() / total else 1.0, figures)
    }
}
