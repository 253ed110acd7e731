"""One handler for each route of the API."""
