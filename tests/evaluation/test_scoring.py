"""Scores of expressions and their means, computed by hand."""

import json

import numpy as np
import pytest

from sgmg_jax.evaluation import scoring


def boxes(*spans, size=(20, 30)):
    """bool [T H W]: per frame, a box of full height over a span of columns."""
    masks = np.zeros((len(spans), *size), bool)
    for mask, (start, end) in zip(masks, spans):
        mask[:, start:end] = True
    return masks


def test_index_map_and_bool_mask_score_alike():
    truth = np.zeros((3, 20, 30), np.uint8)
    truth[:, 2:9, 3:12] = 2
    truth[:, 12:18, 15:28] = 1
    prediction = boxes((0, 10), (3, 12), (0, 0))
    of_map = scoring.score_expression(truth, 2, prediction)
    of_mask = scoring.score_expression(truth == 2, None, prediction)
    assert of_map.keys() == of_mask.keys()
    for key in of_map:
        np.testing.assert_array_equal(of_map[key], of_mask[key])
    np.testing.assert_allclose(of_map['J'], [49 / 214, 63 / 180, 0])
    assert of_map['J_mean'] == np.mean(of_map['J'])


def test_void_is_ignored():
    truth = np.zeros((1, 10, 10), np.uint8)
    truth[:, :5] = 1
    truth[:, 5:7] = scoring.VOID
    prediction = np.zeros((1, 10, 10), bool)
    prediction[:, :7] = True
    assert scoring.score_expression(truth, 1, prediction)['J'] == [1.0]
    assert scoring.score_expression(truth, 1, prediction)['F'] == [1.0]
    assert scoring.score_expression(truth == 1, None, prediction)['J'] == [50 / 70]


def test_absent_object():
    truth = np.ones((2, 6, 6), np.uint8)
    score = scoring.score_expression(truth, 3, boxes((0, 0), (1, 3), size=(6, 6)))
    assert score['J'].tolist() == [1, 0] and score['F'].tolist() == [1, 0]


@pytest.mark.parametrize(
    'truth, object_id, match',
    [
        (np.zeros((1, 4, 4), np.uint8), None, 'object_id None'),
        (np.zeros((1, 4, 4), np.uint8), -1, 'object_id -1'),
        (np.zeros((1, 4, 4), np.uint8), 255, 'object_id 255'),
        (np.zeros((1, 4, 4), bool), 1, 'must be None'),
        (np.zeros((1, 4, 4), np.int32), 1, 'got int32'),
        (np.zeros((4, 4), bool), None, r'\[T H W\]'),
        (np.zeros((2, 4, 4), bool), None, 'share one shape'),
    ],
)
def test_malformed_input_is_refused(truth, object_id, match):
    with pytest.raises(ValueError, match=match):
        scoring.score_expression(truth, object_id, np.zeros((1, 4, 4), bool))


def made_up(video, expression, tags, region, boundary):
    region, everywhere = np.array(region), np.ones(len(region), bool)
    score = scoring.with_statistics(region, np.array(boundary), everywhere, region > 0)
    return score | {'video': video, 'expression': expression, 'tags': tags}


def test_summary_by_hand():
    summary = scoring.summarise(
        [
            made_up('b', '0', ('motion', 'unseen'), [1.0, 0.0], [0.8, 0.6]),
            made_up('a', '0', ('relation',), [0.4], [0.2]),
            made_up('a', '1', ('motion',), [0.9, 0.9, 0.9], [0.5, 0.5, 0.5]),
        ]
    )
    # Each expression has the same weight, however many frames it has.
    assert summary['J'] == pytest.approx(100 * (0.5 + 0.4 + 0.9) / 3)
    assert summary['F'] == pytest.approx(100 * (0.7 + 0.2 + 0.5) / 3)
    assert summary['J&F'] == pytest.approx((summary['J'] + summary['F']) / 2)
    assert summary['J_recall'] == pytest.approx(100 * (0.5 + 0 + 1) / 3)
    assert summary['F_recall'] == pytest.approx(100 / 3)  # 0.5 itself is not above 0.5.
    # Of two frames, the first quarter is the first frame (edges 0 to 0), the last quarter the second.
    assert summary['J_decay'] == pytest.approx(100 * (1.0 + 0 + 0) / 3)
    assert (summary['expressions'], summary['frames']) == (3, 6)
    # Only the first expression changes: J by half either way, (J + F) / 2 from 0.9 to 0.3.
    assert summary['J_variance'] == pytest.approx(0.25 / 3)
    assert summary['F_variance'] == pytest.approx(0.01 / 3)
    assert summary['J&F_variance'] == pytest.approx(0.09 / 3)
    # The third is above 0.5 and 0.7 in every frame; 0.9 itself is not above 0.9.
    assert [summary[name] for name in scoring.MCS] == pytest.approx([100 / 3, 100 / 3, 0])
    assert summary['tIoU'] == pytest.approx(100 * (1 / 2 + 1 + 1) / 3)
    assert summary['vIoU'] == pytest.approx(100 * (1 / 2 + 0.4 + 0.9) / 3)

    assert list(summary['tags']) == ['motion', 'relation', 'unseen']
    assert summary['tags']['motion']['J'] == pytest.approx(70)
    assert summary['tags']['motion']['expressions'] == 2
    assert summary['tags']['unseen']['F'] == pytest.approx(70)
    assert summary['tags']['relation']['J&F'] == pytest.approx(30)
    assert list(summary['videos']) == ['a', 'b']
    assert summary['videos']['a']['J'] == pytest.approx(65)
    assert summary['videos']['a']['frames'] == 4
    assert summary['videos']['a']['scores'] == {
        '0': {'J': pytest.approx(40), 'F': pytest.approx(20)},
        '1': {'J': pytest.approx(90), 'F': pytest.approx(50)},
    }
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_undefined_decay_is_none():
    summary = scoring.summarise([made_up('a', '0', (), np.linspace(1, 0, 300), np.linspace(1, 0, 300))])
    assert summary['J_decay'] is None and summary['J'] == pytest.approx(50)
    assert summary['tags'] == {}
    json.dumps(summary, allow_nan=False)
    assert scoring.format_summary(summary).splitlines()[-1].split()[6:8] == ['-', '-']


def test_empty_and_duplicate_scores_are_refused():
    with pytest.raises(ValueError, match='no scored expression'):
        scoring.summarise([])
    score = made_up('a', '0', (), [0.5], [0.5])
    with pytest.raises(ValueError, match='video a: expression 0 is scored twice'):
        scoring.summarise([score, score])


def test_table_has_a_row_for_all_and_per_tag():
    summary = scoring.summarise([made_up('a', '0', ('motion',), [0.81], [0.6]), made_up('a', '1', (), [0.4], [0.2])])
    head, line, everything, motion = scoring.format_summary(summary).splitlines()
    assert head.split()[:3] == ['J&F', 'J', 'F'] and set(line) == {'-'}
    assert everything.split()[:4] == ['all', '50.25', '60.50', '40.00']
    assert motion.split()[:4] == ['motion', '70.50', '81.00', '60.00']
