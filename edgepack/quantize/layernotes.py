"""Compares a quantized model's layers with the float model's, and says what is worth a note."""

from __future__ import annotations

from pathlib import Path

from edgepack.documents import Finding
from edgepack.errors import MisfitError
from edgepack.quantize.arrays import Port
from edgepack.quantize.checking import CheckedSamples
from edgepack.quantize.diagnosis import LAYER_ROWS, bad_layers
from edgepack.quantize.layers import Layers
from edgepack.quantize.workshop import Workshop


def layer_notes(
    shop: Workshop, float_model: Path, quantized: Path, inputs: tuple[Port, ...], samples: CheckedSamples | None
) -> tuple[Layers | None, tuple[Finding, ...]]:
    """The error of each layer, and a note on the first bad one.

    None and "layers-not-compared" where this machine cannot run either model with every tensor kept: the model itself
    may be as good as any.
    """
    try:
        layers = shop.layers(float_model, quantized, inputs, samples, LAYER_ROWS)
    except MisfitError as refusal:
        return None, (
            Finding(
                "layers-not-compared",
                "note",
                quantized.name,
                f"Its layers were not compared with the float model's. {refusal.message}",
                "Look at the accuracy alone.",
            ),
        )
    return layers, bad_layers(layers)
