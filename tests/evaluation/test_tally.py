"""A zone counted by parcel, by size and by clear steps, against loops."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cropray.core.errors import AccountingError, SchemaError
from cropray.core.metrics import score
from cropray.evaluation.detail import FEWEST_OF_ZONE, _spread, cubes_of, detail, headline
from cropray.evaluation.tally import N_SIZES, SIZES_HA, Tally, clear_titles, size_titles
from cropray.maps.parcels import parcel_areas
from cropray.training.decision import Decision
from tests.maps.builders import CLASSES
from tests.study import N_MONTHS

K = len(CLASSES)
RULED = Decision((1.4, 0.2, 1.9, 1.0, 1.7))
AREAS = np.array([0.1, 0.5, 0.9, 1.0, 1.99, 2.0, 4.0, 5.0, 9.9, 10.0, 70.0])


def model(decision=None, n_steps=N_MONTHS):
    return SimpleNamespace(classes=CLASSES, decision=decision or Decision(), cube=SimpleNamespace(n_steps=n_steps))


def drawn(seed=0, n=900, n_parcels=14):
    """(pixel table, true class of each pixel, probabilities [K, N]); parcels beyond AREAS have none."""
    rng = np.random.default_rng(seed)
    parcel = rng.integers(0, n_parcels, n).astype(np.int32)
    true = rng.integers(0, K, n_parcels).astype(np.uint8)[parcel]
    columns = {"parcel": parcel, "n_clear": rng.integers(0, N_MONTHS + 1, n).astype(np.uint8)}
    of_parcel = rng.dirichlet(np.ones(K), n_parcels)[parcel]  # so that parcels are wrong as a whole
    chances = 0.4 * of_parcel + 0.45 * rng.dirichlet(0.3 * np.ones(K), n) + 0.15 * np.eye(K)[true]
    return pa.table(columns), true, chances.T.astype(np.float32)


def tallied(table, true, chances, *, areas=AREAS, decision=None, n_parts=4, seed=0):
    """Taken in by parts in any order."""
    tally = Tally(table, true, model(decision), areas)
    for rows in np.array_split(np.random.default_rng(seed).permutation(len(true)), n_parts):
        tally.add(rows, chances[:, rows])
    return tally.counts()


def size_of(parcel):
    return sum(AREAS[parcel] >= bound for bound in SIZES_HA) if parcel < len(AREAS) else N_SIZES - 1


@pytest.mark.parametrize("decision", [Decision(), RULED], ids=["likeliest", "rule"])
def test_parcels_are_decided_by_most_of_their_pixels_and_by_their_mean(decision):
    table, true, chances = drawn(n_parcels=90)
    decided, parcels = decision.decide(chances), table["parcel"].to_numpy()
    majority, mean = np.zeros((2, N_SIZES, K, K), np.int64)
    for parcel in set(parcels.tolist()):
        (of_class,) = set(true[parcels == parcel].tolist())
        votes = Counter(decided[parcels == parcel].tolist())
        winner = min(votes, key=lambda index: (-votes[index], index))
        average = chances[:, parcels == parcel].astype(float).mean(1)
        majority[size_of(parcel), of_class, winner] += 1
        weights = np.array(decision.multipliers or [1.0] * K)
        mean[size_of(parcel), of_class, (average * weights).argmax()] += 1
    found = tallied(table, true, chances, decision=decision)["parcels"]
    np.testing.assert_array_equal(found, [majority, mean])
    assert (majority != mean).any()
    assert found[0].sum() == 90


def test_pixels_are_counted_by_size_and_clear_steps():
    table, true, chances = drawn(1)
    sizes, clear = np.zeros((N_SIZES, K, K), np.int64), np.zeros((5, K, K), np.int64)
    for parcel, n_clear, t, d in zip(
        table["parcel"].to_pylist(), table["n_clear"].to_pylist(), true, chances.argmax(0), strict=True
    ):
        sizes[size_of(parcel), t, d] += 1
        clear[(0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4)[n_clear], t, d] += 1
    found = tallied(table, true, chances)
    np.testing.assert_array_equal(found["parcel_sizes"], sizes)
    np.testing.assert_array_equal(found["clear_steps"], clear)
    assert clear_titles(N_MONTHS) == ("0–2", "3–5", "6–8", "9–11", "12")


@pytest.mark.parametrize("n_parts", [1, 3, 450])
def test_parts_and_their_order_change_nothing(n_parts):
    """Two pixels that outweigh each other exactly are a tie in any order: the first class has it."""
    table = pa.table({"parcel": np.zeros(900, np.int32), "n_clear": np.zeros(900, np.uint8)})
    likely = np.random.default_rng(n_parts).random(450, np.float32) / 2
    chances = np.zeros((K, 900), np.float32)
    chances[1], chances[3] = np.append(likely, 0.5 - likely), np.append(0.5 - likely, likely)
    _, mean = tallied(table, np.full(900, 3, np.uint8), chances, n_parts=n_parts, seed=n_parts)["parcels"]
    assert mean[0, 3, 1] == 1


def test_points_have_no_parcels():
    table, true, chances = drawn()
    assert list(tallied(table, true, chances, areas=None)) == ["clear_steps", "confidence"]


def test_a_parcel_with_two_classes_counts_for_both():
    table = pa.table({"parcel": np.zeros(5, np.int32), "n_clear": np.zeros(5, np.uint8)})
    true = np.array([0, 0, 2, 2, 2], np.uint8)
    found = tallied(table, true, np.eye(K, dtype=np.float32)[[0, 0, 1, 1, 2]].T)
    assert found["parcels"][0, 0].tolist() == [[1, 0, 0, 0, 0], [0] * 5, [0, 1, 0, 0, 0], [0] * 5, [0] * 5]


@pytest.mark.parametrize("n_steps", range(1, 40))
def test_groups_of_clear_steps_cover_all_numbers(n_steps):
    table = pa.table({"parcel": np.zeros(n_steps + 1, np.int32), "n_clear": np.arange(n_steps + 1, dtype=np.uint8)})
    tally = Tally(table, np.zeros(n_steps + 1, np.uint8), model(n_steps=n_steps), None)
    tally.add(np.arange(n_steps + 1), np.eye(K, dtype=np.float32)[[0] * (n_steps + 1)].T)
    counts, titles = tally.counts()["clear_steps"], clear_titles(n_steps)
    assert len(counts) == len(titles) <= 6
    spans = [title.split("–") for title in titles]
    assert counts.sum((1, 2)).tolist() == [int(span[-1]) - int(span[0]) + 1 for span in spans]


MANIFEST = SimpleNamespace(classes=CLASSES, cube=SimpleNamespace(n_steps=N_MONTHS))


def zones(n=6):
    """([zone ids], cube, what each zone's tally counts)."""
    drawings = [drawn(seed, n=300 + 40 * seed) for seed in range(n)]
    found = [tallied(*drawing) for drawing in drawings]
    return [f"z-{i}" for i in range(n)], np.stack([each["parcel_sizes"].sum(0) for each in found]), found


def test_scores_are_of_cubes_and_add_up():
    zone_ids, cube, found = zones()
    cubes = cubes_of(zone_ids, cube, found)
    record = detail(MANIFEST, zone_ids, cube, cubes, seed=3)
    for name in ("parcel_sizes", "clear_steps"):
        assert sum(row["n"] for row in record[name]) == cube.sum()
    of_clear = cubes["clear_steps"][0].sum(0)
    assert record["clear_steps"][0]["classes"] == of_clear.any(1).sum()
    assert record["clear_steps"][0]["metrics"] == score(of_clear).as_metrics("test")
    parcels = record["parcels"]["majority"]
    assert parcels["metrics"] == score(cubes["parcels_majority"].sum((0, 1))).as_metrics("test")
    assert sum(row["parcels"]["n"] for row in record["parcel_sizes"]) == parcels["n"] == 14 * 6
    assert [row["group"] for row in record["parcel_sizes"]] == list(size_titles())
    for row, of_size in zip(record["parcel_sizes"], cubes["parcels_majority"], strict=True):
        assert row["parcels"]["metrics"] == score(of_size.sum(0)).as_metrics("test")
    low, high = parcels["intervals"]["test_macro_f1"]
    assert low < parcels["metrics"]["test_macro_f1"] < high
    told = headline(record)
    assert (told["test_parcel_macro_f1_low"], told["test_parcel_macro_f1_high"]) == (low, high)


def test_the_worst_zone_and_the_spread_are_named():
    zone_ids, cube, found = zones(5)
    cube[4] = found[4]["parcel_sizes"][:] = found[4]["clear_steps"][:] = 0
    found[4]["parcels"][:] = found[4]["confidence"][:] = 0
    record = detail(MANIFEST, zone_ids, cube, cubes_of(zone_ids, cube, found), seed=0)
    accuracies = sorted(
        (np.trace(counts) / counts.sum(), zone) for zone, counts in zip(zone_ids[:4], cube, strict=False)
    )
    values = [accuracy for accuracy, _ in accuracies]
    spread = record["zones"]["accuracy"]
    assert (spread["worst"], spread["worst_zone"]) == accuracies[0]
    assert spread["lower_quartile"] == pytest.approx(values[0] + 0.75 * (values[1] - values[0]))
    assert spread["median"] == pytest.approx((values[1] + values[2]) / 2)
    assert spread["upper_quartile"] == pytest.approx(values[2] + 0.25 * (values[3] - values[2]))
    assert headline(record)["test_worst_zone_accuracy"] == values[0]


def test_a_zone_of_a_handful_of_labels_is_not_the_worst():
    zone_ids, cube, _ = zones(3)
    cube[:2] = 0
    cube[0, 0, 1] = FEWEST_OF_ZONE - 1  # all wrong
    cube[1, 0, 0] = FEWEST_OF_ZONE
    spread = _spread(zone_ids, cube)["accuracy"]
    assert (spread["n"], spread["worst_zone"]) == (2, zone_ids[2])
    assert _spread(zone_ids[:1], cube[:1]) == {}
    assert headline({"zones": {}}) == {}


def test_an_evaluation_of_an_earlier_version_has_no_headline():
    assert headline({}) == {}


@pytest.mark.parametrize(
    ("name", "place", "what"),
    [
        ("clear_steps", (0, 1, 1), "pixels by clear_steps do not add up"),
        ("parcel_sizes", (2, 0, 0), "pixels by parcel_sizes do not add up"),
        ("confidence", (40, 0), "pixels by confidence do not add up"),
        ("confidence", (40, 1), "pixels by confidence do not add up"),
        ("parcels", (1, 0, 2, 2), "the rules do not decide the same parcels"),
        ("parcels", (slice(None), 1, 2, 2), "other parcels than the labelled pixels"),
    ],
)
def test_what_is_lost_or_counted_twice_is_an_error(name, place, what):
    zone_ids, cube, found = zones(3)
    found[1][name][place] += 1000
    with pytest.raises(AccountingError, match=f"{what}.*in 1 of 3 zones, the first is 'z-1'"):
        cubes_of(zone_ids, cube, found)


def test_a_row_that_no_part_covers_is_an_error():
    table, true, chances = drawn()
    tally = Tally(table, true, model(), AREAS)
    tally.add(np.arange(1, 900), chances[:, 1:])
    cube = tallied(table, true, chances)["parcel_sizes"].sum(0)[None]
    with pytest.raises(AccountingError, match="'z-1'"):
        cubes_of(["z-1"], cube, [tally.counts()])


def test_areas_are_of_the_parcel_table(tmp_path):
    path = tmp_path / "z-1.parquet"
    assert len(parcel_areas(path)) == 0  # sizes are unknown then, and told so
    pq.write_table(pa.table({"area_ha": [1.5, 0.25], "parcel_id": ["a", "b"]}), path)
    assert parcel_areas(path).tolist() == [1.5, 0.25]
    pq.write_table(pa.table({"parcel_id": ["a"]}), path)
    with pytest.raises(SchemaError, match=r"z-1.parquet.*cropray labels"):
        parcel_areas(path)
    path.write_text("no table")
    with pytest.raises(SchemaError, match=r"z-1.parquet"):
        parcel_areas(path)
