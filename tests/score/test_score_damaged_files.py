"""Randomly damaged files are refused or scored, without a traceback."""

import json
import os

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from score_files import png, run, write_index_maps

from sgmg_jax import score
from sgmg_jax.data import metadata, records
from sgmg_jax.evaluation import mean_ap
from sgmg_jax.score import submission


def damaged(data, content):
    """Changes, inserts or cuts off some bytes."""
    content = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=5)):
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=3)
            | st.sampled_from([b'-', b'e', b'9' * 20, b'null', b'[]', b'{}', b'"x"', b'1e999', b'true', b'NaN'])
        )
    return bytes(content[: data.draw(st.integers(len(content) * 3 // 4, len(content)))])


SCORED = {}


@settings(max_examples=80)
@given(st.data())
def test_damaged_json_is_refused_or_scored(tmp_path_factory, data):
    """Any damage to ground truth or results gives exit status 0, 1 or 2, never a traceback."""
    if not SCORED:
        root = tmp_path_factory.mktemp('json')
        box = np.zeros((1, 6, 7), bool)
        box[:, 1:4, 2:6] = True
        video = metadata.Video('a', ('1',), 6, 7, (metadata.Expression('0', 'x', 1, ()),), True, ((0, 1),))
        truth = score.truth_of_records('a2d', [records.Record(video, (), (png(box[0].astype(np.uint8)),))])
        truth['annotations'][0]['segmentation'] = [[2, 1, 6, 1, 6, 4, 2, 4]]
        results = [
            {
                'image_id': 'v_a_f_1_i_0',
                'category_id': 1,
                'score': 0.5,
                'segmentation': {'size': [6, 7], 'counts': 'd03U2'},
            }
        ]
        mean_ap.check_truth(truth)
        SCORED.update(root=root, gt=json.dumps(truth).encode(), pred=json.dumps(results).encode())
    root = SCORED['root']
    which = data.draw(st.sampled_from(['gt', 'pred']))
    for name in ('gt', 'pred'):
        content = SCORED[name]
        (root / f'{name}.json').write_bytes(damaged(data, content) if name == which else content)
    assert run('a2d', root / 'gt.json', root / 'pred.json', root / 'scores.json') in (0, 1, 2)


@settings(max_examples=40)
@given(st.data())
def test_damaged_published_json_is_refused_or_scored(tmp_path_factory, data):
    if 'valid' not in SCORED:
        valid = tmp_path_factory.mktemp('public')
        content = {'videos': {'a': {'frames': ['0', '1'], 'expressions': {'0': {'exp': 'x', 'obj_id': '1'}}}}}
        masks = np.zeros((2, 6, 7), bool)
        masks[:, 1:4] = True
        submission.write_masks(valid, 'a', '0', ('0', '1'), masks)
        SCORED.update(valid=valid, challenge=json.dumps(content).encode())
    valid = SCORED['valid']
    (valid / 'meta_expressions_challenge.json').write_bytes(damaged(data, SCORED['challenge']))
    assert run('ytvos', valid, valid, valid / 'scores.json') in (0, 1, 2)


@settings(max_examples=40)
@given(st.data())
def test_damaged_davis_folders_are_refused_or_scored(tmp_path_factory, data):
    root = tmp_path_factory.mktemp('davis')
    maps = np.zeros((2, 6, 7), np.uint8)
    maps[:, 1:4], maps[:, 4:] = 1, 2
    for folder in ('DAVIS/Annotations', 'pred'):
        write_index_maps(root / folder, {'a': maps, 'b': maps})
    (root / 'DAVIS/ImageSets/2017').mkdir(parents=True)
    (root / 'DAVIS/ImageSets/2017/val.txt').write_text('a\nb\n')
    paths = sorted(path for path in root.rglob('*') if path.is_file())
    path = data.draw(st.sampled_from(paths))
    match data.draw(st.sampled_from(['damage', 'remove', 'pipe', 'folder', 'link'])):
        case 'damage':
            path.write_bytes(damaged(data, path.read_bytes()))
        case 'remove':
            path.unlink()
        case 'pipe':
            path.unlink()
            os.mkfifo(path)
        case 'folder':
            path.unlink()
            path.mkdir()
        case 'link':
            path.unlink()
            path.symlink_to(data.draw(st.sampled_from(['/', '/dev/zero', 'nowhere', path.name, '.'])))
    assert run('davis', root, root / 'pred', root / 'scores.json') in (0, 1, 2)
