"""A read-only view of a .tflite file, without TensorFlow: operators, tensors, signatures, where the constants lie."""

from __future__ import annotations

from edgepack.tflite.reader import buffer_regions, is_tflite, read_model
from edgepack.tflite.values import Operator, Signature, Tensor, TfliteModel

__all__ = ["Operator", "Signature", "Tensor", "TfliteModel", "buffer_regions", "is_tflite", "read_model"]
