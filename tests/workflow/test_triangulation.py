"""People seen by several cameras: who is who between views, where their joints are, and the real recording."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from acae_nb.datasets import pose2sim
from acae_nb.geometry.calibration import CalibratedView, read_calibration, view_of
from acae_nb.geometry.cameras import Camera, look_at_rotation, undistort_points
from acae_nb.inference.outputs import WRITERS
from acae_nb.inference.pictures import VideoPictures
from acae_nb.inference.pose_results import Poses
from acae_nb.inference.predictions import source_of
from acae_nb.skeletons.joints import load_skeleton
from acae_nb.workflow.cli import main
from acae_nb.workflow.triangulation import (
    in_step,
    match_people,
    numbered_moments,
    triangulate_pictures,
    triangulated,
    whole_recording,
)

REPO = Path(__file__).resolve().parents[2]
SKELETON = load_skeleton("h36m_17")
LENS = np.array([-0.05, 0.01, 0.001, 0.0])


def camera_at(place) -> Camera:
    place = np.array(place, float)
    rotation = look_at_rotation([0, 0, 1000] - place, [0, 0, 1])
    return Camera(np.array([[1000.0, 0, 639.5], [0, 1000, 479.5], [0, 0, 1]]), LENS, rotation, place, (0, 0, 1))


CAMERAS = [camera_at(p) for p in ([4500, 300, 1500], [200, -5000, 1700], [-4000, 3000, 1800], [3000, 4000, 1400])]


def people_at(places, rng) -> np.ndarray:
    return rng.normal(0, [180, 180, 450], (len(places), 17, 3)) + [[[x, y, 900]] for x, y in places]


def seen(truth, camera, order, rng, noise_px=2.0) -> Poses:
    "What a model says of some people, in an order of its own: right in the picture but for noise, wrong in depth."
    joints = camera.to_camera(truth[list(order)]) * rng.uniform(0.7, 1.4, (len(order), 1, 1))
    joints[..., :2] += rng.normal(0, noise_px / 1000, joints[..., :2].shape) * joints[..., 2:]
    n = len(order)
    return Poses(SKELETON, joints, np.tile([1.0, 2, 30, 40], (n, 1)), np.full(n, 0.5), np.full((n, 17), 20.0), camera)


def test_a_recording_ends_before_a_picture_that_is_left_out(tmp_path):
    "Those behind it would stand beside pictures of other moments."
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), 50 * number, np.uint8)).save(tmp_path / f"{number}.png")
    assert len(list(whole_recording(tmp_path, source_of(tmp_path, None, 25.0)))) == 4
    for damaged in (2, 3):
        (tmp_path / f"{damaged}.png").write_bytes(b"no picture")
        found = []
        with pytest.raises(ValueError, match=f"a picture of every moment, found one left out: .*{damaged}.png"):
            for picture in whole_recording(tmp_path, source_of(tmp_path, None, 25.0)):
                found.append(int(picture[0, 0, 0]))
        assert found == [50 * number for number in range(damaged)]
        Image.fromarray(np.full((8, 8, 3), 50 * damaged, np.uint8)).save(tmp_path / f"{damaged}.png")


@pytest.mark.parametrize("seed", range(4))
def test_people_are_matched_and_placed(seed):
    rng = np.random.default_rng(seed)
    truth = people_at([(-900, 0), (900, 200), (0, 1100)], rng)
    orders = [rng.permutation(3) for _ in CAMERAS]
    orders[1] = orders[1][:2]  # one person is not found in one view
    views = [seen(truth, camera, order, rng) for camera, order in zip(CAMERAS, orders)]
    people = match_people(views)
    assert sorted(map(len, people)) in ([3, 4, 4],)
    for person in people:
        assert len({orders[view][number] for view, number in person.items()}) == 1
    poses = triangulated(views)
    error = np.linalg.norm(poses.world[:, None] - truth, axis=-1).max(-1)
    assert sorted(error.argmin(1)) == [0, 1, 2] and error.min(1).max() < 40  # of 5 m, 2 px are 10 mm
    assert np.nanmax(poses.disagreement) < 30 and (poses.scores == 0.5).all()


def test_who_is_in_one_view_alone_is_left_out():
    rng = np.random.default_rng(0)
    truth = people_at([(-900, 0), (900, 200)], rng)
    views = [seen(truth, camera, order, rng) for camera, order in zip(CAMERAS, [[0], [0, 1], [0], []])]
    assert [len(person) for person in match_people(views)] == [3] and len(triangulated(views)) == 1
    nobody = triangulated([seen(truth, camera, [], rng) for camera in CAMERAS])
    assert len(nobody) == 0 and nobody.joints3d.shape == (0, 17, 3)
    alone = triangulated([seen(truth, c, [k], rng) for c, k in zip(CAMERAS[:2], [0, 1])])
    assert len(alone) == 0  # two views of two different people


def test_a_view_that_takes_left_for_right_is_outvoted():
    rng = np.random.default_rng(1)
    truth = people_at([(0, 0)], rng)
    views = [seen(truth, camera, [0], rng, noise_px=1.0) for camera in CAMERAS]
    views[2] = replace(views[2], joints3d=views[2].joints3d[:, list(SKELETON.mirror)])
    poses = triangulated(views)
    error = np.linalg.norm(poses.world[0] - truth[0], axis=-1)
    assert np.nanmax(error) < 30 and np.isfinite(error).mean() > 0.8


def test_a_joint_on_which_no_two_views_agree_is_missing():
    rng = np.random.default_rng(2)
    truth = people_at([(0, 0)], rng)
    views = [seen(truth, camera, [0], rng, noise_px=0.5) for camera in CAMERAS[:2]]
    joints = views[0].joints3d.copy()
    joints[0, 5] = views[0].camera.to_camera(truth[0, 5] + [0, 0, 900])  # far off the other view's ray
    poses = triangulated([replace(views[0], joints3d=joints), views[1]])
    assert np.flatnonzero(np.isnan(poses.joints3d[0]).any(-1)).tolist() == [5]


def test_one_view_is_refused():
    with pytest.raises(ValueError, match="views: expected at least two, found 1"):
        triangulated([seen(np.zeros((1, 17, 3)), CAMERAS[0], [], np.random.default_rng(0))])


# --- over time -------------------------------------------------------------------------------------------------------
def walking(moments=6):
    rng = np.random.default_rng(3)
    start = people_at([(-800, 0), (800, 0)], rng)
    return np.stack([start + [[[0, 60 * t, 0]], [[0, -60 * t, 0]]] for t in range(moments)])


def estimator_of(truth, late=(0, 0, 0, 0)):
    "Stands for a model: the first px of a picture is its number, the camera's place tells which it is."
    rng = np.random.default_rng(4)

    def stream(triples, skeleton):
        for picture, _, camera in triples:
            view = next(k for k, c in enumerate(CAMERAS) if (c.position == camera.position).all())
            poses = seen(truth[int(picture[0, 0, 0]) - late[view]], camera, rng.permutation(2), rng, 1.0)
            yield replace(poses, image=picture)

    return SimpleNamespace(stream=stream)


def shots(count, size=(960, 1280)):
    return (np.full((*size, 3), k, np.uint8) for k in range(count))


def recorded(truth, late=(0, 0, 2, 1)):
    pictures = [shots(len(truth) + delay) for delay in late]
    views = [CalibratedView(camera, (1280, 960)) for camera in CAMERAS]
    return triangulate_pictures(pictures, views, estimator_of(truth, late), skip=late, rate=50.0)


def test_pictures_of_one_moment_go_together_and_people_keep_their_numbers():
    truth = walking()
    results = list(recorded(truth))
    assert [poses.frame for poses in results] == list(range(6))
    assert [poses.time_s for poses in results] == [k / 50 for k in range(6)]
    first = dict(
        zip(results[0].tracks, [np.linalg.norm(truth[0] - w, axis=-1).mean(-1).argmin() for w in results[0].world])
    )
    for moment, poses in zip(truth, results):
        assert set(poses.tracks) == {0, 1}
        for track, world in zip(poses.tracks, poses.world):
            assert np.nanmax(np.linalg.norm(world - moment[first[track]], axis=-1)) < 40


def test_it_ends_with_the_shortest_recording_and_refuses_what_does_not_fit():
    truth, views = walking(), [CalibratedView(camera, (1280, 960)) for camera in CAMERAS[:2]]
    assert len(list(triangulate_pictures([shots(6), shots(4)], views, estimator_of(truth)))) == 4
    with pytest.raises(ValueError, match="expected pictures of 1280 x 960 px or of the same shape, found 960 x 1280"):
        list(triangulate_pictures([shots(2), shots(2, (1280, 960))], views, estimator_of(truth)))
    for pictures, skip in (([shots(2)], None), ([shots(2), shots(2)], [1]), ([shots(1)] * 3, None)):
        with pytest.raises(ValueError, match="same cameras, two or more"):
            triangulate_pictures(pictures, views, estimator_of(truth), skip=skip)


@pytest.mark.parametrize("ending", WRITERS)
def test_every_file_holds_people_who_lack_joints(tmp_path, ending):
    results = list(recorded(walking()))
    results[2].joints3d[0, 3] = np.nan
    results[4].joints3d[:, 0] = np.nan
    path = tmp_path / f"p{ending}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        WRITERS[ending](results, path)
    assert path.stat().st_size > 1000
    if ending == ".json":
        annotations = json.loads(path.read_text())["annotations"]
        assert len(annotations) == 12 and sum(None in a["keypoints3d_mm"] for a in annotations) == 3
    if ending == ".parquet":
        assert pd.read_parquet(path).x_mm.isna().sum() == 3


# --- the real recording ----------------------------------------------------------------------------------------------
def test_the_recording_of_four_cameras():
    """BlazePose's landmarks as the model's 2D, at a distance that is made up: the athlete stands where the data set's
    own reading of the recording says."""
    folder = REPO / "data/pose2sim"
    pytest.importorskip("ai_edge_litert", reason="the extra `detect` is not installed")
    if not folder.is_dir():
        pytest.skip("the sample data are not here")
    calibration, moments = read_calibration(folder / "Calib.qca.txt"), 2
    network = pose2sim.BlazePose(REPO / "data/blazepose")
    skeleton = pose2sim.landmark_skeleton()
    views, all_px, all_confidence = [], [], []
    for name in calibration:
        late = pose2sim.LATE.get(name, 0)
        pictures = VideoPictures(folder / f"single/{name}.mp4")
        shown = [p for k, p in zip(range(late + moments), pictures) if k >= late]
        camera = view_of(calibration, f"{name}.mp4").for_pictures(shown[0].shape[1::-1])
        px, confidence = pose2sim.follow_person(iter(shown), network)
        rays = np.concatenate(
            [undistort_points(px, camera.intrinsics, camera.distortion), np.ones((*px.shape[:2], 1))], -1
        )
        with np.errstate(divide="ignore"):
            doubt = -50 * np.log(confidence)
        views.append(
            [Poses(skeleton, rays[[t]] * 3000, np.ones((1, 4)), np.ones(1), doubt[[t]], camera) for t in range(moments)]
        )
        all_px.append(px)
        all_confidence.append(confidence)
    cameras = [view[0].camera for view in views]
    reference, _ = pose2sim.reference_joints(np.stack(all_px), np.stack(all_confidence), cameras)
    for moment in range(moments):
        poses = triangulated([view[moment] for view in views])
        assert len(poses) == 1
        error = np.linalg.norm(poses.world[0] - reference[moment], axis=-1)
        assert np.nanmedian(error) < 15 and np.isfinite(error).sum() > 20, error


# --- recordings into a file ------------------------------------------------------------------------------------------
@pytest.fixture
def recordings(tmp_path):
    "Four folders of pictures, and the calibration of their cameras as Pose2Sim writes it."
    text = ""
    for k, camera in enumerate(CAMERAS):
        folder = tmp_path / f"cam{k}"
        folder.mkdir()
        for t in range(6):
            cv2.imwrite(str(folder / f"{t}.png"), np.full((96, 128, 3), t, np.uint8))
        turn = Rotation.from_matrix(camera.rotation).as_rotvec()
        place = -camera.rotation @ camera.position / 1000
        text += f"[cam{k}]\nsize = [1280, 960]\nmatrix = {camera.intrinsics.tolist()}\ndistortions = {LENS.tolist()}\n"
        text += f"rotation = {turn.tolist()}\ntranslation = {place.tolist()}\n"
    (tmp_path / "Calib.toml").write_text(text)
    return [tmp_path / f"cam{k}" for k in range(4)]


@pytest.fixture
def command(monkeypatch, tmp_path):
    "acae-nb triangulate with the stand-in for a model."
    from acae_nb.inference import estimator, predictions

    stand_in = estimator_of(walking())
    stand_in.joints_of = lambda name: (np.arange(17), SKELETON)
    near = [np.round(camera.position) for camera in CAMERAS]
    stream = stand_in.stream

    def rounded(triples, skeleton):  # the file's camera is the nearest of those here
        def exact(camera):
            return CAMERAS[int(np.argmin([np.linalg.norm(camera.position - place) for place in near]))]

        return stream(((picture, boxes, exact(camera)) for picture, boxes, camera in triples), skeleton)

    stand_in.stream = rounded
    monkeypatch.setattr(estimator.PoseEstimator, "load", lambda *args, **options: stand_in)
    monkeypatch.setattr(predictions, "require_parts", lambda *args: None)

    def call(capsys, recordings, *more):
        arguments = ["triangulate", *recordings, "--calibration", tmp_path / "Calib.toml", *more]
        return main([str(a) for a in arguments]), *capsys.readouterr()

    return call


def test_command_triangulate(capsys, tmp_path, recordings, command):
    code, out, err = command(capsys, recordings, "-o", tmp_path / "p.csv", "--html", tmp_path / "p.html", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["moments"] == 6 and told["people"] == 12 and told["complete"]
    table = pd.read_csv(tmp_path / "p.csv", comment="#")
    truth, columns = walking(), ["world_x_mm", "world_y_mm", "world_z_mm"]
    for (moment, _), rows in table.groupby(["frame", "track"]):
        error = np.linalg.norm(rows[columns].to_numpy() - truth[moment], axis=-1).mean(-1)
        assert error.min() < 15
    np.testing.assert_allclose(table.groupby("frame").time_s.first(), np.arange(6) / 30, atol=1e-6)
    page = (tmp_path / "p.html").read_text()
    assert "person 2, h36m_17" in page


def test_motion_files_of_command_triangulate_are_in_the_world(capsys, tmp_path, recordings, command):
    code, _, err = command(capsys, recordings[:3], "-o", tmp_path / "p.trc", "--rate", 25)
    assert code == 0, err
    lines = (tmp_path / "p.trc").read_text().split("\n")
    assert lines[2].startswith("25\t25\t6\t34\tmm")
    row = np.array([float(x or "nan") for x in lines[6].split("\t")[2:-1]]).reshape(2, 17, 3)
    world = np.stack([row[..., 0], -row[..., 2], row[..., 1]], -1)  # y up, back to z up
    error = np.linalg.norm(world[:, None] - walking()[0], axis=-1)
    assert np.nanmean(error, -1).min(1).max() < 15


def test_a_world_whose_up_is_not_z_is_warned_of(capsys, tmp_path, recordings, command):
    calibration = tmp_path / "opencv"
    calibration.mkdir()
    for k, camera in enumerate(CAMERAS):
        storage = cv2.FileStorage(str(calibration / f"cam{k}.yml"), cv2.FILE_STORAGE_WRITE)
        storage.write("camera_matrix", camera.intrinsics)
        storage.write("distortion_coefficients", LENS)
        y_up = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # to a world with y up
        storage.write("R", camera.rotation @ y_up.T)
        storage.write("T", -camera.rotation @ camera.position)
        storage.release()
    _, _, err = command(capsys, recordings, "-o", tmp_path / "p.trc", "--calibration", calibration)
    assert "y will be up where z is in the calibration's world, whose up is (" in err
    _, _, err = command(capsys, recordings, "-o", tmp_path / "p.trc")
    assert not err


def test_a_recording_that_loses_a_picture_ends_the_triangulation():
    steady, jittery = np.arange(8) / 30, np.arange(8) / 30 + np.array([0, 3, -3, 2, 0, -2, 3, 0]) / 1000
    lost = np.delete(np.arange(9), 5) / 30
    sources = [SimpleNamespace(times=times, rate=30.0) for times in (steady, jittery, None, lost)]
    recordings = [Path(name) for name in ("cam0", "cam1", "folder", "cam2")]
    assert list(in_step(iter(range(6)), recordings[:3], sources[:3], [0, 2, 0])) == list(range(6))
    together = in_step(iter(range(8)), recordings, sources, [0, 0, 0, 1])
    assert [next(together) for _ in range(4)] == list(range(4))
    with pytest.raises(ValueError, match=r"cam2: .* found 0.067 s before picture 5, where another has 0.03"):
        next(together)


def test_recordings_that_drift_a_picture_apart_end_the_triangulation():
    sources = [SimpleNamespace(times=np.arange(1800) / rate, rate=30.0) for rate in (30, 29.97)]
    together = in_step(iter(range(1800)), [Path("cam0"), Path("cam1")], sources, [0, 0])
    seen = 0
    with pytest.raises(ValueError, match=r"cam1: .* found picture \d+ 0.033 s later: their rates differ"):
        for _ in together:
            seen += 1
    assert 990 < seen < 1010  # 30 / 0.03 pictures to a whole one


def test_folders_of_numbered_pictures_have_to_go_on_alike(capsys, tmp_path, recordings, command):
    assert numbered_moments(["a_08.png", "a_09.png", "a_11.png"]).tolist() == [0, 1, 3]
    assert numbered_moments([f"t{t}_cam3.png" for t in (0, 33, 67, 100, 167)]).tolist() == [0, 1, 2, 3, 5]
    assert numbered_moments(["b.png", "c.png"]) is None and numbered_moments(["1.png"]) is None
    (recordings[1] / "3.png").unlink()
    code, _, err = command(capsys, recordings, "-o", tmp_path / "p.csv")
    assert code == 2 and "cam1: expected numbered pictures of the same moments" in err
    assert "found one missing before 4.png" in err and not (tmp_path / "p.csv").exists()


WRONG_CALLS = {  # what is changed -> what is said
    "one recording twice": (lambda r: [r[0], r[0]], (), "expected a recording a camera, found two of one camera"),
    "a name that is no camera": (lambda r: [r[0], r[0].parent / "door"], (), "calibration: no camera 'door'"),
    "one recording": (lambda r: r[:1], (), "same cameras, two or more"),
    "a skip of nothing": (lambda r: r[:2], ("--skip", "cam9", 3), "skip: no recording 'cam9'"),
    "a negative skip": (lambda r: r[:2], ("--skip", "cam1", -3), "expected a number of pictures, found -3"),
    "a skip beyond the end": (
        lambda r: r[:2],
        ("--skip", "cam1", 6),
        "behind what is skipped (cam0 0, cam1 6), found none",
    ),
    "an ending": (lambda r: r[:2], ("-o", "x.docx"), "expected an ending"),
    "pictures of another shape": (
        lambda r: r[:2],
        ("--calibration", "tall.toml"),
        "expected pictures of 960 x 1280 px",
    ),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_wrong_calls_of_triangulate_are_said_in_one_line(capsys, tmp_path, monkeypatch, recordings, command, case):
    chosen, more, words = WRONG_CALLS[case]
    monkeypatch.chdir(tmp_path)
    text = (tmp_path / "Calib.toml").read_text()
    (tmp_path / "tall.toml").write_text(text.replace("[1280, 960]", "[960, 1280]"))
    code, out, err = command(capsys, chosen(recordings), "-o", "p.csv", *more)
    assert code == 2 and words in err and err.count("\n") == 1 and not out and not list(tmp_path.glob("p.*")), err
