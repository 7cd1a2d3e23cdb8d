package xformer.mobile.demo.geometry

import kotlin.math.cos
import kotlin.math.sin

/**
 * A map of the plane, `x' = a x + b y + c` and `y' = d x + e y + f`; x goes right, y down, as on a screen.
 *
 * Apart from `android.graphics.Matrix` so that it runs without Android.
 */
data class Affine(val a: Double, val b: Double, val c: Double, val d: Double, val e: Double, val f: Double) {
    /** This map first, then [next]. */
    fun then(next: Affine): Affine = Affine(
        next.a * a + next.b * d,
        next.a * b + next.b * e,
        next.a * c + next.b * f + next.c,
        next.d * a + next.e * d,
        next.d * b + next.e * e,
        next.d * c + next.e * f + next.f,
    )

    /** Where the point (x, y) comes to. */
    fun map(x: Double, y: Double): Pair<Double, Double> = Pair(a * x + b * y + c, d * x + e * y + f)

    /** The smallest upright rectangle around [rectangle] after the map. */
    fun map(rectangle: Rectangle): Rectangle {
        val corners = listOf(rectangle.left, rectangle.right).flatMap { x ->
            listOf(rectangle.top, rectangle.bottom).map { y -> map(x.toDouble(), y.toDouble()) }
        }
        return Rectangle(
            corners.minOf { it.first }.toFloat(),
            corners.minOf { it.second }.toFloat(),
            corners.maxOf { it.first }.toFloat(),
            corners.maxOf { it.second }.toFloat(),
        )
    }

    /** The nine values of `Matrix.setValues`. */
    fun values(): FloatArray = doubleArrayOf(a, b, c, d, e, f, 0.0, 0.0, 1.0).map { it.toFloat() }.toFloatArray()

    companion object {
        fun translate(x: Double, y: Double): Affine = Affine(1.0, 0.0, x, 0.0, 1.0, y)

        fun scale(x: Double, y: Double): Affine = Affine(x, 0.0, 0.0, 0.0, y, 0.0)

        /** Clockwise on the screen, about the origin. */
        fun rotate(degrees: Int): Affine {
            val radians = Math.toRadians(degrees.toDouble())
            return Affine(cos(radians), -sin(radians), 0.0, sin(radians), cos(radians), 0.0)
        }
    }
}
