"""HTTP as each role serves it: problems, rate limits, and the parts of an API's description."""
