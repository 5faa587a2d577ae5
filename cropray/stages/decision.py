"""How a search's winner decides: learnt from its out-of-fold predictions, and written into its card."""

import functools
import json
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pyarrow as pa

from cropray.config import JobConfig
from cropray.core.closure import code_digest
from cropray.core.errors import LeakageError, MissingArtefactError, SchemaError
from cropray.core.progress import Progress
from cropray.core.until_step import UNTIL, hide_after
from cropray.datasets.doubts import some
from cropray.datasets.manifest import Manifest
from cropray.datasets.storage import read_pixels
from cropray.evaluation.out_of_fold import Rows, read_drawn, read_out_of_fold
from cropray.io.storage import Location, write_json
from cropray.io.workspace import Workspace
from cropray.search.decision import DecisionSettings, Floats, OutOfFold, decision_in_words, learn_decision
from cropray.search.likeness import learn_likeness
from cropray.training.card import CARD_FILE, load_card
from cropray.training.decision import CARD_KEY
from cropray.training.likeness import CARD_KEY as LIKENESS_KEY
from cropray.training.likeness import Numbers
from cropray.training.pixel_blocks import class_indices, samples

_MOST_PIXELS: Final = 100_000  # that tell where training pixels lie
_digest: Final = functools.cache(code_digest)


def asked(job: JobConfig) -> dict[str, Any] | None:
    """What a decision is learnt by: settings and code; None: the likeliest class is taken, and nothing learnt."""
    if job.decision == DecisionSettings():
        return None
    of_flag = () if job.decision.unlike is None else (learn_likeness, _drawn_pixels)
    return {**job.decision.model_dump(mode="json"), "code": _digest(learn_decision, read_evidence, *of_flag)}


def learn_of_winner(job: JobConfig, manifest: Manifest, model: str, progress: Progress) -> None:
    """Write `decision` into the card of the published model and into the result of its search; nothing where none is asked for.

    Raises:
        LeakageError: predictions are of zones that are no training zones.
        MissingArtefactError: there are no out-of-fold predictions.
        SchemaError: they, or the pixel tables, are of another dataset.
    """
    wanted, workspace = asked(job), job.artefacts
    if wanted is None:
        return
    found = read_evidence(workspace, manifest, model)
    train = [zone.zone_id for zone in manifest.of_split("train")]
    record, tables = learn_decision(found, _shares(manifest, train), job.decision)
    folder, result = workspace.model(model), workspace.search_result(model)
    card = {name: value for name, value in load_card(folder).items() if name not in (CARD_KEY, LIKENESS_KEY)}
    card[CARD_KEY] = record
    if job.decision.unlike is not None:
        pixels = _drawn_pixels(workspace, manifest, model, found, job.until_step)
        likeness, record["unlike"] = learn_likeness(*pixels, found, job.decision.unlike)
        card[LIKENESS_KEY] = likeness.to_record()
    write_json(folder / CARD_FILE, card)
    summary = json.loads(result.read_text(encoding="utf-8"))
    write_json(result, {**summary, "decision": {"asked": wanted, **record, **tables}})
    for line in decision_in_words({**record, **tables}):
        progress.note(f"{model:<8} {line}")


def read_evidence(workspace: Workspace, manifest: Manifest, model: str) -> OutOfFold:
    """The out-of-fold predictions of a model, each row standing for as many pixels as it was drawn from.

    Raises:
        LeakageError: some are of zones that are no training zones.
        MissingArtefactError: there are none.
        SchemaError: they are of another dataset.
    """
    zones = {zone.zone_id: zone for zone in manifest.of_split("train")}
    paths = list(_files(workspace, manifest, model).values())
    if not paths:
        raise MissingArtefactError(
            f"there are no out-of-fold predictions of {model} to learn its decision from "
            f"('{workspace.out_of_fold(model, 'ZONE')}'): see that the zones have composites and search.oof_rows is above 0, "
            f"and run `cropray search CONFIG.yaml`, which fits nothing twice"
        )
    labels, probabilities, names = read_out_of_fold(paths)
    if strange := sorted(set(names) - zones.keys()):
        raise LeakageError(
            f"out-of-fold predictions of {model} are of zones that are no training zones ({some(strange)}): a decision "
            f"learnt from them would have seen the test. Remove '{paths[0].parent}' and run `cropray search CONFIG.yaml`"
        )
    zone_ids, position = np.unique(names, return_inverse=True)
    n_pixels = np.stack([manifest.class_counts([zone_id]) for zone_id in zone_ids.tolist()])
    n_rows = np.zeros_like(n_pixels)
    np.add.at(n_rows, (position, labels), 1)
    if probabilities.shape[1] != manifest.n_classes or (n_rows > n_pixels).any():
        raise SchemaError(
            f"out-of-fold predictions of {model} in '{paths[0].parent}' are not of this dataset's pixels; remove the "
            f"folder and run `cropray search CONFIG.yaml`, which fits nothing twice"
        )
    folds = [_fold_of(zones[zone_id].fold) for zone_id in zone_ids.tolist()]
    shares = {fold: _shares(manifest, manifest.fold_zones(fold)[0]) for fold in set(folds)}
    return OutOfFold(
        labels=labels,
        probabilities=probabilities,
        zones=position,
        weights=(n_pixels / np.maximum(n_rows, 1))[position, labels],
        frequencies=np.stack([shares[fold] for fold in folds]),
        folds=np.array(folds),
        regions=tuple(zones[zone_id].region for zone_id in zone_ids.tolist()),
    )


def _files(workspace: Workspace, manifest: Manifest, model: str) -> dict[str, Location]:
    """Training zone → its out-of-fold predictions, of zones that have any."""
    files = {zone.zone_id: workspace.out_of_fold(model, zone.zone_id) for zone in manifest.of_split("train")}
    return {zone_id: file for zone_id, file in files.items() if file.exists()}


def _drawn_pixels(
    workspace: Workspace, manifest: Manifest, model: str, found: OutOfFold, until_step: int | None = None
) -> tuple[Numbers, Rows]:
    """([M, F] stored numbers of the rows that were predicted, every so many of them where they are more than enough; [M] which).

    Steps of time after `until_step` are missing, as they were to the model. SchemaError: the tables are of another dataset.
    """
    every, first = max(1, -(-len(found.labels) // _MOST_PIXELS)), 0
    pixels, positions = list[Numbers](), list[Rows]()
    for zone_id, file in _files(workspace, manifest, model).items():
        drawn = read_drawn(file)
        positions.append(first + np.arange(0, len(drawn), every))
        table, rows, first = read_pixels(workspace, zone_id, manifest.cube), drawn[::every], first + len(drawn)
        known = found.labels[positions[-1]]
        if (
            rows.max(initial=-1) >= len(table)
            or (class_indices(picked := table.take(pa.array(rows)), manifest.lookup()) != known).any()
        ):
            raise SchemaError(
                f"out-of-fold predictions of zone '{zone_id}' by {model} are not of its pixel table; remove "
                f"'{file.parent}' and run `cropray search CONFIG.yaml`, which fits nothing twice"
            )
        pixels.append(samples(picked, manifest.cube.columns))
    x = np.concatenate(pixels)
    return x if until_step is None else hide_after(x, manifest.cube, until_step), np.concatenate(positions)


def _fold_of(fold: int | None) -> int:
    assert fold is not None
    return fold


def _shares(manifest: Manifest, zone_ids: Iterable[str]) -> Floats:
    """[class] share of each class in the labelled pixels of some zones."""
    counts = manifest.class_counts(zone_ids)
    shares: Floats = counts / counts.sum()
    return shares


def require_decision(job: JobConfig, model: str) -> None:
    """See that a published model decides as the job asks, and sees as much of the season.

    Raises:
        MissingArtefactError: there is no model.
        SchemaError: it decides otherwise, or sees other steps.
    """
    card, default = load_card(job.artefacts.model(model)), DecisionSettings().model_dump(mode="json")
    if (saw := card.get(UNTIL)) != job.until_step:
        raise SchemaError(
            f"'{job.artefacts.model(model)}' was trained with until_step = {saw}, the job has {job.until_step}: set it so, or "
            f"run `cropray search CONFIG.yaml`"
        )
    was = {**default, **card.get(CARD_KEY, {}).get("settings", {})}
    now = job.decision.model_dump(mode="json")
    if changed := [f"decision.{name} is {now[name]}, was {was[name]}" for name in now if was[name] != now[name]]:
        raise SchemaError(
            f"'{job.artefacts.model(model)}' decides otherwise than the job asks ({', '.join(changed)}); run "
            f"`cropray search CONFIG.yaml`, which fits nothing twice"
        )
