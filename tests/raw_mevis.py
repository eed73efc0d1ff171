"""A tiny MeViS in its raw layout: objects that overlap, sentences of several objects and of none, late frames."""

import json
import tarfile

import numpy as np
from pycocotools import mask as coco_mask
import raw_tree

HEIGHT, WIDTH = raw_tree.HEIGHT, raw_tree.WIDTH
EXPRESSIONS = 'meta_expressions_v2.json'
# Frames need not begin at 0; masks go by position.
VIDEOS = {
    'train': {'0a1b2c3d4e5f': [f'{number:05d}' for number in range(4)], '1a1b2c3d4e5f': ['00007', '00008', '00009']},
    'valid_u': {'2a1b2c3d4e5f': ['00000', '00001', '00002'], '3a1b2c3d4e5f': ['00004', '00005', '00006', '00008']},
    'valid': {'4a1b2c3d4e5f': ['00000', '00001']},
}
# Of each video with ground truth: the anno_ids of its objects by obj_id.
OBJECTS = {'0a1b2c3d4e5f': [7, 3, 12], '1a1b2c3d4e5f': [20], '2a1b2c3d4e5f': [0, 1], '3a1b2c3d4e5f': [2, 9]}
TEXTS = 'The cat moving left', 'both animals', 'the birds that flee', 'Nothing that barks'


def groups(video):
    """The obj_ids of each of a video's sentences."""
    last = len(OBJECTS[video]) - 1
    return [0], sorted({0, last}), list(range(last + 1)), []


def object_masks(video, anno_id):
    """bool [T H W]: random boxes that overlap those of other objects, and away from a frame."""
    frames = next(videos[video] for videos in VIDEOS.values() if video in videos)
    rng = np.random.default_rng(anno_id)
    masks = np.zeros((len(frames), HEIGHT, WIDTH), bool)
    for mask in masks:
        y, x = rng.integers(0, HEIGHT - 20), rng.integers(0, WIDTH - 40)
        mask[y : y + rng.integers(10, 20), x : x + rng.integers(20, 40)] = True
    masks[anno_id % len(frames)] = False
    return masks


def union(video, obj_ids):
    """bool [T H W], independently of the package: the union of COCO's run lengths."""
    masks = [object_masks(video, OBJECTS[video][number]) for number in obj_ids]
    frames = next(len(videos[video]) for videos in VIDEOS.values() if video in videos)
    found = np.zeros((frames, HEIGHT, WIDTH), bool)
    for frame in range(frames):
        codes = [coco_mask.encode(np.asfortranarray(mask[frame], np.uint8)) for mask in masks]
        if codes:
            found[frame] = coco_mask.decode(coco_mask.merge(codes)) > 0
    return found


def encode(mask):
    """As in mask_dict.json: None where the object is absent."""
    if not mask.any():
        return None
    code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {'size': list(code['size']), 'counts': code['counts'].decode()}


def expressions(video):
    if video not in OBJECTS:
        return {str(number): {'exp': text} for number, text in enumerate(TEXTS)}
    return {
        str(number): {'exp': text, 'obj_id': group, 'anno_id': [OBJECTS[video][obj_id] for obj_id in group]}
        for number, (text, group) in enumerate(zip(TEXTS, groups(video)))
    }


def write(root):
    for split, videos in VIDEOS.items():
        raw_tree.save_frames(root, split, videos)
        listed = {
            video: {'vid_id': number, 'frames': frames, 'expressions': expressions(video)}
            for number, (video, frames) in enumerate(videos.items())
        }
        name = 'meta_expressions_v2_release.json' if split == 'valid' else EXPRESSIONS
        raw_tree.write_json(root / split / name, listed)
        if split != 'valid':
            masks = {
                str(anno_id): list(map(encode, object_masks(video, anno_id)))
                for video in videos
                for anno_id in OBJECTS[video]
            }
            (root / split / 'mask_dict.json').write_text(json.dumps(masks))
    return root


def pack(root, split):
    """Puts the frames of a split into JPEGImages.tar."""
    folder = root / split / 'JPEGImages'
    with tarfile.open(root / split / 'JPEGImages.tar', 'w') as archive:
        archive.add(folder, 'JPEGImages')
    for file in sorted(folder.rglob('*'), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    folder.rmdir()
