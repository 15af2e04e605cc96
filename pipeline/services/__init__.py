"""Use cases that the command line and the API call, one function each."""
