"""`model-manager api`."""

import asyncio
import signal

import uvicorn

from cli.process import check_surroundings, run_async, watch_lifeline
from core.errors import SettingsError
from core.metrics import MetricsServer
from core.settings import Settings
from graph.app import Api
from graph.ws import SocketLimits
from graph.ws_connection import DroppableProtocol


def run(settings: Settings) -> int:
    """Run an API process until it is asked to stop."""
    return run_async(_run(settings))


async def _run(settings: Settings) -> int:
    """Serve; at the end close the sockets first, then the rest."""
    await check_surroundings(settings)
    api = Api(settings)
    server = uvicorn.Server(configuration(settings, api))
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    with MetricsServer(host=settings.host, port=settings.metrics_port):
        serving = asyncio.create_task(_serve(server, settings))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        watch_lifeline()
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            await api.drain()
            server.should_exit = True
        stopping.cancel()
        await serving
    return 0


def configuration(settings: Settings, api: Api) -> uvicorn.Config:
    """Say how uvicorn serves the application: its limits and nothing that it adds of its own."""
    return uvicorn.Config(
        api,
        host=settings.host,
        port=settings.port,
        ws=DroppableProtocol,
        ws_max_size=SocketLimits().frame_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # It would believe whoever is on this machine; `graph/edge.py` asks the settings.
        timeout_graceful_shutdown=3,
    )


async def _serve(server: uvicorn.Server, settings: Settings) -> None:
    """Serve without uvicorn's own signal handling. Raises: SettingsError when the port is taken."""
    try:
        await server._serve()  # noqa: SLF001 - the public one takes the signals that are ours
    except SystemExit as error:
        raise SettingsError(
            f"{settings.host}:{settings.port} (MODEL_MANAGER_HOST, MODEL_MANAGER_PORT) cannot be listened on"
        ) from error
