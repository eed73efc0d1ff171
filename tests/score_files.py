"""Predictions and ground truth in every format that `sgmg_jax.score` reads, and a way to run the command."""

import io
import zipfile

import numpy as np
from PIL import Image
from pycocotools import mask as rle
import raw_tree

from sgmg_jax.data import metadata, records
from sgmg_jax.evaluation import scoring
from sgmg_jax.score import __main__ as command
from sgmg_jax.score import submission

SIZE = (36, 50)


def run(protocol, gt, pred, out, *more, processes=1):
    return command.main([protocol, f'--gt={gt}', f'--pred={pred}', f'--json={out}', f'--processes={processes}', *more])


def png(mask):
    data = io.BytesIO()
    Image.fromarray(mask).save(data, 'PNG')
    return data.getvalue()


def make_record(name, frames, expressions, hidden=False):
    """A record of random boxes: objects 1 and 2, and void."""
    rng = np.random.default_rng(len(name) + frames)
    masks = np.zeros((frames, *SIZE), np.uint8)
    for mask in masks:
        for value in (1, 2, scoring.VOID):
            y, x = rng.integers(0, 24), rng.integers(0, 34)
            mask[y : y + 12, x : x + 16] = value
    video = metadata.Video(
        name, tuple(f'{5 * number:05}' for number in range(3, 3 + frames)), *SIZE, tuple(expressions), not hidden
    )
    return records.Record(video, (), () if hidden else tuple(map(png, masks)))


def write_submission(root, split, masks_of):
    for record in split:
        for expression in record.video.expressions:
            submission.write_masks(
                root, record.video.name, expression.id, record.video.frame_names, masks_of(record, expression)
            )
    submission.zip_submission(root, root / 'submission.zip')


def shifted_masks(record, expression):
    if not record.masks:
        return np.zeros((len(record.video.frame_names), *SIZE), bool)
    return np.roll(record.decode_masks() == expression.object_id, 3, axis=2)


def write_published_predictions(root, wrong=()):
    for video in sorted(set(raw_tree.VALID) - set(raw_tree.TEST)):
        frames = raw_tree.VALID[video]
        for key, expression in raw_tree.expressions().items():
            masks = np.stack([raw_tree.mask(t) == int(expression['obj_id']) for t in range(len(frames))])
            submission.write_masks(root, video, key, frames, masks ^ ((video, key) in wrong))
    submission.zip_submission(root, root / 'submission.zip')


def write_index_maps(root, maps):
    for name, masks in maps.items():
        for t, mask in enumerate(masks):
            raw_tree.save_mask(root / name / f'{t:05d}.png', mask)


def zip_folder(folder):
    with zipfile.ZipFile(folder.with_suffix('.zip'), 'w') as archive:
        for file in sorted(folder.rglob('*.*')):
            archive.write(file, f'{folder.name}/{file.relative_to(folder)}')
    return folder.with_suffix('.zip')


def add_junk_files(folder):
    """Adds the junk files of several operating systems."""
    for place in (folder, *(path for path in folder.rglob('*') if path.is_dir())):
        for name in ('.DS_Store', 'Thumbs.db', 'desktop.ini'):
            (place / name).write_bytes(b'x')
        for path in list(place.iterdir()):
            if path.suffix in ('.png', '.txt', '.json') and not path.name.startswith('.'):
                path.with_name(f'._{path.name}').write_bytes(b'\0\5\x16\7')
    (folder / '__MACOSX' / '0').mkdir(parents=True)
    (folder / '__MACOSX' / '0' / '00000.png').write_bytes(b'x')


def empty_mask():
    return {'size': list(SIZE), 'counts': rle.encode(np.zeros(SIZE, np.uint8, order='F'))['counts'].decode()}
