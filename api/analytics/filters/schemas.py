"""What the list of fields is answered with."""

from pydantic import BaseModel, ConfigDict, Field

from api.analytics.filters.fields import FieldKind, ValueUnit


class FieldMeta(BaseModel):
    """One field of the filter language."""

    name: str = Field(description="What stands in `field` of a filter.")
    type: FieldKind = Field(description="What the field holds; it decides the operators.")
    description: str = Field(description="What it means.")
    operators: list[str] = Field(
        description="What may stand in `operator`; negative ones also hold where it is absent."
    )
    needs_nested_key: bool = Field(description="True: `nested_key` says which key inside is meant.")
    values: list[str] | None = Field(description="Every value there is; null where that cannot be said.")
    can_group: bool = Field(description="May stand in `groupByField`, `secondaryGroupByField` and `hierarchyFields`.")
    unit: ValueUnit | None = Field(
        description="Unit of the field as a metric; null for what may not stand in `metricField` and `histogramField`."
    )


class AnalyticsMeta(BaseModel):
    """The filter language."""

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

    fields: list[FieldMeta] = Field(description="Every field, in the order of the reference.")
