"""The write side's entry: HTTP in, the votes topic out, a receipt back. Never lose a vote, never promise too much.

`gate` (pure) decides when a vote may come in and whether an acknowledgement came in time; `verifier` and `intake`
(pure) turn a request into a record of the log; `votelog` hands records to Kafka; `doors` and `batch` speak HTTP;
`main` and `supervisor` are the process. It is the only package that writes to the votes topic (except for the
close markers), and it reads nothing but the control topic.
"""
