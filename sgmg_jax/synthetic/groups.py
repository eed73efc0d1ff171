"""Sentences of MeViS's kinds about a clip: true of several objects, of one, or of none.

Axis letters: K objects.
"""

from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from sgmg_jax.synthetic.sentences import MOVING, STANDING, Expression
from sgmg_jax.synthetic.words import ATTRIBUTES, AWAY, HELD_OUT, MOTIONS, ObjectDescription

MOST_OF_ONE = 4  # sentences per clip that mean one object
MOST_OF_SEVERAL, MOST_OF_NONE = 2, 2
_NUMBERS = {2: 'two', 3: 'three', 4: 'four'}
_MANY_MOVING = ('moving {}', 'that move {}', 'going {}')
_MANY_STANDING = ('standing still', 'that stand still', 'that do not move')


@dataclasses.dataclass(frozen=True)
class GroupExpression:
    """A sentence and the objects whose union it refers to.

    object_ids: 1 to K, the objects' values in the masks, ascending; empty for a sentence that is true of none.
    """

    text: str
    object_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Meaning:
    """What a sentence says: values of some attributes, in the order of ATTRIBUTES, and a motion if there is one."""

    named: tuple[tuple[str, str], ...]
    motion: str | None

    def true_of(self, objects: Sequence[ObjectDescription]) -> list[int] | None:
        """Indices of the objects; None if one of those that look so leaves and returns: its motion has no name."""
        found = [k for k, o in enumerate(objects) if self._misses(o) == 0]
        if self.motion is None:
            return found
        if any(objects[k].motion == AWAY for k in found):
            return None
        return [k for k in found if objects[k].motion == self.motion]

    def nearly_true_of(self, described: ObjectDescription) -> bool:
        """Whether exactly one of its words is wrong for the object."""
        return self._misses(described) + (self.motion not in (None, described.motion)) == 1

    def _misses(self, described: ObjectDescription) -> int:
        return sum(getattr(described, name) != value for name, value in self.named)

    def text(self, rng: np.random.Generator, count: int) -> str:
        """A sentence about `count` objects; one and none are spoken of alike."""
        named = dict(self.named)
        words, many, number = ' '.join([*named.values()] + ['one'] * ('shape' not in named)), count > 1, rng.integers(3)
        if many:
            words += 'es' if words.endswith('cross') else 's'
            if rng.random() < 0.5:
                words = f'{_NUMBERS[count]} {words}'
        if self.motion is None:
            return f'the {words}'
        moving, standing = (_MANY_MOVING, _MANY_STANDING) if many else (MOVING, STANDING)
        return f'the {words} {standing[number] if self.motion == "still" else moving[number].format(self.motion)}'


def group_expressions(
    rng: np.random.Generator, objects: Sequence[ObjectDescription], of_one: Sequence[Expression]
) -> list[GroupExpression]:
    """Sentences about a clip, in random order.

    Those that mean several objects are not true of all. To those that mean none an object comes close, one word is
    wrong for it; they name no pair of HELD_OUT, or training would teach that there is no such object.

    Args:
        objects: the K of the clip; object k is objects[k - 1].
        of_one: the clip's own sentences; at most MOST_OF_ONE are taken.
    """
    found = {e.text: (e.object_id,) for e in (of_one[i] for i in rng.permutation(len(of_one))[:MOST_OF_ONE])}
    several, none = [], []
    for meaning in _meanings(objects):
        true_of = meaning.true_of(objects)
        if true_of is None:
            continue
        if 1 < len(true_of) < len(objects):
            several.append((meaning, tuple(k + 1 for k in true_of)))
        elif not true_of and any(map(meaning.nearly_true_of, objects)):
            named = dict(meaning.named)
            if (named.get('colour'), named.get('shape')) not in HELD_OUT:
                none.append((meaning, ()))
    for meanings, most in ((several, MOST_OF_SEVERAL), (none, MOST_OF_NONE)):
        for meaning, ids in _sample(rng, meanings, most):
            found.setdefault(meaning.text(rng, len(ids)), ids)
    listed = [GroupExpression(text, ids) for text, ids in found.items()]
    return [listed[i] for i in rng.permutation(len(listed))]


def _sample(rng: np.random.Generator, meanings: list[Any], most: int) -> list[Any]:
    """At most so many. Each time a motion is as likely as none, where there are both; many more meanings say one."""
    if not meanings:
        return []
    moving = np.array([meaning.motion is not None for meaning, _ in meanings])
    weights = np.where(moving, 1 / max(1, moving.sum()), 1 / max(1, (~moving).sum()))
    chosen = rng.choice(len(meanings), min(most, len(meanings)), replace=False, p=weights / weights.sum())
    return [meanings[index] for index in chosen]


def _meanings(objects: Sequence[ObjectDescription]) -> list[_Meaning]:
    """Everything that can be said with the values of the clip's objects, in a fixed order."""
    values = {name: [None, *sorted({getattr(o, name) for o in objects})] for name in ATTRIBUTES}
    said = []
    for combination, motion in itertools.product(itertools.product(*values.values()), (None, *MOTIONS)):
        named = tuple((name, value) for name, value in zip(ATTRIBUTES, combination) if value is not None)
        if named or motion:
            said.append(_Meaning(named, motion))
    return said
