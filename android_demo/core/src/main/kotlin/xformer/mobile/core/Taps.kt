package xformer.mobile.core

import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.max
import kotlin.math.min

/**
 * The weights of Pillow's antialiased bilinear filter for one axis: section 3 of docs/preprocessing.md.
 *
 * Target sample i is made of the source samples from first(i) on, with the [weights] from start(i) until start(i + 1):
 * fixed-point numbers with [BITS] bits behind the point. [most] is the largest number of them for one target sample.
 */
internal class Taps private constructor(val first: IntArray, val start: IntArray, val weights: IntArray) {
    val most: Int = first.indices.maxOf(::count)

    fun count(target: Int): Int = start[target + 1] - start[target]

    companion object {
        /** What a sum of 32 bits leaves: less 8 of the sample, less 2 spare. */
        const val BITS = 22

        private const val CACHED = 16

        /** A longer table is not kept: it is of a picture, not of a camera's frames. */
        private const val LONGEST_CACHED = 1 shl 15

        private data class Key(val size: Int, val resized: Int, val from: Int, val until: Int)

        private val cache = object : LinkedHashMap<Key, Taps>(CACHED, 0.75f, true) {
            override fun removeEldestEntry(eldest: MutableMap.MutableEntry<Key, Taps>): Boolean = size > CACHED
        }

        /** For the samples [from] until [until] of an axis of [size] samples that becomes [resized]. */
        fun of(size: Int, resized: Int, from: Int, until: Int): Taps {
            val key = Key(size, resized, from, until)
            synchronized(cache) { cache[key] }?.let { return it }
            val made = make(key)
            if (made.weights.size <= LONGEST_CACHED) synchronized(cache) { cache[key] = made }
            return made
        }

        private fun make(key: Key): Taps {
            val scale = key.size.toDouble() / key.resized
            val reach = max(scale, 1.0)
            val inverse = 1.0 / reach
            val count = key.until - key.from
            val most = 2 * ceil(reach).toInt() + 1
            val first = IntArray(count)
            val start = IntArray(count + 1)
            val weights = IntArray(count * most)
            val shares = DoubleArray(most)
            for (i in 0 until count) {
                val centre = (key.from + i + 0.5) * scale
                val low = max((centre - reach + 0.5).toInt(), 0)
                val high = min((centre + reach + 0.5).toInt(), key.size)
                var total = 0.0
                for (j in low until high) {
                    val distance = abs((j - centre + 0.5) * inverse)
                    val share = if (distance < 1.0) 1.0 - distance else 0.0
                    shares[j - low] = share
                    total += share
                }
                first[i] = low
                start[i + 1] = start[i] + high - low
                for (j in 0 until high - low) {
                    weights[start[i] + j] = (0.5 + shares[j] / total * (1 shl BITS)).toInt()
                }
            }
            return Taps(first, start, weights.copyOf(start[count]))
        }
    }
}
