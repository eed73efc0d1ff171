"""A procedural world: short videos of several moving shapes, and sentences that each refer to one of them.

    python -m sgmg_jax.synthetic --out=data/synthetic_raw --train=600 --valid=40

writes it in the raw layout of Ref-YouTube-VOS; with `--layout=mevis` in that of MeViS, where sentences also mean
several objects or none (groups.py). In Python, `make_video(seed)` returns one clip.

Every sentence is true of exactly one object of its clip. There are three kinds of clips, so that a model must
understand every kind of word:

attribute  all objects look different, some in one word only: 'the small dotted red star'.
motion     two or three objects look exactly alike and move differently: 'the red star moving left'.
           The clip is symmetric in time around its middle, where positions are independent of
           direction, and an axis without motion is drawn from the positions that motion would visit.
           So a frame at an unknown time says nothing about the directions.
relation   two objects share the named words on opposite sides of a third, the anchor:
           'the star left of the blue square'. The three move together or stand still.

Only on demand (`--kind`), and for training: alike, where all objects look alike, so that nothing but motion helps.

In about one clip of five an object passes behind another; in one of six an object leaves and returns.
"""

from sgmg_jax.synthetic.dataset import write_dataset
from sgmg_jax.synthetic.video import SyntheticVideo, make_video

__all__ = 'SyntheticVideo', 'make_video', 'write_dataset'
