from typing import Annotated

from fastapi import APIRouter, Query

from api.alerts import AlertList, AlertParameters, list_alerts
from api.errors import documented
from api.reader import AppReader

router = APIRouter(tags=["budgets"], responses=documented(400, 401, 403, 500, 503, 504))


@router.get("/v1/alerts")
def get_alerts(parameters: Annotated[AlertParameters, Query()], reader: AppReader) -> AlertList:
    """Alerts of budgets and of models' behaviour, newest first. A confined caller sees none."""
    return list_alerts(reader, parameters)
