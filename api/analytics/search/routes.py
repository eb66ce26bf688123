from typing import Annotated

from fastapi import APIRouter, Query

from api.analytics.errors import documented
from api.analytics.request import asks_for_content
from api.analytics.search.request import SearchQuery
from api.analytics.search.schemas import SearchAnswer, answer_search
from api.analytics.suggestions import SuggestionAnswer, SuggestionParameters, answer_suggestions
from api.parameters import NoParameters
from api.security.access import Permission
from api.security.auth import limited, require
from api.security.reader import AppReader

router = APIRouter(
    prefix="/api/public/v2/requests",
    tags=["request analytics"],
    responses=documented(400, 401, 403, 422, 429, 500, 503, 504),
)


@router.post("/search", response_model_exclude_unset=True, responses=documented(413), dependencies=[limited("search")])
def search_requests(query: SearchQuery, _: Annotated[NoParameters, Query()], reader: AppReader) -> SearchAnswer:
    """Requests that the filter leaves and whose texts hold the words of `q`, page by page.

    With words and without `sort_by`, texts that have every word as it is go first, then those with longer words, then
    those with typos; each newest first.
    """
    if asks_for_content(query):
        require(reader.caller, Permission.CONTENT)
    return answer_search(reader, query)


@router.get("/suggestions", dependencies=[limited("suggestions")])
def suggest_values(parameters: Annotated[SuggestionParameters, Query()], reader: AppReader) -> SuggestionAnswer:
    """Values of a field that begin with a prefix, in any case, the most frequent first.

    Models, providers and statuses of all time; of everything else those of the newest million requests.
    """
    query = parameters.query
    if parameters.asks_for_content or asks_for_content(query):
        require(reader.caller, Permission.CONTENT)
    return answer_suggestions(reader, parameters, query)
