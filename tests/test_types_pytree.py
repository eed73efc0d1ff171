"""The contract's dataclasses as JAX sees them."""

import dataclasses

import jax
import numpy as np
import pytest

from sgmg_jax import types

TEXT = types.Text(np.zeros((2, 3), int), np.ones((2, 3), bool))


def test_jax_rebuilds_it_with_any_leaves():
    shapes = jax.tree.map(lambda x: x.shape, TEXT)
    assert isinstance(shapes, types.Text) and shapes.tokens == shapes.valid == (2, 3)
    doubled = jax.jit(lambda text: jax.tree.map(lambda x: 2 * x[0], text))(TEXT)
    np.testing.assert_array_equal(doubled.valid, [2, 2, 2])


def test_paths_name_the_fields():
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(TEXT)]
    assert paths == ['.tokens', '.valid']


def test_objects_are_frozen_and_can_be_replaced():
    changed = dataclasses.replace(TEXT, tokens=np.ones((2, 3), int))
    assert changed.tokens.all() and changed.valid is TEXT.valid and not TEXT.tokens.any()
    with pytest.raises(dataclasses.FrozenInstanceError):
        TEXT.tokens = changed.tokens
