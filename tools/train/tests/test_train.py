"""Fast checks of what the daemon relies on; none needs data or a trained checkpoint."""

import hashlib
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from train import colour, compose, distil, evaluate, export, language, losses, phrases, restore, samples, spec, targets, teacher, vision, vocab, wild  # noqa: E402
from train.render import cast, pen  # noqa: E402


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    return [cast.draw(rng, kind, 100) for kind in cast.WEIGHTS for _ in range(2)]


def test_exported_graphs_say_what_torch_says(tmp_path):
    torch.manual_seed(0)
    model = export.new_model()
    torch.nn.init.normal_(model.vision.proposals.head.weight, std=0.4)  # untrained scores tie, and ties may fall either way
    differences = export.export(model, tmp_path, "test")
    assert max(differences.values()) < export.TOLERANCE
    manifest = tomllib.loads((tmp_path / "model.toml").read_text())
    for entry in manifest["files"]:
        content = (tmp_path / entry["path"]).read_bytes()
        assert len(content) == entry["bytes"]
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]


class Noise:
    """Stands in for a sampler: pictures without data."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def scene(self):
        small = self.rng.integers(0, 256, (9, 16, 3), dtype=np.uint8)
        return samples.Frame(np.kron(small, np.ones((32, 32, 1), np.uint8)), *[None] * 7, trusted=False)


def test_what_was_exported_is_restored_and_its_norms_learn_from_where_it_was(tmp_path):
    torch.manual_seed(1)
    model = export.new_model().eval()
    restore.scramble(model)
    export.export_graphs(model, tmp_path)
    again = restore.shipped(tmp_path)
    again.eval()
    for name, value in model.state_dict().items():
        if not name.startswith(("vision.encoder", "vision.proposals.tower", "region_")):  # norms are folded; those two are not exported
            assert torch.allclose(value, again.state_dict()[name], atol=1e-6), name
    pixels = torch.from_numpy(np.stack([Noise(2).scene().image]))
    with torch.no_grad():
        for a, b in zip(model.vision.encode(pixels)[1], again.vision.encode(pixels)[1]):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)
        before = again.vision.encode(pixels)[1]
        restore.settle(again.vision, distil.sampled(Noise(3), 1))
        after = again.vision.encode(pixels)[1]
    assert again.vision.encoder.stem[0][1].running_var.std() > 0
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(before, after))


def test_evening_out_the_maps_changes_no_answer():
    torch.manual_seed(2)
    model = export.new_model().vision
    restore.scramble(model)
    model.eval()
    pixels = torch.from_numpy(np.stack([Noise(4).scene().image]))
    with torch.no_grad():
        maps = model.encode(pixels)[1]
        before = model.proposals(maps)
        distil.even_out(model, Noise(5))
        evened = model.encode(pixels)[1]
        after = model.proposals(evened)
    assert not torch.allclose(maps[0], evened[0])
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(before, after))


def test_a_layer_is_found_from_what_it_did():
    torch.manual_seed(3)
    x, layer = torch.randn(200, 6) + 2, torch.nn.Linear(6, 3)
    weight, bias = restore.least_squares(x, layer(x).detach(), ridge=1e-9)
    assert torch.allclose(weight, layer.weight, atol=1e-4) and torch.allclose(bias, layer.bias, atol=1e-4)


def test_half_a_person_within_a_person_is_ignored_and_neighbours_are_not():
    person, half, beside, bag = [0, 0, 20, 60, 0], [2, 0, 18, 25, 0], [15, 0, 35, 60, 0], [5, 20, 12, 30, 11]
    kept, ignored = teacher.whole([person, half, beside, bag], [])
    assert kept == [person, beside, bag] and ignored == [half[:4]]


def test_a_lesson_seen_in_a_mirror_has_its_boxes_on_the_other_side():
    centres = torch.from_numpy(targets.CENTRES)
    sample = {"pixels": torch.zeros(spec.HEIGHT, spec.WIDTH, 3), "scores": torch.rand(spec.CELLS, 2), "hints": [torch.rand(4, 36, 64)],
              "boxes": torch.cat([centres - 3, centres + 5], 1), "judged": torch.rand(spec.CELLS) > 0.5}
    seen = distil.mirrored(sample)
    assert torch.equal(seen["boxes"], torch.cat([centres - torch.tensor([5, 3]), centres + torch.tensor([3, 5])], 1))
    assert not torch.equal(seen["scores"], sample["scores"])
    assert torch.equal(distil.mirrored(seen)["scores"], sample["scores"])


def test_labels_correct_what_the_teacher_says():
    frame = samples.Frame(None, np.array([[100, 100, 140, 180]], np.float32), np.array([vocab.CLASS["person"]]), None, None,
                          np.zeros((0, 4), np.float32), {vocab.CLASS["person"]}, None)
    scores, boxes = np.zeros((spec.CELLS, 20), np.float32), np.zeros((spec.CELLS, 4), np.float32)
    scores[7, 0], boxes[7] = 0.5, [98, 104, 141, 176]      # seen, roughly
    scores[9, 0], boxes[9] = 0.6, [300, 100, 340, 180]     # not there
    scores, boxes, judged = distil.merge(frame, scores, boxes)
    assert scores[7, 0] == pytest.approx(0.7) and boxes[7].tolist() == [100, 100, 140, 180]
    assert scores[9, 0] == pytest.approx(0.6 * distil.DENIED) and judged.all()


def test_a_mixture_fills_the_canvas_and_the_teacher_is_not_corrected_about_it():
    rng = np.random.default_rng(4)
    picture, boxes = Noise(5).scene().image, np.array([[100.0, 50.0, 200.0, 150.0]])
    seen = np.stack([wild.mixture(lambda: (picture, boxes), rng) for _ in range(20)])
    assert seen.shape == (20, spec.HEIGHT, spec.WIDTH, 3) and seen.dtype == np.uint8
    assert (seen.std((1, 2, 3)) > 5).all() and len({s.tobytes() for s in seen}) == 20
    scores, where = rng.random((spec.CELLS, 5)).astype(np.float32), rng.random((spec.CELLS, 4)).astype(np.float32)
    kept, kept_boxes, judged = distil.merge(samples.Frame.bare(seen[0], ()), scores.copy(), where.copy())
    assert (kept == scores).all() and (kept_boxes == where).all() and judged.all()


def test_what_is_too_small_to_see_is_neither_asked_for_nor_the_smallest():
    boxes = np.array([[10, 10, 15, 16], [50, 50, 90, 120], [200, 50, 260, 150]], np.float32)
    scene = phrases.Scene(boxes, np.zeros(3, int), np.full((3, 3), -1), np.zeros((3, 3, 11), np.float32),
                          set(range(len(vocab.CLASSES))), False, np.zeros(3, bool))
    for query in phrases.Writer(scene, np.random.default_rng(0)).write(40):
        assert query.states[0] != 1, query.text


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
        called = 0
        for _ in range(20):
            patch = np.full((8, 8, 3), pen.paint(rng, name), np.uint8)
            seen = colour.shares(patch)
            called += bool(seen[vocab.COLOUR[name]] > 0.5)
            others = {vocab.COLOURS[i] for i in np.flatnonzero(seen > 0.5)} - {name}
            assert others <= {{"pink": "red", "red": "pink"}.get(name, "")}, (name, patch[0, 0], others)
        # The darkest shades of some, brown above all, are too dull to be called anything.
        assert called >= 15, (name, called)


def test_an_object_is_learned_on_the_map_of_its_size_and_ignored_cells_are_left_out():
    boxes = np.array([[100, 100, 130, 150], [200, 20, 420, 270]], np.float32)
    strength, owner = targets.assign(boxes)
    for i, stride in ((0, 8), (1, 64)):
        mine = owner == i
        assert mine.any() and set(targets.STRIDE[mine]) == {stride} and strength[mine].max() > 0.45
    inside = targets.unjudged(np.array([[300, 100, 360, 160]], np.float32))
    assert inside.any() and (targets.CENTRES[inside] >= [300, 100]).all() and (targets.CENTRES[inside] <= [360, 160]).all()


def test_overlapping_candidates_give_way_to_the_better_one_that_stays():
    # The third is covered by the second alone, which gives way to the first.
    boxes = torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.13, 0.1, 0.33, 0.3], [0.17, 0.1, 0.37, 0.3], [0.6, 0.6, 0.8, 0.8]])
    cells, places = torch.zeros(2, spec.CELLS), torch.zeros(2, 4, spec.CELLS)
    for cell, score, box in zip((700, 10, 30, 1900), (0.9, 0.5, 0.45, 0.4), boxes):
        cells[1, cell], places[1, :, cell] = score, box
    found, where, score = vision.choose(cells, places)
    assert found[1, :3].tolist() == [700, 30, 1900] and score[1, 3:].max() == 0 and score[0].max() == 0
    assert torch.equal(where[1, :3], boxes[[0, 2, 3]])


def test_what_is_written_step_by_step_is_what_is_written_at_once():
    torch.manual_seed(0)
    write = export.new_model().write.eval()
    states, shown, tokens = torch.randn(2, 5, spec.DIM), torch.rand(2, 5), torch.randint(1, 15, (2, 9))
    past = torch.zeros(2, 2 * language.WRITE_LAYERS, spec.HEADS, 0, spec.DIM // spec.HEADS)
    whole, _ = write(states, shown, tokens, past)
    for i in range(9):
        step, past = write(states, shown, tokens[:, i:i + 1], past)
        assert torch.allclose(step[:, 0], whole[:, i], atol=1e-5)


def test_a_sentence_lists_boxes_from_left_to_right():
    line = losses.sentence([[0.5, 0.25, 0.75, 1.0], [0.1, 0.2, 0.3, 0.4]], digits=True)
    words = [spec.ANSWERS[t] for t in line]
    assert words[0] == "<coords>" and words[-1] == "<end>" and words.count("<box>") == 2
    assert "".join(words[2:14]) == "100200300400" and "".join(words[15:27]) == "500250750999"
    bins = [spec.ANSWERS[t] for t in losses.sentence([[0.5, 0.25, 0.75, 1.0]], digits=False)]
    assert bins[2:6] == ["<bin_128>", "<bin_64>", "<bin_192>", "<bin_255>"]


def test_every_phrase_of_a_drawn_scene_is_known_and_consistent(pool):
    rng = np.random.default_rng(1)
    for _ in range(30):
        frame = compose.drawn_scene(pool, rng, samples.Frame)
        for query in samples.queries(frame, rng, 6):
            assert spec.UNK not in query.ids, query.text
            assert (query.none == 0) == bool((query.states == 1).any())
            assert query.kind != "superlative" or (query.states == 1).sum() == 1


def scene_of(kinds, boxes, absent=(), doubt=True):
    n = len(kinds)
    return phrases.Scene(
        np.array(boxes, np.float32), np.array([vocab.CLASS[k] for k in kinds]), np.full((n, 3), -1), np.zeros((n, 3, 11), np.float32),
        set() if doubt else set(range(len(vocab.CLASSES))), doubt, np.zeros(n, bool), absent={vocab.CLASS[k] for k in absent})


def test_nobody_stands_beside_what_is_not_there():
    scene = scene_of(["person", "person"], [[10, 10, 40, 90], [200, 20, 230, 99]], absent=["car", "boat"])
    rng, found = np.random.default_rng(2), set()
    for query in phrases.Writer(scene, rng).write(400):
        named = {word for word in ("car", "boat", "dog") if word in query.text}
        assert "dog" not in named  # it may be there
        if named:
            assert query.none == 1 and query.kind == "absent" and not query.states.any(), query.text
            found |= {"person" in query.text}
    assert found == {False, True}


def test_a_real_car_may_be_a_van_and_is_never_called_absent_as_one():
    scene = scene_of(["car", "person"], [[10, 10, 90, 60], [200, 20, 230, 99]], absent=["van", "bus"])
    texts = [q.text for q in phrases.Writer(scene, np.random.default_rng(3)).write(400) if q.none == 1]
    assert any("bus" in text for text in texts) and not any("van" in text for text in texts)


def test_any_of_several_cars_will_do_to_stand_next_to():
    people = [[150, 10, 180, 90], [300, 10, 330, 90], [20, 10, 50, 90]]
    scene = scene_of(["person"] * 3 + ["car"] * 2, people + [[190, 30, 260, 80], [400, 30, 480, 80]], doubt=False)
    said = [q for q in phrases.Writer(scene, np.random.default_rng(4)).write(300) if "person" in q.text.split("next to")[0] and "next to a car" in q.text]
    assert said and all(q.states[:3].tolist() == [1, -1, 0] or q.states[:3].tolist() == [1, 1, 0] for q in said), [q.states for q in said]


def test_a_loose_box_beside_a_good_one_stands_for_nothing():
    boxes = torch.tensor([[[0.1, 0.1, 0.3, 0.5], [0.14, 0.1, 0.38, 0.5], [0.6, 0.6, 0.8, 0.9], [0.1, 0.1, 0.32, 0.52]]])
    truth = torch.tensor([[[0.1, 0.1, 0.3, 0.5], [0.6, 0.6, 0.77, 0.93]]])
    _, state = losses.assign(boxes, {"truth": truth, "ignored": torch.zeros(1, 1, 4)})
    assert state.tolist() == [[1, 0, 1, 1]]


def test_wrong_colour_is_declared_absent(pool):
    scene = phrases.Scene(
        np.array([[10, 10, 90, 60]], np.float32), np.array([vocab.CLASS["car"]]), np.array([[vocab.COLOUR["red"], -1, -1]]),
        np.zeros((1, 3, 11), np.float32), set(range(len(vocab.CLASSES))), False, np.ones(1, bool))
    assert (phrases.coloured(scene, vocab.COLOUR["blue"], 0) == 0).all()
    assert (phrases.coloured(scene, vocab.COLOUR["red"], 0) == 1).all()


@pytest.mark.parametrize("shape", [(spec.WIDTH, spec.HEIGHT), *spec.SHAPES])
def test_cells_know_where_they_lie_on_every_canvas(shape):
    maps = [torch.rand(2, 1, -(-shape[1] // s), -(-shape[0] // s)) for s in spec.STRIDES]
    centres, strides = vision.cells(maps)
    assert centres.amax(1).tolist() <= [shape[0] + 32, shape[1] + 32] and vision.canvas(maps).tolist() == list(shape)
    assert centres[:, 1].tolist() == [12.0, 4.0] and strides.unique().tolist() == list(spec.STRIDES)


def test_a_square_canvas_lies_in_the_middle_of_the_frame_and_boxes_come_back():
    maps = [torch.zeros(1, 1, 384 // s, 384 // s) for s in spec.STRIDES]
    assert vision.on_frame(torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]), maps)[0, 0].tolist() == [0.21875, 0.0, 0.78125, 1.0]
    frame = samples.Frame.bare(np.zeros((300, 400, 3), np.uint8), [])
    frame.boxes = np.array([[40.0, 30.0, 200.0, 150.0]], np.float32)
    frame.classes, frame.colours, frame.shares, frame.drawn = np.zeros(1, int), np.zeros((1, 3), int), np.zeros((1, 3, 11)), np.zeros(1, bool)
    evaluate.letterboxed(frame, np.random.default_rng(0))
    assert frame.image.shape == (320, 448, 3)
    left, top, iw, ih = evaluate.inside((400, 300), (448, 320))
    on_canvas = np.array([[left + iw * 0.1, top + ih * 0.1, left + iw * 0.5, top + ih * 0.5]])
    maps = [torch.zeros(1, 1, -(-320 // s), -(-448 // s)) for s in spec.STRIDES]
    on_frame = vision.on_frame(torch.tensor(on_canvas / [448, 320, 448, 320], dtype=torch.float32)[None], maps)[0].numpy()
    assert np.abs(evaluate.on_usual(on_frame, frame.view) - frame.boxes).max() < 0.6
