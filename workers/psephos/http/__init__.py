"""HTTP for the roles that serve it: problems, rate limits, and the parts of an API's description."""
