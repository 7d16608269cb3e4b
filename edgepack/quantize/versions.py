"""Operator versions that say what a model needs, written into the file. Runs in the worker process.

litert-quantizer 0.11 leaves version 1 on every operator. A runtime's version gate then lets in what its kernels compute
wrongly: tflite-runtime 2.14 loads a dense layer with a scale per channel and answers garbage. With the true version
in the file every runtime refuses what it lacks, whoever loads the model.
"""

from __future__ import annotations

import copy
from pathlib import Path

from edgepack.quantize.legacy import read_objects, write_objects
from edgepack.quantize.operators import needed_version
from edgepack.tflite import read_model


def correct_versions(path: Path) -> bytes | None:
    """The model with the version that each operator's tensors ask for; None where the file says so already."""
    seen = read_model(path)
    needed = {(one.subgraph, one.index): needed_version(seen, one) for one in seen.operators if one.custom_name is None}
    if all(needed.get((one.subgraph, one.index), one.version) == one.version for one in seen.operators):
        return None
    model = read_objects(path.read_bytes())
    codes = list(model.operatorCodes)
    model.operatorCodes = []
    numbers: dict[tuple[int, int], int] = {}
    for place, subgraph in enumerate(model.subgraphs):
        for index, operator in enumerate(subgraph.operators or ()):
            version = needed.get((place, index), codes[operator.opcodeIndex].version)
            key = (operator.opcodeIndex, version)
            if key not in numbers:
                numbers[key] = len(model.operatorCodes)
                model.operatorCodes.append(copy.copy(codes[operator.opcodeIndex]))
                model.operatorCodes[-1].version = version
            operator.opcodeIndex = numbers[key]
    return write_objects(model)
