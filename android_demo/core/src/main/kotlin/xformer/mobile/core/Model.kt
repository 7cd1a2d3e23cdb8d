package xformer.mobile.core

import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

/** What a model does with a picture; [id] is its name in a manifest. */
@Serializable
public enum class Task(public val id: String) {
    /** One class for the picture. */
    @SerialName("classify")
    CLASSIFY("classify"),

    /** Boxes with a class each. */
    @SerialName("detect")
    DETECT("detect"),

    /** A class for each pixel. */
    @SerialName("segment")
    SEGMENT("segment"),
}

/** How a picture is fitted to the input, see [Fit]; [id] is its name in a manifest. */
@Serializable
public enum class ResizeRule(public val id: String) {
    /** Stretched to the input's size. */
    @SerialName("resize")
    RESIZE("resize"),

    /** Inside the input, its shape kept, padded with grey. */
    @SerialName("letterbox")
    LETTERBOX("letterbox"),

    /** Covers 9/8 of the input, its shape kept, and the middle cut out. */
    @SerialName("resize_shorter_center_crop")
    RESIZE_SHORTER_CENTER_CROP("resize_shorter_center_crop"),
}

/** What an artifact is; [id] is its name in a manifest. */
@Serializable
public enum class Format(public val id: String) {
    /** A model.onnx. */
    @SerialName("onnx")
    ONNX("onnx"),

    /** ONNX Runtime's own: a model.ort. */
    @SerialName("ort")
    ORT("ort"),

    /** A model.tflite. */
    @SerialName("tflite")
    TFLITE("tflite"),

    /** A model.mlpackage: a directory, unlike the others, and nothing that runs here. */
    @SerialName("coreml")
    COREML("coreml"),

    /** A model.pte. */
    @SerialName("executorch")
    EXECUTORCH("executorch"),
}

/**
 * Height and width of a model's input in pixels.
 *
 * @throws UsageException a side is not a multiple of 64 from 64 to 4096.
 */
public data class ImageSize(val height: Int, val width: Int) {
    init {
        if (!isSide(height) || !isSide(width)) {
            throw UsageException(
                "image size ${height}x$width is not valid: both sides must be multiples of $STRIDE, " +
                    "from $STRIDE to $MAX_SIDE",
            )
        }
    }

    /** Height x width, such as "320x512". */
    override fun toString(): String = "${height}x$width"

    internal companion object {
        const val STRIDE = 64
        const val MAX_SIDE = 4096

        fun isSide(side: Int): Boolean = side in STRIDE..MAX_SIDE && side % STRIDE == 0
    }
}

/** A place in pixels: [x] goes right, [y] down. */
public data class Point(val x: Int, val y: Int)

/** Width and height in pixels. */
public data class Size(val width: Int, val height: Int)

/** A color, 0..255 each. */
public data class Rgb(val red: Int, val green: Int, val blue: Int)

/** The version of this library. */
public const val VERSION: String = "0.1.0"
