import collections

import numpy as np
from PIL import Image
import pytest
import scipy.ndimage

from sgmg_jax import types
from sgmg_jax.data import clips


def draws(length, centre, num_frames, count=2000, **kwargs):
    rng = np.random.default_rng(0)
    return np.stack([clips.sample_frames(rng, length, centre, num_frames, **kwargs) for _ in range(count)])


@pytest.mark.parametrize('length', [1, 2, 3, 5, 36])
@pytest.mark.parametrize('num_frames', [1, 2, 3, 4, 5, 6, 8, 12])
def test_sample_frames_includes_the_centre_and_has_the_requested_length(length, num_frames):
    for centre in {0, length // 2, length - 1}:
        frames = draws(length, centre, num_frames, 20, reverse_probability=0)
        assert frames.shape == (20, num_frames)
        assert (frames == centre).any(1).all() and frames.min() >= 0 and frames.max() < length
        assert (np.diff(frames) >= 0).all()


def test_neighbours_are_one_to_three_away_and_equally_likely():
    frames = draws(30, 10, 3, reverse_probability=0)
    assert (frames[:, 1] == 10).all()
    for distance in (10 - frames[:, 0], frames[:, 2] - 10):
        assert set(distance) == {1, 2, 3}
        np.testing.assert_allclose(np.bincount(distance)[1:] / len(frames), 1 / 3, atol=0.05)


def test_other_frames_lie_outside_the_neighbours_with_the_release_quirk():
    frames = draws(30, 10, 5, reverse_probability=0)
    repeats = 0
    for clip in frames:
        # For some pair of neighbours around the centre, the two other frames lie outside it.
        assert any(
            set(clip) - {before, 10, after} <= set(range(before)) | set(range(after, 30))
            for before in clip
            if 7 <= before <= 9
            for after in clip
            if 11 <= after <= 13
        )
        repeats += len(set(clip)) < 5
    # The frame after the centre is in the pool again: 2 of 25 to 29 draws take it.
    assert 0.05 < repeats / len(frames) < 0.1


def test_a_short_video_gives_every_frame():
    # In a three-frame video only the last frame lies outside the neighbours.
    for clip in draws(3, 1, 8, 50, reverse_probability=0):
        assert collections.Counter(clip).keys() == {0, 1, 2}


def test_reversal_has_the_given_probability():
    for probability in (0, 0.3, 1):
        frames = draws(30, 10, 3, reverse_probability=probability)
        reversed_clips = (np.diff(frames) < 0).all(1)
        assert (reversed_clips | (np.diff(frames) > 0).all(1)).all()
        np.testing.assert_allclose(reversed_clips.mean(), probability, atol=0.04)


def test_boxes_end_on_the_last_pixel():
    masks = np.zeros((4, 9, 13), bool)
    masks[0, 2:5, 3:11] = True
    masks[1, 8, 12] = True
    masks[3, 0, :] = masks[3, :, 0] = True
    boxes, present = clips.boxes_of_masks(masks)
    np.testing.assert_array_equal(present, [True, True, False, True])
    for box, mask in zip(boxes[[0, 1, 3]], masks[[0, 1, 3]]):
        rows, columns = scipy.ndimage.find_objects(mask.astype(int))[0]
        np.testing.assert_array_equal(box, [columns.start, rows.start, columns.stop - 1, rows.stop - 1])
    np.testing.assert_array_equal(boxes[2], 0)


@pytest.mark.parametrize(
    'size, short, longest, expected',
    [
        ((480, 854), 360, None, (360, 640)),
        ((480, 910), 360, None, (360, 682)),
        ((480, 1152), 360, None, (360, 864)),
        ((480, 1152), 360, 640, (267, 640)),
        ((854, 480), 360, None, (640, 360)),
        ((360, 640), 360, 640, (360, 640)),
        ((720, 1280), 512, 640, (360, 640)),
        ((100, 100), 33, None, (33, 33)),
        ((100, 37), 10, 20, (18, 7)),
    ],
)
def test_resized_size(size, short, longest, expected):
    assert clips.resized_size(*size, short, longest) == expected


@pytest.mark.parametrize('size', [(0, 5), (5, 0), (0, 0), (-4, 5), (1, 17), (17, 1), (1, 2000), (2000, 3), (100, 1601)])
def test_impossible_frame_sizes_are_refused(size):
    """Resized to a short side of 360, 1x2000 pixels would be 360x720,000."""
    with pytest.raises(ValueError, match=f'frames of {size[1]}x{size[0]} pixels: .* at most 16 times the short one'):
        clips.resized_size(*size, 360)
    with pytest.raises(ValueError, match='at most 16 times'):
        clips.prepare_clip(np.zeros((1, *np.maximum(size, 0), 3), np.uint8), 360, 640)


def test_largest_aspect_ratio_is_accepted():
    assert clips.resized_size(1, 16, 20) == (20, 320) and clips.resized_size(1600, 100, 360, 640) == (640, 40)


def test_prepare_clip_resizes_like_pillow():
    frames = np.random.default_rng(0).integers(0, 256, (2, 50, 81, 3), dtype=np.uint8)
    prepared, size = clips.prepare_clip(frames, 20)
    assert size == (20, 32) and prepared.shape == (2, 20, 32, 3) and prepared.dtype == np.uint8
    for got, frame in zip(prepared, frames):
        np.testing.assert_array_equal(got, Image.fromarray(frame).resize((32, 20), Image.Resampling.BILINEAR))
    same, size = clips.prepare_clip(frames, 50)
    assert size == (50, 81) and same.shape == frames.shape


def test_sentences_of_absent_objects_are_dropped():
    masks = np.zeros((6, 8, 9), bool)  # two frames of each of three sentences
    masks[1, 2:4, 3:6] = masks[4, 1:3, 2:5] = masks[5, 1:3, 2:6] = True
    sample = clips.Sample(np.zeros((2, 8, 9, 3), np.uint8), masks, *clips.boxes_of_masks(masks), ('a', 'b', 'c'))
    seen = clips.visible(sample)
    assert seen.sentences == ('a', 'c')
    np.testing.assert_array_equal(seen.masks, masks[[0, 1, 4, 5]])
    np.testing.assert_array_equal(seen.boxes, sample.boxes[[0, 1, 4, 5]])
    np.testing.assert_array_equal(seen.present, [False, True, True, True])


def test_to_example_pads_below_and_right_and_scales_boxes_by_the_real_size():
    rng = np.random.default_rng(0)
    masks = np.zeros((3, 10, 15), bool)
    masks[0, 2:7, 3:10] = masks[2, 0:10, 0:15] = True
    boxes, present = clips.boxes_of_masks(masks)
    frames = rng.integers(0, 256, (3, 10, 15, 3), dtype=np.uint8)
    sample = clips.Sample(frames, masks, boxes, present, ('a cat',))
    text = types.Text(tokens=np.array([[0, 5, 2, 1]], np.int32), valid=np.array([[True, True, True, False]]))
    example = clips.to_example(sample, text, (16, 20))
    assert example.clip.frames.shape == (1, 3, 16, 20, 3) and example.clip.frames.dtype == np.uint8
    np.testing.assert_array_equal(example.clip.frames[0, :, :10, :15], frames)
    np.testing.assert_array_equal(example.clip.size, [[10, 15]])
    real = np.zeros((3, 16, 20), bool)
    real[:, :10, :15] = True
    np.testing.assert_array_equal(example.clip.valid[0], real)
    assert (example.clip.frames[0][~real] == 0).all() and not example.targets.masks[0][~real].any()
    np.testing.assert_array_equal(example.targets.masks[0, :, :10, :15], masks)
    np.testing.assert_allclose(
        example.targets.boxes[0],
        [[6 / 15, 4 / 10, 6 / 15, 4 / 10], [0] * 4, [0.5 * 14 / 15, 0.45, 14 / 15, 0.9]],
        atol=1e-6,
    )
    np.testing.assert_array_equal(example.targets.present, [[True, False, True]])
    np.testing.assert_array_equal(example.text.tokens, text.tokens)
