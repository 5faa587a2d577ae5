"""The page and its pictures."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cropray.metrics import score
from cropray.report.class_pictures import draw_confusion
from cropray.report.drawing import compact
from cropray.report.page import Pictures, render_page, write_report
from cropray.report.results import Preview
from tests.report.builders import Configuration, Fold, draw_inputs


class Page(HTMLParser):
    """Collects pictures and proves that every tag is closed."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.images, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def inputs():
    return draw_inputs(n_classes=6, n_regions=3)


@pytest.fixture(scope="module")
def folder(inputs, tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    Image.new("RGB", (40, 20)).save(root / "preview.png")
    shown = replace(inputs, previews=(Preview("beauce-5", "CNN", root / "preview.png"),))
    return write_report(shown, root / "report").parent


def test_every_picture_is_beside_the_page_and_on_it(folder):
    page = Page((folder / "index.html").read_text())
    on_disk = {path.name for path in folder.iterdir()} - {"index.html"}
    assert set(page.images) == on_disk
    assert "map_cnn_beauce-5.png" in on_disk
    for name in on_disk - {"map_cnn_beauce-5.png"}:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300
            assert np.asarray(picture.convert("L")).std() > 5  # not blank


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
    assert "<script>" not in render_page(strange, Pictures((), {}, ()))


def test_a_bare_report_of_one_model(inputs, tmp_path):
    """One configuration, no history, no intervals, a class that is never right, a region that was never seen."""
    model = inputs.models[1]
    cube = model.cube.copy()
    cube[:, 1, 0] += cube[:, 1].sum(-1)
    cube[:, 1, 1:] = 0
    bare = replace(
        model, configurations=(Configuration({"learning_rate": 0.1}, (Fold(0, 1, ()),)),), best={"learning_rate": 0.1},
        cube=cube, loss_sum=None, intervals={}, region_scores=score(model.confusion),
    )  # fmt: skip
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "of_an_earlier_report.png").touch()
    report = write_report(replace(inputs, models=(bare,), zone_quality=(), next_commands={}), tmp_path / "report")
    text = report.read_text()
    Page(text)
    assert "in regions never seen" in text
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
