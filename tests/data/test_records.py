import dataclasses
import io
import pickle

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
        with pytest.raises(ValueError, match=where + 'JPEG is broken or truncated'):
            spoilt(record, frames=record.frames[0][:keep]).decode_frames([0])
    with pytest.raises(ValueError, match=where + 'mask is broken'):
        spoilt(record, masks=record.masks[0][:60]).decode_masks([0])
    buffers = io.BytesIO(), io.BytesIO()
    Image.fromarray(raw_tree.frame('x', 0)[:40]).save(buffers[0], 'JPEG')
    Image.fromarray(raw_tree.mask(0)[:40]).save(buffers[1], 'PNG')
    with pytest.raises(ValueError, match=where + 'JPEG is 96x40 pixels, not 96x54'):
        spoilt(record, frames=buffers[0].getvalue()).decode_frames([0])
    with pytest.raises(ValueError, match=where + r'mask has the shape \(40, 96\)'):
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
