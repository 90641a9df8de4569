"""How hypothesis looks for examples: the same ones in each run, unless somebody wants new ones.

``--hypothesis-profile=explore`` (``make laws``) tries many more, and others each time.
"""

from hypothesis import settings

settings.register_profile("repeatable", max_examples=50, derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("repeatable")
