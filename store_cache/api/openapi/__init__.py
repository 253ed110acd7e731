"""The published description of the API: `/openapi.json`, and `/docs`, which shows it."""
