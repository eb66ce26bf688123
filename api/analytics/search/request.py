"""The body of a search."""

from typing import Annotated

from pydantic import ConfigDict, Field

from api.analytics.request import EXAMPLE_FILTER, RequestLogQuery

MAX_PER_PAGE = 25

Page = Annotated[int, Field(ge=1, strict=True)]
PerPage = Annotated[int, Field(ge=1, le=MAX_PER_PAGE, strict=True)]


class SearchQuery(RequestLogQuery):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"filter_group": EXAMPLE_FILTER, "q": "refund policy", "page": 1, "per_page": 10}]
        }
    )

    page: Page | None = Field(None, description="From 1, the default. Beyond the last page there are no items.")
    per_page: PerPage | None = Field(None, description="10 by default.")
    include_prompt_name: bool | None = Field(None, strict=True, description="Adds `prompt_name` to each item.")

    @property
    def limit(self) -> int:
        return self.per_page or 10

    @property
    def number(self) -> int:
        return self.page or 1
