"""Chat templates: the model's own jinja template, run in jinja2's sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument, InvalidModel, MissingExtra


def read_template(folder: Path) -> str | None:
    """chat_template.jinja, chat_template.json or the entry in tokenizer_config.json; None when there is none."""
    plain = folder / "chat_template.jinja"
    if plain.is_file():
        return plain.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = read_json(folder / name).get("chat_template")
        if isinstance(found, str):
            return found
        if isinstance(found, list):  # several, by name
            named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
            return next((str(named[n]) for n in ("default", *named) if named.get(n)), None)
    return None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one when the file is not there.  Raises InvalidModel when it is damaged."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise InvalidModel(f"{path}: cannot be read as JSON ({e})") from e
    return value if isinstance(value, dict) else {}


def special_tokens(folder: Path) -> dict[str, str]:
    """bos_token, eos_token, … as templates use them."""
    config = read_json(folder / "special_tokens_map.json") | read_json(folder / "tokenizer_config.json")
    found = {}
    for key, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(text, str):
            found[key] = text
    return found


def render(template: str, messages: Sequence[Mapping[str, Any]], tokens: Mapping[str, str], **more: Any) -> str:
    """The prompt of a conversation that the assistant is to continue.

    messages: {'role': …, 'content': …} in order.  Raises InvalidArgument (what the template refuses), InvalidModel (a
    template that does not work or asks for what the sandbox forbids), MissingExtra.
    """
    try:
        from jinja2.exceptions import SecurityError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as e:
        raise MissingExtra("chat templates need jinja2: pip install 'frugal-edge[text]'") from e
    for m in messages:
        if not isinstance(m.get("role"), str) or "content" not in m:
            raise InvalidArgument(f"a message needs 'role' and 'content', got {dict(m)!r}")
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", "jinja2.ext.do"]
    )
    environment.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now(UTC).strftime(form)}
    try:
        values = {"messages": [dict(m) for m in messages], "add_generation_prompt": True, **tokens, **more}
        return environment.from_string(template).render(values)
    except _Refused as e:
        raise InvalidArgument(f"the model's chat template refuses: {e}") from e
    except SecurityError as e:
        raise InvalidModel(f"the model's chat template does what the sandbox forbids: {e}") from e
    except Exception as e:  # a template is a program: any error may come out of it
        raise InvalidModel(f"the model's chat template fails: {type(e).__name__}: {e}") from e


class _Refused(Exception):
    """What raise_exception of a template raises."""


def _refuse(message: str) -> None:
    raise _Refused(message)
