"""Fast checks of what the daemon relies on; none needs data or a trained checkpoint."""

import hashlib
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from train import colour, compose, export, phrases, samples, spec, targets, vocab  # noqa: E402
from train.render import cast, pen  # noqa: E402


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    return [cast.draw(rng, kind, 100) for kind in cast.WEIGHTS for _ in range(2)]


def test_exported_graphs_say_what_torch_says(tmp_path):
    torch.manual_seed(0)
    differences = export.export(export.new_model(), tmp_path, "test")
    assert max(differences.values()) < export.TOLERANCE
    manifest = tomllib.loads((tmp_path / "model.toml").read_text())
    for entry in manifest["files"]:
        content = (tmp_path / entry["path"]).read_bytes()
        assert len(content) == entry["bytes"]
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]


def test_empty_slots_do_not_change_the_answer():
    torch.manual_seed(0)
    select = export.new_model().select.eval()
    regions, boxes, text = torch.randn(1, 8, spec.DIM), torch.rand(1, 8, 4), torch.randn(1, 16, spec.DIM)
    objectness, ids = torch.full((1, 8), 0.6), torch.tensor([[5, 6] + [0] * 14])
    objectness[:, 5:] = 0
    before = select(regions, boxes, objectness, text, ids)[0][:, :5]
    regions[:, 5:] += 3.0
    after = select(regions, boxes, objectness, text, ids)[0][:, :5]
    assert torch.allclose(before, after, atol=1e-5)


def test_tokeniser_shares_ids_and_reports_unknown_words():
    assert vocab.tokenise("the Red CAR!")[:3] == vocab.tokenise("a red automobile")[:3]
    assert vocab.tokenise("zeppelin")[0] == spec.UNK
    assert len(vocab.tokenise("car " * 30)) == spec.TOKENS


def test_paints_are_called_by_their_name():
    rng = np.random.default_rng(0)
    for name in vocab.COLOURS:
        for _ in range(20):
            patch = np.full((8, 8, 3), pen.paint(rng, name), np.uint8)
            seen = colour.shares(patch)
            others = {vocab.COLOURS[i] for i in np.flatnonzero(seen > 0.5)} - {name}
            assert others <= {{"pink": "red", "red": "pink"}.get(name, "")}, (name, patch[0, 0], others)


def test_centres_are_hot_and_ignored_cells_are_left_out():
    boxes = np.array([[100, 100, 140, 180]], np.float32)
    ignored = np.array([[300, 100, 360, 160]], np.float32)
    heat, weight, owner = targets.dense(boxes, ignored)
    assert heat[17, 15] == 1 and owner[17, 15] == 0
    assert weight[16, 40] == 0 and weight[17, 15] == 1


def test_every_phrase_of_a_drawn_scene_is_known_and_consistent(pool):
    rng = np.random.default_rng(1)
    for _ in range(30):
        frame = compose.drawn_scene(pool, rng, samples.Frame)
        for query in samples.queries(frame, rng, 6):
            assert spec.UNK not in query.ids, query.text
            assert (query.none == 0) == bool((query.states == 1).any())
            assert query.kind != "superlative" or (query.states == 1).sum() == 1


def test_wrong_colour_is_declared_absent(pool):
    scene = phrases.Scene(
        np.array([[10, 10, 90, 60]], np.float32), np.array([vocab.CLASS["car"]]), np.array([[vocab.COLOUR["red"], -1, -1]]),
        np.zeros((1, 3, 11), np.float32), set(range(len(vocab.CLASSES))), False, np.ones(1, bool))
    assert (phrases.coloured(scene, vocab.COLOUR["blue"], 0) == 0).all()
    assert (phrases.coloured(scene, vocab.COLOUR["red"], 0) == 1).all()
