"""What is known of a data set's videos without reading their frames: metadata.json beside the records."""

from collections.abc import Mapping
import dataclasses
import re
import reprlib
from typing import Any

from sgmg_jax import files, pictures

VOID = 255  # in maps of object ids: not scored, and never an object
MOST_ASPECT = 32  # long side over short side: frames are resized to a short side, so the long one takes the memory
LONGEST_SENTENCE = 10_000  # characters


@dataclasses.dataclass(frozen=True)
class Expression:
    """A sentence that refers to one object of its video; in videos with `mask_layers` to any number of them.

    id: its key in the data set's expressions file, and the name of its folder in a submission.
    object_id: the value of its object in the masks; -1 where the data set hides it, 0 where `group` gives the objects.
    group: ids of the objects whose union it means; empty for a sentence without target. None: `object_id` alone.
    """

    id: str
    text: str
    object_id: int
    tags: tuple[str, ...]
    group: tuple[int, ...] | None = None

    @property
    def objects(self) -> tuple[int, ...] | None:
        """Ids of the objects whose union it means; None where the data set hides them."""
        if self.group is not None:
            return self.group
        return (self.object_id,) if self.object_id > 0 else None


@dataclasses.dataclass(frozen=True)
class Video:
    """What is known of a video without reading its frames. `height` and `width` are in pixels.

    mask_places: the frame index and object id of each mask, if each mask shows one object in one frame
      (A2D-Sentences, RefCOCO). None: every frame has one map of all objects.
    mask_layers: ids of the objects of each layer, if objects may overlap (MeViS). Every frame has one map per layer, in
      which the k-th object of the layer has the value k, counted from 1. The masks are those of the first layer in all
      frames, then those of the second, and so on.
    """

    name: str
    frame_names: tuple[str, ...]
    height: int
    width: int
    expressions: tuple[Expression, ...]
    has_masks: bool
    mask_places: tuple[tuple[int, int], ...] | None = None
    mask_layers: tuple[tuple[int, ...], ...] | None = None

    @property
    def num_masks(self) -> int:
        """The number of masks of its record."""
        if not self.has_masks:
            return 0
        if self.mask_places is not None:
            return len(self.mask_places)
        return len(self.frame_names) * (1 if self.mask_layers is None else len(self.mask_layers))

    def annotated_frames(self, object_id: int) -> list[int]:
        """Indices of the frames with ground truth for the object, including those it is absent from."""
        if not self.has_masks:
            return []
        if self.mask_places is None:
            return list(range(len(self.frame_names)))
        return sorted(frame for frame, place in self.mask_places if place == object_id)


def check_frame_size(height: object, width: object, where: str) -> None:
    """Raises ValueError, beginning with `where`, if frames of this size (in pixels) cannot be used."""
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise ValueError(
            f'{where}: height and width must be whole numbers from 1, are {reprlib.repr(height)} and '
            f'{reprlib.repr(width)}.'
        )
    if height * width > pictures.MOST_PIXELS or max(height, width) > MOST_ASPECT * min(height, width):
        raise ValueError(
            f'{where}: {width}x{height} pixels; a frame has at most {pictures.MOST_PIXELS:,}, its long '
            f'side is at most {MOST_ASPECT} times the short one. Leave it out, or crop it.'
        )


def check_sentence(text: object, where: str) -> str:
    """Returns `text` if it is a sentence.

    Raises:
        ValueError: beginning with `where`: it is not a string, blank, longer than LONGEST_SENTENCE, or has lone
            surrogates.
    """
    if not isinstance(text, str):
        raise ValueError(f'{where} must be a sentence, is {reprlib.repr(text)}. Write one.')
    if not text.strip():
        raise ValueError(f'{where} is an empty sentence. Write one, or remove it.')
    if len(text) > LONGEST_SENTENCE or any('\ud800' <= letter <= '\udfff' for letter in text):
        raise ValueError(
            f'{where} must have at most {LONGEST_SENTENCE:,} characters, all of Unicode, is '
            f'{reprlib.repr(text)}. Correct it.'
        )
    return text


def parse_object_id(value: object) -> int | None:
    """An object id of a mask, from JSON or text; None unless it is a whole number from 1 to 254."""
    text = str(value) if type(value) is int and abs(value) < 1000 else value
    if not isinstance(text, str) or not re.fullmatch('[0-9]{1,3}', text):
        return None
    return int(text) if 0 < int(text) < VOID else None


def read_video(entry: object, where: str) -> Video:
    """Parses an entry of metadata.json.

    Raises:
        ValueError: beginning with `where`: a field is missing, of the wrong type or out of range, a name is not a
            valid file name, a name or id occurs twice.
    """
    entry = _check_fields(
        entry,
        {'video': str, 'frame_names': list, 'height': int, 'width': int, 'expressions': list, 'has_masks': bool},
        where,
    )
    name = files.check_name(entry['video'], f'{where}: field "video"')
    where = f'{where}, video {name}'
    check_frame_size(entry['height'], entry['width'], where)
    names = tuple(files.check_name(frame, f'{where}: field "frame_names", a name') for frame in entry['frame_names'])
    if not names or len(set(names)) < len(names):
        raise ValueError(f'{where}: field "frame_names" is empty, or has a name twice.')
    places = entry.get('mask_places')
    if places is not None:
        if not isinstance(places, list) or not all(
            isinstance(place, list)
            and len(place) == 2
            and all(type(number) is int for number in place)
            and 0 <= place[0] < len(names)
            and 0 < place[1] < 2**31
            for place in places
        ):
            raise ValueError(f'{where}: field "mask_places" must be a list of [frame index, object id].')
        places = tuple(map(tuple, places))
        if len(set(places)) < len(places):
            raise ValueError(f'{where}: field "mask_places" has a place twice.')
    layers = _read_layers(entry, where)
    expressions = []
    for value in entry['expressions']:
        value = _check_fields(value, {'id': str, 'text': str, 'object_id': int, 'tags': str}, f'{where}: an expression')
        if layers is not None:
            expressions.append(_read_group(value, layers, where))
            continue
        key = files.check_name(value['id'], f'{where}: an expression: field "id"')
        text = check_sentence(value['text'], f'{where}, expression {key}: field "text"')
        if value['object_id'] != -1 and not 0 < value['object_id'] < (VOID if places is None else 2**31):
            raise ValueError(f'{where}, expression {key}: field "object_id" is {reprlib.repr(value["object_id"])}.')
        expressions.append(Expression(key, text, value['object_id'], tuple(value['tags'].split())))
    if not expressions or len({expression.id for expression in expressions}) < len(expressions):
        raise ValueError(f'{where}: field "expressions" is empty, or has an id twice.')
    return Video(name, names, entry['height'], entry['width'], tuple(expressions), entry['has_masks'], places, layers)


def _read_layers(entry: dict[str, Any], where: str) -> tuple[tuple[int, ...], ...] | None:
    layers = entry.get('mask_layers')
    if layers is None:
        return None
    if (
        not isinstance(layers, list)
        or not all(isinstance(layer, list) and 0 < len(layer) < VOID for layer in layers)
        or not all(type(number) is int and 0 < number < 2**31 for layer in layers for number in layer)
        or len({number for layer in layers for number in layer}) < sum(map(len, layers))
    ):
        raise ValueError(
            f'{where}: field "mask_layers" must be lists of 1 to {VOID - 1} object ids, all different, is '
            f'{reprlib.repr(layers)}.'
        )
    if not entry['has_masks'] or entry.get('mask_places') is not None:
        raise ValueError(f'{where}: field "mask_layers" needs "has_masks", and no "mask_places".')
    return tuple(map(tuple, layers))


def _read_group(value: dict[str, Any], layers: tuple[tuple[int, ...], ...], where: str) -> Expression:
    """An expression of a video with layers: its field "object_ids" gives the objects."""
    _check_fields(value, {'object_ids': str}, f'{where}: an expression')
    key = files.check_name(value['id'], f'{where}: an expression: field "id"')
    text = check_sentence(value['text'], f'{where}, expression {key}: field "text"')
    known = {str(number): number for layer in layers for number in layer}
    words = value['object_ids'].split()
    if not known.keys() >= set(words) or len(set(words)) < len(words):
        raise ValueError(
            f'{where}, expression {key}: field "object_ids" must be different ids of "mask_layers", with spaces '
            f'between them, is {reprlib.repr(value["object_ids"])}.'
        )
    return Expression(key, text, 0, tuple(value['tags'].split()), tuple(known[word] for word in words))


def _check_fields(entry: object, kinds: Mapping[str, type], where: str) -> dict[str, Any]:
    """Returns `entry` if it is a dict whose fields have these types."""
    fields = entry if isinstance(entry, dict) else {}
    for field, kind in kinds.items():
        if type(fields.get(field)) is not kind:
            raise ValueError(
                f'{where}: field "{field}" is missing or of the wrong type, is {reprlib.repr(fields.get(field))}.'
            )
    return fields
