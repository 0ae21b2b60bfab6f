"""Pictures of predictions and TensorBoard's curves: what they show, when, and that the training does not depend on
them."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import toy_training

from acae_nb.examples.images import decode_jpeg
from acae_nb.geometry.cameras import project
from acae_nb.training.views import PredictionPictures, TensorBoard, draw_prediction, prediction_sheet


class Rows(SimpleNamespace):
    def __len__(self):
        return len(self.images)


def toy_rows(n=5, j=4):
    g = torch.Generator().manual_seed(0)
    joints = torch.randn(n, j, 3, generator=g) * 200 + torch.tensor([0.0, 0, 3000])
    k = torch.tensor([[100.0, 0, 31.5], [0, 100, 31.5], [0, 0, 1]]).repeat(n, 1, 1)
    flat = torch.full((n, 2, 2), torch.nan)
    flat[-1], joints[-1] = torch.tensor([[10.0, 10], [50, 50]]), torch.nan
    images = torch.zeros(n, 3, 64, 64, dtype=torch.uint8)
    predicted = project(torch.randn(n, j, 3, generator=g) * 200 + torch.tensor([0.0, 0, 3000]), k)
    return Rows(images=images, intrinsics=k, joints3d=joints, joints2d=flat), SimpleNamespace(joints2d=predicted)


def test_every_label_and_prediction_is_drawn_where_it_is():
    batch, output = toy_rows()
    sheet = prediction_sheet(batch, output, count=5, columns=3).astype(int)
    assert sheet.shape == (256, 384, 3)
    labels = project(batch.joints3d, batch.intrinsics)
    for row in range(5):
        tile = sheet[row // 3 * 128 :][:128, row % 3 * 128 :][:, :128]
        for colour, points in (
            ((255, 130, 0), output.joints2d[row]),
            ((0, 220, 90), labels[row]),
            ((0, 220, 90), batch.joints2d[row]),
        ):
            for x, y in (points[points.isfinite().all(1)] * 2).round().int().tolist():
                if not (4 < x < 123 and 4 < y < 123):
                    continue
                near = tile[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3)
                assert (np.abs(near - colour).sum(1) < 60).any() or (np.abs(near - (0, 220, 90)).sum(1) < 60).any()
    assert (sheet[128:, 256:] == 0).all()  # no sixth row


def test_points_far_outside_and_nan_are_no_trouble():
    image = np.zeros((32, 32, 3), np.uint8)
    for wild in (np.nan, 1e30, -1e30):
        assert draw_prediction(image, np.full((2, 2), wild), np.full((2, 2), 5.0), np.empty((0, 2))).shape == (
            64,
            64,
            3,
        )


def test_pictures_come_at_once_and_then_when_due(tmp_path, monkeypatch):
    batch, output = toy_rows()
    clock = iter([100.0, 100.0, 130.0, 161.0, 161.0])
    monkeypatch.setattr("acae_nb.training.views.time", SimpleNamespace(monotonic=lambda: next(clock)))
    pictures, t, seen = (
        PredictionPictures(tmp_path / "a/b.jpg", minutes=1),
        SimpleNamespace(part=batch, output=output),
        [],
    )
    for _ in range(3):
        pictures.after_step(t)
        seen.append((tmp_path / "a/b.jpg").exists())
        (tmp_path / "a/b.jpg").unlink(missing_ok=True)
    assert seen == [True, False, True]
    pictures.due = -1.0
    monkeypatch.undo()
    pictures.after_step(t)
    assert decode_jpeg((tmp_path / "a/b.jpg").read_bytes()).shape == (128, 768, 3)


class FakeWriter:
    made = []

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.rows, self.open = folder, purge_step, [], True
        FakeWriter.made.append(self)

    def add_scalar(self, name, value, step):
        self.rows.append((step, name, value))

    def close(self):
        self.open = False


def test_tensorboard_gets_the_rows_of_the_log_also_after_a_resume(tmp_path, monkeypatch):
    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = FakeWriter
    FakeWriter.made.clear()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    plain = toy_training.run(tmp_path / "plain")
    assert toy_training.run(tmp_path / "seen", stop=5, callbacks=[TensorBoard(tmp_path / "board", 3)]) is None
    t = toy_training.run(tmp_path / "seen", callbacks=[TensorBoard(tmp_path / "board", 3)])
    first, second = FakeWriter.made
    assert (first.purge_step, second.purge_step) == (1, 6) and not (first.open or second.open)
    rows = {(step, name): value for step, name, value in first.rows + second.rows}
    assert {step for step, _ in rows} == {3, 6, 9, 12} and {
        "loss/total",
        "loss/square",
        "gradient_norm",
        "learning_rate/all",
    } == {name for _, name in rows}
    assert rows[12, "loss/total"] == float(t.values["total"]) and rows[3, "learning_rate/all"] == t.groups[0].rate(2)
    assert all(torch.equal(a, b) for a, b in zip(plain.model.state_dict().values(), t.model.state_dict().values()))


def test_tensorboard_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'acae_nb\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_the_real_tensorboard_reads_back_the_log(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert (
        toy_training.run(tmp_path, stop=7, callbacks=[TensorBoard(tmp_path / "board", 2)]) is None
    )  # steps 2, 4, 6; the checkpoint is of step 7
    t = toy_training.run(tmp_path, callbacks=[TensorBoard(tmp_path / "board", 2)])
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    rows = events.Scalars("loss/total")
    assert [r.step for r in rows] == [2, 4, 6, 8, 10, 12] and np.isclose(rows[-1].value, float(t.values["total"]))
    assert np.isclose(events.Scalars("learning_rate/all")[0].value, t.groups[0].rate(1))
