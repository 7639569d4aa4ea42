"""`/v1/series`: stored series and their live states."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from service.api import series
from service.api.schemas import RemovedSeries, SeriesDetail, SeriesPage, StateDetail
from service.http.problems import responses
from service.http.routes.dependencies import DOCUMENTED_KEYS, Current

router = APIRouter(prefix="/v1", tags=["series"], dependencies=DOCUMENTED_KEYS)
Name = Annotated[
    str,
    Path(min_length=1, max_length=200, description="The series; slashes are not encoded."),
]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the previous page.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Search = Annotated[str | None, Query(max_length=200, description="Part of the name, in any case.")]


@router.get(
    "/series",
    operation_id="list_series",
    summary="List series",
    responses=responses(422),
)
def list_series(
    serving: Current, cursor: Cursor = None, limit: Limit = 100, q: Search = None
) -> SeriesPage:
    """List series in the order of their names, one page at a time."""
    return series.page(serving, cursor=cursor, limit=limit, q=q)


@router.get(
    "/series/{unique_id:path}/state",
    operation_id="get_state",
    summary="Describe a state",
    responses=responses(404, 422),
)
def get_state(unique_id: Name, serving: Current) -> StateDetail:
    """Return position, model and origin (live or rebuilt) of the state of a series."""
    return series.state(serving, unique_id)


@router.post(
    "/series/{unique_id:path}/state:rebuild",
    operation_id="rebuild_state",
    summary="Replay a series",
    responses=responses(404, 422),
)
def rebuild_state(unique_id: Name, serving: Current) -> StateDetail:
    """Replay the state from everything the log has of the series."""
    serving.write_queue.rebuild(unique_id)
    return series.state(serving, unique_id)


@router.get(
    "/series/{unique_id:path}",
    operation_id="get_series",
    summary="Describe a series",
    responses=responses(404, 422),
)
def get_series(unique_id: Name, serving: Current) -> SeriesDetail:
    """Return what the log has of a series: span, filled steps, revisions, static covariates."""
    return series.detail(serving, unique_id)


@router.delete(
    "/series/{unique_id:path}",
    operation_id="delete_series",
    summary="Delete a series",
    responses=responses(404, 422),
)
def delete_series(unique_id: Name, serving: Current) -> RemovedSeries:
    """Delete a series for good: its observations, its revisions and its state."""
    return RemovedSeries(unique_id=unique_id, rows=serving.write_queue.remove(unique_id))
