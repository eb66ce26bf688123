"""JSON Schemas of arguments, without what costs a client words and tells it nothing."""

from typing import Any

from pydantic import BaseModel


def schema_of(arguments: type[BaseModel]) -> dict[str, Any]:
    """The schema of the arguments: no titles, no nulls (what is left out is null), every definition in its place."""
    schema = arguments.model_json_schema()
    definitions = schema.pop("$defs", {})
    schema.pop("description", None)
    brief: dict[str, Any] = _brief(schema, definitions)
    return brief


def _brief(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_brief(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        meant = definitions[node["$ref"].rsplit("/", 1)[1]]
        # The description of the use, not that of the class.
        node = {
            **{k: v for k, v in meant.items() if k != "description"},
            **{k: v for k, v in node.items() if k != "$ref"},
        }
    if "anyOf" in node:
        (meant,) = (choice for choice in node["anyOf"] if choice != {"type": "null"})
        rest = {name: value for name, value in node.items() if name != "anyOf"}
        return _brief({**meant, **rest}, definitions)
    return {
        name: {key: _brief(each, definitions) for key, each in value.items()}
        if name == "properties"
        else _brief(value, definitions)
        for name, value in node.items()
        if name not in ("title", "examples") and not (name == "default" and value in (None, [], "", False))
    }
