"""The command line: verbs, help, version, completion, exit codes, and what is said of wrong calls and inputs."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from toy_models import restless_model

import acae_nb
from acae_nb.autoencoder.acae import load_acae
from acae_nb.autoencoder.conversion import floor_table, package_converter
from acae_nb.autoencoder.stick_people import stick_people
from acae_nb.examples.images import encode_jpeg
from acae_nb.examples.rows import Example
from acae_nb.examples.tables import ExampleWriter
from acae_nb.geometry.cameras import Camera
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.models.pose_model import SeparateJoints, save_pose_model
from acae_nb.skeletons.joints import load_skeleton, union
from acae_nb.workflow.cli import answer, cli, compare_skeletons, main, model_formats

REPO = Path(__file__).resolve().parents[2]
SKELETON = load_skeleton("coco_17")
UNION = union([SKELETON, load_skeleton("h36m_17")])
BOX = ("--box", 60, 40, 100, 150)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    torch.manual_seed(0)
    model = restless_model(SeparateJoints(34))
    return save_pose_model(tmp_path_factory.mktemp("m") / "model", model, UNION, {"size": 64})


@pytest.fixture(scope="module")
def image():
    return cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8), (320, 240))


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def in_a_process(*arguments, code="import sys; from acae_nb.workflow.cli import main; sys.exit(main())", **options):
    environment = dict(os.environ, PYTHONPATH=str(REPO), OMP_NUM_THREADS="1", **options)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


# --- help, version, completion ---------------------------------------------------------------------------------------
def verbs(group=cli, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from verbs(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("verb", list(verbs()), ids=" ".join)
def test_each_verb_has_help_with_examples(capsys, verb):
    code, out, _ = run(capsys, *verb, "-h")
    assert code == 0 and f"examples:\n    acae-nb {' '.join(verb)}" in out
    assert run(capsys, *verb, "--help")[1] == out


@pytest.mark.parametrize("call", [(), ("-h",), ("--help",)])
def test_alone_it_shows_its_help(capsys, call):
    code, out, err = run(capsys, *call)
    assert code == 0 and not err and "completion" in out and "exit codes" in out
    assert all(f"\n  {verb[0]} " in out for verb in verbs()) and "..." not in out.partition("Commands:")[2]


def test_version(capsys):
    assert run(capsys, "--version")[:2] == (0, f"acae-nb, version {acae_nb.__version__}\n")


@pytest.mark.parametrize(
    "call, words",
    [
        (("predcit",), "no verb 'predcit' (did you mean 'predict'?)"),
        (("skeletons", "draw"), "no verb 'draw': there are compare, list, show"),
        (("skeletons", "compare", "coco_17"), "Missing argument 'B'"),
        (("predict",), "Missing argument 'INPUT'"),
        (("predict", "a.jpg"), "'-o' / '--output'"),
        (("predict", "a.jpg"), "For example: acae-nb predict street.jpg -o poses.csv"),
        (("predict", "a.jpg", "b.jpg", "-o", "a.csv"), "For example: acae-nb predict street.jpg"),
        (("skeletons", "compare", "coco_17"), "For example: acae-nb skeletons compare coco_17 h36m_17"),
        ((str(REPO / "acae_nb/data/people.jpg"),), f"acae-nb predict {REPO}/acae_nb/data/people.jpg -o poses.csv"),
        (("predict", str(REPO / "acae_nb/data/poeple.jpg"), "-o", "a.csv"), "did you mean 'people.jpg'"),
        (("predict", "a.jpg", "-o", "a.csv", "--smallest", "3"), "3.0 is not in the range"),
        (("predict", "a.jpg", "-o", "a.csv", "--smallest", "99", "--blazepose", "b"), "goes without --blazepose"),
        (("predict", "a.jpg", "-o", "a.csv", "--smallest", "99", "--box", *"1234"), "goes without --box"),
        (("predict", "a.jpg", "-o", "a.csv", "--overlya", "x"), "--overlay"),
        (("predict", "a.jpg", "-o", "a.csv", "--box", "1", "2"), "'--box' requires 4 arguments"),
        (("predict", "a.jpg", "-o", "a.csv", "--box", "1", "2"), "For example: acae-nb predict street.jpg"),
        (("predict", "a.jpg", "-o"), "'-o' requires an argument"),
        (("predict", "a.jpg", "-o"), "For example: acae-nb predict street.jpg"),
        (("fit-acae", "a.npz", "-o", "a.safetensors", "--seed"), "For example: acae-nb fit-acae poses.npz"),
        (("triangulate", "a.mp4", "--skip", "a"), "For example: acae-nb triangulate cam01.mp4"),
        (("skeletons", "show", "h36m17"), "did you mean 'h36m_17'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_calls_are_named(capsys, call, words):
    code, out, err = run(capsys, *call)
    assert code == 2 and words in err and not out


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'cv2', 'numpy', 'pandas', 'matplotlib', 'plotly', 'av'}"
    code = (
        f"import sys; from acae_nb.workflow.cli import main; main(sys.argv[1:]); assert not {heavy} & {{*sys.modules}}"
    )
    done = in_a_process("--help", code=code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words, expected",
    [
        ("acae-nb pre", {"predict"}),
        ("acae-nb skeletons show h36m_", {"h36m_17", "h36m_25"}),
        ("acae-nb evaluate a b --protocol zz", set()),
        ("acae-nb evaluate a b --protocol h", {"human36m"}),
        ("acae-nb predict a --model MODEL --skeleton ", {"coco_17", "h36m_17"}),
    ],
    ids=["verb", "format", "no protocol", "protocol", "format of a model"],  # a set has no order of its own
)
def test_completion(model_folder, words, expected):
    words = words.replace("MODEL", str(model_folder))
    count = len(words.split(" ")) - 1
    done = in_a_process(_ACAE_NB_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(count))
    completed = {line.partition(",")[2] for line in done.stdout.splitlines()}
    assert expected <= completed and (expected or not completed - {""}), done.stderr
    assert in_a_process(_ACAE_NB_COMPLETE="bash_source").stdout.count("complete -o") == 1


# --- skeletons -------------------------------------------------------------------------------------------------------
def test_skeletons(capsys):
    assert json.loads(run(capsys, "skeletons", "list", "--json")[1])["h36m_17"] == 17
    compared = json.loads(run(capsys, "skeletons", "compare", "coco_17", "h36m_17", "--json")[1])
    there = compared.pop("conversion")["there"]
    assert there.pop("floors")["name"]["joints"] == 12
    assert there == package_converter().summary("coco_17", "h36m_17")
    assert compared == compare_skeletons(SKELETON, load_skeleton("h36m_17"))
    assert json.loads(run(capsys, "skeletons", "show", "h36m_17", "--json")[1])["name"] == "h36m_17"


def test_compared_skeletons_say_what_conversion_costs(capsys):
    lines = run(capsys, "skeletons", "compare", "h36m_17", "smpl_24")[1].splitlines()
    there, ways_there, back, ways_back = lines[-4:]
    assert re.fullmatch(
        r"h36m_17 to smpl_24: expected error \d+ mm \(median of joints\); not determined: .*foot.*", there
    )
    assert re.fullmatch(r"smpl_24 to h36m_17: expected error \d+ mm \(median of joints\)", back)
    for ways, of_all in ((ways_there, "16 of 24"), (ways_back, "16 of 17")):
        assert re.fullmatch(
            rf"  mean error: same name [\d.]+ mm \({of_all} joints\), linear map [\d.]+ mm, autoencoder [\d.]+ mm, "
            r"fitted mesh [\d.]+ mm \(a bound: the truth is of the same body model\)",
            ways,
        )
    lines = run(capsys, "skeletons", "compare", "h36m_17", "posepile_huge8_merged")[1].splitlines()
    assert lines[-1] == "h36m_17 to posepile_huge8_merged: no conversion is known"


def test_ways_that_were_not_measured_are_not_spoken_of(capsys, monkeypatch):
    table = json.loads(json.dumps(floor_table()))
    a, b = table["formats"].index("h36m_17"), table["formats"].index("smpl_24")
    table["mean mm"]["mesh"][a][b] = None
    monkeypatch.setattr("acae_nb.autoencoder.conversion.floor_table", lambda: table)
    said = run(capsys, "skeletons", "compare", "h36m_17", "smpl_24")[1].splitlines()
    assert ["mesh" in line for line in said[-4:]] == [False, False, False, True] and "autoencoder" in said[-3]
    nameless = run(capsys, "skeletons", "compare", "aic_14", "surface_markers_42")[1].splitlines()
    assert not any("same name" in line for line in nameless[-3:])
    table["formats"] = []
    said = run(capsys, "skeletons", "compare", "h36m_17", "smpl_24")[1].splitlines()
    assert all("expected error" in line for line in said[-2:])


def test_the_formats_of_the_model_at_hand_are_listed(capsys, tmp_path, monkeypatch, model_folder):
    monkeypatch.chdir(tmp_path)
    formats = {"coco_17": 17, "h36m_17": 17}
    assert json.loads(run(capsys, "skeletons", "list", "--model", model_folder, "--json")[1]) == formats
    estimator = PoseEstimator.load(model_folder)
    rows, skeleton = estimator.formats["h36m_17"]
    estimator.formats = {"few": (rows[:3], skeleton)}
    assert model_formats(estimator.save(tmp_path / "few")) == {"few": 3}
    from acae_nb.inference import predictions

    monkeypatch.setattr(predictions, "usual_model", lambda: model_folder)
    assert json.loads(run(capsys, "skeletons", "list", "--json", "--model")[1]) == formats
    (tmp_path / "model.json").write_text("{}")
    for wrong, words in ((tmp_path, "expected a model's description"), (tmp_path / "x", "model.json: no such file")):
        code, out, err = run(capsys, "skeletons", "list", "--model", wrong)
        assert code == 2 and words in err and not out


# --- predict ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def pictures(tmp_path, image):
    (tmp_path / "in").mkdir()
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"in/{name}.png"), image)
    return tmp_path / "in"


@pytest.fixture
def options(model_folder):
    return ("--model", model_folder, *BOX, "--skeleton", "h36m_17", "--json")


def test_poses_of_a_folder(capsys, tmp_path, pictures, image, options, model_folder):
    output = tmp_path / "out.csv"
    code, out, _ = run(capsys, "predict", pictures, "-o", output, "--overlay", tmp_path / "seen", *options)
    told = {"pictures": 2, "people": 2, "output": str(output), "complete": True, "lost": [], "cameras": {"assumed": 2}}
    assert code == 0 and json.loads(out) == told
    table = pd.read_csv(output, comment="#", index_col=[0, 1, 2, 3])
    assert table.loc[0, "picture"].eq("a.png").all() and table.loc[1, "picture"].eq("b.png").all()
    poses = PoseEstimator.load(model_folder).estimate(image[..., ::-1], BOX[1:], skeleton="h36m_17").to_pandas()
    axes = ["x_mm", "y_mm", "z_mm"]
    np.testing.assert_allclose(table.loc[0, axes], poses[axes], rtol=1e-4, atol=0.01)
    assert sorted(p.name for p in (tmp_path / "seen").iterdir()) == ["a.png", "b.png"]
    assert (cv2.imread(str(tmp_path / "seen/a.png")) != image).any()


def distances(path):
    return pd.read_csv(path, comment="#").groupby("frame").z_mm.mean().to_numpy()


def test_a_photograph_tells_its_field_of_view_and_a_calibration_the_camera(capsys, tmp_path, pictures, image, options):
    from PIL import Image

    photograph = Image.fromarray(image[..., ::-1])
    tags = photograph.getexif()
    tags[0x8769] = {0xA405: 200}  # mm on film: a telephoto lens
    photograph.save(pictures / "c.jpg", exif=tags, quality=100)
    code, out, _ = run(capsys, "predict", pictures, "-o", tmp_path / "p.csv", *options)
    assert code == 0 and json.loads(out)["cameras"] == {"assumed": 2, "EXIF": 1}
    assumed, same, far = distances(tmp_path / "p.csv")
    assert assumed == same and far > 3 * assumed
    code, out, _ = run(capsys, "predict", pictures, "-o", tmp_path / "g.csv", "--field-of-view", 55, *options)
    assert json.loads(out)["cameras"] == {"given": 3}
    np.testing.assert_allclose(distances(tmp_path / "g.csv"), assumed, rtol=0.02)  # a JPEG beside two PNG
    code, out, _ = run(capsys, "predict", pictures, "-o", tmp_path / "q.csv", *options[:-1])
    assert "(fields of view: 1 by EXIF, 2 assumed (55 degrees)) -> " in out

    storage = cv2.FileStorage(str(tmp_path / "c.yml"), cv2.FILE_STORAGE_WRITE)
    focal = 160 / np.tan(np.radians(55 / 2))
    storage.write("camera_matrix", np.array([[focal, 0, 159.5], [0, focal, 119.5], [0, 0, 1]]))
    storage.write("distortion_coefficients", np.zeros(5))
    storage.write("image_width", 320)
    storage.write("image_height", 240)
    storage.release()
    more = ("--calibration", tmp_path / "c.yml")
    code, out, _ = run(capsys, "predict", pictures, "-o", tmp_path / "c.csv", *more, *options)
    assert json.loads(out)["cameras"] == {"calibrated": 3}
    np.testing.assert_allclose(distances(tmp_path / "c.csv"), assumed, rtol=0.02)
    (tmp_path / "c.toml").write_text("[left]\n[right]\n")
    more = ("--calibration", tmp_path / "c.toml")
    code, out, err = run(capsys, "predict", pictures, "-o", tmp_path / "d.csv", *more, *options)
    assert code == 2 and "c.toml: camera 'left': field size" in err


def test_a_page_stands_alone(capsys, tmp_path, image, options):
    video = write_avi(tmp_path / "v.avi", image, 5)
    page = tmp_path / "page.html"
    assert run(capsys, "predict", video, "-o", tmp_path / "v.csv", "--html", page, *options)[0] == 0
    text = page.read_text()
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.S)
    library = max(scripts, key=len)
    assert len(library) > 1e6 and "plotly.js v" in library[:500]  # it names addresses, and asks none for a figure in 3D
    rest = text.replace(library, "")
    assert not re.search(r"https?:|//cdn|\b(src|href)=|@import|fetch\(|XMLHttpRequest", rest)
    assert '"sliders"' in rest and '"scatter3d"' in rest and "0.16 s" in rest and len(rest) > 3000


def test_motion_for_animation_programs(capsys, tmp_path, image, options):
    video = write_avi(tmp_path / "v.avi", image, 5)
    assert run(capsys, "predict", video, "-o", tmp_path / "v.bvh", *options)[0] == 0
    assert "Frames: 5\nFrame Time: 0.04" in (tmp_path / "v.bvh").read_text()
    assert run(capsys, "predict", video, "-o", tmp_path / "v.glb", *options)[0] == 0
    assert (tmp_path / "v.glb").read_bytes()[:4] == b"glTF"
    all_formats = [option for option in options if option not in ("--skeleton", "h36m_17")]
    for name in ("w.bvh", "w.glb"):
        code, _, err = run(capsys, "predict", video, "-o", tmp_path / name, *all_formats)
        assert code == 2 and "expected a format whose bones connect all of its joints" in err and err.count("\n") == 1


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_what_cannot_be_read_is_left_out_and_named(capsys, tmp_path, pictures, image, options, ending):
    (pictures / "aa.png").write_bytes((pictures / "a.png").read_bytes()[:50])
    (pictures / "x.jpg").mkdir()
    os.symlink(tmp_path / "nowhere.png", pictures / "link.png")
    cv2.imwrite(str(pictures / "small.png"), image[:30, :30])
    code, out, err = run(capsys, "predict", pictures, "-o", tmp_path / f"part.{ending}", *options)
    told = json.loads(out)
    assert code == 3 and told["pictures"] == 2 and not told["complete"] and len(told["lost"]) == 4
    assert err.splitlines() == [f"acae-nb: {problem}" for problem in told["lost"]]
    for words in ("aa.png: expected a picture", "x.jpg: expected", "link.png: expected", "small.png: box 0"):
        assert words in err
    read = {"csv": lambda path: set(pd.read_csv(path, comment="#").picture)}
    read["parquet"] = lambda path: set(pd.read_parquet(path).picture)
    read["json"] = lambda path: {entry["file_name"] for entry in json.loads(path.read_text())["images"]}
    assert read[ending](tmp_path / f"part.{ending}") == {"a.png", "b.png"}


def write_avi(path, image, count):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, image.shape[1::-1])
    for k in range(count):
        writer.write(np.roll(image, k, 1))
    writer.release()
    return path


def test_poses_of_a_video(capsys, tmp_path, image, options):
    video = write_avi(tmp_path / "v.avi", image, 20)
    seen = tmp_path / "seen.avi"
    assert run(capsys, "predict", video, "-o", tmp_path / "v.trc", "--overlay", seen, *options)[0] == 0
    assert (tmp_path / "v.trc").read_text().split("\n")[2].startswith("25\t25\t20\t17\tmm")
    assert cv2.VideoCapture(str(seen)).get(cv2.CAP_PROP_FRAME_COUNT) == 20
    smooth = ("--smooth", 6, "--constant-bones")
    assert run(capsys, "predict", video, "-o", tmp_path / "s.parquet", *smooth, *options)[0] == 0
    table = pd.read_parquet(tmp_path / "s.parquet")
    assert len(table) == 17 * 20 and set(table.track) == {0}
    content = video.read_bytes()
    (tmp_path / "half.avi").write_bytes(content[: len(content) // 2])
    code, out, err = run(capsys, "predict", tmp_path / "half.avi", "-o", tmp_path / "half.parquet", *options)
    assert code == 3 and 5 < json.loads(out)["pictures"] < 20 and "expected 20 pictures" in err
    table = pd.read_parquet(tmp_path / "half.parquet")
    assert len(table) == 17 * json.loads(out)["pictures"] and set(table.track) == {0}


@pytest.mark.parametrize(
    "rate, cutoff, words",
    [
        ((), 12.5, "--smooth: expected a frequency from 0.025 to below 12.5 Hz, half of the 25 pictures a second"),
        ((), 60, "found 60 Hz"),
        ((), -1, "found -1 Hz"),
        ((), "nan", "found nan Hz"),
        (("--rate", 10), 6, "below 5 Hz, half of the 10 pictures a second"),
    ],
)
def test_what_pictures_cannot_show_is_not_smoothed(capsys, tmp_path, image, options, rate, cutoff, words):  # 19.9
    video = write_avi(tmp_path / "v.avi", image, 4)  # 25 pictures a second
    code, out, err = run(capsys, "predict", video, "-o", tmp_path / "v.csv", "--smooth", cutoff, *rate, *options)
    assert code == 2 and words in err and err.count("\n") == 1 and not out and not (tmp_path / "v.csv").exists()


def test_smoothing_up_to_half_the_rate(capsys, tmp_path, image, options):
    video = write_avi(tmp_path / "v.avi", image, 4)
    assert run(capsys, "predict", video, "-o", tmp_path / "v.csv", "--smooth", 12.4, *options)[0] == 0


def test_each_wrong_input_is_said_in_one_line_before_the_work(capsys, tmp_path, model_folder):
    cv2.imwrite(str(tmp_path / "p.png"), np.zeros((60, 80, 3), np.uint8))
    (tmp_path / "file").write_bytes(b"no")
    (tmp_path / "cut.mp4").write_bytes(b"no video" * 100)
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed/broken.png").write_bytes(b"no")
    os.symlink(tmp_path / "nowhere.png", tmp_path / "link.png")
    for changes, words in (
        (dict(input=tmp_path / "none.png"), "found no such file"),
        (dict(input=tmp_path / "link.png"), f"found a link to {tmp_path / 'nowhere.png'}, which is not there"),
        (dict(input=tmp_path / "file"), "expected a picture"),
        (dict(input=tmp_path / "cut.mp4"), "cut.mp4: expected a video, found 800 bytes that cannot be opened"),
        (dict(input=tmp_path / "mixed"), "broken.png: expected a picture"),
        (dict(o=tmp_path / "file/x.csv"), "is no folder"),
        (dict(o="/proc/x.csv"), "cannot be written"),
        (dict(o=tmp_path / "mixed"), "expected an ending"),
        (dict(o=tmp_path / "x.docx"), "expected an ending"),
        (dict(overlay=tmp_path / "file"), "expected a folder for pictures"),
        (dict(overlay=tmp_path / "seen.png"), "expected a folder for pictures"),
        (dict(overlay=tmp_path / "seen.mpg"), "seen.mpg: expected a folder or a video"),
        (dict(overlay="/proc/seen"), "/proc/seen: expected a folder that can be written to"),
        (dict(overlay=tmp_path / "file/seen.mp4"), "is no folder"),
        (dict(overlay=tmp_path / "seen", overlay_skeleton="smpl"), "expected all or one of coco_17, h36m_17"),
        (dict(device="toaster"), "device: expected one that torch can use here"),
        (dict(acae=tmp_path / "file"), "file: expected an autoencoder"),
        (dict(memory=-5), "memory: expected a budget above 0 MiB"),
        (dict(memory="nan"), "memory: expected"),
        (dict(rate=0), "rate: expected pictures per second above 0"),
        (dict(rate="nan"), "rate: expected"),
        (dict(looks=0), "looks: expected at least one"),
        (dict(field_of_view=180), "field_of_view_deg: expected an angle"),
        (dict(skeleton="h36m17"), "did you mean 'h36m_17'"),
        (dict(model=tmp_path / "file"), "model.json: no such file"),
    ):
        chosen = {"input": tmp_path / "p.png", "o": tmp_path / "o.csv", "model": model_folder, **changes}
        arguments = [chosen.pop("input"), "-o", chosen.pop("o")]
        arguments += [part for name, value in chosen.items() for part in (f"--{name.replace('_', '-')}", value)]
        code, out, err = run(capsys, "predict", *arguments, "--box", 10, 10, 40, 40, "--json")
        assert code == 2 and words in err and err.count("\n") == 1 and not out, (changes, err)
        assert not list(tmp_path.glob("**/*.csv")) and not list(tmp_path.glob("**/seen.*")), changes


def test_all_that_is_missing_is_said_at_once(capsys, tmp_path, monkeypatch):
    from acae_nb.inference import predictions

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predictions, "find_spec", lambda name: None)
    monkeypatch.setattr(predictions, "packaged_model", lambda: predictions.PUBLISHED_MODEL)
    code, out, err = run(capsys, "predict", "a.mp4", "-o", "a.c3d", "--blazepose", "nowhere")
    assert code == 2 and not out and err.count("\n") == 6
    for words in (
        "consistency/model.json",
        "acae_nb[detect]",
        "detection.tflite",
        "full.tflite",
        "[outputs]",
    ):
        assert words in err
    for options in ((), BOX, ("--blazepose", "nowhere", *BOX)):
        assert run(capsys, "predict", "a.mp4", "-o", "a.csv", *options)[2].count("\n") == 1


@pytest.mark.parametrize("options", [(), ("--smallest", "100")])
def test_people_are_searched_for_without_any_extra(capsys, tmp_path, model_folder, monkeypatch, options):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    picture = np.load(REPO / "tests/models/movenet_reference.npz")["multipose_picture_0"]
    cv2.imwrite(str(tmp_path / "a.png"), picture[..., ::-1])
    arguments = tmp_path / "a.png", "-o", tmp_path / "a.csv", "--model", model_folder, "--json", *options
    code, out, err = run(capsys, "predict", *arguments)
    assert code == 0 and json.loads(out)["pictures"] == 1, err


LONG_VIDEO = """
import os, sys, threading, time
from acae_nb.inference import predictions
from acae_nb.workflow.cli import main

def slowly(results, *arguments):
    for number, poses in enumerate(results):
        time.sleep(0.05)
        if number == 3:
            print("three", file=sys.stderr, flush=True)
        yield poses
follow = predictions.follow
predictions.follow = lambda results: slowly(follow(results))
sys.exit(main())
"""


def test_after_ctrl_c_what_was_found_is_written(tmp_path, image, options):
    video, output, seen = write_avi(tmp_path / "v.avi", image, 400), tmp_path / "v.csv", tmp_path / "v.mp4"
    command = [sys.executable, "-c", LONG_VIDEO, "predict", video, "-o", output, "--overlay", seen, *options]
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(REPO), OMP_NUM_THREADS="1"),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while "three" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    told = json.loads(out)
    assert process.returncode == 130 and 4 <= told["pictures"] < 400 and "interrupted after" in err, err
    assert "Traceback" not in err and not told["complete"]
    assert pd.read_csv(output, comment="#").frame.nunique() == told["pictures"]
    assert cv2.VideoCapture(str(seen)).get(cv2.CAP_PROP_FRAME_COUNT) == told["pictures"]


# --- without what Linux has ------------------------------------------------------------------------------------------
ELSEWHERE = """
import ctypes, importlib.abc, multiprocessing.context, os, sys

class Absent(importlib.abc.MetaPathFinder):
    names = {"fcntl", "resource", "multiprocessing.forkserver", "multiprocessing.popen_forkserver"}

    def find_spec(self, name, path, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in Absent.names:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
del os.sched_getaffinity
load = ctypes.CDLL

class Library(load):
    def __getattr__(self, name):
        if name in ("prctl", "renameat2"):
            raise AttributeError(name)
        return super().__getattr__(name)

ctypes.CDLL = Library
from acae_nb import PoseEstimator
from acae_nb.workflow.cli import main

model, picture = sys.argv[2:]
estimator = PoseEstimator.load(model)
poses = list(estimator.stream([(picture, [[60, 40, 100, 150]], None)] * 3))
assert [pose.joints3d.shape[0] for pose in poses] == [1, 1, 1] and not Absent.names & set(sys.modules)
calls = [call.split(" ") for call in sys.argv[1].split(";")]
sys.exit(max(main(call) for call in calls))
"""


@pytest.fixture
def table(tmp_path, image):
    "An example table of one person, written here, where there is fcntl."
    camera = Camera(np.array([[100, 0, 45], [0, 100, 30], [0, 0, 1.0]]), world_up=np.array([0, -1.0, 0]))
    joints = np.random.default_rng(0).normal((0, 0, 3000), 300, (17, 3)).astype(np.float32)
    example = Example(
        example_id="0",
        dataset="demo",
        split="train",
        subject="S1",
        sequence="walk",
        frame=0,
        camera=camera,
        box=np.array([10, 5, 30, 50.0]),
        image_size=(320, 240),
        joints3d=joints,
    )
    with ExampleWriter(tmp_path / "table", SKELETON, "demo") as writer:
        writer.add(example, encode_jpeg(image))
    return tmp_path / "table"


@pytest.mark.filterwarnings("ignore")
def test_predict_evaluate_export_validate_and_fit_run_anywhere(tmp_path, pictures, table, model_folder):
    poses, names, _, _ = stick_people(60, 2)
    np.savez(tmp_path / "stick.npz", joints3d=poses, joints=np.array(names))
    joints = np.random.default_rng(0).normal([0, 0, 4000], 300, (4, 17, 3))
    truth = dict(joints=np.array(load_skeleton("h36m_17").labels), sequence=np.array(["a"] * 4), frame=np.arange(4))
    np.savez(
        tmp_path / "truth.npz", joints3d=joints, skeleton=np.array("h36m_17"), activity=np.array(["x"] * 4), **truth
    )
    calls = (
        f"predict {pictures} -o {tmp_path}/p.csv --model {model_folder} --box 60 40 100 150 --overlay {tmp_path}/p.mp4",
        f"evaluate {tmp_path}/truth.npz {tmp_path}/truth.npz --protocol human36m -o {tmp_path}/r.json",
        f"validate {table} --decode",
        f"fit-acae {tmp_path}/stick.npz -o {tmp_path}/a.safetensors --sided 0 --central 12",
        f"export {model_folder} -o {tmp_path}/m.pt2",
    )
    done = in_a_process(";".join(calls), model_folder, pictures / "a.png", code=ELSEWHERE)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all((tmp_path / name).is_file() for name in ("p.csv", "p.mp4", "r.json", "a.safetensors", "m.pt2"))


# --- the other verbs -------------------------------------------------------------------------------------------------
def test_fit_acae(capsys, tmp_path):
    poses, names, mirror, _ = stick_people(400, 2)
    np.savez(tmp_path / "poses.npz", joints3d=poses, joints=np.array(names))
    output, latents = tmp_path / "a.safetensors", ("--sided", 0, "--central", 12)
    code, out, err = run(capsys, "fit-acae", tmp_path / "poses.npz", "-o", output, *latents, "--json")
    assert code == 0, err
    assert json.loads(out)["latents"] == 12 and load_acae(output).joints == tuple(names)


def poses_files():
    poses, names, _, _ = stick_people(60, 2)
    yield "absent", dict(poses=poses), "joints3d: expected [poses, joints, 3] in mm, found none; it has ['poses']"
    yield "flat", dict(joints3d=poses[..., :2]), "joints3d: expected [poses, joints, 3] in mm, found float"
    yield "metres", dict(joints3d=poses / 1000), "probably metres: multiply them by 1000"
    yield "gaps", dict(joints3d=np.where(np.arange(len(names))[:, None] == 1, np.nan, poses) / 1000), "probably metres"
    yield "twice", dict(joints3d=poses, joints=np.array([names[0], *names[:-1]])), f"found {names[0]!r} several times"
    yield "fewer", dict(joints3d=poses, joints=np.array(names[:-1])), f"expected {len(names)} names"
    yield "unknown", dict(joints3d=poses, skeleton=np.array("h36m17")), "did you mean 'h36m_17'"
    yield (
        "other",
        dict(joints3d=poses[:, :16], skeleton=np.array("h36m_17")),
        "expected one of 16 joints, found h36m_17",
    )
    yield "none", dict(joints3d=poses[:0]), "joints3d: expected [poses, joints, 3] in mm, found float32 (0,"


@pytest.mark.parametrize("name, arrays, words", [pytest.param(*case, id=case[0]) for case in poses_files()])
def test_poses_that_cannot_be_meant_are_named(capsys, tmp_path, name, arrays, words):
    np.savez(tmp_path / f"{name}.npz", **arrays)
    code, out, err = run(capsys, "fit-acae", tmp_path / f"{name}.npz", "-o", tmp_path / "a.safetensors")
    assert code == 2 and words in err and err.count("\n") == 1 and not (tmp_path / "a.safetensors").exists()


def test_a_pointer_of_git_lfs_is_told_as_one(capsys, tmp_path):
    (tmp_path / "p.npz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    for verb in (("fit-acae", tmp_path / "p.npz", "-o", tmp_path / "a.safetensors"),):
        code, _, err = run(capsys, *verb)
        assert code == 2 and "git lfs pull" in err and "pickle" not in err


def test_validate(capsys, tmp_path):
    code, _, err = run(capsys, "validate", tmp_path / "nowhere")
    assert code == 2 and "expected a folder, found none" in err
    (tmp_path / "t").mkdir()
    (tmp_path / "t/table.arrow").write_bytes(b"no table")
    code, out, _ = run(capsys, "validate", tmp_path / "t", "--json")
    assert code == 1 and json.loads(out)["problems"]
    (tmp_path / "own").mkdir()
    code, out, _ = run(capsys, "validate", tmp_path / "own")
    assert code == 1 and "examples.csv" in out


def test_card(capsys, tmp_path, model_folder):
    (tmp_path / "r.json").write_text(json.dumps({"synthetic": {"MPJPE": 169.627}}))
    code, out, _ = run(capsys, "card", model_folder, tmp_path / "r.json")
    assert code == 0 and "| synthetic | 169.6 |" in out and "169.6" in (model_folder / "README.md").read_text()
    (tmp_path / "bad.json").write_text("[1]")
    assert run(capsys, "card", model_folder, tmp_path / "bad.json")[0] == 2


@pytest.mark.parametrize(
    "output, more, words",
    [
        ("a.onx", (), "ends in .onnx or .pt2"),
        ("a.pt2", ("--check",), "expected a name that ends in .onnx\n"),
        ("/proc/a.pt2", (), "cannot be written"),
    ],
)
def test_export_refuses_before_the_work(capsys, tmp_path, monkeypatch, output, more, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "export", tmp_path / "no_model", "-o", output, *more)
    assert code == 2 and words in err


def test_json_has_null_for_what_is_not_known(capsys):
    "NaN is no JSON."
    answer(True, {"MPJPE": float("nan"), "formats": [{"a": float("inf"), "b": 2.5}]}, "")
    assert capsys.readouterr().out == '{"MPJPE": null, "formats": [{"a": null, "b": 2.5}]}\n'
