"""The whole product in a real cluster, as its users have it: kubectl, helm, an ingress, pods that die."""
