"""How much runs resemble their neighbours, and how many independent ones they are worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Dependence:
    """What autocorrelation does to the variance of a mean over a series.

    ``inflation`` (at least 1) is by how much it is larger than that of as many independent values, ``freedom`` the
    degrees of freedom with which that is known. ``found`` says whether any autocorrelation stands out of chance.
    """

    inflation: float
    freedom: float
    found: bool


def dependence(series: Array) -> Dependence | None:
    """The dependence in a series; None where it never fades: a trend, or too short for its memory.

    The variance of the mean under a block bootstrap has a closed form, so that nothing is drawn: autocovariances in a
    Bartlett window as wide as the blocks (H. R. Künsch, Annals of Statistics 17:1217, 1989). The length of the blocks
    is chosen from the data (D. N. Politis, H. White, Econometric Reviews 23:53, 2004, for circular blocks, with the
    correction of A. Patton, D. N. Politis, H. White, 28:372, 2009; b is at most the smaller of 3 sqrt(n) and n / 3).
    That window errs to the small side, so the flat-top window of their rule is taken where it gives more. Where
    autocorrelation stands out (two lags' worth of their threshold), half a standard error of the estimate is added, and
    what the subtracted mean hides of it: an interval is to be rather too long than too short.
    """
    n = len(series)
    lags, quiet = _lags(n)
    correlation = autocorrelation(series, lags)
    memory = _memory(correlation, quiet, n)
    if memory is None:
        return None
    width = min(2 * max(memory, 1), lags)
    flat_top, block = _flat_top(correlation, width, n)
    inflation = max(1.0, flat_top, _bartlett(correlation, block))
    if memory == 0:
        return Dependence(inflation, math.inf, found=False)
    inflation *= (1 + math.sqrt(width / (3 * n))) / max(1 - inflation / n, 0.1)
    return Dependence(inflation, max(1.0, 1.5 * n / max(width, block)), found=True)


def autocorrelation(series: Array, lags: int) -> Array:
    """The autocorrelations at lags 0 to ``lags``, by Fourier transform; all 0 for a constant series."""
    import numpy as np

    centred = np.asarray(series, dtype=np.float64) - np.mean(series)
    energy = float(np.dot(centred, centred))
    if energy <= 0:
        return np.zeros(lags + 1)
    size = 1 << (2 * len(centred) - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    return np.fft.irfft(spectrum * np.conj(spectrum), size)[: lags + 1] / energy


def _lags(n: int) -> tuple[int, int]:
    """(the longest lag looked at, how many lags in a row must be silent): Politis & White's m_max, and K_N."""
    quiet = max(5, math.ceil(math.sqrt(math.log10(max(n, 2)))))
    return max(1, min(n // 2, 3 * (math.ceil(math.sqrt(n)) + quiet))), quiet


def _memory(correlation: Array, quiet: int, n: int) -> int | None:
    """The last lag before ``quiet`` ones in a row within 2 sqrt(log10(n) / n); None where there is no such silence."""
    threshold = 2 * math.sqrt(math.log10(max(n, 2)) / n)
    silent = 0
    for lag, value in enumerate(correlation[1:], start=1):
        silent = silent + 1 if abs(float(value)) < threshold else 0
        if silent == min(quiet, len(correlation) - 1):
            return lag - silent
    return None


def _flat_top(correlation: Array, width: int, n: int) -> tuple[float, float]:
    """(the inflation in a flat-top window, the length of the blocks that follows from it)."""
    import numpy as np

    lag = np.arange(1, width + 1)
    weighted = np.minimum(1, 2 * (1 - lag / width)) * correlation[1 : width + 1]
    g0, g1 = 1 + 2 * float(np.sum(weighted)), 2 * float(np.sum(lag * weighted))
    if g0 <= 0:
        return g0, 1.0
    block = (2 * g1 * g1 / (4 / 3 * g0 * g0)) ** (1 / 3) * n ** (1 / 3)
    return g0, max(1.0, min(block, 3 * math.sqrt(n), n / 3))


def _bartlett(correlation: Array, block: float) -> float:
    import numpy as np

    lag = np.arange(1, min(int(block), len(correlation) - 1) + 1)
    return 1 + 2 * float(np.sum((1 - lag / block) * correlation[lag]))
