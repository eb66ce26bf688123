"""The body of a search."""

from typing import Annotated

from pydantic import ConfigDict, Field

from api.analytics.request import EXAMPLE_FILTER, RequestLogQuery

MAX_PER_PAGE = 25

Page = Annotated[int, Field(ge=1, strict=True)]
PerPage = Annotated[int, Field(ge=1, le=MAX_PER_PAGE, strict=True)]


class SearchQuery(RequestLogQuery):
    """A page of the requests that a filter leaves and whose texts have the words."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"filter_group": EXAMPLE_FILTER, "q": "refund policy", "page": 1, "per_page": 10}]
        }
    )

    page: Page | None = Field(
        None, description="Number of the page, from 1, the default. Beyond the last page there are no items."
    )
    per_page: PerPage | None = Field(None, description="Items of a page at most; 10 by default.")
    include_prompt_name: bool | None = Field(
        None, strict=True, description="True adds `prompt_name` to each item; false by default."
    )

    @property
    def limit(self) -> int:
        return self.per_page or 10

    @property
    def number(self) -> int:
        return self.page or 1
