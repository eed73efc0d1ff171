"""Chooses the objects of a clip and their paths.

Axis letters: T frames, H W pixels.
"""

import dataclasses

from jaxtyping import Float
import numpy as np

from sgmg_jax.synthetic.words import AWAY, MOTIONS, SIZES, ObjectDescription, change_one, random_words

# Of clips, and the share of each in the world. In 'alike' all objects look alike: it is for training only.
KINDS = {'attribute': 0.5, 'motion': 0.25, 'relation': 0.25, 'alike': 0.0}
BY_MOTION = 'motion', 'alike'  # the kinds whose sentences need motion
EVENTS = {'cross': 0.20, 'away': 0.17, 'none': 0.63}
RELATION_MARGIN = 0.12  # of the frame's side along the relation's axis
_SPEED = (3.0, 6.0)  # pixels per frame, in a frame of 128
_MAX_TRAVEL = 0.36  # of the shorter side, over the whole clip


@dataclasses.dataclass
class Body:
    """An object of a layout; its centres are (x, y) in pixels, empty before it is placed."""

    words: ObjectDescription
    diameter: float
    angle: float
    phase: float
    centres: Float[np.ndarray, 'T 2'] = dataclasses.field(default_factory=lambda: np.empty((0, 2)))

    @property
    def radius(self) -> float:
        return self.diameter / 2


def lay_out(
    rng: np.random.Generator, kind: str, event: str, num_frames: int, size: tuple[int, int], unseen: bool
) -> list[Body] | None:
    """Objects from far to near, placed in every frame; None if this random draw failed."""
    # The object of the event is the last one, and never in the group of a relation.
    number = 4 if kind == 'relation' and event != 'none' else 3 + int(rng.random() < 0.3)
    first = random_words(rng, unseen, held_out=unseen)
    if kind == 'attribute':
        looks = [first, change_one(rng, first, unseen)]
    elif kind == 'alike':
        looks = [first] * number
    elif kind == 'motion':
        looks = [first] * (3 if number == 4 and rng.random() < 0.15 else 2)
    else:
        second = first if rng.random() < 0.5 else change_one(rng, first, unseen, ('size', 'texture'))
        anchor = (
            change_one(rng, first, unseen, ('colour', 'shape'))
            if rng.random() < 0.2
            else random_words(rng, unseen, taken=[first.colour])
        )
        looks = [first, second, anchor]
    alike = looks.count(first)
    while len(looks) < number:
        looks.append(random_words(rng, unseen, taken=[look.colour for look in looks]))
    if len(set(looks)) != number - alike + 1 or looks.count(first) != alike:
        return None

    scale = min(size) / 128
    bodies = [Body(w, rng.uniform(*SIZES[w.size]) * scale, rng.uniform(-0.2, 0.2), rng.uniform()) for w in looks]
    for body in bodies[1:]:
        if body.words == first:  # Objects of the same look must not differ in any detail.
            body.diameter, body.angle, body.phase = bodies[0].diameter, bodies[0].angle, bodies[0].phase

    fastest = min(_SPEED[1] * scale, _MAX_TRAVEL * min(size) / (num_frames - 1))
    slowest = min(_SPEED[0] * scale, fastest / 2)
    # Objects that look alike are slower: the less they travel, the less even a frame at a known time reveals their
    # direction.
    speeds = [rng.uniform(slowest, 0.75 * fastest if kind in BY_MOTION else fastest) for _ in bodies]
    motions = rng.choice(list(MOTIONS), number).tolist()
    if kind in BY_MOTION:
        motions[:alike] = rng.choice(list(MOTIONS), alike, replace=False).tolist()
    extent = np.array(size[::-1])
    placed: list[Body] = []
    partner = None
    if kind == 'relation':
        if not _place_group(rng, bodies[:3], motions[0], slowest, num_frames, size):
            return None
        placed = bodies[:3]
    for index in range(len(placed), number):
        body, motion = bodies[index], motions[index]
        eventful = event != 'none' and index == number - 1
        partner = bodies[rng.integers(index)] if eventful and event == 'cross' else None
        for _ in range(40):
            if partner is not None:
                motion, body.centres = _cross(rng, body, partner, fastest)
            elif eventful:
                motion, body.centres = _leave_and_return(rng, body, num_frames, size)
            else:
                body.centres = _straight(rng, body, motion, speeds[index], num_frames, size)
            inside = np.all((body.centres >= body.radius) & (body.centres <= extent - body.radius))
            if (inside or motion == AWAY) and all(o is partner or _apart(body, o) for o in placed):
                break
        else:
            return None
        body.words = dataclasses.replace(body.words, motion=motion)
        placed.append(body)

    order = rng.permutation(number).tolist()
    if partner is not None:  # The larger of the two that cross passes in front.
        partner_index = next(i for i, b in enumerate(bodies) if b is partner)
        near, far = (
            (partner_index, number - 1)
            if bodies[partner_index].diameter > bodies[-1].diameter
            else (number - 1, partner_index)
        )
        i, j = order.index(far), order.index(near)
        if i > j:
            order[i], order[j] = order[j], order[i]
    return [bodies[i] for i in order]


def _around_middle(num_frames: int) -> np.ndarray:
    return np.arange(num_frames) - (num_frames - 1) / 2


def _straight(rng, body, motion, speed, num_frames, size) -> np.ndarray:
    """Centres [T 2] of a path that stays in the frame."""
    steps = _around_middle(num_frames)
    margin = body.radius + speed * steps[-1]
    middle = rng.uniform(margin, np.array(size[::-1]) - margin)
    direction = np.array(MOTIONS[motion])
    # Without motion along an axis, the position is that of a random moment of such a motion: otherwise the position
    # would reveal standing still, or moving along the other axis.
    middle += np.where(direction == 0, speed * rng.choice(steps, 2), 0)
    return middle + steps[:, None] * speed * direction


def _cross(rng, body, partner, speed) -> tuple[str, np.ndarray]:
    """Motion and centres of a path that meets the partner's in the middle of the clip."""
    steps = _around_middle(len(partner.centres))
    opposite = {'left': 'right', 'right': 'left', 'up': 'down', 'down': 'up'}
    motion = opposite.get(partner.words.motion) or rng.choice(list(opposite)).item()
    direction = np.array(MOTIONS[motion])
    reach = 0.2 * (body.radius + partner.radius)
    middle = partner.centres.mean(0) + rng.uniform(-reach, reach, 2)
    return motion, middle + steps[:, None] * rng.uniform(0.8, 1) * speed * direction


def _leave_and_return(rng, body, num_frames, size) -> tuple[str, np.ndarray]:
    """Motion and centres of a path that leaves the frame and returns: it is outside in the middle of the clip."""
    steps = np.abs(_around_middle(num_frames))
    reach = body.radius + 1
    depth = -reach + (steps - 0.5) * 2 * reach / (steps[0] - 0.5)
    axis = rng.integers(2)
    centres = np.empty((num_frames, 2))
    centres[:, axis] = depth if rng.random() < 0.5 else size[1 - axis] - depth
    centres[:, 1 - axis] = rng.uniform(body.radius, size[axis] - body.radius)
    return AWAY, centres


def _place_group(rng, bodies, motion, slowest, num_frames, size) -> bool:
    """Sets the paths of (one, other, anchor): on opposite sides of the anchor, all with the same motion."""
    if rng.random() < 0.5:
        motion = 'still'
    axis = rng.integers(2)
    extent = np.array(size[::-1])
    one, other, anchor = bodies
    offsets = np.zeros((3, 2))
    for i, (body, side) in enumerate(zip((one, other), rng.permutation([-1, 1]))):
        near = max(body.radius + anchor.radius, 1.1 * RELATION_MARGIN * extent[axis])
        gap = near * rng.uniform(1.0, 1.5)
        offsets[i, axis] = side * gap
        offsets[i, 1 - axis] = rng.uniform(-0.7, 0.7) * gap
    steps = _around_middle(num_frames)
    travel = steps[:, None] * slowest * rng.uniform(1, 1.3) * np.array(MOTIONS[motion])
    radii = np.array([b.radius for b in bodies])[:, None]
    low = (radii - offsets).max(0) - travel.min(0)
    high = (extent - radii - offsets).min(0) - travel.max(0)
    if np.any(low > high):
        return False
    middle = rng.uniform(low, high)
    for body, offset in zip(bodies, offsets):
        body.centres = middle + offset + travel
        body.words = dataclasses.replace(body.words, motion=motion)
    return True


def _apart(body: Body, other: Body) -> bool:
    """Whether two paths keep apart: fully at both ends of the clip, in between enough for both to be visible."""
    distance = np.linalg.norm(body.centres - other.centres, axis=1) / (body.radius + other.radius)
    # The same rule for the first and the last frame: nothing may reveal the direction of time.
    alike = body.words.look == other.words.look
    return bool(distance[[0, -1]].min() >= 1 and distance.min() >= (1 if alike else 0.65))
