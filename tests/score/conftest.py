"""Ground truth that several files of tests share."""

import json

import numpy as np
import pytest
import raw_tree
from score_files import SIZE, make_record, png, write_index_maps
from submission_files import EXPECTED, masks_of

from sgmg_jax import score
from sgmg_jax.data import metadata, records
from sgmg_jax.evaluation import scoring
from sgmg_jax.score import submission


@pytest.fixture
def split():
    expression = metadata.Expression
    return [
        make_record('bear', 4, [expression('0', 'a', 1, ('motion',)), expression('1', 'b', 2, ())]),
        make_record('hidden', 2, [expression('0', 'c', -1, ())], hidden=True),
        make_record('lion', 1, [expression('0', 'd', 2, ('motion', 'unseen'))]),
    ]


@pytest.fixture
def records_opened(monkeypatch, split):
    """Makes the command read `split` in place of built records."""
    monkeypatch.setattr(records, 'open_records', lambda directory, name: split)


@pytest.fixture
def published(tmp_path):
    """The published ground truth of Ref-YouTube-VOS."""
    root = raw_tree.write(tmp_path / 'raw')
    raw_tree.add_ground_truth(root)
    return root / 'valid'


@pytest.fixture
def sequences(tmp_path):
    """A copy of DAVIS in <tmp_path>/DAVIS; returns {sequence: index maps [T H W]}."""
    rng = np.random.default_rng(0)
    maps = {
        name: rng.integers(0, 3, (frames, 5, 7), np.uint8).repeat(6, 1).repeat(6, 2)
        for name, frames in (('bear', 4), ('lion', 3))
    }
    maps['bear'][:, :3] = scoring.VOID
    write_index_maps(tmp_path / 'DAVIS/Annotations_unsupervised/480p', maps)
    lists = tmp_path / 'DAVIS/ImageSets/2017'
    lists.mkdir(parents=True)
    (lists / 'val.txt').write_text('bear\nlion\n')
    return maps


@pytest.fixture
def sparse_split():
    """Records in which each mask is of one object in one frame."""
    rng = np.random.default_rng(0)
    expression = metadata.Expression
    split = []
    for name, places, expressions in (
        ('-a_f_1', ((0, 1), (0, 2), (2, 1)), [expression('0', 'a', 1, ()), expression('1', 'b', 2, ('crowd',))]),
        ('b', ((1, 1),), [expression('2', 'c', 1, ())]),
    ):
        masks = tuple(png((rng.random(SIZE) < 0.4).astype(np.uint8)) for _ in places)
        video = metadata.Video(name, ('00001', '00002', '00003'), *SIZE, tuple(expressions), True, places)
        split.append(records.Record(video, (), masks))
    return split


@pytest.fixture
def coco_files(tmp_path, sparse_split):
    """Ground truth and results that score 100."""
    truth = score.truth_of_records('a2d', sparse_split)
    results = [
        {key: annotation[key] for key in ('image_id', 'category_id', 'segmentation')} | {'score': 0.5}
        for annotation in truth['annotations']
    ]
    gt, pred = tmp_path / 'gt.json', tmp_path / 'pred.json'
    gt.write_text(json.dumps(truth))
    pred.write_text(json.dumps(results))
    return gt, pred


@pytest.fixture
def root(tmp_path):
    """A folder with a correct submission."""
    for video, frames, _, expressions in EXPECTED:
        for expression in expressions:
            submission.write_masks(tmp_path / 'run', video, expression, frames, masks_of(video, expression))
    return tmp_path / 'run'
