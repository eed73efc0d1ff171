import dataclasses
import io
import pickle
import shutil

import av
import numpy as np
from PIL import Image
import pytest
import raw_tree

from sgmg_jax.data import records


def test_only_the_asked_frames_come_back_as_pillow_decodes_them(records_folder):
    record = records.open_records(records_folder, 'train')[1]
    frames = record.decode_frames([6, 0, 0])
    assert frames.shape == (3, 54, 96, 3) and frames.dtype == np.uint8
    for frame, index in zip(frames, [6, 0, 0]):
        np.testing.assert_array_equal(frame, np.asarray(Image.open(io.BytesIO(record.frames[index]))))
    np.testing.assert_array_equal(record.decode_masks([1, 3]), [raw_tree.mask(1), raw_tree.mask(3)])
    assert record.decode_frames().shape[0] == record.decode_masks().shape[0] == 7


def test_an_orientation_tag_does_not_turn_the_frame_away_from_its_mask(records_folder):
    record = records.open_records(records_folder, 'train')[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # Rotated by 90 degrees.
    buffer = io.BytesIO()
    Image.open(io.BytesIO(record.frames[0])).save(buffer, 'JPEG', exif=exif)
    turned = dataclasses.replace(record, frames=(buffer.getvalue(),))
    assert turned.decode_frames([0]).shape == (1, 54, 96, 3)


@pytest.mark.parametrize('split, names', [
    ('train', ['aaa0000001', 'bbb0000002']), ('train[1:]', ['bbb0000002']), ('train[:50%]', ['aaa0000001']),
    ('train[1:]+valid[:1]', ['bbb0000002', 'ccc0000003']), ('valid[:1]', ['ccc0000003'])])
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
def test_absent_split_lists_what_is_there(records_folder, split):
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
    return dataclasses.replace(
        record, **{name: (value, *getattr(record, name)[1:]) for name, value in fields.items()})


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


@pytest.mark.parametrize('num_frames, clips', [
    (1, 4 * (6 + 7)), (5, 4 * (2 + 2)), (6, 4 * (1 + 2)), (40, 4 * 2)])
def test_training_index(records_folder, num_frames, clips):
    videos = records.open_records(records_folder, 'train').videos
    index = records.training_index(videos, num_frames)
    assert index.shape == (clips, 3) and len({*map(tuple, index)}) == clips
    for number, position, centre in index:
        assert centre % num_frames == 0 and centre < len(videos[number].frame_names)
        assert position < len(videos[number].expressions)


def test_training_needs_ground_truth(records_folder):
    with pytest.raises(ValueError, match='video ccc0000003, expression 0: has no ground truth'):
        records.training_index(records.open_records(records_folder, 'valid').videos, 5)


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
    video = records.Video('-film', names, 54, 96, (), False, ())
    return records.Record(video, (), (), buffer.getvalue()), [frames[time] for time in sorted(frames)]


@pytest.mark.parametrize('codec', ['libx264', 'mpeg4'])  # The first stores frames in another order than it shows.
@pytest.mark.parametrize('indices', [None, [0], [8], [7, 0, 3, 3, 1], np.array([4, 4])])
def test_frames_of_a_film_are_those_that_read_video_gives(codec, indices):
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
    record = records.Record(records.Video('pngs', ('00001', '00002'), 54, 96, (), False), tuple(map(png, frames)), ())
    np.testing.assert_array_equal(record.decode_frames(), frames)
    for keep in (30, 500, -13):
        with pytest.raises(ValueError, match='video pngs, frame 00001: the image is broken or truncated'):
            spoilt(record, frames=record.frames[0][:keep]).decode_frames([1, 0])


PLACES = ((1, 1), (1, 3), (4, 1), (6, 3))  # Objects 1 and 3; frame index, object.


@pytest.fixture
def placed():
    expressions = tuple(records.Expression(str(number), 'a dog', 1 + 2 * number, ()) for number in range(2))
    video = records.Video('placed', tuple('abcdefgh'), 54, 96, expressions, True, PLACES)
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


def test_training_on_single_objects_takes_the_frames_that_have_them(placed):
    index = records.training_index([placed.video], 5)
    np.testing.assert_array_equal(index, [(0, 0, 1), (0, 0, 4), (0, 1, 1), (0, 1, 6)])


def test_maps_of_all_objects_know_every_frame(records_folder):
    record = records.open_records(records_folder, 'train')[0]
    assert record.video.mask_places is None
    assert record.video.annotated_frames(2) == [0, 1, 2, 3, 4, 5]
    for frame in (1, 2):  # Object 2 is away from frame 2, which is known.
        np.testing.assert_array_equal(record.decode_object(2, frame), raw_tree.mask(frame) == 2)
    assert records.open_records(records_folder, 'valid').videos[0].annotated_frames(1) == []


def test_a_damaged_record_is_named(records_folder, tmp_path):
    folder = tmp_path / 'copy'
    shutil.copytree(records.open_records(records_folder, 'train').directory, folder)
    path, = folder.glob('*-train.array_record*')
    data = bytearray(path.read_bytes())
    middle = slice(len(data) // 2, len(data) // 2 + 4000)
    data[middle] = bytes(255 - x for x in data[middle])
    path.write_bytes(data)
    source = records.open_records(folder, 'train')
    with pytest.raises(ValueError, match=f'copy: split train, video {source.videos[0].name}: its record cannot be'):
        source[0]
