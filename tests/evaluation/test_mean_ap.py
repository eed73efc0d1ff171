"""mAP against pycocotools run from files, precision and IoU against plain NumPy, and the checks of results."""

import copy
import json

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
import pytest

from sgmg_jax.evaluation import mean_ap


def encode(mask):
    encoded = rle.encode(np.asfortranarray(mask, np.uint8))
    return {'size': list(mask.shape), 'counts': encoded['counts'].decode()}


def some_mask(rng, size):
    mask = np.zeros(size, bool)
    kind = rng.integers(6)
    if kind == 0:
        return mask
    if kind == 1:
        return ~mask
    if kind == 2:
        return rng.random(size) < 0.3
    y, x = (np.sort(rng.integers(0, side + 1, 2)) for side in size)
    mask[y[0] : y[1], x[0] : x[1]] = True
    return mask


def make(seed, images, queries, benchmark='a2d', size=None):
    """Ground truth, results, and the masks: {image id: (truth, [(score, mask)])}."""
    rng = np.random.default_rng(seed)
    truth = {'images': [], 'annotations': [], 'categories': [{'id': 1, 'name': 'dummy_class'}]}
    results, masks = [], {}
    for number in range(images):
        name = f'v_-a_b{number // 3}_f_{number % 3 + 1}_i_0' if benchmark == 'a2d' else number + 1
        shape = size or tuple(int(side) for side in rng.integers(1, 140, 2))
        mask = some_mask(rng, shape)
        truth['images'].append({'id': name, 'height': shape[0], 'width': shape[1]})
        truth['annotations'].append(
            {
                'id': number + 1,
                'image_id': name,
                'category_id': 1,
                'segmentation': encode(mask),
                'area': float(mask.sum()),
                'iscrowd': 0,
            }
        )
        answers = []
        for _ in range(queries):
            answer = mask ^ (rng.random(shape) < 0.2) if rng.random() < 0.6 else some_mask(rng, shape)
            answers.append((float(rng.choice([0.1, 0.5, 0.9, rng.random()])), answer))
        masks[name] = mask, answers
        results += [
            {'image_id': name, 'category_id': 1, 'segmentation': encode(answer), 'score': score}
            for score, answer in answers
        ]
    return truth, results, masks


def as_the_authors_run_it(folder, truth, results):
    for name, content in (('gt', truth), ('dt', results)):
        (folder / f'{name}.json').write_text(json.dumps(content))
    coco = COCO(str(folder / 'gt.json'))
    evaluation = COCOeval(coco, coco.loadRes(str(folder / 'dt.json')), iouType='segm')
    evaluation.params.useCats = 0
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[:6]


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('queries', [1, 5])
def test_equals_pycocotools_and_numpy(tmp_path, seed, queries, capsys):
    truth, results, masks = make(seed, 1 + 4 * seed, queries, ['a2d', 'refcoco'][seed % 2])
    before = copy.deepcopy((truth, results))
    mean_ap.check_truth(truth)
    assert mean_ap.check_results(truth, results) == {}
    summary = mean_ap.evaluate(truth, results)
    assert (truth, results) == before and capsys.readouterr().out == ''

    best = []
    intersections, unions, ious = [], [], []
    for name, (mask, answers) in masks.items():
        top = max(range(queries), key=lambda q: (answers[q][0], q))  # Of equal scores, the later one.
        score, answer = answers[top]
        best.append({'image_id': name, 'category_id': 1, 'segmentation': encode(answer), 'score': score})
        intersections.append((mask & answer).sum())
        unions.append((mask | answer).sum())
        ious.append((intersections[-1] + 1e-6) / (unions[-1] + 1e-6))
    for submitted, numbers in ((results, summary), (best, summary['best'])):
        expected = [None if value < 0 else 100 * value for value in as_the_authors_run_it(tmp_path, truth, submitted)]
        assert [numbers[name] for name in mean_ap.STATISTICS] == pytest.approx(expected, abs=1e-9)
    for threshold in mean_ap.THRESHOLDS:
        assert summary[f'P@{threshold}'] == pytest.approx(100 * np.mean(np.array(ious) > threshold))
    assert summary['mean_IoU'] == pytest.approx(100 * np.mean(ious), rel=1e-6)
    assert summary['overall_IoU'] == pytest.approx(100 * np.sum(intersections) / max(np.sum(unions), 1))
    images = {
        image: value
        for video in summary['videos'].values()
        for sentence in video['scores'].values()
        for image, value in sentence['images'].items()
    }
    assert images == {str(name): pytest.approx(100 * iou, rel=1e-6) for name, iou in zip(masks, ious)}
    json.dumps(summary, allow_nan=False)


def test_numbers_by_hand():
    truth, _, _ = make(0, 2, 1, size=(10, 10))
    squares = np.zeros((3, 10, 10), bool)
    squares[0, :8], squares[1, :4], squares[2, :, :2] = True, True, True
    for annotation in truth['annotations']:
        annotation |= {'segmentation': encode(squares[0]), 'area': 80.0}
    names = [image['id'] for image in truth['images']]
    results = [
        {'image_id': name, 'category_id': 1, 'segmentation': encode(mask), 'score': score}
        for name, mask, score in ((names[0], squares[2], 0.3), (names[0], squares[0], 0.3), (names[1], squares[1], 1))
    ]
    summary = mean_ap.evaluate(truth, results)
    assert (summary['overall_IoU'], summary['mean_IoU']) == (75, pytest.approx(75))
    # An IoU of 0.5 is not above 0.5.
    assert [summary[f'P@{k}'] for k in mean_ap.THRESHOLDS] == [50] * 5
    assert summary['AP_M'] is None and summary['AP_S'] == summary['mAP']
    assert (summary['images'], summary['results']) == (2, 3)
    video = summary['videos']['-a_b0']
    assert video['overall_IoU'] == 75 and list(video['scores']) == ['0']
    assert video['scores']['0']['images'] == {names[0]: 100, names[1]: 50}


def test_polygons_crowds_and_categories(tmp_path):
    truth, results, _ = make(3, 6, 2, 'refcoco', size=(60, 80))
    truth['categories'] = [{'id': 1, 'name': 'person'}, {'id': 90, 'name': 'toothbrush'}]
    for number, annotation in enumerate(truth['annotations']):
        annotation['category_id'] = [1, 90][number % 2]
        if number < 3:
            annotation['segmentation'] = [[5, 5, 60.5, 7, 50, 40.2 + number], [1, 50, 20, 50, 20, 58]]
            annotation['area'] = 1000.0
        if number == 4:
            annotation['iscrowd'] = 1
    for image in truth['images']:
        image |= {'file_name': 'COCO_train2014_000000000009.jpg', 'caption': 'a cat'}
    mean_ap.check_truth(truth)
    summary = mean_ap.evaluate(truth, results)
    expected = as_the_authors_run_it(tmp_path, truth, results)
    assert [summary[name] or 0 for name in mean_ap.STATISTICS] == pytest.approx(100 * np.maximum(expected, 0))
    assert list(summary['videos']) == ['COCO_train2014_000000000009.jpg']
    assert set(summary['videos']['COCO_train2014_000000000009.jpg']['scores']) == set('123456')


@pytest.mark.parametrize('shape', [(1, 1), (1, 7), (9, 1), (5, 4), (123, 211), (700, 900)])
def test_whole_rle(shape):
    rng = np.random.default_rng(0)
    size = shape[0] * shape[1]
    for share in (0, 0.001, 0.5, 1):
        for mask in (rng.random(shape) < share, np.indices(shape)[1] < share * shape[1]):
            counts = encode(mask)['counts']
            assert mean_ap._is_whole(counts, size)
            assert not mean_ap._is_whole(counts, size + 1) and not mean_ap._is_whole(counts, size - 1)
            for damaged in (counts[:-1], counts + '1', counts + 'o', 'o' * 9 + counts, '', '\x00', 'é', None, [size]):
                assert not mean_ap._is_whole(damaged, size)


def test_every_fault_of_results():
    truth, results, _ = make(1, 5, 1, size=(6, 7))
    good = results[1]
    faults = [
        {'image_id': 7},
        {'image_id': None},
        {'category_id': 0},
        {'score': float('nan')},
        {'score': '0.5'},
        {'segmentation': [[1, 2, 3, 4, 5, 6]]},
        {'segmentation': encode(np.ones((7, 6)))},
        {'segmentation': {'size': [6, 7], 'counts': encode(np.ones((7, 7)))['counts']}},
    ]
    found = mean_ap.check_results(truth, results[1:] + [good | fault for fault in faults] + [{}])
    counts = {kind: len(where) for (kind, _), where in found.items()}
    assert counts == {
        'unknown image_id': 3,
        'unknown category_id': 1,
        'no score': 2,
        'no RLE': 1,
        'wrong size': 1,
        'damaged RLE': 1,
        'image without result': 1,
    }
    (missing,) = [where for (kind, _), where in found.items() if kind == 'image without result']
    assert missing == [f'image_id {results[0]["image_id"]!r}']
    for nonsense in ({}, [[]], 'x', None):
        assert [kind for kind, _ in mean_ap.check_results(truth, nonsense)] == ['not COCO results']
    with pytest.raises(ValueError, match='has no result'):
        mean_ap.evaluate(truth, results[1:])


@pytest.mark.parametrize(
    'edit, match',
    [
        (lambda truth: truth.pop('categories'), "no list 'categories'"),
        (lambda truth: truth.update(images=[]), "no list 'images'"),
        (lambda truth: truth['annotations'][2].pop('area'), r"annotations\[2\] has no 'area'"),
        (lambda truth: truth['annotations'].append(truth['annotations'][0]), 'image_id .* is there 2 times'),
        (lambda truth: truth['annotations'].pop(), 'not in both'),
        (lambda truth: truth['annotations'][1]['segmentation'].update(counts='oo'), r'annotations\[1\].*damaged'),
    ],
)
def test_wrong_truth(edit, match):
    truth, _, _ = make(0, 4, 1)
    edit(truth)
    with pytest.raises(ValueError, match=match):
        mean_ap.check_truth(truth)
