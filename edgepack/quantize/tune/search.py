"""The search: each legal scheme, then other ways to the schemes that lost too much, then layers back to float.

Every step is a function of the steps before it, and each conversion and evaluation is kept by its content: the same
search again takes the same path, and an interrupted one goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future

from edgepack.events import Event, Reporter
from edgepack.quantize.conversion import TENSORFLOW
from edgepack.quantize.request import Request
from edgepack.quantize.tune.bench import Bench, Lot, try_lot
from edgepack.quantize.tune.candidates import Candidate, apart, first_candidates, variants
from edgepack.quantize.tune.mixed import next_layers
from edgepack.quantize.tune.trial import Trial
from edgepack.target import Scheme, Target

STEP = "tune"
_LOT = 3
_WORTHWHILE = 0.9
# Of more layers than this, one that is in float for nothing costs little.
_MOST_LAYERS_TO_PRUNE = 8


class Search:
    """One search; ``trials`` are its results in the order in which candidates were thought of."""

    def __init__(
        self, request: Request, bench: Bench, executor: Executor | None, report: Reporter, engine: str = TENSORFLOW
    ) -> None:
        self._request = request
        self._bench = bench
        self._executor = executor
        self._report = report
        self._engine = engine
        self._trials: dict[Candidate, Trial] = {}
        self._max_drop = request.max_drop or 0.0

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Everything that was tried."""
        return tuple(self._trials.values())

    def run(self, target: Target, calibration_rows: int) -> tuple[Trial, ...]:
        """Try what the target may have, and stop looking for a better int8 or dynamic model once one keeps."""
        self._try(first_candidates(target, self._engine))
        for scheme in (Scheme.INT8, Scheme.DYNAMIC):
            if self._lost(scheme):
                self._try(variants(target, scheme, calibration_rows, self._engine))
        if target.quantization.float_fallback and self._lost(Scheme.INT8):
            self._mix(self._base(Scheme.INT8))
        return self.trials

    def _lost(self, scheme: Scheme) -> bool:
        """Whether the scheme was tried and no model in it keeps the budget."""
        tried = self._of(scheme)
        return bool(tried) and not any(trial.keeps(self._max_drop) for trial in tried)

    def _of(self, scheme: Scheme) -> list[Trial]:
        return [trial for trial in self.trials if trial.candidate.conversion.scheme == scheme]

    def _base(self, scheme: Scheme) -> Trial | None:
        """What layers are taken out of: the plain way, unless another one wins a tenth of its loss back."""
        legal = [trial for trial in self._of(scheme) if trial.legal]
        best = min(legal, key=lambda trial: trial.drop, default=None)
        if best is not None and best.drop > _WORTHWHILE * legal[0].drop:
            return legal[0]
        return best

    def _mix(self, base: Trial | None) -> None:
        """The worst layers back to float, one, two, four ... more at a time, until the budget is kept.

        It ends where nothing is left to take, or the model is no smaller than one in float16 or float32 that keeps.
        """
        if base is None:
            return
        feeds = self._bench.layer_feeds(base.candidate)
        floats = [*self._of(Scheme.FLOAT16), *self._of(Scheme.FLOAT32)]
        most_bytes = min((trial.bytes for trial in floats if trial.keeps(self._max_drop)), default=None)
        taken: tuple[str, ...] = ()
        layers, trial = base.layers, base
        while not trial.keeps(self._max_drop):
            more = next_layers(layers, feeds, taken, max(1, len(taken)))
            if not more or (most_bytes is not None and trial.bytes > most_bytes):
                return
            taken += more
            (trial,) = self._try([apart(base.candidate, taken)])
            layers = trial.layers or layers
        if len(taken) <= _MOST_LAYERS_TO_PRUNE:
            self._prune(base.candidate, taken)

    def _prune(self, base: Candidate, taken: tuple[str, ...]) -> None:
        """Back to int8 with each layer that need not be in float after all."""
        for name in taken:
            fewer = tuple(one for one in taken if one != name)
            if fewer and self._try([apart(base, fewer)])[0].keeps(self._max_drop):
                taken = fewer

    def _try(self, candidates: Iterable[Candidate]) -> list[Trial]:
        wanted = list(candidates)
        new = [one for one in wanted if one not in self._trials]
        found = self._here(new) if self._executor is None else self._there(new, self._executor)
        for trial in found:
            self._trials[trial.candidate] = trial
        return [self._trials[one] for one in wanted]

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
    if trial.reason is not None:
        return f"  not for this target: {trial.reason}"
    return f"  drop {trial.drop:+.4f}, {trial.bytes:,} bytes"
