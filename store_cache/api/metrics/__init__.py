"""What happens in the store, counted: for `GET /metrics` and for the charts of the last hour."""
