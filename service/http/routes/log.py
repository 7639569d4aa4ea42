"""`/v1/log`: export and pruning of the observation log."""

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
    summary="Export the log as Parquet",
    response_class=StreamingResponse,
    responses={**responses(404, 422), 200: _FILE},
)
def export_log(
    query: Annotated[LogQuery, Query()], serving: Current, settings: AppSettings
) -> StreamingResponse:
    """
    Export a file in the data format: `unique_id`, `ds`, `y`, covariates, one row per step.

    It can be used for training or be read into another log. With `full` it has every revision.
    """
    return log.parquet(serving, query, settings)


@router.post(
    "/log:prune",
    operation_id="prune_log",
    summary="Remove older steps from the log",
    responses=responses(409, 413, 415, 422, 504),
)
def prune_log(body: PruneRequest, slot: CurrentSlot) -> PrunedLog:
    """
    Remove the steps before `before`, or all but the last `keep_steps`; `dry_run` only counts.

    Forecasts do not change: a base state is kept for each series, from which replays start. Removed
    steps cannot be corrected any more (`data.pruned`), and later models do not see them.
    """
    return log.prune(slot, body)
