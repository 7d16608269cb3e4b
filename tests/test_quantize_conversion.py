from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from edgepack.quantize.conversion import Conversion, conversion_from_json, conversion_to_json
from edgepack.target import Scheme

_NAMES = st.lists(st.text(max_size=20), max_size=3).map(tuple)
_CONVERSIONS = st.builds(
    Conversion,
    scheme=st.sampled_from(Scheme),
    engine=st.sampled_from(["tensorflow", "litert"]),
    algorithm=st.none() | st.text(max_size=8),
    float_layers=_NAMES,
    int16_layers=_NAMES,
    calibration_rows=st.none() | st.integers(1, 1000),
    calibration_without=st.lists(st.integers(0, 1000), max_size=3).map(tuple),
)


@given(_CONVERSIONS)
def test_a_conversion_survives_json(conversion: Conversion) -> None:
    """What a worker process or a cache key is given is the conversion that was meant, name by name."""
    assert conversion_from_json(json.loads(json.dumps(conversion_to_json(conversion)))) == conversion


def test_a_conversion_without_wishes_is_tensorflows() -> None:
    """Where only the scheme is stated, everything else is as the engine does it by itself."""
    assert conversion_from_json({"scheme": "int8"}) == Conversion(Scheme.INT8)
