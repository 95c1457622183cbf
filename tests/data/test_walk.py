"""One way to look through a folder: links are followed, other programs' files are left out, and both are said."""

import os

import pytest

from mvtec_tf.data import walk
from mvtec_tf.serving import inputs
from mvtec_tf.serving.watch import DropBox


def _file(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not looked into")
    return path


def _names(folder):
    return [os.path.relpath(file, folder) for file in walk.walk(folder).images]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photographs").mkdir()
    return tmp_path / "photographs"


def test_links_to_files_and_to_folders_are_followed(folder, tmp_path):
    _file(tmp_path / "store" / "deep" / "a.png")
    single = _file(tmp_path / "single.png")
    (folder / "linked").symlink_to(tmp_path / "store")
    (folder / "b.png").symlink_to(single)
    _file(folder / "c.png")
    found = walk.walk(folder)
    assert _names(folder) == ["b.png", "c.png", "linked/deep/a.png"]
    assert found.notes() == []


@pytest.mark.parametrize("target", [".", "..", "../..", "sub", "/"])
def test_a_link_that_leads_back_ends_and_is_said(folder, target):
    _file(folder / "sub" / "a.png")
    (folder / "sub" / "round").symlink_to(target if target != "sub" else folder / "sub")
    assert _names(folder) == ["sub/a.png"]
    assert any("looked into already: sub/round" in note for note in walk.walk(folder).notes())


def test_two_folders_that_lead_to_each_other_end(tmp_path):
    _file(tmp_path / "a" / "1.png")
    _file(tmp_path / "b" / "2.png")
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    assert _names(tmp_path / "a") == ["1.png", "b/2.png"]


def test_a_folder_with_a_second_name_is_looked_into_once_under_its_own(folder):
    _file(folder / "z 2026-11-27" / "a.png")
    (folder / "a today").symlink_to("z 2026-11-27")
    assert _names(folder) == ["z 2026-11-27/a.png"]
    assert "a today -> z 2026-11-27" in walk.walk(folder).notes()[0]


@pytest.mark.parametrize("link", ["gone.png", "gone folder", "itself.png"])
def test_a_link_that_leads_nowhere_is_named(folder, link):
    _file(folder / "a.png")
    (folder / link).symlink_to(link if link == "itself.png" else "nowhere")
    assert _names(folder) == ["a.png"]
    (note,) = walk.walk(folder).notes()
    assert f"lead nowhere: {link} -> " in note


@pytest.mark.parametrize(
    ("clutter", "kind"),
    [
        (".ipynb_checkpoints/a-checkpoint.png", ".ipynb_checkpoints/ (1)"),
        (".git/a.png", ".git/ (1)"),
        ("@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "@eaDir/ (1)"),
        ("__MACOSX/._a.png", "__MACOSX/ (1)"),
        ("#recycle/a.png", "#recycle/ (1)"),
        ("$RECYCLE.BIN/a.png", "$RECYCLE.BIN/ (1)"),
        ("~snapshot/hourly.0/a.png", "~snapshot/ (1)"),
        ("Thumbs.db", "Thumbs.db (1)"),
        ("desktop.ini", "desktop.ini (1)"),
        ("._a.png", "._* (1)"),
        (".DS_Store", ".* (1)"),
        (".hidden.png", ".* (1)"),
    ],
)
@pytest.mark.parametrize("where", ["", "sub"])
def test_what_other_programs_leave_is_no_photograph_and_is_said(folder, where, clutter, kind):
    _file(folder / "a.png")
    _file(folder / where / clutter)
    assert list(walk.walk(folder).files) == [str(folder / "a.png")]
    assert walk.walk(folder).notes() == [f"{folder}: left out what other programs put there: {kind}."]


@pytest.mark.parametrize("masks", ["ground_truth", "Ground_Truth", "ground-truth"])
@pytest.mark.parametrize("beside", ["test", "Train", "good", "NG"])
def test_masks_beside_images_are_no_photographs(folder, masks, beside):
    _file(folder / beside / "a.png")
    _file(folder / masks / "chip" / "a_mask.png")
    assert _names(folder) == [f"{beside}/a.png"]
    assert [masks in note for note in walk.walk(folder).notes()] == [True] * (masks != "ground_truth")
    assert _names(folder / masks) == ["chip/a_mask.png"]


def test_what_cannot_be_read_is_named_and_the_rest_is_found(folder, monkeypatch):
    _file(folder / "a.png")
    _file(folder / "locked" / "b.png")
    os.mkfifo(folder / "pipe.png")
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = walk.walk(folder)
    assert found.images == (str(folder / "a.png"),)
    assert "neither a file nor a folder: pipe.png" in found.notes()[0]
    assert "locked (Permission denied)" in found.notes()[1]
    # A table of predictions lists them with what is wrong.
    assert inputs.expand([str(folder)]) == [str(folder / name) for name in ("a.png", "pipe.png", "locked")]


def test_predict_takes_linked_images_and_lists_the_links_that_lead_nowhere(folder, tmp_path):
    _file(tmp_path / "store" / "a.png")
    _file(folder / ".ipynb_checkpoints" / "a.png")
    (folder / "day").symlink_to(tmp_path / "store")
    (folder / "gone.png").symlink_to("nowhere")
    said = []
    assert inputs.expand([str(folder)], said.append) == [str(folder / "day" / "a.png"), str(folder / "gone.png")]
    assert len(said) == 2


def test_a_watched_folder_takes_the_same_files_and_says_what_it_leaves_out_once(folder, tmp_path, capsys):
    _file(tmp_path / "store" / "a.png")
    (folder / "day").symlink_to(tmp_path / "store")
    _file(folder / "._b.png")
    box = DropBox(str(folder), name=str)
    box.look(())
    assert box.look(()) == [str(folder / "day" / "a.png")]
    _file(folder / "._c.png")
    box.look(())
    assert capsys.readouterr().out.count("left out") == 1
    folder.rename(tmp_path / "away")
    assert box.look(()) == []
    assert "cannot be read" in capsys.readouterr().out
