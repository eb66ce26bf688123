"""What request analytics can filter, group and measure, for people who build interfaces on them."""

from pydantic import BaseModel, ConfigDict, Field

from api.analytics.filters.fields import FIELDS, INTENTS, Kind, ValueUnit
from api.analytics.filters.fields import Field as TableField


class FieldMeta(BaseModel):
    """One field of the filter language."""

    name: str
    type: Kind
    description: str
    operators: list[str] = Field(
        description="What may stand in `operator`; negative ones also hold where it is absent."
    )
    needs_nested_key: bool = Field(description="True: `nested_key` says which key inside is meant.")
    values: list[str] | None = Field(description="Every value there is, where that can be said.")
    can_group: bool = Field(description="May stand in `groupByField`, `secondaryGroupByField` and `hierarchyFields`.")
    unit: ValueUnit | None = Field(
        description="Set for what may stand in `metricField` and `histogramField`: its unit."
    )


class AnalyticsMeta(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "fields": [
                        {
                            "name": "cost",
                            "type": "numeric",
                            "description": "dollars, fee included",
                            "operators": ["eq", "neq", "gt", "gte", "lt", "lte", "between", "is_null", "is_not_null"],
                            "needs_nested_key": False,
                            "values": None,
                            "can_group": False,
                            "unit": "currency",
                        }
                    ]
                }
            ]
        }
    )

    fields: list[FieldMeta]


def _meta_of(field: TableField) -> FieldMeta:
    words = INTENTS.get(field.name)
    return FieldMeta(
        name=field.name,
        type=field.kind,
        description=field.meaning,
        operators=list(field.operators),
        needs_nested_key=field.kind is Kind.NESTED,
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
