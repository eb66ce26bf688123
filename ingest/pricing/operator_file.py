"""The operator's file: YAML, checked whole before any of it is used."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from aggregator.errors import InsightsError
from ingest.pricing import catalogue
from ingest.pricing.operator_prices import FeeEntry, PriceEntry, PriceFile, TierEntry
from ingest.pricing.price_book import PriceBook

# What may stand where, to name it when something else does.
MODELS: dict[tuple[str, ...], type[BaseModel]] = {
    (): PriceFile,
    ("prices",): PriceEntry,
    ("prices", "tiers"): TierEntry,
    ("fees",): FeeEntry,
}


class PriceFileError(InsightsError):
    """The operator's file cannot be used: the message names the file, each line and what is wrong there. The
    prices that were in force stay in force."""


def load(path: Path) -> PriceBook:
    """The catalogue's prices with the file's before them. Raises PriceFileError; half a file is never used."""
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise PriceFileError(f"{path}: cannot be read: {error}") from error
    digest = sha256(text.encode()).hexdigest()[:12]
    return PriceBook(parse(text, str(path)), version=f"{catalogue.VERSION} operator {digest}")


def parse(text: str, name: str) -> PriceFile:
    """The entries in `text`; `name` is what messages call the file. Raises PriceFileError."""
    root = _tree(text, name)
    try:
        return PriceFile.model_validate(_plain(root, name, set()))
    except ValidationError as error:
        problems = [f"{name} line {_line_of(root, each['loc'])}: {_reason(each)}" for each in error.errors()]
        raise PriceFileError("\n".join(problems)) from None


def _reason(problem: ErrorDetails) -> str:
    field = ".".join(map(str, problem["loc"])) or "the file"
    if problem["type"] == "extra_forbidden":
        place = MODELS[tuple(step for step in problem["loc"][:-1] if isinstance(step, str))]
        return f"{field}: is not known here; allowed are {', '.join(sorted(place.model_fields))}"
    if problem["type"] == "model_type":
        place = MODELS[tuple(step for step in problem["loc"] if isinstance(step, str))]
        return f"{field}: must be a mapping of {', '.join(sorted(place.model_fields))}"
    return f"{field}: {problem['msg'].removeprefix('Value error, ')}"


def _tree(text: str, name: str) -> yaml.Node:
    try:
        root = _compose(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PriceFileError(f"{name} line {line}: {' '.join(filter(None, (error.context, error.problem)))}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise PriceFileError(f"{name}: is not YAML: {error}") from None
    if root is None:
        # An empty file is more likely one that is being written than a wish to drop all prices.
        raise PriceFileError(f"{name}: is empty; a file without prices says `prices: []`")
    return root


def _compose(text: str) -> yaml.Node | None:
    """By libyaml where it is there, in a fraction of the time; mistakes are found again by the loader in Python, which
    knows their lines better. Raises YAMLError."""
    try:
        return yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return yaml.compose(text, Loader=yaml.SafeLoader)


def _plain(node: yaml.Node, name: str, seen: set[int], depth: int = 0) -> Any:
    """Dicts, lists and text: YAML's own numbers would turn money into floats. `seen` are the nodes that were read: what
    an alias stands for is the same node again, and aliases of aliases would make a few lines endless."""
    if depth > 10:
        raise PriceFileError(f"{name} line {node.start_mark.line + 1}: is nested too deep")
    if id(node) in seen:
        raise PriceFileError(f"{name} line {node.start_mark.line + 1}: an alias stands for this; write it out there")
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, name, seen, depth + 1) for item in node.value]
    if not isinstance(node, yaml.MappingNode):
        return node.value
    plain: dict[str, Any] = {}
    for key, value in node.value:
        if key.value in plain:
            raise PriceFileError(f"{name} line {key.start_mark.line + 1}: {key.value} is given twice")
        plain[str(key.value)] = _plain(value, name, seen, depth + 1)
    return plain


def _line_of(node: yaml.Node, path: tuple[int | str, ...]) -> int:
    """The line that `path` leads to; for something missing, the line of what should have it."""
    line = node.start_mark.line
    for step in path:
        if isinstance(node, yaml.SequenceNode):
            node = node.value[int(step)]
            line = node.start_mark.line
        elif isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == step), None)
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
    return line + 1
