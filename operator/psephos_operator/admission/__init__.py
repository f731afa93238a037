"""The admission webhook: reviews of sessions before they are stored."""
