"""Documents: links lead somewhere, commands exist with their flags, and say what they need unless a test runs them."""

import functools
import importlib
import pathlib
import re
import shlex
import subprocess
import sys
from typing import NamedTuple

from ml_collections import ConfigDict
import pytest

from sgmg_jax.__main__ import COMMANDS

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENTS = [
    'README.md',
    'CONTRIBUTING.md',
    'CHANGELOG.md',
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'docs').glob('*.md')),
]
EXPERIMENTS = sorted(path.stem for path in (ROOT / 'configs').glob('*.py') if path.stem not in ('__init__', 'common'))
SCRIPTS = {'train': 'train.py', 'evaluate': 'evaluate.py'}
# What a block may hold without a line "Needs: ..." before it -> the test that runs it.
RUN_BY = {
    'python -m sgmg_jax.parity': 'tests/parity/test_parity.py',
    'python -m sgmg_jax.synthetic': 'tests/test_commands.py',
    'python -m datasets.build ref_youtube_vos': 'tests/datasets/test_build.py',
    'python -m datasets.build mevis': 'tests/test_synthetic_groups.py',
}
OTHERS = 'python -m pip ', 'python -m pytest ', 'python -m venv ', 'python -c ', 'python exported/'  # not ours
README_LINES = 150
LINKS = (
    'arxiv.org/abs/2307.13537',
    'arxiv.org/abs/2305.17011',
    'github.com/bo-miao/SgMg',
    'github.com/RobertLuo1/NeurIPS2023_SOC',
    'huggingface.co/FacebookAI/roberta-base',
    'github.com/skynbe/Refer-Youtube-VOS',
    'davischallenge.org',
    'kgavrilyuk.github.io',
    'jhmdb.is.tue.mpg.de',
    'github.com/lichengunc/refer',
)


def read(document):
    return (ROOT / document).read_text()


class Block(NamedTuple):
    """A block of code: its number of line, language ('' where indented), text, and the paragraph before it."""

    line: int
    language: str
    text: str
    before: str


def blocks(document):
    """Fenced and indented blocks of a document."""
    found, paragraph, last, lines = [], [], '', [*read(document).splitlines(), '']
    number = 0
    while number < len(lines):
        line, start = lines[number], number
        if line.startswith('```') or line.startswith('    ') and not paragraph:
            fenced = line.startswith('```')
            number += fenced
            inside = (lambda x: not x.startswith('```')) if fenced else (lambda x: x.startswith('    ') or not x)
            first = number
            while number < len(lines) and inside(lines[number]):
                number += 1
            found.append(
                Block(
                    start + 1,
                    line[3:].strip() if fenced else '',
                    '\n'.join(lines[first:number]),
                    '\n'.join(paragraph) or last,
                )
            )
            number += fenced
            paragraph, last = [], ''
            continue
        if line:
            paragraph.append(line)
        elif paragraph:
            paragraph, last = [], '\n'.join(paragraph)
        number += 1
    return found


def commands_in(text):
    """Command lines of this repository in code: lists of words from `python` or `sgmg-jax` on."""
    for line in re.sub(r'\\\n\s*', ' ', text).splitlines():
        for command in re.findall(r'(?:^|(?<=\s))(?:python|sgmg-jax) [^;`&|]+', line):
            if not command.startswith(OTHERS):
                words = shlex.split(command, comments=True)
                if len(words) > 1:
                    yield words


def every_command():
    """(document, words) of all documents, in blocks and in lines."""
    found = []
    for document in DOCUMENTS:
        if document != 'CHANGELOG.md':  # It has former names.
            code = [block.text for block in blocks(document)] + re.findall(r'(?<!`)`([^`\n]+)`(?!`)', read(document))
            found += [(document, tuple(words)) for text in code for words in commands_in(text)]
    return sorted(set(found))


def split_words(words):
    """What starts a command, as `python` takes it, and the arguments of its own; a subcommand is of the former."""
    if words[0] == 'sgmg-jax':
        if words[1].startswith('-'):
            return ('-m', 'sgmg_jax'), words[1:]
        assert words[1] in COMMANDS, f'sgmg-jax has no command {words[1]!r}'
        start, rest = (
            ((SCRIPTS[words[1]],) if words[1] in SCRIPTS else ('-m', COMMANDS[words[1]][0].removesuffix('.__main__'))),
            words[2:],
        )
    elif words[1] == '-m':
        start, rest = tuple(words[1:3]), words[3:]
    else:
        start, rest = tuple(words[1:2]), words[2:]
    module = start[-1]
    if module in ('sgmg_jax.score', 'sgmg_jax.convert') and rest and not rest[0].startswith('-'):
        start, rest = (*start, rest[0]), rest[1:]
    return start, rest


def file_of(start):
    if start[0] != '-m':
        return ROOT / start[0]
    module = start[1].removeprefix('sgmg_jax.') if start[1].startswith('sgmg_jax.datasets') else start[1]
    path = ROOT.joinpath(*module.split('.'))
    return path / '__main__.py' if path.is_dir() else path.with_suffix('.py')


@functools.cache
def help_of(start):
    result = subprocess.run([sys.executable, *start, '--help'], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def fields_of(config, prefix='config'):
    """Names of all fields of a config, such as config.data.batch_size, and of its sections."""
    for name in config:
        yield f'{prefix}.{name}'
        value = config.get_oneway_ref(name).get() if isinstance(config, ConfigDict) else None
        if isinstance(value, ConfigDict):
            yield from fields_of(value, f'{prefix}.{name}')


@functools.cache
def fields(experiment):
    return frozenset(fields_of(importlib.import_module(f'configs.{experiment}').get_config()))


def check_flags(start, arguments):
    """Every flag is known to the command; a config exists, and has the mode and the fields that are set."""
    config = next((word.partition('=')[2] for word in arguments if word.startswith('--config=')), None)
    experiment = None
    if config is not None:
        path, _, mode = config.partition(':')
        experiment = pathlib.PurePath(path).stem
        assert experiment in EXPERIMENTS and path in (experiment, f'configs/{experiment}.py'), config
        importlib.import_module(f'configs.{experiment}').get_config(*mode.split(':') if mode else [])
    known = set(re.findall(r'--(?:\[no\])?([a-z][\w-]*)', help_of(start)))
    for word in arguments:
        if word.startswith('--config.'):
            field = word[2:].partition('=')[0]
            assert field in (fields(experiment) if experiment else every_field()), f'{word}: no such field'
        elif word.startswith('--'):
            flag = word[2:].partition('=')[0]
            assert flag in known, f'{" ".join(start)} has no flag --{flag}'


@functools.cache
def every_field():
    return frozenset().union(*map(fields, EXPERIMENTS))


def test_readme_fits_on_150_lines_and_has_links():
    text = read('README.md')
    assert len(text.splitlines()) <= README_LINES
    assert [link for link in LINKS if link not in text] == []


@pytest.mark.parametrize('document', DOCUMENTS)
def test_links_and_images_exist(document):
    for target in re.findall(r'\]\(([^)\s]+)\)', re.sub(r'```.*?```', '', read(document), flags=re.S)):
        if re.match(r'https?://', target):
            continue
        name, _, anchor = target.partition('#')
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), target
        if anchor:
            headings = re.findall(r'^#+ (.+)$', path.read_text(), re.M)
            slugs = [re.sub(r'[\s-]+', '-', re.sub(r'[^\w\s-]', '', heading).strip().lower()) for heading in headings]
            assert anchor in slugs, f'{target}: its headings are {slugs}'


@pytest.mark.parametrize('document', DOCUMENTS)
def test_documents_hold_no_path_of_a_machine(document):
    assert re.findall(r'(?<![\w.~<>{}*])/(?:home|root|work|tmp|mnt|opt|usr|Users)/', read(document)) == []


@pytest.mark.parametrize('document, words', every_command(), ids=lambda value: str(value)[:60])
def test_commands_and_their_flags_exist(document, words):
    start, arguments = split_words(words)
    assert file_of(start).is_file(), f'{document}: there is no {file_of(start).relative_to(ROOT)}'
    if not arguments:
        return
    help_of(start)
    if '--' in arguments:  # What follows goes to train.py.
        cut = arguments.index('--')
        check_flags(('train.py',), arguments[cut + 1 :])
        arguments = arguments[:cut]
    check_flags(start, arguments)
    if start[-1].endswith('datasets.build') and not arguments[0].startswith(('-', '$')):
        assert arguments[0] in help_of(start), arguments[0]


@pytest.mark.parametrize('document', DOCUMENTS)
def test_blocks_of_commands_are_run_by_a_test_or_say_what_they_need(document):
    for block in blocks(document):
        shell = block.language in ('bash', 'sh', 'shell', 'console')
        lines = [words for words in commands_in(block.text)]
        if not shell and not (block.language == '' and lines):
            continue
        if re.match(r'\W*needs: \S', block.before, re.I):
            continue
        tested = [' '.join(words).startswith(tuple(RUN_BY)) for words in lines]
        assert tested and all(tested), (
            f'{document}:{block.line}: no test runs this; write a line "*Needs: ...*" before the block'
        )


def test_what_runs_the_other_blocks_exists():
    for command, test in RUN_BY.items():
        assert command.split()[2] in read(test), test


@pytest.mark.parametrize('document', [name for name in DOCUMENTS if name != 'CHANGELOG.md'])
def test_fields_of_the_config_exist(document):
    named = set(re.findall(r'`(?:--)?(config\.[a-z_]+(?:\.[a-z_]+)*)(?==|`)', read(document)))
    assert {name for name in named - every_field() if not name.endswith(('.py', '.json'))} == set()


def test_every_page_is_in_the_menu():
    menu = read('mkdocs.yml')
    assert [path.name for path in (ROOT / 'docs').glob('*.md') if f': {path.name}' not in menu] == []


def test_code_in_documents_is_python():
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.language == 'python':
                compile(block.text, f'{document}:{block.line}', 'exec')
