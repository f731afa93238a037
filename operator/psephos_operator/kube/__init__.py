"""The Kubernetes API: client, informer, work queue, leader election, events, kinds."""
