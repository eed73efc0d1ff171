"""Predictor: windows, padding in time, annotated frames; with a tiny model and seeded weights."""

import dataclasses

import golden_cases
import jax
import numpy as np
import pytest
import tokenizers

from sgmg_jax import systems, types
from sgmg_jax.convert import names as convert
from sgmg_jax.data import clips, text
from sgmg_jax.inference import segment
from sgmg_jax.inference.predictor import Predictor
from sgmg_jax.models import features
from sgmg_jax.ops import masks, queries, resize
from sgmg_jax.parity import cases

SENTENCES = ['the white goose', 'a person on the left']


@pytest.fixture(scope='module')
def parameters():
    shapes = golden_cases.official_shapes()
    ours = systems.parameter_shapes(golden_cases.TINY)
    return convert.from_official({n: cases.fill(n, s) for n, s in shapes.items()}, ours)


def encode(_, sentences, length, count=None):
    """Replaces data.text.encode: the tiny text encoder is too small for a real vocabulary."""
    rows = [[0, *(5 + ord(c) % 100 for c in sentence), 2][:length] for sentence in sentences]
    rows += [[]] * ((count or len(rows)) - len(rows))
    return types.Text(
        np.array([row + [1] * (length - len(row)) for row in rows], np.int32),
        np.array([[True] * len(row) + [False] * (length - len(row)) for row in rows]),
    )


def make_tokenizer(monkeypatch):
    monkeypatch.setattr(text, 'encode', encode)
    return tokenizers.Tokenizer(tokenizers.models.WordLevel({'<pad>': 1, 'highest': 104}, '<pad>'))


def make_predictor(parameters, monkeypatch, clip_frames, sentences=1):
    return Predictor(
        golden_cases.TINY,
        parameters,
        make_tokenizer(monkeypatch),
        short_side=132,
        max_side=None,
        clip_frames=clip_frames,
        text_length=20,
        sentences=sentences,
    )


def make_frames(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 132, 140, 3), dtype=np.uint8)


def bare_logits(parameters, frames, tokens, annotated=None):
    """The whole model on the clip without padding in time: logits [Q or 1, T, h, w], scores."""
    clip = segment.pad_clip(*clips.prepare_clip(frames, 132), golden_cases.TINY.conventions)
    clip = jax.tree.map(lambda x: x[:, : len(frames)] if x.ndim > 2 else x, clip)
    clip = dataclasses.replace(clip, annotated=annotated)

    def run(module):
        video = module.encode_video(clip)
        proposals = module.segment(video, module.encode_text(tokens))
        every = np.moveaxis(proposals.mask_logits[-1], 2, 0)
        return module.optimize(every, video)[:, 0], proposals.scores[-1], queries.best_query(proposals)

    logits, scores, query = jax.jit(lambda p: golden_cases.TINY.apply({'params': p}, method=run))(parameters)
    return np.asarray(logits)[..., :132, :140], np.asarray(scores), int(query[0, 0])


@pytest.mark.parametrize('length', [1, 9])
def test_padding_in_time_is_ignored(parameters, monkeypatch, length):
    predictor, frames = make_predictor(parameters, monkeypatch, 36), make_frames(length)
    tokens = text.encode(None, SENTENCES[:1], 20)
    logits, scores, query = bare_logits(parameters, frames, tokens)
    [(start, ask)] = predictor.windows(lambda window: frames[window.start : window.stop], length)
    assert start == 0
    answer = next(ask(SENTENCES))
    np.testing.assert_allclose(answer.logits, logits[query], atol=1e-4)
    np.testing.assert_allclose(answer.scores, 1 / (1 + np.exp(-scores[0, :, query])), atol=1e-5)


def test_long_videos_are_processed_in_windows(parameters, monkeypatch):
    """Only one window is read and computed at a time; windows are independent clips."""
    segment.programs.cache_clear()  # equal models share their programs
    predictor, frames, read = make_predictor(parameters, monkeypatch, 4), make_frames(10), []

    def reader(window):
        read.append(list(window))
        return frames[window.start : window.stop]

    whole = predictor(frames, SENTENCES)
    for start, ask in predictor.windows(reader, len(frames)):
        assert read[-1] == list(range(start, min(start + 4, 10)))
        for answer, found in zip(ask(SENTENCES), whole, strict=True):
            np.testing.assert_array_equal(answer.logits > 0, found[start : start + 4])
    assert [len(window) for window in read] == [4, 4, 2]
    np.testing.assert_array_equal(whole[:, 8:], predictor(list(frames[8:]), SENTENCES))
    assert predictor.programs.best_masks._cache_size() == 1  # all windows are padded to the same length


def test_a_stream_gives_the_same_masks_window_by_window(parameters, monkeypatch):
    predictor, frames, taken = make_predictor(parameters, monkeypatch, 4), make_frames(10), []
    whole = predictor(frames, SENTENCES)
    assert whole.any(axis=(1, 2, 3)).all()

    def one_by_one():
        for frame in frames:
            taken.append(len(frame))
            yield frame

    starts = []
    for window in predictor.stream(one_by_one(), SENTENCES):
        assert len(taken) == min(window.start + 4, 10)  # No frame is read before it is needed.
        starts.append(window.start)
        stop = window.start + len(window.frames)
        np.testing.assert_array_equal(window.frames, frames[window.start : stop])
        np.testing.assert_array_equal(window.masks, whole[:, window.start : stop])
        (_, ask), *_ = predictor.windows(lambda _, window=window: window.frames, len(window.frames))
        answers = list(ask(SENTENCES))
        np.testing.assert_array_equal(window.scores, [answer.scores for answer in answers])
        highest = np.stack([np.zeros(window.owner.shape), *(answer.logits for answer in answers)]).argmax(0)
        np.testing.assert_array_equal(window.owner, highest)
    assert starts == [0, 4, 8]


def test_sentences_below_the_threshold_have_empty_masks(parameters, monkeypatch):
    predictor, frames = make_predictor(parameters, monkeypatch, 36), make_frames(3)
    (window,) = predictor.stream(frames, SENTENCES)
    order = np.argsort(window.scores.mean(1))
    threshold = float(window.scores.mean(1).mean())
    (kept,) = predictor.stream(frames, SENTENCES, threshold)
    assert not kept.masks[order[0]].any() and not (kept.owner == order[0] + 1).any()
    np.testing.assert_array_equal(kept.masks[order[1]], window.masks[order[1]])
    np.testing.assert_array_equal(kept.scores, window.scores)
    whole = predictor(frames, SENTENCES)
    predictor.threshold = threshold
    above = (np.arange(len(whole)) != order[0])[:, None, None, None]
    np.testing.assert_array_equal(predictor(frames, SENTENCES), whole & above)


@pytest.mark.parametrize(
    'sentences, error, match',
    [
        ('a dog', TypeError, 'must be a list'),
        ([], TypeError, 'at least one'),
        (['a dog'] * 256, ValueError, 'at most 255'),
    ],
)
def test_a_stream_refuses_sentences_before_it_reads(parameters, monkeypatch, sentences, error, match):
    with pytest.raises(error, match=match):
        next(make_predictor(parameters, monkeypatch, 4).stream(iter([None]), sentences))


def test_sgmg_does_not_depend_on_how_sentences_are_grouped(parameters, monkeypatch):
    segment.programs.cache_clear()
    frames, asked = make_frames(2), [*SENTENCES, 'a dog on the right']
    one, three = (make_predictor(parameters, monkeypatch, 36, count) for count in (1, 3))
    (_, alone), (_, together) = (next(p.windows(lambda window: frames, 2)) for p in (one, three))
    for a, b in zip(alone(asked), together(asked), strict=True):
        np.testing.assert_allclose(a.logits, b.logits, atol=1e-5 * np.abs(a.logits).max())
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
    assert one.programs.best_masks._cache_size() == 2  # one sentence, and three padded to four
    assert [list(group) for group in segment.groups(range(5), 2)] == [[0], [1, 2], [3, 4]]
    assert segment.groups(asked, 3) == [asked]


def test_annotated_frame_returns_every_query(parameters, monkeypatch):
    predictor, frames = make_predictor(parameters, monkeypatch, 5), make_frames(7)
    tokens = text.encode(None, SENTENCES[1:], 20)
    indices = [0, 0, 0, 1, 2]  # around frame 0
    logits, scores, _ = bare_logits(parameters, frames[indices], tokens, np.array([0], np.int32))
    ours, found = predictor.annotated(lambda window: frames[window], 7, 0)(SENTENCES[1])
    np.testing.assert_allclose(ours, 1 / (1 + np.exp(-scores[0, 0])), atol=1e-5)
    assert found.shape == (5, 132, 140)
    certain = np.abs(logits[:, 0]) > 1e-4
    np.testing.assert_array_equal(found[certain], logits[:, 0][certain] > 0)


@pytest.fixture(scope='module')
def soc_weights():
    shapes = golden_cases.official_shapes('soc/manifest_soc_tiny')
    return convert.from_official(
        {
            name.replace(convert.SOC_ROBERTA, convert.ROBERTA): cases.fill(name, shape, spreads=cases.SOC_SPREADS)
            for name, shape in shapes.items()
        },
        systems.parameter_shapes(golden_cases.TINY_SOC),
    )


def soc_predictor(weights, monkeypatch, clip_frames):
    return Predictor(
        golden_cases.TINY_SOC,
        weights,
        make_tokenizer(monkeypatch),
        short_side=66,
        max_side=None,
        clip_frames=clip_frames,
        text_length=20,
    )


def test_soc_resizes_videos_and_pictures_as_released(soc_weights, monkeypatch):
    """Masks of a video are resized from stride 4 to the frame directly, those of a picture on the grid of the map."""
    predictor, frames = soc_predictor(soc_weights, monkeypatch, 1), make_frames(1)
    clip = segment.pad_clip(*clips.prepare_clip(frames, 66), golden_cases.TINY_SOC.conventions)
    assert clip.frames.shape == (1, 1, 66, 70, 3)
    tokens = text.encode(None, SENTENCES[:1], 20)

    def call(p):
        return golden_cases.TINY_SOC.apply({'params': p}, clip, tokens, queries.best_query)

    proposals, query, chosen = jax.jit(call)(soc_weights)
    (found,) = predictor(frames, SENTENCES[:1])
    np.testing.assert_array_equal(found, resize.bilinear(chosen.masks[0, 0, ..., None], (132, 140))[..., 0] > 0)

    _, every = predictor.annotated(lambda window: frames[window], 1, 0)(SENTENCES[0])
    logits = proposals.mask_logits[0, 0, 0, ..., 0]
    assert logits.shape == (7, 17, 18)
    np.testing.assert_array_equal(every, masks.binary_at(logits, (68, 72), (66, 70), (132, 140)))
    assert (every != masks.binary_at(logits, (66, 70), (66, 70), (132, 140))).any() and query.shape == (1, 1)


def test_soc_masks_lose_their_padding(soc_weights, monkeypatch):
    """A picture padded to share a program. What the model finds in it is a stand-in's here."""
    frames = make_frames(1)
    predictor = soc_predictor(soc_weights, monkeypatch, 1)
    predictor.short_side, predictor.max_side = 300, 310
    assert predictor.prepare(frames).frames.shape == (1, 1, 384, 384, 3)  # of 292x309
    empty, logits = np.zeros((1, 1, 1, 1, 1), np.float32), np.random.default_rng(0).normal(size=(3, 96, 96)).astype('f')
    predictor.programs = predictor.programs._replace(
        encode=lambda _, clip: features.VideoFeatures((), (), empty, empty, clip.size),
        best_masks=lambda *_: (np.ones((1, 1), np.float32), logits[None, :1]),
        every_mask=lambda *_: (np.ones(3, np.float32), logits),
    )
    (found,) = predictor(frames, SENTENCES[:1])
    real = logits[:, :73, :78]
    np.testing.assert_array_equal(found, resize.bilinear(real[:1, ..., None], (132, 140))[..., 0] > 0)
    _, every = predictor.annotated(lambda window: frames[window], 1, 0)(SENTENCES[0])
    np.testing.assert_array_equal(every, masks.binary_at(real, (292, 312), (292, 309), (132, 140)))


def test_soc_annotated_frame_as_released(soc_weights, monkeypatch):
    """It is the middle of its clip, and masks are made binary before they are resized to the frame."""
    weights, predictor, frames = soc_weights, soc_predictor(soc_weights, monkeypatch, 4), make_frames(3)
    scores, found = predictor.annotated(lambda window: frames[window], 3, 0)(SENTENCES[0])

    clip = segment.pad_clip(*clips.prepare_clip(frames[[0, 0, 0, 1]], 66), golden_cases.TINY_SOC.conventions)
    assert clip.frames.shape == (1, 8, 66, 70, 3)
    clip = dataclasses.replace(clip, annotated=np.array([2], np.int32))
    tokens = text.encode(None, SENTENCES[:1], 20)
    model = golden_cases.TINY_SOC
    proposals = jax.jit(lambda p: model.apply({'params': p}, clip, tokens, queries.best_query)[0])(weights)
    np.testing.assert_allclose(scores, jax.nn.sigmoid(proposals.scores[0, 0, 0]), atol=1e-5)
    logits = proposals.mask_logits[0, 0, 0, ..., 0]
    expected = np.asarray(masks.binary_at(logits, (66, 70), (66, 70), (132, 140)))
    assert found.shape == (7, 132, 140) and (found != expected).mean() < 1e-3
    np.testing.assert_array_equal(found[:, ::2, ::2], found[:, 1::2, 1::2])  # each pixel twice


@pytest.mark.parametrize(
    'frame, length, count, indices, position',
    [
        (4, 10, 5, [2, 3, 4, 5, 6], 2),
        (0, 10, 5, [0, 0, 0, 1, 2], 0),
        (9, 10, 5, [7, 8, 9, 9, 9], 2),
        (1, 10, 6, [0, 0, 0, 1, 2, 3], 3),
        (0, 1, 5, [0] * 5, 0),
        (3, 4, 1, [3], 0),
        (2, 10, 4, [0, 1, 2, 3], 2),
    ],
)
def test_window_around_an_annotated_frame(frame, length, count, indices, position):
    ours, where = clips.annotated_window(frame, length, count)
    assert ours.tolist() == indices and where == position
    assert clips.annotated_window(frame, length, count, middle=True)[1] == count // 2
