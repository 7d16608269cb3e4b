"""The search: each legal scheme, then other ways to the schemes that lost too much, then layers back to float, or
to 16 bits where the target has no float.

Whatever keeps the budget here is measured on the device, if there is one, before the next step: what it loses there
decides whether the search goes on.

Every step is a function of the steps before it, and each conversion and evaluation is kept by its content: the same
search again takes the same path, and an interrupted one goes on where it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future

from edgepack.events import Event, Reporter
from edgepack.quantize.conversion import LITERT, TENSORFLOW
from edgepack.quantize.request import Request
from edgepack.quantize.tune.bench import Bench, Lot, try_lot
from edgepack.quantize.tune.candidates import Candidate, apart, first_candidates, variants, widened
from edgepack.quantize.tune.mixed import next_layers
from edgepack.quantize.tune.trial import Made, Measurement, Refused, Trial, made_of
from edgepack.target import Scheme, Target

STEP = "tune"
_LOT = 3
_WORTHWHILE = 0.9
_MOST_REFUSALS = 3
# Of more layers than this, one that is in float for nothing costs little.
_MOST_LAYERS_TO_PRUNE = 8


MeasureCandidate = Callable[[Candidate], Measurement]
"""Measures a candidate on the device."""


class Search:
    """One search; ``trials`` are its results in the order in which candidates were thought of."""

    def __init__(
        self,
        request: Request,
        max_drop: float,
        bench: Bench,
        executor: Executor | None,
        report: Reporter,
        engine: str = TENSORFLOW,
        measure: MeasureCandidate | None = None,
    ) -> None:
        self._request = request
        self._max_drop = max_drop
        self._bench = bench
        self._measure = measure
        self._measured: dict[str, Measurement] = {}
        self._executor = executor
        self._report = report
        self._engine = engine
        self._trials: dict[Candidate, Trial] = {}

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Everything that was tried."""
        return tuple(self._trials.values())

    def run(self, target: Target, calibration_rows: int, stretching: tuple[int, ...] = ()) -> tuple[Trial, ...]:
        """Try what the target may have, and stop looking for a better int8 or dynamic model once one keeps.

        ``stretching`` are the calibration rows that alone stretch a range, counted within the set.
        """
        self._try(first_candidates(target, self._engine))
        for scheme in (Scheme.INT8, Scheme.DYNAMIC):
            if self._lost(scheme):
                self._try(variants(target, scheme, calibration_rows, self._engine, stretching))
        if self._lost(Scheme.INT8):
            allowed = target.budget.model_bytes
            if target.quantization.float_fallback:
                self._mix(self._base(Scheme.INT8), apart, allowed)
            else:
                by_litert = [one for one in self._of(Scheme.INT8) if one.candidate.conversion.engine == LITERT]
                self._mix(min(by_litert, key=lambda one: one.drop, default=None), widened, allowed)
        return self.trials

    def _lost(self, scheme: Scheme) -> bool:
        """Whether the scheme was tried and every model in it costs more accuracy than the budget has.

        What is too large, or what the device refuses for its time or memory, is not lost so: other scales would change
        none of these.
        """
        tried = [trial for trial in self.trials if trial.candidate.conversion.scheme == scheme]
        return bool(tried) and not any(trial.oversize or trial.within(self._max_drop) for trial in made_of(tried))

    def _of(self, scheme: Scheme) -> list[Made]:
        return [trial for trial in made_of(self.trials) if trial.candidate.conversion.scheme == scheme]

    def _base(self, scheme: Scheme) -> Made | None:
        """What layers are taken out of: the plain way, unless another one wins a tenth of its loss back."""
        legal = [trial for trial in self._of(scheme) if trial.legal]
        best = min(legal, key=lambda trial: trial.drop, default=None)
        if best is not None and best.drop > _WORTHWHILE * legal[0].drop:
            return legal[0]
        return best

    def _mix(
        self, base: Made | None, treated: Callable[[Candidate, tuple[str, ...]], Candidate], allowed: int | None
    ) -> None:
        """The worst layers back to float or 16 bits, one, two, four ... more at a time, until the budget is kept.

        It ends where nothing is left to take, the target refused three in a row, or the model is no smaller than one
        in float16 or float32 that keeps, or larger than ``allowed`` bytes. Layers with which the target refuses it stay
        in int8.
        """
        if base is None:
            return
        feeds = self._bench.layer_feeds(base.candidate)
        floats = [*self._of(Scheme.FLOAT16), *self._of(Scheme.FLOAT32)]
        sizes = [trial.bytes for trial in floats if trial.keeps(self._max_drop)]
        most_bytes = min([*sizes, *([] if allowed is None else [allowed])], default=None)
        taken: tuple[str, ...] = ()
        barred: tuple[str, ...] = ()
        refusals = 0
        layers, size, kept = base.layers, base.bytes, False
        while not kept:
            more = next_layers(layers, feeds, (*taken, *barred), max(1, len(taken)))
            if not more or refusals == _MOST_REFUSALS or (most_bytes is not None and size > most_bytes):
                return
            (trial,) = self._try([treated(base.candidate, taken + more)])
            if isinstance(trial, Refused):
                barred, refusals = barred + more, refusals + 1
            else:
                taken, refusals = taken + more, 0
                layers, size, kept = trial.layers or layers, trial.bytes, trial.within(self._max_drop)
        if len(taken) <= _MOST_LAYERS_TO_PRUNE:
            self._prune(base.candidate, taken, treated)

    def _prune(
        self, base: Candidate, taken: tuple[str, ...], treated: Callable[[Candidate, tuple[str, ...]], Candidate]
    ) -> None:
        """Back to int8 with each layer that need not be treated apart after all."""
        for name in taken:
            fewer = tuple(one for one in taken if one != name)
            if fewer and any(one.keeps(self._max_drop) for one in made_of(self._try([treated(base, fewer)]))):
                taken = fewer

    def _try(self, candidates: Iterable[Candidate]) -> list[Trial]:
        wanted = list(candidates)
        new = [one for one in wanted if one not in self._trials]
        found = self._here(new) if self._executor is None else self._there(new, self._executor)
        for trial in found:
            self._trials[trial.candidate] = self._on_device(trial)
        return [self._trials[one] for one in wanted]

    def _on_device(self, trial: Trial) -> Trial:
        """A survivor with what the device says about it; the same bytes are measured once."""
        if self._measure is None or isinstance(trial, Refused) or not trial.keeps(self._max_drop):
            return trial
        if trial.sha256 not in self._measured:
            self._report(Event(STEP, f"measuring on the device: {trial.candidate.name}"))
            self._measured[trial.sha256] = self._measure(trial.candidate)
        measured = dataclasses.replace(trial, measurement=self._measured[trial.sha256])
        if not measured.within(self._max_drop):
            self._report(Event(STEP, f"  drop {measured.drop:+.4f} on the device"))
            return dataclasses.replace(measured, layers=self._bench.layer_errors(trial.candidate))
        return measured

    def _here(self, candidates: Sequence[Candidate]) -> list[Trial]:
        found = []
        for number, candidate in enumerate(candidates):
            self._tell(candidate.name, number, len(candidates))
            found.append(self._bench.try_candidate(candidate))
            self._report(Event(STEP, _result(found[-1])))
        return found

    def _there(self, candidates: Sequence[Candidate], executor: Executor) -> list[Trial]:
        firsts = range(0, len(candidates), _LOT)
        lots = [Lot(self._request, tuple(candidates[first : first + _LOT])) for first in firsts]
        futures: list[Future[tuple[Trial, ...]]] = [executor.submit(try_lot, lot) for lot in lots]
        found: list[Trial] = []
        try:
            for future in futures:
                for trial in future.result():
                    self._tell(trial.candidate.name, len(found), len(candidates))
                    self._report(Event(STEP, _result(trial)))
                    found.append(trial)
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return found

    def _tell(self, name: str, number: int, new: int) -> None:
        tried = len(self._trials)
        self._report(Event(STEP, f"candidate {tried + number + 1} of {tried + new}: {name}"))


def _result(trial: Trial) -> str:
    if isinstance(trial, Refused):
        return f"  not for this target: {trial.reason}"
    return f"  drop {trial.drop:+.4f}, {trial.bytes:,} bytes"
