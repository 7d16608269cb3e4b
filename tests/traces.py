"""Synthetic traces of latencies in milliseconds whose true percentiles are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np

Quantile = Callable[[float], float]
Trace = tuple[Callable[[Any, int], Any], Quantile]
Pairs = list[tuple[list[float], list[float]]]


def normal(share: float) -> float:
    """The standard normal's quantile."""
    return NormalDist().inv_cdf(share)


def autoregressive(memory: float) -> Trace:
    """Around 10 ms with 2 % noise, each run's deviation ``memory`` times the last one's (AR(1)); its quantiles."""

    def drawn(random: Any, n: int) -> Any:
        fresh = random.randn(n) * math.sqrt(1 - memory * memory)
        deviation, last = np.empty(n), random.randn()
        for i in range(n):
            deviation[i] = last = memory * last + fresh[i]
        return 10 + 0.2 * deviation

    return drawn, lambda share: 10 + 0.2 * normal(share)


TRACES: dict[str, Trace] = {
    "normal": (lambda random, n: 10 + 0.2 * random.randn(n), lambda share: 10 + 0.2 * normal(share)),
    "lognormal": (lambda random, n: np.exp(random.randn(n)), lambda share: math.exp(normal(share))),
    "exponential": (lambda random, n: 1 + random.exponential(size=n), lambda share: 1 - math.log1p(-share)),
    "pareto": (lambda random, n: 1 + random.pareto(1.5, size=n), lambda share: (1 - share) ** (-1 / 1.5)),
    # one run in five takes 12 to 13 ms, the others 10 to 11
    "bimodal": (
        lambda random, n: 10 + random.rand(n) + 2 * (random.rand(n) < 0.2),
        lambda share: 10 + share / 0.8 if share < 0.8 else 12 + (share - 0.8) / 0.2,
    ),
    "AR(1) 0.3": autoregressive(0.3),
    "AR(1) 0.5": autoregressive(0.5),
    "AR(1) 0.8": autoregressive(0.8),
}

DRIFTS: dict[str, Callable[[Any], Any]] = {
    "steady": lambda time: time,
    "settling": lambda time: 1 - np.exp(-4 * time),
    "waves": lambda time: (1 + np.sin(4 * np.pi * time)) / 2,
    "step": lambda time: time > 0.43,
}
"""How a device's level changes over a measurement, from 0 to 1."""


def in_turns(
    random: Any,
    slowdown: float,
    *,
    quads: int = 6,
    runs: int = 20,
    drift: float = 0.12,
    shape: str = "steady",
    memory: float = 0.0,
) -> Pairs:
    """Blocks A B B A of ``runs`` runs around 5 ms under a drift and 2 % noise; A is slower by ``slowdown``."""
    noise = (autoregressive(memory)[0](random, quads * 4 * runs) - 10) / 0.2 * 0.02
    level = 5 * (1 + drift * DRIFTS[shape](np.linspace(0, 1, noise.size)))
    blocks = (level * np.exp(noise)).reshape(quads, 4, runs)
    return [
        pair
        for a, b, b_again, a_again in blocks
        for pair in (((a * slowdown).tolist(), b.tolist()), ((a_again * slowdown).tolist(), b_again.tolist()))
    ]
