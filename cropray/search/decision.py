"""How a model is to decide between its classes, learnt from what its folds say of zones that they did not see.

The likeliest class is the best guess of each pixel, and seldom classes are hardly ever the likeliest: macro scores suffer.
Dividing by the frequency of the class (logit adjustment, arXiv 2007.07314) finds them; by all of it, too many of
them. So `argmax p / frequency^tau`, with one number `tau`: thresholds per class are noise on tables of some thousand pixels.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field

from cropray.core.intervals import MIN_ZONES
from cropray.core.metrics import PROBABILITY_FLOOR, STUDY, Counts, Ratios
from cropray.core.settings import Settings
from cropray.search.calibration import Bin, calibration_error, learn_temperature, reliability, set_threshold
from cropray.training.decision import Decision, Probabilities, group_sums, percent

TAUS: Final = tuple(round(0.05 * step, 2) for step in range(16))  # beyond 0.75 accuracy falls faster than F1 rises
USUAL_TAU: Final = 0.4  # the best single one over 14 kinds of table and model, see `choose_tau`
MOST_LOST: Final = 0.01  # of accuracy, out of fold: a rule that takes more has failed
_USUAL_WIDTH: Final = 0.15
NONE_KEPT: Final = 101  # %: no class is so sure
ENOUGH_ROWS: Final = 200
ENOUGH_OF_REGION: Final = 300  # rows; of so many a model that is sure as it should be shows an error of 0.04, by chance
_TOLD_REGIONS: Final = 8
_RATIOS: Final = {metric.key: metric.ratios for metric in STUDY if metric.ratios is not None}
Floats = npt.NDArray[np.float64]


class DecisionSettings(Settings):
    """How trained models decide between their classes and how sure they say they are, in scores, maps and serving alike.

    Both are learnt on out-of-fold predictions of training zones (`search.oof_rows`) at the end of a search, and fit nothing again.
    """

    rule: Literal["argmax", "prior"] = "argmax"
    """`argmax` takes the likeliest class. `prior` takes that of the largest probability / (share of the class in the training
    pixels)^tau, so that seldom classes are found; tau, 0 to 0.75, is what raises the macro F1, at no more than 0.01 of accuracy."""
    calibrate: bool = False
    """Temper probabilities by one number, so that of pixels of confidence 80 % some 80 % are right."""
    coverage: float | None = Field(default=None, gt=0.5, lt=1)
    """Share of a new zone's pixels whose true class is to be in their set of classes (`output: sets` of a served model); None:
    there are no sets."""
    unlike: float | None = Field(default=None, gt=0, lt=0.5)
    """Share of a new zone's pixels, as 0.05, that may be flagged as unlike the training zones' (band `unlike` of maps, `output:
    unlike` of a served model); None: there is no flag."""
    fall_back: float | None = Field(default=None, gt=0, lt=1)
    """Share of a new zone's answers by class that are to be right, as 0.9: pixels that are less sure than that takes are answered
    by their group of the legend (band `group` of maps, `output: answers` of a served model); None: none is."""
    fall_back_below: int | None = Field(default=None, ge=1, le=100)
    """The same by a threshold of your own, % of confidence; it goes before the learnt one of `fall_back`."""


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """Out-of-fold predictions of training zones by one recipe."""

    labels: npt.NDArray[np.uint8]
    """[N] index of the true class."""
    probabilities: Probabilities
    """[N, K], each by a fit that did not see the pixel's zone."""
    zones: npt.NDArray[np.int64]
    """[N] position of its zone."""
    weights: Floats
    """[N] how many labelled pixels of its class and zone a row stands for, 1 or more."""
    frequencies: Floats
    """[zone, class] share of each class in the training pixels of the fit that predicts the zone; 0: it saw none."""
    folds: npt.NDArray[np.int64]
    """[zone] the fold that it belongs to."""
    regions: tuple[str, ...] = ()
    """[zone] the region that it lies in; empty: they are not told apart."""

    def decided(self, tau: float) -> npt.NDArray[np.int64]:
        """[N] class index, as `prior` decides with the frequencies that each fit was trained with."""
        return self._by_fit(tau, lambda decision, probabilities: decision.decide(probabilities, 1))

    def groups_decided(self, tau: float, groups: Sequence[int]) -> npt.NDArray[np.int64]:
        """[N] number of the group of most that `prior` compares; `groups`: [class]."""
        return self._by_fit(tau, lambda decision, p: group_sums(decision.weighed(p, 1).T, groups).argmax(0))

    def _by_fit(
        self, tau: float, answer: Callable[[Decision, Probabilities], npt.NDArray[np.int64]]
    ) -> npt.NDArray[np.int64]:
        found = np.empty(len(self.labels), np.int64)
        for frequencies in np.unique(self.frequencies, axis=0):
            rows = (self.frequencies == frequencies).all(1)[self.zones]
            found[rows] = answer(Decision(multipliers(frequencies, tau)), self.probabilities[rows])
        return found

    def sure(self, predicted: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """[N] confidence in the class that is decided for, whole %."""
        return percent(self.probabilities[np.arange(len(predicted)), predicted])

    def counts(self, tau: float) -> Floats:
        """[zone, true, predicted] labelled pixels."""
        return self.counts_of(self.decided(tau))

    def counts_of(self, predicted: npt.NDArray[np.int64]) -> Floats:
        """[zone, true, predicted] labelled pixels, where rows are decided so."""
        cube = np.zeros((*self.frequencies.shape, self.frequencies.shape[1]))
        np.add.at(cube, (self.zones, self.labels, predicted), self.weights)
        return cube

    def scores(self, cube: Floats) -> dict[str, float]:
        """Of pixels that were counted so, and the loss of those of trained classes."""
        known = self.frequencies[self.zones, self.labels] > 0
        truth = np.maximum(self.probabilities[np.arange(len(self.labels)), self.labels], PROBABILITY_FLOOR)[known]
        loss = float(-(np.log(truth.astype(np.float64)) * self.weights[known]).sum() / self.weights[known].sum())
        return {**_scores(cube), "loss": loss}

    @property
    def of_truth(self) -> Floats:
        """[N] probability of the true class."""
        return self.probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)

    def reliability(self, predicted: npt.NDArray[np.int64], rows: npt.NDArray[np.bool_] | None = None) -> list[Bin]:
        """What confidence in the class that is decided for is worth, in some rows or in all."""
        confidence = self.probabilities[np.arange(len(predicted)), predicted].astype(np.float64)
        values = confidence, predicted == self.labels, self.weights
        return reliability(*(values if rows is None else (each[rows] for each in values)))


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Rows as what was learnt on the other folds judges them: what it is worth on new zones."""

    tempered: OutOfFold
    predicted: npt.NDArray[np.int64]
    """[N] class index."""
    in_sets: npt.NDArray[np.bool_]
    """[N, K] whether each class belongs to the row's set; none does where there are no sets."""


def multipliers(frequencies: Floats, tau: float) -> tuple[float, ...]:
    """1 / frequency^tau of each class; of one without a training pixel as of the most frequent one, which is favoured least."""
    if tau == 0:
        return ()
    known = np.where(frequencies > 0, frequencies, frequencies.max())
    return tuple((known**-tau).tolist())


def learn_decision(
    found: OutOfFold, frequencies: Floats, settings: DecisionSettings
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a model is to do with its probabilities, and how that was found.

    Args:
        found: out-of-fold predictions of training zones by the recipe that the model was trained with.
        frequencies: [class] share of each class in the model's own training pixels.
        settings: what is asked for.

    Returns:
        (`decision` of its card: what `training.decision` reads, and what it cost and gained out of fold, `after` with
        loss and calibration error by what the other folds taught; tables: `taus` tau by tau, `reliability` without and
        with what was learnt on other folds, of all and of each region).
    """
    temperature = _temperature(found, np.ones(len(found.labels), np.bool_), settings)
    tempered = replace(found, probabilities=Decision(temperature=temperature).tempered(found.probabilities, 1))
    taus = TAUS if settings.rule == "prior" else (0.0,)
    cubes = np.stack([tempered.counts(tau) for tau in taus])
    tau = choose_tau(cubes, len(found.labels))
    before, after = (each.scores(cube) for each, cube in ((found, cubes[0]), (tempered, cubes[taus.index(tau)])))
    elsewhere = learnt_elsewhere(found, settings)
    after["loss"] = elsewhere.tempered.scores(cubes[0])["loss"]
    judged = {"before": (found, found.decided(0.0)), "after": (elsewhere.tempered, elsewhere.predicted)}
    tables = {when: of.reliability(predicted) for when, (of, predicted) in judged.items()}
    for scores, table in zip((before, after), tables.values(), strict=True):
        scores["ece"] = calibration_error(table)
    card = {
        "settings": settings.model_dump(mode="json"),
        "tau": tau,
        "frequencies": frequencies.tolist(),
        "multipliers": list(multipliers(frequencies, tau)),
        "temperature": temperature,
        "set_threshold": None,
        "zones": len(found.frequencies),
        "rows": len(found.labels),
        "before": before,
        "after": after,
        "other_folds": _scores(found.counts_of(elsewhere.predicted)) if settings.rule == "prior" else None,
    }
    if settings.coverage is not None:
        card["set_threshold"] = set_threshold(tempered.of_truth, found.zones, found.weights, settings.coverage)
        is_in = elsewhere.in_sets[np.arange(len(found.labels)), found.labels], elsewhere.in_sets.sum(1)
        card["sets"] = {
            name: float(np.average(values, weights=found.weights))
            for name, values in zip(("coverage", "classes"), is_in, strict=True)
        }
    listed = [{"tau": each, **_scores(cube)} for each, cube in zip(taus, cubes, strict=True)]
    reliable: dict[str, Any] = {when: [asdict(row) for row in table] for when, table in tables.items()}
    return card, {"taus": listed, "reliability": {**reliable, "regions": _by_region(found, judged)}}


def learnt_elsewhere(found: OutOfFold, settings: DecisionSettings) -> Elsewhere:
    """Judge each fold's rows by the temperature, then the tau and the threshold of sets, that the other folds teach."""
    probabilities, predicted = found.probabilities.copy(), np.empty(len(found.labels), np.int64)
    in_sets = np.zeros(probabilities.shape, np.bool_)
    for rows, tempered, tau in taught_elsewhere(found, settings):
        probabilities[rows], predicted[rows] = tempered.probabilities[rows], tempered.decided(tau)[rows]
        if settings.coverage is not None:
            known = tempered.of_truth[~rows], found.zones[~rows], found.weights[~rows]
            in_sets[rows] = probabilities[rows] >= set_threshold(*known, settings.coverage)
    return Elsewhere(replace(found, probabilities=probabilities), predicted, in_sets)


def taught_elsewhere(
    found: OutOfFold, settings: DecisionSettings
) -> Iterator[tuple[npt.NDArray[np.bool_], OutOfFold, float]]:
    """Of each fold ([N] which rows are its own, all rows by the temperature and the tau that the other folds teach)."""
    for fold in np.unique(found.folds):
        others, rows = found.folds != fold, found.folds[found.zones] == fold
        tempered, tau = _tempered(found, ~rows, settings), 0.0
        if settings.rule == "prior" and others.any():
            cubes = np.stack([tempered.counts(tau) for tau in TAUS])
            tau = choose_tau(cubes[:, others], int((~rows).sum()))
        yield rows, tempered, tau


def _by_region(
    found: OutOfFold, judged: Mapping[str, tuple[OutOfFold, npt.NDArray[np.int64]]]
) -> dict[str, dict[str, Any]]:
    """Region → how many `rows` tell of it and, where they are enough, its `ece` and its table `before` and `after`."""
    tables: dict[str, dict[str, Any]] = {}
    for region in sorted(set(found.regions)):
        rows = np.array([name == region for name in found.regions])[found.zones]
        tables[region] = {"rows": int(rows.sum())}
        if tables[region]["rows"] >= ENOUGH_OF_REGION:
            of = {when: of.reliability(predicted, rows) for when, (of, predicted) in judged.items()}
            tables[region]["ece"] = {when: calibration_error(table) for when, table in of.items()}
            tables[region] |= {when: [asdict(row) for row in table] for when, table in of.items()}
    return tables


def _temperature(found: OutOfFold, rows: npt.NDArray[np.bool_], settings: DecisionSettings) -> float:
    """Learnt from some rows, of those of trained classes; 1 where none is asked for."""
    known = rows & (found.frequencies[found.zones, found.labels] > 0)
    if not settings.calibrate:
        return 1.0
    return learn_temperature(found.probabilities[known], found.labels[known], found.weights[known])


def _tempered(found: OutOfFold, rows: npt.NDArray[np.bool_], settings: DecisionSettings) -> OutOfFold:
    decision = Decision(temperature=_temperature(found, rows, settings))
    return replace(found, probabilities=decision.tempered(found.probabilities, 1))


def choose_tau(cubes: Floats, n_rows: int) -> float:
    """One of `TAUS`: the mean of all, each weighed by what speaks for it, and lowered until accuracy holds.

    What speaks for a tau is how near its macro F1 comes to the best one, in standard errors of their difference over other
    zones, and how near it lies to `USUAL_TAU`, where nothing is known. The best of sixteen is noise: chosen on half of
    the training zones and scored on the other half, over 14 kinds of table (300-7,705 points of two countries, boosted and
    extra trees), it gained 0.027 macro F1 on average, this mean 0.032 and 0.004 of accuracy, and 0.007 where it gained
    least. A fixed 0.4 gained 0.037; on models that were trained with balanced classes, which want no tau, it cost 0.030
    and 0.046 of accuracy, this mean 0.002 and 0.004.

    Args:
        cubes: [tau, zone, true, predicted] pixels, tau as in `TAUS`; or of tau 0 alone.
        n_rows: predictions that they were counted from; of some hundred no tau is taken whole.

    Returns:
        A tau that costs no more accuracy than `MOST_LOST`, and whose macro F1 is not below that of the likeliest class by
        more than a standard error; of fewer zones than tell that error, not below it.
    """
    f1, accuracy = (np.array([_scores(cube)[key] for cube in cubes]) for key in ("macro_f1", "accuracy"))
    deviations = np.stack([_ratios("macro_f1", cube).deviations() for cube in cubes])
    n_zones, taus = cubes.shape[1], np.array(TAUS[: len(cubes)])
    is_told = n_zones >= MIN_ZONES
    lost = _error(deviations - deviations[0]) if is_told else np.zeros(len(cubes))
    is_allowed = (accuracy >= accuracy[0] - MOST_LOST) & (f1 >= f1[0] - lost)
    best = int(np.where(is_allowed, f1, -1.0).argmax())
    speaks = is_allowed * np.exp(-(((taus - USUAL_TAU) / _USUAL_WIDTH) ** 2) / 2)
    if is_told and (errors := _error(deviations - deviations[best])).any():
        speaks *= np.exp((f1 - f1[best]) / np.median(errors[errors > 0]))
    mean = float((speaks * taus).sum() / speaks.sum()) * min(n_rows / ENOUGH_ROWS, 1.0)
    nearest = int(np.abs(taus - mean).argmin())
    return TAUS[max(position for position in range(nearest + 1) if is_allowed[position])]


def _error(deviations: Floats) -> Floats:
    """[tau] standard error over other zones of what deviates so in each, [tau, zone]."""
    errors: Floats = deviations.std(1, ddof=1) / math.sqrt(deviations.shape[1])
    return errors


def decision_in_words(record: Mapping[str, Any]) -> Iterator[str]:
    """What a card's `decision` does, and what it is worth on out-of-fold predictions; by region, with the tables beside it."""
    before, after, elsewhere = record["before"], record["after"], record["other_folds"]
    if elsewhere is not None:
        yield (
            f"decision: probability / frequency^{record['tau']:g}; out of fold macro F1 {before['macro_f1']:.4f} -> "
            f"{after['macro_f1']:.4f}, accuracy {before['accuracy']:.4f} -> {after['accuracy']:.4f}; with the exponent "
            f"chosen on other folds {elsewhere['macro_f1']:.4f} and {elsewhere['accuracy']:.4f}"
        )
    if record["settings"]["calibrate"]:
        yield (
            f"probabilities are tempered by {record['temperature']:.3f}; out of fold loss {before['loss']:.4f} -> "
            f"{after['loss']:.4f}, calibration error {before['ece']:.4f} -> {after['ece']:.4f}, each fold tempered as the "
            f"others teach"
        )
    if record["set_threshold"] is not None:
        yield (
            f"sets of classes, to hold the true one of {record['settings']['coverage']:.0%} of a new zone's pixels: of folds "
            f"that had no part in it {record['sets']['coverage']:.1%}, by {record['sets']['classes']:.2f} classes on average"
        )
    if (unlike := record.get("unlike")) is not None:
        yield _unlike_in_words(unlike, record["settings"]["unlike"])
    if (fall_back := record.get("fall_back")) is not None:
        asked = record["settings"]
        yield from _fall_back_in_words(fall_back, None if asked["fall_back_below"] else asked["fall_back"])
    yield from _regions_in_words(record.get("reliability", {}).get("regions", {}))


def _unlike_in_words(worth: Mapping[str, float], most: float) -> str:
    if not worth["least"]:
        return (
            f"no pixel is flagged as unlike the training zones: they are too few to promise that not more than {most:.0%} of "
            f"a new zone's are, {round(1 / most)} or more are needed (decision.unlike)"
        )
    told = (
        f"pixels unlike the training zones, to be {most:.0%} of a new zone's at most: of folds that had no part in it "
    )
    if not worth["share"]:
        return f"{told}none is flagged, as the other folds may have too few zones to promise it: what the flag is worth is not known"
    return f"{told}{worth['share']:.1%}; their likeliest class is right in {worth['flagged']:.1%}, the others' in {worth['others']:.1%}"


def _fall_back_in_words(record: Mapping[str, Any], share: float | None) -> Iterator[str]:
    """`fall_back` of a card's `decision`, learnt for a share of right classes; None: the threshold was given."""
    if record["why"]:
        yield f"no pixel falls back to its group of the legend: {record['why']}"
        return
    below = record["below_percent"]
    wish = (
        "as given"
        if share is None
        else f"so that classes are right in {share:.0%} of a new zone's pixels that keep theirs"
    )
    worth = "" if record["class_right"] is None else f", which is right in {record['class_right']:.1%}"
    groups = (
        "" if record["group_right"] is None else f"; of the others the group is right in {record['group_right']:.1%}"
    )
    yield (
        f"pixels below {below} % of confidence fall back to their group of {record['level']}, {wish}; of folds that had no part "
        f"in it {record['kept']:.1%} keep their class{worth}{groups}"
    )
    if below == NONE_KEPT:
        yield "no threshold reaches so much out of fold: all pixels are answered by their group; lower decision.fall_back"


def _regions_in_words(regions: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Nothing of a single one, which is the whole; the worst first, the others are on the page."""
    if len(regions) < 2:
        return
    told = sorted((name for name in regions if "ece" in regions[name]), key=lambda name: -regions[name]["ece"]["after"])
    parts = [
        f"{name} {regions[name]['ece']['before']:.3f} -> {regions[name]['ece']['after']:.3f} ({regions[name]['rows']:,} rows)"
        for name in told[:_TOLD_REGIONS]
    ]
    few = [f"{name} ({regions[name]['rows']:,})" for name in regions if name not in told]
    parts += [f"{len(told) - _TOLD_REGIONS} better ones"] if len(told) > _TOLD_REGIONS else []
    parts += [f"too few rows to tell: {', '.join(few)}"] if few else []
    yield f"calibration error by region, worst first: {'; '.join(parts)}"


def _ratios(key: str, cube: Floats) -> Ratios:
    return _RATIOS[key](cast("Counts", cube))  # counts that are scaled up


def _scores(cube: Floats) -> dict[str, float]:
    return {key: _ratios(key, cube).mean() for key in ("accuracy", "macro_f1")}
