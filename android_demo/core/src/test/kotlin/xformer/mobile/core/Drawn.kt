package xformer.mobile.core

import kotlin.random.Random

/**
 * Whole numbers of 24 bits that any language can draw: the upper ones of a linear congruential generator of 32 bits.
 * Expected values in tests that compare with Python are of the same numbers.
 */
class Drawn(seed: Int) {
    private var state = seed

    fun next(): Int {
        state = state * 1_664_525 + 1_013_904_223
        return state ushr 8
    }

    /** Exact multiples of 2^-20 in -8 until 8. */
    fun floats(count: Int): FloatArray = FloatArray(count) { next() / 1_048_576f - 8f }
}

fun Random.picture(width: Int, height: Int): RgbImage = RgbImage(width, height, nextBytes(3 * width * height))

/** Runs a test for each of so many seeds; a failure names the seed. */
fun forSeeds(count: Int, test: (Random) -> Unit) {
    for (seed in 0 until count) {
        try {
            test(Random(seed))
        } catch (error: Throwable) {
            throw AssertionError("with seed $seed: $error", error)
        }
    }
}

/** The message of a refusal, which is one line of moderate length. */
inline fun <reified T : XFormerException> refusal(block: () -> Unit): String {
    val error = kotlin.test.assertFailsWith<T> { block() }
    val message = checkNotNull(error.message)
    check('\n' !in message && message.length < 1000) { "not one line: $message" }
    return message
}
