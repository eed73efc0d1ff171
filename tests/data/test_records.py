import dataclasses
import io
import json
import os
import pickle
import re
import shutil
import zlib

from array_record.python import array_record_module
import av
import cv2
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import PIL.EpsImagePlugin
import pytest
import raw_tree
from tensorflow_datasets.proto import tf_example_pb2

from sgmg_jax.data import clips, metadata, records


def test_decode_frames_matches_pillow_at_the_given_indices(records_folder):
    record = records.open_records(records_folder, 'train')[1]
    frames = record.decode_frames([6, 0, 0])
    assert frames.shape == (3, 54, 96, 3) and frames.dtype == np.uint8
    for frame, index in zip(frames, [6, 0, 0]):
        np.testing.assert_array_equal(frame, np.asarray(Image.open(io.BytesIO(record.frames[index]))))
    np.testing.assert_array_equal(record.decode_masks([1, 3]), [raw_tree.mask(1), raw_tree.mask(3)])
    assert record.decode_frames().shape[0] == record.decode_masks().shape[0] == 7


def test_orientation_tags_are_ignored(records_folder):
    record = records.open_records(records_folder, 'train')[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # Rotated by 90 degrees.
    buffer = io.BytesIO()
    Image.open(io.BytesIO(record.frames[0])).save(buffer, 'JPEG', exif=exif)
    turned = dataclasses.replace(record, frames=(buffer.getvalue(),))
    assert turned.decode_frames([0]).shape == (1, 54, 96, 3)


@pytest.mark.parametrize(
    'split, names',
    [
        ('train', ['aaa0000001', 'bbb0000002']),
        ('train[1:]', ['bbb0000002']),
        ('train[:50%]', ['aaa0000001']),
        ('train[1:]+valid[:1]', ['bbb0000002', 'ccc0000003']),
        ('valid[:1]', ['ccc0000003']),
    ],
)
def test_slices_keep_videos_and_records_together(records_folder, split, names):
    source = records.open_records(records_folder.parent.parent, split)
    assert [video.name for video in source.videos] == names
    assert [record.video.name for record in source] == names
    assert source[-1].frames == source[len(names) - 1].frames
    with pytest.raises(IndexError):
        source[len(names)]


def test_records_can_be_pickled(records_folder):
    source = records.open_records(records_folder, 'train')
    copy = pickle.loads(pickle.dumps(source))
    assert copy.videos == source.videos and copy[0].frames == source[0].frames


@pytest.mark.parametrize('split', ['test', 'valid[:x]', 'valid[5:9]'])
def test_unknown_split_lists_the_existing_ones(records_folder, split):
    with pytest.raises(ValueError, match=r'no split .* it has train \(2 videos\), valid \(2 videos\)'):
        records.open_records(records_folder, split)


def test_wrong_folder(records_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        records.open_records(tmp_path / 'nowhere', 'train')
    (tmp_path / 'photos').mkdir()
    with pytest.raises(FileNotFoundError, match='holds no built data set .* it has photos'):
        records.open_records(tmp_path, 'train')
    for name in 'ab':
        (tmp_path / name).mkdir()
        (tmp_path / name / 'dataset_info.json').touch()
    with pytest.raises(ValueError, match=r'holds several data sets, name one of them: .*a, .*b\.'):
        records.open_records(tmp_path, 'train')


def spoilt(record, **fields):
    return dataclasses.replace(record, **{name: (value, *getattr(record, name)[1:]) for name, value in fields.items()})


def test_folder_names_must_be_utf8(records_folder, tmp_path):
    folder = shutil.copytree(records_folder, tmp_path / '\udcff')
    with pytest.raises(ValueError, match='no text in UTF-8. Rename the folder'):
        records.open_records(folder, 'train')


def test_broken_records_name_video_and_frame(records_folder):
    record = records.open_records(records_folder, 'train')[0]
    where = 'video aaa0000001, frame 00020: the '
    for keep in (0, 30, len(record.frames[0]) // 2, len(record.frames[0]) - 2):
        with pytest.raises(ValueError, match=where + 'image is broken or truncated'):
            spoilt(record, frames=record.frames[0][:keep]).decode_frames([0])
    with pytest.raises(ValueError, match=where + 'mask is broken'):
        spoilt(record, masks=record.masks[0][:60]).decode_masks([0])
    buffers = io.BytesIO(), io.BytesIO()
    Image.fromarray(raw_tree.frame('x', 0)[:40]).save(buffers[0], 'JPEG')
    Image.fromarray(raw_tree.mask(0)[:40]).save(buffers[1], 'PNG')
    with pytest.raises(ValueError, match=where + 'image is 96x40 pixels, not 96x54'):
        spoilt(record, frames=buffers[0].getvalue()).decode_frames([0])
    with pytest.raises(ValueError, match=where + r'mask is broken \(is 96x40 pixels, not 96x54'):
        spoilt(record, masks=buffers[1].getvalue()).decode_masks([0])


@pytest.mark.parametrize('num_frames, expected', [(1, 4 * (6 + 7)), (5, 4 * (2 + 2)), (6, 4 * (1 + 2)), (40, 4 * 2)])
def test_training_index(records_folder, num_frames, expected):
    videos = records.open_records(records_folder, 'train').videos
    index = clips.training_index(videos, num_frames)
    assert index.shape == (expected, 3) and len({*map(tuple, index)}) == expected
    for number, position, centre in index:
        assert centre % num_frames == 0 and centre < len(videos[number].frame_names)
        assert position < len(videos[number].expressions)


def test_training_needs_ground_truth(records_folder):
    with pytest.raises(ValueError, match='video ccc0000003, expression 0: has no ground truth'):
        clips.training_index(records.open_records(records_folder, 'valid').videos, 5)


def film_record(codec='libx264', num_frames=9):
    """A record of a film, and its frames as torchvision's read_video gives them; frame k is of the grey 20 k."""
    buffer = io.BytesIO()
    with av.open(buffer, 'w', format='mp4') as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = 54, 96, 'yuv420p'
        noise = np.random.default_rng(0).integers(-5, 6, (54, 96, 3))
        for number in range(num_frames):
            image = (20 * number + 10 + noise).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode())
    with av.open(io.BytesIO(buffer.getvalue())) as container:
        frames = {frame.pts: frame.to_rgb().to_ndarray() for frame in container.decode(video=0)}
    names = tuple(f'{number:05d}' for number in range(1, num_frames + 1))
    video = metadata.Video('-film', names, 54, 96, (), False, ())
    return records.Record(video, (), (), buffer.getvalue()), [frames[time] for time in sorted(frames)]


@pytest.mark.parametrize('codec', ['libx264', 'mpeg4'])  # The first stores frames in another order than it shows.
@pytest.mark.parametrize('indices', [None, [0], [8], [7, 0, 3, 3, 1], np.array([4, 4])])
def test_film_frames_match_read_video(codec, indices):
    record, expected = film_record(codec)
    frames = record.decode_frames(indices)
    indices = range(9) if indices is None else indices
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, [expected[index] for index in indices])
    np.testing.assert_allclose(frames.mean((1, 2, 3)), [20 * index + 10 for index in indices], atol=6)


def test_broken_films_name_video_and_frame():
    record, _ = film_record()
    for keep in (0, 30, len(record.film) // 2):
        with pytest.raises(ValueError, match='video -film, frame 00003: the film is broken'):
            dataclasses.replace(record, film=record.film[:keep]).decode_frames([2, 0])
    longer = dataclasses.replace(record.video, frame_names=(*record.video.frame_names, '00010', '00011'))
    with pytest.raises(ValueError, match='frame 00010: the film ends before it, after 9 frames'):
        dataclasses.replace(record, video=longer).decode_frames([0, 10, 9])


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'PNG')
    return buffer.getvalue()


def test_png_frames():
    frames = [raw_tree.frame('x', position) for position in range(2)]
    record = records.Record(metadata.Video('pngs', ('00001', '00002'), 54, 96, (), False), tuple(map(png, frames)), ())
    np.testing.assert_array_equal(record.decode_frames(), frames)
    for keep in (30, 500, -13):
        with pytest.raises(ValueError, match='video pngs, frame 00001: the image is broken or truncated'):
            spoilt(record, frames=record.frames[0][:keep]).decode_frames([1, 0])


PLACES = ((1, 1), (1, 3), (4, 1), (6, 3))  # Objects 1 and 3; frame index, object.


@pytest.fixture
def placed():
    expressions = tuple(metadata.Expression(str(number), 'a dog', 1 + 2 * number, ()) for number in range(2))
    video = metadata.Video('placed', tuple('abcdefgh'), 54, 96, expressions, True, PLACES)
    masks = tuple(png((raw_tree.mask(frame) == 1).astype(np.uint8) * (place == 1)) for frame, place in PLACES)
    return records.Record(video, (), masks)


def test_masks_of_single_objects_are_found_by_frame_and_object(placed):
    assert [placed.video.annotated_frames(object_id) for object_id in (1, 2, 3)] == [[1, 4], [], [1, 6]]
    for frame in (1, 4):
        found = placed.decode_object(1, frame)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, raw_tree.mask(frame) == 1)
    assert not placed.decode_object(3, 6).any()
    for object_id, frame, name in ((3, 4, 'e'), (1, 0, 'a'), (2, 1, 'b')):
        with pytest.raises(ValueError, match=f'video placed, frame {name}: the object {object_id} has no mask here'):
            placed.decode_object(object_id, frame)
    with pytest.raises(ValueError, match='video placed, frame b: the mask is broken'):
        spoilt(placed, masks=placed.masks[0][:40]).decode_object(1, 1)


def test_training_index_of_single_object_masks(placed):
    index = clips.training_index([placed.video], 5)
    np.testing.assert_array_equal(index, [(0, 0, 1), (0, 0, 4), (0, 1, 1), (0, 1, 6)])


def test_maps_of_all_objects_annotate_every_frame(records_folder):
    record = records.open_records(records_folder, 'train')[0]
    assert record.video.mask_places is None
    assert record.video.annotated_frames(2) == [0, 1, 2, 3, 4, 5]
    for frame in (1, 2):  # Object 2 is away from frame 2, which is known.
        np.testing.assert_array_equal(record.decode_object(2, frame), raw_tree.mask(frame) == 2)
    assert records.open_records(records_folder, 'valid').videos[0].annotated_frames(1) == []


def test_a_damaged_record_is_named(records_folder, tmp_path):
    folder = tmp_path / 'copy'
    shutil.copytree(records.open_records(records_folder, 'train').directory, folder)
    (path,) = folder.glob('*-train.array_record*')
    data = bytearray(path.read_bytes())
    middle = slice(len(data) // 2, len(data) // 2 + 4000)
    data[middle] = bytes(255 - x for x in data[middle])
    path.write_bytes(data)
    source = records.open_records(folder, 'train')
    with pytest.raises(ValueError, match=f'copy: split train, video {source.videos[0].name}: its record cannot be'):
        source[0]


# Damaged and hostile files


@pytest.fixture
def folder(records_folder, tmp_path):
    return shutil.copytree(records_folder, tmp_path / 'copy')


def read_all(folder, split='train'):
    """Reads everything in a split."""
    for record in records.open_records(folder, split):
        record.decode_frames()
        record.decode_masks()


def edit(name, change):
    def spoil(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return spoil


def in_video(**fields):
    return edit('metadata.json', lambda content: content['videos']['train'][0].update(fields))


def in_expression(**fields):
    return edit('metadata.json', lambda content: content['videos']['train'][0]['expressions'][0].update(fields))


def in_split(**fields):
    return edit('dataset_info.json', lambda content: content['splits'][0].update(fields))


WHERE = 'metadata.json: split train, number 0'
FRAMES = raw_tree.TRAIN['aaa0000001']


@pytest.mark.parametrize(
    'spoil, message',
    [
        (in_video(video='../up'), f'{WHERE}: field "video" must be one name, not a path'),
        (in_video(video='/abs'), f'{WHERE}: field "video" must be one name'),
        (in_video(video='..'), f'{WHERE}: field "video" must not begin with a dot'),
        (in_video(video='a\x1b[31m'), f'{WHERE}: field "video" must have printable characters'),
        (in_video(video='\ud800'), f'{WHERE}: field "video" must have printable characters'),
        (in_video(video='x' * 201), f'{WHERE}: field "video" must have at most 200 bytes'),
        (in_video(video=None), f'{WHERE}: field "video" is missing or of the wrong type'),
        (in_video(video='bbb0000002'), 'metadata.json: split train has a video twice'),
        (in_video(video='zzz'), 'its record cannot be read .it is of video .aaa0000001., but metadata.json says zzz'),
        (in_video(frame_names=[]), f'{WHERE}, video aaa0000001: field "frame_names" is empty'),
        (in_video(frame_names=FRAMES[:-1] + FRAMES[:1]), 'field "frame_names" is empty, or has a name twice'),
        (in_video(frame_names=[*FRAMES[:-1], '../x']), 'field "frame_names", a name must be one name'),
        (in_video(frame_names=[*FRAMES[:-1], 3]), 'field "frame_names", a name must be a string'),
        (in_video(frame_names=FRAMES[:-1]), 'its record cannot be read .it has 6 masks, metadata.json says 5'),
        (in_video(height=-54), 'height and width must be whole numbers from 1'),
        (in_video(height=True), 'field "height" is missing or of the wrong type'),
        (in_video(height=54.0), 'field "height" is missing or of the wrong type'),
        (in_video(height=10**9), '96x1000000000 pixels; a frame has at most'),
        (in_video(height=2000, width=1), '1x2000 pixels; .* its long side is at most 32 times the short one'),
        (in_video(height=55), 'frame 00020: the image is 96x54 pixels, not 96x55'),
        (in_video(has_masks=1), 'field "has_masks" is missing or of the wrong type'),
        (in_video(has_masks=False), 'it has 6 masks, metadata.json says 0'),
        (in_video(mask_places=3), 'field "mask_places" must be a list'),
        (in_video(mask_places=[[0, 0]]), 'field "mask_places" must be a list'),
        (in_video(mask_places=[[6, 1]]), 'field "mask_places" must be a list'),
        (in_video(mask_places=[[0, 1], [0, 1]]), 'field "mask_places" has a place twice'),
        (in_video(mask_places=[[0, 1]]), 'it has 6 masks, metadata.json says 1'),
        (in_video(expressions=[]), 'field "expressions" is empty'),
        (in_video(expressions=[3]), 'an expression: field "id" is missing'),
        (in_expression(id='../0'), 'an expression: field "id" must be one name'),
        (in_expression(id='1'), 'field "expressions" is empty, or has an id twice'),
        (in_expression(text=' \n'), 'expression 0: field "text" is an empty sentence'),
        (
            in_expression(text='\udc80'),
            'expression 0: field "text" must have at most 10,000 characters, all of Unicode',
        ),
        (in_expression(text='a' * 10_001), 'expression 0: field "text" must have at most 10,000 characters'),
        (in_expression(object_id=0), 'expression 0: field "object_id" is 0'),
        (in_expression(object_id=255), 'expression 0: field "object_id" is 255'),
        (in_expression(object_id='1'), 'field "object_id" is missing or of the wrong type'),
        (in_expression(tags=['a']), 'field "tags" is missing or of the wrong type'),
        (
            edit('metadata.json', lambda c: c['videos']['train'].pop()),
            "split 'train' has 2 records, metadata.json lists 1",
        ),
        (
            edit('metadata.json', lambda c: c['videos'].pop('train')),
            "split 'train' has 2 records, metadata.json lists 0",
        ),
        (edit('metadata.json', lambda c: c.update(videos=[])), 'metadata.json: field "videos" is missing or wrong'),
        (in_split(name='../x'), "dataset_info.json: field 'splits.name' is missing or wrong"),
        (in_split(name='valid'), "dataset_info.json: field 'splits.name' is missing or wrong"),
        (in_split(shardLengths=['-1']), "dataset_info.json: field 'splits.shardLengths'"),
        (in_split(shardLengths=[2]), "dataset_info.json: field 'splits.shardLengths'"),
        (in_split(shardLengths=[]), "dataset_info.json: field 'splits.shardLengths'"),
        (in_split(shardLengths=['1']), "split 'train' has 1 records, metadata.json lists 2 videos"),
        (in_split(shardLengths=['1', '1']), 'train.array_record-00000-of-00002: missing, though'),
        (in_split(filepathTemplate='{SPLIT}/../x'), "dataset_info.json: field 'splits.filepathTemplate'"),
        (edit('dataset_info.json', lambda c: c.update(name='../..')), "dataset_info.json: field 'name' is missing"),
        (
            edit('dataset_info.json', lambda c: c.update(splits=3)),
            "dataset_info.json: field 'splits' is missing or wrong",
        ),
        (edit('dataset_info.json', lambda c: c.update(fileFormat='riegeli')), "dataset_info.json: field 'fileFormat'"),
        (edit('features.json', lambda c: c.update(featuresDict=[])), 'features.json: does not have the features'),
        (
            edit('features.json', lambda c: c['featuresDict']['features'].pop('frames')),
            'features.json: does not have the features',
        ),
        *(
            (lambda folder, name=name: (folder / name).write_text('[' * 100_000), f'{name}: is JSON of too many levels')
            for name in ('dataset_info.json', 'features.json', 'metadata.json')
        ),
        *(
            (lambda folder, name=name: (folder / name).write_bytes(b''), f'{name}: is not JSON .it is empty')
            for name in ('dataset_info.json', 'features.json', 'metadata.json')
        ),
    ],
)
def test_hostile_descriptions_are_refused_by_file_and_field(folder, spoil, message):
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        read_all(folder)
    assert str(folder) in str(caught.value) or 'video aaa0000001, frame' in str(caught.value)
    assert str(caught.value).isprintable()


def shard(folder):
    return next(folder.glob('*-train.array_record*'))


def test_record_counts_must_match_dataset_info(folder):
    data = shard(folder).read_bytes()
    next(folder.glob('*-valid.array_record*')).unlink()
    with pytest.raises(FileNotFoundError, match='valid.array_record-00000-of-00001: missing, though'):
        records.open_records(folder, 'valid')
    read_all(folder)  # Which needs nothing of the other split.
    for damaged in (b'', data[:100], data[: len(data) // 2], b'\x00' * len(data)):
        shard(folder).write_bytes(damaged)
        with pytest.raises(ValueError, match='train.array_record-00000-of-00001: is damaged'):
            read_all(folder)
    shard(folder).unlink()
    os.mkfifo(folder / 'ref_youtube_vos-train.array_record-00000-of-00001')
    with pytest.raises(ValueError, match='is a pipe, not a file'):
        records.open_records(folder, 'train')


def test_a_record_file_with_other_records(folder):
    writer = array_record_module.ArrayRecordWriter(str(shard(folder)), 'group_size:1')
    for data in (b'no example', tf_example_pb2.Example().SerializeToString()):
        writer.write(data)
    writer.close()
    source = records.open_records(folder, 'train')
    for index, message in ((0, '.*00001: is damaged: '), (1, '.*00001: is damaged: a record is empty')):
        with pytest.raises(ValueError, match=f'{source.videos[index].name}: its record cannot be read .{message}'):
            source[index]
    writer = array_record_module.ArrayRecordWriter(str(shard(folder)), 'group_size:1')
    writer.write(b'one')
    writer.close()
    with pytest.raises(ValueError, match='has 1 records, dataset_info.json says 2'):
        records.open_records(folder, 'train')


def huge_png():
    """A PNG that claims 3.6 billion pixels."""
    data = bytearray(png(np.zeros((2, 2), np.uint8)))
    data[16:24] = (60_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


POSTSCRIPT = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 54\n%%EndComments\nshowpage\n'


@pytest.mark.parametrize('data', [POSTSCRIPT, huge_png(), b'', b'GIF89a', b'BM' + bytes(100)])
def test_only_jpeg_and_png_are_decoded(records_folder, monkeypatch, data):
    monkeypatch.setattr(PIL.EpsImagePlugin, 'Ghostscript', lambda *_, **__: pytest.fail('Ghostscript was started'))
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('OpenCV was called'))
    record = records.open_records(records_folder, 'train')[0]
    with pytest.raises(ValueError, match='frame 00020: the image is broken or truncated'):
        spoilt(record, frames=data).decode_frames([0])
    with pytest.raises(ValueError, match='frame 00020: the mask is broken'):
        spoilt(record, masks=data).decode_masks([0])


@pytest.mark.parametrize(
    'film',
    [
        b'ffconcat version 1.0\nfile /etc/passwd\n',
        b'#EXTM3U\n#EXTINF:1,\n/etc/passwd\n',
        b'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n',
        POSTSCRIPT,
    ],
)
def test_films_that_name_other_files_or_the_network_are_refused(film):
    record, _ = film_record()
    with pytest.raises(ValueError, match='video -film, frame 00001: the film is broken'):
        dataclasses.replace(record, film=film).decode_frames([0])


def test_film_size_must_match_the_metadata():
    record, _ = film_record()
    other = dataclasses.replace(record, video=dataclasses.replace(record.video, height=48))
    with pytest.raises(ValueError, match='film is broken .its frames are 96x54 pixels, not 96x48'):
        other.decode_frames([0])


def mutated(data, rng):
    """Changes, removes or duplicates some bytes."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 4, 30])):
        place = int(rng.integers(len(data) + 1))
        kind = rng.integers(3)
        if kind == 0:
            data[place : place + 1] = rng.bytes(1)
        elif kind == 1:
            del data[place : place + int(rng.integers(1, 200))]
        else:
            data[place:place] = data[place : place + int(rng.integers(1, 200))]
    return bytes(data)


@given(st.integers(0, 2**32 - 1), st.sampled_from(['metadata.json', 'dataset_info.json', 'features.json', 'shard']))
def test_damaged_folders_raise_and_are_named(records_folder, tmp_path_factory, seed, name):
    folder = tmp_path_factory.getbasetemp() / 'mutated'
    shutil.copytree(records_folder, folder, dirs_exist_ok=True)
    file = shard(folder) if name == 'shard' else folder / name
    file.write_bytes(mutated(file.read_bytes(), np.random.default_rng(seed)))
    try:
        read_all(folder)
    except (ValueError, OSError) as error:
        assert str(folder) in str(error) or re.match(r'video \S+, frame \S+: the ', str(error)), error


@given(st.integers(0, 2**32 - 1), st.sampled_from(['frames', 'masks', 'film']))
def test_damaged_pictures_and_films_raise_and_name_the_video(records_folder, seed, field):
    rng = np.random.default_rng(seed)
    if field == 'film':
        record, _ = film_record('mpeg4', 3)
        record = dataclasses.replace(record, film=mutated(record.film, rng))
    else:
        record = records.open_records(records_folder, 'train')[0]
        record = spoilt(record, **{field: mutated(getattr(record, field)[0], rng)})
    try:
        (record.decode_masks if field == 'masks' else record.decode_frames)([0, 1])
    except ValueError as error:
        assert re.match(r'video \S+, frame \S+: the ', str(error)), error
