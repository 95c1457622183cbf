"""Limits that flags and looks at data share with the decoder, without TensorFlow's seconds of import."""

# Width x height of the largest image that is decoded unless a flag says otherwise: 300 MB of RGB.
MAX_PIXELS = 100_000_000
