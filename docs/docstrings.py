"""What docs/generate.py reads of the code: docstrings and signatures, as Markdown."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any, get_type_hints

from docstring_parser import Docstring, DocstringStyle, parse

WIDTH = 100  # of signatures


def hints_of(kind: Any) -> dict[str, Any]:
    """The types of a constructor's arguments."""
    return get_type_hints(kind if dataclasses.is_dataclass(kind) else inspect.unwrap(kind.__init__))


def arguments(kind: Any) -> dict[str, str]:
    """What the docstrings of a class, of its bases and of its constructor say of each argument."""
    told: dict[str, str] = {}
    for base in (*reversed(kind.__mro__), kind.__init__):
        for parameter in docstring(base).params:
            told[parameter.arg_name] = parameter.description or ""
    return told


def docstring(thing: Any) -> Docstring:
    """A docstring of Google's style, in parts; that of the thing itself, none that it inherits."""
    text = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
    return parse(inspect.cleandoc(text or ""), style=DocstringStyle.GOOGLE)


def sentence(thing: Any) -> str:
    """The first line of a docstring."""
    return plain(docstring(thing).short_description or "")


def plain(text: str) -> str:
    """A docstring's text on one line of Markdown."""
    return " ".join(text.split()).replace("``", "`").replace("<", "&lt;") if "`" not in text else code(text)


def code(text: str) -> str:
    """The same where some of it is code, in which a ``<`` stays."""
    parts = re.split(r"(``.+?``)", " ".join(text.split()))
    return "".join(p.replace("``", "`") if p.startswith("``") else p.replace("<", "&lt;") for p in parts)


def members(kind: type) -> Iterator[tuple[str, str]]:
    """The public methods and properties that a class defines itself, with the first line of each docstring."""
    for name, member in vars(kind).items():
        value = isinstance(member, property | cached_property)
        function = getattr(member, "fget", getattr(member, "func", getattr(member, "__func__", member)))
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        call = name if value else signature(name, function, oneline=True)
        yield call, sentence(function)


def signature(name: str, thing: Any, oneline: bool = False) -> str:
    """``name(a: int, b: str = 'x') -> float``, an argument a line where it is too wide."""
    found = inspect.signature(thing)
    parameters = [p for n, p in found.parameters.items() if n not in ("self", "cls")]
    texts = [re.sub(r"<.* at 0x\w+>", "...", str(p.replace(annotation=Verbatim(p.annotation)))) for p in parameters]
    star = next((i for i, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY), None)
    if star is not None and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        texts.insert(star, "*")
    back = found.return_annotation
    end = "" if back is found.empty or inspect.isclass(thing) else f" -> {Verbatim(back)!r}"
    line = f"{name}({', '.join(texts)}){end}"
    short = oneline or len(line) <= WIDTH
    return line if short else f"{name}(\n" + "".join(f"    {text},\n" for text in texts) + f"){end}"


class Verbatim:
    """An annotation that prints as it is written in the source, without quotes and modules."""

    def __new__(cls, annotation: Any) -> Any:
        """The empty annotation stays what it is."""
        return annotation if annotation is inspect.Parameter.empty else super().__new__(cls)

    def __init__(self, annotation: Any):
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        text = re.sub(r"ForwardRef\(.(\w+).\)", r"\1", text)
        self.text = re.sub(r"\b(dxmi[\w.]*|torch|typing|pathlib|collections\.abc)\.(?=\w)", "", text)

    def __repr__(self) -> str:
        return self.text


def prose(found: Docstring) -> Iterator[str]:
    """A docstring as Markdown: text, tables as they are, arguments, what is returned and raised."""
    for text in (found.short_description, found.long_description):
        for paragraph in (text or "").split("\n\n"):
            drawn = paragraph.strip().startswith("===")
            yield from [f"```text\n{paragraph}\n```" if drawn else plain(paragraph)] if paragraph.strip() else []
    items = [f"- `{p.arg_name}`: {plain(p.description or '')}" for p in found.params]
    yield from ["\n".join(items)] if items else []
    if found.returns and found.returns.description:
        yield f"Returns {plain(found.returns.description)}"
    if found.raises:
        yield "Raises:\n\n" + "\n".join(f"- `{r.type_name}`: {plain(r.description or '')}" for r in found.raises)
