"""The evaluation section of a model card. Pure.

Imports card_schema, card_sources, errors, events, fold, report, scores.
"""

from __future__ import annotations

import math
from typing import Any

from mlgym.errors import InputError
from mlgym.record.card_schema import At, ClassDetails, ClassScore, Confusion, EvalDetails, ScoreDetails
from mlgym.record.card_sources import Sources, keyed, named, of_type
from mlgym.record.events import ClassCounts, number
from mlgym.record.fold import Experiment
from mlgym.record.report import Mode, judged_by
from mlgym.record.scores import Scores

MAX_POINTS = 400
"""Of each score by epoch; of more, the extremes and the last of each stretch are kept."""


def evaluation(of: Sources) -> EvalDetails:
    experiment = of.experiment
    try:
        score, mode = judged_by(of.state.experiments.values(), _validated_by(of))
    except InputError:
        score, mode = judged_by(of.state.experiments.values())
    if score is not None and of.state.validation and of.state.validation.mode:
        mode = of.state.validation.mode
    judged = experiment.scores.get(score or "", Scores())
    at = judged.highest() if mode == "max" else judged.lowest()
    best = None if at is None else judged.epochs[at]
    scores = [_score(experiment, key, score, mode, best) for key, found in experiment.scores.items() if found]
    evaluated = next(iter(of_type(of, "EVAL_COMPONENT")), {})
    return EvalDetails(
        score=score,
        mode=mode,
        best_epoch=best,
        metrics=_parts(evaluated.get("metrics_config")),
        losses=_parts(evaluated.get("loss_funs_config")),
        scores=scores,
        class_results=_class_results(of, best),
    )


def _validated_by(of: Sources) -> str | None:
    return of.state.validation.metric if of.state.validation else None


def _parts(entries: Any) -> list[dict[str, Any]]:
    return [found for entry in entries if (found := keyed(entry))] if isinstance(entries, list) else []


def _score(experiment: Experiment, key: str, judged: str | None, mode: Mode, best: int | None) -> ScoreDetails:
    scores = experiment.scores[key]
    split, _, tag = key.partition("/")
    own = mode if key == judged else judged_by([experiment], key)[1]
    at = scores.highest() if own == "max" else scores.lowest()
    kept = _kept(scores)
    return ScoreDetails(
        tag=tag,
        split=split,
        loss=key in experiment.losses,
        mode=own,
        last=At(epoch=scores.epochs[-1], value=number(scores.values_[-1])),
        best=None if at is None else At(epoch=scores.epochs[at], value=number(scores.values_[at])),
        at_best_epoch=number(scores[best]) if best is not None and best in scores else None,
        epochs=[scores.epochs[i] for i in kept],
        values=[number(scores.values_[i]) for i in kept],
    )


def _kept(scores: Scores) -> list[int]:
    """The places of all points, or of the smallest, largest and last of each stretch."""
    count = len(scores)
    if count <= MAX_POINTS:
        return list(range(count))
    kept = {0, count - 1}
    stretches = MAX_POINTS // 3
    for i in range(stretches):
        places = range(count * i // stretches, count * (i + 1) // stretches)
        known = [at for at in places if math.isfinite(scores.values_[at])] or list(places)
        kept |= {min(known, key=scores.values_.__getitem__), max(known, key=scores.values_.__getitem__), known[-1]}
    return sorted(kept)


def _class_results(of: Sources, best: int | None) -> list[ClassDetails]:
    """Those of the best epoch, if they were recorded, and of the last one that was; what was trained on comes last."""
    trained = [split.split for split in (of.data.splits if of.data else ()) if "training" in split.uses]
    last = of.classes[-1].epoch if of.classes else None
    return [
        _class_details(of, counted, found.epoch, found.epoch == best, found.epoch == last)
        for found in reversed(of.classes)
        if found.epoch in (best, last)
        for counted in sorted(found.splits, key=lambda counted: counted.split in trained)
    ]


def _class_details(of: Sources, counted: ClassCounts, epoch: int, best: bool, last: bool) -> ClassDetails:
    samples = sum(counted.actual)
    return ClassDetails(
        split=counted.split,
        target=counted.target,
        prediction=counted.prediction,
        epoch=epoch,
        best=best,
        last=last,
        samples=samples,
        accuracy=sum(counted.correct) / samples if samples else 0.0,
        classes=[
            ClassScore(
                label=label,
                name=named(of, label),
                support=actual,
                predicted=predicted,
                precision=_ratio(correct, predicted),
                recall=_ratio(correct, actual),
                f1=_ratio(2 * correct, actual + predicted),
            )
            for label, actual, predicted, correct in zip(
                counted.labels, counted.actual, counted.predicted, counted.correct, strict=False
            )
        ],
        confusion=counted.confusion if all(len(row) == len(counted.labels) for row in counted.confusion) else [],
        confusions=[
            Confusion(actual=named(of, one[0]), predicted=named(of, one[1]), count=one[2])
            for one in counted.confusions
            if len(one) == 3
        ],
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
