"""The gateway: serves the newest frame to all viewers by WebSocket, SSE and GET; receipts; the results page.

It keeps one frame for the whole process and encodes it once. It may read the projection, the control topic and
the ledger, and writes nothing: any number of gateways may serve a session.

`view` and `info` are pure; `feed` follows Redis, `fanout` and `viewers` pass the frame on, `receipts` reads the
ledger, `routes` is the HTTP surface, `pages` holds the page's files as they are served.
"""
