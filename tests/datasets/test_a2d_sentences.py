from fractions import Fraction
import pathlib
import shutil
import zlib

import av
import h5py
import numpy as np
import pytest
import raw_a2d

from datasets import build
from sgmg_jax import arrays
from sgmg_jax.data import records
from sgmg_jax.raw import a2d


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    return raw_a2d.write(tmp_path_factory.mktemp('a2d') / 'raw')


@pytest.fixture
def raw(written, tmp_path):
    return shutil.copytree(written, tmp_path / 'raw')


def built(raw, split, **options):
    folder = build.build('a2d_sentences', raw, raw.parent / 'tfds', overwrite=True, **options)
    return records.open_records(folder, split)


def check(record, raw, places):
    """The record of a video holds its film, and the masks that `places`, (number of a frame, instance), name."""
    video = record.video
    assert (video.height, video.width, video.has_masks) == (raw_a2d.HEIGHT, raw_a2d.WIDTH, True)
    assert video.frame_names == tuple(f'0000{number}' for number in range(1, raw_a2d.FRAMES[video.name] + 1))
    file = raw / 'Release' / 'CLIPS320' / f'{video.name}.mp4'
    assert record.film == file.read_bytes() and record.frames == ()
    with av.open(str(file)) as container:
        decoded = [frame.to_rgb().to_ndarray() for frame in container.decode(video=0)]
    np.testing.assert_array_equal(record.decode_frames(), decoded)
    np.testing.assert_array_equal(record.decode_frames([4, 0, 4]), [decoded[4], decoded[0], decoded[4]])
    assert video.mask_places == tuple((number - 1, instance + 1) for number, instance in places)
    assert len(record.masks) == len(places)
    for number, instance in places:
        found = record.decode_object(instance + 1, number - 1)
        np.testing.assert_array_equal(found, raw_a2d.mask(video.name, number, instance) == 1)


def sentences(video):
    return [(expression.id, expression.text, expression.object_id, expression.tags) for expression in video.expressions]


def test_records_hold_film_masks_and_sentences(written, tmp_path, caplog):
    raw = written
    folder = build.build('a2d_sentences', raw, tmp_path)
    first, second = records.open_records(folder, 'train')  # Sorted, and without the missed one.
    (test,) = records.open_records(folder, 'test')
    assert (first.video.name, second.video.name, test.video.name) == (raw_a2d.FIRST, raw_a2d.SECOND, raw_a2d.TEST)
    check(first, raw, [(3, 0), (3, 1), (9, 0)])
    check(second, raw, [(1, 0), (1, 2)])
    check(test, raw, [(2, 0), (5, 0)])
    assert sentences(first.video) == [('0', 'bird walking', 1, ()), ('1', 'the other bird', 2, ())]
    assert sentences(second.video) == [('2', "the Red ball's jumping", 3, ()), ('0', 'a dog', 1, ())]
    assert sentences(test.video) == [('0', 'car on the right', 1, ())]
    warnings = [record.getMessage() for record in caplog.records if 'Left out' in record.getMessage()]
    assert warnings == [
        f'Left out 1 expressions of train whose instance is annotated in no frame (video, instance): {raw_a2d.SECOND} 5'
    ]


def test_both_folder_names_of_clips_are_found(raw):
    (raw / 'Release' / 'CLIPS320').rename(raw / 'Release' / 'clips320H')
    assert a2d.read_film(raw, a2d.Video(raw_a2d.FIRST, ()))[1:] == (9, raw_a2d.HEIGHT, raw_a2d.WIDTH)


def test_a_video_without_masks_is_skipped(raw):
    raw_a2d.write_h5(raw, raw_a2d.FIRST, 3, instance=np.array([7]), reMask=raw_a2d.mask(raw_a2d.FIRST, 3, 0).T)
    raw_a2d.write_h5(raw, raw_a2d.FIRST, 9, instance=np.array([7]), reMask=raw_a2d.mask(raw_a2d.FIRST, 9, 0).T)
    assert [record.video.name for record in built(raw, 'train')] == [raw_a2d.SECOND]


def test_bad_videos_can_be_skipped_with_a_counted_warning(raw, caplog):
    (raw / 'Release' / 'CLIPS320' / f'{raw_a2d.FIRST}.mp4').unlink()
    with pytest.raises(FileNotFoundError, match=rf'{raw_a2d.FIRST}.mp4 or .*clips320H.*{raw_a2d.FIRST}.mp4: missing'):
        built(raw, 'train')
    assert [record.video.name for record in built(raw, 'train', skip_bad_videos=True)] == [raw_a2d.SECOND]
    assert f'Skipped a bad video of train, number 1: {raw}' in caplog.text


def test_videos_without_sentences_are_warned_of_unless_listed_as_missed(raw, caplog):
    (raw / 'text_annotations' / 'a2d_missed_videos.txt').write_text('')
    assert [video.name for video in a2d.read_videos(raw)['train']] == [raw_a2d.FIRST, raw_a2d.SECOND]
    assert '1 videos of ' in caplog.text and caplog.text.rstrip().endswith(raw_a2d.MISSED)


def test_a_video_listed_as_missed_is_skipped(raw):
    (raw / 'text_annotations' / 'a2d_missed_videos.txt').write_text(f'{raw_a2d.MISSED}\n{raw_a2d.FIRST}\n')
    assert [video.name for video in a2d.read_videos(raw)['train']] == [raw_a2d.SECOND]


SUBSETS = pathlib.Path('Release/videoset.csv')
SENTENCES = pathlib.Path('text_annotations/a2d_annotation.txt')


@pytest.mark.parametrize(
    'file, old, new, message',
    [
        (SUBSETS, '3,1', '3,2', r'videoset.csv: line 1: column 9, the subset, must be 0 .* is \'2\''),
        (SUBSETS, '100,3,0', '100,3', r'videoset.csv: line 2: has 8 fields, must have 9'),
        (SUBSETS, raw_a2d.SECOND, raw_a2d.FIRST, f'videoset.csv: line 4: names video {raw_a2d.FIRST} a second time'),
        (SUBSETS, raw_a2d.TEST, 'zzz', f'a2d_annotation.txt: video {raw_a2d.TEST} has no row in .*videoset.csv'),
        (
            SENTENCES,
            'query',
            'sentence',
            r"a2d_annotation.txt: the first line must be 'video_id,instance_id,query', is",
        ),
        (SENTENCES, raw_a2d.ANNOTATION, '', r"a2d_annotation.txt: the first line must be .* is ''"),
        (SENTENCES, '1 (copy)', '1 (copy 2)', r"line 8: instance_id must be a whole number, is '1 \(copy 2\)'"),
        (SENTENCES, ',2,', ',-2,', r"line 2: instance_id must be a whole number, is '-2'"),
        (SENTENCES, ',1 (copy)', ',1', f'line 8: names instance 1 of video {raw_a2d.FIRST} a second time'),
        (SENTENCES, 'a dog', ' ', r'line 3: query is an empty sentence'),
        (SENTENCES, 'a dog', 'a dog, running', r'line 3: has 4 fields, must have 3'),
    ],
)
def test_wrong_lines(raw, file, old, new, message):
    text = (raw / file).read_text()
    assert old in text
    (raw / file).write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        built(raw, 'train')
    assert not list((raw.parent / 'tfds').rglob('*.array_record*'))


def test_text_of_another_encoding(raw):
    (raw / SENTENCES).write_bytes(raw_a2d.ANNOTATION.replace('dog', 'café').encode('latin-1'))
    with pytest.raises(ValueError, match=r'a2d_annotation.txt: is not text in utf-8'):
        a2d.read_annotations(raw / SENTENCES)


def test_all_missing_paths_are_named_at_once(raw):
    (raw / SUBSETS).unlink()
    shutil.rmtree(raw / 'Release' / 'CLIPS320')
    with pytest.raises(FileNotFoundError, match=r'videoset.csv, .*CLIPS320 or .*clips320H: missing. Unpack'):
        a2d.read_videos(raw)


def truncate(file):
    file.write_bytes(file.read_bytes()[: -len(file.read_bytes()) // 3])


def two_sizes(file):
    """Frames of two sizes in one stream, each a JPEG of its own."""
    with av.open(str(file), 'w', format='matroska') as container:
        stream = container.add_stream('mjpeg', rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 96, 'yuvj420p'
        for number, size in enumerate([(64, 96), (48, 64)]):
            encoder = av.CodecContext.create('mjpeg', 'w')
            encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = *size, 'yuvj420p', Fraction(1, 10)
            (packet,) = encoder.encode(av.VideoFrame.from_ndarray(np.zeros((*size, 3), np.uint8), format='rgb24'))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 10)
            container.mux(packet)


def only_sound(file):
    with av.open(str(file), 'w') as container:
        stream = container.add_stream('aac', rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    'spoil, message',
    [
        (truncate, r'broken mp4 \(.*Invalid data'),  # The index of its frames is at its end.
        (lambda file: file.write_bytes(b''), r'broken mp4'),
        (only_sound, r'broken mp4'),
        (two_sizes, r'has frames of the sizes \(height, width\) \[\(48, 64\), \(64, 96\)\]'),
    ],
)
def test_broken_films(raw, spoil, message):
    file = raw / 'Release' / 'CLIPS320' / f'{raw_a2d.FIRST}.mp4'
    spoil(file)
    with pytest.raises(ValueError, match=f'{raw_a2d.FIRST}.mp4: {message}'):
        a2d.read_film(raw, a2d.Video(raw_a2d.FIRST, ()))


@pytest.mark.parametrize('codec', ['libx264', 'mpeg4'])
@pytest.mark.parametrize('kept', [0.99, 0.8, 0.5])
def test_a_film_truncated_after_its_index_is_refused(raw, codec, kept):
    file = raw / 'Release' / 'CLIPS320' / f'{raw_a2d.FIRST}.mp4'
    raw_a2d.write_film(file, 8, codec, options={'movflags': 'faststart'})
    film = file.read_bytes()
    assert a2d.read_film(raw, a2d.Video(raw_a2d.FIRST, ()))[:2] == (film, 8)
    file.write_bytes(film[: int(kept * len(film))])
    with pytest.raises(ValueError, match=f'{raw_a2d.FIRST}.mp4: broken mp4'):
        a2d.read_film(raw, a2d.Video(raw_a2d.FIRST, ()))


@pytest.mark.parametrize('times', [[0, 0, 0, 0], [-2, -1, 0, 1]])
def test_frames_that_torchvision_drops_are_warned_of(raw, caplog, times):
    usual, file = raw / 'usual.mp4', raw / 'Release' / 'CLIPS320' / f'{raw_a2d.FIRST}.mp4'
    raw_a2d.write_film(usual, 4, 'mpeg4')
    a2d.read_film(raw, a2d.Video(raw_a2d.SECOND, ()))
    assert 'read_video' not in caplog.text
    options = {'avoid_negative_ts': 'disabled'}
    with av.open(str(usual)) as source, av.open(str(file), 'w', format='matroska', options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for packet, time in zip(packets, times, strict=True):
            packet.stream = stream
            packet.pts = packet.dts = packets[1].duration * time
            target.mux(packet)
    assert a2d.read_film(raw, a2d.Video(raw_a2d.FIRST, ()))[1] == 4
    assert f'{raw_a2d.FIRST}.mp4: some of its 4 frames have a negative or duplicate time' in caplog.text


FRAME = {'instance': np.array([0, 1]), 'reMask': np.zeros((2, raw_a2d.WIDTH, raw_a2d.HEIGHT), np.uint8)}


@pytest.mark.parametrize(
    'content, message',
    [
        ({'instance': FRAME['instance']}, r"must have the data sets instance and reMask, has \['id', 'instance'\]"),
        ({'reMask': FRAME['reMask']}, r"must have the data sets instance and reMask, has \['id', 'reMask'\]"),
        (FRAME | {'instance': np.array([0.5, 1])}, r'instance must hold whole numbers, holds \[0.5, 1.0\]'),
        (FRAME | {'instance': np.array([-1, 0])}, r'instance must hold whole numbers, holds \[-1, 0\]'),
        (FRAME | {'instance': np.array([0])}, r'reMask has the shape \(2, 96, 64\), but instance names 1'),
        (
            FRAME | {'reMask': np.zeros((raw_a2d.WIDTH, raw_a2d.HEIGHT))},
            r'reMask has the shape \(1, 96, 64\), but instance names 2',
        ),
        (FRAME | {'reMask': np.zeros(2)}, r'reMask has the shape \(2,\), but instance names 2'),
        (
            FRAME | {'reMask': np.full((2, raw_a2d.WIDTH, raw_a2d.HEIGHT), 255)},
            r'reMask holds other values than 0 and 1',
        ),
        (
            FRAME | {'reMask': np.zeros((2, raw_a2d.WIDTH, 60))},
            r'reMask is 96x60 pixels, its frame 96x64.*same release\.$',
        ),
        (
            FRAME | {'reMask': np.zeros((2, raw_a2d.HEIGHT, raw_a2d.WIDTH))},
            r'reMask is 64x96 pixels, its frame 96x64.*transposed: reMask must be \(N, W, H\)',
        ),
    ],
)
def test_wrong_h5(raw, content, message):
    raw_a2d.write_h5(raw, raw_a2d.FIRST, 3, **content)
    with pytest.raises(ValueError, match=f'{raw_a2d.FIRST}.00003.h5: {message}'):
        a2d.read_masks(raw, a2d.Video(raw_a2d.FIRST, ()), 9, raw_a2d.HEIGHT, raw_a2d.WIDTH)


def test_broken_and_missing_h5(raw):
    folder = raw / 'text_annotations' / 'a2d_annotation_with_instances' / raw_a2d.FIRST
    arguments = raw, a2d.Video(raw_a2d.FIRST, ()), 8, raw_a2d.HEIGHT, raw_a2d.WIDTH
    with pytest.raises(ValueError, match=r'00009.h5: the name must be the number of a frame, .* has 8 frames'):
        a2d.read_masks(*arguments)
    for name in ('00000.h5', '00003_copy.h5'):
        (folder / '00009.h5').rename(folder / name)
        with pytest.raises(ValueError, match=f'{name}: the name must be the number of a frame, from 1'):
            a2d.read_masks(*arguments)
        (folder / name).rename(folder / '00009.h5')
    truncate(folder / '00003.h5')
    with pytest.raises(ValueError, match=r'00003.h5: broken HDF5 \(.*truncated'):
        a2d.read_masks(*arguments)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match=rf'{raw_a2d.FIRST}: missing, or without h5 files'):
        a2d.read_masks(*arguments)


@pytest.mark.parametrize(
    'file, text, message',
    [
        (SENTENCES, raw_a2d.ANNOTATION.replace(',a dog', ',"a dog'), 'a2d_annotation.txt: line 3: is not CSV'),
        (SENTENCES, raw_a2d.ANNOTATION.replace(',a dog', ',"a "dog'), 'a2d_annotation.txt: line 3: is not CSV'),
        (SENTENCES, raw_a2d.ANNOTATION.partition('\n')[0], 'a2d_annotation.txt: has no sentence'),
        (SENTENCES, '', "a2d_annotation.txt: the first line must be .* is ''"),
        (SUBSETS, '', 'videoset.csv: has no line'),
        (SUBSETS, '\n\n', 'videoset.csv: has no line'),
        (
            SUBSETS,
            raw_a2d.VIDEOSET.replace(',3,1', ',3,0'),
            "no sentence of a video that .*csv has in the split 'test'",
        ),
        (
            SUBSETS,
            raw_a2d.VIDEOSET.replace(raw_a2d.MISSED, '../up'),
            'videoset.csv: line 3: the video must be one name',
        ),
        (
            SENTENCES,
            raw_a2d.ANNOTATION.replace(raw_a2d.TEST, '/abs'),
            'a2d_annotation.txt: line 5: the video must be one',
        ),
        (
            SENTENCES,
            raw_a2d.ANNOTATION.replace('car on', '\x1b[31m' * 2001),
            'a2d_annotation.txt: line 5: query must have',
        ),
        (SENTENCES, raw_a2d.ANNOTATION.replace(',5,', ',123456,'), "line 4: instance_id must be a whole number, is '1"),
    ],
)
def test_truncated_or_hostile_text(raw, file, text, message):
    (raw / file).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        a2d.splits(raw)
    assert str(caught.value).isprintable()


def test_text_of_other_systems_and_junk_files(raw):
    before = list(built(raw, 'train'))
    for file in (SENTENCES, SUBSETS, pathlib.Path('text_annotations/a2d_missed_videos.txt')):
        (raw / file).write_bytes(b'\xef\xbb\xbf' + (raw / file).read_bytes().replace(b'\n', b'\r\n'))
    for folder in [path for path in raw.rglob('*') if path.is_dir()]:
        (folder / '._00003.h5').write_bytes(b'\x00\x05')
        (folder / f'._{raw_a2d.FIRST}.mp4').write_bytes(b'\x00\x05')
        (folder / '.DS_Store').write_bytes(b'\x00')
    for file in [*raw.rglob('0*.h5'), *raw.rglob('[!.]*.mp4')]:
        file.rename(file.with_suffix(file.suffix.upper()))
    assert list(built(raw, 'train')) == before


def test_duplicate_clips_are_refused(raw):
    clip = raw / 'Release' / 'CLIPS320' / f'{raw_a2d.FIRST}.mp4'
    shutil.copy(clip, clip.with_suffix('.MP4'))
    with pytest.raises(ValueError, match=f'{raw_a2d.FIRST}.MP4 and .*{raw_a2d.FIRST}.mp4 are the same clip'):
        built(raw, 'train')


H5 = pathlib.Path('text_annotations/a2d_annotation_with_instances', raw_a2d.FIRST, '00003.h5')


def claim(shape):
    def spoil(content):
        del content['reMask']
        content.create_dataset('reMask', shape, np.uint8, chunks=(1, 64, 64))  # Takes no place in the file.

    return spoil


def replace(name, make):
    def spoil(content):
        del content[name]
        make(content)

    return spoil


def unpack_to_more(content):
    array = content.create_dataset('reMask', (2, 96, 64), 'u1', chunks=(1, 96, 64), compression='gzip')
    array.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(10**7)))


def pack_twice(content):
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((1, 96, 64))
    settings.set_deflate(9)
    settings.set_deflate(9)
    h5py.h5d.create(content.id, b'reMask', h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple((2, 96, 64)), settings)


NO_ARRAY = 'reMask must be an array of numbers'


@pytest.mark.parametrize(
    'spoil, message',
    [
        (claim((2, 2**20, 2**20)), r'reMask has the shape \(2, 1048576, 1048576\); at most 33,554,432 values'),
        (
            replace('instance', lambda h5: h5.create_dataset('instance', (2**40,), np.uint8, chunks=(64,))),
            r'instance has the shape \(1099511627776,\); at most',
        ),
        (replace('reMask', lambda h5: h5.create_group('reMask')), NO_ARRAY),
        (replace('reMask', lambda h5: h5.create_dataset('reMask', data=['a', 'b'])), NO_ARRAY),
        (replace('reMask', lambda h5: h5.create_dataset('reMask', data=h5py.Empty('u1'))), NO_ARRAY),
        (replace('reMask', lambda h5: h5.__setitem__('reMask', h5py.ExternalLink('other.h5', '/x'))), NO_ARRAY),
        (replace('reMask', lambda h5: h5.__setitem__('reMask', h5py.SoftLink('/none'))), NO_ARRAY),
        (
            replace(
                'reMask',
                lambda h5: h5.create_dataset('reMask', (2, 96, 64), 'u1', external=[('/etc/passwd', 0, 12288)]),
            ),
            NO_ARRAY,
        ),
        (replace('reMask', unpack_to_more), 'reMask unpacks to more than its size'),
        (replace('reMask', pack_twice), 'reMask is packed in a way that is not read'),
        (
            replace('reMask', lambda h5: h5.create_dataset('reMask', data=np.zeros((2, 96, 64)), compression='lzf')),
            'reMask is packed in a way that is not read',
        ),
        (
            replace(
                'instance',
                lambda h5: h5.create_dataset(
                    'instance', data=np.ones(2, 'u1'), chunks=(2**26,), maxshape=(None,), compression='gzip'
                ),
            ),
            r'instance is kept in 1 parts of the shape \(67108864,\); at most',
        ),
        (replace('instance', lambda h5: h5.create_dataset('instance', data=[np.nan, 1])), 'instance must hold whole'),
        (replace('instance', lambda h5: h5.create_dataset('instance', data=[1e300, 1])), 'instance must hold whole'),
    ],
)
def test_h5_that_claims_gigabytes_or_leads_elsewhere(raw, spoil, message):
    with h5py.File(raw / H5, 'a') as content:
        spoil(content)
    with pytest.raises(ValueError, match=f'00003.h5: ({message})'):
        built(raw, 'train')
    assert [record.video.name for record in built(raw, 'train', skip_bad_videos=True)] == [raw_a2d.SECOND]


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'chunks': (7, 5)},
        {'chunks': (30, 40), 'compression': 'gzip'},
        {'chunks': (16, 16), 'compression': 'gzip', 'shuffle': True, 'fletcher32': True},
    ],
)
def test_h5_is_read_with_any_usual_compression(tmp_path, options):
    values = np.random.default_rng(0).integers(0, 2**16, (30, 40)).astype(np.uint16)
    with h5py.File(tmp_path / 'a.h5', 'w') as content:
        content.create_dataset('x', data=values, **options)
    np.testing.assert_array_equal(arrays.read_h5(tmp_path / 'a.h5', ['x'])[0], values)


@pytest.mark.parametrize(
    'content',
    [
        b'ffconcat version 1.0\nfile ccccccccccc.mp4\n',
        b'#EXTM3U\n#EXTINF:1,\nccccccccccc.mp4\n',
        b'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n',
    ],
)
def test_films_that_name_other_films_or_the_network(raw, content):
    (raw / 'Release' / 'CLIPS320' / f'{raw_a2d.FIRST}.mp4').write_bytes(content)
    with pytest.raises(ValueError, match=f'{raw_a2d.FIRST}.mp4: broken mp4'):
        built(raw, 'train')


def test_a_film_of_one_row_of_pixels(raw):
    raw_a2d.write_film(raw / 'Release' / 'CLIPS320' / f'{raw_a2d.FIRST}.mp4', 2, 'mpeg4', size=(2, 800))
    with pytest.raises(ValueError, match=f'{raw_a2d.FIRST}.mp4: 800x2 pixels; a frame has at most .* 32 times'):
        built(raw, 'train')
