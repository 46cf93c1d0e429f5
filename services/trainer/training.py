"""Which model comes of which rows: candidates are compared on the newest rows, and the best is finished on these; no I/O.

Former champions are candidates, too, that cost no fit: a concept may have come back. What is chosen joins the champion's networks
as far as the newest rows do not speak against it: see `blend`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from driftloop.scoring.model import ScoringModel
from driftloop.usecase import LOSS_METRICS, LOSS_NAMES, Task, UseCase, label_scale
from services.trainer.attempts import Attempts, TrainingSet, TrainingSettings
from services.trainer.blend import (
    MEMBERS_MAX,
    ROWS_MIN,
    Member,
    answers_of,
    heaviest,
    joined,
    logits_of,
    share_of_newest,
)
from services.trainer.candidates import BLOCK_ROWS, Asked, Setting, planned
from services.trainer.export import to_onnx
from services.trainer.held_out import HeldOut, base_of, metrics_of
from services.trainer.network import repeatable
from services.trainer.published import (
    answers_alike,
    digest_of,
    is_compatible,
    learned_rows_of,
    members_of,
    published_parts,
    spec_of,
    vocabularies_of,
)

Floats = npt.NDArray[np.float64]
ARCHIVE_DEVIATIONS, ARCHIVE_DEVIATIONS_IN_CHANGE = (
    3.0,
    1.5,
)  # by which a former champion must beat the present one: of several one is lucky
ARCHIVED = "archived"


@dataclass(frozen=True)
class Trained:
    """A trained model and what is known of it. `label_scale`: see `HeldOut.scale`; 0 where losses need none.

    Over all fits, candidates and finish: `fitted_rows` their rows, `row_epochs` rows × epochs. `trained_rows`: rows that the model
    has learned from; of a champion that was trained further, its own among them. `metrics` has its tried candidates' losses and
    `newest_share`: the new network's in the model, 1 where it stands alone.
    """

    model: ScoringModel
    trained_rows: int
    fitted_rows: int
    row_epochs: int
    metrics: dict[str, float]
    held_out: HeldOut
    label_scale: float
    chosen: str
    device: str
    onnx: bytes
    weights: bytes
    spec: dict[str, Any]
    model_digest: str


class Train(Protocol):
    """How a request's rows become a model: `train`, or another kind of model that is to be compared inside the same policy."""

    def __call__(
        self,
        use_case: UseCase,
        rows: TrainingSet,
        since_us: int,
        champion: ScoringModel | None,
        seed: int,
        settings: TrainingSettings,
        progress: Callable[[str], None],
        asked: Asked | None = None,
        archived: Mapping[str, ScoringModel] | None = None,
    ) -> Trained:
        """As `train`."""
        ...


class _Blend(NamedTuple):
    """A candidate beside the champion's networks: `others`, its `share`, and what they say together of the held-out rows."""

    others: list[Member]
    share: float
    answers: Floats


def train(
    use_case: UseCase,
    rows: TrainingSet,
    since_us: int,
    champion: ScoringModel | None,
    seed: int,
    settings: TrainingSettings,
    progress: Callable[[str], None],
    asked: Asked | None = None,
    archived: Mapping[str, ScoringModel] | None = None,
) -> Trained:
    """Trains on `rows`; `since_us` > 0: rows from there on belong to a new regime, which the model must serve.

    Candidates are fitted without the newest rows and compared on them by the task's loss; the best is finished on these rows,
    mixed with as many that it knows, for a few gentle epochs. The same rows, arguments and seed give the same digest on the
    same device class. `asked` None: a change, if `since_us` says so. ValueError: no rows to train on, or all of one label.
    """
    attempts = Attempts(use_case, rows, champion, seed, settings, progress, _scale(use_case, rows, champion))
    asked = asked or Asked(change=since_us > 0)
    since = int(np.searchsorted(rows.at_us, since_us)) if since_us > 0 else 0
    if since_us > 0 and len(rows) - since < settings.since_rows_min:
        progress(f"only {len(rows) - since} rows since the change: all history is used as one regime")
        since = 0
    if len(rows) - since < 2:
        raise ValueError(f"{len(rows)} rows are too few to train on")
    known = champion is not None and is_compatible(attempts.use_case, champion)
    learned, newer = (
        (learned_rows_of(champion), int(attempts.unseen(0).sum())) if champion is not None and known else (0, 0)
    )
    setting = Setting(len(rows), since, learned, seed, settings, newer)
    plan = planned(rows.labels, setting, asked)
    if plan.setting != setting:
        progress("the rows since the change hold one value of the label only: those from before it are used, too")
    found, held, since, asked = plan.candidates, plan.held, plan.setting.since, plan.asked
    if not found:
        only = "one value of the label" if attempts.task == "regression" else "one class"
        raise ValueError(f"the rows to train on hold only {only}")
    with repeatable(seed, settings.threads, settings.device):
        tried = [attempts.fit(one, held) for one in found]
        answers = [attempts.answers(fitted, held) for fitted in tried]
        losses = [float(np.mean(attempts.losses(answer, held))) for answer in answers]
        best = int(np.argmin(losses))
        told = {one.name: loss for one, loss in zip(found, losses, strict=True)}
        blend = _blended(attempts, answers[best], held, asked)
        if blend.others:
            told["blend"] = float(np.mean(attempts.losses(blend.answers, held)))
        former = _returned(attempts, archived or {}, held, told.get("blend", losses[best]), asked)
        if former is not None:
            held_out = _held_out(attempts, former[1], since, held)
            return _republished(attempts, former[0], held_out, told)
        held_out = _held_out(attempts, blend.answers, since, held)
        blended = f", {told['blend']:.4f} as {blend.share:.0%} of a blend with the champion" if blend.others else ""
        chosen_words = f"{found[best].name} chosen with {LOSS_NAMES[attempts.task]} {losses[best]:.4f}{blended}"
        progress(f"{chosen_words}; finishing it on the newest rows")
        attempts.finish(found[best], tried[best], held)
    chosen = found[best]
    learned_rows = len(chosen.rows)
    if chosen.from_champion:
        learned_rows = max(learned_rows, min(len(rows) - since, learned + newer))
    if blend.others:
        learned_rows = max(learned_rows, learned)
    members = joined(blend.others, tried[best], blend.share)
    parts, weights = published_parts(members)
    spec = {
        **spec_of(use_case, rows.numbers, rows.texts, rows.labels, learned_rows, attempts.scale),
        "newest_row_us": int(rows.at_us[-1]),
        **parts,
    }
    onnx = to_onnx(members, vocabularies_of(members))
    return Trained(
        model=ScoringModel(onnx, spec, weights),
        trained_rows=learned_rows,
        fitted_rows=attempts.fitted_rows,
        row_epochs=attempts.row_epochs,
        metrics=metrics_of(attempts.task, held_out)
        | _tried_metrics(attempts.task, told)
        | {"newest_share": blend.share},
        held_out=held_out,
        label_scale=attempts.scale if attempts.task == "regression" else 0.0,
        chosen=chosen.name,
        device=settings.device,
        onnx=onnx,
        weights=weights,
        spec=spec,
        model_digest=digest_of(spec, weights),
    )


def _tried_metrics(task: Task, losses: Mapping[str, float]) -> dict[str, float]:
    return {f"candidate_{name}_{LOSS_METRICS[task]}": loss for name, loss in losses.items()}


def _returned(
    attempts: Attempts, archived: Mapping[str, ScoringModel], held: int, least: float, asked: Asked
) -> tuple[ScoringModel, Floats] | None:
    """The former champion that answers the newest rows better than every candidate and surely better than production."""
    if attempts.champion is None or not answers_alike(attempts.use_case, attempts.champion):
        return None
    numbers, texts = attempts.rows.numbers[held:], attempts.rows.texts[held:]
    production = attempts.losses(attempts.champion.predict(numbers, texts), held)
    needed = ARCHIVE_DEVIATIONS_IN_CHANGE if asked.change else ARCHIVE_DEVIATIONS
    block_rows = (asked.block_rows or BLOCK_ROWS) // (2 if asked.change else 1)
    best: tuple[ScoringModel, Floats] | None = None
    for model in archived.values():
        if not answers_alike(attempts.use_case, model):
            continue
        answer = model.predict(numbers, texts)
        losses = attempts.losses(answer, held)
        blocks = [part.mean() for part in np.array_split(production - losses, max(3, len(losses) // block_rows))]
        error = float(np.std(blocks, ddof=1)) / len(blocks) ** 0.5 + 1e-9
        if float(np.mean(blocks)) / error > needed and float(np.mean(losses)) < least:
            best, least = (model, answer), float(np.mean(losses))
    return best


def _republished(attempts: Attempts, model: ScoringModel, held_out: HeldOut, told: Mapping[str, float]) -> Trained:
    attempts.progress("a former champion answers the newest rows best: the concept has come back")
    # A bundle's spec names its model: the same model under another name computes the same, and so has the same digest.
    spec = {name: value for name, value in model.spec.items() if name != "model_id"}
    return Trained(
        model=model,
        trained_rows=learned_rows_of(model),
        fitted_rows=attempts.fitted_rows,
        row_epochs=attempts.row_epochs,
        metrics=metrics_of(attempts.task, held_out) | _tried_metrics(attempts.task, told),
        held_out=held_out,
        label_scale=attempts.scale if attempts.task == "regression" else 0.0,
        chosen=ARCHIVED,
        device=attempts.settings.device,
        onnx=model.onnx,
        weights=model.weights,
        spec=spec,
        model_digest=digest_of(spec, model.weights),
    )


def _scale(use_case: UseCase, rows: TrainingSet, champion: ScoringModel | None) -> float:
    """The champion's scale as long as there is a champion: losses of models that follow each other are to be compared."""
    if use_case.predict.task != "regression":
        return 1.0
    inherited = 0.0 if champion is None else float(champion.spec.get("label_scale", 0.0))
    return inherited or label_scale(rows.labels.tolist())


def _blended(attempts: Attempts, answers: Floats, held: int, asked: Asked) -> _Blend:
    """The chosen candidate beside the champion's networks, at the share that rows speak for that neither has learned from."""
    alone = _Blend([], 1.0, answers)
    if attempts.champion is None or not is_compatible(attempts.use_case, attempts.champion):
        return alone
    unseen = attempts.unseen(held)
    if int(unseen.sum()) < ROWS_MIN:
        return alone
    others = heaviest(members_of(attempts.champion, attempts.settings.dropout), MEMBERS_MAX - 1)
    newest = logits_of(attempts.task, answers)
    before = np.zeros_like(newest)
    for member in others:
        before += member.weight * logits_of(attempts.task, attempts.answers(member, held))

    def at(share: float) -> Floats:
        return answers_of(attempts.task, (1.0 - share) * before + share * newest)

    block_rows = (asked.block_rows or BLOCK_ROWS) // (2 if asked.change else 1)
    share = share_of_newest(lambda tried: attempts.losses(at(tried), held)[unseen], block_rows)
    return alone if share == 1.0 else _Blend(others, share, at(share))


def _held_out(attempts: Attempts, challenger: Floats, since: int, held: int) -> HeldOut:
    rows = attempts.rows
    champion, unseen = None, np.zeros(len(challenger), dtype=bool)
    if attempts.champion is not None and answers_alike(attempts.use_case, attempts.champion):
        champion = attempts.champion.predict(rows.numbers[held:], rows.texts[held:])
        unseen = attempts.unseen(held)
    base = base_of(attempts.use_case, rows.labels[since:held])
    return HeldOut(rows.at_us[held:], rows.labels[held:], challenger, base, champion, unseen, attempts.scale)
