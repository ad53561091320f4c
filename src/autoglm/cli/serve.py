"""`autoglm serve`: bundles behind REST, gRPC and MQTT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoglm.cli.common import Debug, Json, verb

if TYPE_CHECKING:
    from autoglm.serve.server import Server

Models = Annotated[
    list[str],
    typer.Argument(metavar="MODEL...", help="bundle, folder of bundles, or NAME=PATH"),
]
Http = Annotated[str | None, typer.Option("--http", metavar="HOST:PORT", help="REST address.")]
Grpc = Annotated[str | None, typer.Option("--grpc", metavar="HOST:PORT", help="gRPC address.")]
Mqtt = Annotated[str | None, typer.Option("--mqtt", metavar="URL", help="MQTT broker.")]
Certificate = Annotated[
    Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate chain, PEM.")
]
Key = Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key, PEM.")]
ClientCa = Annotated[
    Path | None,
    typer.Option("--tls-client-ca", metavar="FILE", help="Ask clients for a certificate of it."),
]
MaxBatch = Annotated[int, typer.Option("--max-batch", min=1, help="Rows of one engine run.")]
MaxQueue = Annotated[int, typer.Option("--max-queue", min=1, help="Rows that may wait a model.")]
MaxBytes = Annotated[int, typer.Option("--max-bytes", min=1024, help="Bytes of one request.")]
Memory = Annotated[int, typer.Option("--memory-mb", min=0, help="Of all models; 0 = no limit.")]
Process = Annotated[bool, typer.Option("--process", help="Each engine in its own process.")]
Drain = Annotated[float, typer.Option("--drain-s", min=0, help="Longest wait for open requests.")]
Keys = Annotated[
    Path | None, typer.Option("--keys", metavar="FILE", help="API keys; autoglm keys add NAME.")
]
Jwks = Annotated[
    Path | None, typer.Option("--jwks", metavar="FILE", help="Public keys of a token issuer.")
]
Issuer = Annotated[str, typer.Option("--issuer", metavar="ISS", help="Of the tokens.")]
Audience = Annotated[str, typer.Option("--audience", metavar="AUD", help="Of the tokens.")]
ClientsFile = Annotated[
    Path | None,
    typer.Option("--clients", metavar="FILE", help="Certificates' names, admins, limits."),
]
Rate = Annotated[float, typer.Option("--rate", min=0, help="Requests/s a client; 0 = no limit.")]
CacheMb = Annotated[int, typer.Option("--cache-mb", min=0, help="Kept answers; 0 = none.")]
RedisUrl = Annotated[
    str, typer.Option("--redis", metavar="URL", help="Share kept answers; needs --cache-mb.")
]
Traces = Annotated[
    Path | None, typer.Option("--traces", metavar="FILE", help="For autoglm hotspots; OTLP/JSON.")
]
Otlp = Annotated[str, typer.Option("--otlp", metavar="URL", help="An OpenTelemetry collector.")]
StateFile = Annotated[
    Path | None,
    typer.Option("--state", metavar="FILE", help="Keeps aliases, labels, canaries."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Start only if every model loads.")]
RunTimeout = Annotated[
    float, typer.Option("--run-timeout-s", min=0.1, help="An engine's run that is longer hangs.")
]
RoutesFile = Annotated[
    Path | None, typer.Option("--routes", metavar="FILE", help="Routing table; followed.")
]


def serve(
    models: Models,
    http: Http = None,
    grpc: Grpc = None,
    mqtt: Mqtt = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    tls_client_ca: ClientCa = None,
    max_batch: MaxBatch = 64,
    max_queue: MaxQueue = 1024,
    max_bytes: MaxBytes = 64 << 20,
    memory_mb: Memory = 0,
    process: Process = False,
    drain_s: Drain = 30.0,
    keys: Keys = None,
    jwks: Jwks = None,
    issuer: Issuer = "",
    audience: Audience = "",
    clients: ClientsFile = None,
    rate: Rate = 0.0,
    cache_mb: CacheMb = 0,
    redis: RedisUrl = "",
    traces: Traces = None,
    otlp: Otlp = "",
    routes: RoutesFile = None,
    state: StateFile = None,
    strict: Strict = False,
    run_timeout_s: RunTimeout = 30.0,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Serve bundles over REST, gRPC and MQTT; without an address, REST on 127.0.0.1:8000.

    Ctrl-C or SIGTERM stops listening, answers what was accepted, and ends.
    """
    from autoglm.cli.app import UsageError
    from autoglm.serve.batch import BatchLimits
    from autoglm.serve.cache import CacheOptions
    from autoglm.serve.guard import GuardOptions, Limit, TokenOptions
    from autoglm.serve.guard.clients import Clients, read_clients
    from autoglm.serve.options import Tls, TransportOptions
    from autoglm.serve.server import ServeOptions
    from autoglm.serve.server import serve as run
    from autoglm.serve.telemetry import TelemetryOptions, configure_logs

    if (tls_cert is None) != (tls_key is None) or (tls_client_ca and not tls_cert):
        raise UsageError("--tls-cert and --tls-key are given together, --tls-client-ca with them.")
    if not (bool(jwks) == bool(issuer) == bool(audience)):
        raise UsageError("--jwks, --issuer and --audience are given together.")
    if clients and not (keys or jwks or tls_client_ca):
        raise UsageError("--clients goes with --keys, --jwks or --tls-client-ca.")
    if redis and not cache_mb:
        raise UsageError("--redis shares the answers that --cache-mb keeps; give both.")
    tls = Tls(tls_cert, tls_key, tls_client_ca) if tls_cert and tls_key else None
    given = {"http": http, "grpc": grpc, "mqtt": mqtt}
    addresses = {name: address for name, address in given.items() if address}
    limit = Limit(rate=rate, max_bytes=max_bytes)
    table = read_clients(clients) if clients else Clients()
    options = ServeOptions(
        models,
        addresses or {"http": "127.0.0.1:8000"},
        TransportOptions(tls=tls, max_bytes=max_bytes),
        BatchLimits(max_batch_rows=max_batch, max_queue_rows=max_queue),
        memory_bytes=memory_mb << 20,
        process=process,
        drain_s=drain_s,
        guard=GuardOptions(
            keys,
            TokenOptions(jwks, issuer, audience) if jwks else None,
            certificates=tls_client_ca is not None,
            subjects=table.subjects,
            admins=table.admins,
            limit=limit,
            limits={name: own.over(limit) for name, own in table.limits.items()},
        ),
        cache=CacheOptions(cache_mb << 20, redis=redis) if cache_mb else None,
        telemetry=TelemetryOptions(traces, otlp),
        routes=routes,
        state=state,
        strict=strict,
        run_timeout_s=run_timeout_s,
    )
    configure_logs()
    run(options, lambda server: announce(server, as_json=json))
    _end_what_hangs()
    return 0


def _end_what_hangs() -> None:
    """End the process where the interpreter would wait for ever for a thread in native code."""
    import os
    import sys

    from autoglm.serve.pool.threads import hanging
    from autoglm.toolchain import kill_all

    if hanging():
        kill_all()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def announce(server: Server, *, as_json: bool) -> None:
    """What is served, and where."""
    from autoglm.cli.output import emit_json, finish, note, stdout
    from autoglm.messages import tr

    models = server.gateway.models()
    if as_json:
        rows = [
            {"name": m.name, "version": m.version, "state": m.state, "reason": m.reason}
            for m in models
        ]
        emit_json({"urls": server.urls, "models": rows})
    else:
        for name, url in server.urls.items():
            stdout().write(f"{name:<6}{url}\n")
        for m in models:
            stdout().write(f"{m.name} {m.version}  {m.state}  {', '.join(m.engines)}\n")
    finish()
    if server.warning:
        note(server.warning)
    for m in models:
        if m.state != "ready":
            note(tr("note: {text}", text=f"{m.name} {m.version}: {m.reason}"))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verb(serve))
