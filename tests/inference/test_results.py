"""Masks in the forms that other tools take."""

import sys
import types

import numpy as np
from pycocotools import mask as rle
import pytest

from sgmg_jax.inference import results


def masks():
    found = np.zeros((3, 20, 30), bool)
    found[0, 4:9, 7:21] = True
    found[2, 19, 29] = True
    return found


def test_run_lengths_are_those_of_coco():
    for mask in masks():
        coded = results.to_rle(mask)
        if mask.any():
            assert coded['size'] == [20, 30] and isinstance(coded['counts'], str)
            np.testing.assert_array_equal(rle.decode(coded), mask)
        else:
            assert coded is None


def test_detections_of_supervision(monkeypatch):
    supervision = types.SimpleNamespace(Detections=lambda **fields: fields)
    monkeypatch.setitem(sys.modules, 'supervision', supervision)
    found = results.to_detections(masks(), np.array([0.5, 0.6, 0.7], np.float32), ['a', 'b', 'c'])
    np.testing.assert_array_equal(found['xyxy'], [[7, 4, 21, 9], [29, 19, 30, 20]])
    np.testing.assert_array_equal(found['mask'], masks()[[0, 2]])
    assert found['confidence'] == pytest.approx([0.5, 0.7])
    assert list(found['class_id']) == list(found['tracker_id']) == [0, 2]
    assert list(found['data']['class_name']) == ['a', 'c']
    none = results.to_detections(masks()[1:2], np.array([0.1], np.float32), ['b'])
    assert none['xyxy'].shape == (0, 4) and none['mask'].shape == (0, 20, 30)
