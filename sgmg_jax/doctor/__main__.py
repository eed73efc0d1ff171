"""Checks a copy of a data set; reports what is wrong, how to fix it and the command that builds it.

    python -m sgmg_jax.doctor FOLDER

Exit status: 0 the copy is complete, 1 something is missing or wrong, 2 no data set was found.
"""

import argparse
from collections.abc import Callable, Collection, Sequence
import dataclasses
import functools
import json
import os
import pathlib
import sys
import textwrap

from sgmg_jax import commands, files
from sgmg_jax.doctor import common, places
from sgmg_jax.doctor.archives import look_into, unpack
from sgmg_jax.doctor.common import Finding, quote

HELP = """\
FOLDER is where you unpacked one data set, or several: Ref-YouTube-VOS, Ref-DAVIS17 (the original downloads or
converted), MeViS (both editions), A2D-Sentences, JHMDB-Sentences, RefCOCO/+/g (original or converted), or records that
datasets.build wrote. Parts are recognised by their content, up to four levels below FOLDER and beside it, so
misplaced parts are found; the report gives the `mv` command for each.

Nothing is changed. The lists are read as by the build, and every listed file must exist; of the images of a video
only the first and the last are opened. With --pixels, everything is read that a build reads. Each line of the report
begins with

    ok        as it should be
    note      good to know, nothing to do
    missing   not there, or fewer than the known number
    wrong     in the wrong place, damaged or unexpected; the line below tells how to fix it

examples:
    python -m sgmg_jax.doctor ~/data/refer_youtube_vos
    python -m sgmg_jax.doctor ~/data --pixels --json=report.json
"""
BUILD_NAMES = {'refcoco': 'refcoco', 'refcoco+': 'refcoco_plus', 'refcocog': 'refcocog'}
# The next commands for the records of a data set: config, workdir, split to train on (if any), split to evaluate.
USES = {
    'ref_youtube_vos': ('ytvos', 'ytvos', 'train', 'valid'),
    'ref_davis': ('davis', 'ytvos', '', 'valid'),
    'mevis': ('mevis', 'mevis', 'train', 'valid_u'),
    'a2d_sentences': ('a2d', 'a2d', 'train', 'test'),
    'jhmdb_sentences': ('jhmdb', 'a2d', '', 'test'),
    **{name: ('refcoco', 'refcoco', 'train', 'val') for name in BUILD_NAMES.values()},
}


@dataclasses.dataclass(frozen=True)
class Report:
    """The findings of one data set, and the next commands."""

    name: str
    title: str
    root: str
    findings: tuple[Finding, ...]
    commands: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return all(finding.level in ('ok', 'note') for finding in self.findings)


def diagnose(folder: pathlib.Path, pixels: bool = False) -> list[Report]:
    """Examines all data sets in a folder.

    Returns:
        One report per recognised data set, and one named 'folder' if there are other findings.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = pathlib.Path(os.path.realpath(os.path.expanduser(folder)))
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder. Give the folder into which a data set was unpacked.')
    inside = places.survey(folder)
    around = places.survey(folder.parent, folder, max_folders=2000) if len(folder.parts) > 2 else None
    packed, findings = _look_into_archives(inside.archives, folder)
    findings += [
        Finding('wrong', 'is a dead link', str(link), 'Fix the link, or put the file in its place.')
        for link in inside.dead
    ]
    findings += [
        Finding('wrong', f'cannot be read ({why})', str(closed), 'Fix its permissions.')
        for closed, why in inside.closed
    ]
    findings += [
        Finding('note', 'is junk of macOS and can be removed', str(junk), f'rm -r {quote(junk)}')
        for junk in inside.junk
    ]
    if inside.cut:
        findings.append(
            Finding(
                'note',
                f'only its first {places.MAX_FOLDERS:,} folders were searched',
                str(folder),
                'Name the folder of one data set.',
            )
        )
    reports = [Report('folder', 'The folder', str(folder), tuple(findings))] if findings else []
    for name, (title, known_places, check) in _data_sets().items():
        parts = [part for part in inside.parts if part.name == name]
        if not parts and not any(other == name for _, other, _, _ in packed):
            continue
        root = places.find_root(parts, folder)
        if root in folder.parents:
            parts = [part for part in places.survey(root).parts if part.name == name]
        elif around:
            there = {part.place for part in parts}
            parts += [
                part
                for part in around.parts
                if part.name == name and part.place not in there and part.root in (None, folder.parent)
            ]
        found, misplaced = places.place_parts(parts, root)
        for place in known_places:  # A part that exists but was not recognised is broken, not missing.
            path = root / place
            if not {place, path} & {*found, *found.values()} and (
                path.is_file() or path.is_dir() and any(common.listing(path))
            ):
                found[place] = path
        archives = {
            place: unpack(archive, root.parent if prefix == f'{root.name}/' else root)
            for archive, other, place, prefix in packed
            if other == name
        }
        checked = [*misplaced, *check(common.Copy(root, found, archives))]
        checked += _read_as_builder(name, root, found, pixels, not all(map(_harmless, checked)))
        reports.append(Report(name, title, str(root), tuple(checked), _build_commands(name, root, found)))
    return reports + [_check_records(part.path, pixels) for part in inside.parts if part.name == 'records']


def _data_sets() -> dict[str, tuple[str, Sequence[str], Callable]]:
    """By name: title, places that are checked even if not recognised, and the check."""
    from sgmg_jax.doctor import davis, frame_sets, mevis, youtube  # Imported late, so that --help appears at once.

    return {
        'ref_youtube_vos': ('Ref-YouTube-VOS', youtube.PLACES, youtube.check),
        'ref_davis': ('Ref-DAVIS17', davis.PLACES, davis.check),
        'mevis': ('MeViS', mevis.PLACES, mevis.check),
        'a2d_sentences': ('A2D-Sentences', frame_sets.A2D_PLACES, frame_sets.check_a2d),
        'jhmdb_sentences': ('JHMDB-Sentences', frame_sets.JHMDB_PLACES, frame_sets.check_jhmdb),
        'refcoco': ('RefCOCO/+/g', frame_sets.REFCOCO_PLACES, frame_sets.check_refcoco),
    }


def _harmless(finding: Finding) -> bool:
    """Whether a build works nevertheless; an incomplete data set can be built too."""
    return finding.level in ('ok', 'note') or finding.mend.startswith(common.PART)


def _read_as_builder(
    name: str, root: pathlib.Path, found: Collection[str], pixels: bool, faulty: bool
) -> list[Finding]:
    """Runs the readers of the builder; the findings are what it would refuse.

    Args:
        pixels: read all videos, not only the lists.
        faulty: faults are known already, so errors of the lists are not reported again.
    """
    from sgmg_jax.data import metadata
    from sgmg_jax.raw import a2d, davis, jhmdb, mevis, refcoco, youtube

    readers = {
        'ref_youtube_vos': youtube.splits,
        'ref_davis': davis.splits,
        'mevis': mevis.splits,
        'a2d_sentences': a2d.splits,
        'jhmdb_sentences': jhmdb.splits,
    }
    findings = []
    for splits in (
        [readers[name]]
        if name in readers
        else [functools.partial(refcoco.splits, name=each) for each in BUILD_NAMES if each in found]
    ):
        with common.warnings():
            try:
                read = splits(root)
            except (OSError, ValueError) as error:
                if not faulty:
                    findings.append(Finding('wrong', f'would not be built: {_in(root, error)}', str(root)))
                continue
            for split, (videos, read_one) in read.items() if pixels else ():
                failed, names = [], set()
                for video in common.progress(videos, f'reading {split}'):
                    try:
                        if parts := read_one(video):
                            metadata.read_video(parts[0] | parts[1], video.name)
                            if video.name in names:
                                raise ValueError('is there twice')
                            names.add(video.name)
                    except (OSError, ValueError) as error:
                        failed.append(f'{video.name}: {_in(root, error)}')
                if not names and not failed:
                    failed = ['none has an annotated object']
                if failed:
                    findings.append(
                        Finding(
                            'wrong',
                            f'{len(failed):,} of {len(videos):,} of {split} cannot be read ({common.some(failed)})',
                            str(root),
                            f'{common.AGAIN} Or leave them out by --skip-bad-videos.',
                        )
                    )
    return findings


def _in(root: pathlib.Path, error: Exception) -> str:
    """The message of an exception, with paths relative to the root."""
    return commands.message(error).replace(f'{root}/', '').replace(f'{root}: ', '')


def _look_into_archives(
    archives: list[pathlib.Path], folder: pathlib.Path
) -> tuple[list[tuple[pathlib.Path, str, str, str]], list[Finding]]:
    """The parts that are still packed: (archive, data set, place, path in front of it); and findings."""
    packed, findings = [], []
    for archive in archives[:50]:
        holds, inner, fault = look_into(archive)
        packed += [(archive, *held) for held in sorted(holds)]
        if fault:
            findings.append(Finding('note', f'is a broken archive ({fault})', str(archive), 'Download it again.'))
        if inner:
            findings.append(
                Finding(
                    'note',
                    f'is an archive of archives ({common.some(inner)})',
                    str(archive),
                    unpack(archive, folder) + ', then run this again.',
                )
            )
    return packed, findings


def _build_commands(name: str, root: pathlib.Path, found: Collection[str]) -> tuple[str, ...]:
    names = [BUILD_NAMES[place] for place in BUILD_NAMES if place in found] if name == 'refcoco' else [name]
    return tuple(
        f'python -m datasets.build {each} --raw={quote(root)} --out=data/tfds' for each in names or ['refcoco']
    )


def _check_records(folder: pathlib.Path, pixels: bool) -> Report:
    """Opens the records that a builder wrote, and compares them with their metadata."""
    from sgmg_jax.data import records

    findings: list[Finding] = []
    splits: dict[str, int] = {}
    name, again = folder.parent.name, 'Build the data set again with --overwrite.'
    if folder.name.startswith('incomplete.'):
        findings.append(
            Finding(
                'note',
                'is left over from an interrupted build; it is never read',
                str(folder),
                'The next build removes it.',
            )
        )
    elif not (folder / 'metadata.json').exists():
        findings.append(
            Finding(
                'missing',
                'is not there',
                str(folder / 'metadata.json'),
                'Another builder wrote the records; build them with `python -m datasets.build`.',
            )
        )
    else:
        name, splits = common.read(records.describe, folder, findings, mend=again) or (name, {})
    for split in splits:
        try:
            source = records.open_records(folder, split)
            for number in range(len(source)) if pixels else [0]:
                source[number]
        except (OSError, ValueError) as error:
            level = 'missing' if isinstance(error, FileNotFoundError) else 'wrong'
            findings.append(Finding(level, f'split {split}: {common.reason(error, folder)}', str(folder), again))
        else:
            sentences = sum(len(video.expressions) for video in source.videos)
            what = f'split {split}: {len(source):,} videos, {sentences:,} sentences'
            findings.append(Finding('ok', what, str(folder)))
    config, workdir, train, valid = USES.get(name, ('', '', '', ''))
    found = [
        f'python {script}.py --config=configs/{config}.py --workdir=runs/{workdir} '
        f'--config.{field}.records="{(str(folder),)}"'
        for script, field, split in (('train', 'data', train), ('evaluate', 'evaluation', valid))
        if split in splits
    ]
    return Report('records', f'Records of {name}', str(folder), tuple(findings), tuple(found))


def format_report(report: Report) -> str:
    """The report as lines of text."""
    lines, mend = [f'{report.title} in {report.root}'], ''
    for finding in report.findings:
        where = '' if finding.where == report.root else f'{_below(finding.where, report.root)}: '
        lines += textwrap.wrap(
            where + finding.what,
            110,
            initial_indent=f'  {finding.level:<8} ',
            subsequent_indent=' ' * 11,
            break_long_words=False,
            break_on_hyphens=False,
        )
        if finding.mend and finding.mend != mend:  # once for consecutive findings with the same remedy
            lines.append(f'           -> {finding.mend}')
        mend = finding.mend
    if report.commands:
        verb = 'run' if report.name == 'records' else 'build'
        faults = [finding for finding in report.findings if finding.level in ('missing', 'wrong')]
        part = all(map(_harmless, faults))
        head = (
            f'{verb} it'
            if not faults
            else (f'{verb} this part of it' if part else f'first fix what is missing or wrong, then {verb} it')
        )
        lines += [f'{head}: {command}' for command in report.commands]
    return files.printable('\n'.join(lines))


def _below(where: str, root: str) -> str:
    return where[len(root) + 1 :] if where.startswith(root + '/') else where


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = commands.make_parser('python -m sgmg_jax.doctor', __doc__.splitlines()[0], epilog=HELP)
    parser.add_argument('folder', metavar='FOLDER', type=pathlib.Path, help='where a data set was unpacked')
    parser.add_argument('--pixels', action='store_true', help='decode every image, video and mask (minutes to hours)')
    parser.add_argument('--json', metavar='FILE', help='also write the findings to FILE')
    return commands.exit_with(_report, parser, argv)


def _report(options: argparse.Namespace) -> int:
    reports = diagnose(options.folder, options.pixels)
    sets = [report for report in reports if report.name != 'folder']
    status = 2 if not sets else int(not all(report.good for report in reports))
    if options.json:
        content = {
            'folder': str(options.folder),
            'status': status,
            'data_sets': [dataclasses.asdict(report) | {'good': report.good} for report in reports],
        }
        with files.replacing(options.json) as partial:
            partial.write_text(json.dumps(content, indent=1) + '\n')
    if reports:
        print('\n\n'.join(map(format_report, reports)))
    if not sets:
        there = common.some(sum(common.listing(os.path.expanduser(options.folder)), []), 10) or 'nothing'
        print(
            files.printable(
                f'{options.folder}: no data set is recognised up to {places.LEVELS} levels below; it has '
                f'{there}. See --help for the known data sets, or name a folder closer to the files.'
            ),
            file=sys.stderr,
        )
    return status


if __name__ == '__main__':
    sys.exit(main())
