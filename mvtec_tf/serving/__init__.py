"""SavedModels: image bytes in, scores out."""
