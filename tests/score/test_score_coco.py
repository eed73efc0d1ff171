"""A2D-Sentences, JHMDB-Sentences, RefCOCO/+/g: COCO results against COCO ground truth and records."""

import dataclasses
import json
import os
import zipfile

import numpy as np
from pycocotools import mask as rle
import pytest
from score_files import empty_mask, run

from sgmg_jax import files, score
from sgmg_jax.data import metadata, records
from sgmg_jax.evaluation import mean_ap
from sgmg_jax.score import coco


@pytest.mark.parametrize(
    'protocol, names',
    [
        ('a2d', ['v_-a_f_1_f_1_i_0', 'v_-a_f_1_f_3_i_0', 'v_-a_f_1_f_1_i_1', 'v_b_f_2_i_2']),
        ('jhmdb', ['v_b_f_2']),
        ('refcoco', [1, 2]),
    ],
)
def test_ground_truth_of_records(sparse_split, protocol, names):
    if protocol == 'jhmdb':
        sparse_split = sparse_split[1:]
    if protocol == 'refcoco':
        sparse_split = [sparse_split[1], sparse_split[1]]
        for number in (0, 1):
            video = sparse_split[number].video
            video = dataclasses.replace(video, expressions=(metadata.Expression(str(number + 1), 'x', 1, ()),))
            sparse_split[number] = dataclasses.replace(sparse_split[number], video=video)
    truth = score.truth_of_records(protocol, sparse_split)
    mean_ap.check_truth(truth)
    assert [image['id'] for image in truth['images']] == names
    assert json.loads(json.dumps(truth)) == truth
    if protocol == 'a2d':
        mask = sparse_split[0].decode_object(1, 2)
        np.testing.assert_array_equal(rle.decode(truth['annotations'][1]['segmentation']), mask)
        assert truth['annotations'][1]['area'] == mask.sum()
        assert [annotation['iscrowd'] for annotation in truth['annotations']] == [0, 0, 1, 0]


@pytest.mark.parametrize('protocol', ['a2d', 'jhmdb', 'refcoco'])
def test_results_as_json_and_zip(tmp_path, sparse_split, protocol, capsys):
    truth = score.truth_of_records(protocol, sparse_split[1:])
    results = [
        {
            'image_id': annotation['image_id'],
            'category_id': 1,
            'score': score,
            'segmentation': annotation['segmentation'] if score > 0.5 else empty_mask(),
        }
        for annotation in truth['annotations']
        for score in (0.3, 0.9)
    ]
    gt, pred, out = (tmp_path / name for name in ('gt.json', 'pred.json', 'scores.json'))
    gt.write_text(json.dumps(truth))
    pred.write_text(json.dumps(results))
    assert run(protocol, gt, pred, out) == 0
    printed = capsys.readouterr().out
    assert 'P@0.9' in printed and 'DONE' not in printed
    summary = json.loads(out.read_text())
    assert summary == mean_ap.evaluate(truth, results)
    assert summary['mAP'] == pytest.approx(100) == summary['overall_IoU']
    with zipfile.ZipFile(tmp_path / 'pred.zip', 'w') as archive:
        archive.write(pred, 'results/pred.json')
        archive.writestr('__MACOSX/._pred.json', b'')
    assert run(protocol, gt, tmp_path / 'pred.zip', out) == 0
    assert json.loads(out.read_text()) == summary

    out.unlink()
    assert run(protocol, gt, pred, out, '--check-only') == 0 and not out.exists()
    pred.write_text(json.dumps(results[:-2] + [results[0] | {'image_id': 'v_x_f_1'}]))
    assert run(protocol, gt, pred, out) == 1
    printed = capsys.readouterr().out
    assert 'unknown image_id: 1' in printed and 'image without result: 1' in printed and not out.exists()
    pred.write_text('[{')
    assert run(protocol, gt, pred, out) == 1 and 'unreadable results' in capsys.readouterr().out
    assert run(protocol, gt, tmp_path / 'none.json', out) == 2
    gt.write_text('{"images": []}')
    assert run(protocol, gt, pred, out) == 2 and 'not COCO ground truth' in capsys.readouterr().err


def test_results_against_records(tmp_path, sparse_split, monkeypatch, capsys):
    monkeypatch.setattr(records, 'open_records', lambda directory, name: sparse_split)
    truth = score.truth_of_records('a2d', sparse_split)
    pred, out = tmp_path / 'pred.json', tmp_path / 'scores.json'
    pred.write_text(
        json.dumps(
            [
                {key: annotation[key] for key in ('image_id', 'category_id', 'segmentation')} | {'score': 1}
                for annotation in truth['annotations']
            ]
        )
    )
    assert run('a2d', tmp_path / 'none', pred, out) == 0
    summary = json.loads(out.read_text())
    assert score.score_submission('a2d', pred, sparse_split, progress=False) == summary
    assert summary['mean_IoU'] == summary['P@0.9'] == pytest.approx(100)
    assert set(summary['videos']['-a_f_1']['scores']) == {'0', '1'}
    assert run('ytvos', tmp_path / 'none', pred, out) == 2
    assert 'masks of single frames' in capsys.readouterr().err
    assert run('davis', tmp_path / 'none', pred, out) == 2
    assert 'video -a_f_1 has no index maps' in capsys.readouterr().err


def test_malformed_files_are_refused(tmp_path, coco_files, capsys):
    gt, pred = coco_files
    out, text = tmp_path / 'scores.json', pred.read_text()
    assert run('a2d', gt, pred, out) == 0
    assert 'duplicates' not in capsys.readouterr().out
    summary = json.loads(out.read_text())
    pred.write_text(json.dumps(json.loads(text) + json.loads(text)[:2]))
    assert run('a2d', gt, pred, out) == 0
    assert '\n2 results are duplicates' in capsys.readouterr().out

    def refused(words):
        assert run('a2d', gt, pred, out) == 1
        printed = capsys.readouterr().out
        assert all(word in printed for word in ('unreadable results: 1', str(pred), *words.split('|'))), printed

    for content, words in (
        (b'[' * 100_000, 'too many levels'),
        (b'[NaN]', 'NaN is no number'),
        (b'', 'it is empty'),
        (b'\xff', 'not text'),
        (b'[{"score": 1, "score": 2}]', "the key 'score' is there twice"),
        (b'[' + b'1' * 5000 + b']', 'digits'),
        (b'PK\5\6' + bytes(18), '0 .json files'),
    ):
        pred.write_bytes(content)
        refused(words)
    pred.unlink()
    os.mkfifo(pred)
    refused('is a pipe')
    pred.unlink()
    pred.mkdir()
    refused('is a folder')
    pred.rmdir()
    with zipfile.ZipFile(pred, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a.json', '1e999')
        archive.writestr('b.json', '[]')
    refused('2 .json files in the zip')
    with zipfile.ZipFile(pred, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a.json', '[{]')
    refused('a.json: is not JSON')
    for junk in ('._a.json', '__MACOSX/a.json', '__MACOSX/x/._a.json'):
        with zipfile.ZipFile(pred, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(junk, 'x')
            archive.writestr('deep/a.json', b'\xef\xbb\xbf' + text.encode())
        assert run('a2d', gt, pred, out) == 0 and json.loads(out.read_text()) == summary
    pred.write_text(text)
    for broken, words in ((b'[' * 100_000, 'too many levels'), (b'{"images": [Infinity]}', 'no number')):
        gt.write_bytes(broken)
        assert run('a2d', gt, pred, out) == 2
        assert words in capsys.readouterr().err
    gt.unlink()
    os.mkfifo(gt)
    assert run('a2d', gt, pred, out) == 2
    assert 'is a pipe' in capsys.readouterr().err


def test_oversized_results_are_refused(tmp_path, coco_files, capsys, monkeypatch):
    gt, pred = coco_files
    text = pred.read_text()
    with zipfile.ZipFile(pred, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a.json', text)
    with monkeypatch.context() as patched:
        patched.setattr(coco, 'LARGEST_MEMBER', len(text) - 1)
        assert run('a2d', gt, pred, tmp_path / 'scores.json') == 1
        assert f'a.json: it has {len(text):,} bytes, must have at most {len(text) - 1:,}' in capsys.readouterr().out
        patched.setattr(coco, 'LARGEST_MEMBER', len(text))
        assert run('a2d', gt, pred, tmp_path / 'scores.json') == 0
        patched.setattr(files, 'MOST_MEMORY', 10)
        assert run('a2d', gt, pred, tmp_path / 'scores.json') == 2
        assert f'{gt}: is JSON of too many values' in capsys.readouterr().err
    assert run('a2d', gt, pred, tmp_path / 'scores.json') == 0


@pytest.mark.parametrize('protocol', ['a2d', 'jhmdb', 'refcoco'])
def test_swapped_ground_truth_and_results_are_refused(tmp_path, coco_files, capsys, protocol):
    gt, pred = coco_files
    assert run(protocol, pred, gt, tmp_path / 'scores.json') == 2
    assert 'are ground truth and predictions swapped?' in capsys.readouterr().err
    assert run(protocol, gt, gt, tmp_path / 'scores.json') == 1
    assert 'are the two swapped?' in capsys.readouterr().out


@pytest.mark.parametrize('field, value', [('id', 0), ('id', 2), ('category_id', 2), ('area', -1.0), ('iscrowd', 2)])
def test_ground_truth_that_pycocotools_misreads_is_refused(tmp_path, coco_files, capsys, field, value):
    gt, pred = coco_files
    truth = json.loads(gt.read_text())
    truth['annotations'][0][field] = value
    gt.write_text(json.dumps(truth))
    assert run('a2d', gt, pred, tmp_path / 'scores.json') == 2
    error = capsys.readouterr().err
    assert f'error: {gt}: annotations' in error and field in error
    assert not (tmp_path / 'scores.json').exists()


def test_records_without_ground_truth_are_named(tmp_path, sparse_split):
    hidden = [
        dataclasses.replace(record, video=dataclasses.replace(record.video, has_masks=False)) for record in sparse_split
    ]
    with pytest.raises(ValueError, match="^the records: 'images' must be a list"):
        score.score_submission('a2d', tmp_path / 'x.json', hidden, progress=False)

    class Built(list):
        directory = 'built/a2d_sentences'

    with pytest.raises(ValueError, match="^built/a2d_sentences: 'images' must be a list"):
        score.score_submission('a2d', tmp_path / 'x.json', Built(hidden), progress=False)
