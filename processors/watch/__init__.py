"""The watch's rules: whether access ended on time. Pure: facts and a time in, findings out."""
