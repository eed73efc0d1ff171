"""A tiny Ref-YouTube-VOS in its raw layout, with the quirks of the real one."""

import json

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 96, 54
TRAIN = {
    'aaa0000001': ['00020', '00025', '00035', '00040', '00045', '00050'],  # Starts late, has a gap.
    'bbb0000002': [f'{5 * frame:05d}' for frame in range(7)],
}
VALID = {name: [f'{5 * frame:05d}' for frame in range(4)] for name in ('ccc0000003', 'ddd0000004', 'eee0000005')}
TEST = ['ddd0000004']
AWAY = (2, 3)  # Positions of the frames that object 2 is not in.


def frame(video, position):
    """RGB [H W 3] uint8, smooth and different for each video and frame."""
    seed = sum(map(ord, video)) * 100 + position
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def mask(position):
    """Object ids [H W] uint8: 1 moves to the right, 2 is absent from two frames."""
    index = np.zeros((HEIGHT, WIDTH), np.uint8)
    index[10:30, 5 + 3 * position : 25 + 3 * position] = 1
    if position not in AWAY:
        index[35:50, 60:80] = 2
    return index


def write_json(path, videos):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({'videos': videos}))


def edit_json(path, edit):
    """Changes the dictionary of videos in a file by `edit`."""
    videos = json.loads(path.read_text())['videos']
    edit(videos)
    write_json(path, videos)


def save_mask(path, index):
    """Saves object ids as a palette PNG, as the data set stores them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(index)
    image.putpalette(list(range(255, -1, -1)) * 3)  # Colours that are not the indices.
    image.save(path)


def save_frames(root, split, videos):
    for video, names in videos.items():
        folder = root / split / 'JPEGImages' / video
        folder.mkdir(parents=True)
        for position, name in enumerate(names):
            Image.fromarray(frame(video, position)).save(folder / f'{name}.jpg', quality=90)


def expressions(hidden=False):
    sentences = ['A bright cat on the left', 'the cat walking right', 'a dog', 'the rightmost animal']
    return {
        str(number): {'exp': sentence} | ({} if hidden else {'obj_id': str(1 + number // 2)})
        for number, sentence in enumerate(sentences)
    }


def write(root):
    """Writes train, and valid as first released: without object ids, and including the videos of test."""
    save_frames(root, 'train', TRAIN)
    for video, names in TRAIN.items():
        for position, name in enumerate(names):
            save_mask(root / 'train' / 'Annotations' / video / f'{name}.png', mask(position))
    write_json(
        root / 'meta_expressions' / 'train' / 'meta_expressions.json',
        {video: {'expressions': expressions(), 'frames': names[::-1]} for video, names in TRAIN.items()},
    )
    save_frames(root, 'valid', {video: names for video, names in VALID.items() if video not in TEST})
    listed = {video: {'expressions': expressions(hidden=True), 'frames': names} for video, names in VALID.items()}
    write_json(root / 'meta_expressions' / 'valid' / 'meta_expressions.json', listed)
    write_json(root / 'meta_expressions' / 'test' / 'meta_expressions.json', {video: listed[video] for video in TEST})
    return root


def add_ground_truth(root):
    """Adds the public ground truth of valid: binary masks, one folder per expression."""
    truth = {
        video: {'expressions': expressions(), 'frames': names} for video, names in VALID.items() if video not in TEST
    }
    write_json(root / 'valid' / 'meta_expressions_challenge.json', truth)
    for video, content in truth.items():
        for key, value in content['expressions'].items():
            folder = root / 'valid' / 'Annotations' / video / key
            folder.mkdir(parents=True)
            for position, name in enumerate(content['frames']):
                binary = (mask(position) == int(value['obj_id'])) * np.uint8(255)
                Image.fromarray(binary).save(folder / f'{name}.png')
