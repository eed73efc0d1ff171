"""Writes the world as a data set, in the raw layout of Ref-YouTube-VOS or of MeViS."""

from collections.abc import Iterable, Sequence
import hashlib
import json
import numbers
import os
import pathlib
import typing

import numpy as np
from PIL import Image
import tqdm

from sgmg_jax import files, pictures
from sgmg_jax.synthetic.groups import group_expressions
from sgmg_jax.synthetic.video import check, make_video

MAX_VIDEOS = 100_000  # per split


def seed_of_video(seed: int, split: str, index: int) -> int:
    """The seed that `make_video` draws a video of `write_dataset` from; 40 bits, in hexadecimal the video's id."""
    return int.from_bytes(hashlib.sha256(f'{seed}/{split}/{index}'.encode()).digest()[:5], 'big')


def _save_frames(folder: pathlib.Path, names: Sequence[str], images: Iterable[np.ndarray]) -> None:
    """JPEG for RGB frames [T H W 3], palette PNG for index maps, plain PNG for boolean masks [T H W]."""
    folder.mkdir(parents=True)
    for name, image in zip(names, images, strict=True):
        if image.ndim == 3:
            Image.fromarray(image).save(folder / f'{name}.jpg', quality=92)
        elif image.dtype == bool:
            Image.fromarray(np.uint8(image) * 255).save(folder / f'{name}.png')
        else:
            paletted = Image.fromarray(image)
            paletted.putpalette(pictures.PALETTE)
            paletted.save(folder / f'{name}.png')


def _save_json(path: pathlib.Path, videos: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({'videos': dict(sorted(videos.items()))}))


def _write_mevis_split(
    root: pathlib.Path, split: str, count: int, seed: int, num_frames: int, size: tuple[int, int], *, kind: str | None
) -> None:
    (root / split / 'JPEGImages').mkdir(parents=True)
    names = [f'{t:05d}' for t in range(num_frames)]
    videos: dict[str, dict] = {}
    masks: dict[str, list] = {}
    for index in tqdm.trange(count, desc=split, unit='video', dynamic_ncols=True):
        video_seed = seed_of_video(seed, split, index)
        video = make_video(video_seed, num_frames, size, unseen=split == 'valid_u' and index % 2 == 1, kind=kind)
        sentences = group_expressions(np.random.default_rng([video_seed, 1]), video.objects, video.expressions)
        _save_frames(root / split / 'JPEGImages' / f'{video_seed:012x}', names, video.frames)
        first = len(masks)
        for k in range(1, len(video.objects) + 1):
            masks[str(first + k)] = [_run_lengths(mask == k) for mask in video.masks]
        videos[f'{video_seed:012x}'] = {
            'vid_id': index,
            'expressions': {
                str(i): {'exp': e.text, 'obj_id': list(e.object_ids), 'anno_id': [first + k for k in e.object_ids]}
                for i, e in enumerate(sentences)
            },
            'frames': names,
        }
    (root / split / 'mask_dict.json').write_text(json.dumps(masks))
    _save_json(root / split / 'meta_expressions_v2.json', videos)


def _run_lengths(mask: np.ndarray) -> dict | None:
    """COCO's; None without a pixel."""
    from pycocotools import mask as coco_mask  # not needed for --help

    if not mask.any():
        return None
    code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {'size': list(mask.shape), 'counts': code['counts'].decode()}


def _write_split(
    root: pathlib.Path, split: str, count: int, seed: int, num_frames: int, size: tuple[int, int], *, kind: str | None
) -> None:
    public, full, meta = {}, {}, {}
    (root / split / 'JPEGImages').mkdir(parents=True)
    (root / split / 'Annotations').mkdir()
    for index in tqdm.trange(count, desc=split, unit='video', dynamic_ncols=True):
        video_seed = seed_of_video(seed, split, index)
        video_id = f'{video_seed:010x}'
        # As in the real data set: some videos do not start at 0, and only every fifth frame exists.
        names = [f'{5 * (t + video_seed % 4):05d}' for t in range(num_frames)]
        video = make_video(video_seed, num_frames, size, unseen=split == 'valid' and index % 2 == 1, kind=kind)
        _save_frames(root / split / 'JPEGImages' / video_id, names, video.frames)
        annotations = root / split / 'Annotations' / video_id
        if split == 'train':
            _save_frames(annotations, names, video.masks)
        else:
            for i, expression in enumerate(video.expressions):
                _save_frames(annotations / str(i), names, video.masks == expression.object_id)
        public[video_id] = {
            'expressions': {str(i): {'exp': e.text} for i, e in enumerate(video.expressions)},
            'frames': names,
        }
        full[video_id] = {
            'expressions': {
                str(i): {'exp': e.text, 'obj_id': str(e.object_id), 'tags': e.tags}
                for i, e in enumerate(video.expressions)
            },
            'frames': names,
        }
        meta[video_id] = {
            'objects': {
                str(k): {'category': o.shape, 'frames': [n for n, m in zip(names, video.masks) if (m == k).any()]}
                for k, o in enumerate(video.objects, 1)
            }
        }
    if split == 'train':
        _save_json(root / 'train/meta.json', meta)
        _save_json(root / 'meta_expressions/train/meta_expressions.json', full)
    else:
        _save_json(root / 'valid/meta_expressions_challenge.json', full)
        _save_json(root / 'meta_expressions/valid/meta_expressions.json', public)


LAYOUTS = {'ref_youtube_vos': (_write_split, ('train', 'valid')), 'mevis': (_write_mevis_split, ('train', 'valid_u'))}


@typing.no_type_check  # checks its own arguments
def write_dataset(
    root: str | os.PathLike,
    num_train: int,
    num_valid: int,
    seed: int = 0,
    num_frames: int = 8,
    size: tuple[int, int] = (128, 128),
    *,
    layout: str = 'ref_youtube_vos',
    kind: str | None = None,
) -> None:
    """Writes the world in the raw layout of Ref-YouTube-VOS, with public validation ground truth, or in that of MeViS.

    root/{train,valid}/JPEGImages/<video>/<frame>.jpg
    root/train/Annotations/<video>/<frame>.png             palette PNG, k = object k
    root/train/meta.json
    root/valid/Annotations/<video>/<expression>/<frame>.png  0 or 255
    root/valid/meta_expressions_challenge.json             exp, obj_id, tags
    root/meta_expressions/{train,valid,test}/meta_expressions.json

    Training expressions also have "tags" (see Expression); the test split is empty. Every second validation video,
    but no training video, has a (colour, shape) of HELD_OUT. A video depends only on the seed, the split and its
    number, not on the number of videos.

    In the layout of MeViS's second edition, sentences mean one object, several or none (groups.py):

    root/{train,valid_u}/JPEGImages/<video>/<frame>.jpg
    root/{train,valid_u}/mask_dict.json                    COCO run lengths of each object, by anno_id
    root/{train,valid_u}/meta_expressions_v2.json          exp, obj_id, anno_id

    Args:
        root: the folder to create; it must not exist, or be empty. It appears once everything is written.
        num_train, num_valid: videos, up to 100,000.
        seed, num_frames, size: of every video, as in `make_video`.
        layout: a key of LAYOUTS.
        kind: of every video, as in `make_video`.

    Raises:
        ValueError: a number is out of range, or there is no such layout.
        FileExistsError: root exists and is not empty.
    """
    for name, value in (('num_train', num_train), ('num_valid', num_valid)):
        if not isinstance(value, numbers.Integral) or not 0 <= value <= MAX_VIDEOS:
            raise ValueError(f'{name}={value!r:.100}: must be a whole number from 0 to {MAX_VIDEOS}.')
    check(seed, num_frames, size, kind)
    if layout not in LAYOUTS:
        raise ValueError(f'layout = {layout!r}: must be one of {", ".join(LAYOUTS)}.')
    write_split, splits = LAYOUTS[layout]
    root = pathlib.Path(os.path.realpath(root))
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f'{root}: exists and is not an empty folder; remove it, or choose another folder.')
    with files.new_folder(root) as partial:
        for split, count in zip(splits, (num_train, num_valid)):
            write_split(partial, split, count, seed, num_frames, size, kind=kind)
        if layout == 'ref_youtube_vos':
            _save_json(partial / 'meta_expressions/test/meta_expressions.json', {})
