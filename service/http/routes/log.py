"""`/v1/log`: the log itself, read out and pruned."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from service.api import log
from service.api.schemas import LogQuery, PrunedLog, PruneRequest
from service.http.problems import responses
from service.http.routes.dependencies import DOCUMENTED_KEYS, AppSettings, Current, CurrentSlot

router = APIRouter(prefix="/v1", tags=["log"], dependencies=DOCUMENTED_KEYS)
_FILE = {"content": {log.PARQUET: {"schema": {"type": "string", "format": "binary"}}}}


@router.get(
    "/log",
    operation_id="export_log",
    summary="The log as Parquet",
    response_class=StreamingResponse,
    responses={**responses(404, 422), 200: _FILE},
)
def export_log(
    query: Annotated[LogQuery, Query()], serving: Current, settings: AppSettings
) -> StreamingResponse:
    """
    A file in the data format: `unique_id`, `ds`, `y`, covariates, one row a step.

    It is what can be trained on, or read into another log. With `full` it has every revision.
    """
    return log.parquet(serving, query, settings)


@router.post(
    "/log:prune",
    operation_id="prune_log",
    summary="Take older steps out of the log",
    responses=responses(409, 413, 415, 422, 504),
)
def prune_log(body: PruneRequest, slot: CurrentSlot) -> PrunedLog:
    """
    Take out what is older than `before`, or beyond the last `keep_steps`; `dry_run` only counts.

    Forecasts stay what they are: a state stays for each series from which a replay goes on. What
    is taken out cannot be corrected any more (`data.pruned`), and a model that comes later never
    sees it.
    """
    return log.prune(slot, body)
