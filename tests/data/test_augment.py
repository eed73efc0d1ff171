import dataclasses

import cv2
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from sgmg_jax.data import augment, clips


def make_sample(height=54, width=97, frames=3, seed=0, sentence='the cat on the left'):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (frames, 6, 9, 3), dtype=np.uint8)
    images = np.stack([cv2.resize(image, (width, height)) for image in small])
    masks = np.zeros((frames, height, width), bool)
    masks[0, 10:30, 20:50] = masks[1:2, 12:32, 25:55] = True  # Absent in the last frame.
    return clips.Sample(images, masks, *clips.boxes_of_masks(masks), (sentence,))


SMALL = augment.Augmentation(
    scales=(32, 40, 48),
    max_size=80,
    crop_scales=(44, 60),
    crop_size=(30, 50),
    cropped_scales=(32, 40, 48),
    cropped_max_size=80,
)


@pytest.mark.parametrize(
    'before, after',
    [
        ('the cat on the left', 'the cat on the right'),
        ('a bright light, upright, copyright, cleft, leftover, rightful', None),
        ('Left of the RIGHT one', 'Right of the LEFT one'),
        ('leftmost and rightmost, left-most', 'rightmost and leftmost, right-most'),
        (
            'left-hand, right-handed, lefthand, leftward, rightwards',
            'right-hand, left-handed, righthand, rightward, leftwards',
        ),
        ('second from_left, top-right, 2left', 'second from_right, top-left, 2right'),
        ("the left's and right.", "the right's and left."),
        ('', None),
    ],
)
def test_swap_sides(before, after):
    assert augment.swap_sides(before) == (before if after is None else after)
    assert augment.swap_sides(augment.swap_sides(before)) == before


def test_mirror():
    sample = make_sample()
    mirrored = augment.mirror(sample)
    np.testing.assert_array_equal(mirrored.frames, np.flip(sample.frames, 2))
    np.testing.assert_array_equal(mirrored.masks, np.flip(sample.masks, 2))
    # As released: nothing is subtracted.
    np.testing.assert_array_equal(mirrored.boxes[0], [97 - 49, 10, 97 - 20, 29])
    np.testing.assert_array_equal(mirrored.boxes[2], 0)
    assert mirrored.sentences == ('the cat on the right',)
    twice = augment.mirror(mirrored)
    for field in ('frames', 'masks', 'boxes', 'present'):
        np.testing.assert_array_equal(getattr(twice, field), getattr(sample, field))


def test_flip_is_drawn_once_per_clip_with_its_probability():
    sample = make_sample()
    rng = np.random.default_rng(0)
    flipped = [augment.flip(sample, rng, SMALL).sentences != sample.sentences for _ in range(1000)]
    np.testing.assert_allclose(np.mean(flipped), 0.5, atol=0.05)
    never = dataclasses.replace(SMALL, flip_probability=0)
    assert not any(augment.flip(sample, rng, never) is not sample for _ in range(50))


@pytest.mark.parametrize('height, width', [(27, 48), (108, 194), (54, 97), (20, 31)])
def test_resize_scales_all_three(height, width):
    sample = make_sample()
    resized = augment.resize_to(sample, height, width)
    assert resized.frames.shape == (3, height, width, 3) and resized.masks.shape == (3, height, width)
    # Nearest neighbour, as in PyTorch: the source index is rounded down.
    rows = np.floor(np.arange(height) * (54 / height)).astype(int)
    columns = np.floor(np.arange(width) * (97 / width)).astype(int)
    np.testing.assert_array_equal(resized.masks, sample.masks[:, rows][:, :, columns])
    np.testing.assert_allclose(resized.boxes, sample.boxes * np.tile([width / 97, height / 54], 2), rtol=1e-6)
    assert abs(resized.frames.mean() - sample.frames.mean()) < 2


def test_frames_are_averaged_when_smaller_and_interpolated_when_larger():
    sample = make_sample(64, 96)
    fine = np.where(np.indices((64, 96)).sum(0) % 2, 255, 0).astype(np.uint8)  # a chequerboard of single pixels
    smaller = augment.resize_to(dataclasses.replace(sample, frames=np.stack([fine] * 3, -1)[None]), 32, 48)
    assert smaller.frames.min() >= 127 and smaller.frames.max() <= 128
    edge = np.repeat(np.uint8([0, 240]), 48)[None, None, :, None] * np.ones((1, 64, 1, 3), np.uint8)
    larger = augment.resize_to(dataclasses.replace(sample, frames=edge), 128, 192)
    np.testing.assert_array_equal(
        larger.frames[0, :, 94:98], np.uint8([0, 60, 180, 240])[None, :, None].repeat(3, -1).repeat(128, 0)
    )


def test_crop_cuts_boxes_and_check_drops_those_without_extent():
    sample = make_sample()
    cropped = augment.check(augment.crop(sample, 5, 30, 10, 20))
    np.testing.assert_array_equal(cropped.frames, sample.frames[:, 5:15, 30:50])
    np.testing.assert_array_equal(cropped.masks, sample.masks[:, 5:15, 30:50])
    np.testing.assert_array_equal(cropped.boxes, [[0, 5, 19, 10], [0, 7, 20, 10], [0, 0, 0, 0]])
    np.testing.assert_array_equal(cropped.present, [True, True, False])
    away = augment.check(augment.crop(sample, 40, 0, 10, 20))
    assert not away.present.any() and not away.boxes.any() and not away.masks.any()


def test_select_gives_the_sizes_of_the_release():
    sample = make_sample(360, 640)
    rng = np.random.default_rng(0)
    whole = dataclasses.replace(augment.Augmentation(), crop_probability=0)
    sizes = {augment.select(sample, rng, whole).frames.shape[1:3] for _ in range(80)}
    assert sizes == {(288, 512), (320, 568), (352, 625), (360, 640)}
    cut = dataclasses.replace(augment.Augmentation(), crop_probability=1)
    for _ in range(20):
        height, width = augment.select(sample, rng, cut).frames.shape[1:3]
        assert max(height, width) <= 640 and min(height, width) <= 512
        assert max(height, width) / min(height, width) <= 600 / 384 + 0.01


def test_mask_and_box_agree_after_all_steps():
    rng = np.random.default_rng(0)
    checked = 0
    for seed in range(60):
        sample = augment.apply(make_sample(seed=seed), rng, SMALL, (48, 80))
        assert sample.frames.shape[1] <= 48 and sample.frames.shape[2] <= 80
        assert sample.frames.shape[:3] == sample.masks.shape and sample.frames.dtype == np.uint8
        found, present = clips.boxes_of_masks(sample.masks)
        for box, there, mask_box, mask_there in zip(sample.boxes, sample.present, found, present):
            if there and mask_there:
                np.testing.assert_allclose(box, mask_box, atol=4)  # two pixels, before up to two enlargements
                checked += 1
            assert there or not box.any()
    assert checked > 60


def test_a_tall_clip_is_scaled_to_fit_the_static_shape():
    still = dataclasses.replace(SMALL, order=())
    fitted = augment.apply(make_sample(97, 54), np.random.default_rng(0), still, (40, 64))
    assert fitted.frames.shape[1:3] == (40, 22)
    as_it_is = augment.apply(make_sample(30, 60), np.random.default_rng(0), still, (40, 64))
    assert as_it_is.frames.shape[1:3] == (30, 60)


def test_steps_run_in_the_order_of_the_field(monkeypatch):
    seen = []
    monkeypatch.setattr(
        augment,
        'STEPS',
        {name: lambda sample, rng, augmentation, name=name: seen.append(name) or sample for name in 'abc'},
    )
    augment.apply(make_sample(), np.random.default_rng(0), augment.Augmentation(order=('b', 'a', 'c')), (54, 97))
    assert seen == ['b', 'a', 'c']
    with pytest.raises(ValueError, match="augmentation.order: 'd' must be one of a, b, c"):
        augment.Augmentation(order=('a', 'd'))


SIZE = 'must be a whole number from 16 to 8192'


@pytest.mark.parametrize(
    'field, value, words',
    [
        ('order', ('mirror',), "'mirror' must be one of select, flip, photometric"),
        ('order', 'flip', 'must be a tuple'),
        ('order', None, 'must be a tuple'),
        ('order', ('flip', ['select']), r"\['select'\] must be one of"),
        ('scales', (), 'must be a tuple of one size or more'),
        ('scales', 288, 'must be a tuple of one size or more'),
        ('crop_scales', None, 'must be a tuple of one size or more'),
        ('cropped_scales', '288', 'must be a tuple'),
        ('scales', (288, 0), SIZE),
        ('cropped_scales', (8193,), SIZE),
        ('crop_scales', (15, 400), SIZE),
        ('max_size', 0, SIZE),
        ('max_size', None, SIZE),
        ('cropped_max_size', -1, SIZE),
        ('max_size', 640.5, SIZE),
        ('cropped_max_size', (640,), SIZE),
        ('max_size', True, SIZE),
        ('crop_size', (384,), 'must be the smallest and the largest'),
        ('crop_size', (600, 384), 'must be the smallest'),
        ('crop_size', (384, 500, 600), 'must be the smallest'),
        ('crop_size', (384, 10**9), SIZE),
        ('crop_probability', -0.01, 'must be a number from 0 to 1'),
        ('crop_probability', None, 'must be a number'),
        ('flip_probability', 1.01, 'must be a number from 0 to 1'),
        ('flip_probability', float('nan'), 'must be a number'),
        ('flip_probability', '1', 'must be a number from 0 to 1'),
    ],
)
def test_fields_out_of_range(field, value, words):
    with pytest.raises(ValueError, match=rf'^config\.data\.augmentation\.{field}\b.*{words}'):
        augment.Augmentation(**{field: value})


def test_fields_at_the_ends_of_their_ranges():
    augment.Augmentation(
        order=(),
        scales=[16],
        max_size=8192,
        crop_probability=1,
        crop_scales=(8192,),
        crop_size=(16, 16),
        flip_probability=0.0,
        cropped_scales=np.array([16, 17]).tolist(),
    )


@pytest.mark.parametrize(
    'height, width, narrow',
    [
        (200, 640, False),
        (199, 640, True),
        (640, 200, False),
        (640, 199, True),
        (100, 320, False),
        (100, 321, True),
        (480, 640, False),
        (5, 5, False),
    ],
)
def test_pictures_too_narrow(height, width, narrow):
    """Scaled to a long side of 640, the short side is below 200 pixels, as released."""
    assert augment.too_narrow(height, width) == narrow


def crops(monkeypatch, height, width, count=400, bounds=(30, 50)):
    """The windows that `select` crops from clips of this size: [N 4], top, left, height, width."""
    seen = []
    monkeypatch.setattr(augment, 'crop', lambda sample, *window: seen.append(window) or sample)
    always = dataclasses.replace(SMALL, crop_probability=1, crop_scales=(min(height, width),), crop_size=bounds)
    sample, rng = make_sample(height, width, frames=1), np.random.default_rng(0)
    for _ in range(count):
        augment.select(sample, rng, always)
    return np.array(seen)


@pytest.mark.parametrize('height, width', [(40, 80), (80, 40)])
def test_a_crop_is_bounded_by_the_sides_of_its_own_clip(monkeypatch, height, width):
    """Each side is drawn independently between the two bounds, both clipped to the clip's side; at any position."""
    top, left, tall, wide = crops(monkeypatch, height, width).T
    for side, start, extent in ((height, top, tall), (width, left, wide)):
        assert extent.min() == 30 and extent.max() == min(50, side)
        assert start.min() == 0 and (start + extent).max() == side
    assert set(tall - 30) >= set(range(min(height, 50) - 29)) and len(set(zip(tall, wide))) > 100


def test_a_crop_of_a_small_clip_is_the_whole_clip(monkeypatch):
    top, left, tall, wide = crops(monkeypatch, 25, 80, 100).T
    assert (tall == 25).all() and (top == 0).all() and (wide.min(), wide.max()) == (30, 50)


def test_a_quarter_of_the_copies_has_motion_blur(monkeypatch):
    kernels, calls = [], cv2.filter2D

    def filter2d(frame, depth, kernel):
        kernels.append(kernel)
        return calls(frame, depth, kernel)

    monkeypatch.setattr(cv2, 'filter2D', filter2d)
    frame = make_sample(40, 50, frames=1)
    frame = dataclasses.replace(frame, boxes=frame.boxes[:1], present=frame.present[:1])
    count = 800
    augment.pseudo_clip(frame, np.random.default_rng(0), count + 1)
    np.testing.assert_allclose(len(kernels) / count, 0.25, atol=0.03)
    sizes = [len(kernel) for kernel in kernels]
    np.testing.assert_allclose([sizes.count(9) / len(sizes), sizes.count(11) / len(sizes)], 0.5, atol=0.07)
    angles = []
    for kernel in kernels:
        assert kernel.shape == (len(kernel),) * 2 and kernel.min() >= 0
        np.testing.assert_allclose(kernel.sum(), 1, rtol=1e-5)  # it stays as bright
        y, x = np.indices(kernel.shape) - len(kernel) // 2
        np.testing.assert_allclose([(kernel * x).sum(), (kernel * y).sum()], 0, atol=0.35)  # and where it is
        along = np.linalg.eigh([[(kernel * x * x).sum(), (kernel * x * y).sum()], [0, (kernel * y * y).sum()]], 'U')
        assert along.eigenvalues[1] > 8 * along.eigenvalues[0] > 0 or along.eigenvalues[0] < 1e-6
        angles.append(np.arctan2(*along.eigenvectors[:, 1]) % np.pi)
    np.testing.assert_allclose(np.histogram(angles, 6, (0, np.pi))[0] / len(angles), 1 / 6, atol=0.07)


class Scripted(np.random.Generator):
    """A generator whose uniform draws are given."""

    def __init__(self, random, uniform, permutation=(0, 1, 2)):
        super().__init__(np.random.PCG64(0))
        self.draws, self.values, self.order = list(random), list(uniform), np.array(permutation)

    def random(self):
        return self.draws.pop(0)

    def uniform(self, low, high):
        value = self.values.pop(0)
        assert low <= value <= high
        return value

    def permutation(self, count):
        return self.order


def hsv_saturation(image, factor):
    hsv = cv2.cvtColor(np.clip(image, 0, 255).astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 1] *= factor
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


@pytest.mark.parametrize('factor', [0.8, 1.2])
def test_saturation_matches_hsv(factor):
    frame = make_sample().frames[0]
    got = augment._distort(frame, Scripted([0.9, 0.1, 0.9, 0.1, 0.9], [factor]))
    np.testing.assert_allclose(got, np.clip(hsv_saturation(frame, factor), 0, 255), atol=1.01)
    assert np.abs(got.astype(int) - frame).max() > 5


def test_photometric_steps_in_order_and_clipped():
    frame = make_sample().frames[0]
    got = augment._distort(frame, Scripted([0.1, 0.1, 0.1, 0.1, 0.1], [30, 1.2, 0.8], (2, 0, 1)))
    bright = np.clip(frame.astype(np.float64) + 30, 0, 255) * 1.2
    value = bright.max(-1, keepdims=True)
    expected = np.clip(value - 0.8 * (value - bright), 0, 255)[..., [2, 0, 1]]
    np.testing.assert_allclose(got, expected, atol=1.01)
    assert (bright > 255).any()  # Where the released code would wrap to dark.
    contrast_last = augment._distort(frame, Scripted([0.9, 0.9, 0.1, 0.9, 0.9], [0.8]))
    np.testing.assert_allclose(contrast_last, frame * 0.8, atol=1.01)


def test_photometric_differs_from_frame_to_frame():
    sample = make_sample()
    sample = dataclasses.replace(sample, frames=np.full(sample.frames.shape, (90, 120, 200), np.uint8))
    out = augment.photometric(sample, np.random.default_rng(3), SMALL).frames
    assert len({tuple(frame[0, 0]) for frame in out}) > 1


def test_cropped_clips_use_cropped_scales():
    refcoco = augment.Augmentation(
        scales=(480, 512), max_size=800, cropped_scales=(296, 328), cropped_max_size=640, crop_probability=0
    )
    sample, rng = make_sample(480, 640), np.random.default_rng(0)
    assert {augment.select(sample, rng, refcoco).frames.shape[1:3] for _ in range(20)} == {(480, 640), (512, 682)}
    refcoco = dataclasses.replace(refcoco, crop_probability=1)
    assert {min(augment.select(sample, rng, refcoco).frames.shape[1:3]) for _ in range(20)} == {296, 328}


def test_pseudo_clip_masks_follow_their_frames():
    height, width = 120, 160
    frame = np.full((1, height, width, 3), 120, np.uint8)
    frame[0, 40:80, 60:100] = (250, 30, 30)
    masks = frame[..., 0] > 200
    picture = clips.Sample(frame, masks, *clips.boxes_of_masks(masks), ('the red square',))
    rng, places = np.random.default_rng(0), []
    for _ in range(30):
        clip = augment.pseudo_clip(picture, rng, 4)
        assert clip.frames.shape == (4, height, width, 3) and clip.masks.shape == (4, height, width)
        same = [np.array_equal(x, frame[0]) and np.array_equal(m, masks[0]) for x, m in zip(clip.frames, clip.masks)]
        assert sum(same) == 1
        places.append(same.index(True))
        for x, mask, box in zip(clip.frames.astype(int), clip.masks, clip.boxes):
            # Whatever the colours, the mask covers the square, except for blur and interpolation at its edge.
            inner = cv2.erode(mask.astype(np.uint8), np.ones((13, 13))) > 0
            outer = cv2.dilate(mask.astype(np.uint8), np.ones((13, 13))) > 0
            red = x[..., 0] - x[..., 1] > 100
            assert red[inner].all() and not red[~outer].any()
            np.testing.assert_array_equal(box, clips.boxes_of_masks(mask[None])[0][0])
        assert clip.present.all() and len({m.tobytes() for m in clip.masks}) == 4
    assert set(places) == {0, 1, 2, 3}
    np.testing.assert_array_equal(augment.pseudo_clip(picture, rng, 1).frames, frame)


def test_warp_moves_to_all_sides_evenly():
    height, width = 60, 100
    disc = cv2.circle(np.zeros((height, width), np.uint8), (50, 30), 8, 1, -1) > 0
    rng = np.random.default_rng(0)
    masks = [augment._warp(np.zeros((height, width, 3), np.uint8), disc, rng)[1] for _ in range(400)]
    moved = np.array([np.argwhere(mask).mean(0) - (30, 50) for mask in masks]) / (height, width)
    assert np.abs(moved.mean(0)).max() < 0.02
    # Evenly drawn up to a tenth of the sides; perspective adds to that.
    assert (0.05 < moved.std(0)).all() and (moved.std(0) < 0.1).all()


def test_perspective_moves_every_corner_inwards(monkeypatch):
    found, transform = [], cv2.getPerspectiveTransform
    monkeypatch.setattr(
        cv2,
        'getPerspectiveTransform',
        lambda moved, corners: found.append(moved - corners) or transform(moved, corners),
    )
    rng = np.random.default_rng(0)
    for _ in range(20):
        augment._warp(np.zeros((60, 100, 3), np.uint8), np.zeros((60, 100), bool), rng)
    inwards = np.stack(found) * [[1, 1], [-1, 1], [-1, -1], [1, -1]] / (100, 60)
    assert (inwards >= 0).all() and (0.03 < inwards.mean(0)).all() and (inwards.mean(0) < 0.13).all()


# For any draw, masks and boxes must move with the pixels: the object is painted on the frames, so its position can be
# read from them.

PAINT = (255, 0, 0)


@st.composite
def painted(draw):
    """A clip with one bright rectangle per frame (absent in some) on a dark background; sizes up to 70, often odd."""
    height, width = draw(st.integers(33, 70)), draw(st.integers(33, 70))
    count = draw(st.integers(1, 4))
    frames, masks = np.zeros((count, height, width, 3), np.uint8), np.zeros((count, height, width), bool)
    for frame, mask in zip(frames, masks):
        if draw(st.integers(0, 4)):
            top, left = draw(st.integers(0, height - 9)), draw(st.integers(0, width - 9))
            bottom, right = draw(st.integers(top + 8, height)), draw(st.integers(left + 8, width))
            mask[top:bottom, left:right] = True
            frame[mask] = PAINT
    return clips.Sample(frames, masks, *clips.boxes_of_masks(masks), ('the square on the left',))


def assert_together(sample, enlarged=1.0, tolerance=None):
    """Masks are where the paint is, but for a pixel of interpolation on each side; boxes are the masks' within one
    pixel, or one of the original where `enlarged` makes it so many."""
    paint = sample.frames[..., 0] > 127
    assert sample.masks.shape == paint.shape
    slack = int(np.ceil(enlarged))
    kernel = np.ones((2 * slack + 1,) * 2, np.uint8)
    found, there = clips.boxes_of_masks(sample.masks)
    for mask, red, box, present, mask_box, mask_there in zip(
        sample.masks, paint, sample.boxes, sample.present, found, there
    ):
        mask, red = mask.astype(np.uint8), red.astype(np.uint8)
        assert not (mask & ~cv2.dilate(red, kernel)).any() and not (red & ~cv2.dilate(mask, kernel)).any()
        if present and mask_there:
            np.testing.assert_allclose(box, mask_box, atol=(tolerance or max(1, enlarged)) + 1e-3)
        assert present or not box.any()


@given(painted())
def test_property_mirror(sample):
    mirrored = augment.mirror(sample)
    np.testing.assert_array_equal(mirrored.masks, mirrored.frames[..., 0] > 127)
    assert_together(mirrored)
    for t in range(len(sample.frames)):  # every frame alike
        np.testing.assert_array_equal(mirrored.frames[t], sample.frames[t, :, ::-1])


@given(painted(), st.data())
def test_property_crop(sample, data):
    height, width = sample.frames.shape[1:3]
    rows, columns = (data.draw(st.integers(1, n)) for n in (height, width))
    top, left = data.draw(st.integers(0, height - rows)), data.draw(st.integers(0, width - columns))
    cropped = augment.check(augment.crop(sample, top, left, rows, columns))
    np.testing.assert_array_equal(cropped.masks, cropped.frames[..., 0] > 127)
    assert_together(cropped)
    # An object that is cropped off, or whose box has no extent, is absent, as in the released code.
    found, there = clips.boxes_of_masks(cropped.masks)
    wide = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
    assert (cropped.present >= (wide & there)).all()


@given(painted(), st.integers(17, 140), st.integers(17, 140))
def test_property_resize(sample, height, width):
    resized = augment.resize_to(sample, height, width)
    ratio = max(height / sample.frames.shape[1], width / sample.frames.shape[2])
    assert_together(resized, max(1.0, ratio))
    for t in range(len(sample.frames)):
        alone = dataclasses.replace(
            sample,
            frames=sample.frames[t : t + 1],
            masks=sample.masks[t : t + 1],
            boxes=sample.boxes[t : t + 1],
            present=sample.present[t : t + 1],
        )
        alone = augment.resize_to(alone, height, width)
        np.testing.assert_array_equal(alone.frames[0], resized.frames[t])
        np.testing.assert_array_equal(alone.masks[0], resized.masks[t])
        np.testing.assert_array_equal(alone.boxes[0], resized.boxes[t])


@given(painted(), st.integers(0, 2**32 - 1), st.sampled_from([('select', 'flip'), ('flip', 'select')]))
def test_property_everything(sample, seed, order):
    augmentation = dataclasses.replace(SMALL, order=order)
    out = augment.apply(sample, np.random.default_rng(seed), augmentation, (64, 80))
    assert out.frames.shape[1] <= 64 and out.frames.shape[2] <= 80
    assert ('right' in out.sentences[0]) != ('left' in out.sentences[0])
    # Enlarged twice: from 33 to 60 before the crop, from 30 to 48 after it; each step adds its own rounding.
    assert_together(out, 60 / 33 * 48 / 30, tolerance=4)


@given(painted(), st.integers(0, 2**32 - 1))
def test_property_one_annotated_frame(sample, seed):
    """A2D-Sentences: only one frame has masks, and it moves like the others."""
    index = seed % len(sample.frames)
    one = dataclasses.replace(
        sample,
        masks=sample.masks[[index]],
        boxes=sample.boxes[[index]],
        present=sample.present[[index]],
        annotated=index,
    )
    augmentation = dataclasses.replace(SMALL, order=('flip', 'select'))
    every = augment.apply(sample, np.random.default_rng(seed), augmentation, (64, 80))
    ours = augment.apply(one, np.random.default_rng(seed), augmentation, (64, 80))
    np.testing.assert_array_equal(ours.frames, every.frames)
    np.testing.assert_array_equal(ours.masks[0], every.masks[index])
    np.testing.assert_array_equal(ours.boxes[0], every.boxes[index])
    assert ours.annotated == index
