"""Mixing: exact quotas, permutations, resumption, shares of ranks, columns of the union, workers."""

from collections import Counter
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acae_nb.examples.crops import NO_AUGMENTATION, Augmentation
from acae_nb.examples.mixing import (
    Batch,
    BatchPlan,
    MixedBatches,
    common_columns,
    hash64,
    loader,
    permute,
    union_columns,
)
from acae_nb.examples.tables import Example, ExampleTable, ExampleWriter, encode_jpeg
from acae_nb.geometry.cameras import Camera
from acae_nb.skeletons.joints import load_skeleton, union

H36M, SMPL, COCO, COCO19 = (load_skeleton(n) for n in ("h36m_17", "smpl_24", "coco_17", "cmu_panoptic_19"))
BOTH = union([H36M, SMPL])

plans = (
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), min_size=1, max_size=6)
    .filter(lambda p: any(q for _, q in p))
    .flatmap(
        lambda p: st.builds(
            lambda seed: BatchPlan([n for n, _ in p], [q for _, q in p], seed), st.integers(0, 2**63 - 1)
        )
    )
)


# --- the order


@given(n=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
@settings(max_examples=200, deadline=None)
def test_permute_is_a_permutation(n, key):
    out = permute(np.arange(n), n, np.uint64(key))
    assert np.array_equal(np.sort(out), np.arange(n))
    some = np.arange(n)[::-3]
    assert np.array_equal(permute(some, n, np.uint64(key)), out[some])  # place by place, whatever else is asked


def test_permute_takes_a_key_for_each_place():
    keys = hash64(np.arange(50))
    together = permute(np.arange(50), 77, keys)
    assert together.tolist() == [int(permute(np.array([i]), 77, k)[0]) for i, k in enumerate(keys)]


def test_permute_of_many_rows():
    n = 1_300_001
    out = permute(np.arange(n), n, np.uint64(3))
    assert np.array_equal(np.bincount(out, minlength=n), np.ones(n))
    assert abs(np.corrcoef(out, np.arange(n))[0, 1]) < 0.01


def test_permutations_are_uniform():
    "All 24 orders of four rows, and all 720 of six, about equally often over the keys."
    for n, orders in ((4, 24), (6, 720)):
        count = orders * 200
        keys = hash64(np.arange(count))
        columns = [permute(np.full(count, i), n, keys) for i in range(n)]
        seen = np.array(list(Counter(zip(*(c.tolist() for c in columns))).values()))
        assert len(seen) == orders
        assert ((seen - 200) ** 2 / 200).sum() < orders + 6 * np.sqrt(2 * orders)


@given(plan=plans, steps=st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_quotas_are_exact_and_epochs_are_permutations(plan, steps):
    rows = [[] for _ in plan.lengths]
    for step in range(steps):
        batch = plan.batch(step)
        assert [d for d, _ in batch] == [d for d, q in enumerate(plan.quotas) for _ in range(q)]
        for dataset, row in batch:
            rows[dataset].append(row)
    for n, walk in zip(plan.lengths, rows):
        for i in range(0, len(walk) - n + 1, n):
            assert sorted(walk[i : i + n]) == list(range(n))
        assert len(set(walk[len(walk) // n * n :])) == len(walk) % n


@given(plan=plans, step=st.integers(0, 10**9))
@settings(max_examples=80, deadline=None)
def test_a_batch_is_a_function_of_seed_and_step(plan, step):
    again = BatchPlan(list(plan.lengths), np.array(plan.quotas), plan.seed)
    for earlier in (0, step // 2):
        again.batch(earlier)
    assert again.batch(step) == plan.batch(step) and again == plan


@given(plan=plans, step=st.integers(0, 10**6), world=st.integers(1, 8))
@settings(max_examples=80, deadline=None)
def test_shares_of_ranks_are_the_batch_and_fair(plan, step, world):
    if plan.batch_size % world:
        with pytest.raises(ValueError, match="divides"):
            plan.share(step, 0, world)
        return
    shares = [plan.share(step, r, world) for r in range(world)]
    assert [shares[i % world][i // world] for i in range(plan.batch_size)] == plan.batch(step)
    for dataset, quota in enumerate(plan.quotas):
        counts = [sum(d == dataset for d, _ in s) for s in shares]
        assert max(counts) - min(counts) <= 1 and sum(counts) == quota


def test_epochs_seeds_and_data_sets_differ():
    plan = BatchPlan([100, 100], [100, 100], 0)
    orders = [
        plan.draw(0)[1][:100],
        plan.draw(0)[1][100:],
        plan.draw(1)[1][:100],
        BatchPlan([100], [100], 1).draw(0)[1],
    ]
    assert all((a == b).mean() < 0.1 for i, a in enumerate(orders) for b in orders[:i])


@pytest.mark.parametrize(
    "values, message",
    [
        (([3, 4], [1], 0), "quotas: expected one for each of 2"),
        (([], [], 0), "lengths"),
        (([3, 0], [1, 1], 0), r"lengths.*found \[3, 0\]"),
        (([3], [0], 0), "quotas"),
        (([3], [-1], 0), "quotas"),
        (([3], [1], -1), "seed"),
        (([3], [1], 2**63), "seed"),
    ],
)
def test_bad_plans_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        BatchPlan(*values)


def test_bad_steps_and_ranks_are_refused():
    plan = BatchPlan([3], [4], 0)
    for bad in (
        lambda: plan.batch(-1),
        lambda: plan.share(0, 2, 2),
        lambda: plan.share(0, -1, 2),
        lambda: plan.share(0, 0, 3),
    ):
        with pytest.raises(ValueError, match="expected"):
            bad()


# --- columns


def test_a_format_goes_to_its_own_columns():
    source, target = union_columns(SMPL, BOTH)
    assert source.tolist() == list(range(24)) and [BOTH.labels[t] for t in target] == [
        f"smpl_24/{j}" for j in SMPL.joints
    ]
    source, target = union_columns(union([SMPL, COCO, H36M]), BOTH)
    full = union([SMPL, COCO, H36M])
    assert [full.labels[s] for s in source] == [BOTH.labels[t] for t in target] and sorted(target) == list(range(41))


def test_unknown_and_different_formats_are_refused():
    with pytest.raises(ValueError, match=r"formats: expected one of \['h36m_17', 'smpl_24'\], found \['coco_17'\]"):
        union_columns(COCO, BOTH)
    other = replace(H36M, joints=H36M.joints[:-1] + ("tail",), short_names=(), left=H36M.left)
    with pytest.raises(ValueError, match="format h36m_17: expected the joints"):
        union_columns(other, BOTH)


def test_common_2d_joints_go_by_short_name():
    source, target = common_columns(COCO19, COCO)
    assert all(COCO19.short_names[s] == COCO.short_names[t] for s, t in zip(source, target)) and len(source) >= 12
    assert [a.tolist() for a in common_columns(COCO, COCO)] == [list(range(17))] * 2


# --- batches

CAMERA = Camera(np.array([[120, 0, 48], [0, 120, 48], [0, 0, 1.0]]))


def make_table(folder, skeleton, n, two_d=False, dataset=None):
    "Row i of a table has the grey level 20 + i."
    rng, dataset = np.random.default_rng(n), dataset or folder.name
    with ExampleWriter(folder, skeleton, dataset) as writer:
        for i in range(n):
            joints = rng.normal((0, 0, 3000), 300, (len(skeleton), 3))
            labels = dict(joints2d=CAMERA.project(joints)) if two_d else dict(joints3d=joints)
            image = encode_jpeg(np.full((96, 96, 3), 20 + i, np.uint8))
            writer.add(
                Example(
                    f"{dataset}/{i}",
                    dataset,
                    "train",
                    "s",
                    "q",
                    i,
                    CAMERA,
                    np.array([20, 10, 50, 70.0]),
                    (96, 96),
                    **labels,
                ),
                image,
            )
    return ExampleTable.open(folder)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    return [
        make_table(folder / "a", H36M, 11),
        make_table(folder / "b", SMPL, 7),
        make_table(folder / "c", union([SMPL, H36M]), 5),
        make_table(folder / "d", COCO, 6, two_d=True),
        make_table(folder / "e", COCO19, 3, two_d=True),
    ]


def mixed(tables, augmentation=None, **changes):
    plan = BatchPlan([len(t) for t in tables], [4, 3, 1, 3, 1][: len(tables)], 5)
    return MixedBatches(tables, plan, BOTH, COCO, 32, augmentation or Augmentation(), seed=9, **changes)


def assert_same(one, two):
    for f in fields(Batch):
        a, b = getattr(one, f.name), getattr(two, f.name)
        assert a.dtype == b.dtype and np.array_equal(a.numpy(), b.numpy(), equal_nan=a.is_floating_point()), f.name


def test_a_batch_has_every_row_where_it_belongs(tables):
    batches = mixed(tables, NO_AUGMENTATION)
    for step in range(3):
        batch = batches[step]
        assert list(zip(batch.dataset.tolist(), batch.row.tolist())) == batches.plan.batch(step) and len(batch) == 12
        assert (
            batch.images.dtype == torch.uint8
            and batch.images.shape == (12, 3, 32, 32)
            and batch.joints3d.dtype == torch.float32
        )
        assert batch.is_2d.tolist() == [False] * 8 + [True] * 4
        grey = batch.images[:, :, 16, 16].float()
        assert ((grey - (20 + batch.row[:, None])).abs() <= 2).all()
        labelled = ~batch.joints3d.isnan().any(-1)
        for i, dataset in enumerate(batch.dataset.tolist()):
            want = {0: range(17), 1: range(17, 41), 2: range(41)}.get(dataset, range(0))
            assert labelled[i].nonzero().ravel().tolist() == list(want)
            projected = batch.joints3d[i] @ batch.intrinsics[i].T
            px = projected[:, :2] / projected[:, 2:]
            # the box is 70 px wide and 32 px in the crop: the crop's camera looks at the box's middle
            truth = tables[dataset][int(batch.row[i])]
            if dataset == 0:
                skewed = CAMERA.project(truth.joints3d)
                np.testing.assert_allclose(px[:17].numpy(), 15.5 + (skewed - (45, 45)) * 32 / 70, atol=1.5)
        assert batch.joints2d[:8].isnan().all() and not batch.joints2d[8:11].isnan().any()
        has_name = torch.tensor([name in COCO19.short_names for name in COCO.short_names])
        assert torch.equal(~batch.joints2d[11].isnan().any(-1), has_name)


def test_batches_repeat_and_augmentation_differs_by_step_and_place(tables):
    assert_same(mixed(tables)[4], mixed(tables)[4])
    draws = {tuple(mixed(tables).generator(step, place).random(2)) for step in range(30) for place in range(12)}
    assert len(draws) == 360
    other = mixed(tables)
    other.seed = 10
    assert not torch.equal(other[4].intrinsics, mixed(tables)[4].intrinsics)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_together_see_the_batch_of_one(tables, world):
    whole, parts = mixed(tables)[2], [mixed(tables, rank=r, world=world)[2] for r in range(world)]
    for r, part in enumerate(parts):
        assert_same(part, Batch(**{f.name: getattr(whole, f.name)[r::world] for f in fields(Batch)}))
        assert part.is_2d.tolist() == sorted(part.is_2d.tolist())


def test_any_number_of_workers_gives_the_same_batches(tables):
    runs = [list(loader(mixed(tables), 3, 8, workers)) for workers in (0, 1, 2)]
    for batches in runs:
        assert len(batches) == 5
        for one, two in zip(batches, runs[0]):
            assert_same(one, two)
    assert_same(runs[0][2], mixed(tables)[5])


def test_opencv_threads_do_not_change_a_batch(tables):
    threads = cv2.getNumThreads()
    batches = []
    for n in (1, 4):
        cv2.setNumThreads(n)
        batches.append(mixed(tables)[0])
    cv2.setNumThreads(threads)
    assert_same(*batches)


def test_a_broken_image_stops_a_worker_by_name(tables, tmp_path):
    table = make_table(tmp_path / "x", H36M, 4)
    data = bytearray((tmp_path / "x" / "images.bin").read_bytes())
    start = int(table.column("image_offset")[2])
    data[start : start + 300] = bytes(300)
    (tmp_path / "x" / "images.bin").write_bytes(data)
    for workers in (0, 1):
        with pytest.raises(ValueError, match=r"x/images.bin, row 2 \(x/2\), image: no JPEG"):
            list(loader(mixed([table]), 0, 2, workers))


def test_tables_that_do_not_fit_the_plan_are_refused(tables):
    plan = BatchPlan([11, 8], [1, 1], 0)
    with pytest.raises(ValueError, match=r"lengths \[11, 8\] as planned, found \[11, 7\]"):
        MixedBatches(tables[:2], plan, BOTH, COCO, 32, NO_AUGMENTATION, 0)
    with pytest.raises(ValueError, match="3D sets before 2D sets"):
        MixedBatches(tables[2:][::-1], BatchPlan([3, 6, 5], [1, 1, 1], 0), BOTH, COCO, 32, NO_AUGMENTATION, 0)
    with pytest.raises(ValueError, match="formats"):
        MixedBatches(tables[:1], BatchPlan([11], [1], 0), SMPL, COCO, 32, NO_AUGMENTATION, 0)


def test_a_batch_moves_as_a_whole(tables):
    batch = mixed(tables)[0]
    assert_same(batch.to("cpu"), batch)
    assert batch.to("meta").joints3d.device.type == "meta"
