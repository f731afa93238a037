"""One reconcile pass of a session: observe, act, apply, report."""
