"""JHMDB-Sentences (Gavrilyuk et al., CVPR 2018) as array_record: one record a video, to evaluate on.

    python -m datasets.build jhmdb_sentences --raw=<where Rename_Images/ puppet_mask/ lie> --out=data/tfds

    jhmdb_sentences_samples_metadata.json            the sentences, and the frames that are scored
    Rename_Images/<action>/<video>/<frame>.png       named from 00001
    puppet_mask/<action>/<video>/puppet_mask.mat     part_mask (H, W, T), 0 and 1

Scored are three frames a video, drawn once for all in the first of these files; other releases drew others, so only
numbers of this one can be compared. Only these frames' masks are kept, in their order: `mask_places` in metadata.json.
"""
import dataclasses
import io
import json
import pathlib

import cv2
import numpy as np
import scipy.io
import tensorflow_datasets as tfds

from datasets import video_records

METADATA = 'jhmdb_sentences_samples_metadata.json'


@dataclasses.dataclass(frozen=True)
class Video:
    """What the metadata list of one video.

    frame_folder, mask_file: relative to the root of the raw data set.
    scored: numbers, from 1, of the frames that are scored, sorted.
    """
    name: str
    text: str
    frame_folder: pathlib.PurePosixPath
    mask_file: pathlib.PurePosixPath
    num_frames: int
    scored: tuple[int, ...]


class JhmdbSentences(video_records.VideoRecords):
    """Short clips of one person each, a sentence about the person, its masks in the scored frames."""
    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'One record a video.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download Rename_Images.tar.gz and puppet_mask.zip from the page of JHMDB, unpack them into one folder, and '
        f'add {METADATA} of the release of MTTR.')

    FRAMES = video_records.frames('png')

    def _split_generators(self, dl_manager):
        root = pathlib.Path(dl_manager.manual_dir)
        return {'test': self._generate_examples(root, read_videos(root / METADATA))}

    def _generate_examples(self, root: pathlib.Path, videos: list[Video]):
        def read(video):
            names = [f'{number:05d}' for number in range(1, video.num_frames + 1)]
            files = [root / video.frame_folder / f'{name}.png' for name in names]
            height, width = check_frames(files)
            masks = read_masks(root, video, height, width)
            entry = {'video': video.name, 'frame_names': names, 'height': height, 'width': width,
                     'expressions': [{'id': '0', 'text': video.text, 'object_id': 1, 'tags': ''}]}
            return entry, {'has_masks': True, 'mask_places': [[frame - 1, 1] for frame in video.scored]}, {
                'frames': [str(file) for file in files], 'masks': [io.BytesIO(mask) for mask in masks]}

        return self._write('test', videos, read)


def read_videos(file: pathlib.Path) -> list[Video]:
    """Every video of the metadata file, sorted by name.

    Paths in the file may begin with anything; what counts begins with Rename_Images and puppet_mask.

    Raises:
        FileNotFoundError: when the file is missing.
        ValueError: for a file that is no JSON or no list of five-lists, for a path without these folders, for samples
            of one video that contradict each other, for a frame that is named twice or outside the video.
    """
    try:
        samples = json.loads(file.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{file}: missing. It comes with the release of MTTR (jhmdb_sentences in its data '
                                'instructions); copy it there, or mend --raw.') from error
    except ValueError as error:
        raise ValueError(f'{file}: is not JSON ({error}). Copy it again from the release of MTTR.') from error
    if not isinstance(samples, list) or not samples:
        raise ValueError(f'{file}: must be a list of samples. Copy it again from the release of MTTR.')
    videos = {}
    for number, sample in enumerate(samples):
        video = _read_sample(sample, f'{file}: sample {number}')
        first = videos.setdefault(video.name, video)
        if dataclasses.replace(first, scored=()) != dataclasses.replace(video, scored=()):
            raise ValueError(f'{file}: sample {number}: says of video {video.name} {sample!r:.300}; an earlier sample '
                             f'has other paths, another number of frames or another text: {first}. Make them agree.')
        if first is not video:
            if video.scored[0] in first.scored:
                raise ValueError(f'{file}: sample {number}: names frame {video.scored[0]} of video {video.name} a '
                                 'second time. Remove one of the two.')
            videos[video.name] = dataclasses.replace(first, scored=tuple(sorted(first.scored + video.scored)))
    return [videos[name] for name in sorted(videos)]


def check_frames(files: list[pathlib.Path]) -> tuple[int, int]:
    """Decodes every PNG of a video and returns their common (height, width).

    Raises:
        FileNotFoundError: for a frame that is not there.
        ValueError: for a broken PNG, and for frames of different sizes.
    """
    first = None
    for file in files:
        try:
            data = np.fromfile(file, np.uint8)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{file}: missing; {METADATA} counts {len(files)} frames from 00001. '
                                    'Unpack the frames again.') from error
        # As records are decoded; Pillow takes PNGs that OpenCV then refuses.
        image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
        if image is None:
            raise ValueError(f'{file}: broken PNG. Unpack this frame again.')
        size = image.shape[:2]
        first = first or size
        if size != first:
            raise ValueError(f'{file}: is {size[1]}x{size[0]} pixels, but {files[0].name} of the same video is '
                             f'{first[1]}x{first[0]}. Unpack the frames again.')
    return first


def read_masks(root: pathlib.Path, video: Video, height: int, width: int) -> list[bytes]:
    """PNGs of 0 and 1 of the scored frames of a video, in their order.

    Raises:
        FileNotFoundError: for a missing puppet_mask.mat.
        ValueError: for a broken one or one without part_mask, for masks of another size than the frames, for other
            values than 0 and 1, and for a scored frame that it lacks.
    """
    file = root / video.mask_file
    if not file.exists():
        raise FileNotFoundError(f'{file}: missing, though {METADATA} names it. Unpack puppet_mask.zip again.')
    try:
        content = scipy.io.loadmat(str(file), appendmat=False)
    except Exception as error:  # A file that is cut makes scipy raise what comes along, IndexError and TypeError too.
        raise ValueError(f'{file}: broken MATLAB file ({error}). Unpack this file again.') from error
    if 'part_mask' not in content:
        names = sorted(name for name in content if not name.startswith('__'))
        raise ValueError(f'{file}: must have the variable part_mask, has {names}. Unpack this file again.')
    masks = np.atleast_3d(content['part_mask'])  # MATLAB drops a last axis of 1.
    if masks.shape[:2] != (height, width):
        turned = ' They are those of the frame transposed: part_mask must be (H, W, T).'
        raise ValueError(f'{file}: part_mask is {masks.shape[1]}x{masks.shape[0]} pixels, the frames {width}x{height}. '
                         'Take frames and masks of the same release.' + turned * (masks.shape[:2] == (width, height)))
    if not np.isin(masks, (0, 1)).all():
        raise ValueError(f'{file}: part_mask holds other values than 0 and 1. Unpack this file again.')
    if video.scored[-1] > masks.shape[2]:
        raise ValueError(f'{file}: part_mask ends after {masks.shape[2]} frames, but {METADATA} names frame '
                         f'{video.scored[-1]} of the video. Take both of the same release.')
    return [video_records.encode_png(masks[:, :, frame - 1]) for frame in video.scored]


def _read_sample(sample: list, where: str) -> Video:
    """The video of one sample, with one scored frame."""
    kinds = [str, str, str, int, str]
    if not isinstance(sample, list) or [type(value) for value in sample] != kinds:
        raise ValueError(f'{where}: must be [video, path of a frame, path of a mask, number of frames, sentence], is '
                         f'{sample!r:.300}. Copy the file again from the release of MTTR.')
    name, frame_path, mask_path, num_frames, text = sample
    frame = _below('Rename_Images', frame_path, where)
    if not (frame.stem.isdecimal() and 0 < int(frame.stem) <= num_frames):
        raise ValueError(f'{where}: {frame_path} must be named after a frame from 1 to {num_frames}, the number of '
                         'frames in the same sample. Mend one of them.')
    if not text.strip():
        raise ValueError(f'{where}: the sentence is empty. Write one, or remove the sample.')
    return Video(name, text, frame.parent, _below('puppet_mask', mask_path, where), num_frames, (int(frame.stem),))


def _below(folder: str, path: str, where: str) -> pathlib.PurePosixPath:
    """The path from `folder` on."""
    parts = pathlib.PurePosixPath(path).parts
    if folder not in parts:
        raise ValueError(f'{where}: the path {path} does not lead through {folder}. Copy the file again from the '
                         'release of MTTR.')
    return pathlib.PurePosixPath(*parts[parts.index(folder):])
