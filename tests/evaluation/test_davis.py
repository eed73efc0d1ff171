"""DAVIS: scores against a brute-force oracle written from the rules of the evaluation, and where files are found."""

import itertools

import numpy as np
import pytest
import scipy.ndimage

from sgmg_jax.evaluation import davis

RADIUS = {(33, 47): 1, (101, 131): 2}  # 0.8 % of the diagonal, rounded up


def contour(mask):
    """Pixels that differ from their east, south or south-east neighbour within the frame."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y, x in np.ndindex(height, width):
        there = [(min(y + dy, height - 1), min(x + dx, width - 1)) for dy, dx in ((0, 1), (1, 0), (1, 1))]
        found[y, x] = any(mask[place] != mask[y, x] for place in there)
    return found


def frame_scores(truth, prediction):
    union = (truth | prediction).sum()
    region = (truth & prediction).sum() / union if union else 1.0
    edges = contour(truth), contour(prediction)
    if not edges[0].any() or not edges[1].any():
        return region, float(not edges[0].any() and not edges[1].any())
    shares = [
        (scipy.ndimage.distance_transform_edt(~other)[edge] <= RADIUS[truth.shape] + 1e-6).mean()
        for edge, other in (edges, edges[::-1])
    ]
    return region, 2 * np.prod(shares) / sum(shares) if sum(shares) else 0.0


def oracle(truth, prediction, task):
    """J and F [N T] of the best assignment of all."""
    void = truth == 255
    truth = np.where(void, 0, truth)
    count = int(truth[0].max())
    if task == 'semi-supervised':
        truth, prediction, void = truth[1:-1], prediction[1:-1], np.zeros_like(void)[1:-1]
    proposals = range(1, max(prediction.max(), count) + 1)
    table = {
        (n, p): np.array([frame_scores((g == n) & ~v, (q == p) & ~v) for g, q, v in zip(truth, prediction, void)])
        for n in range(1, count + 1)
        for p in proposals
    }
    if task == 'semi-supervised':
        orders = [tuple(range(1, count + 1))]
    else:
        orders = itertools.permutations(proposals, count)
    chosen = max(([table[n, p] for n, p in enumerate(order, 1)] for order in orders), key=np.mean)
    return np.array(chosen).transpose(2, 0, 1)


def moving_blobs(rng, size, frames, ids, void=True):
    """Index maps [T H W]: smooth, overlapping blobs, each id from its first frame on."""
    maps = np.zeros((frames, *size), np.uint8)
    for number, first in ids.items():
        noise = scipy.ndimage.gaussian_filter(rng.normal(size=(frames, *size)), (1, 5, 5))
        blob = noise > np.quantile(noise, 0.75)
        blob[:first] = False
        maps[blob] = number
    if void:
        maps[:, rng.integers(size[0]), :] = 255
        maps[rng.random(maps.shape) < 0.02] = 255
    return maps


CASES = {
    'two objects': ({1: 0, 2: 0}, {1: 0, 2: 0}),
    'permuted': ({1: 0, 2: 0, 3: 0}, 'permuted'),
    'too many': ({1: 0}, {1: 0, 2: 0, 4: 1}),
    'too few': ({1: 0, 2: 0, 3: 0}, {1: 0}),
    'absent at first': ({1: 2, 2: 0, 3: 1}, {1: 0, 2: 0, 3: 0}),
    'nothing predicted': ({1: 0, 2: 0}, {}),
}


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('task', davis.TASKS)
def test_scores_equal_the_oracle(case, task):
    rng = np.random.default_rng(len(case))
    true_ids, predicted_ids = CASES[case]
    size = (33, 47)
    truth = moving_blobs(rng, size, 5, true_ids)
    if predicted_ids == 'permuted':
        prediction = np.roll(np.array([0, 3, 1, 2], np.uint8)[np.where(truth == 255, 0, truth)], 2, axis=2)
    else:
        prediction = moving_blobs(rng, size, 5, predicted_ids, void=False)
    count = davis.num_objects(truth[0])
    given = prediction[davis.scored_frames(5, task)]
    if task == 'semi-supervised' and given.max() > count:
        with pytest.raises(ValueError, match=f'object id {given.max()} .* allows at most {count}'):
            davis.score_sequence(truth, [given], task)
        return
    (scores,) = davis.score_sequence(truth, [given], task)
    region, boundary = oracle(truth, prediction, task)
    assert len(scores) == count == len(region)
    np.testing.assert_allclose([score['J'] for score in scores], region, rtol=0, atol=1e-12)
    np.testing.assert_allclose([score['F'] for score in scores], boundary, rtol=0, atol=1e-12)
    if case == 'permuted':
        # Only one task matches ids freely.
        assert (region.mean() > 0.5) == (task == 'unsupervised')


def test_several_predictions_of_a_larger_frame():
    rng = np.random.default_rng(1)
    size = (101, 131)
    truth = moving_blobs(rng, size, 2, {1: 0, 2: 0})
    predictions = [moving_blobs(rng, size, 2, {1: 0}, void=False), np.roll(truth, 3, 1) % 255]
    for scores, prediction in zip(davis.score_sequence(truth, predictions), predictions):
        region, boundary = oracle(truth, prediction, 'unsupervised')
        np.testing.assert_allclose([score['J'] for score in scores], region, rtol=0, atol=1e-12)
        np.testing.assert_allclose([score['F'] for score in scores], boundary, rtol=0, atol=1e-12)


def test_void_is_ignored_only_if_unsupervised():
    truth = np.zeros((3, 10, 10), np.uint8)
    truth[:, :5] = 1
    truth[:, 5:7] = 255
    prediction = np.zeros_like(truth)
    prediction[:, :7] = 1
    assert davis.score_sequence(truth, [prediction])[0][0]['J_mean'] == 1
    (score,) = davis.score_sequence(truth, [prediction[1:-1]], 'semi-supervised')[0]
    assert score['J'].tolist() == [50 / 70]


def test_objects_are_taken_from_the_first_frame():
    truth = np.zeros((2, 6, 8), np.uint8)
    truth[0, :2] = 2
    truth[1, 4:] = 3
    scores = davis.score_sequence(truth, [truth])[0]
    # 1 is scored though absent; 3 appears too late.
    assert [score['J_mean'] for score in scores] == [1, 1]
    truth[0] = 255
    assert davis.score_sequence(truth, [truth % 255])[0] == []


@pytest.mark.parametrize(
    'prediction, task, match',
    [
        (np.full((3, 4, 5), 21, np.uint8), 'unsupervised', 'object id 21 .* allows at most 20'),
        (np.zeros((3, 4, 5), np.uint8), 'semi-supervised', r'must be uint8 \(1, 4, 5\)'),
        (np.zeros((3, 4, 5), bool), 'unsupervised', 'got bool'),
    ],
)
def test_malformed_input_is_refused(prediction, task, match):
    with pytest.raises(ValueError, match=match):
        davis.score_sequence(np.ones((3, 4, 5), np.uint8), [prediction], task)


def test_sequences_without_scored_frames_are_refused():
    with pytest.raises(ValueError, match='at least 3 frames'):
        davis.score_sequence(np.ones((2, 4, 5), np.uint8), [np.ones((0, 4, 5), np.uint8)], 'semi-supervised')


def test_means_are_over_objects():
    truth = np.zeros((4, 20, 20), np.uint8)
    truth[:, 2:8, 2:8], truth[:, 12:18, 12:18], truth[:, 2:8, 12:18] = 1, 2, 3
    alone = np.where(truth == 1, truth, 0).astype(np.uint8)
    scores = {
        'a': {'three': davis.score_sequence(truth, [truth])[0], 'one': davis.score_sequence(alone, [alone * 0])[0]},
        'b': {'three': davis.score_sequence(truth, [truth * 0])[0], 'one': davis.score_sequence(alone, [alone])[0]},
    }
    summary = davis.summarise(scores)
    assert summary['annotators']['a']['J&F'] == pytest.approx(75)
    assert summary['annotators']['b']['J&F'] == pytest.approx(25)
    assert summary['J'] == summary['F'] == pytest.approx(50) and summary['objects'] == 4
    assert summary['annotators']['a']['videos']['three']['scores']['3'] == {'J': 100, 'F': 100}


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')


@pytest.mark.parametrize('part', ['', 'DAVIS/', 'valid/'])
@pytest.mark.parametrize('level', ['', '/480p'])
def test_find_truth(tmp_path, part, level):
    unsupervised, other = (tmp_path / f'{part}{kind}{level}' for kind in ('Annotations_unsupervised', 'Annotations'))
    for folder in (unsupervised, other):
        touch(folder, 'bear/00000.png', 'cow/00000.png', 'dog/00000.png')
    assert davis.find_truth(tmp_path, 'valid') == (unsupervised, ['bear', 'cow', 'dog'])
    assert davis.find_truth(tmp_path, 'valid', 'semi-supervised') == (other, ['bear', 'cow', 'dog'])
    listed = tmp_path / f'{part}ImageSets/2017/val.txt'
    listed.parent.mkdir(parents=True)
    listed.write_text('cow\nbear\n')
    assert davis.find_truth(tmp_path, 'valid')[1] == ['cow', 'bear']
    listed.write_text(''.join(f'/JPEGImages/480p/dog/{i:05d}.jpg /Annotations/2017/dog/{i:05d}.png \n' for i in (0, 1)))
    assert davis.find_truth(tmp_path, 'valid')[1] == ['dog']


def test_split_without_a_list(tmp_path):
    touch(tmp_path, 'DAVIS/Annotations/480p/bear/00000.png', 'DAVIS/Annotations/480p/cow/._00000.png')
    assert davis.find_truth(tmp_path, 'tarin')[1] == ['bear']
    for place in ('2017/class/train.txt', '2017/train.txt'):
        touch(tmp_path, f'DAVIS/ImageSets/{place}')
        (tmp_path / 'DAVIS/ImageSets' / place).write_text('bear\n')
        assert davis.find_truth(tmp_path, 'train')[1] == ['bear']
        for split in ('tarin', 'valid'):
            with pytest.raises(ValueError, match=f'no list of the sequences of split {split!r}, .*{place}'):
                davis.find_truth(tmp_path, split)


def test_incomplete_copies_of_the_ground_truth(tmp_path):
    # A folder kept only for its palette is ignored.
    touch(tmp_path, 'valid/Annotations/blackswan/00000.png')
    touch(tmp_path, 'DAVIS/Annotations_unsupervised/480p/blackswan/00000.png')
    touch(tmp_path, 'DAVIS/Annotations_unsupervised/480p/cow/00000.png')
    (tmp_path / 'DAVIS/ImageSets/2017').mkdir(parents=True)
    (tmp_path / 'DAVIS/ImageSets/2017/val.txt').write_text('blackswan\ncow\n')
    assert davis.find_truth(tmp_path, 'valid')[0] == tmp_path / 'DAVIS/Annotations_unsupervised/480p'
    (tmp_path / 'DAVIS/Annotations_unsupervised/480p/cow/00000.png').unlink()
    with pytest.raises(FileNotFoundError, match='1 sequences .* such as cow'):
        davis.find_truth(tmp_path, 'valid')
    with pytest.raises(FileNotFoundError, match='no index PNGs .* looked in .*Annotations_unsupervised/480p'):
        davis.find_truth(tmp_path / 'DAVIS/ImageSets', 'valid')


def test_find_predictions():
    four = [f'DVS_Annotations/anno_{number}/{name}/00000.png' for number in (2, 0, 1, 3) for name in ('cow', 'dog')]
    junk = ['__MACOSX/a/cow/00000.png', 'x/cow/._00000.png', 'README', 'a/b.png', 'x/cow/overlay.jpg']
    assert davis.find_predictions(junk + four, ['cow', 'dog']) == {
        f'anno_{number}': f'DVS_Annotations/anno_{number}/' for number in range(4)
    }
    assert davis.find_predictions(['cow/0.png', 'dog/0.png', *junk], ['cow']) == {'results': ''}
    assert davis.find_predictions(['a/anno_x/cow/0.png'], ['cow']) == {'results': 'a/anno_x/'}
    with pytest.raises(ValueError, match='no folder with'):
        davis.find_predictions(junk, ['cow'])
    with pytest.raises(ValueError, match=r'several folders \(a/, b/\)'):
        davis.find_predictions(['a/cow/0.png', 'b/cow/0.png'], ['cow'])
    with pytest.raises(ValueError, match='there must be anno_0 to anno_3'):
        davis.find_predictions(four[:4], ['cow'])
    with pytest.raises(ValueError, match='there must be anno_0 to anno_3'):
        davis.find_predictions([*four, 'old/anno_0/cow/0.png'], ['cow'])
