"""Training on sentences of several objects, and on those that refer to nothing (MeViS)."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
import raw_mevis

from datasets import build
from sgmg_jax import types
from sgmg_jax.data import augment, clips, metadata, pipeline, records, text
from sgmg_jax.losses import matching, sgmg, soc

ENOUGH = 12


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp('mevis')
    return records.open_records(build.build('mevis', raw_mevis.write(root / 'raw'), root / 'tfds'), 'train')


@pytest.fixture(scope='module')
def tokenizer():
    return text.train_tokenizer(raw_mevis.TEXTS, 300)


def take(source, tokenizer, **changes):
    settings = dict(
        num_frames=3,
        frame_size=(64, 96),
        text_length=24,
        batch_size=2,
        seed=7,
        augmentation=augment.Augmentation(scales=(48, 54), max_size=96, crop_probability=0.0),
    )
    batches = pipeline.train_batches(source, tokenizer, **settings | changes)
    try:
        return list(itertools.islice(batches, ENOUGH))
    finally:
        batches.close()


def sentences_of(batch, tokenizer):
    return [tokenizer.decode(row.tolist()).strip() for row in batch.text.tokens]


def test_every_sentence_has_clips(source):
    index = clips.training_index(source.videos, 3)
    assert {(video, expression) for video, expression, _ in index.tolist()} == {
        (number, position) for number, video in enumerate(source.videos) for position in range(len(video.expressions))
    }
    hidden = [dataclasses.replace(video, has_masks=False) for video in source.videos]
    with pytest.raises(ValueError, match='expression 0: has no ground truth to train on'):
        clips.training_index(hidden, 3)


def test_targets_are_unions(source):
    for record in source:
        video = record.video
        indices = np.arange(len(video.frame_names))[::-1]
        sample = pipeline.load_sample(record, video.expressions, indices, 0)
        wanted = [raw_mevis.union(video.name, group)[indices] for group in raw_mevis.groups(video.name)]
        np.testing.assert_array_equal(sample.masks, np.concatenate(wanted))
        assert sample.untargeted == (False, False, False, True)
        boxes = sample.boxes.reshape(4, -1, 4)
        for mask, box in zip(wanted[1], boxes[1]):  # around all objects together
            rows, columns = np.nonzero(mask)
            assert box.tolist() == ([columns.min(), rows.min(), columns.max(), rows.max()] if len(rows) else [0] * 4)


def test_sentences_without_target_are_trained_as_absent(source, tokenizer):
    found = []
    for batch in take(source, tokenizer):
        for sentence, *targets in zip(
            sentences_of(batch, tokenizer), batch.targets.present, batch.targets.masks, batch.targets.boxes
        ):
            nothing = sentence == raw_mevis.TEXTS[3].lower()
            found.append(nothing)
            assert not any(x.any() for x in targets) if nothing else targets[0].any() and targets[1].any()
        assert batch.targets.asked.all()
    assert 0 < sum(found) < len(found)


def test_a_data_set_without_any_target_does_not_hang(source, tokenizer, monkeypatch):
    monkeypatch.setattr(pipeline, 'MAX_DRAWS', 1)
    bare = source.first(2)
    bare.videos = tuple(dataclasses.replace(video, expressions=video.expressions[3:]) for video in source.videos)
    for batch in take(bare, tokenizer):
        assert batch.targets.asked.all() and not batch.targets.present.any()


def test_several_sentences_of_a_clip(source, tokenizer):
    """Those without target stay beside the others, and alone."""
    seen = set()
    for batch in take(source, tokenizer, sentences=4, batch_size=1):
        asked = batch.targets.asked
        texts = [sentence for sentence, real in zip(sentences_of(batch, tokenizer), asked) if real]
        seen.add((raw_mevis.TEXTS[3].lower() in texts, len(texts) > 1))
        for sentence, present in zip(texts, batch.targets.present):
            assert present.any() == (sentence != raw_mevis.TEXTS[3].lower())
    assert (True, True) in seen


def test_one_sentence_per_group_of_objects(source):
    expressions = source.videos[0].expressions
    assert [e.objects for e in expressions] == [(2,), (2, 3), (1, 2, 3), ()]
    again = (*expressions, metadata.Expression('9', 'the cat and the bird', 0, (), (2, 3)))
    lengths = set()
    for seed in range(40):
        drawn = pipeline.choose_sentences(again, np.random.default_rng(seed), 9)
        objects = [e.objects for e in drawn]
        lengths.add((len(drawn), len(set(objects))))
    assert (4, 4) in lengths and (5, 4) in lengths


def test_losses_push_every_score_down():
    """Finite, and no query is taken for the object."""
    rng = np.random.default_rng(0)
    lead = 2, 2, 3, 5
    targets = types.Targets(
        np.zeros((2, 3, 16, 32), bool),
        np.zeros((2, 3, 4), np.float32),
        np.zeros((2, 3), bool),
        np.full((2, 2), (16, 32)),
        np.ones(2, bool),
    )
    scores, boxes = rng.standard_normal(lead, dtype=np.float32), rng.random((*lead, 4), dtype=np.float32)
    predictions = types.Predictions(
        np.zeros((2, 2, 3), np.float32), np.full((2, 2, 3, 4), 0.5, np.float32), np.zeros((2, 2, 3, 16, 32), np.float32)
    )

    def of_sgmg(scores):
        proposals = types.Proposals(scores, boxes, np.zeros((*lead, 2, 4, 16), np.float32))
        return sgmg.loss((proposals, matching.match(proposals, targets), predictions), targets)

    def of_soc(scores):
        proposals = types.Proposals(
            scores, boxes, np.zeros((*lead, 4, 8, 1), np.float32), rng.standard_normal((2, 2, 5), dtype=np.float32)
        )
        return soc.loss((proposals, soc.match(proposals, targets), None), targets)

    for loss in (of_sgmg, of_soc):
        (total, named), slope = jax.value_and_grad(loss, has_aux=True)(scores)
        assert np.isfinite(total) and all(np.isfinite(x) for x in named.values())
        assert (np.asarray(slope) > 0).all()
