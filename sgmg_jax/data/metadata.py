"""What is known of the videos of a data set without reading their frames; metadata.json lists it beside the records."""
from collections.abc import Mapping
import dataclasses
import re
import reprlib

from sgmg_jax import files, pictures

VOID = 255  # in maps of objects: not scored, and never an object
MOST_ASPECT = 32  # Of a frame's sides; the short side is scaled to a fixed length, so the long one takes the memory.
LONGEST_SENTENCE = 10_000  # characters


@dataclasses.dataclass(frozen=True)
class Expression:
    """A sentence that refers to one object of its video.

    id: its key in the benchmark's expressions file, and the name of its folder in a submission.
    object_id: the value of its object in the masks; -1 where the benchmark hides it.
    """
    id: str
    text: str
    object_id: int
    tags: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Video:
    """What is known of a video without reading its frames. `height` and `width` are pixels.

    mask_places: where the masks are those of one object in one frame (A2D-Sentences, RefCOCO): frame index and
      object id of each mask. None where every frame has one map of all objects.
    """
    name: str
    frame_names: tuple[str, ...]
    height: int
    width: int
    expressions: tuple[Expression, ...]
    has_masks: bool
    mask_places: tuple[tuple[int, int], ...] | None = None

    def annotated_frames(self, object_id: int) -> list[int]:
        """Indices of the frames for which it is known where the object is, or that it is away."""
        if not self.has_masks:
            return []
        if self.mask_places is None:
            return list(range(len(self.frame_names)))
        return sorted(frame for frame, place in self.mask_places if place == object_id)


def check_frame_size(height: object, width: object, where: str) -> None:
    """Raises ValueError if frames of this size, in pixels, are of no use; `where` is said first."""
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise ValueError(f'{where}: height and width must be whole numbers from 1, are {reprlib.repr(height)} and '
                         f'{reprlib.repr(width)}.')
    if height * width > pictures.MOST_PIXELS or max(height, width) > MOST_ASPECT * min(height, width):
        raise ValueError(f'{where}: {width}x{height} pixels; a frame has at most {pictures.MOST_PIXELS:,}, its long '
                         f'side is at most {MOST_ASPECT} times the short one. Leave it out, or cut it.')


def check_sentence(text: object, where: str) -> str:
    """`text`, if it is a sentence.

    Raises:
        ValueError: it is no string, blank, longer than LONGEST_SENTENCE, or has halves of characters (surrogates);
            `where` is said first.
    """
    if not isinstance(text, str):
        raise ValueError(f'{where} must be a sentence, is {reprlib.repr(text)}. Write one.')
    if not text.strip():
        raise ValueError(f'{where} is an empty sentence. Write one, or remove it.')
    if len(text) > LONGEST_SENTENCE or any('\ud800' <= letter <= '\udfff' for letter in text):
        raise ValueError(f'{where} must have at most {LONGEST_SENTENCE:,} characters, all of Unicode, is '
                         f'{reprlib.repr(text)}. Mend it.')
    return text


def parse_object_id(value: object) -> int | None:
    """The id of an object in maps of objects, from JSON or text; None if it is no whole number from 1 to 254."""
    text = str(value) if type(value) is int and abs(value) < 1000 else value
    found = isinstance(text, str) and re.fullmatch('[0-9]{1,3}', text)
    return int(text) if found and 0 < int(text) < VOID else None


def read_video(entry: object, where: str) -> Video:
    """The video that an entry of metadata.json describes.

    Raises:
        ValueError: a field is missing, of the wrong type or out of range, a name cannot be one of a file, a name or
            id is there twice. `where` is said first.
    """
    kinds = {'video': str, 'frame_names': list, 'height': int, 'width': int, 'expressions': list, 'has_masks': bool}
    _check_fields(entry, kinds, where)
    name = files.check_name(entry['video'], f'{where}: field "video"')
    where = f'{where}, video {name}'
    check_frame_size(entry['height'], entry['width'], where)
    names = tuple(files.check_name(frame, f'{where}: field "frame_names", a name') for frame in entry['frame_names'])
    if not names or len(set(names)) < len(names):
        raise ValueError(f'{where}: field "frame_names" is empty, or has a name twice.')
    places = entry.get('mask_places')
    if places is not None:
        if not isinstance(places, list) or not all(
                isinstance(place, list) and len(place) == 2 and all(type(number) is int for number in place)
                and 0 <= place[0] < len(names) and 0 < place[1] < 2 ** 31 for place in places):
            raise ValueError(f'{where}: field "mask_places" must be a list of [frame index, object id].')
        places = tuple(map(tuple, places))
        if len(set(places)) < len(places):
            raise ValueError(f'{where}: field "mask_places" has a place twice.')
    expressions = []
    for value in entry['expressions']:
        _check_fields(value, {'id': str, 'text': str, 'object_id': int, 'tags': str}, f'{where}: an expression')
        key = files.check_name(value['id'], f'{where}: an expression: field "id"')
        text = check_sentence(value['text'], f'{where}, expression {key}: field "text"')
        if value['object_id'] != -1 and not 0 < value['object_id'] < (VOID if places is None else 2 ** 31):
            raise ValueError(f'{where}, expression {key}: field "object_id" is {reprlib.repr(value["object_id"])}.')
        expressions.append(Expression(key, text, value['object_id'], tuple(value['tags'].split())))
    if not expressions or len({expression.id for expression in expressions}) < len(expressions):
        raise ValueError(f'{where}: field "expressions" is empty, or has an id twice.')
    return Video(name, names, entry['height'], entry['width'], tuple(expressions), entry['has_masks'], places)


def _check_fields(entry, kinds: Mapping[str, type], where: str) -> None:
    for field, kind in kinds.items():
        value = entry.get(field) if isinstance(entry, dict) else None
        if type(value) is not kind:
            raise ValueError(f'{where}: field "{field}" is missing or of the wrong type, is {reprlib.repr(value)}.')
