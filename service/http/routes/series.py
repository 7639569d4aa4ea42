"""`/v1/series`: what is stored of each series, and its live state."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from service.api import series
from service.api.schemas import RemovedSeries, SeriesDetail, SeriesPage, StateDetail
from service.http.problems import responses
from service.http.routes.dependencies import DOCUMENTED_KEYS, Current

router = APIRouter(prefix="/v1", tags=["series"], dependencies=DOCUMENTED_KEYS)
Name = Annotated[
    str, Path(min_length=1, max_length=200, description="The series; slashes stay as they are.")
]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Search = Annotated[str | None, Query(max_length=200, description="Part of the name; any case.")]


@router.get(
    "/series",
    operation_id="list_series",
    summary="Series with a live state",
    responses=responses(422),
)
def list_series(
    serving: Current, cursor: Cursor = None, limit: Limit = 100, q: Search = None
) -> SeriesPage:
    """Series in the order of their names, one page at a time."""
    return series.page(serving, cursor=cursor, limit=limit, q=q)


@router.get(
    "/series/{unique_id:path}/state",
    operation_id="get_state",
    summary="Where a state stands",
    responses=responses(404, 422),
)
def get_state(unique_id: Name, serving: Current) -> StateDetail:
    """Position, model and origin (live or rebuilt) of a series' state."""
    return series.state(serving, unique_id)


@router.post(
    "/series/{unique_id:path}/state:rebuild",
    operation_id="rebuild_state",
    summary="Replay a series",
    responses=responses(404, 422),
)
def rebuild_state(unique_id: Name, serving: Current) -> StateDetail:
    """Make the state anew from everything the log has of the series."""
    serving.write_queue.rebuild(unique_id)
    return series.state(serving, unique_id)


@router.get(
    "/series/{unique_id:path}",
    operation_id="get_series",
    summary="One series",
    responses=responses(404, 422),
)
def get_series(unique_id: Name, serving: Current) -> SeriesDetail:
    """What the log has of a series: span, filled steps, revisions, static covariates."""
    return series.detail(serving, unique_id)


@router.delete(
    "/series/{unique_id:path}",
    operation_id="delete_series",
    summary="Forget a series",
    responses=responses(404, 422),
)
def delete_series(unique_id: Name, serving: Current) -> RemovedSeries:
    """Take a series away for good: its observations, its revisions and its state."""
    return RemovedSeries(unique_id=unique_id, rows=serving.write_queue.remove(unique_id))
