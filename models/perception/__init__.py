"""Models that judge single pictures of a clip, each in one file.

Each has ``check``, which says in one line what is missing before anything starts, and a class that
is built once and then asked about many frames. Weights are never unpickled.
"""
