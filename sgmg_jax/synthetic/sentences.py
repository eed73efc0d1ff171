"""Sentences that are true of exactly one object of a clip.

Axis letters: T frames, K objects.
"""

from collections.abc import Sequence
import dataclasses
import itertools

from jaxtyping import Float, Int
import numpy as np

from sgmg_jax.synthetic.layout import BY_MOTION, RELATION_MARGIN
from sgmg_jax.synthetic.words import ATTRIBUTES, AWAY, HELD_OUT, READINESS, ObjectDescription

RELATIONS = {'left': (-1, 0), 'right': (1, 0), 'above': (0, -1), 'below': (0, 1)}
RELATION_DOMINANCE = 1.15  # Offset along the relation's axis over the offset across it.
_SUBSETS = tuple(names for n in range(5) for names in itertools.combinations(ATTRIBUTES, n))
_SUBSET_WEIGHT = (0.05, 0.5, 1.0, 0.3, 0.1)  # by the number of attributes named
MOVING = ('moving {}', 'that moves {}', 'going {}')
STANDING = ('standing still', 'that stands still', 'that does not move')
_BESIDE = ('{} of', 'to the {} of', 'on the {} of')
_OVER = ('{}', 'that is {}', 'placed {}')


@dataclasses.dataclass(frozen=True)
class Expression:
    """A sentence and the object it refers to.

    object_id: 1 to K, the object's value in the masks.
    tags: the kind of word that the sentence needs, 'attribute', 'motion' or 'relation'; then 'unseen' if the object's
        (colour, shape) is in HELD_OUT.
    """

    text: str
    object_id: int
    tags: tuple[str, ...]


def _sides(
    centroids: Float[np.ndarray, 'K T 2'], anchor: int, relation: str, size: tuple[int, int]
) -> Int[np.ndarray, ' K']:
    """Per object, +1: in that relation to the anchor, -1: in the opposite one, 0: unclear.

    The relation must hold in every frame in which both are visible.
    """
    direction = np.array(RELATIONS[relation])
    offset = centroids - centroids[anchor]  # [K T 2]
    along = offset @ direction
    across = np.abs(offset @ direction[::-1])
    margin = RELATION_MARGIN * abs(np.array(size[::-1]) @ direction)
    clear = np.isnan(along) | ((np.abs(along) >= margin) & (np.abs(along) >= RELATION_DOMINANCE * across))
    sign = np.where(np.isnan(along), 0, np.sign(along))
    same = np.abs(sign.sum(1)) == np.abs(sign).sum(1)
    return np.where(clear.all(1) & same, np.sign(sign.sum(1)), 0).astype(int)


def _matching(objects, words, names) -> list[int]:
    """Indices of the objects that share the attributes `names` with `words`."""
    return [k for k, o in enumerate(objects) if all(getattr(o, n) == getattr(words, n) for n in names)]


def _sample(rng, subsets, number) -> list[tuple[str, ...]]:
    """Up to `number` distinct sets of attributes to name."""
    weights = np.array([_SUBSET_WEIGHT[len(s)] * np.prod([READINESS[name] for name in s]) for s in subsets])
    picks = rng.choice(len(subsets), min(number, len(subsets)), replace=False, p=weights / weights.sum())
    return [subsets[i] for i in picks]


def _noun(words, names) -> str:
    """'small dotted red star'; 'one' replaces a shape that is not named."""
    named = [getattr(words, n) for n in names]
    return ' '.join(named if 'shape' in names else [*named, 'one'])


def _attribute_text(rng, words, names) -> str:
    article = 'a' if 'shape' in names and rng.random() < 0.25 else 'the'
    movable = [n for n in names if n != 'shape']
    if movable and rng.random() < 0.15:
        tail = movable[rng.integers(len(movable))]
        word = getattr(words, tail)
        ending = f'that is {word}'
        if word in ('striped', 'dotted') and rng.random() < 0.5:
            ending = {'striped': 'with stripes', 'dotted': 'with dots'}[word]
        return f'{article} {_noun(words, [n for n in names if n != tail])} {ending}'
    return f'{article} {_noun(words, names)}'


def make_expressions(
    rng: np.random.Generator,
    kind: str,
    objects: Sequence[ObjectDescription],
    centroids: Float[np.ndarray, 'K T 2'],
    size: tuple[int, int],
) -> list[Expression] | None:
    """Sentences true of exactly one object each; None if the clip is not suitable for its kind.

    Args:
        kind: of the clip, a key of layout.KINDS.
        objects: K. centroids: see `drawing.centroids`. size: H and W.
    """
    found: dict[str, tuple[int, str]] = {}  # text -> (index of the object, kind of word)
    group: list[int] = []  # objects that differ only in their motion, or only in the relation

    def add(text: str, target: int, tag: str) -> None:
        found.setdefault(text, (target, tag))

    alike = [[j for j, o in enumerate(objects) if o.look == w.look] for w in objects]
    if kind in BY_MOTION:
        group = max(alike, key=len)

        def needs_motion(names: Sequence[str], target: int) -> bool:
            others = [objects[j].motion for j in _matching(objects, objects[target], names) if j != target]
            return bool(others) and not {objects[target].motion, AWAY} & set(others)

        subsets = [s for s in _SUBSETS if all(needs_motion(s, k) for k in group)]
        if not subsets:
            return None
        for names in _sample(rng, subsets, 3 if len(group) == 2 else 2):
            number = rng.integers(3)  # The same template for all: only the direction may differ.
            for k in group:
                motion = objects[k].motion
                phrase = STANDING[number] if motion == 'still' else MOVING[number].format(motion)
                add(f'the {_noun(objects[k], names)} {phrase}', k, 'motion')
        for k, words in enumerate(objects):
            if k not in group and words.motion != AWAY and needs_motion((), k) and rng.random() < 0.4:
                phrase = (STANDING if words.motion == 'still' else MOVING)[rng.integers(3)]
                add(f'the one {phrase.format(words.motion)}', k, 'motion')

    if kind == 'relation':
        # Judged by the geometry alone: any anchor and side that truly hold are used.
        chances = []
        for anchor, relation in itertools.product(range(len(objects)), ('left', 'above')):
            sides = _sides(centroids, anchor, relation, size)
            for names in _SUBSETS:
                for one, other in itertools.permutations(range(len(objects)), 2):
                    rivals = [j for j in _matching(objects, objects[one], names) if j != anchor]
                    if sorted(rivals) == sorted([one, other]) and sides[one] == 1 and sides[other] == -1:
                        chances.append((anchor, relation, one, other, names))
        anchors = {c[0]: [s for s in _SUBSETS if len(_matching(objects, objects[c[0]], s)) == 1] for c in chances}
        groups = sorted(
            {
                c[:4]
                for c in chances
                if anchors[c[0]] and _matching(objects, objects[c[2]], ('colour', 'shape')) == sorted(c[2:4])
            }
        )
        if not groups:
            return None
        anchor, relation, one, other = groups[rng.integers(len(groups))]
        group = [one, other]
        subsets = [c[4] for c in chances if c[:4] == (anchor, relation, one, other)]
        for names in _sample(rng, subsets, 3):
            template = (_BESIDE if relation == 'left' else _OVER)[rng.integers(3)]
            anchor_noun = _noun(objects[anchor], _sample(rng, anchors[anchor], 1)[0])
            for k, word in ((one, relation), (other, {'left': 'right', 'above': 'below'}[relation])):
                phrase = template.format(word)
                add(f'the {_noun(objects[k], names)} {phrase} the {anchor_noun}', k, 'relation')

    near_miss = kind != 'attribute'
    for k, words in enumerate(objects):
        subsets = [s for s in _SUBSETS if _matching(objects, words, s) == [k]]
        count = 2 if k not in group else int(rng.random() < 0.3)
        for names in _sample(rng, subsets, count) if subsets else ():
            add(_attribute_text(rng, words, names), k, 'attribute')
            agree = [sum(getattr(o, n) == getattr(words, n) for n in names) for o in objects]
            near_miss |= len(names) > 1 and len(names) - 1 in agree
    if not near_miss or {k for k, _ in found.values()} != set(range(len(objects))):
        return None
    unseen = [('unseen',) if (o.colour, o.shape) in HELD_OUT else () for o in objects]
    listed = [Expression(text, k + 1, (tag, *unseen[k])) for text, (k, tag) in found.items()]
    return [listed[i] for i in rng.permutation(len(listed))]
