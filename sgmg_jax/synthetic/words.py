"""What an object looks like, and the words for it."""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools

import numpy as np

COLOURS = {
    'red': (222, 38, 38),
    'green': (44, 160, 52),
    'blue': (46, 84, 232),
    'yellow': (246, 214, 34),
    'purple': (158, 44, 196),
    'cyan': (58, 222, 232),
}
SHAPES = ('circle', 'square', 'triangle', 'star', 'cross', 'ring')
SIZES = {'small': (22.0, 28.0), 'large': (38.0, 48.0)}  # pixels across, in a frame of 128
TEXTURES = ('plain', 'striped', 'dotted')
MOTIONS = {'left': (-1, 0), 'right': (1, 0), 'up': (0, -1), 'down': (0, 1), 'still': (0, 0)}
AWAY = 'away and back'  # Leaves the frame and returns: no sentence names it as a motion.

# Combinations that no training clip shows; each colour and each shape is in exactly one of them.
HELD_OUT = (
    ('red', 'triangle'),
    ('green', 'star'),
    ('blue', 'ring'),
    ('yellow', 'circle'),
    ('purple', 'cross'),
    ('cyan', 'square'),
)

ATTRIBUTES = ('size', 'texture', 'colour', 'shape')  # in the order of English adjectives
READINESS = {'size': 0.5, 'texture': 0.5, 'colour': 4.0, 'shape': 3.0}  # weight of naming or changing an attribute
_TEXTURES = {'plain': 0.5, 'striped': 0.25, 'dotted': 0.25}


@dataclasses.dataclass(frozen=True)
class ObjectDescription:
    """The words that are true of an object over the whole clip.

    motion: a key of MOTIONS, or AWAY.
    """

    size: str
    texture: str
    colour: str
    shape: str
    motion: str = 'still'

    @property
    def look(self) -> tuple[str, str, str, str]:
        """Everything that a single frame shows."""
        return self.size, self.texture, self.colour, self.shape


def pick(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    """A random key of `shares`, whose values are the probabilities."""
    return list(shares)[rng.choice(len(shares), p=list(shares.values()))]


def random_words(
    rng: np.random.Generator, unseen: bool, held_out: bool = False, taken: Sequence[str] = ()
) -> ObjectDescription:
    """A random look, of a colour that is not in `taken`; with `held_out`, of HELD_OUT."""
    if held_out:
        colour, shape = HELD_OUT[rng.integers(len(HELD_OUT))]
    else:
        pairs = [
            (colour, shape)
            for colour, shape in itertools.product(COLOURS, SHAPES)
            if colour not in taken and (unseen or (colour, shape) not in HELD_OUT)
        ]
        colour, shape = pairs[rng.integers(len(pairs))]
    return ObjectDescription(
        size=rng.choice(list(SIZES)).item(), texture=pick(rng, _TEXTURES), colour=colour, shape=shape
    )


def change_one(
    rng: np.random.Generator, words: ObjectDescription, unseen: bool, names: Sequence[str] = ATTRIBUTES
) -> ObjectDescription:
    """Another look that differs from `words` in exactly one of the attributes `names`."""
    values = {'size': SIZES, 'texture': TEXTURES, 'colour': COLOURS, 'shape': SHAPES}
    weights = np.array([READINESS[name] for name in names])
    name = names[rng.choice(len(names), p=weights / weights.sum())]
    others = [dataclasses.replace(words, **{name: value}) for value in values[name] if value != getattr(words, name)]
    others = [w for w in others if unseen or (w.colour, w.shape) not in HELD_OUT]
    return others[rng.integers(len(others))]
