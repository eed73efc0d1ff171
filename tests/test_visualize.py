"""Overlays and contact sheets."""

import errno

import cv2
import numpy as np
from PIL import Image, ImageFont
import pytest

from sgmg_jax import visualize

CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def disc(size, centre, radius):
    y, x = np.mgrid[: size[0], : size[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2


def video(frames=4, size=(90, 121)):
    rng = np.random.default_rng(0)
    masks = np.stack([disc(size, (45, 30 + 8 * t), 18) for t in range(frames)])
    return rng.integers(60, 120, (frames, *size, 3), dtype=np.uint8), masks


def test_overlay_keeps_objects_and_dims_the_rest():
    frames, masks = video()
    other = np.stack([disc((90, 121), (20, 100), 12)] * 4)
    before, dim = frames.copy(), 0.4
    pictures = visualize.overlay(frames, np.stack([masks, other]), dim=dim)
    np.testing.assert_array_equal(frames, before)
    assert pictures.dtype == np.uint8 and pictures.shape == frames.shape
    kernel = np.ones((9, 9), np.uint8)
    for frame, mask, second, picture in zip(frames, masks, other, pictures):
        both = (mask | second).astype(np.uint8)
        inside, outside = cv2.erode(both, kernel) > 0, cv2.dilate(both, kernel) == 0
        np.testing.assert_array_equal(picture[inside], frame[inside])
        np.testing.assert_array_equal(picture[outside], np.round(dim * frame[outside]))
        # The contour itself: the mask's own border pixels have the sentence's colour in full.
        for number, one in enumerate((mask & ~second, second)):
            border = one & (cv2.erode(one.astype(np.uint8), CROSS) == 0)
            colour = np.array(visualize.COLOURS[number])
            assert (np.abs(picture[border].astype(int) - colour).max(-1) < 60).mean() > 0.8


def test_legend_names_each_sentence_in_its_colour():
    sentences = ['a dog', 'the white goose carried by the lady ' * 3, *map(str, range(7))]
    strip = visualize.legend(sentences, 200, 100)
    assert strip.shape[1] == 200 and strip.dtype == np.uint8
    rows = [np.flatnonzero((strip == colour).all(-1).any(1)) for colour in visualize.COLOURS]
    assert [r.min() for r in rows[:6]] == sorted(r.min() for r in rows[:6])
    assert all(len(r) for r in rows)
    assert len(visualize.legend(sentences[:2], 200, 100)) < len(strip)


def test_overlay_draws_the_truth_on_top():
    frames, masks = video()
    truth = np.roll(masks, 30, axis=2)
    pictures = visualize.overlay(frames, np.zeros_like(masks)[None], truth=truth, dim=1.0)
    changed = (pictures != frames).any(-1)
    for mask, picture, change in zip(truth, pictures, changed):
        near = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        deep = cv2.erode(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        assert change.any() and not change[~near].any() and not change[deep].any()
        border = mask & (cv2.erode(mask.astype(np.uint8), CROSS) == 0)
        assert (np.abs(picture[border].astype(int) - visualize.TRUTH).max(-1) < 60).mean() > 0.8


def test_overlay_of_empty_masks_only_dims():
    frames, masks = video()
    for empty in (masks[None] & False, masks[None][:0]):
        pictures = visualize.overlay(frames, empty, truth=masks & False, dim=0.5)
        np.testing.assert_array_equal(pictures, np.round(0.5 * frames))
    assert visualize.overlay(frames[:0], masks[None, :0]).shape == (0, 90, 121, 3)


@pytest.mark.parametrize(
    'change, match',
    [
        (lambda frames, masks: (frames / 255, masks[None], None), 'frames must be uint8'),
        (lambda frames, masks: (frames, masks[None].astype(np.uint8), None), 'masks must be bool'),
        (lambda frames, masks: (frames, masks[None, 1:], None), 'masks must be bool'),
        (lambda frames, masks: (frames, masks[None], masks[:, 1:]), 'truth must be bool'),
    ],
)
def test_overlay_refuses_other_shapes_and_dtypes(change, match):
    frames, masks, truth = change(*video())
    with pytest.raises(ValueError, match=match):
        visualize.overlay(frames, masks, truth=truth)


def test_sheet_of_mixed_videos(tmp_path):
    rows = [
        visualize.Row('the disc', *video(), video()[1], 'J&F 100.0'),
        ('a disc of a long sentence ' * 12, *video(2, (60, 200))),
        ('one frame', *video(1, (201, 91))),
    ]
    sheet = visualize.contact_sheet(rows, tmp_path / 'new/sheet.png', columns=5, tile_width=120)
    margin, gap = 10, 3
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 2 * margin + 5 * 120 + 4 * gap
    # Strips 89, 36 and 265 high, captions and a legend.
    assert sheet.shape[0] > 89 + 36 + 265 + 5 * margin
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['sheet.png']
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'new/sheet.png')), sheet)


def test_sheet_shows_first_to_last_frame():
    frames = np.zeros((9, 40, 40, 3), np.uint8)
    frames[...] = (np.arange(9) * 20)[:, None, None, None]
    sheet = visualize.contact_sheet([('x', frames, np.ones((9, 40, 40), bool))], columns=3, tile_width=60)
    tiles = [value for value in range(0, 180, 20) if ((sheet == value).all(-1)).sum() > 2500]
    assert tiles == [0, 80, 160]


def test_sheet_has_legend_for_truth_only_if_there_is_truth():
    frames, masks = video(2)
    empty = masks & False
    for truth, expected in ((None, False), (empty, True)):
        sheet = visualize.contact_sheet([('x', frames, empty, truth)])
        assert (sheet == visualize.TRUTH).all(-1).any() == expected
        assert (sheet == visualize.PREDICTION).all(-1).any()


def test_wrapped_lines_fit():
    font = ImageFont.load_default(16)
    text = 'the small striped blue star that moves up past the ' + 'incomprehensibilities' * 2 + ' of the cross'
    lines = visualize._wrap(text, font, 150)
    assert ' '.join(lines) == text
    assert all(font.getlength(line) <= 150 or ' ' not in line for line in lines) and len(lines) > 3
    assert visualize._wrap('', font, 150) == ['']


def test_narrow_videos_and_long_sentences_stay_small():
    frames, masks = np.full((2, 2000, 1, 3), 7, np.uint8), np.zeros((2, 2000, 1), bool)
    sheet = visualize.contact_sheet([('narrow', frames, masks)], columns=2, tile_width=60)
    plain = visualize.contact_sheet(
        [('x', np.zeros((2, 60, 60, 3), np.uint8), np.zeros((2, 60, 60), bool))], columns=2, tile_width=60
    )
    assert sheet.shape[0] == plain.shape[0] + 3 * 60 and sheet.shape[1] == plain.shape[1]
    assert ((sheet == round(7 * visualize.DIM)).all(-1).sum(1) == 2).sum() == 4 * 60  # Two frames of one pixel's width.
    frames = np.zeros((1, 40, 40, 3), np.uint8)
    heights = [
        len(visualize.contact_sheet([('word ' * count, frames, frames[..., 0] > 0)], columns=1, tile_width=60))
        for count in (50, 101, 100_000)
    ]
    assert heights[0] < heights[1] == heights[2] < 2000
    visualize.contact_sheet([('a\x1b[2J\ud800\nb', frames, frames[..., 0] > 0)])


@pytest.mark.parametrize('shape', [(1, 0, 5, 3), (1, 5, 0, 3), (0, 5, 5, 3)])
def test_empty_frames_are_refused(shape):
    frames = np.zeros(shape, np.uint8)
    with pytest.raises(ValueError, match='there is no frame to show'):
        visualize.contact_sheet([('x', frames, frames[..., 0] > 0)])


@pytest.mark.parametrize('options', [dict(columns=0), dict(columns=-1), dict(tile_width=0), dict(tile_width=35)])
def test_sheets_without_size_are_refused(options):
    with pytest.raises(ValueError, match='needs at least 1 column of 36 pixels'):
        visualize.contact_sheet([('x', *video())], **options)


def test_sheet_refuses_bad_rows(tmp_path):
    frames, masks = video()
    with pytest.raises(ValueError, match='at least one row'):
        visualize.contact_sheet([])
    with pytest.raises(ValueError, match="'empty': there is no frame"):
        visualize.contact_sheet([('empty', frames[:0], masks[:0])], tmp_path / 'sheet.png')
    with pytest.raises(ValueError, match="'x': truth have shape"):
        visualize.contact_sheet([('x', frames, masks, masks[:, :5])])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_partial_sheet(tmp_path, monkeypatch):
    def fail(self, path, *args, **kwargs):
        path.write_bytes(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device', str(path))

    monkeypatch.setattr(Image.Image, 'save', fail)
    with pytest.raises(OSError, match='No space left'):
        visualize.contact_sheet([('x', *video())], tmp_path / 'sheet.png')
    assert list(tmp_path.iterdir()) == []
