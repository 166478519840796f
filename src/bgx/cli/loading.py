"""Finds and loads the network that a command runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from bgx.allocator import keep_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bgx.cli.console import Console
    from bgx.cli.request import Broker, Request
    from bgx.cluster.producer import Cluster
    from bgx.model.opening import PendingSession
    from bgx.model.session import Session
    from bgx.model.store import ModelFile, Store
    from bgx.run.batch import Admission
    from bgx.run.recipe import Recipe
    from bgx.run.report import Report


def find_network(request: Request) -> tuple[ModelFile, Store]:
    """Find or download the network; the store has its copies."""
    from bgx.model.store import Store

    store = Store(request.models)
    return store.resolve(request.model, store.registry(), progress=not request.quiet), store


def open_network(request: Request, *, pictures: int | None) -> PendingSession:
    """Find or download the network, and begin to load it on the requested device.

    pictures: how many will be processed, None if unknown.
    """
    from bgx.model.opening import PendingSession

    keep_memory()
    file, store = find_network(request)
    network = PendingSession(file, request.device, store, pictures=pictures)
    # Imported while the network loads: Pillow, and everything that reads pictures.
    from bgx.image.read import prepare_process

    prepare_process()
    return network


@contextmanager
def open_engine(
    request: Request,
    report: Report,
    console: Console,
    broker: Broker | None,
    *,
    pictures: int | None,
    remote: bool,
    preview: bool = False,
) -> Iterator[tuple[Admission, Recipe]]:
    """Open an engine on this machine, or workers in its place; yields it and the recipe.

    Also sets the report's model, device and precision; with workers, the last two after the block.
    broker: of the workers; None for this machine. pictures: as for :func:`open_network`. remote: as
    for :class:`bgx.run.engine.Engine`. preview: make small pictures for a contact sheet.
    """
    if broker is not None:
        cluster = _open_workers(broker, request, report, console, preview=preview)
        try:
            yield cluster, _make_recipe(request, preview=preview)
        finally:
            cluster.close()
            report.device, report.precision = cluster.ran_on()
        return
    network = open_network(request, pictures=pictures)
    # Imported while the network loads.
    from bgx.run.engine import Engine

    recipe = _make_recipe(request, preview=preview)
    session = network.wait()
    note_network(report, request, session)
    yield Engine(lambda _: session, workers=request.device.workers, remote=remote), recipe


def _make_recipe(request: Request, *, preview: bool) -> Recipe:
    from bgx.run.recipe import Recipe

    return Recipe(request.read, request.output, preview=preview)


def _open_workers(
    broker: Broker, request: Request, report: Report, console: Console, *, preview: bool
) -> Cluster:
    """Connect to the broker whose workers cut the pictures out."""
    from bgx.cluster.order import make_order
    from bgx.cluster.producer import Cluster
    from bgx.model.store import Store

    store = Store(request.models)
    order = make_order(
        store.identify(request.model, store.registry()),
        request.device.precision,
        request.read,
        request.layers,
        create=request.existing == "skip",
        preview=preview,
    )
    report.model = request.model or order.model
    return Cluster(broker.url, broker.queue, order, warn=console.print_error)


def note_network(report: Report, request: Request, session: Session) -> None:
    """Set the report's model, device and precision."""
    report.model = request.model or session.entry.name
    report.device, report.precision = session.device, session.precision
