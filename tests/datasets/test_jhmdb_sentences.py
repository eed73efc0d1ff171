import io
import json
import pathlib
import shutil
import struct
import zlib

import numpy as np
from PIL import Image
import pytest
import scipy.io

from datasets import build
from sgmg_jax import arrays
from sgmg_jax.data import metadata, records
from sgmg_jax.raw import jhmdb

HEIGHT, WIDTH, FRAMES, MASKS = 24, 33, 6, 5
FIRST, SECOND = '@20_pull_up_1', 'April_pull_up_0'
SCORED = {FIRST: [5, 1, 2], SECOND: [3]}  # As the file has them.
TEXTS = {FIRST: ' Man in black', SECOND: 'a woman pulling up'}


def frame(video, number):
    return np.random.default_rng(len(video) + number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def part_mask(video):
    """[H W T] of 0 and 1; one frame fewer than there are PNGs."""
    return np.random.default_rng(len(video)).integers(0, 2, (HEIGHT, WIDTH, MASKS), dtype=np.uint8)


def sample(video, number):
    prefix = './jhmdb_sentences' if video == FIRST else '/home/somebody/data'
    return [
        video,
        f'{prefix}/Rename_Images/pullup/{video}/{number:05d}.png',
        f'{prefix}/puppet_mask/pullup/{video}/puppet_mask.mat',
        FRAMES,
        TEXTS[video],
    ]


def save_mat(raw, video, **content):
    file = raw / 'puppet_mask' / 'pullup' / video / 'puppet_mask.mat'
    file.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(file, content, do_compression=video == SECOND)
    return file


@pytest.fixture
def raw(tmp_path):
    raw = tmp_path / 'raw'
    for video in (FIRST, SECOND):
        folder = raw / 'Rename_Images' / 'pullup' / video
        folder.mkdir(parents=True)
        for number in range(1, FRAMES + 1):
            Image.fromarray(frame(video, number)).save(folder / f'{number:05d}.png')
        save_mat(raw, video, part_mask=part_mask(video))
    samples = [sample(video, number) for video in (SECOND, FIRST) for number in SCORED[video]]
    (raw / jhmdb.METADATA).write_text(json.dumps(samples))
    return raw


def built(raw, **options):
    return records.open_records(build.build('jhmdb_sentences', raw, raw.parent / 'tfds', **options), 'test')


def edit(raw, number, position, value):
    samples = json.loads((raw / jhmdb.METADATA).read_text())
    samples[number][position] = value
    (raw / jhmdb.METADATA).write_text(json.dumps(samples))


def test_records_hold_every_frame_and_the_masks_of_the_scored_ones(raw):
    source = built(raw)
    assert [video.name for video in source.videos] == [FIRST, SECOND]
    for record in source:
        video = record.video
        assert (video.height, video.width, video.has_masks) == (HEIGHT, WIDTH, True)
        assert video.frame_names == ('00001', '00002', '00003', '00004', '00005', '00006')
        assert video.expressions == (metadata.Expression('0', TEXTS[video.name], 1, ()),)
        folder = raw / 'Rename_Images' / 'pullup' / video.name
        assert record.frames == tuple((folder / f'{name}.png').read_bytes() for name in video.frame_names)
        np.testing.assert_array_equal(record.decode_frames(), [frame(video.name, number) for number in range(1, 7)])
        np.testing.assert_array_equal(
            record.decode_frames([5, 0, 5]), [frame(video.name, number) for number in (6, 1, 6)]
        )
        scored = sorted(SCORED[video.name])
        assert video.mask_places == tuple((number - 1, 1) for number in scored)
        assert video.annotated_frames(1) == [number - 1 for number in scored]
        assert len(record.masks) == len(scored)
        for number in scored:
            np.testing.assert_array_equal(
                record.decode_object(1, number - 1), part_mask(video.name)[:, :, number - 1] == 1
            )


def test_a_single_mask_without_its_last_axis(raw):
    save_mat(raw, FIRST, part_mask=part_mask(FIRST)[:, :, 0])
    video = jhmdb.Video(
        FIRST,
        'a man',
        pathlib.PurePosixPath('Rename_Images', 'pullup', FIRST),
        pathlib.PurePosixPath('puppet_mask', 'pullup', FIRST, 'puppet_mask.mat'),
        1,
        (1,),
    )
    (mask,) = jhmdb.read_masks(raw, video, HEIGHT, WIDTH)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(mask))), part_mask(FIRST)[:, :, 0])


def test_bad_videos_can_be_skipped_with_a_counted_warning(raw, caplog):
    (raw / 'Rename_Images' / 'pullup' / FIRST / '00004.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'00004.png: missing; .* counts 6 frames from 00001'):
        built(raw)
    assert [record.video.name for record in built(raw, skip_bad_videos=True)] == [SECOND]
    assert f'Skipped a bad video of test, number 1: {raw}' in caplog.text


# The samples of the file: number 0 is SECOND's, 1 to 3 are FIRST's.
@pytest.mark.parametrize(
    'number, position, value, message',
    [
        (0, 0, 7, r'sample 0: must be \[video, path of a frame, .* is \[7, '),
        (0, 3, '6', r'sample 0: must be \[video'),
        (
            0,
            1,
            '/data/frames/pullup/x/00001.png',
            r'sample 0: the path /data/frames.* does not lead through Rename_Images',
        ),
        (0, 2, './puppet_mask.mat', r'sample 0: the path ./puppet_mask.mat does not lead through puppet_mask'),
        (0, 1, 'Rename_Images/pullup/x/00007.png', r'sample 0: .*00007.png must be named after a frame from 1 to 6'),
        (0, 1, 'Rename_Images/pullup/x/00000.png', r'sample 0: .*00000.png must be named after a frame from 1 to 6'),
        (0, 1, 'Rename_Images/pullup/x/first.png', r'sample 0: .*first.png must be named after a frame from 1 to 6'),
        (0, 4, ' ', r'sample 0: the sentence is an empty sentence'),
        (2, 4, 'man', r'sample 2: says of video @20_pull_up_1 .* an earlier sample has other paths'),
        (2, 3, 7, r'sample 2: says of video @20_pull_up_1'),
        (2, 2, 'puppet_mask/other/puppet_mask.mat', r'sample 2: says of video @20_pull_up_1'),
        (3, 1, 'Rename_Images/other/00002.png', r'sample 3: says of video @20_pull_up_1'),
        (3, 1, sample(FIRST, 5)[1], r'sample 3: names frame 5 of video @20_pull_up_1 a second time'),
    ],
)
def test_wrong_samples(raw, number, position, value, message):
    edit(raw, number, position, value)
    with pytest.raises(ValueError, match=f'{jhmdb.METADATA}: {message}'):
        jhmdb.read_videos(raw / jhmdb.METADATA)


@pytest.mark.parametrize(
    'text, message',
    [
        ('[[', r'is not JSON'),
        ('{}', r'must be a list of samples'),
        ('[]', r'must be a list of samples'),
        ('[["a", "b"]]', r'sample 0: must be \[video'),
        ('[3]', r'sample 0: must be \[video'),
    ],
)
def test_wrong_metadata(raw, text, message):
    (raw / jhmdb.METADATA).write_text(text)
    with pytest.raises(ValueError, match=f'{jhmdb.METADATA}: {message}'):
        built(raw)
    assert not list((raw.parent / 'tfds').rglob('*.array_record*'))


def test_missing_metadata_says_where_to_get_it(raw):
    (raw / jhmdb.METADATA).unlink()
    with pytest.raises(FileNotFoundError, match=f'{jhmdb.METADATA}: missing. It comes with the release of MTTR'):
        built(raw)


def small(file):
    Image.fromarray(frame(FIRST, 1)[:20]).save(file)


@pytest.mark.parametrize(
    'spoil, message',
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-400]), r'broken PNG'),
        (lambda file: file.write_bytes(file.read_bytes()[:-13]), r'broken PNG'),  # Only its end, which Pillow forgives.
        (lambda file: file.write_bytes(b''), r'broken PNG'),
        (small, r'is 33x20 pixels, but 00001.png of the same video is 33x24'),
    ],
)
def test_wrong_frames(raw, spoil, message):
    spoil(raw / 'Rename_Images' / 'pullup' / SECOND / '00003.png')
    with pytest.raises(ValueError, match=f'{SECOND}.00003.png: {message}'):
        built(raw)


@pytest.mark.parametrize(
    'content, message',
    [
        ({'mask': part_mask(FIRST)}, r"must have the variable part_mask, has \['mask'\]"),
        ({'part_mask': part_mask(FIRST)[:20]}, r'part_mask is 33x20 pixels, the frames 33x24.*same release\.$'),
        (
            {'part_mask': part_mask(FIRST).transpose(1, 0, 2)},
            r'part_mask is 24x33 pixels, the frames 33x24.*transposed: part_mask must be \(H, W, T\)',
        ),
        ({'part_mask': part_mask(FIRST) * 255}, r'part_mask holds other values than 0 and 1'),
        ({'part_mask': part_mask(FIRST)[:, :, :4]}, r'part_mask ends after 4 frames, but .* names frame 5'),
    ],
)
def test_wrong_masks(raw, content, message):
    save_mat(raw, FIRST, **content)
    with pytest.raises(ValueError, match=f'{FIRST}.puppet_mask.mat: {message}'):
        built(raw)


@pytest.mark.parametrize('video', [FIRST, SECOND])  # As it is, and compressed.
@pytest.mark.parametrize('kept', [0, 50, 130, 150, 300, -10])
def test_truncated_masks(raw, video, kept):
    file = raw / 'puppet_mask' / 'pullup' / video / 'puppet_mask.mat'
    file.write_bytes(file.read_bytes()[:kept])
    listed = {video.name: video for video in jhmdb.read_videos(raw / jhmdb.METADATA)}
    with pytest.raises(ValueError, match=f'{video}.puppet_mask.mat: broken MATLAB file'):
        jhmdb.read_masks(raw, listed[video], HEIGHT, WIDTH)


def test_missing_masks(raw):
    shutil.rmtree(raw / 'puppet_mask')
    with pytest.raises(FileNotFoundError, match=f'{FIRST}.puppet_mask.mat: missing, though {jhmdb.METADATA} names it'):
        built(raw)


def compressed(data):
    """A variable of a MATLAB file."""
    packed = zlib.compress(data)
    return struct.pack('<II', 15, len(packed)) + packed


def header(file):
    return file.read_bytes()[:128]


def test_masks_that_claim_or_unpack_to_gigabytes(raw, monkeypatch):
    monkeypatch.setattr(arrays, 'MOST_VALUES', 10_000)
    file = raw / 'puppet_mask' / 'pullup' / FIRST / 'puppet_mask.mat'
    save_mat(raw, FIRST, part_mask=part_mask(FIRST))
    video = next(video for video in jhmdb.read_videos(raw / jhmdb.METADATA) if video.name == FIRST)
    data, shape = file.read_bytes(), part_mask(FIRST).shape
    claimed = data.replace(struct.pack('<3i', *shape), struct.pack('<3i', 2**15, 2**15, 2**15))
    assert claimed != data
    bomb = header(file) + compressed(struct.pack('<II', 14, 2**31 - 8) + bytes(80_001))
    for content, message in (
        (claimed, r'part_mask must be an array of at most .* shape \(32768, 32768, 32768\)'),
        (bomb, 'broken MATLAB file .a variable unpacks to gigabytes'),
        (b'\x89HDF\r\n\x1a\n' + bytes(600), 'broken MATLAB file'),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f'puppet_mask.mat: {message}'):
            jhmdb.read_masks(raw, video, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    'value',
    [
        np.array(['a']),
        {'a': 1.0},
        scipy.sparse.eye_array(24).tocsc(),
        np.zeros((HEIGHT, WIDTH, 6, 2)),
        np.array([[1, 'a']], object),
    ],
)
def test_masks_must_be_numeric_arrays(raw, value):
    save_mat(raw, FIRST, part_mask=value)
    with pytest.raises(ValueError, match='puppet_mask.mat: part_mask (must be an array|is 33x24 pixels)'):
        built(raw)
    assert [record.video.name for record in built(raw, skip_bad_videos=True)] == [SECOND]


@pytest.mark.parametrize(
    'position, value, message',
    [
        (0, '../up', 'sample 0: the video must be one name'),
        (0, '\ud800', 'sample 0: the video must have printable'),
        (1, 'Rename_Images/../../x/00001.png', 'sample 0: the path .* a part must not begin with a dot'),
        (2, 'puppet_mask/\x1b[31m/puppet_mask.mat', 'sample 0: the path .* a part must have printable'),
        (3, 10**9, 'sample 0: the number of frames must be from 1 to 1,000'),
        (3, 0, 'sample 0: the number of frames must be from 1'),
        (3, True, r'sample 0: must be \[video'),
        (4, '\udc80', 'sample 0: the sentence must have'),
        (1, 'Rename_Images/pullup/x/٠٠٠٠١.png', 'sample 0: .* must be named after a frame'),
    ],
)
def test_hostile_samples(raw, position, value, message):
    edit(raw, 0, position, value)
    with pytest.raises(ValueError, match=f'{jhmdb.METADATA}: {message}') as caught:
        jhmdb.splits(raw)
    assert len(str(caught.value)) < 800


def test_odd_but_valid_names(raw):
    """As the release has them."""
    name = '#20_(Rhythm)_clap!_u-nm_np1_fr_goo_0'
    samples = json.loads((raw / jhmdb.METADATA).read_text())
    for row in samples:
        if row[0] == SECOND:
            row[:3] = name, *(path.replace(SECOND, name) for path in row[1:3])
    (raw / jhmdb.METADATA).write_text(json.dumps(samples))
    for folder in ('Rename_Images', 'puppet_mask'):
        (raw / folder / 'pullup' / SECOND).rename(raw / folder / 'pullup' / name)
    assert name in [video.name for video in built(raw).videos]


def test_files_of_other_systems(raw):
    before = list(built(raw))
    (raw / jhmdb.METADATA).write_bytes(b'\xef\xbb\xbf' + (raw / jhmdb.METADATA).read_bytes())
    for file in [*raw.rglob('0*.png'), *raw.rglob('*.mat')]:
        file.with_name('._' + file.name).write_bytes(b'\x00\x05')
        file.rename(file.with_suffix(file.suffix.upper()))
    assert list(records.open_records(build.build('jhmdb_sentences', raw, raw.parent / 'again'), 'test')) == before
