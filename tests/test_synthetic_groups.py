"""The procedural world in the layout of MeViS: every sentence checked against the pixels."""

import collections
import json
import re

import numpy as np
import pytest
import test_synthetic as parsing

from datasets import build
from sgmg_jax import synthetic
from sgmg_jax.data import records
from sgmg_jax.synthetic import __main__ as command
from sgmg_jax.synthetic import groups
from sgmg_jax.synthetic.words import HELD_OUT

MOVING = re.compile(r' (?:moving|that moves?|going) (left|right|up|down)$')
STANDING = re.compile(r' (?:standing still|that stands? still|that do(?:es)? not move)$')
NUMBERS = {'two': 2, 'three': 3, 'four': 4}


@pytest.fixture(scope='module')
def clips():
    """Videos and their sentences."""
    videos = [synthetic.make_video(seed, unseen=seed % 4 == 3) for seed in range(60)]
    return [
        (video, groups.group_expressions(np.random.default_rng(seed), video.objects, video.expressions))
        for seed, video in enumerate(videos)
    ]


def said(text):
    """Attributes, motion, and the number of objects: None if the sentence speaks of one."""
    found = MOVING.search(text) or STANDING.search(text)
    motion = None if not found else found[1] if found.re is MOVING else 'still'
    words = (text[: found.start()] if found else text).split()
    plural = re.fullmatch('(circle|square|triangle|star|cross|ring|one)e?s', words[-1])
    number = None
    if plural and words[-1] != 'cross':
        words[-1] = plural[1]
        number = NUMBERS.get(words[1], 0)
        words = [word for word in words if word not in NUMBERS]
    return parsing.attributes(' '.join(words)), motion, number


def true_of(video, named, motion):
    """Objects, by their masks; None if one of those that look so has no motion that a sentence could name."""
    found = parsing.matching(video, named)
    if motion is None:
        return found
    if any(video.objects[k - 1].motion == 'away and back' for k in found):
        return None
    measured = {k: parsing.measured_motion(video, k) or video.objects[k - 1].motion for k in found}
    return {k for k, m in measured.items() if m == motion}


def test_every_sentence_is_true_of_its_objects_and_no_others(clips):
    for video, sentences in clips:
        assert len({e.text for e in sentences}) == len(sentences)
        for e in sentences:
            if e.text in {single.text: single for single in video.expressions}:
                assert len(e.object_ids) == 1
                continue
            named, motion, number = said(e.text)
            assert true_of(video, named, motion) == set(e.object_ids), e
            assert len(e.object_ids) != 1 and (number is None) == (len(e.object_ids) == 0)
            assert number in (None, 0, len(e.object_ids))
            assert len(e.object_ids) < len(video.objects)


def test_an_object_comes_close_to_what_is_not_there(clips):
    for video, sentences in clips:
        for named, motion, _ in (said(e.text) for e in sentences if not e.object_ids):
            wrong = [
                sum(getattr(o, name) != value for name, value in named.items()) + (motion not in (None, o.motion))
                for o in video.objects
            ]
            assert min(wrong) == 1
            assert (named.get('colour'), named.get('shape')) not in HELD_OUT


def test_clips_have_sentences_of_one_of_several_and_of_none(clips):
    count = collections.Counter(min(len(e.object_ids), 2) for _, sentences in clips for e in sentences)
    assert min(count.values()) > 0.2 * sum(count.values())
    with_motion = [said(e.text)[1] is not None for _, sentences in clips for e in sentences if not e.object_ids]
    assert 0.4 < np.mean(with_motion) < 0.75


def test_the_layout_of_mevis_reads_back(tmp_path):
    """By python -m sgmg_jax.synthetic --layout=mevis, and python -m datasets.build mevis."""
    numbers = '--train=3', '--valid=2', '--seed=5', '--frames=5', '--size', '64', '80'
    assert command.main([f'--out={tmp_path / "raw"}', '--layout=mevis', *numbers]) == 0
    assert build.main(['mevis', f'--raw={tmp_path / "raw"}', f'--out={tmp_path / "records"}']) == 0
    folder = tmp_path / 'records' / 'mevis'
    kinds = set()
    for split, count in (('train', 3), ('valid_u', 2)):
        listed = json.loads((tmp_path / 'raw' / split / 'meta_expressions_v2.json').read_text())['videos']
        opened = records.open_records(folder, split)
        assert len(opened) == len(listed) == count
        for record in opened:
            entry = listed[record.video.name]
            unseen = split == 'valid_u' and entry['vid_id'] % 2 == 1
            video = synthetic.make_video(int(record.video.name, 16), 5, (64, 80), unseen)
            assert np.abs(record.decode_frames().astype(int) - video.frames).mean() < 6
            truth = record.decode_targets()
            for expression in record.video.expressions:
                ids = entry['expressions'][expression.id]['obj_id']
                assert expression.text == entry['expressions'][expression.id]['exp']
                np.testing.assert_array_equal(truth(expression), np.isin(video.masks, ids))
                kinds |= set(expression.tags)
    assert kinds == {'one_object', 'several_objects', 'no_target'}


def test_an_unknown_layout_is_refused(tmp_path):
    with pytest.raises(ValueError, match="layout = 'coco': must be one of ref_youtube_vos, mevis"):
        synthetic.write_dataset(tmp_path / 'raw', 1, 1, layout='coco')
    assert not (tmp_path / 'raw').exists()
