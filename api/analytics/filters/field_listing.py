"""The fields of request analytics as an answer of the API, and as a table for docs/analytics.md."""

from api.analytics.filters.fields import FIELDS, INTENTS, Field, FieldKind
from api.analytics.filters.schemas import AnalyticsMeta, FieldMeta


def _meta_of(field: Field) -> FieldMeta:
    words = INTENTS.get(field.name)
    return FieldMeta(
        name=field.name,
        type=field.kind,
        description=field.meaning,
        operators=list(field.operators),
        needs_nested_key=field.kind is FieldKind.NESTED,
        values=list(words) if words else None,
        can_group=field.can_group,
        unit=field.unit,
    )


ANALYTICS_META = AnalyticsMeta(fields=[_meta_of(field) for field in FIELDS])


def markdown_table() -> str:
    """The table of fields in docs/analytics.md, which a test compares with this."""
    lines = ["| field | type | operators | group | metric | |", "|---|---|---|---|---|---|"]
    for field in FIELDS:
        operators = ", ".join(f"`{name}`" for name in field.operators)
        group, unit = "yes" if field.can_group else "", field.unit or ""
        lines.append(f"| `{field.name}` | {field.kind} | {operators} | {group} | {unit} | {field.meaning} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown_table())
