"""The lists of operators that ``quantization.operators`` of a profile names."""

from __future__ import annotations

from edgepack.quantize.operators.accelerators.edgetpu import EDGETPU
from edgepack.quantize.operators.accelerators.ethosu65 import ETHOS_U65
from edgepack.quantize.operators.accelerators.gpu import GPU
from edgepack.quantize.operators.accelerators.limits import OperatorList
from edgepack.quantize.operators.accelerators.vx import VX

__all__ = ["ACCELERATORS", "OperatorList"]

ACCELERATORS = {one.name: one for one in (EDGETPU, ETHOS_U65, GPU, VX)}
