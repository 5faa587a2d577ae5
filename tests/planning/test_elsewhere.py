"""A job that was measured here, estimated for another cluster."""

from dataclasses import replace

import pytest

from cropray.cluster.settings import PlanSettings
from cropray.imagery.acquisition import Traffic
from cropray.nets.crop_net import CropNet, CropNetConfig
from cropray.nets.operations import tile_operations
from cropray.planning.elsewhere import assumptions, cluster_there, costs_there, gpu_rates, thread_factor, work_there
from cropray.planning.estimate import estimate, fit_seconds
from cropray.planning.table import scaling_table
from cropray.planning.work import Cluster, Fit
from tests.planning.test_estimate import COSTS, KERNELS, job, of, work
from tests.study import INPUT

STORE = 1e9


def elsewhere(config, n_nodes, here=None):
    """The sums of a job that was measured on two CPUs here, on nodes there."""
    here = here or work()
    return estimate(work_there(here, config, n_nodes), costs_there(here, COSTS, config))


def seconds(config, n_nodes, here=None):
    return of("time", elsewhere(config, n_nodes, here))


def test_the_cluster_at_hand_is_estimated_as_it_is_planned():
    config = job(plan={"nodes": [1], "cpus": 2})
    assert elsewhere(config, 1) == estimate(work(), COSTS)
    asked = work(traffic=Traffic(100, 1e9, 1000.0, 2.0))
    assert elsewhere(config, 1, asked) == estimate(asked, COSTS)


@pytest.mark.parametrize("cnn", [{"epochs": 20}, {"epochs": 20, "use_gpu": True}], ids=["cpu", "gpu"])
@pytest.mark.parametrize("more_zones", [0, 1000])
def test_more_nodes_never_take_longer(cnn, more_zones):
    config = job(cnn=cnn, plan={"nodes": [1], "cpus": 3, "gpus": 1, "more_zones": more_zones})
    totals = [sum(seconds(config, n).values()) for n in (1, 2, 4, 8, 16, 32)]
    assert totals == sorted(totals, reverse=True)
    assert totals[1] > totals[0] / 2  # starts and refits are not shared


def test_nodes_wait_for_data_that_others_read():
    config = job(plan={"nodes": [1], "cpus": 2, "network_gbit_s": 1e-4})
    slow = seconds(config, 4)["search"]
    fast = seconds(job(plan={"nodes": [1], "cpus": 2}), 4)["search"]
    data_bytes = 1800 * 97 + 90 * 32 * 32 * 97
    assert slow - fast == pytest.approx(data_bytes * 3 / 4 * 8 * (1 / 1e5 - 1 / 10e9))


def test_faster_cpus_take_what_they_do_in_less_time():
    slow, fast = job(plan={"nodes": [1], "cpus": 2}), job(plan={"nodes": [1], "cpus": 2, "cpu_speed": 2})
    before, after = (seconds(config, 1) for config in (slow, fast))
    assert after["start"] == before["start"]
    assert after["labels"] == pytest.approx(before["labels"] / 2)
    assert before["search"] / 2 < after["search"] < before["search"]


def test_threads_that_could_not_be_measured_count_less():
    assert thread_factor(1, 2) == thread_factor(2, 2) == 1
    assert thread_factor(8, 2) == pytest.approx(2 / (2 + 0.7 * 6))


def test_only_fits_run_on_gpus():
    gpu = {"epochs": 2, "use_gpu": True}
    config = job(cnn=gpu, plan={"nodes": [1], "cpus": 2, "gpus": 1, "gpu_tiles_per_s": 1000})
    on_gpu = seconds(config, 1)
    on_cpu = seconds(job(plan={"nodes": [1], "cpus": 2}), 1)
    assert on_gpu["evaluate"] == on_cpu["evaluate"]
    assert on_gpu["map"] == on_cpu["map"]
    # Trees: three units of 10 s and a refit of 11.8 s; units of the CNN: 2 s and 60 × 2 tiles trained, 30 × 2 scored, one
    # after the other on one GPU; its refit 90 × 2 tiles.
    there = work_there(work(), config, 1)
    assert there.placements["cnn"].max_concurrent == 1
    cnn_s = 3 * (2 + 120 / 1000 + 60 / 3000) + 2 + 180 / 1000
    trees_s = fit_seconds(Fit(("xgboost", ""), 10), there, COSTS) * 2 + 11.8
    fixed = 2 * (14 + 11) + 4 * 6 + 0.3 * (2 + 1 + 3 + 1)
    loading = (1800 * 97 + 90 * 32 * 32 * 97) / (2 * 60e6)
    out_of_fold = 2 * (1 + 1)  # four training zones in two rounds by both models, on CPUs
    assert on_gpu["search"] == pytest.approx(fixed + loading + trees_s + cnn_s + out_of_fold)


def test_speed_of_a_gpu_is_as_given_or_a_share_of_its_peak():
    def rates(costs=COSTS, use_gpu=True, **stated):
        plan = {"nodes": [1], "cpus": 2, "gpus": 1, **stated}
        return gpu_rates(costs, job(cnn={"use_gpu": use_gpu}, plan=plan))

    assert rates(gpu_tiles_per_s=7) == {KERNELS[3]: 7}
    # Three passes of 10⁹ at 6 × 10¹² a second.
    assert rates(gpu_tflops=30, gpu_share=0.2) == {KERNELS[3]: pytest.approx(2000)}
    unknown = {kind: costs._replace(operations=0) for kind, costs in COSTS.fits.items()}
    assert rates(replace(COSTS, fits=unknown), gpu_tflops=30) == {}
    assert rates(use_gpu=False, gpu_tiles_per_s=7) == {}  # on CPUs


def test_more_zones_are_made_scored_and_mapped_but_not_trained_on():
    grown = work_there(
        work(traffic=Traffic(100, 1e9, 10.0, 2.0)), job(plan={"nodes": [1], "cpus": 2, "more_zones": 10}), 1
    )
    zones = grown.zones
    assert (zones.n_zones, zones.n_test, zones.n_mapped) == (15, 11, 11)
    assert (zones.n_pixels, zones.train_rows, zones.test_rows) == (15_000, 1800, 5700)
    assert zones.train_tiles == 90
    assert grown.traffic == Traffic(300, 3e9, 30.0, 6.0)


def test_memory_of_a_node():
    assert cluster_there(PlanSettings(nodes=(2,), cpus=4), 2, STORE) == Cluster(
        (cluster_there(PlanSettings(nodes=(1,), cpus=4), 1, STORE).nodes[0],) * 2
    )
    stores = [
        cluster_there(PlanSettings(nodes=(1,), cpus=4, **given), 1, STORE).object_store_bytes
        for given in ({}, {"memory_gb": 10}, {"memory_gb": 10, "object_store_gb": 7})
    ]
    assert stores == [STORE, 3e9, 7e9]


def assumed(**changes):
    return assumptions(work(), COSTS, job(**changes))


def test_what_is_assumed_is_said():
    plain = assumed(plan={"nodes": [1], "cpus": 2})
    assert any("plan.cpu_speed" in line for line in plain)
    assert not any("GPU" in line for line in plain)
    gpu = {"epochs": 2, "use_gpu": True}
    stated = {"nodes": [1], "cpus": 16, "gpus": 1, "more_zones": 1000}
    said = assumed(cnn=gpu, xgboost={"cpus_per_worker": 8}, plan=stated)
    assert any("NOT MEASURED" in line and "plan.gpu_tiles_per_s" in line and "25%" in line for line in said)
    assert any("70%" in line for line in said)
    assert any("1,000 more zones" in line for line in said)
    devices = {"xgboost": {"device": "cuda"}, "map": {"device": "cuda"}}
    uncounted = assumed(**devices, plan=stated)
    for setting in ("map.device", "xgboost.device"):
        assert [setting in line for line in said].count(True) == 0
        assert [setting in line for line in uncounted].count(True) == 1
    given = assumed(cnn=gpu, plan={**stated, "gpu_tiles_per_s": 500})
    assert not any("NOT MEASURED" in line for line in given)
    assert any("500" in line for line in given)


def test_efficiency_is_beside_the_fewest_nodes():
    two, eight = ({("time", "start"): 10, ("time", "search"): s, ("disk", "maps"): 1e9} for s in (90, 40))
    lines = scaling_table({8: eight, 2: two}).splitlines()
    assert lines[0].split() == ["time", "2", "nodes", "8", "nodes"]
    assert lines[-2].split() == ["speed-up", "1.00", "2.00"]
    assert lines[-1].split() == ["efficiency", "100%", "50%"]


def test_operations_of_the_network():
    # One level: two convolutions 3 × 3 of the U-Net after two over three months and the mixing of twelve.
    config = CropNetConfig(**INPUT, n_classes=5, temporal_channels=8, unet_channels=(16,), kernel_size=3)
    of_pixel = 12 * (4 * 8 + 8 * 8) * 3 + 12 * 8 * 8 + 9 * (8 * 16 + 16 * 16) + 16 * 5
    assert tile_operations(CropNet, config, 16) == 2 * 16 * 16 * of_pixel
