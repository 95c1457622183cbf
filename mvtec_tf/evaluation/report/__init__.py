"""Pages, pictures, words and TensorBoard logs of an evaluation."""
