"""The gateway: the newest frame to everybody who watches, by WebSocket, SSE and GET; receipts; the results page.

It keeps one frame for the whole process and encodes it once. It may read the projection, the control topic and
the ledger, and writes nothing: any number of gateways may serve a session.

`view` and `info` are pure; `feed` follows Redis, `fanout` and `viewers` hand the frame on, `receipts` looks into
the ledger, `routes` is the HTTP surface, `pages` holds the page's files as they are served.
"""
