"""What the list of fields is answered with."""

from pydantic import BaseModel, ConfigDict, Field

from api.analytics.filters.fields import Kind, ValueUnit


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
