"""The routes of tracking_api, one module per noun. Thin: read, ask the store, answer."""
