"""The write side's door: HTTP in, the votes topic out, a receipt back. Never lose a vote, never promise too much.

`gate` (pure) says when a vote may come in and when an acknowledgement came in time; `verifier` and `intake`
(pure) turn a request into a record of the log; `votelog` hands records to Kafka; `doors` and `batch` speak HTTP;
`main` and `supervisor` are the process. The only package that writes to the votes topic (besides the close
markers), and it reads nothing but the control topic.
"""
