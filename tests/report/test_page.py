"""The page and its pictures."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cropray.core.metrics import score
from cropray.evaluation.results import DataPictures, Preview, ZonePictures
from cropray.report import page as page_module
from cropray.report.class_pictures import draw_class_by_region, draw_class_distribution, draw_confusion
from cropray.report.detail_pictures import draw_detail, in_words
from cropray.report.drawing import compact
from cropray.report.page import Pictures, render_page, write_report
from cropray.report.score_pictures import draw_reliability
from tests.report.builders import Configuration, Fold, draw_decision, draw_inputs


class Page(HTMLParser):
    """Collects pictures and proves that every tag is closed."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.open = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        if tag == "a":
            self.links.append(dict(attrs)["href"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def inputs():
    return draw_inputs(n_classes=6, n_regions=3)


@pytest.fixture(scope="module")
def pictures(inputs, tmp_path_factory):
    """Pictures of the data as they lie beside a dataset: two drawn ones, and of two zones grey stand-ins."""
    root = tmp_path_factory.mktemp("data") / "dataset" / "pictures"
    draw_class_distribution(inputs, root / "class_distribution.png")
    draw_class_by_region(inputs, root / "class_by_region.png")
    zones = []
    for zone_id in ("beauce-1", "picardie-1"):
        files = [
            root / "zones" / zone_id / name for name in ("true_colour.gif", "false_colour.gif", "B02.gif", "n.png")
        ]
        files[0].parent.mkdir(parents=True)
        for file in files:
            Image.new("L", (500, 400)).save(file)
        films = (("true colour", files[0]), ("infrared, red, green", files[1]), ("B02, blue", files[2]))
        zones.append(ZonePictures(zone_id, zone_id[:-2], films, files[3]))
    overviews = (("Classes", root / "class_distribution.png"), ("Regions", root / "class_by_region.png"))
    return DataPictures(overviews, tuple(zones))


@pytest.fixture(scope="module")
def folder(inputs, pictures, tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    Image.new("RGB", (40, 20)).save(root / "preview.png")
    shown = replace(inputs, pictures=pictures, previews=(Preview("beauce-5", "CNN", root / "preview.png"),))
    return write_report(shown, root / "report").parent


def test_every_picture_is_beside_the_page_and_on_it(folder):
    page = Page((folder / "index.html").read_text())
    on_disk = {path.name for path in folder.iterdir()} - {"index.html"}
    assert set(page.images) == on_disk
    assert {"map_cnn_beauce-5.png", "beauce-1_true_colour.gif", "picardie-1_n.png"} <= on_disk
    for name in on_disk:
        if name.startswith(("map_", "beauce-1_", "picardie-1_")):
            continue  # stand-ins
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300
            assert np.asarray(picture.convert("L")).std() > 5  # not blank


def test_a_page_tells_how_a_model_decides_and_what_its_confidence_is_worth(inputs, folder, tmp_path):
    assert "Learnt out of fold" not in (folder / "index.html").read_text()
    decision, region = draw_decision(), inputs.models[1].scores
    ruled = replace(inputs, models=(inputs.models[0], replace(inputs.models[1], decision=decision, new_region=region)))
    write_report(ruled, tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert f"frequency^{decision['tau']:g}; out of fold macro F1 {decision['before']['macro_f1']:.4f}" in text
    assert f"tempered by {decision['temperature']:.3f}" in text
    assert "XGBoost: scores of new regions are of its likeliest class" in text
    assert "reliability_xgboost.png" in Page(text).images
    assert "calibration error by region, worst first:" in text
    with Image.open(tmp_path / "report" / "reliability_xgboost.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5


def test_what_confidence_is_worth_has_a_panel_for_each_region(inputs, tmp_path):
    sizes, decision = [], draw_decision(1)
    of_region = {"rows": 1500, "ece": {"before": 0.1, "after": 0.05}, **decision["reliability"]}
    for n_regions in (0, 1, 2, 3, 8, 30):
        regions = {f"a region with a rather long name {i}": of_region for i in range(n_regions)}
        if n_regions == 8:
            regions["hills"] = {"rows": 7}
        told = {**decision, "reliability": {**decision["reliability"], "regions": regions}}
        draw_reliability(replace(inputs.models[1], decision=told), tmp_path / "r.png")
        with Image.open(tmp_path / "r.png") as picture:
            sizes.append(picture.size)
    assert sizes[0] == sizes[1]  # a single region is the whole
    assert sizes[2][0] > sizes[3][0]
    assert sizes[4] == sizes[5]  # a square of panels holds the largest regions
    del decision["reliability"]["regions"]  # of a search that told none apart
    draw_reliability(replace(inputs.models[1], decision=decision), tmp_path / "r.png")


def test_every_link_leads_to_a_picture(folder):
    page = Page((folder / "index.html").read_text())
    assert all((folder / link).is_file() for link in page.links)
    assert sum(link.endswith("zones/beauce-1/B02.gif") for link in page.links) == 1  # single bands lie by the dataset


def test_films_that_would_make_the_page_heavy_are_linked_instead(inputs, pictures, tmp_path, monkeypatch):
    first = pictures.zones[0]
    n_bytes = sum(path.stat().st_size for path in (first.films[0][1], first.films[1][1], first.n_obs))
    monkeypatch.setattr(page_module, "MAX_FILM_BYTES", n_bytes)
    report = write_report(replace(inputs, models=(), pictures=pictures), tmp_path / "report")
    page = Page(report.read_text())
    assert [name for name in page.images if name.startswith("beauce-1")] == [
        "beauce-1_true_colour.gif", "beauce-1_false_colour.gif", "beauce-1_n.png",
    ]  # fmt: skip
    assert not [name for name in page.images if name.startswith("picardie-1")]
    assert sum("picardie-1" in link for link in page.links) == 3
    assert all((report.parent / link).is_file() for link in page.links)


def test_a_dataset_alone_has_a_page_that_says_what_to_run(inputs, pictures, tmp_path):
    missing = {"CNN": "not searched yet", "XGBoost": "not evaluated yet"}
    bare = replace(inputs, models=(), missing_models=missing, pictures=pictures, next_commands={"go": "cropray search"})
    report = write_report(bare, tmp_path / "report")
    text = re.sub(r"\s+", " ", report.read_text())
    assert set(Page(text).images) == {path.name for path in report.parent.iterdir()} - {"index.html"}
    for expected in ("No scores yet", "CNN: not searched yet", "XGBoost: not evaluated yet", "cropray search"):
        assert expected in text
    for absent in ("Scores on the test zones", "Macro F1", "Zone by zone</h2>", "confusion", "0.8721"):
        assert absent not in text
    assert "will rest on" in text


def test_a_model_without_scores_is_named_beside_one_that_has_some(inputs):
    half = replace(inputs, models=inputs.models[:1], missing_models={"XGBoost": "not searched yet"}, zone_quality=())
    text = render_page(half, Pictures((), (), {}, ()))
    assert "Not in this report" in text
    assert "XGBoost: not searched yet" in text
    assert "Scores on the test zones" in text


def test_the_page_says_the_scores_and_that_the_study_is_not_comparable(folder, inputs):
    text = re.sub(r"\s+", " ", (folder / "index.html").read_text())
    for model in inputs.models:
        assert f"{model.scores.macro_f1:.4f}" in text
        assert f"{model.study_scores.macro_f1:.4f}" in text
    assert "<strong>not comparable</strong>" in text
    assert "0.8721" in text
    assert "26–27 %" in text


def test_the_winner_is_marked_once_per_model(folder):
    assert (folder / "index.html").read_text().count('<tr class="best">') == 2


def test_the_same_results_give_the_same_bytes(folder, inputs, tmp_path):
    draw_confusion(inputs.models[0], inputs.manifest, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (folder / "confusion_cnn.png").read_bytes()


def test_texts_from_outside_are_escaped(inputs):
    strange = replace(inputs, unknown_codes_ha={"<script>": 1.0}, zone_quality=())
    assert "<script>" not in render_page(strange, Pictures((), (), {}, ()))


def test_new_regions_stand_beside_the_headline(inputs):
    by_region = {
        region: replace(score(inputs.models[0].cube[i], 40.0), n_untrained=7 * i) for i, region in enumerate("ab")
    }
    pooled = score(inputs.models[0].cube[:2].sum(0), 80.0)
    model = replace(inputs.models[0], new_region=pooled, new_regions=by_region)
    text = render_page(replace(inputs, models=(model,)), Pictures((), (), {}, ()))
    Page(text)
    assert f"in a new region: accuracy {pooled.accuracy:.3f}, macro F1 {pooled.macro_f1:.3f}" in text
    assert "each scored by a fit that saw none of its region" in text
    for region, scores in by_region.items():
        row = re.search(rf"<tr><td>{region}</td>(.*?)</tr>", text, re.DOTALL)[1]
        cells = re.findall("<td>(.*?)</td>", row)
        assert cells[-2:] == [f"{scores.n_pixels:,}", f"{scores.n_untrained}"]
        assert cells[0] == f"{scores.accuracy:.4f}"
    assert "set search.leave_region_out to true" in render_page(inputs, Pictures((), (), {}, ()))


def test_a_bare_report_of_one_model(inputs, tmp_path):
    """One configuration, no history, no intervals, a class that is never right."""
    model = inputs.models[1]
    cube = model.cube.copy()
    cube[:, 1, 0] += cube[:, 1].sum(-1)
    cube[:, 1, 1:] = 0
    bare = replace(
        model, configurations=(Configuration({"learning_rate": 0.1}, (Fold(0, 1, ()),)),), best={"learning_rate": 0.1},
        cube=cube, loss_sum=None, intervals={},
    )  # fmt: skip
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "of_an_earlier_report.png").touch()
    report = write_report(replace(inputs, models=(bare,), zone_quality=(), next_commands={}), tmp_path / "report")
    text = report.read_text()
    Page(text)
    assert not (report.parent / "curves_xgboost.png").exists()
    assert not (report.parent / "of_an_earlier_report.png").exists()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (950, "950"),
        (999, "999"),
        (1000, "1.0k"),
        (9949, "9.9k"),
        (9960, "10k"),
        (999_600, "1.0M"),
        (5.12e6, "5.1M"),
    ],
)
def test_counts_are_compact(count, text):
    assert compact(count) == text


def test_a_page_tells_parcels_the_worst_zone_and_groups(inputs, folder):
    text = (folder / "index.html").read_text()
    detail = inputs.models[0].detail
    parcels, zones = detail["parcels"]["majority"], detail["zones"]["macro_f1"]
    low, high = (parcels["intervals"] or {}).get("test_accuracy", (0, 0))
    remark = f"[{low:.2f}–{high:.2f}]" if parcels["intervals"] else ""
    assert f"<td>{parcels['metrics']['test_accuracy']:.4f}<small>{remark}</small></td>" in text
    assert f"<td>{zones['worst']:.4f}<small>{zones['worst_zone']}</small></td>" in text
    assert "0.5–1 ha" in text
    assert "9–11" in text
    level = detail["levels"]["level_1"]
    assert f"Pixels, in {level['groups']} groups of level_1" in text
    assert "answered by their group of level_2" in text


def text_with(inputs, *models, **changes):
    """The page's text with other models, without drawing anything."""
    return render_page(replace(inputs, models=models, **changes), Pictures((), (), {}, ()))


def test_a_page_of_evaluations_by_an_earlier_version_tells_what_it_has(inputs, tmp_path):
    before = [replace(model, detail={}) for model in inputs.models]
    assert "counted otherwise" not in text_with(inputs, *before)
    assert not draw_detail(replace(inputs, models=tuple(before)), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    mixed = before[0], inputs.models[1]
    assert "detail.png" in Page(text_with(inputs, *mixed)).images
    assert draw_detail(replace(inputs, models=mixed), tmp_path / "one.png")


def test_a_page_of_points_has_no_parcels(inputs, tmp_path):
    of_points = {name: inputs.models[0].detail[name] for name in ("zones", "clear_steps")}
    model = replace(inputs.models[0], detail={**of_points, "levels": {}, "fall_back": None})
    text = text_with(inputs, model)
    assert "Worst zone" in text
    assert "Parcels, by" not in text
    assert "9–11" in text
    assert draw_detail(replace(inputs, models=(model,)), tmp_path / "points.png")


def test_a_terminal_is_told_of_parcels_and_the_worst_zone(inputs):
    (model, *_), detail = inputs.models, inputs.models[0].detail
    zone = detail["zones"]["macro_f1"]
    said = in_words(model)
    assert said.startswith(f"CNN: by parcel accuracy {detail['parcels']['majority']['metrics']['test_accuracy']:.4f}, ")
    assert said.endswith(f", macro F1 {zone['worst']:.4f} ({zone['worst_zone']})")
    assert in_words(replace(model, detail={"zones": detail["zones"]})).startswith("CNN: in the worst zone accuracy 0.")
    assert in_words(replace(model, detail={})) == ""


def test_a_page_of_a_flat_legend_says_that_there_is_nothing_to_fall_back_to(inputs):
    classes = tuple(replace(crop, level1=crop.name, level2=crop.name) for crop in inputs.manifest.classes)
    model = replace(inputs.models[0], detail={**inputs.models[0].detail, "levels": {}, "fall_back": None})
    text = text_with(inputs, model, manifest=replace(inputs.manifest, classes=classes))
    assert "The legend has no groups of these classes" in text
    assert "groups of level" not in text
