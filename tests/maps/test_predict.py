"""Windows tile the zone, and cutting it changes nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cropray.evaluation.models import load_model
from cropray.maps.predict import MAP_NODATA, predict_zone, windows
from tests.maps.builders import CLASSES, RULE, draw_image, ruled, save_cnn, save_trees

WHOLE = (512, 512)


@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    stride=st.sampled_from((1, 2, 4)),
    n_margin=st.integers(0, 3),
    extra=st.integers(1, 20),
)
def test_kept_parts_cover_the_image_once(shape, stride, n_margin, extra):
    margin = n_margin * stride
    window_px = (2 * margin + stride + extra, 2 * margin + stride + 2 * extra)
    covered = np.zeros(shape, int)
    for outer, core in windows(shape, window_px, margin, stride):
        covered[core.slices] += 1
        assert outer.height <= window_px[0]
        assert outer.width <= window_px[1]
        assert outer.row % stride == outer.col % stride == 0
        # Kept pixels are a margin away from every edge that is not the image's own.
        assert core.row - outer.row >= margin or outer.row == 0
        assert core.col - outer.col >= margin or outer.col == 0
        assert outer.row + outer.height - core.row - core.height >= margin or outer.row + outer.height == shape[0]
        assert outer.col + outer.width - core.col - core.width >= margin or outer.col + outer.width == shape[1]
    assert (covered == 1).all()


def test_windows_that_are_all_margin_are_refused():
    with pytest.raises(ValueError, match=r"set map\.window_px to 336 or more"):
        list(windows((1000, 1000), (320, 320), 160, 16))


@pytest.mark.parametrize("save", [save_cnn, save_trees])
@pytest.mark.parametrize("window_px", [(34, 34), (45, 45), (61, 30), (30, 200)])
def test_tiled_equals_untiled(tmp_path, save, window_px):
    model = load_model(save(tmp_path))
    composite, n_obs, _ = draw_image()
    whole = predict_zone(model, composite, n_obs, WHOLE)
    tiled = predict_zone(model, composite, n_obs, window_px)
    np.testing.assert_array_equal(tiled.class_id, whole.class_id)
    np.testing.assert_array_equal(tiled.second_id, whole.second_id)
    # Convolutions of another size sum in another order: one unit where 100 p lies at a rounding border.
    assert np.abs(tiled.confidence.astype(int) - whole.confidence).max() <= 1
    assert len(np.unique(whole.class_id)) > 2  # the comparison is not trivial


@pytest.mark.parametrize("rule", [{}, RULE], ids=["likeliest", "rule"])
@pytest.mark.parametrize("save", [save_cnn, save_trees])
def test_layers_follow_the_probabilities(tmp_path, save, rule):
    model = load_model(ruled(save(tmp_path), rule))
    composite, n_obs, _ = draw_image()
    zone_map = predict_zone(model, composite, n_obs, WHOLE)
    probabilities = model.predict_tiles(composite[None])[0]
    ids = np.array([crop.id for crop in CLASSES])
    favoured = np.array(rule.get("multipliers", [1.0] * len(CLASSES)), np.float32)[:, None, None]
    order = (probabilities * favoured).argsort(0)
    of_class = np.take_along_axis(probabilities, order[-1:], 0)[0]  # the rule makes no model surer than it is
    seen = np.ones(n_obs.shape[1:], bool)
    seen[0, 0] = False
    np.testing.assert_array_equal(zone_map.class_id[seen], ids[order[-1]][seen])
    np.testing.assert_array_equal(zone_map.second_id[seen], ids[order[-2]][seen])
    np.testing.assert_allclose(zone_map.confidence[seen], 100 * of_class[seen], atol=0.51)
    np.testing.assert_array_equal(zone_map.n_clear, (n_obs > 0).sum(0))
    assert [zone_map.class_id[0, 0], zone_map.confidence[0, 0], zone_map.second_id[0, 0]] == [MAP_NODATA] * 3


def test_trees_get_the_features_in_the_order_of_the_pixel_table(tmp_path):
    model = load_model(save_trees(tmp_path))
    composite, _, _ = draw_image()
    red_of_fifth_month = composite[4, 2]  # DECIDING_FEATURE in [T, C, H, W]
    expected = np.minimum(red_of_fifth_month // 800, 4)
    seen = red_of_fifth_month > 0
    assert (model.predict_tiles(composite[None])[0].argmax(0)[seen] == expected[seen]).mean() > 0.9
