"""The peer of ingest: aiohttp that does nothing. `python -m bench.peers.noop PORT application|server PATH`.

Both on uvloop, without an access log, and both answer every vote with as many bytes as a receipt has.
`application`: a handler behind the router, as aiohttp's own documentation begins with. `server`: the low-level
server without router, middlewares and application, which is all that ingest uses of aiohttp.
"""

import asyncio
import sys

import uvloop
from aiohttp import web

BACKLOG = 4096  # connections that wait to be accepted: all of a client's come at once
ANSWER = b'{"receipt":"' + b"x" * 240 + b'","partition":1,"offset":1,"receivedAt":"2026-01-01T00:00:00.000Z"}'


async def nothing(request: web.BaseRequest) -> web.Response:
    if request.method == "GET":
        return web.Response()
    return web.Response(body=ANSWER, status=202, content_type="application/json")


async def serve(port: int, kind: str, path: str) -> None:
    if kind == "application":
        application = web.Application()
        application.router.add_post(path, nothing)
        application.router.add_get("/readyz", nothing)
        runner: web.BaseRunner = web.AppRunner(application, access_log=None)
    else:
        runner = web.ServerRunner(web.Server(nothing, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=BACKLOG).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
