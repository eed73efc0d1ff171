"""Finds everything in a submission that an evaluation server would reject.

The server does not explain why it rejects a file, and some faults only turn scores into nan.

Axis letters: H W pixels.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
import contextlib
import os

from jaxtyping import UInt8
import numpy as np

from sgmg_jax import files, pictures
from sgmg_jax.processes import for_each
from sgmg_jax.score import common
from sgmg_jax.score.submission import TOP, ExpectedVideo, Submission, mask_path, open_submission


def check_submission(
    path: str | os.PathLike,
    expected: Sequence[ExpectedVideo],
    processes: int = 1,
    progress: bool = False,
    top: str = TOP,
) -> list[common.Problem]:
    """Finds everything that an evaluation server would reject.

    Decodes every mask. Reports a wrong top folder and also checks its contents, so that one check shows all problems.

    Args:
        path: folder or zip.
        expected: the videos of the split.
        processes: number of processes that decode masks.
        progress: show a progress bar on stderr.
        top: the folder that must be at the top; '' if it must be the videos' (MeViS).

    Returns:
        one `common.Problem` per kind; empty if there are none.

    Raises:
        FileNotFoundError, ValueError: as `open_submission`.
    """
    found: common.Found = collections.defaultdict(list)
    with open_submission(path, top) as submission:
        there = _under_top(submission, {video.name for video in expected}, top, found)
    find_duplicates(submission, found)
    _check_files(set(there), expected, top, found)
    for of_video in for_each(_open_masks, (path, there, expected, top), len(expected), processes, 'checking', progress):
        for key, where in of_video.items():
            found[key] += where
    return common.problems_of(found)


def find_duplicates(submission: Submission, found: common.Found) -> None:
    """Adds names that occur more than once in a zip to `found`: only the last of them is ever read."""
    for name, count in collections.Counter(submission.files).items():
        if count > 1:
            found['file twice in the zip', 'zip the folder again'].append(name)


def _under_top(submission: Submission, videos: set[str], wanted: str, found: common.Found) -> dict[str, str]:
    """The files below the top folder, which must be called `wanted`: the name it should have -> the name it has."""
    names, zipped = [], f'zip -r -X submission.zip {wanted or "."}'
    for name in submission.files:
        parts = name.split('/')
        if any(map(files.is_junk, parts)):
            found["operating system's junk", f"delete it; zip with: {zipped} -x '*/.*' '__MACOSX*'"].append(name)
        elif '\\' in name or {'', '.', '..'} & set(parts):
            found[
                'path outside of the zip',
                f'names in a zip must be relative, separated by / and without . or ..; zip with: {zipped}',
            ].append(name)
        else:
            names.append(name)

    kind, top = 'wrong top folder', _find_top([name.split('/') for name in names], videos, wanted)
    if top is None:
        holds = f'neither {wanted}/ nor a video' if wanted else 'no video'
        found[kind, f'it contains {holds} of this split: is it the right folder or zip?'].append(
            names[0] if names else f'{submission.path} contains no file'
        )
        return {}
    if not wanted:
        if top:
            found[
                kind,
                f'the folders of the videos must be at the top: in {top.removesuffix("/")}, run {zipped}; without '
                'zipping, give that folder',
            ].append(f'{top} should not be there')
    elif top == '':
        found[
            kind,
            f'put the videos into one folder {wanted}/ and zip that folder (without zipping, give the folder '
            f'that contains {wanted}/)',
        ].append(f'{names[0]} should be {wanted}/{names[0]}')
    elif top.endswith(f'/{wanted}/'):
        found[
            kind,
            f'{wanted}/ must be at the top: in {top.removesuffix(wanted + "/")}, run zip -r submission.zip {wanted}',
        ].append(top)
    elif top != f'{wanted}/':
        found[kind, f'rename it to {wanted}/'].append(top)
    for name in names:
        if not name.startswith(top):
            found[f'file outside {files.one_line(top)}', f'zip only {wanted or top}/: delete the rest'].append(name)
    start = f'{wanted}/' if wanted else ''
    return {f'{start}{name.removeprefix(top)}': name for name in names if name.startswith(top)}


def _find_top(names: list[list[str]], videos: set[str], wanted: str) -> str | None:
    """The folder in the role of `wanted`, the likeliest one; None without any."""
    if wanted and any(len(parts) > 1 and parts[0] == wanted for parts in names):
        return f'{wanted}/'
    for parts in names if wanted else ():
        if wanted in parts[:-1]:
            return '/'.join(parts[: parts.index(wanted) + 1]) + '/'
    for depth in (0, 1):
        for parts in names:
            if len(parts) > depth + 1 and parts[depth] in videos:
                return ''.join(f'{part}/' for part in parts[:depth])
    return None


def _check_files(there: set[str], expected: Sequence[ExpectedVideo], top: str, found: common.Found) -> None:
    """Missing and unexpected files; a folder that is missing or unexpected as a whole is reported once."""
    if not there:
        return
    of_video = 2 if top else 1  # the depth of its folder
    folders = {'/'.join(name.split('/')[:depth]) for name in there for depth in (of_video, of_video + 1)}
    wanted_folders, wanted_files = set(), set()
    for video in expected:
        folder = f'{top}/{video.name}'.lstrip('/')
        wanted_folders.add(folder)
        if folder not in folders:
            found['missing video', 'predict it: every video of the split is scored'].append(folder)
        for expression_id in video.expression_ids:
            expression = f'{folder}/{expression_id}'
            wanted_folders.add(expression)
            if folder in folders and expression not in folders:
                found[
                    'missing expression',
                    'predict it: every expression of a video needs a folder named as its key in meta_expressions.json',
                ].append(expression)
            for frame in video.frame_names:
                name = mask_path(video.name, expression_id, frame, top)
                wanted_files.add(name)
                if expression in folders and name not in there:
                    found[
                        'missing frame',
                        'write a PNG for every frame that meta_expressions.json lists; '
                        'all black where the object is absent',
                    ].append(name)
    seen: set[str] = set()
    for name in sorted(there - wanted_files):
        parts = name.split('/')
        for depth, kind in ((of_video, 'unexpected video'), (of_video + 1, 'unexpected expression')):
            folder = '/'.join(parts[:depth])
            if len(parts) > depth and folder not in wanted_folders:
                if folder not in seen:
                    seen.add(folder)
                    found[
                        kind,
                        'delete it, or check that this is the right split: the validation file of '
                        'Ref-YouTube-VOS also lists the test videos',
                    ].append(folder)
                break
        else:
            found['unexpected file', 'delete it, or rename it as the frame it belongs to: <frame name>.png'].append(
                name
            )


@contextlib.contextmanager
def _open_masks(
    path: str | os.PathLike, there: dict[str, str], expected: Sequence[ExpectedVideo], top: str
) -> Iterator[Callable[[int], common.Found]]:
    with open_submission(path, top) as submission:

        def work(index: int) -> common.Found:
            """The problems of the masks of one video."""
            found: common.Found = collections.defaultdict(list)
            video = expected[index]
            for expression_id in video.expression_ids:
                for frame in video.frame_names:
                    name = mask_path(video.name, expression_id, frame, top)
                    if name in there:
                        _check_png(submission, there[name], video.size, found)
            return dict(found)

        yield work


def _check_png(submission: Submission, name: str, size: tuple[int, int], found: common.Found) -> None:
    pixels = read_png(
        submission, name, size, ['L'], "save 8-bit single-channel PNGs: Pillow's mode L, no palette, no colour", found
    )
    if pixels is not None and ((pixels != 0) & (pixels != 255)).any():
        values = np.setdiff1d(pixels, [0, 255])
        found[
            'values other than 0 and 255',
            'write 0 for background and 255 for the object: (logits > 0).astype(uint8) * 255',
        ].append(f'{name}: {len(values)} others, from {values[0]} on')


def read_png(
    submission: Submission, name: str, size: tuple[int, int], modes: Sequence[str], fix_mode: str, found: common.Found
) -> UInt8[np.ndarray, 'H W'] | None:
    """The pixels of a PNG of a submission; or None, with its problems added to `found`.

    Args:
        size: required (H, W). modes: allowed Pillow modes. fix_mode: how to fix another mode.
    """
    try:
        data = submission.read(name)
        header = pictures.read_header(data, [pictures.PNG])
        if (header.height, header.width) != tuple(size):
            found['wrong size', "resize the logits to the size of the video's frames before thresholding"].append(
                f'{name}: H x W is {header.height} x {header.width}, that of its frames {size[0]} x {size[1]}'
            )
        if header.mode not in modes:
            found['wrong mode', fix_mode].append(f'{name}: mode {header.mode}, not {" or ".join(modes)}')
        elif (header.height, header.width) == tuple(size):
            return pictures.read_pixels(data, [pictures.PNG], size, modes)
    except (OSError, ValueError) as error:
        found['unreadable PNG', 'write it again: the file is damaged or not a PNG'].append(f'{name}: {error}')
    return None
