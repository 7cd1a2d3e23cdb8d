"""Which ops a delegate or provider takes, as its makers list them, with where and in which version that was looked up.

Only what is told by an op's name. What depends on its operands is in :mod:`xformer_mobile.forecast.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GPU", "LISTS", "NNAPI_RANK", "ORT_COREML", "ORT_NNAPI", "ORT_QNN", "ORT_XNNPACK", "OpList"]


@dataclass(frozen=True)
class OpList:
    """The ops that ``owner`` takes, by the format's names; ``version`` is what ``source`` was when it was looked up."""

    target: str
    owner: str
    ops: frozenset[str]
    source: str
    version: str


def _ops(names: str) -> frozenset[str]:
    return frozenset(names.split())


ORT_XNNPACK = OpList(
    "xnnpack",
    "ONNX Runtime's XNNPACK provider",
    _ops(
        "AveragePool Conv ConvTranspose Gemm MatMul MaxPool QLinearAveragePool QLinearConv QLinearConvTranspose "
        "QLinearSoftmax Resize Softmax"
    ),
    "https://onnxruntime.ai/docs/execution-providers/Xnnpack-ExecutionProvider.html",
    "March 2026",
)

ORT_NNAPI = OpList(
    "nnapi",
    "ONNX Runtime's NNAPI provider",
    _ops(
        "Abs Add AveragePool BatchNormalization Cast Clip Concat Conv DepthToSpace DequantizeLinear Div Elu Exp "
        "Flatten Floor Gather Gemm GlobalAveragePool GlobalMaxPool Identity LRN LeakyRelu Log MatMul Max MaxPool Min "
        "Mul Neg PRelu Pad Pow QLinearAdd QLinearAveragePool QLinearConv QLinearMatMul QLinearSigmoid QuantizeLinear "
        "ReduceMean Relu Reshape Resize Sigmoid Sin Slice Softmax Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze"
    ),
    "https://github.com/microsoft/onnxruntime/blob/main/tools/ci_build/github/android/nnapi_supported_ops.md",
    "ONNX Runtime 1.31.1",
)

ORT_COREML = OpList(
    "coreml",
    "ONNX Runtime's Core ML provider, with ML programs,",
    _ops(
        "Add And ArgMax AveragePool Cast Ceil Clip Concat Conv ConvTranspose Cos DepthToSpace Div Elu Erf Exp "
        "FusedConv GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool GridSample GroupNormalization HardSigmoid "
        "Identity InstanceNormalization LayerNormalization LeakyRelu MatMul Max MaxPool Mul PRelu Pow QuickGelu "
        "Reciprocal ReduceMax ReduceMean ReduceSum Relu Reshape Resize Round Shape Sigmoid Sin Slice Softmax Softplus "
        "Split Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze Where"
    ),
    "https://github.com/microsoft/onnxruntime/blob/main/tools/ci_build/github/apple/coreml_supported_mlprogram_ops.md",
    "ONNX Runtime 1.31.1",
)

ORT_QNN = OpList(
    "qnn",
    "ONNX Runtime's QNN provider",
    _ops(
        "Abs Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast Ceil Clip Concat Conv ConvTranspose "
        "Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Exp Expand Flatten Floor FusedMatMul GRU Gather "
        "GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample "
        "GroupNormalization HardSigmoid HardSwish If InstanceNormalization Inverse IsInf IsNaN LRN LSTM "
        "LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul MatMulNBits Max "
        "MaxPool Mean Min Mod Mul Neg NonMaxSuppression Not OneHot Or PRelu Pad Pow QLinearMatMul QuantizeLinear "
        "QuickGelu RMSNormalization RandomUniformLike Reciprocal ReduceL2 ReduceLogSumExp ReduceMax ReduceMean "
        "ReduceMin ReduceProd ReduceSum Relu Reshape Resize RoiAlign Round STFT ScatterElements ScatterND Selu Shape "
        "Sigmoid Sign SimplifiedLayerNormalization Sin Slice Softmax SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh "
        "ThresholdedRelu Tile TopK Transpose Unsqueeze Upsample Where Xor"
    ),
    "https://github.com/onnxruntime/onnxruntime-qnn/blob/main/onnxruntime/core/providers/qnn/builder/"
    "op_builder_factory.cc",
    "March 2026, with the release notes of 2.4.0 and 2.5.0",
)

GPU = OpList(
    "gpu",
    "LiteRT's GPU delegate",
    _ops(
        "ABS ADD ADD_N AVERAGE_POOL_2D BATCH_MATMUL CAST CONCATENATION CONV_2D COS CUMSUM DENSIFY DEPTHWISE_CONV_2D "
        "DEPTH_TO_SPACE DEQUANTIZE DIV ELU EQUAL EXP FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GELU GREATER "
        "GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN "
        "MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2 POW PRELU QUANTIZE REDUCE_MAX REDUCE_MIN "
        "REDUCE_PROD RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SELECT "
        "SELECT_V2 SIGN SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE STRIDED_SLICE "
        "SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV UNPACK"
    ),
    "https://github.com/google-ai-edge/LiteRT/blob/main/tflite/delegates/gpu/common/model_builder.cc",
    "August 2026",
)

LISTS = (ORT_XNNPACK, ORT_NNAPI, ORT_COREML, ORT_QNN, GPU)

NNAPI_RANK = _ops(
    "Add BatchNormalization Concat Div Flatten Gather LeakyRelu Mul PRelu Pad Pow ReduceMean Reshape Slice Softmax "
    "Squeeze Sub Transpose Unsqueeze"
)
"""The ops whose builders in ONNX Runtime's NNAPI provider refuse operands of more than four axes."""
