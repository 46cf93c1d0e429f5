"""Which model comes of which rows: candidates are fitted, compared on the newest rows, and the best is finished on these; no I/O.

Former champions are candidates, too, that cost no fit: a concept may have come back. What is chosen joins the champion's networks
as far as the newest rows do not speak against it: see `blend`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from driftloop.scoring.model import ScoringModel
from driftloop.usecase import LOSS_METRICS, LOSS_NAMES, Task, UseCase, label_scale
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
from services.trainer.candidates import BLOCK_ROWS, Asked, Candidate, Places, Setting, candidates, held_out_rows
from services.trainer.export import to_onnx
from services.trainer.held_out import HeldOut, base_of, metrics_of
from services.trainer.measures import compared_losses
from services.trainer.network import Fitted, Limits, Pace, Rows, fit, repeatable
from services.trainer.preprocessing import Target, fit_preprocessing, fit_target
from services.trainer.published import (
    answers_alike,
    digest_of,
    is_compatible,
    learned_rows_of,
    members_of,
    new_network,
    published_parts,
    spec_of,
    vocabularies_of,
)

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
Device = Literal["cpu", "cuda"]
FINISHING_RATE, FINISHING_EPOCHS = 5e-4, 3  # gentle: what was found must not be lost on the rows that it was found by
ARCHIVE_DEVIATIONS, ARCHIVE_DEVIATIONS_IN_CHANGE = (
    3.0,
    1.5,
)  # by which a former champion must beat the present one: of several one is lucky
ARCHIVED = "archived"


@dataclass(frozen=True)
class TrainingSet:
    """Labelled rows, sorted by `at_us`, the declared prediction times.

    numbers: float64 (n, numeric inputs), NaN is missing; texts: object (n, text inputs); labels: float64 (n,), as
    `UseCase.label_of` gives them.
    """

    entities: list[str]
    at_us: Times
    numbers: Floats
    texts: npt.NDArray[Any]
    labels: Floats
    known_at_us: Times

    def __post_init__(self) -> None:
        texts = np.asarray(self.texts, dtype=object).reshape(len(self.entities), -1)
        object.__setattr__(self, "texts", texts)
        if np.any(np.diff(self.at_us) < 0):
            raise ValueError("training rows must be sorted by at_us")

    def __len__(self) -> int:
        return len(self.entities)


@dataclass(frozen=True)
class TrainingSettings:
    """How much is tried, and how hard.

    bins                 quantile bins per number: more find finer shapes and need more rows
    category_rows_min    rows below which a text counts as "not listed"
    dropout, weight_decay  what keeps a network from learning rows by heart
    rate, tuning_rate    learning rates from scratch, and of a champion that is trained further
    heads_rate           learning rate of gains and offsets when a champion is adapted: few numbers, few rows, large steps
    large_rows           rows from which batches are twice as large, to save time, and from four times as many four times; half of it
                         where a champion is adapted
    patience             epochs without a better validation loss after which a fit ends
    patience_steps       the same in steps, where an epoch has many: see `Limits`
    since_rows_min       rows since a change below which all history is taken for one regime
    sampled_rows_max     rows that one fit takes at the most: of older ones a draw does as well
    threads              CPU threads; more than one makes sums, and so digests, depend on the machine
    """

    bins: int = 8
    category_rows_min: int = 20
    hidden: int = 64
    embedding: int = 4
    dropout: float = 0.1
    weight_decay: float = 0.1
    rate: float = 3e-3
    tuning_rate: float = 1e-3
    heads_rate: float = 1e-2
    batch_rows: int = 256
    tuning_batch_rows: int = 128
    large_rows: int = 12_000
    epochs: int = 120
    patience: int = 12
    patience_steps: int = 200
    since_rows_min: int = 100
    sampled_rows_max: int = 200_000
    threads: int = 1
    device: Device = "cpu"


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


@dataclass
class _Run:
    use_case: UseCase
    rows: TrainingSet
    champion: ScoringModel | None
    seed: int
    settings: TrainingSettings
    progress: Callable[[str], None]
    scale: float
    fitted_rows: int = 0
    row_epochs: int = 0

    @property
    def task(self) -> Task:
        return self.use_case.predict.task

    def count(self, encoded: Rows, fitted: Fitted) -> None:
        """One more fit's cost."""
        self.fitted_rows += len(encoded)
        self.row_epochs += fitted.row_epochs

    def losses(self, answers: Floats, first: int) -> Floats:
        """Losses of answers to the rows from `first` on, as models are compared by."""
        return compared_losses(self.task, answers, self.rows.labels[first:], self.scale)


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
    run = _Run(use_case, rows, champion, seed, settings, progress, _scale(use_case, rows, champion))
    asked = asked or Asked(change=since_us > 0)
    since = int(np.searchsorted(rows.at_us, since_us)) if since_us > 0 else 0
    if since_us > 0 and len(rows) - since < settings.since_rows_min:
        progress(f"only {len(rows) - since} rows since the change: all history is used as one regime")
        since = 0
    if len(rows) - since < 2:
        raise ValueError(f"{len(rows)} rows are too few to train on")
    known = champion is not None and is_compatible(run.use_case, champion)
    learned, newer = (learned_rows_of(champion), _newer_rows(run)) if champion is not None and known else (0, 0)
    setting = Setting(len(rows), since, learned, seed, settings, newer)
    found, held = _tried(rows, setting, asked)
    if not found and since:
        progress("the rows since the change hold one value of the label only: those from before it are used, too")
        since, setting = 0, replace(setting, since=0)
        for recent_rows in (asked.rows_max, len(rows)):  # the newest that are paid for, and a draw from all
            asked = replace(asked, change=False, recent_rows=recent_rows)
            found, held = _tried(rows, setting, asked)
            if found:
                break
    if not found:
        only = "one value of the label" if run.task == "regression" else "one class"
        raise ValueError(f"the rows to train on hold only {only}")
    with repeatable(seed, settings.threads, settings.device):
        tried = [_attempt(run, one, held) for one in found]
        answers = [_answers(run, fitted, held) for fitted in tried]
        losses = [float(np.mean(run.losses(answer, held))) for answer in answers]
        best = int(np.argmin(losses))
        told = {one.name: loss for one, loss in zip(found, losses, strict=True)}
        blend = _blended(run, answers[best], held, asked)
        if blend.others:
            told["blend"] = float(np.mean(run.losses(blend.answers, held)))
        former = _returned(run, archived or {}, held, told.get("blend", losses[best]), asked)
        if former is not None:
            held_out = _held_out(run, former[1], since, held)
            return _republished(run, former[0], held_out, told)
        held_out = _held_out(run, blend.answers, since, held)
        blended = f", {told['blend']:.4f} as {blend.share:.0%} of a blend with the champion" if blend.others else ""
        chosen_words = f"{found[best].name} chosen with {LOSS_NAMES[run.task]} {losses[best]:.4f}{blended}"
        progress(f"{chosen_words}; finishing it on the newest rows")
        _finish(run, found[best], tried[best], held)
    chosen = found[best]
    learned_rows = len(chosen.rows)
    if chosen.from_champion:
        learned_rows = max(learned_rows, min(len(rows) - since, learned + newer))
    if blend.others:
        learned_rows = max(learned_rows, learned)
    members = joined(blend.others, tried[best], blend.share)
    parts, weights = published_parts(members)
    spec = {
        **spec_of(use_case, rows.numbers, rows.texts, rows.labels, learned_rows, run.scale),
        "newest_row_us": int(rows.at_us[-1]),
        **parts,
    }
    onnx = to_onnx(members, vocabularies_of(members))
    return Trained(
        model=ScoringModel(onnx, spec, weights),
        trained_rows=learned_rows,
        fitted_rows=run.fitted_rows,
        row_epochs=run.row_epochs,
        metrics=metrics_of(run.task, held_out) | _tried_metrics(run.task, told) | {"newest_share": blend.share},
        held_out=held_out,
        label_scale=run.scale if run.task == "regression" else 0.0,
        chosen=chosen.name,
        device=settings.device,
        onnx=onnx,
        weights=weights,
        spec=spec,
        model_digest=digest_of(spec, weights),
    )


def _tried(rows: TrainingSet, setting: Setting, asked: Asked) -> tuple[list[Candidate], int]:
    """The candidates whose rows hold more than one value of the label, and the place from which on rows are held out."""
    found = candidates(setting, asked)
    held = len(rows) - held_out_rows(found, asked)
    return [one for one in found if np.unique(rows.labels[one.rows[one.rows < held]]).size >= 2], held


def _newer_rows(run: _Run) -> int:
    """Rows that the champion has not learned from."""
    assert run.champion is not None
    return int((run.rows.at_us > int(run.champion.spec.get("newest_row_us", 0))).sum())


def _tried_metrics(task: Task, losses: Mapping[str, float]) -> dict[str, float]:
    return {f"candidate_{name}_{LOSS_METRICS[task]}": loss for name, loss in losses.items()}


def _returned(
    run: _Run, archived: Mapping[str, ScoringModel], held: int, least: float, asked: Asked
) -> tuple[ScoringModel, Floats] | None:
    """The former champion that answers the newest rows better than every candidate and surely better than production."""
    if run.champion is None or not answers_alike(run.use_case, run.champion):
        return None
    numbers, texts = run.rows.numbers[held:], run.rows.texts[held:]
    production = run.losses(run.champion.predict(numbers, texts), held)
    needed = ARCHIVE_DEVIATIONS_IN_CHANGE if asked.change else ARCHIVE_DEVIATIONS
    block_rows = (asked.block_rows or BLOCK_ROWS) // (2 if asked.change else 1)
    best: tuple[ScoringModel, Floats] | None = None
    for model in archived.values():
        if not answers_alike(run.use_case, model):
            continue
        answer = model.predict(numbers, texts)
        losses = run.losses(answer, held)
        blocks = [part.mean() for part in np.array_split(production - losses, max(3, len(losses) // block_rows))]
        error = float(np.std(blocks, ddof=1)) / len(blocks) ** 0.5 + 1e-9
        if float(np.mean(blocks)) / error > needed and float(np.mean(losses)) < least:
            best, least = (model, answer), float(np.mean(losses))
    return best


def _republished(run: _Run, model: ScoringModel, held_out: HeldOut, told: Mapping[str, float]) -> Trained:
    run.progress("a former champion answers the newest rows best: the concept has come back")
    # A bundle's spec names its model: the same model under another name computes the same, and so has the same digest.
    spec = {name: value for name, value in model.spec.items() if name != "model_id"}
    return Trained(
        model=model,
        trained_rows=learned_rows_of(model),
        fitted_rows=run.fitted_rows,
        row_epochs=run.row_epochs,
        metrics=metrics_of(run.task, held_out) | _tried_metrics(run.task, told),
        held_out=held_out,
        label_scale=run.scale if run.task == "regression" else 0.0,
        chosen=ARCHIVED,
        device=run.settings.device,
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


def _blended(run: _Run, answers: Floats, held: int, asked: Asked) -> _Blend:
    """The chosen candidate beside the champion's networks, at the share that rows speak for that neither has learned from."""
    alone = _Blend([], 1.0, answers)
    if run.champion is None or not is_compatible(run.use_case, run.champion):
        return alone
    unseen = run.rows.at_us[held:] > int(run.champion.spec.get("newest_row_us", 0))
    if int(unseen.sum()) < ROWS_MIN:
        return alone
    others = heaviest(members_of(run.champion, run.settings.dropout), MEMBERS_MAX - 1)
    newest = logits_of(run.task, answers)
    before = np.zeros_like(newest)
    for member in others:
        before += member.weight * logits_of(run.task, _answers(run, member, held))

    def at(share: float) -> Floats:
        return answers_of(run.task, (1.0 - share) * before + share * newest)

    block_rows = (asked.block_rows or BLOCK_ROWS) // (2 if asked.change else 1)
    share = share_of_newest(lambda tried: run.losses(at(tried), held)[unseen], block_rows)
    return alone if share == 1.0 else _Blend(others, share, at(share))


def _attempt(run: _Run, candidate: Candidate, held: int) -> Member:
    """Fits a candidate on its rows before `held`; the rows from there on end the fit."""
    settings, rows = run.settings, run.rows
    torch.manual_seed(run.seed)
    places = candidate.rows[candidate.rows < held]
    if candidate.from_champion:
        assert run.champion is not None
        newest = members_of(run.champion, settings.dropout)[-1]
        network, preprocessing, target = newest.network, newest.preprocessing, newest.target
    else:
        preprocessing = fit_preprocessing(
            rows.numbers[places], rows.texts[places], settings.bins, settings.category_rows_min
        )
        outputs = len(run.use_case.predict.classes) or 1
        network = new_network(run.task, outputs, preprocessing, settings.hidden, settings.embedding, settings.dropout)
        target = fit_target(rows.labels[places]) if run.task == "regression" else Target()
    network.to(settings.device)
    found = Member(network, preprocessing, target)
    encoded = _encoded(run, found, places, candidate.change)
    validation = _encoded(run, found, np.arange(held, len(rows)), 0)
    limits = Limits(settings.epochs, settings.patience, settings.patience_steps)
    fitted = fit(network, encoded, validation, candidate.pace, limits, settings.weight_decay)
    run.count(encoded, fitted)
    rows_told = f"after {fitted.epochs} epochs of {len(encoded)} rows"
    run.progress(f"{candidate.name}: validation loss {fitted.loss:.4f} {rows_told}")
    network.eval()
    return found


def _finish(run: _Run, candidate: Candidate, found: Member, held: int) -> None:
    """Lets the chosen candidate learn the newest rows, too, beside as many of its own, so that these are not forgotten."""
    torch.manual_seed(run.seed)
    known, newest = candidate.rows[candidate.rows < held], np.arange(held, len(run.rows))
    drawn = np.random.default_rng(run.seed).choice(known, min(len(newest), len(known)), replace=False)
    places = np.concatenate([np.sort(drawn), newest])
    encoded = _encoded(run, found, places, candidate.change)
    core_rate = FINISHING_RATE if candidate.pace.core_rate else 0.0
    pace = Pace(core_rate, FINISHING_RATE, candidate.pace.batch_rows)
    fitted = fit(found.network, encoded, None, pace, Limits(FINISHING_EPOCHS, 0), run.settings.weight_decay)
    run.count(encoded, fitted)
    found.network.eval()


def _encoded(run: _Run, found: Member, places: Places, change: int) -> Rows:
    rows, device, preprocessing = run.rows, run.settings.device, found.preprocessing
    labels = found.target.standardised(rows.labels[places])
    return Rows(
        encoded=torch.from_numpy(preprocessing.encode(rows.numbers[places])).to(device),
        codes=torch.from_numpy(preprocessing.codes(rows.texts[places])).to(device),
        labels=torch.from_numpy(labels.astype(np.int64 if run.task == "multiclass" else np.float32)).to(device),
        earlier=torch.from_numpy(places < change).to(device),
    )


def _answers(run: _Run, member: Member, first: int) -> Floats:
    """Answers to the rows from `first` on."""
    with torch.no_grad():
        found = member.network.to(run.settings.device)(_encoded(run, member, np.arange(first, len(run.rows)), 0))
    if run.task == "binary":
        return np.asarray(torch.sigmoid(found).cpu().numpy(), dtype=np.float64)
    if run.task == "multiclass":
        return np.asarray(torch.softmax(found, dim=1).cpu().numpy(), dtype=np.float64)
    return member.target.restored(found.cpu().numpy().astype(np.float64))


def _held_out(run: _Run, challenger: Floats, since: int, held: int) -> HeldOut:
    rows = run.rows
    champion, unseen = None, np.zeros(len(challenger), dtype=bool)
    if run.champion is not None and answers_alike(run.use_case, run.champion):
        champion = run.champion.predict(rows.numbers[held:], rows.texts[held:])
        unseen = rows.at_us[held:] > int(run.champion.spec.get("newest_row_us", 0))
    base = base_of(run.use_case, rows.labels[since:held])
    return HeldOut(rows.at_us[held:], rows.labels[held:], challenger, base, champion, unseen, run.scale)
