"""Figures are made and written, work offline, and refuse what they cannot show."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from acae_nb.reporting.plots import (
    PALETTE,
    contact_sheet,
    cut_out,
    edge_sides,
    format_colours,
    latents_on_body,
    loss_curves,
    overlay,
    overlay_grid,
    pair_squares,
    pose_figure,
    result_bars,
    seen_from_the_side,
    side_colours,
    weights_picture,
    write_html,
)
from acae_nb.skeletons.joints import load_skeleton, union

COCO, H36M = load_skeleton("coco_17"), load_skeleton("h36m_17")
BOTH = union([COCO, H36M], "both")
IMAGE = np.full((60, 80, 3), 128, np.uint8)
TABLE = pd.DataFrame({"MPJPE": [100.0, 80], "PCK@100": [40.0, 60]}, index=["separate", "latent & co <b>"])
POSE = np.random.default_rng(0).normal([0, 0, 3000], 300, (17, 3))


def drawn(fig):
    "The picture of a figure as an array."
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def colours_in(picture):
    return {tuple(c) for c in picture.reshape(-1, 3)}


def rgb(colour):
    return tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))


def test_left_and_right_have_their_own_shades_of_the_format_s_colour():
    shades = [side_colours(c)[s] for c in format_colours(["a", "b", "c"]).values() for s in "rlc"]
    assert len(set(shades)) == 9 and len(set(PALETTE)) == 12
    for colour in PALETTE:
        assert sum(rgb(side_colours(colour)["l"])) > sum(rgb(colour)) > sum(rgb(side_colours(colour)["c"]))
    for skeleton in (COCO, H36M, BOTH):
        sides = edge_sides(skeleton)
        for (a, b), side in zip(skeleton.edges, sides):
            other = next(
                (k for k, e in enumerate(skeleton.edges) if {*e} == {skeleton.mirror[a], skeleton.mirror[b]}), None
            )
            if other is not None:
                assert {"l": "r", "r": "l", "c": "c"}[sides[other]] == side


def test_the_left_arm_is_pale_on_the_picture():
    points = np.full((17, 2), np.nan)
    points[[COCO.index("left_shoulder"), COCO.index("left_elbow")]] = [[10, 10], [70, 50]]
    left = colours_in(drawn(overlay(IMAGE, [(COCO, points)])))
    assert rgb(side_colours(PALETTE[0])["l"]) in left
    right = colours_in(drawn(overlay(IMAGE, [(COCO, points[list(COCO.mirror)])])))
    assert rgb(side_colours(PALETTE[0])["r"]) in right


def test_contact_sheet():
    points = np.random.default_rng(0).uniform(0, 60, (5, 34, 2))
    points[2] = np.nan  # nothing labelled: the image alone
    fig = contact_sheet([IMAGE] * 5, BOTH, points, list("abcde"), columns=3)
    assert len(fig.axes) == 6 and [ax.get_title() for ax in fig.axes[:5]] == list("abcde")
    with pytest.raises(ValueError, match="points: expected 4"):
        contact_sheet([IMAGE] * 4, BOTH, points)
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])


def test_loss_curves_from_files(tmp_path):
    log = tmp_path / "log.csv"
    pd.DataFrame({"step": range(10), "loss": np.arange(10.0) + 1, "only_here": 1.0}).to_csv(log, index=False)
    fig = loss_curves({"a": log, "b": pd.DataFrame({"step": range(10), "loss": 2.0})}, ["loss", "only_here"])
    assert [len(ax.lines) for ax in fig.axes] == [2, 1] and fig.axes[0].lines[0].get_ydata().tolist() == list(
        range(1, 11)
    )
    with pytest.raises(ValueError, match="no log has the column 'los'.*'loss'"):
        loss_curves({"a": log}, ["los"])


def test_results_weights_and_latents_draw():
    rng = np.random.default_rng(0)
    encoder = rng.dirichlet(np.ones(34), 6)
    for fig in (
        result_bars(TABLE, baseline="separate"),
        weights_picture(encoder, rng.dirichlet(np.ones(6), 34), BOTH.labels),
        latents_on_body(POSE, encoder[:, :17] @ POSE, COCO),
    ):
        assert isinstance(fig, Figure) and drawn(fig).std() > 5
    with pytest.raises(ValueError, match="weights: expected"):
        weights_picture(encoder, encoder, BOTH.labels)


def test_cut_out_moves_points_with_the_picture():
    image = np.zeros((60, 80, 3), np.uint8)
    image[33, 44] = 255
    for box in ([40, 30, 10, 8], [-5, -5, 60, 70], [0, 0, 80, 60]):
        part, begin = cut_out(image, np.array(box, float))
        x, y = np.array([44, 33]) - begin.astype(int)
        assert part[y, x].tolist() == [255] * 3 and part.shape[0] <= 60 and part.shape[1] <= 80


def test_overlay_grid_refuses_rows_of_another_length():
    row = [(IMAGE, [(COCO, np.random.default_rng(0).uniform(0, 60, (17, 2)))]), (IMAGE, [])]
    fig = overlay_grid([row, row], ["truth", "model"], ["a", "b"])
    assert len(fig.axes) == 4 and [ax.get_title() for ax in fig.axes] == ["truth", "model", "", ""]
    with pytest.raises(ValueError, match="row 1: expected 2, one a column, found 1"):
        overlay_grid([row, row[:1]], ["truth", "model"])


def test_pair_squares_are_symmetric():
    table = pd.DataFrame({"format_a": ["a", "a", "b"], "format_b": ["b", "c", "c"], "mm": [1.0, 2, 3]})
    grid = pair_squares({"m": table}).axes[0].images[0].get_array().filled(np.nan)
    np.testing.assert_array_equal(grid, [[np.nan, 1, 2], [1, np.nan, 3], [2, 3, np.nan]])


def test_depth_runs_to_the_right_in_the_side_view():
    pose = np.full((17, 3), np.nan)
    nose, ankle = COCO.index("nose"), COCO.index("left_ankle")
    pose[nose], pose[ankle] = [0, -500, 3000], [0, 500, 3400]  # the head up and near, a foot down and far
    fig = seen_from_the_side([IMAGE], [np.full((17, 2), 20.0)], {"m": pose[None]}, COCO)
    fig.draw_without_rendering()
    to_px = fig.axes[1].transData.transform
    (nose_x, nose_y), (foot_x, foot_y) = to_px([3000, -500]), to_px([3400, 500])
    assert nose_x < foot_x and nose_y > foot_y and np.isclose((foot_x - nose_x) / 400, (nose_y - foot_y) / 1000)


def test_hidden_names_wait_in_the_legend():
    fig = pose_figure({"truth": (COCO, POSE), "model": (COCO, POSE)}, hidden=["model"])
    assert {t.name: t.visible for t in fig.data} == {"truth": True, "model": "legendonly"}


def trace_points(fig):
    return np.concatenate([np.c_[t.x, t.y, t.z] for t in fig.data if t.mode == "markers"]).astype(float)


def test_pose_figure_axes():
    camera = pose_figure({"coco": (COCO, POSE)})
    np.testing.assert_allclose(
        trace_points(camera), POSE[:, [0, 2, 1]] * [1, 1, -1], atol=0.06
    )  # up in the picture is -y of the camera
    world = pose_figure({"coco": (COCO, POSE)}, frame="world")
    np.testing.assert_allclose(trace_points(world), POSE, atol=0.06)
    ranges = [np.ptp(camera.layout.scene[f"{a}axis"].range) for a in "xyz"]
    assert np.allclose(ranges, ranges[0]) and camera.layout.scene.aspectmode == "cube"
    with pytest.raises(ValueError, match="frame: expected one of"):
        pose_figure({"coco": (COCO, POSE)}, frame="up")


def test_pose_figure_of_several_skeletons_and_frames():
    poses = np.stack([POSE, POSE + 10, POSE + 20])
    fig = pose_figure({"one": (COCO, poses), "two": (H36M, poses)}, frame_names=["0 s", "1 s", "2 s"])
    assert (
        len(fig.frames) == 3
        and [f.name for f in fig.frames] == ["0 s", "1 s", "2 s"]
        and len(fig.layout.sliders[0].steps) == 3
    )
    assert {t.legendgroup for t in fig.data} == {"one", "two"} and len(fig.data) == len(fig.frames[1].data)
    joints = [t for t in fig.data if t.mode == "markers"]
    assert joints[0].text[0] == "coco_17/nose" and len(joints[1].x) == 17
    with pytest.raises(ValueError, match="same number of frames.*'one': 3, 'two': 1"):
        pose_figure({"one": (COCO, poses), "two": (H36M, POSE)})
    with pytest.raises(ValueError, match="finite"):
        pose_figure({"one": (COCO, POSE * np.nan)})


def test_bones_join_the_right_joints():
    "Every line segment of the plotly traces is an edge of the skeleton, drawn in its side's colour."
    fig = pose_figure({"coco": (COCO, POSE)}, frame="world")
    found = {}
    for trace in fig.data[:3]:
        points = np.c_[trace.x, trace.y, trace.z].astype(float).reshape(-1, 3, 3)
        for a, b, gap in points:
            assert np.isnan(gap).all()
            found[frozenset(int(np.abs(POSE - p).sum(1).argmin()) for p in (a, b))] = trace.line.color
    shades = side_colours(PALETTE[0])
    assert found == {frozenset(e): shades[s] for e, s in zip(COCO.edges, edge_sides(COCO))}


OUTSIDE = re.compile(r"https?://|src=['\"]//|@import|href=['\"](?!#)")


def test_pages_work_offline(tmp_path):
    page = write_html(pose_figure({"coco": (COCO, np.stack([POSE, POSE]))}), tmp_path / "new" / "pose.html")
    assert not OUTSIDE.search(page.read_text()) and 'src="plotly.min.js"' in page.read_text()
    assert (tmp_path / "new" / "plotly.min.js").stat().st_size > 1e6
