"""Messages between processes, which are simulated here; tests/training/test_many_devices.py starts real ones."""

import json
import pickle

from hypothesis import given
from hypothesis import strategies as st
import jax
from jax.experimental import multihost_utils
import numpy as np
import pytest

from sgmg_jax import hosts
from sgmg_jax.evaluation import scoring

ARRAYS = [
    np.array(x).astype(kind)
    for kind in ('bool', 'uint8', 'int64', '>u2', 'float16', 'float32', 'float64')
    for x in ([], 7.1, [[0.1, 0], [1e-8, 255]])
] + [np.array([np.nan, -np.inf, -0.0, 5e-324])]
PLAIN = (
    st.sampled_from([None, False, True, *ARRAYS]) | st.integers() | st.floats() | st.text(st.characters(), max_size=9)
)
KEYS = st.sampled_from(['tuple', 'dict', 'array', 'J', '', 0, 10**20])
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=6,
)


def assert_alike(one, other):
    """Asserts equal values and types; floats must agree bit by bit, except that all NaNs are equal."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        for x, y in zip(one, other):
            assert_alike(x, y)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(np.signbit(one), np.signbit(other)) if one.dtype.kind == 'f' else None
    elif isinstance(one, float):
        assert repr(one) == repr(other)
    else:
        assert one == other


@given(VALUES)
def test_decode_inverts_encode(value):
    assert_alike(hosts.decode(hosts.encode(value)), value)


def test_only_plain_values_are_encoded():
    for value in (object(), {1, 2}, b'bytes', 1j, np.array(['a']), np.array([object()]), np.array([1j])):
        with pytest.raises(TypeError, match='a [a-z]+ cannot be sent to the other processes'):
            hosts.encode([{'a': value}])
    assert_alike(
        hosts.decode(hosts.encode([np.float32(0.1), np.int8(3), np.bool_(True), np.float64(0.1)])),
        [float(np.float32(0.1)), 3, True, 0.1],
    )


def test_decoding_runs_no_code():
    class Attack:
        def __reduce__(self):
            return pytest.fail, ('it ran',)

    with pytest.raises(ValueError):
        hosts.decode(pickle.dumps(Attack()))
    for unknown in ({'py/object': 'os.system'}, {'array': [1], 'shape': [1]}):
        with pytest.raises(ValueError, match='which this version does not send'):
            hosts.decode(json.dumps([unknown]).encode())


def rows(rng, count, video):
    return [
        scoring.with_statistics(*rng.random((2, 7)), *(rng.random((2, 7)) < 0.5))
        | {'video': video, 'expression': str(i), 'tags': ('ö', 'b')}
        for i in range(count)
    ] + [{'image_id': 5, 'segmentation': {'size': [4, 5], 'counts': '04`0'}, 'score': 0.1}]


def test_gather_gives_the_same_for_one_process_and_for_several(monkeypatch):
    rng = np.random.default_rng(0)
    found = {place: rows(rng, place % 3, f'video {place}') for place in range(7)}
    alone = hosts.gather(dict(reversed(found.items())))
    assert_alike(alone, [found[place] for place in range(7)])
    assert hosts.gather({}) == []

    parts = [{place: found[place] for place in range(i, 7, 3)} for i in range(3)] + [{}]
    lengths = [np.array([len(hosts.encode(part))]) for part in parts]

    def process_allgather(array):
        """The messages of all processes, stacked."""
        if array.dtype == np.uint8:
            assert len(array) == max(lengths)
            sent = [np.frombuffer(hosts.encode(part).ljust(len(array), b'\0'), np.uint8) for part in parts]
        else:
            sent = lengths
        assert any(np.array_equal(array, x) for x in sent)
        return np.stack(sent)

    monkeypatch.setattr(jax, 'process_count', lambda: 4)
    monkeypatch.setattr(multihost_utils, 'process_allgather', process_allgather)
    for part in parts:
        assert_alike(hosts.gather(part), alone)
