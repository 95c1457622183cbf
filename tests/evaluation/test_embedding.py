"""Pictures of an embedding, and the same points for TensorBoard's projector."""

import json

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import embedding
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.report import embedding_pictures
from mvtec_tf.evaluation.report.judge import Extras, judge
from mvtec_tf.evaluation.table import Predictions, Row


def _table(count=40, categories=("bottle", "screw"), defects=2):
    return Predictions.from_rows(
        Row(
            f"{categories[i % len(categories)]}/test/{i}.png",
            categories[i % len(categories)],
            f"crack {i % defects}" if i // 2 % 2 else "good",
            i // 2 % 2,
            "evaluate",
            float(i),
        )
        for i in range(count)
    )


def _features(table, rng=None, width=12):
    """Clusters by category, and within them by label."""
    rng = rng or np.random.default_rng(0)
    noise = rng.normal(size=(len(table), width))
    noise[:, :6] += 20 * (table.category == table.category[0])[:, None]
    noise[:, 6:8] += 8 * table.label[:, None]
    return noise.astype(np.float32)


def test_principal_components_are_those_of_a_singular_value_decomposition():
    table = _table()
    features = _features(table) * np.geomspace(1, 1000, 12, dtype=np.float32)
    points = embedding.reduce(table, features, tsne=False)
    scaled = (features - features.mean(0)) / features.std(0)
    u, s, _ = np.linalg.svd(scaled, full_matrices=False)
    np.testing.assert_allclose(np.abs(points.components), np.abs(u * s), atol=1e-3)
    np.testing.assert_allclose(points.explained, s**2 / (s**2).sum(), rtol=1e-4)
    distances = np.linalg.norm(scaled[:, None] - scaled[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(points.neighbour, distances.argmin(1))


def test_t_sne_keeps_neighbours_together_and_a_seed_repeats_it():
    table = _table(60)
    features = _features(table)
    first, second = (embedding.reduce(table, features, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first.tsne, second.tsne)
    distances = np.linalg.norm(first.tsne[:, None] - first.tsne[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert np.mean(table.category[distances.argmin(1)] == table.category) > 0.95


def test_of_very_many_images_a_sample_is_shown_and_the_caption_says_so(monkeypatch):
    monkeypatch.setattr(embedding, "MOST_POINTS", 25)
    table = _table(60)
    points = embedding.reduce(table, _features(table), tsne=False, seed=3)
    assert (len(points.table), points.of) == (25, 60)
    again = embedding.reduce(table, _features(table), tsne=False, seed=3)
    assert points.table.path.tolist() == again.table.path.tolist()
    other = embedding.reduce(table, _features(table), tsne=False, seed=4)
    assert points.table.path.tolist() != other.table.path.tolist()
    section = embedding_pictures.section(points)
    assert all("25 of the 60 evaluated images, sampled with seed 3" in one.caption for one in section.pictures)
    assert (section.document["images"], section.document["of"]) == (25, 60)


def test_agreement_of_neighbours_is_told_beside_chance():
    table = _table(40)
    points = embedding.reduce(table, _features(table), tsne=False)
    found = embedding_pictures.section(points).document["nearest_neighbour_agrees"]
    assert found["category"] == {"value": 1.0, "at_random": pytest.approx(2 * 20 * 19 / (40 * 39))}
    assert set(found) == {"label", "category", "defect"}


def test_one_category_is_not_coloured_by_category_and_missing_t_sne_is_remarked():
    table = _table(20, categories=("bottle",))
    section = embedding_pictures.section(embedding.reduce(table, _features(table), tsne=False))
    assert [one.kind for one in section.pictures] == ["pca_label", "pca_defect"]
    assert any("only one" in note for note in section.notes)
    assert any("not asked for" in note for note in section.notes)


def test_of_very_many_kinds_the_rarest_share_a_colour():
    table = _table(200, defects=37)
    section = embedding_pictures.section(embedding.reduce(table, _features(table), tsne=False))
    caption = next(one.caption for one in section.pictures if one.kind == "pca_defect")
    assert "rarest kinds are drawn as one" in caption


@pytest.mark.parametrize("case", ["few", "equal"])
def test_too_few_or_equal_points_are_said_instead_of_drawn(tmp_path, case):
    table = _table(7 if case == "few" else 20)
    features = np.ones((len(table), 4), np.float32) if case == "equal" else _features(table)
    with pytest.raises(embedding.TooFewPointsError):
        embedding.reduce(table, features)
    document = judge(table, tmp_path, 3.0, extras=Extras(features=features, projector=tmp_path / "projector"))
    assert document["embedding"] is None
    assert "No picture of the embedding" in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "projector").exists()


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.filterwarnings("error")
def test_an_embedding_of_hardly_any_dimension_can_be_drawn(width):
    table = _table(20)
    features = np.arange(20.0)[:, None] * np.ones((1, width))
    points = embedding.reduce(table, features.astype(np.float32), tsne=width == 1)
    assert len(embedding_pictures.section(points).pictures) == (6 if width == 1 else 3)


def test_features_are_read_back_by_path_in_the_order_of_the_table(tmp_path):
    table = _table(10)
    features = _features(table)
    file = tmp_path / "embedding.npz"
    order = np.random.default_rng(0).permutation(10)
    paths = [f"./{table.path[i]}" for i in order]
    embedding.write(file, [*paths, "other.png"], np.vstack([features[order], features[:1]]))
    np.testing.assert_array_equal(embedding.read(file, table), features)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (None, "found nothing"),
        ({"x": np.zeros(3)}, "found the arrays x"),
        ({"paths": np.array(["a"]), "features": np.zeros((2, 3), np.float32)}, r"Found \(1,\) and \(2, 3\)"),
        ({"paths": np.array(["a"]), "features": np.zeros((1, 3), int)}, "int64"),
        ({"paths": np.array(["a"]), "features": np.zeros((1, 3), np.float32)}, "10 of the 10 evaluated images"),
    ],
)
def test_a_features_file_that_is_none_is_refused(tmp_path, arrays, message):
    file = tmp_path / "embedding.npz"
    if arrays is not None:
        np.savez(file, **arrays)
    with pytest.raises(UserError, match=message):
        embedding.read(file, _table(10))


def test_nan_features_and_files_that_are_no_archive_are_refused(tmp_path):
    table = _table(10)
    embedding.write(tmp_path / "nan.npz", table.path.tolist(), np.full((10, 2), np.nan))
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    for name, message in (("nan", "NaN"), ("text", "not an .npz"), ("array", "not an .npz")):
        with pytest.raises(UserError, match=message):
            embedding.read(tmp_path / f"{name}.npz", table)


@pytest.fixture
def images(tmp_path):
    """A file for each row: the number of the row as its grey value."""
    table = _table(11)
    files = {}
    for i, path in enumerate(table.path):
        file = tmp_path / f"{i}.png"
        Image.new("RGB", (30 + i, 20), (i * 20,) * 3).save(file)
        files[path] = ImageFiles(str(file))
    return table, files


def test_the_projector_gets_tensors_metadata_and_thumbnails_in_one_order(tmp_path, images):
    table, files = images
    points = embedding.reduce(table, _features(table))
    folder = tmp_path / "tensorboard"
    embedding_pictures.write_projector(folder, points, files)
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    assert [one.tensor_name for one in config.embeddings] == ["embedding", "t-SNE"]
    for one, values in zip(config.embeddings, (points.components, points.tsne), strict=True):
        np.testing.assert_allclose(np.loadtxt(folder / one.tensor_path, delimiter="\t"), values, rtol=1e-4, atol=1e-4)
        lines = (folder / one.metadata_path).read_text().splitlines()
        assert lines[0].split("\t") == ["path", "label", "category", "defect", "score"]
        assert [line.split("\t")[0] for line in lines[1:]] == table.path.tolist()
        side = one.sprite.single_image_dim[0]
        sheet = np.asarray(Image.open(folder / one.sprite.image_path).convert("L"))
        assert sheet.shape == (4 * side, 4 * side)
        for i in range(11):
            centre = sheet[(i // 4) * side + side // 2, (i % 4) * side + side // 2]
            assert abs(int(centre) - i * 20) < 6
    # TensorBoard looks into folders with an event file only.
    assert EventAccumulator(str(folder)).Reload().Tags()["scalars"] == []


def test_without_images_the_projector_has_no_thumbnails(tmp_path, images):
    table, files = images
    points = embedding.reduce(table, _features(table), tsne=False)
    for given in (files, {}):
        embedding_pictures.write_projector(tmp_path, points, given)
    config = text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), ProjectorConfig())
    assert not config.embeddings[0].sprite.image_path
    assert not (tmp_path / "projector" / "sprite.jpg").exists()
    assert not (tmp_path / "projector" / "tsne.tsv").exists()


def test_names_with_tabulators_do_not_shift_the_metadata(tmp_path):
    table = _table(10, categories=("a\tb",))
    points = embedding.reduce(table, _features(table), tsne=False)
    embedding_pictures.write_projector(tmp_path, points, {})
    assert {line.count("\t") for line in (tmp_path / "projector" / "metadata.tsv").read_text().splitlines()} == {4}


def test_the_thumbnails_of_the_most_points_fit_into_one_texture(monkeypatch, tmp_path, images):
    table, files = images
    monkeypatch.setattr(embedding_pictures, "_MOST_SPRITE_PIXELS", 100)
    embedding_pictures.write_projector(tmp_path / "p", embedding.reduce(table, _features(table), tsne=False), files)
    assert Image.open(tmp_path / "p" / "projector" / "sprite.jpg").size == (100, 100)


def test_the_document_can_be_written_as_json():
    table = _table()
    json.dumps(embedding_pictures.section(embedding.reduce(table, _features(table), tsne=False)).document)
