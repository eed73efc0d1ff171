import dataclasses

import cv2
import numpy as np
import pytest

from sgmg_jax.data import augment, clips


def make_sample(height=54, width=97, frames=3, seed=0, sentence='the cat on the left'):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (frames, 6, 9, 3), dtype=np.uint8)
    images = np.stack([cv2.resize(image, (width, height)) for image in small])
    masks = np.zeros((frames, height, width), bool)
    masks[0, 10:30, 20:50] = masks[1, 12:32, 25:55] = True  # Absent in the last frame.
    return clips.Sample(images, masks, *clips.boxes_of_masks(masks), sentence)


SMALL = augment.Augmentation(scales=(32, 40, 48), max_size=80, crop_scales=(44, 60), crop_size=(30, 50))


@pytest.mark.parametrize('before, after', [
    ('the cat on the left', 'the cat on the right'),
    ('a bright light, upright, copyright, cleft, leftover, rightful', None),
    ('Left of the RIGHT one', 'Right of the LEFT one'),
    ('leftmost and rightmost, left-most', 'rightmost and leftmost, right-most'),
    ('left-hand, right-handed, lefthand, leftward, rightwards',
     'right-hand, left-handed, righthand, rightward, leftwards'),
    ('second from_left, top-right, 2left', 'second from_right, top-left, 2right'),
    ("the left's and right.", "the right's and left."), ('', None)])
def test_swap_sides(before, after):
    assert augment.swap_sides(before) == (before if after is None else after)
    assert augment.swap_sides(augment.swap_sides(before)) == before


def test_mirror():
    sample = make_sample()
    mirrored = augment.mirror(sample)
    np.testing.assert_array_equal(mirrored.frames, np.flip(sample.frames, 2))
    np.testing.assert_array_equal(mirrored.masks, np.flip(sample.masks, 2))
    # As released: no pixel is taken off.
    np.testing.assert_array_equal(mirrored.boxes[0], [97 - 49, 10, 97 - 20, 29])
    np.testing.assert_array_equal(mirrored.boxes[2], 0)
    assert mirrored.sentence == 'the cat on the right'
    twice = augment.mirror(mirrored)
    for field in ('frames', 'masks', 'boxes', 'present'):
        np.testing.assert_array_equal(getattr(twice, field), getattr(sample, field))


def test_flip_is_drawn_once_a_clip_as_often_as_told():
    sample = make_sample()
    rng = np.random.default_rng(0)
    flipped = [augment.flip(sample, rng, SMALL).sentence != sample.sentence for _ in range(1000)]
    np.testing.assert_allclose(np.mean(flipped), 0.5, atol=0.05)
    never = dataclasses.replace(SMALL, flip_probability=0)
    assert not any(augment.flip(sample, rng, never) is not sample for _ in range(50))


@pytest.mark.parametrize('height, width', [(27, 48), (108, 194), (54, 97), (20, 31)])
def test_resize_scales_all_three(height, width):
    sample = make_sample()
    resized = augment.resize_to(sample, height, width)
    assert resized.frames.shape == (3, height, width, 3) and resized.masks.shape == (3, height, width)
    # Nearest, by the rule of PyTorch: the source pixel is the rounded down product.
    rows = np.floor(np.arange(height) * (54 / height)).astype(int)
    columns = np.floor(np.arange(width) * (97 / width)).astype(int)
    np.testing.assert_array_equal(resized.masks, sample.masks[:, rows][:, :, columns])
    np.testing.assert_allclose(resized.boxes, sample.boxes * np.tile([width / 97, height / 54], 2), rtol=1e-6)
    assert abs(resized.frames.mean() - sample.frames.mean()) < 2


def test_crop_cuts_boxes_and_check_drops_those_without_extent():
    sample = make_sample()
    cropped = augment.check(augment.crop(sample, 5, 30, 10, 20))
    np.testing.assert_array_equal(cropped.frames, sample.frames[:, 5:15, 30:50])
    np.testing.assert_array_equal(cropped.masks, sample.masks[:, 5:15, 30:50])
    np.testing.assert_array_equal(cropped.boxes, [[0, 5, 19, 10], [0, 7, 20, 10], [0, 0, 0, 0]])
    np.testing.assert_array_equal(cropped.present, [True, True, False])
    away = augment.check(augment.crop(sample, 40, 0, 10, 20))
    assert not away.present.any() and not away.boxes.any() and not away.masks.any()


def test_select_sizes_are_those_of_the_release():
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


def test_mask_and_box_stay_together_through_everything():
    rng = np.random.default_rng(0)
    checked = 0
    for seed in range(60):
        sample = augment.apply(make_sample(seed=seed), rng, SMALL, (48, 80))
        assert sample.frames.shape[1] <= 48 and sample.frames.shape[2] <= 80
        assert sample.frames.shape[:3] == sample.masks.shape and sample.frames.dtype == np.uint8
        found, present = clips.boxes_of_masks(sample.masks)
        for box, there, mask_box, mask_there in zip(sample.boxes, sample.present, found, present):
            if there and mask_there:
                np.testing.assert_allclose(box, mask_box, atol=3)
                checked += 1
            assert there or not box.any()
    assert checked > 60


def test_a_tall_clip_is_scaled_to_fit_the_static_shape():
    still = dataclasses.replace(SMALL, order=())
    fitted = augment.apply(make_sample(97, 54), np.random.default_rng(0), still, (40, 64))
    assert fitted.frames.shape[1:3] == (40, 22)
    as_it_is = augment.apply(make_sample(30, 60), np.random.default_rng(0), still, (40, 64))
    assert as_it_is.frames.shape[1:3] == (30, 60)


def test_order_is_the_tuple():
    seen = []
    functions = tuple(lambda sample, rng, augmentation, name=name: seen.append(name) or sample
                      for name in 'abc')
    augment.apply(make_sample(), np.random.default_rng(0), augment.Augmentation(order=functions), (54, 97))
    assert seen == ['a', 'b', 'c']
    assert augment.Augmentation().order == (augment.select, augment.flip, augment.photometric)


class Scripted:
    """A generator whose uniform draws are given."""

    def __init__(self, random, uniform, permutation=(0, 1, 2)):
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
def test_saturation_is_that_of_hsv(factor):
    frame = make_sample().frames[0]
    got = augment._distort(frame, Scripted([.9, .1, .9, .1, .9], [factor]))
    np.testing.assert_allclose(got, np.clip(hsv_saturation(frame, factor), 0, 255), atol=1.01)
    assert np.abs(got.astype(int) - frame).max() > 5


def test_photometric_steps_in_order_and_clipped():
    frame = make_sample().frames[0]
    got = augment._distort(frame, Scripted([.1, .1, .1, .1, .1], [30, 1.2, 0.8], (2, 0, 1)))
    bright = np.clip(frame.astype(np.float64) + 30, 0, 255) * 1.2
    value = bright.max(-1, keepdims=True)
    expected = np.clip(value - 0.8 * (value - bright), 0, 255)[..., [2, 0, 1]]
    np.testing.assert_allclose(got, expected, atol=1.01)
    assert (bright > 255).any()  # Where the released code would wrap to dark.
    contrast_last = augment._distort(frame, Scripted([.9, .9, .1, .9, .9], [0.8]))
    np.testing.assert_allclose(contrast_last, frame * 0.8, atol=1.01)


def test_photometric_differs_from_frame_to_frame_and_can_be_off():
    sample = dataclasses.replace(make_sample(), frames=np.full((3, 8, 9, 3), (90, 120, 200), np.uint8))
    out = augment.photometric(sample, np.random.default_rng(3), SMALL).frames
    assert len({tuple(frame[0, 0]) for frame in out}) > 1
    off = dataclasses.replace(SMALL, photometric=False)
    assert augment.photometric(sample, np.random.default_rng(3), off) is sample
