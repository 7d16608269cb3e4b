"""Which version of each operator a runtime implements.

What the wheels from PyPI register, asked of their own version gate, which refuses a model that names an operator in a
version that it lacks ("Didn't find op for builtin opcode"). tests/test_quantize_conformance_runtimes.py asks the
runtimes again. The registrations themselves: tensorflow/lite/core/kernels/register.cc, of TensorFlow 2.13 and 2.14, and
tflite/core/kernels/register.cc of LiteRT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgepack.target import version_tuple


@dataclass(frozen=True, slots=True)
class RuntimeTable:
    """The highest version of each builtin operator that ``package`` has since ``version``; one left out is not there.

    ``customs`` are the operators that it carries under a name instead of a builtin code.
    """

    package: str
    version: str
    operators: Mapping[str, int] = field(hash=False)
    customs: frozenset[str]

    @property
    def title(self) -> str:
        """For people: "tflite-runtime 2.14"."""
        return f"{self.package} {self.version}"


_TFLITE_2_14: dict[str, int] = {
    "ABS": 5, "ADD": 5, "ADD_N": 1, "ARG_MAX": 3, "ARG_MIN": 3, "ASSIGN_VARIABLE": 1, "ATAN2": 1, "AVERAGE_POOL_2D": 3,
    "BATCH_MATMUL": 4, "BATCH_TO_SPACE_ND": 4, "BIDIRECTIONAL_SEQUENCE_LSTM": 3, "BIDIRECTIONAL_SEQUENCE_RNN": 3,
    "BITCAST": 1, "BITWISE_XOR": 1, "BROADCAST_ARGS": 1, "BROADCAST_TO": 3, "BUCKETIZE": 1, "CALL_ONCE": 1, "CAST": 5,
    "CEIL": 1, "COMPLEX_ABS": 1, "CONCATENATION": 4, "CONV_2D": 7, "CONV_3D": 1, "CONV_3D_TRANSPOSE": 1, "COS": 1,
    "CUMSUM": 1, "DENSIFY": 1, "DEPTHWISE_CONV_2D": 7, "DEPTH_TO_SPACE": 2, "DEQUANTIZE": 5, "DIV": 2,
    "DYNAMIC_UPDATE_SLICE": 1, "ELU": 1, "EMBEDDING_LOOKUP": 3, "EMBEDDING_LOOKUP_SPARSE": 1, "EQUAL": 4, "EXP": 2,
    "EXPAND_DIMS": 1, "FAKE_QUANT": 2, "FILL": 4, "FLOOR": 1, "FLOOR_DIV": 3, "FLOOR_MOD": 2, "FULLY_CONNECTED": 10,
    "GATHER": 6, "GATHER_ND": 4, "GELU": 2, "GREATER": 2, "GREATER_EQUAL": 3, "HARD_SWISH": 1, "HASHTABLE": 1,
    "HASHTABLE_FIND": 1, "HASHTABLE_IMPORT": 1, "HASHTABLE_LOOKUP": 1, "HASHTABLE_SIZE": 1, "IF": 1, "IMAG": 1,
    "L2_NORMALIZATION": 2, "L2_POOL_2D": 1, "LEAKY_RELU": 2, "LESS": 3, "LESS_EQUAL": 2,
    "LOCAL_RESPONSE_NORMALIZATION": 1, "LOG": 1, "LOGICAL_AND": 1, "LOGICAL_NOT": 1, "LOGICAL_OR": 1, "LOGISTIC": 3,
    "LOG_SOFTMAX": 2, "LSH_PROJECTION": 1, "LSTM": 4, "MATRIX_DIAG": 1, "MATRIX_SET_DIAG": 1, "MAXIMUM": 4,
    "MAX_POOL_2D": 3, "MEAN": 3, "MINIMUM": 4, "MIRROR_PAD": 3, "MUL": 7, "MULTINOMIAL": 1, "NEG": 1,
    "NON_MAX_SUPPRESSION_V4": 1, "NON_MAX_SUPPRESSION_V5": 1, "NOT_EQUAL": 3, "ONE_HOT": 1, "PACK": 4, "PAD": 4,
    "PADV2": 4, "POW": 1, "PRELU": 1, "QUANTIZE": 3, "RANDOM_STANDARD_NORMAL": 1, "RANDOM_UNIFORM": 1, "RANGE": 2,
    "RANK": 1, "READ_VARIABLE": 1, "REAL": 1, "REDUCE_ALL": 1, "REDUCE_ANY": 1, "REDUCE_MAX": 3, "REDUCE_MIN": 3,
    "REDUCE_PROD": 2, "RELU": 3, "RELU6": 3, "RELU_0_TO_1": 1, "RELU_N1_TO_1": 1, "RESHAPE": 1, "RESIZE_BILINEAR": 4,
    "RESIZE_NEAREST_NEIGHBOR": 4, "REVERSE_SEQUENCE": 1, "REVERSE_V2": 3, "RFFT2D": 1, "RIGHT_SHIFT": 1, "RNN": 3,
    "ROUND": 1, "RSQRT": 2, "SCATTER_ND": 1, "SEGMENT_SUM": 1, "SELECT": 4, "SELECT_V2": 2, "SHAPE": 1, "SIGN": 2,
    "SIN": 1, "SKIP_GRAM": 1, "SLICE": 6, "SOFTMAX": 3, "SPACE_TO_BATCH_ND": 4, "SPACE_TO_DEPTH": 2,
    "SPARSE_TO_DENSE": 3, "SPLIT": 4, "SPLIT_V": 2, "SQRT": 1, "SQUARE": 1, "SQUARED_DIFFERENCE": 2, "SQUEEZE": 2,
    "STRIDED_SLICE": 8, "SUB": 5, "SUM": 2, "SVDF": 4, "TANH": 3, "TILE": 3, "TOPK_V2": 3, "TRANSPOSE": 6,
    "TRANSPOSE_CONV": 4, "UNIDIRECTIONAL_SEQUENCE_LSTM": 4, "UNIDIRECTIONAL_SEQUENCE_RNN": 3, "UNIQUE": 1, "UNPACK": 4,
    "UNSORTED_SEGMENT_MAX": 1, "UNSORTED_SEGMENT_MIN": 1, "UNSORTED_SEGMENT_PROD": 1, "UNSORTED_SEGMENT_SUM": 1,
    "VAR_HANDLE": 1, "WHERE": 2, "WHILE": 1, "ZEROS_LIKE": 1,
}  # fmt: skip

# Only what differs from 2.14.
_TFLITE_2_13: dict[str, int] = {
    "CONCATENATION": 3, "PACK": 3, "RANGE": 1, "SELECT": 3, "SELECT_V2": 1, "SLICE": 5, "STRIDED_SLICE": 6,
}  # fmt: skip
# Only what differs from 2.3.
_LITERT_2_1: dict[str, int] = {
    "ADD": 5, "BROADCAST_TO": 3, "CAST": 8, "CONCATENATION": 4, "COS": 1, "DEQUANTIZE": 7, "DYNAMIC_UPDATE_SLICE": 4,
    "EMBEDDING_LOOKUP": 4, "FILL": 4, "GATHER": 7, "GATHER_ND": 5, "GELU": 2, "MUL": 7, "PACK": 4, "PAD": 5, "PADV2": 5,
    "QUANTIZE": 4, "REVERSE_V2": 3, "SIN": 1, "SLICE": 7, "SOFTMAX": 3, "SPLIT": 4, "SPLIT_V": 2, "TRANSPOSE": 7,
    "UNPACK": 4,
}  # fmt: skip
_LITERT_2_3: dict[str, int] = {
    "ADD": 6, "BROADCAST_TO": 4, "CAST": 9, "CONCATENATION": 7, "CONV_2D": 8, "COS": 2, "DEQUANTIZE": 9, "DILATE": 1,
    "DYNAMIC_UPDATE_SLICE": 6, "EMBEDDING_LOOKUP": 5, "EQUAL": 5, "FILL": 5, "FULLY_CONNECTED": 14, "GATHER": 8,
    "GATHER_ND": 6, "GELU": 3, "LOG": 2, "MUL": 8, "NOT_EQUAL": 4, "PACK": 5, "PAD": 6, "PADV2": 6, "QUANTIZE": 6,
    "REDUCE_WINDOW": 1, "REVERSE_V2": 4, "RSQRT": 3, "SIN": 2, "SLICE": 8, "SOFTMAX": 4, "SPLIT": 5, "SPLIT_V": 3,
    "SQRT": 2, "STABLEHLO_ADD": 1, "STABLEHLO_AND": 1, "STABLEHLO_CASE": 1, "STABLEHLO_COMPOSITE": 1,
    "STABLEHLO_GATHER": 1, "STABLEHLO_MAXIMUM": 1, "STABLEHLO_MINIMUM": 1, "STABLEHLO_MULTIPLY": 1,
    "STABLEHLO_PAD": 1, "STABLEHLO_REDUCE_WINDOW": 1, "STABLEHLO_RNG_BIT_GENERATOR": 1, "STABLEHLO_SCATTER": 1,
    "STABLEHLO_SHIFT_LEFT": 1, "TRANSPOSE": 9, "TRANSPOSE_CONV": 5, "UNPACK": 6,
}  # fmt: skip

_CUSTOMS = frozenset({"AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess"})
_LITERT_CUSTOMS = _CUSTOMS | {"aeq.hadamard_rotation", "odml.scaled_dot_product_attention"}

RUNTIMES: tuple[RuntimeTable, ...] = (
    RuntimeTable("tflite-runtime", "2.13", _TFLITE_2_14 | _TFLITE_2_13, _CUSTOMS),
    RuntimeTable("tflite-runtime", "2.14", _TFLITE_2_14, _CUSTOMS),
    RuntimeTable("ai-edge-litert", "2.1", _TFLITE_2_14 | _LITERT_2_3 | _LITERT_2_1, _LITERT_CUSTOMS),
    RuntimeTable("ai-edge-litert", "2.3", _TFLITE_2_14 | _LITERT_2_3, _LITERT_CUSTOMS),
)
"""Each package's versions, oldest first."""

TF_SELECT = "Flex"
"""What the names of TF Select operators begin with: TensorFlow's own kernels, which no wheel of these runtimes has.

https://ai.google.dev/edge/litert/models/ops_select
"""


def runtime_table(package: str, version: str | None) -> RuntimeTable:
    """What a runtime implements: the newest table that is not newer than it; the oldest where none is, or for None."""
    tables = [table for table in RUNTIMES if table.package == package]
    wanted = version_tuple(version or "0")
    reached = [table for table in tables if version_tuple(table.version) <= wanted]
    return reached[-1] if reached else tables[0]
