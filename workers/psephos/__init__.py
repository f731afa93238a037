"""Psephos: a voting platform that Kubernetes runs."""
