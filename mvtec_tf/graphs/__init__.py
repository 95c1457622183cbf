"""SavedModels: writing them, what they answer to, and scores read back from them."""
