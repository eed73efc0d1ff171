"""mAP against pycocotools run on files, precision and IoU against plain NumPy, and the checks of results."""

import copy
import json

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
import pytest

from sgmg_jax.evaluation import mean_ap, segmentations


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


def make(seed, images, queries, protocol='a2d', size=None):
    """Ground truth, results, and the masks: {image id: (truth, [(score, mask)])}."""
    rng = np.random.default_rng(seed)
    truth = {'images': [], 'annotations': [], 'categories': [{'id': 1, 'name': 'dummy_class'}]}
    results, masks = [], {}
    for number in range(images):
        name = f'v_-a_b{number // 3}_f_{number % 3 + 1}_i_0' if protocol == 'a2d' else number + 1
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


def test_scores_by_hand():
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
def test_is_whole_of_damaged_runs(shape):
    rng = np.random.default_rng(0)
    for share in (0, 0.001, 0.5, 1):
        for mask in (rng.random(shape) < share, np.indices(shape)[1] < share * shape[1]):
            counts = encode(mask)['counts']
            assert segmentations.is_whole(counts, *shape)
            assert not segmentations.is_whole(counts, shape[0] + 1, shape[1])
            assert not segmentations.is_whole(counts, shape[0], shape[1] - 1)
            for damaged in (counts[:-1], counts + '1', counts + 'o', 'o' * 9 + counts, '', '\x00', 'é', None, [1]):
                assert not segmentations.is_whole(damaged, *shape)


def test_every_problem_of_results_is_found():
    truth, results, _ = make(1, 5, 1, size=(6, 7))
    good = results[1]
    whole = good['segmentation']
    faults = {
        'unknown image_id': [{'image_id': value} for value in (7, None, True, ['x'], {}, 2.0, 'x' * 600, 2**61)],
        'unknown category_id': [{'category_id': value} for value in (0, 2, True, 1.0, '1', None, [1], {})],
        'no score': [
            {'score': value}
            for value in (float('nan'), float('inf'), -float('inf'), '0.5', True, None, [1], 10**400, -(10**400))
        ],
        'no RLE': [
            {'segmentation': value}
            for value in ([[1, 2, 3, 4, 5, 6]], None, 'x', {}, {'size': [6, 7]}, {'counts': whole['counts']})
        ],
        'wrong size': [
            {'segmentation': whole | {'size': value}}
            for value in ([7, 6], [6, 8], [5, 7], [6.0, 7], [6, 7, 1], '67', None, 42)
        ],
        'damaged RLE': [
            {'segmentation': whole | {'counts': value}}
            for value in (encode(np.ones((7, 7)))['counts'], whole['counts'][:-1], '', [42], 42, None)
        ],
    }
    for kind, of_kind in faults.items():
        for fault in of_kind:
            found = mean_ap.check_results(truth, [*results, good | fault])
            assert [(name, len(where)) for (name, _), where in found.items()] == [(kind, 1)], fault
            assert all(where.startswith('result 5, image_id') for where in found.popitem()[1])
    everything = [good | fault for of_kind in faults.values() for fault in of_kind]
    found = mean_ap.check_results(truth, results[1:] + everything + [{}])
    counts = {kind: len(where) for (kind, _), where in found.items()}
    expected = {kind: len(of_kind) for kind, of_kind in faults.items()} | {'image without result': 1}
    assert counts == expected | {'unknown image_id': expected['unknown image_id'] + 1}
    (missing,) = [where for (kind, _), where in found.items() if kind == 'image without result']
    assert missing == [f'image_id {results[0]["image_id"]!r}']
    with pytest.raises(ValueError, match='has no result'):
        mean_ap.evaluate(truth, results[1:])


@pytest.mark.parametrize(
    'results, where',
    [
        ({}, '{}'),
        ({'images': []}, "{'images': []}"),
        ('x', "'x'"),
        (None, 'None'),
        (3, '3'),
        ([[]], 'entry 0: []'),
        ([{}, None], 'entry 1: None'),
    ],
)
def test_results_must_be_a_list(results, where):
    truth, _, _ = make(1, 2, 1)
    (((kind, mend), found),) = mean_ap.check_results(truth, results).items()
    assert kind == 'not COCO results' and found == [where]
    assert ('are the two swapped' in mend) == isinstance(results, dict)


def test_results_written_twice_are_reported():
    truth, results, _ = make(2, 4, 2)
    kinds = [kind for kind, _ in mean_ap.check_results(truth, results + results)]
    assert kinds == ['everything twice']
    # Two queries may give the same result.
    assert mean_ap.check_results(truth, results + results[:3]) == {}
    for result in results[::2]:
        result['segmentation'] = next(
            annotation['segmentation']
            for annotation in truth['annotations']
            if annotation['image_id'] == result['image_id']
        )
    assert 0 < mean_ap.evaluate(truth, results + results)['mAP'] < mean_ap.evaluate(truth, results)['mAP']


def test_missing_images_are_sorted():
    truth, results, _ = make(1, 12, 1, 'refcoco')
    found = mean_ap.check_results(truth, results[2:9])
    assert [*found.values()] == [[f'image_id {number}' for number in (1, 2, 10, 11, 12)]]


def test_other_fields_of_results_are_ignored():
    """With a 'bbox' in the first result pycocotools would take the areas of boxes; with a 'caption', none."""
    truth, results, _ = make(5, 9, 3)
    expected = mean_ap.evaluate(truth, results)
    nested = []
    for _ in range(500):
        nested = [nested]
    for other in (
        {'bbox': [0, 0, 900, 900]},
        {'bbox': 3},
        {'caption': 'x'},
        {'id': 7, 'area': 1, 'iscrowd': 1},
        {'segmentation2': nested},
    ):
        more = [result | other for result in results]
        assert mean_ap.check_results(truth, more) == {}
        assert mean_ap.evaluate(truth, more) == expected
    assert mean_ap.evaluate(truth | {'info': nested, 'licenses': nested}, results) == expected


def test_scores_are_sorted_as_numbers():
    truth, results, masks = make(0, 1, 2, size=(8, 8))
    results[0]['segmentation'], results[1]['segmentation'] = (
        truth['annotations'][0]['segmentation'],
        encode(~masks['v_-a_b0_f_1_i_0'][0]),
    )
    results[0]['score'], results[1]['score'] = 10, 9.5
    assert mean_ap.evaluate(truth, results)['mean_IoU'] == pytest.approx(100)
    results[0]['score'], results[1]['score'] = 2, 10
    assert mean_ap.evaluate(truth, results)['mean_IoU'] == pytest.approx(0, abs=1e-3)


def edit(field, number, **values):
    return lambda truth: truth[field][number].update(values)


HOSTILE = [None, True, 1.0, '1', [], {}, [1], float('nan'), float('inf'), -1, 2**61, 10**400]


@pytest.mark.parametrize(
    'edit, match',
    [
        (lambda truth: truth.pop('categories'), "'categories' must be a list"),
        (lambda truth: truth.update(images=[]), "'images' must be a list"),
        (lambda truth: truth.update(annotations={}), "'annotations' must be a list"),
        (lambda truth: truth['images'].append(3), r'images\[4\] must be an object with id, height, width, is 3'),
        (lambda truth: truth['annotations'].insert(1, None), r'annotations\[1\] must be an object'),
        (lambda truth: truth['categories'].append([]), r'categories\[1\] must be an object'),
        (lambda truth: truth['categories'][0].pop('id'), r"categories\[0\] has no 'id'"),
        (lambda truth: truth['images'][1].pop('height'), r"images\[1\] has no 'height'"),
        (lambda truth: truth['annotations'][2].pop('area'), r"annotations\[2\] has no 'area'"),
        (lambda truth: truth['annotations'].append(truth['annotations'][0]), 'image_id .* occurs 2 times'),
        (lambda truth: truth['images'].append(truth['images'][0]), 'images: id .* occurs 2 times'),
        (lambda truth: truth['categories'].append({'id': 1}), 'categories: id 1 occurs 2 times'),
        (lambda truth: truth['annotations'].pop(), 'must be in both'),
        (lambda truth: truth['annotations'][1]['segmentation'].update(counts='oo'), r'annotations\[1\].*damaged'),
        (edit('annotations', 1, id=3), 'annotations: id 3 occurs 2 times'),
        (edit('annotations', 2, id=0), r'annotations\[2\]\.id must be a whole number from 1, is 0'),
        *((edit('annotations', 2, id=value), r'annotations\[2\]\.id must be a whole number') for value in HOSTILE),
        *(
            (edit('annotations', 2, category_id=value), r'annotations\[2\]\.category_id must be one of the categories')
            for value in [*HOSTILE, 0, 2]
        ),
        *(
            (edit('annotations', 0, iscrowd=value), r'annotations\[0\]\.iscrowd must be 0 or 1')
            for value in [*HOSTILE, 2]
        ),
        *(
            (edit('annotations', 0, ignore=value), r'annotations\[0\]\.ignore must be 0 or equal to "iscrowd"')
            for value in [*HOSTILE, 1]
        ),
        *(
            (edit('annotations', 3, area=value), r'annotations\[3\]\.area must be a number of pixels')
            for value in [None, True, '1', [], float('nan'), float('inf'), -1, -0.5, 10**400, 140 * 140 + 2]
        ),
        *(
            (edit('images', 1, id=value), r'images\[1\]\.id must be')
            for value in [None, True, 1.0, [], {}, -1, 2**61, '', 'x' * 501, 'a\0', 'a\x1b[2J', '\ud800', '\u202e']
        ),
        *(
            (edit('annotations', 1, image_id=value), r'annotations\[1\]\.image_id must be')
            for value in [None, True, 1.0, [], {}, '']
        ),
        (edit('images', 1, id=7), "some 'id' are strings and some are numbers"),
        *(
            (edit('images', 1, **{side: value}), r'images\[1\]: "height" and "width" must be')
            for value in [*HOSTILE, 0, 2**25 + 1]
            for side in ('height', 'width')
        ),
        (edit('images', 1, height=0, width=7), r'images\[1\]: "height" and "width" must be .* are 0 and 7'),
        *((edit('images', 1, file_name=value), r'images\[1\]\.file_name must be a string') for value in (None, 3, [])),
        *((edit('categories', 0, id=value), r'categories\[0\]\.id must be a whole number') for value in HOSTILE),
        *(
            (edit('annotations', 1, segmentation=value), r'annotations\[1\] has a damaged segmentation: ')
            for value in [
                None,
                3,
                'x',
                {},
                [3],
                [[1, 2, 3, 4, 5, 1e9]],
                [[1, 2, 3, 4, 5, float('nan')]],
                [[0, 0, 5, 0, 5]],
            ]
        ),
        *(
            (edit('annotations', 1, segmentation=value), r'annotations\[1\] needs a polygon of at least three points')
            for value in ([], [[]], [[0, 0, 5, 5]], [[1, 1], [0, 0, 5, 5]])
        ),
        (edit('annotations', 1, segmentation={'size': [9, 9], 'counts': [1] * (2**22 + 1)}), r'4,194,305 characters'),
        (edit('annotations', 1, segmentation={'size': [9, 9], 'counts': '1' * (2**22 + 1)}), r'4,194,305 characters'),
    ],
)
def test_malformed_ground_truth_is_refused(edit, match):
    truth, _, _ = make(0, 4, 1)
    edit(truth)
    with pytest.raises(ValueError, match=match):
        mean_ap.check_truth(truth)


@pytest.mark.parametrize('truth', [None, [], [{}], 'x', 3, {}])
def test_ground_truth_must_be_coco(truth):
    with pytest.raises(ValueError, match="'images' must be a list that is not empty.*not COCO ground truth") as caught:
        mean_ap.check_truth(truth)
    assert ('are ground truth and predictions swapped' in str(caught.value)) == isinstance(truth, list)


def test_swapped_height_and_width_are_refused():
    truth, _, _ = make(0, 3, 1, size=(20, 30))
    truth['annotations'][1]['segmentation']['size'] = [30, 20]
    with pytest.raises(ValueError, match=r'annotations\[1\] has a damaged segmentation: .* "size" \[20, 30\]'):
        mean_ap.check_truth(truth)
    truth['images'][1] |= {'height': 30, 'width': 20}
    mean_ap.check_truth(truth)
    truth['annotations'][1]['segmentation'] = {'size': [20, 30], 'counts': [600]}
    with pytest.raises(ValueError, match=r'annotations\[1\] has a damaged segmentation: .* "size" \[30, 20\]'):
        mean_ap.check_truth(truth)


def test_area_must_match_the_size_range_of_its_mask():
    """Objects are small up to 32 x 32 pixels, medium up to 96 x 96."""
    mask = np.zeros((200, 200), bool)
    mask[:32, :32] = True
    truth, _, _ = make(0, 1, 1, size=(200, 200))
    annotation = truth['annotations'][0]
    for segmentation in (encode(mask), {'size': [200, 200], 'counts': runs(mask)}):
        annotation['segmentation'] = segmentation
        for area in (0, 5, 1023, 1025.0, 9000, 9217, 40_000):
            annotation['area'] = area
            with pytest.raises(ValueError, match=rf'annotations\[0\].area is {area}, though .* covers 1024 pixels'):
                mean_ap.check_truth(truth)
        annotation['area'] = 1024.0
        mean_ap.check_truth(truth)
    annotation |= {'area': 3, 'iscrowd': 1, 'ignore': 1}  # A crowd has no size range.
    mean_ap.check_truth(truth)
    annotation |= {'iscrowd': 0, 'ignore': 0, 'area': 1100, 'segmentation': [[0, 0, 32, 0, 32, 32, 0, 32]]}
    mean_ap.check_truth(truth)  # The area of a polygon itself.
    for area, right in ((40_001, True), (40_001.5, False)):
        annotation['area'] = area
        if right:
            mean_ap.check_truth(truth)
        else:
            with pytest.raises(ValueError, match='at most the 40000 of its image'):
                mean_ap.check_truth(truth)


def runs(mask):
    flat = mask.ravel(order='F')
    starts = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    return np.diff([0, *starts, flat.size]).tolist()


@pytest.mark.parametrize(
    'edit',
    [
        edit('annotations', 0, id=0),
        edit('annotations', 0, id=2),
        edit('annotations', 0, category_id=7),
        edit('annotations', 0, area=1e11),
    ],
)
def test_pycocotools_accepts_malformed_ground_truth(tmp_path, edit):
    truth, _, _ = make(4, 4, 1, size=(40, 40))
    mask = np.ones((40, 40), bool)
    for annotation in truth['annotations']:
        annotation |= {'segmentation': encode(mask), 'area': 1600.0}
    results = [
        {
            'image_id': image['id'],
            'category_id': 1,
            'score': 0.5 + 0.1 * number,
            'segmentation': encode(mask if number < 3 else ~mask),
        }
        for number, image in enumerate(truth['images'])
    ]
    right = as_the_authors_run_it(tmp_path, truth, results)[0]
    assert 100 * right == pytest.approx(mean_ap.evaluate(truth, results)['mAP'])
    edit(truth)
    assert abs(as_the_authors_run_it(tmp_path, truth, results)[0] - right) > 0.01
    with pytest.raises(ValueError):
        mean_ap.check_truth(truth)


def test_all_kinds_of_segmentations_score_alike(tmp_path):
    truth, results, masks = make(6, 5, 2, size=(30, 40))
    expected = mean_ap.evaluate(truth, results)
    for annotation in truth['annotations']:
        annotation['segmentation'] = {'size': [30, 40], 'counts': runs(masks[annotation['image_id']][0])}
    mean_ap.check_truth(truth)
    assert mean_ap.evaluate(truth, results) == expected
    # Polygons of two points enclose nothing, also in pycocotools.
    for annotation in truth['annotations']:
        annotation['segmentation'] = [[5, 5, 30.5, 7, 25, 20.2], [1, 2, 9, 9], [3, 3]]
    mean_ap.check_truth(truth)
    summary = mean_ap.evaluate(truth, results)
    for annotation in truth['annotations']:
        annotation['segmentation'] = annotation['segmentation'][:1]
    assert summary == mean_ap.evaluate(truth, results)
    stats = as_the_authors_run_it(tmp_path, truth, results)
    assert [summary[name] or 0 for name in mean_ap.STATISTICS] == pytest.approx(100 * np.maximum(stats, 0))


@pytest.mark.parametrize(
    'protocol, frame, expression',
    [
        ('refcoco', '0', 'a'),
        ('refcoco', '0', '-1'),
        ('refcoco', '0', '9' * 5000),
        ('a2d', 'x', '0'),
        ('jhmdb', '', '0'),
        ('jhmdb', '1' * 16, '0'),
        ('a2d', '-3', '0'),
    ],
)
def test_image_ids_need_numeric_names(protocol, frame, expression):
    with pytest.raises(ValueError, match=f'video cat: .* must be a whole number for {protocol}'):
        mean_ap.image_id(protocol, 'cat', frame, expression)
    assert mean_ap.image_id('refcoco', 'cat', 'x', '010') == 10
    assert mean_ap.image_id('a2d', 'cat', '00007', 'x') == 'v_cat_f_7_i_x'
    assert mean_ap.image_id('jhmdb', 'cat', '00010', 'x') == 'v_cat_f_10'
