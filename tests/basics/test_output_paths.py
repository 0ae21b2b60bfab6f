"""No result is written onto what it is made of."""

from pathlib import Path

import pytest

from acae_nb.basics.output_paths import refuse_inputs
from acae_nb.workflow.cli import main


def test_an_output_is_not_the_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos, video = tmp_path / "photos", tmp_path / "walk.mp4"
    photos.mkdir()
    (photos / "a.jpg").touch()
    video.touch()
    (tmp_path / "link").symlink_to(photos)
    refuse_inputs(["poses.csv", None, "drawn", photos / "poses.csv"], photos)
    refuse_inputs(["poses.csv", "drawn", "drawn.mp4"], video)
    for outputs, given in [
        ([photos], photos),
        (["link"], photos),
        ([photos], photos / "a.jpg"),
        (["walk.mp4"], video),
        ([Path("photos/../walk.mp4")], video),
    ]:
        with pytest.raises(ValueError, match="expected a place of its own for what is written, found that of the inp"):
            refuse_inputs(outputs, given)
    with pytest.raises(ValueError, match="named twice"):
        refuse_inputs(["a.html", tmp_path / "a.html"], photos)


@pytest.mark.parametrize("overlay", ["photos", "photos/../photos"])
def test_drawn_pictures_do_not_take_the_place_of_photographs(tmp_path, monkeypatch, capsys, overlay):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos/a.jpg").write_bytes(b"of somebody")
    assert main(["predict", "photos", "-o", "p.csv", "--overlay", overlay]) == 2
    assert "found that of the input" in capsys.readouterr().err
    assert Path("photos/a.jpg").read_bytes() == b"of somebody" and not Path("p.csv").exists()


def test_a_result_does_not_take_the_place_of_the_truth(tmp_path, capsys):
    truth = tmp_path / "truth.npz"
    truth.write_bytes(b"poses")
    for output in (truth, tmp_path / "mine.npz"):
        call = ["evaluate", str(tmp_path / "mine.npz"), str(truth), "--protocol", "human36m", "-o", str(output)]
        assert main(call) == 2
        assert "found that of the input" in capsys.readouterr().err
    assert truth.read_bytes() == b"poses"


def test_a_page_and_a_file_of_poses_are_two(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    page = str(tmp_path / "p.html")
    assert main(["predict", str(tmp_path / "photos"), "-o", page, "--html", page]) == 2
    assert "named twice" in capsys.readouterr().err
